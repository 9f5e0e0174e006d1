"""What all element-wise layers share: large arrays are computed by all threads."""
import numpy as np
import pytest
from fastnet.kernels.elementwise import MANY
from fastnet.kernels.runtime import pool

import fastnet
from fastnet.base import activation

LAYERS = [fastnet.ReluLayer, fastnet.LeakyReluLayer, fastnet.TanhLayer, fastnet.SigmoidLayer]
SHAPE = (5, 3, 139, 139)  # no whole number of vectors a thread


@pytest.fixture(autouse=True)
def threads_put_back():
    before = pool.get_num_threads()
    yield
    pool.set_num_threads(before)


def test_these_are_all_of_them():
    assert set(LAYERS) == {layer for layer in activation.Activation.__subclasses__() if layer.__module__.startswith("fastnet.")}


@pytest.mark.parametrize("layer", LAYERS)
def test_large_arrays_have_the_bits_of_their_parts(layer, dtype, rng):
    x, dy = rng.standard_normal((2, *SHAPE)).astype(dtype)
    assert x.size > MANY > x[0].size
    x.flat[::1009], x.flat[1::1013], dy.flat[::1019] = np.nan, -0.0, np.inf
    parts = [layer() for _ in x]
    expected = [np.stack([part.forward(sample).copy() for part, sample in zip(parts, x, strict=True)]),
                np.stack([part.backward(gradient).copy() for part, gradient in zip(parts, dy, strict=True)])]
    for count in (1, 2, 3, 5):
        pool.set_num_threads(count)
        whole = layer()
        for found, right in zip((whole.forward(x), whole.backward(dy)), expected, strict=True):
            assert found.tobytes() == right.tobytes()


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("layout", ["read-only", "columns", "apart"])
def test_large_arrays_of_other_layouts(layer, layout, dtype, rng):
    x, dy = rng.standard_normal((2, 520, 521)).astype(dtype)
    plain = layer()
    expected = plain.forward(x).copy(), plain.backward(dy).copy()
    if layout == "read-only":
        x.flags.writeable = dy.flags.writeable = False
    elif layout == "columns":
        x, dy = np.asfortranarray(x), np.asfortranarray(dy)
    else:
        x, dy = np.repeat(x, 2, 1)[:, ::2], np.repeat(dy, 3, 0)[::3]
    other = layer()
    assert np.array_equal(other.forward(x), expected[0])
    assert np.array_equal(other.backward(dy), expected[1])


def test_large_gradients_of_another_shape_are_refused(dtype, rng):
    layer = fastnet.ReluLayer()
    layer.forward(rng.standard_normal((600, 500)).astype(dtype))
    with pytest.raises(ValueError, match=r"y_grad must have the shape \(600, 500\) of the output, got \(500, 600\)"):
        layer.backward(rng.standard_normal((500, 600)).astype(dtype))
