"""The mean squared error of outputs and targets, and its gradient."""
import numpy as np
from fastnet.kernels._jit import jit, op_kernel
from fastnet.kernels._layout import plain
from fastnet.kernels.simd import VECTOR_BYTES, cast_like, lanes
from fastnet.kernels.structs import context_at, op_at, vector_at


def mean_squared_error_forward(x: np.ndarray, t: np.ndarray) -> float:
    """sum_ij (x_ij - t_ij)^2 / (n m).

    x, t: (n, m), n and m > 0, one dtype (float32 or float64), any layout. Overwrites nothing. Summed in float64, row by row.
    """
    return _forward(plain(x), plain(t))


def mean_squared_error_backward(dx: np.ndarray, x: np.ndarray, t: np.ndarray) -> None:
    """dx_ij = 2 (x_ij - t_ij) / (n m).

    dx, x, t: (n, m), n and m > 0, one dtype (float32 or float64), any layout. Overwrites dx, which may be x or t.
    """
    _backward(dx, plain(x), plain(t))


@jit
def _forward(x, t):
    total = 0.0
    for i in range(x.shape[0]):
        total += _row(x[i], t[i])
    return total / x.shape[0]


@jit
def _row(x, t):
    total = 0.0
    for j in range(x.size):
        total += np.float64(x[j] - t[j]) ** 2
    return total / x.size


@jit
def _backward(dx, x, t):
    n, m = x.shape
    scale = cast_like(2.0 / (n * m), x[0, 0])
    for i in range(n):
        for j in range(m):
            dx[i, j] = (x[i, j] - t[i, j]) * scale


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
