"""sweep: any training function; suspended and continued, resumed, on executors; what it refuses."""
import concurrent.futures as cf
import contextlib
import itertools
import math
import multiprocessing
import random
import signal
import sys
import threading
import types

import numpy as np
import pytest

import fastnet.sweep
from fastnet.sweep import SweepError, SweepResult, sweep
from tests.sweeps import case

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 240)
X = RNG.normal(size=(240, 8)) + 1.5 * RNG.normal(size=(3, 8))[LABELS]


def softmax_regression(trial):
    """Plain NumPy; the curves of held-out samples hold a value for each."""
    rng = np.random.default_rng(trial.seed)
    W = rng.normal(0, 0.5, (8, 3))
    for _ in range(trial.epochs):
        for i in range(0, 120, 20):
            x, labels = X[i:i + 20], LABELS[i:i + 20]
            p = np.exp(x @ W - (x @ W).max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            p[np.arange(20), labels] -= 1
            W -= trial.lr * (x.T @ p / 20 + trial.params.get("decay", 0.0) * W)
        scores = X @ W
        loss = np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1)) + scores.max(1) - scores[np.arange(240), LABELS]
        yield {"loss": loss[:120].mean(), "val_loss": loss[120:180], "val_accuracy": scores[120:180].argmax(1) == LABELS[120:180]}
    yield {"test_accuracy": np.mean(scores[180:].argmax(1) == LABELS[180:])}


def quadratic(trial):
    w = 1.0 + trial.seed
    for _ in range(trial.epochs):
        w -= trial.lr * 2 * w
        yield {"loss": w * w}


EPOCHS = []  # a global: what a closure holds is part of the function
MANY = dict(lrs="0.001:10:log9", epochs=8, seeds=5, params={"decay": [0.0, 0.1]}, progress=False)


@pytest.fixture(scope="module")
def whole():
    return sweep(softmax_regression, **MANY)


def test_everything_has_its_name(whole):
    assert list(whole.axes) == ["decay", "lr", "seed"] and whole.curve("val_loss").shape == (2, 9, 5, 8)
    assert np.isfinite(whole.final("test_accuracy")).tolist() == (whole.status == "done").tolist()
    found = whole.suggest()
    assert found.decay in (0.0, 0.1) and found.samples == 60 and "on these 60 held-out samples" in found.explanation()
    assert whole.suggest(decay=0.1).decay == 0.1 and whole.suggest("val_loss").metric == "val_loss"
    assert "decay" in repr(whole).splitlines()[1]
    with pytest.raises(ValueError, match="no data and no networks"):
        whole.best_model()


def test_the_module_is_the_function(whole):
    np.testing.assert_array_equal(fastnet.sweep(softmax_regression, **MANY).curve("loss"), whole.curve("loss"))


def test_what_is_suspended_goes_on_to_the_bit(whole):
    threads = threading.active_count()
    halved = sweep(softmax_regression, **MANY, search="halving")
    done, stopped = halved.status == "done", halved.status == "stopped"
    assert done.sum() < 60 and stopped.any() and halved.cost < 0.5
    np.testing.assert_array_equal(halved.curve("loss")[done], whole.curve("loss")[done])
    np.testing.assert_array_equal(halved.final("test_accuracy")[done], whole.final("test_accuracy")[done])
    np.testing.assert_array_equal(halved.curve("loss")[stopped][:, :3], whole.curve("loss")[stopped][:, :3])
    assert threading.active_count() == threads  # nothing stays suspended


@pytest.mark.parametrize("search", ["grid", "halving"])
def test_resumed_and_loaded(whole, tmp_path, search):
    path = tmp_path / "s.jsonl"
    first = sweep(softmax_regression, **MANY, search=search, resume=path, key="data v1")
    again = sweep(softmax_regression, **MANY, search=search, resume=path, key="data v1")
    for other in (again, SweepResult.load(path)):
        np.testing.assert_array_equal(other.curve("val_loss"), first.curve("val_loss"))
        assert repr(other) == repr(first)
    content = path.read_bytes()
    for change, words in [({"key": "data v2"}, 'key: "data v1" in the file, "data v2" now'), ({"train": quadratic}, "train, code")]:
        with pytest.raises(ValueError, match=words):
            sweep(change.pop("train", softmax_regression), **MANY, search=search, resume=path, **{"key": "data v1", **change})
    assert path.read_bytes() == content


def test_interrupted_it_goes_on(tmp_path):
    path = tmp_path / "s.jsonl"
    EPOCHS.clear()

    def pressing(trial):
        for report in quadratic(trial):
            EPOCHS.append(1)
            if len(EPOCHS) == 30:
                signal.raise_signal(signal.SIGINT)
                threading.Event().wait(0.3)
            yield report

    options = dict(lrs="0.001:0.4:log9", epochs=8, seeds=3, search="halving", resume=path)
    with pytest.warns(RuntimeWarning, match="sweep: interrupted"):
        sweep(pressing, **options)
    assert np.isfinite(sweep(pressing, **options).curve("loss")).any()


def test_curves_may_be_returned():
    def returning(trial):
        reports = list(quadratic(trial))
        return {"loss": [report["loss"] for report in reports], "steps": 3.0}

    options = dict(lrs=[0.1, 0.3], epochs=5, seeds=2)
    np.testing.assert_array_equal(sweep(returning, **options).curve("loss"), sweep(quadratic, **options).curve("loss"))
    assert (sweep(returning, **options).final("steps") == 3).all()
    with pytest.raises(SweepError, match="needs a train that yields"):
        sweep(returning, **options, search="halving")


@pytest.mark.filterwarnings("ignore:SweepResult.suggest")
def test_divergence_by_rule():
    result = sweep(quadratic, lrs=[0.1, 1.5, 1e200], epochs=20, seeds=2)
    assert result.status.tolist() == [["done"] * 2, ["diverged"] * 2, ["diverged"] * 2]
    assert result.suggest() == 0.1 and 1 < result.epochs_run[1, 0] < 20


@pytest.mark.filterwarnings("ignore:SweepResult.suggest")
def test_any_metric():
    def scoring(trial):
        for report in quadratic(trial):
            yield {"return": -report["loss"]}

    assert sweep(scoring, [0.01, 0.1, 0.3], 5, 3, metric=("return", "max")).suggest() == 0.3
    assert sweep(scoring, [0.01, 0.1, 0.3], 5, 3, metric=("return", "min")).suggestion() == 0.01
    with pytest.raises(ValueError, match="is a higher 'return' better"):
        sweep(scoring, [0.1], 5, 3, metric="return")


def test_global_random_states_are_the_trials_own():
    def drawing(trial):
        for _ in range(trial.epochs):
            yield {"loss": trial.lr * (np.random.random() + random.random())}

    np.random.seed(5)
    random.seed(5)
    before = np.random.get_state()[1].tolist(), random.getstate()
    options = dict(lrs="0.1:1:log9", epochs=8, seeds=5)
    whole, halved = sweep(drawing, **options), sweep(drawing, **options, search="halving")
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before
    done = halved.status == "done"
    np.testing.assert_array_equal(halved.curve("loss")[done], whole.curve("loss")[done])


def test_a_mode_that_is_set_around_a_yield_leaks_nowhere():
    mode = threading.local()
    mode.on = True

    @contextlib.contextmanager
    def off():
        before, mode.on = getattr(mode, "on", True), False
        yield
        mode.on = before

    def leaking(trial):
        for report in quadratic(trial):
            assert getattr(mode, "on", True)
            with off():
                yield report

    sweep(leaking, "0.001:0.4:log9", 8, 3, search="halving")
    assert mode.on


def test_torchs_generator_is_put_back(monkeypatch):
    state = [1]
    torch = types.SimpleNamespace(get_rng_state=lambda: list(state), set_rng_state=lambda new: state.__setitem__(slice(None), new),
                                  manual_seed=lambda seed: state.__setitem__(0, 100 + seed),
                                  cuda=types.SimpleNamespace(is_available=lambda: False))
    monkeypatch.setitem(sys.modules, "torch", torch)

    def train(trial):
        for _ in range(trial.epochs):
            state[0] += 1
            yield {"loss": float(state[0])}

    assert sweep(train, [0.1], 3, 2).curve("loss").tolist() == [[[101, 102, 103], [102, 103, 104]]]
    assert state == [1]


def test_processes_give_the_same_bits(whole):
    few = dict(MANY, lrs=[0.01, 1.0], seeds=2)
    with cf.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        for search in ("grid", "halving"):
            other, here = sweep(softmax_regression, **few, executor=pool, search=search), sweep(softmax_regression, **few)
            done = other.status == "done"
            np.testing.assert_array_equal(other.curve("loss")[done], here.curve("loss")[done])
        with pytest.raises(TypeError, match="cannot be sent to other processes"):
            sweep(lambda trial: quadratic(trial), **few, executor=pool)


def ignoring(trial):
    return quadratic(types.SimpleNamespace(**{**vars(trial), "seed": 0}))


def ending(trial):
    yield {"loss": 1.0 + trial.seed}
    raise KeyError("oh")


@pytest.mark.parametrize("train, words", [
    (ignoring, "seeds 0 and 1 gave the same numbers in every epoch"),
    (lambda trial: 3, "must yield a dict of numbers"),
    (lambda trial: iter([3]), "must yield a dict of numbers"),
    (lambda trial: iter([]), "without a report"),
    *((lambda trial, wrong=wrong: iter([{"loss": wrong}]), "neither a number")
      for wrong in ("high", "0.5", None, [0.5, None], 1j, 10**400, [], np.datetime64("2026-01-01"))),
    (lambda trial: iter([{1: 0.5}]), "by the name 1. Names of curves are texts"),
    (lambda trial: {"loss": 0.5}, "returned no curve, but {'loss': 0.5}. A curve is a list of numbers, one for each epoch"),
    (lambda trial: iter([{"loss": 1.0}, {"loss": 0.5, "x": 1}]), "after epoch 2"),
    (lambda trial: iter([{"loss": 1.0}] * 9), "more than the 4 epochs"),
    (lambda trial: {"loss": [1.0], "val_loss": [1.0, 2.0]}, "different lengths"),
    (lambda trial: iter([{"speed": 1.0}]), "say what to judge by"),
    (ending, "KeyError: 'oh'"),
], ids=case)
def test_faults_of_train_are_named(train, words):
    with pytest.raises(SweepError, match=words):
        sweep(train, [0.1, 0.2], 4, 2)


@pytest.mark.parametrize("wrong, words", [
    ({"train": 3}, "train must be a function"), ({"lrs": "auto"}, "needs networks of fastnet"),
    ({"params": {"lr": 1}}, "names a hyperparameter 'lr'"), ({"params": {"a": [[]]}}, "name other things by a text"),
    ({"params": {"a": []}}, "at least one"), ({"search": "random"}, "search must be one of"), ({"guess": 0.1}, "Give metric="),
    ({"guess": "a", "metric": ("loss", "min")}, "guess must be a number"), ({"guess": math.nan, "metric": ("loss", "min")}, "guess must be"),
    ({"budget": "soon"}, "budget must be"), ({"budget": -3}, "budget must be"), ({"epochs": 0}, "at least 1"),
    ({"metric": 3}, "metric must be a name"), ({"executor": 3}, "give the Client"),
], ids=case)
def test_wrong_arguments(wrong, words):
    arguments = dict(train=quadratic, lrs=[0.1], epochs=2, seeds=1) | wrong
    with pytest.raises((ValueError, TypeError), match=words):
        sweep(arguments.pop("train"), **arguments)


def test_nothing_learned_with_a_guess():
    def guessing(trial):
        rng = np.random.default_rng((trial.seed, round(1e6 * trial.lr)))
        for _ in range(trial.epochs):
            yield {"val_accuracy": rng.random(100) < 0.25}

    result = sweep(guessing, "0.001:1:log7", 4, 3, metric=("val_accuracy", "max"), guess=0.25)
    assert not result.suggestion().learned and "No rate learned more than guessing" in repr(result)


@pytest.mark.parametrize("search", ["grid", "halving"])
def test_a_budget_of_epochs_is_never_exceeded(search):
    counted = []

    def counting(trial):
        for report in quadratic(trial):
            counted.append(1)
            yield report

    for budget in (7, 40, 61):
        counted.clear()
        result = sweep(counting, "0.001:0.4:log6", 5, 3, search=search, budget=budget)
        assert len(counted) == result.epochs_run.sum() <= budget and (search == "halving" or budget - len(counted) < 5)
        assert result.suggestion() is not None or budget == 7


def test_a_budget_of_time_ends_the_sweep():
    def slow(trial):
        for report in quadratic(trial):
            threading.Event().wait(0.02)
            yield report

    result = sweep(slow, "0.001:0.4:log20", 5, 5, budget="0.4 s")
    assert 0 < result.finished < 100


def test_pictures_reports_and_tables(whole, tmp_path):
    whole.save_report(tmp_path / "r.html")
    whole.save_plot(tmp_path / "r.png")
    whole.to_csv(tmp_path / "r.csv")
    assert "test_accuracy" in (tmp_path / "r.csv").read_text().splitlines()[0]
    assert "val accuracy" in (tmp_path / "r.html").read_text() or "validation accuracy" in (tmp_path / "r.html").read_text()


# --- what users do ------------------------------------------------------------------------------------------------------


def reporting(*reports):
    """A training function whose reports are functions of (trial, epoch)."""
    def train(trial):
        for epoch in range(trial.epochs):
            yield {name: value(trial, epoch) for name, value in zip(("loss", "val_accuracy"), reports)}

    return train


def scattered(trial, epoch):
    return trial.lr + 0.1 * trial.seed + 1 / (1 + epoch)


@pytest.mark.parametrize("train, options, words", [
    (lambda trial: iter([None]), {}, "must yield a dict of numbers, such as .*got None"),
    (lambda: None, {}, "train must take one argument"), (lambda trial, more: None, {}, "train must take one argument"),
    (reporting(scattered), {"params": [1]}, "params must be a dict"),
    (reporting(scattered), {"params": {"a": [True, 1]}}, "True and 1 are equal"),
    (reporting(scattered), {"params": {"loss": [1, 2]}}, "'loss', which is the name of a hyperparameter"),
    (lambda trial: iter([{"seed": 1.0}]), {}, "'seed', which is the name of a hyperparameter"),
    (lambda trial: iter([{"loss": 1.0}, {"loss": 1.0, "val_loss": 2.0}]), {}, "of what is measured less often, the last value"),
], ids=case)
def test_faults_of_training_functions_are_named(train, options, words):
    with pytest.raises((TypeError, ValueError, SweepError), match=words):
        sweep(train, [0.1, 0.2], 3, 2, **options)


def test_hyperparameters_may_be_called_as_the_methods_of_a_tuple():
    found = sweep(reporting(scattered), [0.1, 0.2], 3, 2, params={"count": [3, 4], "mean": [1]})
    assert found.suggestion().count in (3, 4) and found.setting(count=4).asdict()["count"] == 4
    assert "built-in" not in repr(found)


def test_curves_that_nobody_reported_are_named():
    found = sweep(reporting(scattered), [0.1, 0.2], 3, 2)
    with pytest.raises(ValueError, match=r"no trial reported 'los'\. There is: 'loss'"):
        found.curve("los")
    with pytest.raises(ValueError, match="There is: nothing"):
        found.final("loss")


def test_a_loss_may_begin_at_zero():
    assert sweep(reporting(lambda trial, epoch: epoch * scattered(trial, epoch)), [0.1, 0.2], 3, 2).suggestion() == 0.1


@pytest.mark.parametrize("search", ["grid", "halving", "racing"])
def test_a_function_may_stop_early_and_is_not_run_again(search, tmp_path):
    calls = itertools.count()

    def stopping(trial):
        next(calls)
        for epoch in range(2 + trial.seed):
            yield {"loss": scattered(trial, epoch)}

    options = dict(lrs=[0.1, 0.2, 0.4], epochs=20, seeds=3, search=search, resume=tmp_path / "s.jsonl")
    first = sweep(stopping, **options)
    assert next(calls) == len(first.records) and first.cost <= 1
    again = sweep(stopping, **options)
    assert next(calls) == len(first.records) + 1 and repr(again) == repr(first)


def test_rates_that_differ_by_the_same_amount_in_every_seed_are_not_tied():
    found = sweep(reporting(scattered), [0.1, 0.2, 0.4], 3, 3).suggestion()
    assert found.rates == (0.1,) and "tied" not in found.explanation()
    alone = sweep(reporting(scattered), [0.1], 3, 3).suggestion()
    assert math.isnan(alone.otherwise) and "Other seeds" not in alone.explanation()


def test_rates_are_shown_so_that_they_can_be_told_apart(tmp_path):
    found = sweep(reporting(scattered), [0.1, 0.100001, 0.3], 3, 2)
    found.save_report(tmp_path / "report.html")
    for text in (repr(found), (tmp_path / "report.html").read_text(encoding="utf-8")):
        assert "0.100001" in text
