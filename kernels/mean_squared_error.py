"""The mean squared error of outputs and targets, and its gradient."""
import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.codegen.linking import op_kernel
from fastnet.kernels.compiled_calls import array_kernel, at, finish, in_compiled_code, opened, side
from fastnet.kernels.layout import for_dtypes, make_ready, matrices, plain
from fastnet.kernels.records import context_at, op_at, rows_at, vector_at
from fastnet.kernels.simd import VECTOR_BYTES, cast_like, lanes, store
from numba import types


def mean_squared_error_forward(x: np.ndarray, t: np.ndarray) -> float:
    """sum_ij (x_ij - t_ij)^2 / (n m).

    x, t: (n, m), one dtype (float32 or float64), any layout. Overwrites nothing. Summed in float64, row by row; the mean of
    nothing is NaN.
    """
    make_ready(forward_entry, x.dtype)
    return forward_entry(plain(x), plain(t))


def mean_squared_error_backward(dx: np.ndarray, x: np.ndarray, t: np.ndarray) -> None:
    """dx_ij = 2 (x_ij - t_ij) / (n m).

    dx, x, t: (n, m), one dtype (float32 or float64), any layout. Overwrites dx, which may be x or t.
    """
    _backward(dx, plain(x), plain(t))
    make_ready(backward_entry, x.dtype)


@jit
def _forward(x, t):
    (n, m), zero, total = x.shape, x.dtype.type(0), 0.0
    for i in range(n):
        row = i * m * x.itemsize
        total += _row(vector_at(x.ctypes.data + row, m, zero), vector_at(t.ctypes.data + row, m, zero))
    return total / n


@jit
def _row(x, t):
    total = 0.0
    for j in range(x.size):
        total += np.float64(x[j] - t[j]) ** 2
    return total / x.size


@jit
def _backward(dx, x, t):
    n, m = x.shape
    scale = cast_like(2.0 / max(1, n * m), x.dtype.type(0))
    for i in range(n):
        for j in range(m):
            dx[i, j] = (x[i, j] - t[i, j]) * scale


@array_kernel(2)
def _forward_here(outcome, x, t, one):
    if opened(outcome, 0, (x, t)):
        n, m = side(x, 0), side(x, 1)
        store(outcome + 8, _forward(rows_at(at(x), n, m, one), rows_at(at(t), n, m, one)))
        finish(outcome, 0, (x, t))


@array_kernel(3)
def _backward_here(outcome, dx, x, t, one):
    if opened(outcome, 1, (dx, x, t)):
        n, m = side(x, 0), side(x, 1)
        _backward(rows_at(at(dx), n, m, one), rows_at(at(x), n, m, one), rows_at(at(t), n, m, one))
        finish(outcome, 1, (dx, x, t))


in_compiled_code(mean_squared_error_forward, _forward_here, "x:nm t:nm", writes=0, returns=types.float64)
in_compiled_code(mean_squared_error_backward, _backward_here, "dx:nm x:nm t:nm")


@for_dtypes(matrices(0, 2))
def forward_entry(x, t):
    """`mean_squared_error_forward` for the layer, which has compared the shapes."""
    return _forward(x, t)


@for_dtypes(matrices(1, 2))
def backward_entry(dx, x, t):
    """`mean_squared_error_backward` for the layer; False, with nothing done, if the shapes are not those of a batch."""
    if x.shape != t.shape or dx.shape != x.shape or x.size == 0:
        return False
    _backward(dx, x, t)
    return True


@op_kernel
def mean_squared_error_op(op, context, start, stop, one):
    """Each row's loss, and C = the gradient of the mini-batch's, for samples start:stop of a compiled step."""
    o, c = op_at(op), context_at(context)
    size, m = VECTOR_BYTES // lanes(one), o.n
    order, losses = vector_at(c.order, c.n, 1), vector_at(o.aux, c.n, 1.0)
    scale = cast_like(2.0 / (c.n * m), one)
    for i in range(start, stop):
        x = vector_at(o.a.at + i * o.a.row * size, m, one)
        dx = vector_at(o.c.at + i * o.c.row * size, m, one)
        t = vector_at(c.targets + order[i] * c.targets_row * size, m, one)
        losses[i] = _row(x, t)
        for j in range(m):
            dx[j] = (x[j] - t[j]) * scale
