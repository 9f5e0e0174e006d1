"""Arrays that layers use again: never one that somebody else still holds, in whatever way, and never as part of a layer."""
import copy
import ctypes
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import one_hot_rows

from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer
from fastnet.base import buffers as _buffers

counted = pytest.mark.skipif(not _buffers._COUNTED, reason="no exact counts of references here")


@pytest.fixture(autouse=True)
def of_any_size(monkeypatch):
    """Small arrays, too, are kept and looked for."""
    monkeypatch.setattr(_buffers, "SMALL", -1)


HOLDERS = {
    "itself": lambda a: a,
    "view": lambda a: a[:],
    "row": lambda a: a[0],
    "view of a view": lambda a: a[1:].T[:1],
    "transpose": lambda a: a.T,
    "reshaped": lambda a: a.reshape(-1),
    "in a list": lambda a: [[a]],
    "in a dict": lambda a: {"a": a},
    "memoryview": memoryview,
    "from a buffer": lambda a: np.frombuffer(a, a.dtype).reshape(a.shape),
    "ctypes": lambda a: a.ctypes,
    "strided": lambda a: np.lib.stride_tricks.as_strided(a, (2,), (8,)),
    "iterator": lambda a: a.flat,
    "closure": lambda a: lambda: a,
}


def numbers(held):
    """What a holder still sees."""
    if isinstance(held, list):
        return np.array(held[0][0])
    if isinstance(held, dict):
        return held["a"].copy()
    if callable(held):
        return held().copy()
    if isinstance(held, type(np.zeros(1).ctypes)):
        return np.array((ctypes.c_double * 4).from_address(held.data))
    return np.array(held)


def layer_and_batch(rng, n=6):
    layer = FullLayer(5, 3, rng=rng)
    return layer, rng.standard_normal((n, 5)), rng.standard_normal((n, 3))


def step(layer, x, dy, lr=0.1):
    y = layer.forward(x)
    dx = layer.backward(dy)
    layer.update_param(lr)
    return y, dx, layer.W_grad, layer.b_grad, layer.W, layer.b


@pytest.mark.parametrize("how", HOLDERS)
def test_what_somebody_holds_never_changes(how, rng):
    layer, x, dy = layer_and_batch(rng)
    step(layer, x, dy)
    held = [HOLDERS[how](a) for a in step(layer, x, dy)]
    before = [numbers(h) for h in held]
    for _ in range(5):
        step(layer, rng.standard_normal((6, 5)), rng.standard_normal((6, 3)), 0.5)
    for h, b in zip(held, before, strict=True):
        assert np.array_equal(numbers(h), b)


@counted
def test_what_nobody_holds_is_used_again(rng):
    layer, x, dy = layer_and_batch(rng)
    seen = [set() for _ in range(6)]
    for _ in range(10):
        for addresses, a in zip(seen, step(layer, x, dy), strict=True):
            addresses.add(a.ctypes.data)
            assert a.flags.owndata
            assert a.flags.carray
    assert [len(addresses) for addresses in seen] == [1, 1, 2, 2, 2, 2]  # those that a layer holds itself alternate


def test_all_gradients_may_be_kept(rng):
    layer, _, _ = layer_and_batch(rng)
    kept, expected = [], []
    for _ in range(12):
        x, dy = rng.standard_normal((6, 5)), rng.standard_normal((6, 3))
        layer.forward(x)
        layer.backward(dy)
        kept.append((layer.W_grad, layer.b_grad, layer.W))
        expected.append((dy.T @ x, dy.sum(axis=0, keepdims=True), layer.W.copy()))
        layer.update_param(0.1)
    for arrays, right in zip(kept, expected, strict=True):
        for a, b in zip(arrays, right, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", [ReluLayer, SoftMaxLayer])
def test_outputs_of_layers_without_parameters(make, rng):
    layer = make()
    x, dy = rng.standard_normal((2, 6, 4))
    y = layer.forward(x)
    dx = layer.backward(dy)
    before = y.copy(), dx.copy()
    for _ in range(4):
        layer.forward(rng.standard_normal((6, 4)))
        layer.backward(rng.standard_normal((6, 4)))
    assert np.array_equal(y, before[0])
    assert np.array_equal(dx, before[1])


def test_gradients_of_the_loss(rng):
    loss, t = CrossEntropyLayer(), one_hot_rows(rng, 6, 3)
    kept = []
    for _ in range(6):
        loss.forward(rng.uniform(0.1, 1, (6, 3)), t)
        kept.append((loss.backward(), -t / loss.x / 6))
    for a, b in kept:
        np.testing.assert_allclose(a, b, rtol=1e-12)


@counted
def test_sizes_in_turn_are_found_among_what_is_kept():
    buffers, dtype, kept = {}, np.dtype(np.float32), set()
    for n in (3, 5) * 4:
        kept.add(id(_buffers.take(buffers, "y", (n, 4), dtype, 4 * n)))
    assert len(kept) == len(buffers["y"]) == 2


def test_batches_of_two_sizes(rng):
    layer = FullLayer(5, 3, rng=rng)
    for n in (6, 6, 2, 6, 6, 2, 1, 6):
        x, dy = rng.standard_normal((n, 5)), rng.standard_normal((n, 3))
        np.testing.assert_allclose(layer.forward(x), x @ layer.W.T + layer.b)
        np.testing.assert_allclose(layer.backward(dy), dy @ layer.W)
    assert all(len(arrays) <= _buffers._KEPT for arrays in layer._buffers.values())


@pytest.mark.parametrize("spoil", [
    lambda a: a.setflags(write=False),
    lambda a: setattr(a, "shape", a.shape[::-1]),
    lambda a: setattr(a, "dtype", np.int64),
    lambda a: a.resize((1, 1), refcheck=False),
])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_holder_may_change_more_than_the_numbers(spoil, rng):
    layer, x, dy = layer_and_batch(rng)
    for _ in range(4):
        y, dx = layer.forward(x), layer.backward(dy)
        np.testing.assert_allclose(y, x @ layer.W.T + layer.b)
        np.testing.assert_allclose(dx, dy @ layer.W)
        spoil(y)
        spoil(dx)
        del y, dx


def test_buffers_are_no_part_of_a_layer(rng):
    layer, x, dy = layer_and_batch(rng)
    fresh = len(pickle.dumps(layer))
    step(layer, x, dy)
    step(layer, x, dy)
    assert set(vars(layer)) == {"n_i", "n_o", "W", "b", "x", "W_grad", "b_grad"}
    arrays = sum(a.nbytes for a in (layer.x, layer.W_grad, layer.b_grad))
    assert len(pickle.dumps(layer)) < fresh + arrays + 500
    for other in (pickle.loads(pickle.dumps(layer)), copy.copy(layer), copy.deepcopy(layer)):
        assert not other._buffers
        before = layer.W.copy(), layer.W_grad.copy()
        step(other, 2 * x, dy)
        step(other, 3 * x, dy)
        assert np.array_equal(layer.W, before[0])
        assert np.array_equal(layer.W_grad, before[1])


def test_a_call_that_fails_leaves_what_was_there(rng):
    model = Sequential((FullLayer(5, 4, rng=rng), ReluLayer(), FullLayer(4, 3, rng=rng), SoftMaxLayer()), CrossEntropyLayer())
    x, t = rng.standard_normal((6, 5)), one_hot_rows(rng, 6, 3)

    def all_steps(lr=0.1):
        model.forward(x, t)
        model.backward()
        model.update_param(lr)

    all_steps()
    all_steps()
    held = [(layer, name, value, value.copy()) for layer in (*model.layers, model.loss)
            for name, value in vars(layer).items() if isinstance(value, np.ndarray)]
    with pytest.raises(ValueError, match="must have shape"):
        model.forward(x, t[:4])
    last = model.layers[3]
    last.y = np.ones((2, 2))
    with pytest.raises(ValueError, match="must have the shape"):
        model.backward()
    last.y = next(value for layer, name, value, _ in held if layer is last and name == "y")
    model.layers[2].W_grad = None
    with pytest.raises(RuntimeError, match="W_grad"):
        model.update_param(0.1)
    for layer, name, value, before in held:
        assert np.array_equal(value, before), (layer, name)
        if (layer, name) != (model.layers[2], "W_grad"):
            assert getattr(layer, name) is value


def test_one_layer_in_many_threads(rng):
    layer = FullLayer(40, 30, rng=rng)
    batches = [rng.standard_normal((20 + i % 2, 40)) for i in range(8)]
    expected = [x @ layer.W.T + layer.b for x in batches]
    start = threading.Barrier(8)

    def work(i):
        start.wait()
        for _ in range(200):
            kept = [layer.forward(batches[i]) for _ in range(3)]
            for y in kept:
                np.testing.assert_allclose(y, expected[i], rtol=1e-12, atol=1e-12)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


def test_without_counts_every_array_is_new(rng, monkeypatch):
    monkeypatch.setattr(_buffers, "_COUNTED", False)
    monkeypatch.setattr(_buffers, "getrefcount", lambda a: -1)
    layer, x, dy = layer_and_batch(rng)
    first = step(layer, x, dy)
    second = step(layer, x, dy)
    assert not any(layer._buffers.values())
    assert all(a is not b for a, b in zip(first, second, strict=True))


def test_a_subclass_with_attributes_of_its_own_is_asked_for_them(rng):
    class Scaled(FullLayer):
        @property
        def W(self):
            return 2 * self.__dict__["W"]

        @W.setter
        def W(self, value):
            self.__dict__["W"] = value

    class Counted(ReluLayer):
        assigned = 0

        def __setattr__(self, name, value):
            type(self).assigned += 1
            super().__setattr__(name, value)

    layer, x = Scaled(5, 3, rng=rng), rng.standard_normal((6, 5))
    np.testing.assert_allclose(layer.forward(x), x @ layer.W.T + layer.b)
    np.testing.assert_allclose(layer.backward(np.ones((6, 3))), np.ones((6, 3)) @ layer.W)
    relu = Counted()
    before = relu.assigned
    relu.forward(x)
    assert relu.assigned == before + 1
