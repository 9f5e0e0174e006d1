"""`fit`: every engine and option against the layer-by-layer engine, and what is left behind however training ends."""
import copy
import itertools
import pickle
import signal
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer, one_hot, set_num_threads
from fastnet.training import gram

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-11}


def network(widths, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    layers = [layer for a, b in itertools.pairwise(widths) for layer in (FullLayer(a, b, dtype, rng), ReluLayer())]
    return Sequential((*layers[:-1], SoftMaxLayer()), CrossEntropyLayer())


def data(n, n_i, classes, dtype=np.float64, seed=1):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    return (0.5 * rng.normal(size=(n, n_i)) + rng.normal(size=(classes, n_i))[labels]).astype(dtype), one_hot(labels, classes, dtype)


def weights(model):
    return np.concatenate([part.ravel() for layer in model.layers[::2] if hasattr(layer, "W") for part in (layer.W, layer.b)])


def close(a, b, tolerance):
    a, b = np.asarray(a, float), np.asarray(b, float)
    return np.max(np.abs(a - b)) <= tolerance * max(1.0, np.max(np.abs(b)))


def same_as_layers(widths, n, batch, dtype, engine, epochs=3, **options):
    x, t = data(n, widths[0], widths[-1], dtype)
    reference, model = network(widths, dtype), network(widths, dtype)
    seeds = {"rng": 5} if options.get("shuffle") else {}
    expected = reference.fit(x, t, epochs, 0.05, batch, engine="layers", **options, **seeds)
    losses = model.fit(x, t, epochs, 0.05, batch, engine=engine, **options, **seeds)
    tolerance = TOLERANCE[dtype]
    assert close(losses, expected, tolerance)
    assert close(weights(model), weights(reference), 10 * tolerance)
    for ours, theirs in zip(model.layers, reference.layers):
        for name in ("x", "y", "W_grad", "b_grad"):
            if getattr(theirs, name, None) is not None:
                assert close(getattr(ours, name), getattr(theirs, name), 100 * tolerance), name
    assert model.history.engine == engine
    return model, reference


@pytest.mark.parametrize("engine", ["fused", "gram"])
@given(inner=st.lists(st.integers(1, 70), max_size=3), n_i=st.integers(1, 40), classes=st.integers(2, 19),
       n=st.integers(2, 67), batch=st.sampled_from([1, 2, 7, 13, 40, 67, 128]), dtype=st.sampled_from([np.float32, np.float64]))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_engines_equal_the_layers(engine, inner, n_i, classes, n, batch, dtype):
    same_as_layers((n_i, *inner, classes), n, batch, dtype, engine)


@pytest.mark.parametrize("engine", ["fused", "gram"])
@pytest.mark.parametrize("options", [
    {"shuffle": True}, {"momentum": 0.9}, {"weight_decay": 0.01}, {"momentum": 0.8, "weight_decay": 0.02, "shuffle": True}],
    ids=lambda options: "-".join(options))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_options_mean_the_same_in_every_engine(engine, options, dtype):
    same_as_layers((23, 37, 18, 5), 61, 8, dtype, engine, epochs=6, **options)


@pytest.mark.parametrize("engine", ["layers", "fused", "gram"])
def test_against_numpy_twenty_epochs(engine):
    x, t = data(100, 30, 4)
    model = network((30, 20, 4))
    W1, b1, W2, b2 = (a.copy() for layer in model.layers[::2] for a in (layer.W, layer.b))
    expected = []
    for _ in range(20):
        batches = []
        for i in range(0, 100, 32):
            xb, tb = x[i:i + 32], t[i:i + 32]
            h = np.maximum(xb @ W1.T + b1, 0)
            p = np.exp(h @ W2.T + b2)
            p /= p.sum(1, keepdims=True)
            batches.append(-np.sum(tb * np.log(p)) / len(xb))
            dz = (p - tb) / len(xb)
            dh = dz @ W2 * (h > 0)
            W2, b2 = W2 - 0.1 * dz.T @ h, b2 - 0.1 * dz.sum(0)
            W1, b1 = W1 - 0.1 * dh.T @ xb, b1 - 0.1 * dh.sum(0)
        expected.append(np.mean(batches))
    assert close(model.fit(x, t, 20, 0.1, 32, engine=engine), expected, 1e-12)
    assert expected[-1] < expected[0] / 2


def test_the_engines_know_their_limits():
    x, t = data(20, 6, 3)
    x3 = x.reshape(20, 2, 3)

    class Flatten:
        def forward(self, x):
            self.shape = x.shape
            return x.reshape(len(x), -1)

        def backward(self, y_grad):
            return y_grad.reshape(self.shape)

    model = Sequential([Flatten(), FullLayer(6, 3, rng=0), SoftMaxLayer()], CrossEntropyLayer())
    assert np.all(np.isfinite(model.fit(x3, t, 2, 0.1)))
    assert model.history.engine == "layers"
    with pytest.raises(ValueError, match="engine='gram' cannot train this: the compiled engines know"):
        model.fit(x3, t, 2, 0.1, engine="gram")


@pytest.mark.parametrize("engine", ["fused", "gram"])
def test_twice_ten_epochs_are_twenty_and_threads_change_no_bit(engine):
    x, t = data(90, 50, 5, np.float32)
    once, twice = network((50, 70, 5), np.float32), network((50, 70, 5), np.float32)
    expected = once.fit(x, t, 20, 0.1, 16, engine=engine)
    halves = [twice.fit(x, t, 10, 0.1, 16, engine=engine) for _ in range(2)]
    assert close(np.concatenate(halves), expected, 1e-5)
    try:
        for threads in (1, 2, 3):
            set_num_threads(threads)
            model = network((50, 70, 5), np.float32)
            assert np.array_equal(model.fit(x, t, 20, 0.1, 16, engine=engine), expected)
            assert np.array_equal(weights(model), weights(once))
    finally:
        set_num_threads(None)


@pytest.mark.parametrize("engine", ["layers", "fused", "gram"])
def test_schedules_validation_callbacks_and_history(engine):
    x, t = data(40, 9, 3)
    seen = []
    model = network((9, 8, 3))
    losses = model.fit(x, t, 4, lambda epoch: 0.1 / (1 + epoch), 16, engine=engine, validation=(x[:10], t[:10].argmax(1)),
                       callbacks=seen.append)
    listed = network((9, 8, 3))
    assert np.array_equal(losses, listed.fit(x, t, 4, [0.1, 0.05, 0.1 / 3, 0.025], 16, engine=engine))
    assert [report.loss for report in seen] == list(losses) == model.history.losses
    assert len(model.history.val_losses) == len(model.history.seconds) == 4
    assert close(model.history.val_losses[-1], model.evaluate(x[:10], t[:10]).loss, 1e-10)
    assert model.history.stopped == "all epochs done"
    stopped = network((9, 8, 3))
    cut = stopped.fit(x, t, 4, 0.1, 16, engine=engine, callbacks=lambda report: report.epoch == 1)
    assert np.isfinite(cut[:2]).all() and np.isnan(cut[2:]).all()
    assert stopped.history.stopped == "callback after epoch 2"
    two = network((9, 8, 3))
    two.fit(x, t, 2, 0.1, 16, engine=engine)
    assert close(weights(stopped), weights(two), 1e-12)
    patient = network((9, 8, 3))
    patient.fit(x, t, 50, 0.0, 16, engine=engine, early_stop=3)
    assert patient.history.epochs == 4 and patient.history.stopped.startswith("early stop: no better loss for 3")


@pytest.mark.parametrize("engine", ["layers", "fused", "gram"])
def test_divergence(engine):
    x, t = data(40, 9, 3)
    with pytest.warns(RuntimeWarning, match="diverged in epoch 1 of 5"), np.errstate(all="ignore"):
        losses = network((9, 8, 3)).fit(1e3 * x, t, 5, 1e6, 8, engine=engine)
    assert not np.isfinite(losses).any()
    with pytest.raises(FloatingPointError, match="learning rate 1e"), np.errstate(all="ignore"):
        network((9, 8, 3)).fit(1e3 * x, t, 5, 1e6, 8, engine=engine, on_divergence="raise")
    model = network((9, 8, 3))
    with np.errstate(all="ignore"):
        model.fit(1e3 * x, t, 5, 1e6, 8, engine=engine, on_divergence="ignore")
    assert model.history.epochs == 5


@pytest.mark.parametrize("engine", ["layers", "fused", "gram"])
def test_an_interrupted_fit_leaves_the_last_complete_epoch(engine):
    x, t = data(40, 9, 3)
    expected = network((9, 8, 3))
    expected.fit(x, t, 2, 0.1, 16, engine=engine)

    class Trouble(Exception):
        pass

    def fail(report):
        if report.epoch == 1:
            raise Trouble

    def interrupt(report):
        if report.epoch == 1:
            signal.raise_signal(signal.SIGINT)

    for callback, error in ((fail, Trouble), (interrupt, KeyboardInterrupt)):
        model = network((9, 8, 3))
        with pytest.raises(error):
            model.fit(x, t, 9, 0.1, 16, engine=engine, callbacks=callback)
        assert close(weights(model), weights(expected), 1e-12)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers that send signals here")
def test_ctrl_c_at_a_random_moment():
    x, t = data(400, 60, 5)
    snapshots = {}
    probe = network((60, 50, 5))

    def remember(report):
        snapshots[report.epoch] = report.loss
        if report.epoch == 2:
            signal.setitimer(signal.ITIMER_REAL, 0.01)

    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with pytest.raises(KeyboardInterrupt):
            probe.fit(x, t, 100_000, 0.01, 32, engine="fused", callbacks=remember)
    finally:
        signal.signal(signal.SIGALRM, before)
    epochs = probe.history.epochs
    expected = network((60, 50, 5))
    expected.fit(x, t, epochs, 0.01, 32, engine="fused")
    assert close(weights(probe), weights(expected), 1e-11)


def test_no_memory_for_the_gram_matrix(monkeypatch):
    def none_left(x):
        raise MemoryError

    x, t = data(40, 9, 3)
    monkeypatch.setattr(gram, "gram_matrix", none_left)
    model = network((9, 8, 3))
    with pytest.warns(RuntimeWarning, match="no memory for the Gram matrix of 40 samples"):
        losses = model.fit(x, t, 3, 0.1, 16, engine="gram")
    assert np.array_equal(losses, network((9, 8, 3)).fit(x, t, 3, 0.1, 16, engine="fused"))
    assert model.history.engine == "fused"


def test_two_fits_at_once():
    x, t = data(300, 40, 5, np.float32)
    expected = network((40, 64, 5), np.float32).fit(x, t, 30, 0.1, 16)
    results = [None] * 3

    def fit(i):
        results[i] = network((40, 64, 5), np.float32).fit(x, t, 30, 0.1, 16)

    threads = [threading.Thread(target=fit, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(np.array_equal(result, expected) for result in results)


@pytest.mark.parametrize("stored", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("shuffle", [False, True])
def test_data_on_disk(tmp_path, stored, shuffle):
    x, t = data(70, 12, 3)
    x = (100 * np.abs(x)).astype(stored)
    mapped = np.memmap(tmp_path / "x", stored, "w+", shape=x.shape)
    mapped[:] = x
    mapped.flush()
    on_disk = np.memmap(tmp_path / "x", stored, "r", shape=x.shape)
    model, expected = network((12, 10, 3)), network((12, 10, 3))
    losses = model.fit(on_disk, t, 3, 1e-4, 16, shuffle=shuffle, rng=3)
    assert model.history.engine == "fused"
    assert close(losses, expected.fit(x.astype(float), t, 3, 1e-4, 16, shuffle=shuffle, rng=3, engine="layers"), 1e-11)


def test_inputs_of_every_kind_are_read_as_they_are():
    x, t = data(50, 12, 3)
    expected = network((12, 10, 3)).fit(x, t, 3, 0.05, 16)
    wide = np.zeros((100, 24))
    wide[::2, ::2] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    for kind in (np.asfortranarray(x), wide[::2, ::2], x[::-1].copy()[::-1], read_only, x.astype(">f8"), x.tolist()):
        for engine in ("fused", "gram"):
            assert close(network((12, 10, 3)).fit(kind, t, 3, 0.05, 16, engine=engine), expected, 1e-12)


def test_partial_fit_evaluate_predict_and_copies():
    x, t = data(50, 12, 3)
    model, twin = network((12, 10, 3)), network((12, 10, 3))
    assert model.partial_fit(x, t, 0.1, 16) == twin.fit(x, t, 1, 0.1, 16)[0]
    p = model.predict_proba(x)
    assert np.allclose(p.sum(1), 1) and np.array_equal(model.predict(x), p.argmax(1))
    loss, accuracy = model.evaluate(x, t)
    assert accuracy == np.mean(p.argmax(1) == t.argmax(1)) and loss == pytest.approx(-np.sum(t * np.log(p)) / 50)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert np.array_equal(other.predict_proba(x), p)
        assert other.history == model.history


def test_explain_prints_a_choice():
    x, t = data(50, 300, 3)
    plan = network((300, 40, 3)).explain(x, t, epochs=5, batch_size=16)
    assert plan.chosen == "gram" and "-> gram: the least estimated time" in str(plan)
    assert network((300, 40, 3)).explain(x, t, 5, engine="fused").chosen == "fused"


@pytest.mark.parametrize(("options", "error", "text"), [
    ({"engine": "fast"}, ValueError, "engine must be one of 'auto', 'layers', 'fused', 'gram', got 'fast'"),
    ({"momentum": 1}, ValueError, "momentum must be at least 0 and below 1, got 1.0"),
    ({"weight_decay": -1}, ValueError, "weight_decay must be finite and not negative"),
    ({"early_stop": 0}, ValueError, "early_stop must be at least 1"),
    ({"callbacks": [3]}, TypeError, "callbacks must be functions"),
    ({"on_divergence": "hope"}, ValueError, "on_divergence must be one of"),
    ({"validation": 3}, TypeError, r"validation must be a pair \(x, y\)"),
    ({"lr": [0.1]}, ValueError, "lr holds 1 rates for 2 epochs"),
    ({"lr": lambda epoch: -1}, ValueError, "the learning rate must be finite and not negative"),
    ({"shuffle": True, "rng": "seed"}, TypeError, "rng must be a generator or a seed"),
])
def test_bad_options(options, error, text):
    x, t = data(20, 9, 3)
    model = network((9, 8, 3))
    before = weights(model).copy()
    with pytest.raises(error, match=text):
        model.fit(x, t, 2, **{"lr": 0.1, **options})
    assert np.array_equal(weights(model), before)


def test_float32_stays_as_close_to_float64_as_it_can():
    x, t = data(200, 100, 5)
    reference = network((100, 80, 5)).fit(x, t, 100, 0.05, 32, engine="layers")
    small = network((100, 80, 5))
    for layer in small.layers[::2]:
        if hasattr(layer, "W"):
            layer.W, layer.b = layer.W.astype(np.float32), layer.b.astype(np.float32)
    losses = small.fit(x.astype(np.float32), t, 100, 0.05, 32, engine="gram")
    assert np.max(np.abs(losses - reference) / reference) < 1e-5


def test_a_long_fit_answers_between_calls(monkeypatch):
    """An epoch of many calls is undone by Ctrl-C in its middle."""
    from fastnet.training import fused

    x, t = data(400, 60, 5)
    monkeypatch.setattr(fused, "_CHUNK_WORK", 1)
    model = network((60, 50, 5))
    threading.Thread(target=lambda: (time.sleep(0.2), signal.raise_signal(signal.SIGINT)), daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, t, 1_000_000, 0.001, 32, engine="fused", progress=False)
    expected = network((60, 50, 5))
    expected.fit(x, t, model.history.epochs, 0.001, 32, engine="fused")
    assert close(weights(model), weights(expected), 1e-11)
