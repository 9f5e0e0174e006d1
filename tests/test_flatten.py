"""The flatten layer: kernels against naive, then the layer, then error texts."""
import copy
import pickle

import numpy as np
import pytest
from fastnet.kernels import flatten, naive
from helpers import LAYOUTS, filled, laid_out, refuses

from fastnet import FlattenLayer, gradcheck


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 4, 5), (3, 1, 1, 7)])
def test_kernels_are_naive(shape, layout, dtype, rng):
    x = laid_out(rng.standard_normal(shape).astype(dtype), layout)
    y, expected = filled((shape[0], x[0].size), dtype), filled((shape[0], x[0].size), dtype)
    flatten.flatten_forward(y, x)
    naive.flatten_forward(expected, x)
    assert np.array_equal(y, expected)
    dx = filled(shape, dtype)
    flatten.flatten_backward(dx, laid_out(y, layout))
    assert np.array_equal(dx, x)


def test_layer(dtype, rng):
    x = rng.standard_normal((2, 3, 4, 5)).astype(dtype)
    layer = FlattenLayer()
    assert layer.orig_shape is None
    y = layer.forward(x)
    assert y.dtype == dtype
    assert y[1, 2 * 20 + 3 * 5 + 4] == x[1, 2, 3, 4]
    assert np.array_equal(y, x.reshape(2, 60))
    assert not np.shares_memory(y, x)
    assert layer.orig_shape == (2, 3, 4, 5)
    dx = layer.backward(y)
    assert np.array_equal(dx, x)
    assert not np.shares_memory(dx, y)
    assert dx.dtype == dtype


def test_gradient_copies_and_nothing_to_update(rng):
    layer = FlattenLayer()
    assert gradcheck(layer, rng.standard_normal((2, 3, 4, 5)))
    layer.forward(rng.integers(0, 9, (2, 3, 4, 5)))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.backward(np.ones((2, 60))).shape == (2, 3, 4, 5)
    assert layer.update_param(0.1) is None
    assert layer.update_params(0.1) is None
    assert repr(layer) == "FlattenLayer()"


def test_output_shape():
    layer = FlattenLayer()
    assert layer.output_shape((3, 4, 5)) == (60,)
    assert layer.output_shape((3, None, None)) == (None,)
    assert layer.output_shape(None) == (None,)
    with pytest.raises(ValueError, match=r"FlattenLayer\(\) takes images, of shape \(c, r, k\) per sample, but its input has shape \(4,\)"):
        layer.output_shape((4,))


def test_mistakes(rng):
    layer, x = FlattenLayer(), rng.standard_normal((2, 3, 4, 5))
    with refuses(RuntimeError, r"FlattenLayer\(\): orig_shape has not been computed; call forward\(\)", layer):
        layer.backward(np.ones((2, 60)))
    with refuses(ValueError, r"x must be images of shape \(n, c, r, k\), got \(2, 60\)", layer):
        layer.forward(x.reshape(2, 60))
    layer.forward(x)
    with refuses(ValueError, r"y_grad must have the shape \(2, 60\) of the output, got \(60, 2\).*transposed", layer):
        layer.backward(np.ones((60, 2)))
