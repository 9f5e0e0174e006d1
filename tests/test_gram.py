"""The engine whose first layer is trained in Gram space, beside the loop by hand."""
import numpy as np
import pytest
from fastnet.kernels.runtime import pool
from numpy_loop import assert_close, assert_same_training, clusters, network, numpy_fit, parameters

from fastnet.training.engine import Engine
from fastnet.training.first import first_outputs, gram_matrix


@pytest.fixture(autouse=True)
def threads_put_back():
    before = pool.get_num_threads()
    yield
    pool.set_num_threads(before)


def trained(engine, epochs=2, lr=0.3, order=None):
    losses = [engine.epoch(lr, order, len(engine.t)).mean() for _ in range(epochs)]
    engine.write()
    return np.array(losses)


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 131, 256])
def test_gram_matrix(n, dtype, rng):
    for x in (rng.standard_normal((n, 70)).astype(dtype), rng.standard_normal((70, n)).astype(dtype).T):
        g = gram_matrix(x)
        assert g.shape == (n, n)
        assert np.array_equal(g, g.T)
        assert_close(g, x.astype(float) @ x.T, {4: 1e-5, 8: 1e-13}[dtype.itemsize])
        assert g.strides[0] % 1024 != 0 or n * dtype.itemsize < 1024


@pytest.mark.parametrize("widths", [[7, 3], [90, 16, 5], [5, 1, 2], [40, 65, 17, 9, 4], [20, 300, 40], [3, 8, 8, 8, 1]])
@pytest.mark.parametrize("batch_size", [1, 7, 16, 40, 1000])
def test_epochs_are_the_loop_by_hand(widths, batch_size, dtype):
    x, t = clusters(40, widths[0], widths[-1], soft=True)
    model = network(widths, dtype)
    expected = numpy_fit(model, x.astype(dtype), t.astype(dtype), 2, 0.3, batch_size)
    losses = trained(Engine(model, x.astype(dtype), t.astype(dtype), batch_size, form="gram"))
    relative = {4: 1e-4, 8: 1e-11}[dtype.itemsize]
    assert_same_training(model, losses, expected.parameters, expected.losses, relative)


@pytest.mark.parametrize("widths", [[50, 3], [33, 70, 40, 5]])
@pytest.mark.parametrize(("momentum", "decay"), [(0.9, 0.0), (0.0, 0.1), (0.8, 0.05)])
@pytest.mark.parametrize("shuffle", [False, True])
def test_momentum_and_decay(widths, momentum, decay, shuffle, dtype):
    x, t = clusters(41, widths[0], widths[-1])
    model = network(widths, dtype)
    order = np.random.default_rng(5).permutation(41) if shuffle else None
    expected = numpy_fit(model, x, t, 3, 0.1, 8, momentum=momentum, weight_decay=decay,
                         orders=[order] * 3 if shuffle else None)
    engine = Engine(model, x.astype(dtype), t, 8, momentum, decay, form="gram")
    losses = trained(engine, epochs=3, lr=0.1, order=order)
    relative = {4: 1e-4, 8: 1e-11}[dtype.itemsize]
    assert_same_training(model, losses, expected.parameters, expected.losses, relative)


@pytest.mark.parametrize(("lr", "decay"), [
    (0.1, 0.5),  # W shrinks by 5% a step, a hundredfold in an epoch
    (0.5, 0.6),  # by 30% a step, 10^15-fold in an epoch
    (1.0, 1.0),  # every step forgets all that was before
    (1.0, 1.5),  # and overshoots
    (1.0, 0.999),
])
@pytest.mark.parametrize("epochs_at_once", [1, 3])
def test_strong_weight_decay(lr, decay, epochs_at_once, dtype):
    """The factor common to all of D may shrink by more than a float32 holds."""
    x, t = clusters(100, 30, 3)
    x *= 0.3
    model = network([30, 20, 3], dtype)
    expected = numpy_fit(model, x, t, epochs_at_once, lr, 1, weight_decay=decay)
    losses = trained(Engine(model, x.astype(dtype), t, 1, 0.0, decay, form="gram"), epochs_at_once, lr)
    relative = {4: 1e-4, 8: 1e-11}[dtype.itemsize]
    assert_same_training(model, losses, expected.parameters, expected.losses, relative)


def test_rates_change_from_epoch_to_epoch(dtype):
    rates = [0.3, 0.0, 0.05, 0.2]
    x, t = clusters(40, 60, 4)
    for momentum in (0.0, 0.9):
        model = network([60, 20, 4], dtype)
        expected = numpy_fit(model, x, t, 4, rates, 8, momentum=momentum, weight_decay=0.01)
        losses = model.fit(x, t, 4, rates, 8, engine="gram", momentum=momentum, weight_decay=0.01)
        assert_same_training(model, losses, expected.parameters, expected.losses, {4: 5e-5, 8: 1e-11}[dtype.itemsize])


def test_same_bits_for_any_number_of_threads(dtype, monkeypatch):
    monkeypatch.setattr("fastnet.program.runner.SMALL_STEP", 0)
    for widths, n, batch_size in (([33, 70, 40, 5], 50, 16), ([300, 129, 3], 41, 41), ([17, 5], 30, 1)):
        x, t = (a.astype(dtype) for a in clusters(n, widths[0], widths[-1]))
        results = []
        for count in (1, 2, 3, 5):
            pool.set_num_threads(count)
            for momentum in (0.0, 0.9):
                model = network(widths, dtype)
                losses = model.fit(x, t, 3, 0.2, batch_size, engine="gram", momentum=momentum, weight_decay=0.01,
                                   shuffle=momentum > 0, rng=1, validation=(x[:9], t[:9]))
                record = model.history.val_losses
                results.append([a.tobytes() for a in (losses, np.array(record), *parameters(model))])
        assert all(result == results[i % 2] for i, result in enumerate(results))


def test_what_models_share_changes_nothing(dtype):
    """G for all models on one x, X W.T for all that start from one W: the same bits as alone."""
    x, t = (a.astype(dtype) for a in clusters(50, 80, 4))
    g, a0, products = gram_matrix(x), first_outputs(x, network([80, 30, 4], dtype).layers[0].W), {}
    before = g.copy(), a0.copy()
    for lr in (0.1, 0.3):
        alone, sharing = network([80, 30, 4], dtype), network([80, 30, 4], dtype)
        one = Engine(alone, x, t, 16, form="gram")
        two = Engine(sharing, x, t, 16, g=g, a0=a0, products=products, form="gram")
        assert np.array_equal(trained(one, lr=lr), trained(two, lr=lr))
        assert all(map(np.array_equal, parameters(alone), parameters(sharing)))
        assert np.array_equal(one.probabilities(x[:20]), two.probabilities(x[:20]))
    assert np.array_equal(g, before[0])
    assert np.array_equal(a0, before[1])


def test_probabilities_of_other_data(dtype):
    """By two products with other data, without ever forming W; asked for after every epoch."""
    x, t = (a.astype(dtype) for a in clusters(50, 80, 4))
    others = [a.astype(dtype) for a in (clusters(31, 80, 4, seed=2)[0], clusters(1, 80, 4, seed=3)[0], x)]
    for momentum in (0.0, 0.9):
        model = network([80, 30, 4], dtype)
        engine = Engine(model, x, t, 16, momentum, 0.02, form="gram")
        for _ in range(3):
            engine.epoch(0.1, None, 50)
            p = [engine.probabilities(other) for other in others]
            engine.write()
            for other, mine in zip(others, p, strict=True):
                assert_close(mine, model.forward(other), {4: 1e-5, 8: 1e-12}[dtype.itemsize])


def test_velocities_are_those_of_the_fused_engine(dtype):
    """The last batch of a fit is a step layer by layer: it needs the velocity of the weights that were never formed."""
    x, t = (a.astype(dtype) for a in clusters(50, 80, 4))
    models = network([80, 30, 4], dtype), network([80, 30, 4], dtype)
    engines = Engine(models[0], x, t, 16, 0.9, 0.02), Engine(models[1], x, t, 16, 0.9, 0.02, form="gram")
    for engine in engines:
        engine.epoch(0.1, None, 48)
    one, other = (engine.moments() for engine in engines)
    assert one.keys() == other.keys()
    for place, (velocity,) in one.items():
        assert_close(other[place][0], velocity, {4: 1e-5, 8: 1e-12}[dtype.itemsize])


def test_save_and_restore(dtype):
    x, t = (a.astype(dtype) for a in clusters(30, 40, 3))
    for momentum in (0.0, 0.9):
        engine = Engine(network([40, 20, 3], dtype), x, t, 8, momentum, 0.01, form="gram")
        saved = engine.save()
        first = [engine.epoch(0.1, None, 30) for _ in range(2)]
        engine.restore(saved)
        assert np.array_equal([engine.epoch(0.1, None, 30) for _ in range(2)], first)


def test_no_memory_for_the_matrix(monkeypatch, dtype):
    """Falls back to the fused engine, says so, and the result is the same."""
    def refuse(x):
        raise MemoryError

    monkeypatch.setattr("fastnet.training.first.gram_matrix", refuse)
    x, t = clusters(40, 60, 3)
    model, plain = network([60, 20, 3], dtype), network([60, 20, 3], dtype)
    with pytest.warns(RuntimeWarning, match="not enough memory for the Gram matrix of 40 samples; the fused engine trains") as w:
        losses = model.fit(x, t, epochs=2, lr=0.1, engine="gram")
    assert w[0].filename == __file__
    assert model.history.engine == "fused"
    expected = plain.fit(x, t, epochs=2, lr=0.1, engine="fused")
    assert np.array_equal(losses, expected)
    assert all(map(np.array_equal, parameters(model), parameters(plain)))


def test_many_epochs_stay_accurate():
    """500 epochs in float32: no farther from float64 than the layer-by-layer engine is, but for some luck."""
    x, t = clusters(60, 90, 4)
    x *= 0.3
    exact = network([90, 20, 4]).fit(x, t, 500, 0.1, 16, engine="layers")
    errors = {}
    for engine in ("layers", "fused", "gram", "windows"):
        losses = network([90, 20, 4], np.float32)
        losses.layers[0].W, losses.layers[2].W = (a.astype(np.float32) for a in parameters(network([90, 20, 4]))[::2])
        losses.layers[0].b, losses.layers[2].b = (a.astype(np.float32) for a in parameters(network([90, 20, 4]))[1::2])
        errors[engine] = np.abs(losses.fit(x, t, 500, 0.1, 16, engine=engine) / exact - 1).max()
    assert errors["gram"] <= 3 * errors["layers"] + 1e-6, errors
    assert errors["windows"] <= 3 * errors["layers"] + 1e-6, errors
    assert errors["fused"] <= 3 * errors["layers"] + 1e-6, errors
