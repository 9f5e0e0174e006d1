"""fit: every engine and option beside the loop by hand, and what happens when training ends early."""
import copy
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fastnet.kernels.runtime import pool as threads
from helpers import refuses, same
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_loop import assert_close, assert_same_training, clusters, network, numpy_fit, parameters

from fastnet import FullLayer, ReluLayer, Sequential, SoftMaxLayer
from fastnet.training import loop
from fastnet.training.engine import Engine
from fastnet.training.layerwise import Layerwise

ROOT = Path(__file__).resolve().parents[1]
ENGINES = ("layers", "fused", "gram", "windows")
RELATIVE = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-11}
engines = pytest.mark.parametrize("engine", ENGINES)
posix = pytest.mark.skipif(os.name == "nt", reason="there are no such signals")


def problem(dtype=np.float64, widths=(12, 9, 3), n=30, seed=0):
    x, t = clusters(n, widths[0], widths[-1], seed)
    return network(widths, dtype, seed), x.astype(dtype), t


# --- all engines, all options ---------------------------------------------------------------------------------------


@st.composite
def fits(draw):
    """A network, data, and options of fit."""
    hidden = draw(st.lists(st.sampled_from([1, 2, 7, 8, 16, 17, 33, 65]), max_size=3))
    widths = [draw(st.sampled_from([1, 2, 9, 32, 75])), *hidden, draw(st.sampled_from([1, 2, 3, 5, 17]))]
    n = draw(st.sampled_from([1, 2, 7, 16, 37, 60]))
    options = {
        "epochs": draw(st.integers(1, 4)),
        "batch_size": draw(st.sampled_from([1, 2, 3, 7, 16, max(1, n // 2), n // 2 + 1, max(1, n - 1), n, 500])),
        "momentum": draw(st.sampled_from([0.0, 0.0, 0.5, 0.9])),
        "weight_decay": draw(st.sampled_from([0.0, 0.0, 1e-3, 0.1])),
        "shuffle": draw(st.booleans()),
    }
    kind = draw(st.sampled_from(["number", "sequence", "function"]))
    rates = [0.1 / (1 + epoch) for epoch in range(options["epochs"])]
    options["lr"] = {"number": 0.1, "sequence": rates, "function": lambda epoch: rates[epoch]}[kind]
    soft, seed, dtype = draw(st.booleans()), draw(st.integers(0, 1000)), draw(st.sampled_from([np.float32, np.float64]))
    x, t = clusters(n, widths[0], widths[-1], seed, soft)
    return network(widths, dtype, seed), x.astype(dtype), t.astype(dtype), options, seed


@settings(max_examples=120)
@given(fits())
def test_every_engine_is_the_loop_by_hand(fit):
    start, x, t, options, seed = fit
    rng = np.random.default_rng(seed)
    by_hand = {key: value for key, value in options.items() if key != "shuffle"}
    if options["shuffle"]:
        by_hand["orders"] = [rng.permutation(len(x)) for _ in range(options["epochs"])]
    expected = numpy_fit(start, x, t, **by_hand)
    results = {}
    for engine in ENGINES:
        model = copy.deepcopy(start)
        results[engine] = model, model.fit(x, t, engine=engine, rng=seed, progress=False, **options)
        assert model.history.engine == engine
    layers, losses = results["layers"]
    exact = 2e-4 if start.dtype == np.float32 else 1e-11
    assert_same_training(layers, losses, expected.parameters, expected.losses, exact)
    for engine in ENGINES[1:]:
        model, others = results[engine]
        assert_same_training(model, others, parameters(layers), losses, RELATIVE[start.dtype])
        # what the last batch left in the layers
        assert_same_training(model, others, expected.parameters, expected.losses, exact)
        full = [layer for layer in model.layers if isinstance(layer, FullLayer)]
        for i, layer in enumerate(full):
            assert_close(layer.x, expected.outputs[i], exact)
            assert_close(layer.W_grad, expected.gradients[2 * i], exact)
            assert_close(layer.b_grad, expected.gradients[2 * i + 1], exact)
        assert_close(model.layers[-1].y, expected.outputs[-1], exact)


@pytest.mark.parametrize("widths", [(12, 3), (12, 9, 3), (12, 9, 8, 3)])
@pytest.mark.parametrize("likelihood", ["none", "subnormal"])
def test_a_true_class_without_probability_loses_every_engine_alike(dtype, widths, likelihood):
    """The loss of that batch is inf, or so large that t / p is; NumPy's gradients are NaN then, and so are ours."""
    model, x, t = problem(dtype, widths)
    for layer in model.layers[::2]:
        layer.b = np.full_like(layer.b, 0.01)
    gap = 2000 if likelihood == "none" else 743 if dtype == np.float64 else 102
    last = model.layers[-2]
    last.W = np.zeros_like(last.W)
    last.b = np.array([[0, 0, -gap]], dtype)
    t = t.astype(dtype)
    with np.errstate(all="ignore"):
        expected = lost_in_numpy(model, x, t, 0.1)
    for engine in ENGINES:
        trained = copy.deepcopy(model)
        (loss,) = trained.fit(x, t, 1, 0.1, len(x), engine=engine, on_divergence="ignore")
        assert loss == (np.inf if likelihood == "none" else pytest.approx(gap * t[:, 2].mean(), rel=0.1))
        for one, other in zip(parameters(trained), expected, strict=True):
            assert np.array_equal(one, other, equal_nan=True)
        assert np.isnan(trained.fit(x, t, 1, 0.1, len(x), engine=engine, on_divergence="ignore"))
        assert all(np.isnan(array).all() for array in parameters(trained))
        assert np.array_equal(trained.predict(x), np.zeros(len(x)))


def lost_in_numpy(model, x, t, lr):
    """One step and the layers' formulas as they stand in the chapter: (3.19), then (3.17)."""
    weights, h = parameters(model), [x]
    for W, b in zip(weights[::2], weights[1::2]):
        z = h[-1] @ W.T + b
        h.append(np.maximum(z, 0))
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    dp = -np.where(t == 0, 0, t / p) / len(x)
    dz = p * (dp - (dp * p).sum(axis=1, keepdims=True))
    after = []
    for i in range(len(weights) // 2 - 1, -1, -1):
        after[:0] = [weights[2 * i] - lr * dz.T @ h[i], weights[2 * i + 1] - lr * dz.sum(axis=0, keepdims=True)]
        dz = (dz @ weights[2 * i]) * (h[i] > 0)
    return after


@pytest.mark.parametrize("options", [
    {}, {"momentum": 0.9, "lr": 0.01}, {"weight_decay": 1e-3}, {"shuffle": True, "rng": 3},
    {"lr": [0.1 * 0.9**epoch for epoch in range(20)], "momentum": 0.5, "weight_decay": 1e-3, "shuffle": True, "rng": 4},
], ids=["plain", "momentum", "decay", "shuffle", "all"])
def test_twenty_epochs_of_a_small_course_network(options, dtype):
    """As the course trains: images of centred pixels, five classes, batches that do not divide the data."""
    rng = np.random.default_rng(8)  # no sum so near 0 that ReLU would turn on rounding
    labels = rng.integers(0, 5, 230)
    x = np.clip(0.3 * rng.standard_normal((5, 300))[labels] + 0.2 * rng.standard_normal((230, 300)), -0.5, 0.5)
    t = np.eye(5)[labels]
    results = {}
    for engine in ENGINES:
        model = network([300, 60, 5], dtype)
        losses = model.fit(x, t, **{"epochs": 20, "lr": 0.05, "batch_size": 32, **options}, engine=engine)
        results[engine] = model, losses
    assert losses[-1] < losses[0] / 3
    for engine in ENGINES[1:]:
        assert_same_training(*results[engine], parameters(results["layers"][0]), results["layers"][1], RELATIVE[dtype])


@engines
def test_twice_ten_epochs_are_twenty(engine, dtype):
    once, x, t = problem(dtype, (60, 20, 3))
    twice = copy.deepcopy(once)
    all_losses = once.fit(x, t, 20, 0.1, 8, engine=engine)
    losses = [twice.fit(x, t, 10, 0.1, 8, engine=engine) for _ in range(2)]
    assert_same_training(twice, np.concatenate(losses), parameters(once), all_losses, RELATIVE[dtype])


@engines
def test_no_dtype_but_the_model_s(engine, dtype):
    model, x, t = problem(dtype)
    losses = model.fit(x.astype(np.float16), t.astype(np.int8), 2, 0.1, 8, engine=engine)
    assert losses.dtype == np.float64
    assert losses.shape == (2,)
    last = [layer for layer in model.layers if isinstance(layer, FullLayer)]
    for layer in last:
        assert {a.dtype for a in (layer.W, layer.b, layer.x, layer.W_grad, layer.b_grad)} == {np.dtype(dtype)}
    assert model.predict_proba(x).dtype == dtype


@engines
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_layers_are_left_as_a_loop_of_layers_leaves_them(engine, momentum):
    """To the bit where the last step is run layer by layer: the same arrays hang together after as within a loop."""
    model, x, t = problem()
    model.fit(x, t, 3, 0.1, 8, engine=engine, momentum=momentum)
    assert_close(model.layers[0].x, x[24:], 0)
    assert np.array_equal(model.loss.t, t[24:])
    assert model.loss.x is model.layers[-1].y
    before = copy.deepcopy(model)
    if momentum:
        return
    # undo the last update; what forward and backward then give is what the layers hold
    for layer in model.layers[::2]:
        layer.W = layer.W + 0.1 * layer.W_grad
        layer.b = layer.b + 0.1 * layer.b_grad
    model.forward(x[24:], t[24:])
    model.backward()
    for one, other in zip(before.layers[::2], model.layers[::2], strict=True):
        assert_close(one.W_grad, other.W_grad, 1e-12)
        assert_close(one.b_grad, other.b_grad, 1e-12)


def test_a_layer_of_the_user_s_own():
    class Scale:
        def __init__(self):
            self.W, self.W_grad = np.ones((1, 9)), None

        def forward(self, x):
            self.x = x
            return x * self.W

        def backward(self, y_grad):
            self.W_grad = (y_grad * self.x).sum(axis=0, keepdims=True)
            return y_grad * self.W

        def update_param(self, lr):
            self.W -= lr * self.W_grad  # in place: what was saved must be a copy

    model, x, t = problem()
    model.layers.insert(1, Scale())
    losses = model.fit(x, t, 5, 0.1, 8, momentum=0.5, weight_decay=0.01)
    assert model.history.engine == "mixed"
    assert losses[-1] < losses[0]
    assert not np.allclose(model.layers[1].W, 1)
    kept = [a.copy() for a in (*parameters(model), model.layers[1].W)]

    def fail(report):
        raise ArithmeticError

    def fails_late(epoch):
        if epoch == 0:
            raise ArithmeticError
        return 0.1

    with pytest.raises(ArithmeticError):
        model.fit(x, t, 2, fails_late, 8)
    assert all(map(np.array_equal, kept, (*parameters(model), model.layers[1].W)))
    with pytest.raises(ValueError, match=r"engine='fused' cannot train this: layers.1.: Scale is not a class"):
        model.fit(x, t, 2, 0.1, 8, engine="fused")


def test_samples_of_more_than_one_dimension():
    class Flatten:
        def forward(self, x):
            self.shape = x.shape
            return x.reshape(len(x), -1)

        def backward(self, y_grad):
            return y_grad.reshape(self.shape)

    model, x, t = problem()
    expected = copy.deepcopy(model).fit(x, t, 3, 0.1, 8, engine="layers")
    model.layers.insert(0, Flatten())
    assert_close(model.fit(x.reshape(30, 3, 4), t, 3, 0.1, 8), expected, 1e-12)
    assert model.history.engine == "mixed"
    with pytest.raises(ValueError, match=r"engine='gram' cannot train this: layers.0.: Flatten is not a class"):
        model.fit(x.reshape(30, 3, 4), t, 2, 0.1, engine="gram")


# --- validation, history, callbacks ---------------------------------------------------------------------------------


@engines
def test_validation_and_history(engine, dtype):
    model, x, t = problem(dtype, (60, 20, 3), n=50)
    other_x, other_t = clusters(23, 60, 3, seed=5)
    by_hand = copy.deepcopy(model)
    losses = model.fit(x, t, 4, [0.1, 0.05, 0.02, 0.01], 8, engine=engine, validation=(other_x, other_t.argmax(1)))
    history = model.history
    assert history.losses == losses.tolist()
    assert history.rates == [0.1, 0.05, 0.02, 0.01]
    assert history.epochs == len(history.seconds) == 4
    assert min(history.seconds) > 0
    assert history.stopped == "all epochs done"
    assert history.engine == engine
    assert f"engine='{engine}', 4 epochs" in repr(history)
    for epoch, lr in enumerate(history.rates):
        by_hand.fit(x, t, 1, lr, 8, engine="layers")
        loss, accuracy = by_hand.evaluate(other_x, other_t)
        assert history.val_losses[epoch] == pytest.approx(loss, rel=1e-4 if dtype.itemsize == 4 else 1e-10)
        assert history.val_accuracies[epoch] == pytest.approx(accuracy)


@engines
def test_callbacks(engine):
    model, x, t = problem()
    seen, others = [], []
    losses = model.fit(x, t, 3, 0.1, 8, engine=engine, validation=(x, t), callbacks=[seen.append, others.append])
    assert seen == others
    assert [report.epoch for report in seen] == [0, 1, 2]
    assert [report.loss for report in seen] == losses.tolist()
    assert all((r.epochs, r.lr) == (3, 0.1) and r.seconds > 0 and 0 <= r.val_accuracy <= 1 for r in seen)
    assert [report.val_loss for report in seen] == model.history.val_losses


@engines
@pytest.mark.parametrize("last", [0, 1, 4])
def test_a_callback_may_stop(engine, last):
    model, x, t = problem()
    by_hand = copy.deepcopy(model)
    losses = model.fit(x, t, 5, 0.1, 8, engine=engine, callbacks=lambda report: report.epoch == last)
    assert np.isfinite(losses[:last + 1]).all()
    assert np.isnan(losses[last + 1:]).all()
    assert model.history.stopped == f"callback after epoch {last + 1}"
    by_hand.fit(x, t, last + 1, 0.1, 8, engine="layers")
    assert_same_training(model, losses[:last + 1], parameters(by_hand), by_hand.history.losses, 1e-11)
    assert model.layers[0].x.shape == (6, 12)
    assert model.layers[0].W_grad is not None


def test_a_callback_that_returns_something_else_does_not_stop():
    model, x, t = problem()
    losses = model.fit(x, t, 3, 0.1, callbacks=[lambda report: 1, lambda report: np.True_ and None])
    assert np.isfinite(losses).all()


@pytest.mark.parametrize(("change", "message"), [
    (lambda model, x: model.layers[0].W.__setitem__((0, 0), np.nan), r"layers\[0\].W was not finite before the fit"),
    (lambda model, x: model.layers.pop(), r"The network ends in FullLayer\(9, 3\), but a cross-entropy takes probabilities. "
                                          r"Put a SoftMaxLayer\(\) at the end"),
    (lambda model, x: x.__imul__(255 / np.abs(x).max()), r"x has values up to 255, .* Scale them: x / 255 - 0.5"),
    (lambda model, x: x.__imul__(1e5), r"x has values up to .* Scale them: \(x - x.mean\(0\)\) / x.std\(\)"),
    (lambda model, x: None, "Try a smaller learning rate"),
])
def test_divergence_names_its_cause(change, message):
    model, x, t = problem()
    change(model, x)
    with np.errstate(all="ignore"), pytest.warns(RuntimeWarning, match=r"^fit: diverged in epoch .*\. " + message):
        model.fit(x, t, 20, 1e3, 8)


@engines
def test_early_stop(engine):
    model, x, t = problem()
    losses = model.fit(x, t, 50, 0.1, 8, engine=engine, early_stop=3, validation=(x, np.roll(t, 1, axis=1)))
    values = np.array(model.history.val_losses)
    assert len(values) == values.argmin() + 4
    assert model.history.stopped == "early stop: no lower validation loss for 3 epochs"
    assert np.isnan(losses[len(values):]).all()
    losses = model.fit(x, t, 50, 0.0, 8, engine=engine, early_stop=2)
    assert model.history.epochs == 3
    assert model.history.stopped == "early stop: no lower loss for 2 epochs"


def test_early_stop_is_not_misled_by_nan():
    """With a loss of NaN in between, which on_divergence lets pass, the best is still the least number."""
    losses = iter([1.0, np.nan, 0.5, 0.4])
    history = loop.History()
    options = type("O", (), {"callbacks": (), "on_divergence": "ignore", "early_stop": 2})
    for epoch, loss in enumerate(losses):
        report = loop.EpochReport(epoch, 9, 0.1, loss, None, None, 0.1)
        history.add(report)
        assert loop._reason_to_stop(report, options, history) == ""


@engines
def test_progress(engine, capsys):
    model, x, t = problem()
    model.fit(x, t, 3, 0.1, 8, engine=engine, progress=True, validation=(x, t))
    shown = capsys.readouterr().err
    assert "3/3" in shown
    assert "loss=" in shown
    assert "val_accuracy=" in shown
    model.fit(x, t, 3, 0.1, 8, engine=engine)
    assert capsys.readouterr().err == ""


def test_shuffling_follows_numpy_s_seed():
    results = []
    for _ in range(2):
        model, x, t = problem()
        np.random.seed(11)
        results.append(model.fit(x, t, 3, 0.1, 8, shuffle=True))
    assert np.array_equal(*results)
    model, x, t = problem()
    assert not np.array_equal(results[0], model.fit(x, t, 3, 0.1, 8, shuffle=True, rng=np.random.RandomState(1)))


# --- divergence -----------------------------------------------------------------------------------------------------


@engines
def test_divergence_stops(engine):
    model, x, t = problem()
    with pytest.warns(RuntimeWarning, match=r"fit: diverged in epoch \d of 8: the loss is (nan|inf) at learning rate 1e\+"
                                            r"200. x has values up to .* Scale them") as caught:
        losses = model.fit(1e3 * x, t, 8, 1e200, 8, engine=engine)
    assert caught[0].filename == __file__
    n = model.history.epochs
    assert n < 8
    assert not np.isfinite(losses[n - 1])
    assert np.isnan(losses[n:]).all()
    assert model.history.stopped.startswith(f"diverged in epoch {n} of 8")


@engines
def test_divergence_raises_or_is_ignored(engine):
    model, x, t = problem()
    with pytest.raises(FloatingPointError, match="diverged in epoch"):
        model.fit(1e3 * x, t, 8, 1e200, 8, engine=engine, on_divergence="raise")
    model, x, t = problem()
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        with np.errstate(all="ignore"):
            losses = model.fit(1e3 * x, t, 8, 1e200, 8, engine=engine, on_divergence="ignore")
    assert model.history.epochs == 8
    assert not np.isfinite(losses[-1])


# --- ends nobody planned --------------------------------------------------------------------------------------------


@engines
@pytest.mark.parametrize("last", [0, 2, 4])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_an_error_in_a_callback_leaves_the_last_complete_epoch(engine, last, momentum):
    model, x, t = problem()
    by_hand = copy.deepcopy(model)

    def fail(report):
        if report.epoch == last:
            raise ArithmeticError("mine")

    with pytest.raises(ArithmeticError, match="mine"):
        model.fit(x, t, 5, 0.1, 8, engine=engine, callbacks=fail, momentum=momentum)
    by_hand.fit(x, t, last + 1, 0.1, 8, engine="layers", momentum=momentum)
    assert_same_training(model, model.history.losses, parameters(by_hand), by_hand.history.losses, 1e-11)
    assert model.history.stopped.startswith("ArithmeticError")


@engines
def test_an_error_in_a_schedule_leaves_the_last_complete_epoch(engine):
    model, x, t = problem()
    by_hand = copy.deepcopy(model)
    with pytest.raises(ValueError, match="the learning rate must be finite and not negative, got -1"):
        model.fit(x, t, 5, lambda epoch: 0.1 if epoch < 2 else -1, 8, engine=engine)
    by_hand.fit(x, t, 2, 0.1, 8, engine="layers")
    assert_same_training(model, model.history.losses, parameters(by_hand), by_hand.history.losses, 1e-11)


@engines
def test_an_error_in_the_last_batch_leaves_the_epoch_before(engine, monkeypatch):
    model, x, t = problem()
    by_hand = copy.deepcopy(model)

    def fail(*args):
        raise ArithmeticError("mine")

    for kind in (Engine, Layerwise):
        monkeypatch.setattr(kind, "last_batch", fail)
    with pytest.raises(ArithmeticError, match="mine"):
        model.fit(x, t, 5, 0.1, 8, engine=engine)
    monkeypatch.undo()
    by_hand.fit(x, t, 4, 0.1, 8, engine="layers")
    assert_same_training(model, model.history.losses, parameters(by_hand), by_hand.history.losses, 1e-11)


@posix
@engines
@pytest.mark.parametrize("last", [0, 2, 4])
def test_ctrl_c_leaves_the_last_complete_epoch(engine, last):
    """Also in the last epoch: pressed is pressed. The handler of before is put back."""
    model, x, t = problem()
    by_hand = copy.deepcopy(model)

    def press(report):
        if report.epoch == last:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt):
        model.fit(x, t, 5, 0.1, 8, engine=engine, callbacks=press)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    by_hand.fit(x, t, last + 1, 0.1, 8, engine="layers")
    assert_same_training(model, model.history.losses, parameters(by_hand), by_hand.history.losses, 1e-11)


@posix
@engines
@pytest.mark.parametrize("handler", ["default", "own"])
def test_ctrl_c_at_any_moment(engine, handler, monkeypatch):
    """From a timer, with epochs of many short calls, also where a handler of the user's raises at once."""
    monkeypatch.setattr("fastnet.training.first._CHUNK_WORK", 6 * 8 * (40 * 30 + 30 * 3) * 5)
    model, x, t = problem(widths=(40, 30, 3), n=203)
    start = parameters(model)
    model.fit(x, t, 1, 0.05, 8, engine=engine)

    def interrupt(*_):
        raise KeyboardInterrupt

    if handler == "own":
        before = signal.signal(signal.SIGINT, interrupt)
    try:
        for i in range(12):
            for layer, W, b in zip(model.layers[::2], start[::2], start[1::2]):
                layer.W, layer.b = W, b
            timer = threading.Timer(0.004 + 0.0037 * i, os.kill, (os.getpid(), signal.SIGINT))
            history = model.history
            try:
                timer.start()
                model.fit(x, t, 10_000, 0.05, 8, engine=engine)
                pytest.fail("not interrupted")
            except KeyboardInterrupt:
                timer.join()
            if model.history is history:
                continue  # before the first epoch
            epochs = model.history.epochs
            by_hand = network((40, 30, 3))
            if epochs:
                by_hand.fit(x, t, epochs, 0.05, 8, engine=engine)
            assert_same_training(model, model.history.losses, parameters(by_hand), by_hand.history.losses if epochs else [], 1e-11)
    finally:
        if handler == "own":
            signal.signal(signal.SIGINT, before)


@posix
def test_a_callback_can_be_interrupted():
    """Ctrl-C need not wait for a callback that takes long, or for ever."""
    model, x, t = problem()
    started = time.perf_counter()

    def slow(report):
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        time.sleep(20)

    with pytest.raises(KeyboardInterrupt):
        model.fit(x, t, 5, 0.1, 8, callbacks=slow)
    assert time.perf_counter() - started < 10
    assert model.history.epochs == 1


@engines
def test_two_fits_at_once(engine, dtype):
    problems = [problem(dtype, (60, 70 + i, 3), n=80, seed=i) for i in range(4)]
    alone = [copy.deepcopy(model).fit(x, t, 10, 0.05, 16, engine=engine, shuffle=True, rng=1) for model, x, t in problems]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            at_once = list(pool.map(
                lambda p: copy.deepcopy(p[0]).fit(p[1], p[2], 10, 0.05, 16, engine=engine, shuffle=True, rng=1), problems))
            assert all(map(np.array_equal, alone, at_once))
    assert threads._pool.callers == 0


# --- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "error", "match"), [
    ({"engine": "fast"}, ValueError, "engine must be one of 'auto', 'layers', 'fused', 'gram', 'windows', 'mixed', got 'fast'"),
    ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
    ({"epochs": 1.5}, TypeError, "epochs must be a whole number, got 1.5"),
    ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
    ({"batch_size": "all"}, TypeError, "batch_size must be a whole number, got 'all'"),
    ({"lr": -1}, ValueError, "the learning rate must be finite and not negative, got -1"),
    ({"lr": np.nan}, ValueError, "the learning rate must be finite"),
    ({"lr": "fast"}, TypeError, "the learning rate must be a number, got 'fast'"),
    ({"lr": [0.1, 0.2]}, ValueError, "lr holds 2 rates for 3 epochs. Give one for each epoch, or a number"),
    ({"lr": [0.1, 0.2, -1]}, ValueError, "the learning rate must be finite and not negative"),
    ({"lr": lambda epoch: None}, TypeError, "the learning rate must be a number, got None"),
    ({"momentum": 1}, ValueError, "momentum must be at least 0 and below 1, got 1"),
    ({"momentum": "much"}, TypeError, "momentum must be a number, got 'much'"),
    ({"weight_decay": -0.1}, ValueError, "weight_decay must be finite and not negative, got -0.1"),
    ({"early_stop": 0}, ValueError, "early_stop must be at least 1, got 0"),
    ({"callbacks": 3}, TypeError, "callbacks must be"),
    ({"callbacks": [print, None]}, TypeError, "callbacks must be functions of the epoch's report, got None"),
    ({"on_divergence": "hope"}, ValueError, "on_divergence must be one of 'stop', 'raise', 'ignore', got 'hope'"),
    ({"validation": 3}, TypeError, r"validation must be a pair \(x, y\), got int"),
    ({"validation": (np.ones((4, 11)), np.ones((4, 3)))}, ValueError, r"x must have shape \(n, 12\)"),
    ({"validation": (np.ones((4, 12)), np.ones((5, 3)))}, ValueError, r"y must have shape \(4, 3\), got \(5, 3\)"),
    ({"validation": (np.ones((4, 12)), np.array([0, 1, 2, 3]))}, ValueError, "labels must lie between 0 and 2"),
    ({"shuffle": True, "rng": "dice"}, TypeError, "rng must be a generator or a seed, got 'dice'"),
    ({"shuffle": True, "rng": -1}, ValueError, "a seed must not be negative, got -1"),
    ({"x": np.full((30, 12), np.nan)}, ValueError, r"x must be finite, but x\[0, 0\] is nan"),
    ({"x": np.ones((30, 11))}, ValueError, r"x must have shape \(n, 12\), one row per sample, got \(30, 11\)"),
    ({"y": np.ones((29, 3))}, ValueError, r"y must have shape \(30, 3\), got \(29, 3\)"),
    ({"y": np.zeros(30, int)}, ValueError, "y must be one-hot"),
    ({"y": np.full((30, 3), np.inf)}, ValueError, "y must be finite"),
])
def test_mistakes_change_nothing(options, error, match):
    model, x, t = problem()
    model.fit(x, t, 1, 0.1, 8)
    with refuses(error, "(?s)Sequential.fit: " + match, model):
        model.fit(**{"x": x, "y": t, "epochs": 3, "lr": 0.1, "batch_size": 8, **options})


@engines
def test_weights_that_do_not_fit_their_layer(engine):
    """Sizes changed after the weights were made: every engine says so, none trains on what happens to be there."""
    model, x, _ = problem()
    model.layers[-2].n_o = 4
    with refuses(ValueError, r"W has shape \(3, 9\), but the layer's n_o and n_i need \(4, 9\)", model.layers):
        model.fit(x, np.eye(4)[np.arange(30) % 4], 2, 0.1, 8, engine=engine)


# --- the rest of Sequential's methods for training ------------------------------------------------------------------


def test_partial_fit(dtype):
    model, x, t = problem(dtype)
    by_hand = copy.deepcopy(model)
    losses = [model.partial_fit(x, t, 0.1, 8), model.partial_fit(x, t, lr=0.2, batch_size=8)]
    assert all(isinstance(loss, float) for loss in losses)
    expected = by_hand.fit(x, t, 2, [0.1, 0.2], 8)
    assert_same_training(model, losses, parameters(by_hand), expected, RELATIVE[dtype])


def test_evaluate_and_predict_proba(dtype):
    model, x, t = problem(dtype)
    model.fit(x, t, 3, 0.1, 8)
    held = copy.deepcopy((*model.layers, model.loss))
    p = model.predict_proba(x)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    assert np.array_equal(model.predict(x), p.argmax(axis=1))
    for y in (t, t.argmax(axis=1), t.tolist()):
        loss, accuracy = model.evaluate(x, y)
        assert loss == pytest.approx(-np.log(p[t == 1].astype(float)).mean(), rel=1e-6)
        assert accuracy == np.mean(p.argmax(axis=1) == t.argmax(axis=1))
    assert same(held, (*model.layers, model.loss)), "an evaluation has left traces"


def test_predictions_in_chunks_need_little_memory():
    import tracemalloc

    model = network([20, 300, 3])
    x = np.zeros((50_000, 20))
    model.predict(x[:10])
    tracemalloc.start()
    try:
        assert model.predict_proba(x).shape == (50_000, 3)
        assert tracemalloc.get_traced_memory()[1] < 50_000 * 300 * 8 / 3
    finally:
        tracemalloc.stop()


def test_explain(dtype):
    model, x, t = problem(dtype, (600, 50, 3), n=200)
    held = copy.deepcopy(model)
    plan = model.explain(x, t, epochs=20, batch_size=16)
    assert same(held, model)
    text = str(plan)
    for word in ("layers", "fused", "gram", "GFLOP", "MB", "-> gram: the lowest estimated time", "threads"):
        assert word in text
    model.fit(x, t, 20, 0.01, 16)
    assert model.history.engine == plan.chosen
    for options in ({"engine": "fused"}, {"shuffle": True}, {"momentum": 0.9}, {"weight_decay": 0.1},
                    {"validation": (x, t)}):
        assert model.explain(x, t, epochs=2, **options).chosen
    assert model.explain(x, t, epochs=2, engine="fused").why == "chosen by the argument engine"
    more = {e.name: e.memory for e in model.explain(x, t, 2, momentum=0.9).estimates}
    less = {e.name: e.memory for e in model.explain(x, t, 2).estimates}
    assert more["gram"] > less["gram"]
    assert more["fused"] > less["fused"]
    with refuses(ValueError, "Sequential.explain: engine must be one of", model):
        model.explain(x, t, epochs=2, engine="fast")


def test_explain_says_why_an_engine_cannot():
    model, x, t = problem()
    model.layers.append(ReluLayer())
    text = str(model.explain(x, t, epochs=3))
    assert "no: the compiled engines support CrossEntropyLayer only after SoftMaxLayer" in text
    assert "-> layers: no other engine supports this: " in text
    with refuses(ValueError, "engine='gram' cannot train this", model):
        model.fit(x, t, 3, 0.1, engine="gram")


def test_too_little_memory_for_gram(monkeypatch):
    plan = sys.modules["fastnet.training.plan"]
    monkeypatch.setattr(plan, "available_memory", lambda: 1e5)
    monkeypatch.setattr(plan, "_SURELY_FREE", 0)
    model, x, t = problem(widths=(600, 50, 3), n=200)
    assert "more than half of what is free" in str(model.explain(x, t, epochs=20, batch_size=16))
    model.fit(x, t, 2, 0.1)
    assert model.history.engine == "fused"


@engines
@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"shuffle": True}, {"validation": True}],
                         ids=lambda options: "-".join(options))
def test_memory_stays_within_the_plan(engine, options, dtype):
    """What a fit allocates, its input aside, is at most what `explain` says, and some small change."""
    import tracemalloc

    model, x, t = problem(dtype, (400, 300, 40, 3), n=500)
    t = t.astype(dtype)
    options = {"validation": (x[:200].copy(), t[:200].copy())} if "validation" in options else options
    model.fit(x, t, 1, 0.01, 64, engine=engine, **options)
    estimate = next(e for e in model.explain(x, t, epochs=3, batch_size=64, **options).estimates if e.name == engine)
    tracemalloc.start()
    try:
        model.fit(x, t, 3, 0.01, 64, engine=engine, **options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= estimate.memory + 200_000, peak / estimate.memory


@engines
def test_pickle_and_deepcopy_of_a_fitted_model(engine):
    model, x, t = problem()
    model.fit(x, t, 2, 0.1, 8, engine=engine, validation=(x, t))
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert other.history == model.history
        assert np.array_equal(other.predict_proba(x), model.predict_proba(x))
        again = other.fit(x, t, 2, 0.1, 8, engine=engine)
        assert np.array_equal(again, copy.deepcopy(model).fit(x, t, 2, 0.1, 8, engine=engine))
    assert all(map(np.array_equal, parameters(model), parameters(pickle.loads(pickle.dumps(model)))))


def test_a_model_without_weights():
    model = Sequential([ReluLayer(), SoftMaxLayer()], loss=network([2, 2]).loss)
    losses = model.fit(np.eye(4), np.eye(4), 2, 0.1)
    assert losses[0] == losses[1]
    assert model.history.engine == "layers"


def test_fit_in_a_process_without_a_terminal():
    """No error stream at all, as under pythonw: no progress bar, no complaint."""
    text = textwrap.dedent("""
        import sys
        sys.stderr = None
        sys.path.insert(0, "tests")
        from numpy_loop import clusters, network
        model = network([5, 3])
        print(model.fit(*clusters(20, 5, 3), 2, 0.1).shape)
    """)
    result = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, cwd=ROOT, timeout=120,
                            env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert result.stdout == "(2,)\n", result.stderr
