"""ReLU: kernel against naive, then the layer, then error texts."""
import numpy as np
import pytest
from fastnet.kernels import naive, relu
from helpers import batches, filled, refuses
from hypothesis import given
from hypothesis import strategies as st

from fastnet import ReluLayer, gradcheck


@given(st.data())
def test_forward_kernel_is_naive(data):
    x = data.draw(batches())
    y, expected = filled(x.shape, x.dtype), filled(x.shape, np.float64)
    relu.relu_forward(y, x)
    naive.relu_forward(expected, x)
    assert np.array_equal(y, expected)


@given(st.data())
def test_backward_kernel_is_naive(data):
    dy = data.draw(batches())
    y = np.maximum(np.random.default_rng(2).standard_normal(dy.shape), 0).astype(dy.dtype)
    dx, expected = filled(dy.shape, dy.dtype), filled(dy.shape, np.float64)
    relu.relu_backward(dx, dy, y)
    naive.relu_backward(expected, dy, y)
    assert np.array_equal(dx, expected)


@pytest.mark.parametrize("shape", [(), (0,), (7,), (0, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_any_number_of_dimensions(shape, dtype, rng):
    x = rng.standard_normal(shape).astype(dtype)
    y, dx = filled(shape, dtype), filled(shape, dtype)
    relu.relu_forward(y, x)
    assert np.array_equal(y, np.maximum(x, 0))
    relu.relu_backward(dx, x, y)
    assert np.array_equal(dx, np.where(x > 0, x, 0))


def test_special_numbers(dtype):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, -1e-30], dtype)
    y, dx = filled(6, dtype), filled(6, dtype)
    relu.relu_forward(y, x)
    assert np.array_equal(y, [np.nan, np.inf, 0, 0, 0, 0], equal_nan=True)
    relu.relu_backward(dx, np.ones(6, dtype), y)
    assert np.array_equal(dx, [0, 1, 0, 0, 0, 0])
    relu.relu_backward(dx, np.array([np.nan, np.nan, np.inf, -np.inf, -1, np.nan], dtype), y)
    assert np.array_equal(dx, [np.nan, np.nan, np.nan, np.nan, 0, np.nan], equal_nan=True)
    assert not np.signbit(dx[4])


def test_in_place(rng):
    x = rng.standard_normal(100)
    y = x.copy()
    relu.relu_forward(y, y)
    assert np.array_equal(y, np.maximum(x, 0))


def test_output_that_cannot_be_written_flat():
    with pytest.raises(ValueError, match="C-contiguous"):
        relu.relu_forward(np.empty((3, 4)).T, np.ones((4, 3)))


def test_layer(dtype, rng):
    x = rng.standard_normal((6, 3, 4, 4)).astype(dtype)
    given_x = x.copy()
    layer = ReluLayer()
    y = layer.forward(x)
    assert y.dtype == dtype
    assert np.array_equal(y, np.maximum(x, 0))
    assert layer.y is y
    dx = layer.backward(np.ones_like(x))
    assert dx.dtype == dtype
    assert np.array_equal(dx, x > 0)
    assert np.array_equal(x, given_x)


def test_gradient_is_the_numerical_one(rng):
    assert gradcheck(ReluLayer(), rng.standard_normal((5, 7)))


def test_assigned_y_is_used():
    layer = ReluLayer()
    layer.y = [[0, 1]]
    assert np.array_equal(layer.backward([[3, 3]]), [[0, 3]])
    layer.y[0, 0] = 1
    assert np.array_equal(layer.backward([[3, 3]]), [[3, 3]])


def test_nothing_to_update():
    layer = ReluLayer()
    assert layer.update_param(0.1) is None
    assert layer.update_params(0.1) is None
    assert repr(layer) == "ReluLayer()"


def test_mistakes(rng):
    layer = ReluLayer()
    with refuses(RuntimeError, r"ReluLayer\(\): y has not been computed; call forward\(\) first", layer):
        layer.backward(np.ones((2, 2)))
    layer.forward(rng.standard_normal((2, 3)))
    with refuses(ValueError, r"y_grad must have the shape \(2, 3\) of the output, got \(3, 2\).*transposed", layer):
        layer.backward(np.ones((3, 2)))
    with refuses(ValueError, "x is empty", layer):
        layer.forward(np.ones((0, 3)))
    with refuses(TypeError, "real numbers, got dtype complex128", layer):
        layer.forward(np.ones((2, 3), complex))


@pytest.mark.parametrize("lay_out", [np.ascontiguousarray, np.asfortranarray, lambda a: np.repeat(a, 2, axis=1)[:, ::2]])
def test_few_elements_have_the_bits_of_many(lay_out, dtype, rng):
    """NumPy computes few of them."""
    x = rng.standard_normal((40, 60)).astype(dtype)
    x[:, ::7], x[:, ::11], x[::5, ::13] = -0.0, np.nan, -np.inf
    dy = rng.standard_normal(x.shape).astype(dtype)
    many, few = ReluLayer(), ReluLayer()
    y, dx = many.forward(lay_out(x)), many.backward(lay_out(dy))
    for i in range(0, 40, 4):
        rows = slice(i, i + 4)
        for got, right in ((few.forward(lay_out(x[rows])), y[rows]), (few.backward(lay_out(dy[rows])), dx[rows])):
            assert np.array_equal(np.signbit(got), np.signbit(right))
            np.testing.assert_array_equal(got, right)
            assert got.flags.c_contiguous == (lay_out is not np.asfortranarray)
