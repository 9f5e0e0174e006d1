"""The logistic sigmoid and its derivative.

1 / (1 + exp(-x)) is computed from t = exp(-|x|), which never overflows: t / (1 + t) where x is negative, else 1 / (1 + t).
"""
import numpy as np
from fastnet.kernels.codegen.jit import jit, jit_exact
from fastnet.kernels.codegen.layout import (
    by_rows,
    elements,
    flat,
    for_dtypes,
    line,
    make_ready,
    plain,
    to_read,
    to_write,
    written,
)
from fastnet.kernels.codegen.linking import op_kernel
from fastnet.kernels.records import context_at, input_row, op_at, row_of
from fastnet.kernels.simd import cast_like
from fastnet.kernels.softmax import exp_f32, exp_f64
from numba.extending import overload


def sigmoid_forward(y: np.ndarray, x: np.ndarray) -> None:
    """y = 1 / (1 + exp(-x)).

    y, x: one shape of any number of dimensions, one dtype (float32 or float64); y C-contiguous, x of any layout.
    Overwrites y, which may be x. NaN stays NaN. Within 4 units in the last place, for results below 1e-300, too.
    """
    _forward(flat(y), flat(plain(x)))
    make_ready(forward_entry, y.dtype)


def sigmoid_backward(dx: np.ndarray, dy: np.ndarray, y: np.ndarray) -> None:
    """dx = dy y (1 - y).

    dx, dy, y: one shape of any number of dimensions, one dtype (float32 or float64); dx C-contiguous, dy and y of any
    layout; y is the output of the forward pass. Overwrites dx, which may be dy.
    """
    _backward(flat(dx), flat(plain(dy)), flat(plain(y)))
    make_ready(backward_entry, y.dtype)


@jit
def _forward(y, x):
    if x.itemsize == 4:
        for i in range(x.size):
            y[i] = _sigmoid_f32(x[i])
    else:
        for i in range(x.size):
            y[i] = _sigmoid_f64(x[i])


@jit_exact
def _sigmoid_f64(x):
    t = exp_f64(-abs(x))
    return (t if x < 0 else 1.0) / (1.0 + t)


@jit_exact
def _sigmoid_f32(x):
    t = exp_f32(-abs(x))
    return (t if x < 0 else np.float32(1)) / (np.float32(1) + t)


@jit
def _backward(dx, dy, y):
    for i in range(y.size):
        dx[i] = dy[i] * (y[i] * (cast_like(1, y[i]) - y[i]))


@overload(sigmoid_forward)
def _compiled_forward(y, x):
    def in_compiled_code(y, x):
        result = to_write(y)
        _forward(result.reshape(-1), to_read(x).reshape(-1))
        written(y, result)

    return in_compiled_code


@overload(sigmoid_backward)
def _compiled_backward(dx, dy, y):
    def in_compiled_code(dx, dy, y):
        result = to_write(dx)
        _backward(result.reshape(-1), to_read(dy).reshape(-1), to_read(y).reshape(-1))
        written(dx, result)

    return in_compiled_code


@op_kernel
def sigmoid_op(op, context, start, stop, one):
    """C = 1 / (1 + exp(-A)) for samples start:stop of a compiled step."""
    o, c = op_at(op), context_at(context)
    for i in range(start, stop):
        _forward(row_of(o.c, i, o.n, one), input_row(o, c, i, one))


@op_kernel
def sigmoid_grad_op(op, context, start, stop, one):
    """C = C A (1 - A): the backward pass, from the output A."""
    o = op_at(op)
    for i in range(start, stop):
        dx = row_of(o.c, i, o.n, one)
        _backward(dx, dx, row_of(o.a, i, o.n, one))


@for_dtypes(elements(1, 1))
def forward_entry(y, x):
    """`sigmoid_forward` of a matrix of any layout for the layer; False, with nothing done, if y is not as it should be.

    That is of the shape of x, not empty, and without gaps, in C or Fortran order.
    """
    if y.shape != x.shape or x.size == 0:
        return False
    if not by_rows(y):
        y, x = y.T, x.T
    if not by_rows(y):
        return False
    _forward(line(y), line(x))
    return True


@for_dtypes(elements(1, 2))
def backward_entry(dx, dy, y):
    """`sigmoid_backward` likewise."""
    if dy.shape != y.shape or dx.shape != y.shape or y.size == 0:
        return False
    if not by_rows(dx):
        dx, dy, y = dx.T, dy.T, y.T
    if not by_rows(dx):
        return False
    _backward(line(dx), line(dy), line(y))
    return True
