"""The products of the fully connected layer, forward and backward (3.7 - 3.9)."""
import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.compiled_calls import array_kernel, at, finish, in_compiled_code, opened, side
from fastnet.kernels.gemm import matmul
from fastnet.kernels.gemm.arrays import A_TURNED, B_TURNED, FEW_ROWS, product_here
from fastnet.kernels.gemm.commands import attempt, backward_job, forward_job
from fastnet.kernels.layout import plain
from fastnet.kernels.records import rows_at
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


@array_kernel(2)
def _backward_bias_here(outcome, db, dy, one):
    if opened(outcome, 1, (db, dy)):
        n, n_o = side(dy, 0), side(dy, 1)
        _backward_bias(rows_at(at(db), 1, n_o, one), rows_at(at(dy), n, n_o, one))
        finish(outcome, 1, (db, dy))


in_compiled_code(full_forward, product_here, "y:no x:ni W:oi b:1o", 1.0, 0.0, 0, FEW_ROWS | B_TURNED)
in_compiled_code(full_backward_input, product_here, "dx:ni dy:no W:oi", 0, 1.0, 0.0, 0, FEW_ROWS)
in_compiled_code(full_backward_weights, product_here, "dW:oi dy:no x:ni", 0, 1.0, 0.0, 0, A_TURNED)
in_compiled_code(full_backward_bias, _backward_bias_here, "db:1o dy:no")


@overload(full_backward)
def _compiled_backward(dx, dW, db, dy, x, W):
    def in_compiled_code(dx, dW, db, dy, x, W):
        full_backward_input(dx, dy, W)
        full_backward_weights(dW, dy, x)
        full_backward_bias(db, dy)

    return in_compiled_code
