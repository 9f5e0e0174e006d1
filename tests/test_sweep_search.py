"""Cross-validation, other hyperparameters, successive halving, a grid that finds itself: all to the bits of single fits."""
import itertools
import signal
from types import SimpleNamespace

import numpy as np
import pytest

from fastnet import one_hot
from fastnet.sweep import SweepResult, lr_sweep
from fastnet.sweep.choice.metrics import Metric
from fastnet.sweep.choice.table import Candidate
from fastnet.sweep.record import Record
from fastnet.sweep.run import shared as shared_module
from fastnet.sweep.run.folds import held_out, rows_of
from fastnet.sweep.run.prefixes import Fork, blocks, forks
from fastnet.sweep.run.range_test import range_test
from fastnet.sweep.run.schedules import multipliers
from fastnet.sweep.run.search import _levels, _not_slowest
from fastnet.sweep.run.session import Session
from fastnet.sweep.run.trial import Trials
from fastnet.sweep.spec import Spec
from tests.sweeps import assert_same, build, case, data, network, small, trial_lines

ACCURACY = Metric("val_accuracy", 1)

# --- folds -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, folds", [(50, 5), (53, 4), (7, 7), (9, 2)])
def test_folds_are_shuffled_stratified_and_the_same_each_time(n, folds):
    labels = np.random.default_rng(n).choice(3, n, p=[0.6, 0.3, 0.1])
    fold_of = held_out(one_hot(labels, 3), folds)
    assert set(fold_of) == set(range(1, folds + 1))
    for counts in [np.bincount(fold_of)[1:], *(np.bincount(fold_of[labels == k], minlength=folds + 1)[1:] for k in range(3))]:
        assert np.ptp(counts) <= 1
    np.testing.assert_array_equal(fold_of, held_out(one_hot(labels, 3), folds))
    assert len(set(np.diff(np.flatnonzero(fold_of == 1)))) > 1 or n < 20
    for fold in range(1, folds + 1):
        train, out = rows_of(fold_of, fold)
        np.testing.assert_array_equal(np.sort(np.concatenate([train, out])), np.arange(n))


@pytest.mark.parametrize("options", [{}, {"shuffle": True, "momentum": 0.9, "weight_decay": 0.1}], ids=str)
@pytest.mark.parametrize("engine", ["gram", "windows", "fused", "layers"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_folds_are_separate_fits_to_rounding(engine, options, dtype):
    x, y, _ = data(61, dtype=dtype)
    make = network(12, 17, 3, dtype=dtype)
    result = lr_sweep(make, x, y, [0.05, 0.3], 3, 16, seeds=[0, 4], folds=3, engine=engine, progress=False, **options)
    assert result.losses.shape == (2, 2, 3, 3) and list(result.axes) == ["lr", "seed", "fold"]
    fold_of = held_out(y, 3)
    exact = 2e-5 if dtype == np.float32 else 1e-12
    for (i, lr), (j, seed), fold in itertools.product(enumerate(result.lrs), enumerate(result.seeds), (1, 2, 3)):
        train, out = rows_of(fold_of, fold)
        model = make(np.random.default_rng(seed))
        losses = model.fit(x[train], y[train], 3, lr, 16, engine=engine, validation=(x[out], y[out]),
                           **{**options, **({"rng": seed} if "shuffle" in options else {})})
        np.testing.assert_allclose(result.losses[i, j, fold - 1], losses, rtol=exact)
        np.testing.assert_allclose(result.val_losses[i, j, fold - 1], model.history.val_losses, rtol=exact)


@pytest.mark.filterwarnings("ignore:SweepResult.suggest")
def test_folds_share_one_gram_matrix(monkeypatch):
    x, y, _ = data()
    made = []

    def counted(x, original=shared_module.gram_matrix):
        made.append(len(x))
        return original(x)

    monkeypatch.setattr(shared_module, "gram_matrix", counted)
    result = lr_sweep(build, x, y, "0.05:0.5:log3", 2, 16, seeds=2, folds=5, engine="gram", test=(x[:9], y[:9]))
    assert made == [70] and result.suggest().trials == 10
    assert result.accuracies.shape == (3, 2, 5) and np.isfinite(result.accuracies).all()
    assert result.best_model().history.epochs == 2
    again = result.best_model(0.5, seed=1, fold=2)
    np.testing.assert_allclose(again.history.losses, result.losses[2, 1, 1], rtol=2e-5)


@pytest.mark.parametrize("wrong, words", [({"folds": 1}, "from 2 to the number of samples"), ({"folds": 71}, "got 71"),
                                          ({"folds": 2.5}, "whole number"), ({"folds": 3, "validation": (1, 2)}, "either")])
def test_wrong_folds(wrong, words):
    x, y, _ = data()
    with pytest.raises((ValueError, TypeError), match=words):
        lr_sweep(build, x, y, [0.1], 1, **wrong)


# --- other hyperparameters ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:SweepResult.suggest")
def test_all_combinations_are_single_fits(tmp_path):
    drop = [1.0, 1.0, 0.5, 0.1]
    arguments = small(lrs=[0.02, 0.2], batch_size=[8, 16], momentum=[0, 0.9], weight_decay=[0, 0.1], test=None,
                      schedule={"constant": "constant", "drop": lambda epoch: drop[epoch]}, seeds=1, engine="gram")
    result = lr_sweep(**arguments, resume=tmp_path / "sweep.jsonl")
    assert list(result.axes) == ["batch_size", "momentum", "weight_decay", "schedule", "lr", "seed"]
    assert result.losses.shape == (2, 2, 2, 2, 2, 1, 4)
    for at in [(0, 0, 0, 0, 0), (1, 1, 0, 1, 1), (0, 1, 1, 0, 1), (1, 0, 1, 1, 0)]:
        batch, momentum, decay, schedule, lr = (values[i] for values, i in zip(result.axes.values(), at))
        model = build(np.random.default_rng(0))
        losses = model.fit(arguments["x"], arguments["y"], 4, (lambda e, lr=lr: lr * drop[e]) if schedule == "drop" else lr,
                           batch, engine="gram", momentum=momentum, weight_decay=decay)
        np.testing.assert_array_equal(result.losses[(*at, 0)], losses)
        assert result.score(lr, "loss", batch_size=batch, momentum=momentum, weight_decay=decay,
                            schedule=schedule).mean == losses[-1]
    suggested = result.suggest()
    assert suggested.batch_size in (8, 16) and suggested.schedule in ("constant", "drop")
    assert result.suggest(batch_size=8, schedule="drop").setting.asdict()["batch_size"] == 8
    model = result.best_model(suggested)
    rows = [row for row in result.rows() if all(row[f] == value for f, value in suggested.setting)
            and row["lr"] == suggested]
    assert model.history.losses[-1] == rows[0]["loss"]
    assert len(trial_lines(tmp_path / "sweep.jsonl")) == result.finished == 32
    assert_same(SweepResult.load(tmp_path / "sweep.jsonl"), result)
    with pytest.raises(ValueError, match=r"say which one: batch_size=8 or 16; momentum=0\.0 or 0\.9"):
        result.score(0.02)
    with pytest.raises(ValueError, match=r"there is no batch size 64\. There is: 8, 16"):
        result.suggest(batch_size=64)
    figure = result.plot()
    assert len(figure.axes) == 6 * 3 and any("best 6 of 16" in text.get_text() for text in figure.texts)
    limits = {axes.get_ylim() for axes in figure.axes[2::3]}
    assert len(limits) == 1  # networks and settings are compared by eye


def test_the_table_is_tidy():
    pytest.importorskip("pandas")
    frame = lr_sweep(**small(lrs=[0.02, 0.2], batch_size=[8, 16], momentum=[0, 0.9], test=None)).to_pandas()
    assert list(frame.columns[:5]) == ["lr", "seed", "batch_size", "momentum", "status"] and len(frame) == 16
    assert not frame.duplicated(["lr", "seed", "batch_size", "momentum"]).any()


@pytest.mark.filterwarnings("ignore:SweepResult.suggest")
@pytest.mark.parametrize("engine", ["fused", "layers"])
def test_optimizers_are_combined_with_rates(tmp_path, engine):
    arguments = small(lrs=[0.003, 0.03], optimizer=["sgd", "adam"], weight_decay=0.01, seeds=1, test=None, engine=engine)
    result = lr_sweep(**arguments, resume=tmp_path / "sweep.jsonl")
    assert result.axes["optimizer"] == ("sgd", "adam") and result.losses.shape == (2, 2, 1, 4)
    for (i, optimizer), (j, lr) in itertools.product(enumerate(["sgd", "adam"]), enumerate(result.lrs)):
        losses = build(np.random.default_rng(0)).fit(arguments["x"], arguments["y"], 4, lr, 16, engine=engine,
                                                     optimizer=optimizer, weight_decay=0.01)
        np.testing.assert_array_equal(result.losses[i, j, 0], losses)
    suggested = result.suggest(optimizer="adam")
    assert suggested.optimizer == "adam" and "optimizer adam" in suggested.explanation()
    np.testing.assert_array_equal(result.best_model(suggested).history.losses, result.losses[1, result.lrs.index(suggested), 0])
    assert {row["optimizer"] for row in result.rows()} == {"sgd", "adam"}
    assert_same(SweepResult.load(tmp_path / "sweep.jsonl"), result)


def test_adams_rates_are_found():
    found = lr_sweep(**small(lrs="auto", optimizer=["sgd", "adam"], test=None, epochs=3, seeds=2))
    ran = {lr for lr, done in zip(found.lrs, (found.status[1] == "done").any(1)) if done}
    assert {1e-4, 1e-3, 1e-2} <= ran  # whatever the range test says of gradient descent
    assert len(set(found.lrs)) == len(found.lrs)  # both optimisers ask for some


def test_a_compiled_engine_that_has_no_adam_says_so():
    with pytest.raises(ValueError, match="Adam changes weights by more than"):
        lr_sweep(**small(lrs=[0.01], optimizer=["sgd", "adam"], engine="gram"))


@pytest.mark.parametrize("name, expected", [("cosine", [1, 0.75, 0.25]), ("linear", [1, 2 / 3, 1 / 3]), ("step", [1, 1, 1]),
                                            (lambda epoch: 1 / (1 + epoch), [1, 1 / 2, 1 / 3])])
def test_schedules(name, expected):
    (_, factors), = multipliers(name, 3, "test")
    np.testing.assert_allclose(factors, expected, atol=1e-15)
    assert multipliers("constant", 3, "test") == (("constant", ()),)


@pytest.mark.parametrize("wrong, words", [
    ({"schedule": "sometimes"}, r"there is no schedule 'sometimes'\. Give 'constant', 'cosine'"), ({"schedule": {}}, "empty dict"),
    ({"schedule": 3}, "must be a name or a function"), ({"schedule": lambda epoch: -1}, "not be negative|not negative"),
    ({"batch_size": [8, 8]}, "each value once"), ({"momentum": []}, "at least one"), ({"batch_size": [8, 0]}, "at least 1"),
    ({"optimizer": "lbfgs"}, "optimizer must be one of"), ({"optimizer": ["adam", "adam"]}, "each value once"),
    ({"optimizer": ["sgd", "adam"], "momentum": [0, 0.9]}, "its own momentum"),
    ({"optimizer": "rmsprop", "momentum": 0.9}, "optimizer='rmsprop', which has none"),
    ({"nesterov": True}, "nesterov=True needs a momentum"),
    ({"search": "random"}, "search must be one of"), ({"search": "halving", "lrs": "auto"}, "needs a grid"),
    ({"metric": "speed"}, "metric must be one of"), ({"metric": "val_loss", "validation": None}, "needs validation data"),
], ids=case)
def test_wrong_hyperparameters(wrong, words):
    with pytest.raises((ValueError, TypeError), match=words):
        lr_sweep(**small(**wrong))


SCHEDULES = {"constant": "constant", "step": "step", "drop": lambda epoch: 1.0 if epoch < 3 else 0.5,
             "late": lambda epoch: 1.0 if epoch < 5 else 0.1, "cosine": "cosine", "same": lambda epoch: 1.0}


@pytest.mark.parametrize("search", ["grid", "halving"])
@pytest.mark.parametrize("engine", ["gram", "windows", "fused", "layers"])
def test_schedules_share_equal_beginnings_bit_for_bit(engine, search, monkeypatch, tmp_path):
    options = small(lrs=[0.02, 0.3, 1e4], schedule=SCHEDULES, epochs=8, engine=engine, shuffle=True, momentum=0.9, search=search)
    trained = []

    def counted(*asked, original=Trials.run):
        answer = original(*asked)
        trained.append(answer[0].epochs - (0 if asked[5] is None else asked[5].record.epochs))
        return answer

    monkeypatch.setattr(Trials, "run", counted)
    shared = lr_sweep(**options, resume=tmp_path / "sweep.jsonl")
    count = sum(trained)
    for name, schedule in SCHEDULES.items():
        alone = lr_sweep(**options | {"schedule": {name: schedule}, "search": "grid"})
        for trial, record in shared.records.items():
            if trial.setting.schedule == name:
                expected = alone.records[trial]
                for curve, values in record.curves.items():
                    np.testing.assert_array_equal(values, expected.curves[curve][:record.epochs])
                if record.status != "stopped":
                    assert record.status == expected.status
                    np.testing.assert_array_equal(list(record.final.values()), list(expected.final.values()))
                    for curve, values in record.samples.items():
                        np.testing.assert_array_equal(values, expected.samples[curve])
    assert count < 0.65 * shared.epochs_run.sum()
    assert_same(SweepResult.load(tmp_path / "sweep.jsonl"), shared)


def test_what_schedules_share():
    spec = Spec((0.1,), (0,), 6, (("schedule", ("a", "b", "c")),),
                schedules=(("a", ()), ("b", (1.0, 1.0, 1.0, 0.5, 0.5, 0.5)), ("c", (1.0, 1.0, 1.0, 0.5, 0.1, 0.1))))
    a, b, c = spec.trials()
    assert forks(spec, [a, b, c], {a: 0, b: 0, c: 0}, 6, {}) == [Fork(3, a, (b, c)), Fork(4, b, (c,))]
    assert forks(spec, [a, b, c], {a: 0, b: 0, c: 0}, 2, {}) == [Fork(2, a, (b, c))]
    assert forks(spec, [a, b, c], {a: 0, b: 2, c: 2}, 6, {}) == [Fork(4, b, (c,))]
    assert forks(spec, [a, b], {a: 0, b: 0}, 6, {a.setting: "gram", b.setting: "fused"}) == []


def test_an_interrupted_sweep_of_schedules_has_whole_trials():
    spec = Spec((0.1, 0.2), (0, 1, 2), 6, (("schedule", ("a", "b")),), schedules=(("a", ()), ("b", (1.0, 1.0, 1.0, 0.5, 0.5, 0.5))))
    trials = spec.trials()
    assert [len(block) for block in blocks(spec, trials, 3)] == [4, 4, 4]
    assert [len(block) for block in blocks(spec, trials, 5)] == [8, 4]
    assert blocks(Spec((0.1,), (0, 1), 6), trials, 1) == [trials]


# --- racing ------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:SweepResult.suggest")
def test_racing_runs_the_grid_but_for_what_is_worse_beyond_chance():
    x, y, labels = data(400)
    options = dict(build=build, x=x[:100], y=y[:100], lrs="0.0001:0.3:log8", epochs=6, batch_size=16, seeds=10,
                   validation=(x[100:], labels[100:]), progress=False)
    raced, whole = lr_sweep(**options, search="racing"), lr_sweep(**options)
    for trial, record in raced.records.items():
        assert record.curves == whole.records[trial].curves and record.status == whole.records[trial].status
    assert raced.suggest() == whole.suggest() and raced.cost < 0.8
    assert (raced.status[raced.lrs.index(raced.suggest())] == "done").all() and (raced.status[0] != "done").any()
    assert set(raced.suggestion().rates) <= set(whole.suggestion().rates) | {raced.suggestion()}
    assert "% of the epochs of the full grid" in repr(raced)


# --- halving -----------------------------------------------------------------------------------------------------------

MANY = dict(lrs="0.001:3:log12", seeds=5, epochs=8, test=None)


@pytest.fixture(scope="module")
def full():
    return lr_sweep(**small(**MANY))


@pytest.mark.parametrize("options", [{}, {"lrs": "1e-4:3:log12", "shuffle": True, "momentum": 0.9}], ids=str)
@pytest.mark.parametrize("engine", ["gram", "windows", "fused", "layers"])
def test_what_is_promoted_goes_on_to_the_bit(engine, options):
    options = small(**MANY | options, engine=engine)
    halved, whole = lr_sweep(**options, search="halving"), lr_sweep(**options)
    ran = halved.status == "done"
    assert 5 <= ran.sum() < 60 and (halved.status == "stopped").any()
    np.testing.assert_array_equal(halved.losses[ran], whole.losses[ran])
    np.testing.assert_array_equal(halved.val_losses[ran], whole.val_losses[ran])
    stopped = halved.status == "stopped"
    assert (halved.epochs_run[stopped] == 3).all()
    np.testing.assert_array_equal(halved.losses[stopped][:, :3], whole.losses[stopped][:, :3])


def test_halving_chooses_what_the_full_grid_does_at_less_than_half_the_price(full):
    halved = lr_sweep(**small(**MANY, search="halving"))
    assert float(halved.suggestion()) in full.suggestion().rates
    assert halved.epochs_run.sum() <= 0.45 * full.epochs_run.sum()
    assert halved.cost == pytest.approx(halved.epochs_run.sum() / full.epochs_run.sum(), abs=0.05)
    assert "of the epochs of the full grid" in repr(halved)
    labels = [text.get_text() for axes in halved.plot().axes if axes.get_legend() for text in axes.get_legend().get_texts()]
    assert any("suggested" in label for label in labels)


def test_adam_goes_on_to_the_bit():
    options = dict(MANY, lrs="0.0001:0.1:log12", optimizer="adam", shuffle=True)
    halved, whole = lr_sweep(**small(**options, search="halving")), lr_sweep(**small(**options))
    ran = halved.status == "done"
    assert (halved.status == "stopped").any()
    np.testing.assert_array_equal(halved.losses[ran], whole.losses[ran])


def test_a_rate_that_is_behind_at_first_but_learns_fast_is_not_stopped():
    spec = Spec(tuple(map(float, np.geomspace(0.001, 0.5, 10))), (0,), 4)
    accuracies = (0.1, 0.3, 0.5, 0.6, 0.7, 0.7, 0.7, 0.6, 0.4, 0.1)  # at the rung: the largest rate jumps about
    records = {}
    for lr, accuracy, loss in zip(spec.lrs, accuracies, np.linspace(2, 0.5, 10)):  # but has the least training loss
        trial = spec.trial(spec.settings[0], lr, 0)
        records[trial] = Record(trial, "stopped", "gram", {"loss": [3.0, loss], "val_accuracy": [0.2, accuracy]})
    session = SimpleNamespace(spec=spec, journal=SimpleNamespace(records=records), metric=ACCURACY)
    candidates = [Candidate(spec.settings[0], lr) for lr in spec.lrs]
    assert [lr for _, lr in _not_slowest(session, candidates, [(0, 0)], 2)] == list(spec.lrs[1:])


def test_halving_goes_on_with_what_looks_best(monkeypatch):
    submit, sessions, went_on = Session._submit, [], []

    def watching(self, trial, until):
        sessions.append(self)
        if trial.seed == 0 and until == 8:
            went_on.append(trial.lr)
        return submit(self, trial, until)

    monkeypatch.setattr(Session, "_submit", watching)
    lr_sweep(**small(**MANY, search="halving"))
    setting, = sessions[0].spec.settings
    score = _levels(sessions[0], [Candidate(setting, lr) for lr in sorted(went_on)], [(0, 0)], ACCURACY, 3)
    assert went_on == [lr for _, lr in sorted(score, key=lambda candidate: -score[candidate])] != sorted(went_on)


@pytest.mark.parametrize("keep_states", [False, True])
def test_halving_that_was_interrupted_goes_on_to_the_same_file(tmp_path, monkeypatch, keep_states):
    options = dict(MANY, search="halving", engine="gram", keep_states=keep_states)
    expected = lr_sweep(**small(**options, resume=tmp_path / "whole.jsonl"))
    keep, count = Session._keep, []

    def pressing(self, record, state):
        keep(self, record, state)
        count.append(1)
        if len(count) in (5, 14, 20):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Session, "_keep", pressing)
    for _ in range(3):
        with pytest.warns(RuntimeWarning, match="interrupted"):
            lr_sweep(**small(**options, resume=tmp_path / "sweep.jsonl"))
    monkeypatch.undo()
    assert_same(lr_sweep(**small(**options, resume=tmp_path / "sweep.jsonl")), expected)


def test_states_beyond_the_memory_are_trained_again(monkeypatch, full):
    monkeypatch.setattr("fastnet.sweep.store.states.available_memory", lambda: 20_000)
    halved = lr_sweep(**small(**MANY, search="halving", engine="gram"))
    ran = halved.status == "done"
    np.testing.assert_array_equal(halved.losses[ran], lr_sweep(**small(**MANY, engine="gram")).losses[ran])


# --- a grid that finds itself ------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Mean of empty slice")  # of rates that diverged with all seeds
@pytest.mark.parametrize("scale", [1 / 10, 1, 5])
def test_rates_are_found_at_any_scale(scale):
    x, y, labels = data(400)
    x = x * np.float32(scale)
    half = (x[200:300], labels[200:300])
    arguments = dict(epochs=6, batch_size=16, seeds=3, validation=half, test=(x[300:], labels[300:]), progress=False)
    found = lr_sweep(build, x[:200], y[:200], lrs="auto", **arguments)
    fine = lr_sweep(build, x[:200], y[:200], lrs=np.geomspace(found.lrs[0] / 3, found.lrs[-1] * 3, 25), **arguments)
    best = max(np.nanmean(np.where(fine.status == "done", fine.val_accuracies[:, :, -1], np.nan), axis=1)[
        (fine.status == "done").all(1)])
    assert found.suggest().mean > best - 0.04 and not found.suggest().edge
    assert found.lrs[-1] / found.lrs[0] < 3e4


def test_a_grid_that_finds_itself_is_resumed(tmp_path, monkeypatch):
    arguments = small(lrs="auto", test=None, resume=tmp_path / "sweep.jsonl", batch_size=[8, 16])
    first = lr_sweep(**arguments)
    content = (tmp_path / "sweep.jsonl").read_bytes()
    monkeypatch.setattr(Session, "_run", lambda *_: pytest.fail("a finished trial ran again"))
    assert_same(lr_sweep(**arguments), first)
    assert (tmp_path / "sweep.jsonl").read_bytes() == content
    assert_same(SweepResult.load(tmp_path / "sweep.jsonl"), first)


def test_the_range_test_ends_where_training_does():
    x, y, _ = data()
    found = range_test(build(np.random.default_rng(0)), x, y, 16, lambda: None)
    assert 1 < found.high <= 1e3 and found.low == found.high / 300
    assert len(found.lrs) == len(found.losses) == len(found.smooth) and found.lrs[-1] == found.high


def test_the_range_test_is_not_ended_by_a_batch_that_is_harder_than_the_first():
    x, y, _ = data()
    x = np.where(np.arange(70)[:, None] // 16 == 1, np.float32(8), np.float32(0.1)) * x
    make = network(12, 17, 3)
    losses = [make(np.random.default_rng(0)).forward(x[at:at + 16], y[at:at + 16]) for at in (0, 16)]
    assert losses[1] > 4 * losses[0]
    assert range_test(make(np.random.default_rng(0)), x, y, 16, lambda: None).high > 1e-3


def test_a_later_batch_that_no_rate_suits_is_seen():
    x, y, labels = data()
    x[60:] *= np.float32(1e6)
    with pytest.raises(ValueError, match=r"the loss is (inf|nan) before the first step"):
        lr_sweep(build, x, y, lrs="auto", epochs=1, batch_size=16, validation=(x, labels))


def test_rates_that_can_only_diverge_are_not_followed_down_for_ever(monkeypatch):
    diverging = small(lrs="auto", test=None, seeds=1, epochs=1, diverged_above=1e-9)
    found = lr_sweep(**diverging)
    assert 1e-13 < min(found.lrs) and (found.status == "diverged").any()


def test_data_that_no_rate_suits_are_refused():
    x, y, labels = data()
    x = np.float32(1e6) * np.clip(x, 0, 1)
    with pytest.raises(ValueError, match=r"the loss is inf before the first step.*values of x from 0 to 1e\+06 .*Scale them to "
                                         r"about 1 first, for example x = \(x - 500000\) / 500000"):
        lr_sweep(build, x[:50], y[:50], lrs="auto", epochs=1, validation=(x[50:], labels[50:]))
    every = lr_sweep(build, x[:50], y[:50], lrs=[1e-9, 0.1], epochs=1, seeds=1, validation=(x[50:], labels[50:]))
    with pytest.raises(ValueError, match=r"every rate diverged, from 1e-09 to 0\.1\..*scale them to about 1"):
        every.suggest()
