"""Softmax: kernel against naive, then the layer, then error texts."""
import numpy as np
import pytest
from fastnet.kernels import naive, softmax
from helpers import batches, eps, filled, normals, refuses
from hypothesis import given
from hypothesis import strategies as st

from fastnet import SoftMaxLayer, gradcheck


@given(st.data(), st.sampled_from([0.1, 3.0, 100.0]))
def test_forward_kernel_is_naive(data, scale):
    x = data.draw(batches(scale=scale))
    y, expected = filled(x.shape, x.dtype), filled(x.shape, np.float64)
    softmax.softmax_forward(y, x)
    naive.softmax_forward(expected, x)
    spread = np.ptp(x.astype(np.float64), axis=1).max()  # rounding x - max costs this much of the exponential
    np.testing.assert_allclose(y, expected, rtol=(8 + spread + x.shape[1]) * eps(x), atol=np.finfo(x.dtype).tiny)
    np.testing.assert_allclose(y.sum(axis=1), 1, rtol=(4 + x.shape[1]) * eps(x))


@given(st.data())
def test_backward_kernel_is_naive(data):
    dy = data.draw(batches())
    y = filled(dy.shape, dy.dtype)
    softmax.softmax_forward(y, data.draw(normals(dy.shape, dy.dtype, 3.0)))
    dx, expected = filled(dy.shape, dy.dtype), filled(dy.shape, np.float64)
    softmax.softmax_backward(dx, dy, y)
    naive.softmax_backward(expected, dy, y)
    bound = y * (np.abs(dy) + np.sum(np.abs(dy) * y, axis=1, keepdims=True))
    assert np.all(np.abs(dx - expected) <= (4 + dy.shape[1]) * eps(dy) * bound)


def test_backward_is_the_product_with_the_jacobian(rng):
    y, dx = np.empty((4, 6)), np.empty((4, 6))
    softmax.softmax_forward(y, rng.standard_normal((4, 6)))
    dy = rng.standard_normal((4, 6))
    softmax.softmax_backward(dx, dy, y)
    for z, grad, result in zip(y, dy, dx, strict=True):
        np.testing.assert_allclose(result, grad @ (np.diag(z) - np.outer(z, z)), rtol=0, atol=1e-15)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (3, 5000), (5000, 3)])
def test_empty_wide_and_tall(shape, dtype, rng):
    x = rng.standard_normal(shape).astype(dtype)
    y = filled(shape, dtype)
    softmax.softmax_forward(y, x)
    np.testing.assert_allclose(y.sum(axis=1), 1 if shape[1] else 0, rtol=1e-4 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("row", [
    [1e30, -1e30, 0], [3e38, 3e38, 3e38], [-np.inf, 0, 1], [np.inf, 0, 1], [np.inf, np.inf, 0], [-np.inf] * 3,
    [np.nan, 0, 1], [0, 1, np.nan], [np.nan, -np.inf, -np.inf],
])
def test_special_rows_are_numpy_s_and_spoil_no_other(row, dtype):
    x = np.array([[0, 1, 2], row, [2, 1, 0]], dtype)
    y, expected = filled(x.shape, dtype), filled(x.shape, np.float64)
    softmax.softmax_forward(y, x)
    naive.softmax_forward(expected, x)
    np.testing.assert_allclose(y, expected, rtol=8 * eps(x))


def test_exponential_is_within_one_ulp(dtype):
    lowest = -110 if dtype == np.float32 else -760
    x = np.concatenate([np.linspace(lowest, 0, 20_011), -np.geomspace(1e-30, 1, 5_003), [0.0, -0.0]]).astype(dtype)
    y = x.copy()
    softmax.exp_nonpositive(y)
    true = np.exp(x.astype(np.longdouble))
    ulp = np.spacing(true.astype(dtype)).astype(np.longdouble)
    assert np.max(np.abs(y - true) / ulp) < 1.01
    assert y[-1] == 1
    assert y[0] == 0


def test_layer(dtype, rng):
    x = rng.standard_normal((6, 4)).astype(dtype)
    layer = SoftMaxLayer()
    y = layer.forward(x)
    assert y.dtype == dtype
    assert layer.y is y
    e = np.exp(x)
    np.testing.assert_allclose(y, e / e.sum(axis=1, keepdims=True), rtol=1e-6)
    assert layer.backward(np.ones_like(x)).dtype == dtype
    assert np.allclose(layer.backward(np.ones_like(x)), 0, atol=1e-6)  # the rows sum to 1 wherever x goes


def test_gradient_is_the_numerical_one(rng):
    assert gradcheck(SoftMaxLayer(), 3 * rng.standard_normal((5, 7)))


def test_assigned_y_is_used():
    layer = SoftMaxLayer()
    layer.y = np.array([[0.5, 0.5]])
    assert np.array_equal(layer.backward([[1, 0]]), [[0.25, -0.25]])


def test_nothing_to_update():
    layer = SoftMaxLayer()
    assert layer.update_param(0.1) is None
    assert layer.update_params(0.1) is None
    assert repr(layer) == "SoftMaxLayer()"


def test_mistakes(rng):
    layer = SoftMaxLayer()
    with refuses(RuntimeError, r"y has not been computed; call forward\(\) first", layer):
        layer.backward(np.ones((2, 2)))
    layer.forward(rng.standard_normal((2, 3)))
    with refuses(ValueError, r"y_grad must have the shape \(2, 3\)", layer):
        layer.backward(np.ones((2, 4)))
    with refuses(ValueError, r"x must have shape \(n, n_classes\), got \(3,\). One sample is a row: np.atleast_2d", layer):
        layer.forward(np.ones(3))
    with refuses(ValueError, r"got \(2, 3, 4\). Flatten each sample", layer):
        layer.forward(np.ones((2, 3, 4)))
    with refuses(ValueError, "x is empty", layer):
        layer.forward(np.ones((0, 3)))
