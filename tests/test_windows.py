"""The compiled engine in Gram space within windows of rows, beside the loop by hand."""
import numpy as np
import pytest
from fastnet.kernels.runtime import pool
from numpy_loop import assert_close, assert_same_training, clusters, network, numpy_fit, parameters

from fastnet.training import first
from fastnet.training.engine import Engine
from fastnet.training.first import window_rows


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    """So that a few samples fill several of them, the last one only in part."""
    before = pool.get_num_threads()
    monkeypatch.setattr(first, "WINDOW", 12)
    yield
    pool.set_num_threads(before)


def trained(engine, epochs=2, lr=0.3, order=None):
    losses = [engine.epoch(lr, order, len(engine.t)).mean() for _ in range(epochs)]
    engine.write()
    return np.array(losses)


def test_a_window_holds_whole_mini_batches():
    assert [window_rows(size) for size in (1, 4, 5, 12, 13, 100)] == [12, 12, 10, 12, 13, 100]


@pytest.mark.parametrize("widths", [[7, 3], [90, 16, 5], [5, 1, 2], [40, 65, 17, 9, 4], [20, 300, 40]])
@pytest.mark.parametrize("batch_size", [1, 5, 7, 16, 1000])
def test_epochs_are_the_loop_by_hand(widths, batch_size, dtype):
    x, t = clusters(40, widths[0], widths[-1], soft=True)
    model = network(widths, dtype)
    expected = numpy_fit(model, x.astype(dtype), t.astype(dtype), 2, 0.3, batch_size)
    losses = trained(Engine(model, x.astype(dtype), t.astype(dtype), batch_size, form="windows"))
    relative = {4: 1e-4, 8: 1e-11}[dtype.itemsize]
    assert_same_training(model, losses, expected.parameters, expected.losses, relative)


@pytest.mark.parametrize("widths", [[50, 3], [33, 70, 40, 5]])
@pytest.mark.parametrize(("momentum", "decay"), [(0.9, 0.0), (0.0, 0.1), (0.8, 0.05)])
@pytest.mark.parametrize("shuffle", [False, True])
def test_momentum_and_decay(widths, momentum, decay, shuffle, dtype):
    """A window starts with the velocity that the one before it has left."""
    x, t = clusters(41, widths[0], widths[-1])
    model = network(widths, dtype)
    order = np.random.default_rng(5).permutation(41) if shuffle else None
    expected = numpy_fit(model, x, t, 3, 0.03, 4, momentum=momentum, weight_decay=decay,
                         orders=[order] * 3 if shuffle else None)
    losses = trained(Engine(model, x.astype(dtype), t, 4, momentum, decay, form="windows"), epochs=3, lr=0.03, order=order)
    relative = {4: 1e-4, 8: 1e-11}[dtype.itemsize]
    assert_same_training(model, losses, expected.parameters, expected.losses, relative)


@pytest.mark.parametrize(("lr", "decay"), [(0.5, 0.6), (1.0, 1.0), (1.0, 1.5)])
def test_strong_weight_decay(lr, decay, dtype):
    x, t = clusters(50, 30, 3)
    x *= 0.3
    model = network([30, 20, 3], dtype)
    expected = numpy_fit(model, x, t, 2, lr, 1, weight_decay=decay)
    losses = trained(Engine(model, x.astype(dtype), t, 1, 0.0, decay, form="windows"), 2, lr)
    assert_same_training(model, losses, expected.parameters, expected.losses, {4: 1e-4, 8: 1e-11}[dtype.itemsize])


@pytest.mark.parametrize("stop", [36, 40, 44])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_pause_changes_no_bit(stop, momentum, dtype):
    """`fit` stops before its last batch to look at the weights; a sweep does not. The numbers must be the same."""
    x, t = (a.astype(dtype) for a in clusters(50, 80, 4))
    models = network([80, 30, 4], dtype), network([80, 30, 4], dtype)
    one, two = (Engine(model, x, t, 4, momentum, 0.02, form="windows") for model in models)
    at_once = one.epoch(0.1, None, 50)
    before = two.epoch(0.1, None, stop)
    two.write()
    two.probabilities(x[:3])
    assert np.array_equal(at_once, np.append(before, two.epoch(0.1, None, 50, stop)))
    one.write()
    two.write()
    assert all(map(np.array_equal, parameters(models[0]), parameters(models[1])))


def test_a_look_within_a_window_sees_the_weights_of_now(dtype):
    x, t = (a.astype(dtype) for a in clusters(50, 80, 4))
    models = network([80, 30, 4], dtype), network([80, 30, 4], dtype)
    engines = Engine(models[0], x, t, 4, 0.9, 0.02), Engine(models[1], x, t, 4, 0.9, 0.02, form="windows")
    relative = {4: 1e-5, 8: 1e-12}[dtype.itemsize]
    for engine in engines:
        engine.epoch(0.1, None, 44)
        engine.write()
    for a, b in zip(parameters(models[0]), parameters(models[1]), strict=True):
        assert_close(b, a, relative)
    one, other = (engine.moments() for engine in engines)
    assert one.keys() == other.keys()
    for place, (velocity,) in one.items():
        assert_close(other[place][0], velocity, relative)
    assert_close(engines[1].probabilities(x), models[1].forward(x), relative)


def test_data_of_any_kind(tmp_path, dtype):
    """Strided rows, another dtype, a file on disk; shuffled or not."""
    x, t = clusters(50, 24, 3)
    disk = np.memmap(tmp_path / "x", np.float32, "w+", shape=x.shape)
    disk[:] = x
    wide = np.zeros((50, 40), dtype)
    wide[:, 3:27] = x
    for data in (disk, wide[:, 3:27], np.asfortranarray(x.astype(dtype)), x.astype(dtype)[::-1][::-1]):
        for shuffle in (False, True):
            plain, model = network([24, 20, 3], dtype), network([24, 20, 3], dtype)
            rng = 3 if shuffle else None
            expected = plain.fit(np.array(data, dtype), t, 2, 0.1, 5, engine="layers", shuffle=shuffle, rng=rng)
            losses = model.fit(data, t, 2, 0.1, 5, engine="windows", shuffle=shuffle, rng=rng)
            assert model.history.engine == "windows"
            assert_close(losses, expected, {4: 1e-5, 8: 1e-12}[dtype.itemsize])


def test_same_bits_for_any_number_of_threads(dtype, monkeypatch):
    monkeypatch.setattr("fastnet.program.runner.SMALL_STEP", 0)
    x, t = (a.astype(dtype) for a in clusters(50, 33, 5))
    results = []
    for count in (1, 2, 3):
        pool.set_num_threads(count)
        for momentum in (0.0, 0.9):
            model = network([33, 70, 40, 5], dtype)
            losses = model.fit(x, t, 3, 0.02, 4, engine="windows", momentum=momentum, weight_decay=0.01,
                               shuffle=momentum > 0, rng=1, validation=(x[:9], t[:9]))
            results.append([a.tobytes() for a in (losses, np.array(model.history.val_losses), *parameters(model))])
    assert all(result == results[i % 2] for i, result in enumerate(results))


def test_save_and_restore(dtype):
    x, t = (a.astype(dtype) for a in clusters(30, 40, 3))
    for momentum in (0.0, 0.9):
        engine = Engine(network([40, 20, 3], dtype), x, t, 4, momentum, 0.01, form="windows")
        engine.epoch(0.1, None, 30)
        saved = engine.save()
        first = [engine.epoch(0.1, None, 30) for _ in range(2)]
        engine.epoch(0.1, None, 16)  # and leaves a window half done
        engine.restore(saved)
        assert np.array_equal([engine.epoch(0.1, None, 30) for _ in range(2)], first)


def test_ctrl_c_between_windows_leaves_the_last_whole_epoch(dtype):
    x, t = (a.astype(dtype) for a in clusters(50, 40, 3))
    model, plain = network([40, 20, 3], dtype), network([40, 20, 3], dtype)
    plain.fit(x, t, 1, 0.1, 4, engine="windows")
    engine = Engine(model, x, t, 4, form="windows")
    engine.epoch(0.1, None, 50)
    saved = engine.save()

    def pressed():
        raise KeyboardInterrupt

    engine.check_interrupt = pressed
    with pytest.raises(KeyboardInterrupt):
        engine.epoch(0.1, None, 50)
    engine.restore(saved)
    engine.write()
    for a, b in zip(parameters(model), parameters(plain), strict=True):
        assert_close(a, b, {4: 1e-5, 8: 1e-12}[dtype.itemsize])
