"""The step of gradient descent: kernel against naive."""
import numpy as np
import pytest
from fastnet.kernels import naive, sgd
from helpers import batches, eps, filled, normals
from hypothesis import given
from hypothesis import strategies as st


@given(st.data(), st.sampled_from([0.0, 0.01, 0.3, 10.0]))
def test_kernel_is_naive(data, lr):
    W = data.draw(batches())
    dW = data.draw(normals(W.shape, W.dtype))
    out, expected = filled(W.shape, W.dtype), filled(W.shape, np.float64)
    sgd.sgd_update(out, W, dW, lr)
    naive.sgd_update(expected, W, dW, lr)
    assert np.all(np.abs(out - expected) <= 2 * eps(W) * (np.abs(W) + lr * np.abs(dW)))


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
def test_any_shape_in_place(shape, dtype):
    W, dW = np.full(shape, 3, dtype), np.full(shape, 4, dtype)
    sgd.sgd_update(W, W, dW, 0.5)
    assert np.array_equal(W, np.ones(shape))


def test_nan_and_inf_go_where_numpy_puts_them(dtype):
    W, dW = np.array([1, np.nan, np.inf, np.inf, 1], dtype), np.array([np.inf, 1, np.inf, 1, np.nan], dtype)
    out = filled(5, dtype)
    sgd.sgd_update(out, W, dW, 0.5)
    with np.errstate(invalid="ignore"):
        assert np.array_equal(out, W - dtype.type(0.5) * dW, equal_nan=True)
