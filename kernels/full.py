"""The products of the fully connected layer, forward and backward (3.7 - 3.9)."""
import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.gemm import few_rows_here, matmul, product_here
from fastnet.kernels.gemm.commands import attempt, backward_job, forward_job
from fastnet.kernels.layout import plain
from numba.extending import overload


def full_forward(y: np.ndarray, x: np.ndarray, W: np.ndarray, b: np.ndarray) -> None:
    """y = x W.T + b (3.7).

    y (n, n_o), x (n, n_i), W (n_o, n_i), b (1, n_o): one dtype (float32 or float64), any layout. Overwrites y.
    With n_i = 0, y is b. NaN and inf go where NumPy puts them.

    Fewer than four samples, and fewer than twelve outputs of contiguous rows, are dot products of rows of x and W, which
    need no packing and are summed in an order of their own: the last bits of a sample's output may differ from those in a
    batch of four and more, or of another layout. (A BLAS does the same.)
    """
    if attempt(forward_job, W.dtype, y, x, W, b, W.shape[1]):
        return
    if not y.flags.carray:  # through an array that is, so that a few rows are summed as in any other
        result = np.empty(y.shape, y.dtype)
        full_forward(result, x, W, b)
        y[...] = result
    else:
        matmul(y, x, W.T, bias=b)


def full_backward(dx: np.ndarray, dW: np.ndarray, db: np.ndarray, dy: np.ndarray, x: np.ndarray, W: np.ndarray) -> None:
    """dx = dy W, dW = dy.T x, db = column sums of dy: the three kernels below in one call (3.9)."""
    if not attempt(backward_job, W.dtype, dx, dW, db, dy, x, W, W.shape[1], W.shape[0]):
        full_backward_input(dx, dy, W)
        full_backward_weights(dW, dy, x)
        full_backward_bias(db, dy)


def full_backward_input(dx: np.ndarray, dy: np.ndarray, W: np.ndarray) -> None:
    """dx = dy W (3.9).

    dx (n, n_i), dy (n, n_o), W (n_o, n_i): one dtype (float32 or float64), any layout. Overwrites dx.
    With n_o = 0, dx is 0.
    """
    matmul(dx, dy, W)


def full_backward_weights(dW: np.ndarray, dy: np.ndarray, x: np.ndarray) -> None:
    """dW = dy.T x, summed over the samples (3.9).

    dW (n_o, n_i), dy (n, n_o), x (n, n_i): one dtype (float32 or float64), any layout. Overwrites dW.
    With n = 0, dW is 0.
    """
    matmul(dW, dy.T, x)


def full_backward_bias(db: np.ndarray, dy: np.ndarray) -> None:
    """db = column sums of dy (3.9).

    db (1, n_o), dy (n, n_o): one dtype (float32 or float64), any layout. Overwrites db. With n = 0, db is 0.
    """
    _backward_bias(db, plain(dy))


@jit
def _backward_bias(db, dy):
    db[:] = 0
    for i in range(dy.shape[0]):
        for j in range(dy.shape[1]):
            db[0, j] += dy[i, j]


# --- the same names in compiled code, on the calling thread ---------------------------------------------------------


@overload(full_forward)
def _compiled_forward(y, x, W, b):
    def in_compiled_code(y, x, W, b):
        few_rows_here(y, x, W.T, 1.0, 0.0, b[0], 0)

    return in_compiled_code


@overload(full_backward_input)
def _compiled_backward_input(dx, dy, W):
    def in_compiled_code(dx, dy, W):
        few_rows_here(dx, dy, W, 1.0, 0.0, np.empty(0, dx.dtype), 0)

    return in_compiled_code


@overload(full_backward_weights)
def _compiled_backward_weights(dW, dy, x):
    def in_compiled_code(dW, dy, x):
        product_here(dW, dy.T, x, 1.0, 0.0, np.empty(0, dW.dtype), 0)

    return in_compiled_code


@overload(full_backward_bias)
def _compiled_backward_bias(db, dy):
    def in_compiled_code(db, dy):
        _backward_bias(db, dy)

    return in_compiled_code


@overload(full_backward)
def _compiled_backward(dx, dW, db, dy, x, W):
    def in_compiled_code(dx, dW, db, dy, x, W):
        full_backward_input(dx, dy, W)
        full_backward_weights(dW, dy, x)
        full_backward_bias(db, dy)

    return in_compiled_code
