"""The fused engine: compiled epochs beside the loop by hand, whatever the data's layout, the chunks and the threads."""
import numpy as np
import pytest
from fastnet.kernels.gemm import vector_lanes
from fastnet.kernels.runtime import pool
from numpy_loop import assert_same_training, clusters, network, numpy_fit, parameters

from fastnet.program import runner
from fastnet.training import first
from fastnet.training.engine import Engine

RELATIVE = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-11}


@pytest.fixture(autouse=True)
def threads_put_back():
    before = pool.get_num_threads()
    yield
    pool.set_num_threads(before)


def steps(model, x, t, batch_size, epochs=2, lr=0.3, momentum=0.0, decay=0.0, engine=Engine):
    """The engine alone, without the loop around it; the losses of all batches."""
    trainer = engine(model, x, t, batch_size, momentum, decay)
    losses = np.concatenate([trainer.epoch(lr, None, len(x)) for _ in range(epochs)])
    trainer.write()
    return losses


def batch_means(losses, n, batch_size):
    return losses.reshape(-1, -(-n // batch_size)).mean(axis=1)


@pytest.mark.parametrize("widths", [[7, 3], [33, 16, 5], [5, 1, 2], [40, 65, 17, 9, 4], [20, 300, 40], [3, 8, 8, 8, 1]])
@pytest.mark.parametrize("batch_size", [1, 7, 16, 40, 1000])
def test_epochs_are_the_loop_by_hand(widths, batch_size, dtype):
    x, t = clusters(40, widths[0], widths[-1], soft=True)
    model = network(widths, dtype)
    expected = numpy_fit(model, x.astype(dtype), t.astype(dtype), 2, 0.3, batch_size)
    losses = steps(model, x.astype(dtype), t.astype(dtype), batch_size)
    means = batch_means(losses, 40, min(batch_size, 40))
    relative = {4: 1e-4, 8: 1e-12}[dtype.itemsize]
    assert_same_training(model, means, expected.parameters, expected.losses, relative)


@pytest.mark.parametrize("widths", [[50, 3], [33, 70, 40, 5]])
@pytest.mark.parametrize(("momentum", "decay"), [(0.9, 0.0), (0.0, 0.1), (0.8, 0.05)])
def test_momentum_and_decay(widths, momentum, decay, dtype):
    x, t = clusters(41, widths[0], widths[-1])
    model = network(widths, dtype)
    expected = numpy_fit(model, x, t, 3, 0.1, 8, momentum=momentum, weight_decay=decay)
    losses = steps(model, x.astype(dtype), t.astype(dtype), 8, epochs=3, lr=0.1, momentum=momentum, decay=decay)
    relative = {4: 5e-5, 8: 1e-12}[dtype.itemsize]
    assert_same_training(model, batch_means(losses, 41, 8), expected.parameters, expected.losses, relative)


def test_same_bits_for_any_number_of_threads(dtype, monkeypatch):
    monkeypatch.setattr(runner, "SMALL_STEP", 0)  # even small steps on all threads
    for widths, n, batch_size in (([33, 70, 40, 5], 50, 16), ([300, 129, 3], 41, 41), ([17, 5], 30, 1)):
        x, t = (a.astype(dtype) for a in clusters(n, widths[0], widths[-1]))
        results = []
        for count in (1, 2, 3, 5):
            pool.set_num_threads(count)
            for momentum in (0.0, 0.9):
                model = network(widths, dtype)
                losses = steps(model, x, t, batch_size, momentum=momentum, decay=0.01)
                results.append([a.tobytes() for a in (losses, *parameters(model))])
        assert all(result == results[i % 2] for i, result in enumerate(results))


@pytest.mark.parametrize("layout", ["reversed rows", "every third row", "part of a wider matrix", "read-only", "one row",
                                    "Fortran", "big-endian", "reversed columns", "integers", "list", "unaligned"])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("engine", ["fused", "gram", "windows"])
def test_data_in_any_layout(layout, shuffle, engine, dtype):
    n, n_i = 30, 40
    x, t = clusters(n, n_i, 3)
    x = np.rint(8 * x) / 4 if layout == "integers" else x.astype(dtype).astype(float)
    make = {
        "reversed rows": lambda a: np.ascontiguousarray(a[::-1])[::-1],
        "every third row": lambda a: np.repeat(a, 3, axis=0)[::3],
        "part of a wider matrix": lambda a: np.hstack([a, a, a])[:, n_i:2 * n_i],
        "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
        "one row": lambda a: np.broadcast_to(a[:1], a.shape),
        "Fortran": np.asfortranarray,
        "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
        "reversed columns": lambda a: np.ascontiguousarray(a[:, ::-1])[:, ::-1],
        "integers": lambda a: (4 * a).astype(np.int16),
        "list": lambda a: a.tolist(),
        "unaligned": lambda a: np.frombuffer(b"x" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
    }[layout]
    data = make(x.astype(dtype))
    model, plain = network([n_i, 20, 3], dtype), network([n_i, 20, 3], dtype)
    options = {"epochs": 2, "lr": 0.05, "batch_size": 7, "shuffle": shuffle, "rng": 1}
    losses = model.fit(data, t, engine=engine, **options)
    expected = plain.fit(np.array(data, dtype), t, engine="layers", **options)
    assert_same_training(model, losses, parameters(plain), expected, RELATIVE[dtype])


@pytest.mark.parametrize("kept_as", [np.uint8, np.float64, np.float32, np.dtype(">f4")])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_data_on_disk_in_chunks(kept_as, order, shuffle, dtype, tmp_path, monkeypatch):
    """More batches than one chunk holds; the last chunk is a short one; the file is not changed."""
    x, t = clusters(45, 30, 3)
    x = np.clip(x + 2, 0, 5).astype(np.uint8)
    disk = np.memmap(tmp_path / "x", dtype=kept_as, mode="w+", shape=x.shape, order=order)
    disk[...] = x
    disk.flush()
    before = (tmp_path / "x").read_bytes()
    disk = np.memmap(tmp_path / "x", dtype=kept_as, mode="r", shape=x.shape, order=order)
    monkeypatch.setattr(first, "_CONVERTED_BYTES", 15 * 30 * dtype.itemsize)
    model, plain = network([30, 20, 3], dtype), network([30, 20, 3], dtype)
    options = {"epochs": 3, "lr": 0.05, "batch_size": 7, "shuffle": shuffle, "rng": 1}
    losses = model.fit(disk, t, engine="fused", **options)
    expected = plain.fit(x.astype(dtype), t, engine="layers", **options)
    assert_same_training(model, losses, parameters(plain), expected, RELATIVE[dtype])
    assert (tmp_path / "x").read_bytes() == before


@pytest.mark.parametrize("order", ["C", "F"])
def test_data_on_disk_are_not_read_at_once(order, dtype, tmp_path, monkeypatch):
    """Memory for a chunk, not for the file."""
    import tracemalloc

    n, n_i = 4000, 500
    disk = np.memmap(tmp_path / "x", dtype=np.uint8 if order == "C" else dtype, mode="w+", shape=(n, n_i), order=order)
    disk[:, :] = np.random.default_rng(0).integers(0, 2, (1, n_i))
    t = np.eye(2)[np.arange(n) % 2]
    monkeypatch.setattr(first, "_CONVERTED_BYTES", 1 << 17)
    model = network([n_i, 4, 2], dtype)
    model.fit(disk, t, epochs=1, lr=1e-4, batch_size=20, engine="fused")
    tracemalloc.start()
    try:
        model.fit(disk, t, epochs=1, lr=1e-4, batch_size=20, engine="fused")
        assert tracemalloc.get_traced_memory()[1] < n * n_i / 2
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("engine", ["fused", "gram", "windows"])
def test_an_epoch_in_several_calls_gives_the_same_bits(engine, shuffle, momentum, dtype, monkeypatch):
    x, t = clusters(45, 30, 3)
    results = []
    for work in (first._CHUNK_WORK, 1, 6 * 15 * (30 * 20 + 20 * 3)):
        monkeypatch.setattr(first, "_CHUNK_WORK", work)
        model = network([30, 20, 3], dtype)
        losses = model.fit(x, t, epochs=3, lr=0.1, batch_size=7, shuffle=shuffle, rng=1, engine=engine,
                           momentum=momentum, weight_decay=0.01)
        results.append([a.tobytes() for a in (losses, *parameters(model))])
    assert results[0] == results[1] == results[2]


def test_packed_copies_follow_the_weights(dtype):
    """The way back reads a packed copy of W, which every step must renew: row by row it is the W that `write` gives."""
    widths = [10, 33, 18, 7]
    x, t = clusters(20, 10, 7)
    model = network(widths, dtype)
    engine = Engine(model, x.astype(dtype), t, 6, 0.0, 0.0)
    width = vector_lanes(dtype)
    for _ in range(2):
        engine.write()
        copies = 0
        for parameter in engine.program.net.parameters:
            layer = model.layers[parameter.layer]
            for ref in parameter.copies:
                size = layer.n_o * -(-layer.n_i // width) * width
                flat = engine.program.arenas["work"][ref.region.start:ref.region.start + size]
                back = flat.reshape(-1, layer.n_o, width).transpose(1, 0, 2).reshape(layer.n_o, -1)
                assert np.array_equal(back[:, :layer.n_i], layer.W)
                copies += 1
        assert copies == len(widths) - 2
        engine.epoch(0.5, None, len(x))


def test_save_and_restore(dtype):
    x, t = clusters(30, 12, 3)
    for momentum in (0.0, 0.9):
        engine = Engine(network([12, 20, 3], dtype), x.astype(dtype), t, 8, momentum, 0.01)
        engine.epoch(0.1, None, 30)
        saved = engine.save()
        first = engine.epoch(0.1, None, 30)
        engine.restore(saved)
        assert np.array_equal(engine.epoch(0.1, None, 30), first)


def test_neither_data_nor_given_weights_are_written_to(dtype):
    x, t = (a.astype(dtype) for a in clusters(20, 9, 3))
    model = network([9, 5, 3], dtype)
    given = parameters(model)
    kept = [a.copy() for a in (x, t, *given)]
    for array in (x, t, *given):
        array.setflags(write=False)
    model.fit(x, t, epochs=2, lr=0.1, batch_size=6, engine="fused")
    for array, copy in zip((x, t, *given), kept, strict=True):
        assert np.array_equal(array, copy)
    assert all(new is not old and new.flags.writeable for new, old in zip(parameters(model), given, strict=True))


def test_overflow_and_nan_are_seen(dtype):
    """No flag may let the compiler assume that numbers are finite."""
    x, t = clusters(20, 9, 3)
    model = network([9, 5, 3], dtype)
    losses = model.fit(1e4 * x, t, epochs=3, lr=1e6, batch_size=5, engine="fused", on_divergence="ignore")
    assert not np.isfinite(losses[-1])


@pytest.mark.parametrize(("gathered", "expected"), [(False, [0, 1, 1]), (True, [1, 1, 1, 1])])
def test_the_course_network_waits_twice_a_step(gathered, expected, dtype):
    """After the first layer and before the updates; with gathered rows also after these, and at the end of the step."""
    x, t = clusters(20, 30, 5)
    # 64 units are as many vectors for each thread on any CPU, so that columns are shared, not samples
    engine = Engine(network([30, 64, 5], dtype), x.astype(dtype), t, 8)
    waits = engine.commands(gathered)["wait"]
    assert waits.sum() == sum(expected)
    assert waits[0] == expected[0]
    assert list(waits[:2] if not gathered else waits[:3]) == expected[:2 + gathered]
