"""Which rate is taken and how sure that is: cliffs, held-out samples, chance, repeats that are not independent."""
import math
import types

import numpy as np
import pytest

from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer, one_hot
from fastnet.sweep import choose, lr_sweep
from fastnet.sweep.choice.errors import as_normal, errors, normal_quantile, not_worse
from fastnet.sweep.choice.metrics import Metric, metric_of
from fastnet.sweep.choice.suggestion import suggestion_of
from fastnet.sweep.choice.table import Candidate, Table
from fastnet.sweep.spec import Setting
from tests.sweeps import network, small

ACCURACY = Metric("val_accuracy", 1)


def right(rng, mean, seeds, samples, scatter=0.1):
    """Which of the samples are right, by rate and seed: some samples are hard for all, some for some rates."""
    k = len(mean)
    value = (rng.normal(size=(1, 1, samples)) + 0.3 * rng.normal(size=(k, 1, samples))
             + scatter * rng.normal(size=(k, seeds, 1)) + 0.6 * rng.normal(size=(k, seeds, samples)))
    limit = np.array([math.sqrt(1 + 0.09 + scatter**2 + 0.36) * normal_quantile(m) for m in mean])
    return (value < limit[:, None, None]).astype(np.float32)


def table(cells, guess=None, known=True):
    """The table of candidates with these values, by seed and sample."""
    k, seeds, _ = cells.shape
    candidates = [Candidate(Setting(), 0.01 * 2**i) for i in range(k)]
    samples = {(i, j): cells[i, j] for i in range(k) for j in range(seeds)} if known else {}
    return Table(ACCURACY, candidates, cells.mean(2).astype(float), [(seed, 0) for seed in range(seeds)],
                 tuple(lr for _, lr in candidates), samples, guess=guess)


@pytest.mark.parametrize("seeds", [3, 5, 20, 80])
@pytest.mark.parametrize("mean", [[0.6, 0.66, 0.7, 0.7, 0.69, 0.6], [0.7] * 5, [0.6, 0.65, 0.7, 0.4]], ids=str)
def test_the_best_rate_is_in_the_set_however_many_seeds_there_are(seeds, mean):
    """The best by many samples, not on these 40: 95 in a hundred, and these hundred draws allow 90."""
    rng = np.random.default_rng(seeds)
    best = int(np.argmax(mean))
    inside = [suggestion_of(table(right(rng, mean, seeds, 40))) for _ in range(100)]
    assert sum(any(c.lr == 0.01 * 2**best for c in one.equals) for one in inside) >= 90


def test_without_samples_more_seeds_would_shrink_it_around_these_samples():
    rng = np.random.default_rng(0)
    cells = [right(rng, [0.68, 0.7, 0.69], 80, 30) for _ in range(30)]
    sizes = [[len(suggestion_of(table(one, known=known)).equals) for one in cells] for known in (True, False)]
    assert np.mean(sizes[0]) > 2.5 > 1.8 > np.mean(sizes[1])
    assert "on these 30 held-out samples" in suggestion_of(table(cells[0])).explanation()
    assert "Errors count seeds alone" in suggestion_of(table(cells[0], known=False)).explanation()


@pytest.mark.parametrize("mean, within", [([0.6, 0.66, 0.7, 0.7, 0.69], 0.1), ([0.7] * 5, 0.1), ([0.5, 0.6, 0.7], 0.15),
                                          ([0.55, 0.65, 0.7, 0.4], 0.15)], ids=str)
def test_otherwise_is_how_often_other_seeds_choose_otherwise(mean, within):
    """As far as five seeds can tell: where others hardly ever do, what they say can only be too much."""
    rng = np.random.default_rng(1)
    said, really = [], []
    for _ in range(80):
        cells = right(rng, mean, 65, 60, scatter=0.25)
        one = suggestion_of(table(cells[:, :5]))
        others = cells[:, 5:].reshape(len(mean), 12, -1).mean(2).argmax(0)
        said.append(one.otherwise)
        really.append(np.mean([one != 0.01 * 2**other for other in others]))
    assert abs(np.mean(said) - np.mean(really)) < within


def test_enough_is_what_the_worst_pair_says():
    """Two rates that agree in every seed, and one that jumps: its error counts, not the median one."""
    jumps = np.array([0.2, -0.2, 0.1, -0.1, 0.0])
    values = np.array([np.full(5, 0.7), np.full(5, 0.7) + 1e-3 * jumps, np.full(5, 0.7) - 1e-3 * jumps, 0.7 + jumps])
    found = suggestion_of(table(values[:, :, None], known=False))
    assert len(found.equals) == 4 and not found.enough and found.needed > 100


def test_more_seeds_do_not_help_where_samples_are_few():
    found = suggestion_of(table(right(np.random.default_rng(2), [0.7, 0.7, 0.7], 20, 30)))
    assert not found.enough and found.needed is None and "give more held-out samples" in found.explanation()


def test_one_seed_has_the_error_of_its_samples_and_one_rate_no_comparison():
    cells = right(np.random.default_rng(3), [0.5, 0.7], 1, 100)
    one = suggestion_of(table(cells))
    p = cells[1].mean()
    assert one.error == pytest.approx(math.sqrt(p * (1 - p) / 99)) and not one.enough and math.isnan(one.otherwise)
    alone = suggestion_of(table(cells[1:]))
    assert "no other rate to compare" in alone.explanation() and "All others" not in alone.explanation()


def test_equal_trials_have_no_error_of_rounding():
    values = np.array([[[0.7], [0.7], [0.7]], [[0.1], [0.1], [0.1]]]) + 1e-17
    assert suggestion_of(table(values)).error == 0 and "e-1" not in suggestion_of(table(values)).explanation()


def test_a_cliff_does_not_drag_the_best_rate_under_nor_blind_noise_the_choice():
    rng = np.random.default_rng(4)
    mean = [0.6, 0.62, 0.64, 0.66, 0.7, 0.35]
    chosen = [float(suggestion_of(table(right(rng, mean, 5, 300, scatter=0.05)))) for _ in range(40)]
    assert np.mean(np.isclose(chosen, 0.16)) > 0.9


@pytest.mark.parametrize("k, seeds, samples", [(1, 1, 1), (2, 1, 1), (2, 3, 1), (3, 1, 9), (4, 5, 7)])
def test_errors_are_those_of_the_definition(k, seeds, samples):
    cells = np.random.default_rng(k).normal(size=(k, seeds, samples))
    found = errors(cells)
    for i in range(k):
        for j in range(k):
            d = cells[i] - cells[j]
            a = d.mean(1).var(ddof=1) / seeds if seeds > 1 else 0
            b = d.mean(0).var(ddof=1) / samples if samples > 1 else 0
            rest = d - d.mean(1, keepdims=True) - d.mean(0) + d.mean()
            c = (rest**2).sum() / max(1, (seeds - 1) * (samples - 1)) / seeds / samples
            a = max(a, c) if seeds > 1 else a
            assert found.variance[i, j] == pytest.approx(max(a + b - c, a, b), abs=1e-12)
    assert not_worse(cells.mean((1, 2)), found, 0.95).any()


def test_deviates():
    assert normal_quantile(0.975) == pytest.approx(1.959964, abs=1e-5)
    assert as_normal(np.array([2.228, 1.96]), np.array([10.0, 1e9])) == pytest.approx([1.96, 1.96], abs=0.01)


# --- chance -------------------------------------------------------------------------------------------------------------


def chance(n, shuffled, scale=1.0):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, n)
    x = (rng.normal(size=(n, 12)) + 1.5 * rng.normal(size=(4, 12))[labels]) * scale
    return x.astype(np.float32), rng.permutation(labels) if shuffled else labels


def swept(x, labels, **more):
    options = dict(lrs="0.01:0.3:log4", epochs=8, batch_size=16, seeds=3, validation=(x[200:], labels[200:]), progress=False)
    return lr_sweep(network(12, 32, 4), x[:200], one_hot(labels[:200], 4), **options | more)


def test_nothing_learned_is_said_and_why():
    shuffled = swept(*chance(500, True), epochs=40)
    with pytest.warns(UserWarning, match="No rate learned more than guessing"):
        found = shuffled.suggest()
    assert not found.learned and "y was not shuffled" in found.explanation()
    tiny = swept(*chance(500, False, scale=1e-6), lrs="1e-4:1e-2:log3").suggestion()
    assert not tiny.learned and "scaled to about 1" in tiny.explanation() and "training loss did fall" not in tiny.explanation()
    learned = swept(*chance(500, False))
    assert learned.suggestion().learned and "<- suggested" in repr(learned)
    assert learned.suggestion("val_loss").learned and not shuffled.suggestion("val_loss").learned


def test_a_journal_knows_what_guessing_gets(tmp_path):
    from fastnet.sweep import SweepResult

    first = swept(*chance(500, True), resume=tmp_path / "s.jsonl")
    assert repr(SweepResult.load(tmp_path / "s.jsonl")) == repr(first)


# --- repeats that are not independent -----------------------------------------------------------------------------------


def fixed(rng):
    rng = np.random.default_rng(0)
    return Sequential((FullLayer(12, 5, np.float32, rng), ReluLayer(), FullLayer(5, 3, np.float32, rng), SoftMaxLayer()),
                      loss=CrossEntropyLayer())


def seeded(rng):
    np.random.seed(0)
    return Sequential((FullLayer(12, 3, np.float32), SoftMaxLayer()), loss=CrossEntropyLayer())


@pytest.mark.parametrize("build", [fixed, seeded])
def test_seeds_that_start_alike_are_refused(build):
    with pytest.raises(ValueError, match=r"seeds 0 and 1 the same first weights.*give shuffle=True or seeds=1"):
        lr_sweep(**small(build=build))
    lr_sweep(**small(build=build, shuffle=True))
    lr_sweep(**small(build=build, seeds=1))


def test_a_build_without_argument_is_told_what_to_write():
    with pytest.raises(TypeError, match=r"build must take one argument.*def build\(rng\)"):
        lr_sweep(**small(build=lambda: None))
    with pytest.raises(TypeError, match="inside"):  # an error of its own is not hidden
        lr_sweep(**small(build=lambda rng: (_ for _ in ()).throw(TypeError("inside"))))


# --- finished studies ---------------------------------------------------------------------------------------------------


ROWS = [{"alpha": lr, "dropout": d, "seed": s, "f1": 0.9 - abs(np.log10(lr / 0.1)) / 10 - d / 10 + 0.002 * s * (1 if d else -1)}
        for lr in (0.01, 0.1, 1.0) for d in (0.0, 0.5) for s in range(3)]


@pytest.mark.filterwarnings("ignore:SweepResult.suggest")
def test_choose_takes_tables_of_any_kind():
    pandas = pytest.importorskip("pandas")
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    for given in (ROWS, columns, pandas.DataFrame(ROWS)):
        found = choose(given, lr="alpha", params=["dropout"], metric="f1")
        assert (float(found), found.dropout, found.trials) == (0.1, 0.0, 3)
    assert choose(ROWS, ("f1", "min"), lr="alpha", params=["dropout"]).dropout == 0.5
    result = lr_sweep(**small())
    assert choose(result.to_pandas()) == 0.3 == choose(result)


def test_choose_takes_studies_of_optuna():
    trials = [types.SimpleNamespace(params={"lr": lr, "depth": 2}, user_attrs={"seed": seed}, value=abs(lr - 0.1) + 0.01 * seed,
                                    state=types.SimpleNamespace(name=state))
              for lr in (0.01, 0.1, 0.3) for seed, state in ((0, "COMPLETE"), (1, "COMPLETE"), (2, "PRUNED"))]
    study = types.SimpleNamespace(trials=trials, direction=types.SimpleNamespace(name="MINIMIZE"))
    found = choose(study)
    assert (float(found), found.depth, found.trials, found.metric) == (0.1, 2, 2, "value")


def test_choose_takes_tables_that_optuna_made():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame([{"number": i, "value": abs(lr - 0.1) + 0.01 * seed, "params_learning_rate": lr, "user_attrs_seed": seed,
                               "state": "COMPLETE" if seed else "PRUNED"} for i, lr in enumerate((0.01, 0.1, 0.3)) for seed in (0, 1, 2)])
    found = choose(frame, ("value", "min"))
    assert float(found) == 0.1 and found.trials == 2


def test_choose_counts_samples_and_leaves_diverged_rates_out():
    cells = right(np.random.default_rng(5), [0.5, 0.7, 0.9], 3, 50)
    rows = [{"lr": 10.0**i, "seed": j, "val_accuracy": cells[i, j]} for i in range(3) for j in range(3)]
    found = choose(rows)
    assert found == 100 and found.samples == 50
    rows[-1]["status"] = "diverged"
    assert choose(rows) == 10 and choose([*rows, {"lr": 10.0, "seed": 7, "val_accuracy": math.nan}]) == 1


def test_seeds_that_no_two_rates_share_are_counted():
    rows = [{"lr": lr, "seed": seed, "loss": lr + 0.001 * (seed % 3)} for lr, first in ((0.1, 0), (0.2, 3), (0.4, 6))
            for seed in range(first, first + 3)]
    assert choose(rows).trials == 3 and choose(rows).rates == (0.1,)
    better = [{"lr": 0.01, "seed": 9, "loss": 0.01}, {"lr": 0.01, "seed": 10, "loss": 0.011}]
    assert choose(rows + better) == 0.01


def test_equal_rows_of_all_seeds_count_as_one():
    rows = [{"lr": lr, "seed": seed, "loss": lr} for lr in (0.1, 0.2, 0.3) for seed in range(5)]
    assert choose(rows).trials == 1


@pytest.mark.parametrize("rows, options, words", [
    ([{"lr": 1, "loss": 1, "seed": 0}] * 2, {}, "two rows for rate 1, seed 0"), ([], {}, "no finished trial"), (3, {}, "got int"),
    ([{"rate": 1, "loss": 1}], {}, "no column 'lr'"), ([{"lr": 1, "speed": 1}], {}, "[Ss]ay what to judge by"),
    ([{"lr": "fast", "loss": 1}], {}, "has no rate"), ([{"lr": 0, "loss": 1}], {}, "has no rate above 0"),
    ([{"lr": 1, "loss": math.nan}], {}, "choose: every rate diverged: 1"), ({"lr": [1], "loss": [1, 2]}, {}, "different lengths"),
    ([{"lr": 1, "loss": 1}], {"metric": "best_loss"}, "no column 'best_loss'. There is: 'loss'"),
    ([{"lr": 1, "seed": 0, "f1": 1}], {}, "no column val_accuracy, val_loss or loss.*There is: 'f1'"),
    ([{"lr": 1, "seed": 0, "loss": 1}], {"metric": "seed"}, "no column 'seed'"),
    ([{"lr": 1, "seed": 0, "loss": "n/a"}], {}, "no number in its column 'loss'"),
], ids=str)
def test_choose_says_what_is_wrong(rows, options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        choose(rows, **options)


def test_choose_takes_tables_as_groupby_leaves_them():
    pandas = pytest.importorskip("pandas")
    rows = [{"learning_rate": lr, "seed": seed, "loss": abs(lr - 0.1) + 0.01 * seed} for lr in (0.01, 0.1, 1) for seed in (0, 1)]
    assert choose(pandas.DataFrame(rows).groupby(["learning_rate", "seed"]).mean()) == 0.1


def test_what_diverged_is_not_called_worse():
    rows = [{"lr": lr, "seed": seed, "loss": math.nan if lr == 0.2 else lr + 0.01 * seed} for lr in (0.1, 0.2, 0.3) for seed in (0, 1)]
    assert "worse, beyond chance, or diverged." in choose(rows).explanation()


@pytest.mark.parametrize("name, sign", [("val_acc", 1), ("top1_accuracy", 1), ("mse", -1), ("valid_loss", -1), ("macro_f1", 1)])
def test_names_that_say_what_is_best(name, sign):
    assert metric_of("test", name, [name]).sign == sign


@pytest.mark.filterwarnings("ignore:SweepResult.suggest")
def test_losses_of_single_samples_are_kept_where_the_loss_judges():
    result = lr_sweep(**small(metric="val_loss", lrs=[0.02, 0.3]))
    for record in result.records.values():
        assert record.samples["val_loss"].mean() == pytest.approx(record.val_losses[-1], rel=1e-5)
    assert result.suggest().samples == 10 and result.suggest("val_accuracy").samples == 0


@pytest.mark.parametrize("engine", ["gram", "windows", "fused", "layers"])
def test_samples_are_those_of_the_mean(engine, tmp_path):
    options = small(lrs=[0.02, 0.3], engine=engine, epochs=20, folds=0)
    result = lr_sweep(**options, resume=tmp_path / "s.jsonl", keep_states=True)
    for record in result.records.values():
        assert record.samples["val_accuracy"].mean() == pytest.approx(np.mean(record.val_accuracies[-3:]), abs=1e-6)
    longer, whole = lr_sweep(**options | {"epochs": 21}, resume=tmp_path / "s.jsonl", keep_states=True), lr_sweep(**options | {"epochs": 21})
    for trial, record in whole.records.items():
        np.testing.assert_array_equal(longer.records[trial].samples["val_accuracy"], record.samples["val_accuracy"])
