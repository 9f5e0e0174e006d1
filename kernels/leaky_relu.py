"""The leaky rectified linear unit (Maas, Hannun & Ng 2013) and its derivative."""
import numpy as np
from fastnet.kernels.codegen.jit import jit
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
from numba.extending import overload


def leaky_relu_forward(y: np.ndarray, x: np.ndarray, slope: float) -> None:
    """y = x where x > 0, else slope x.

    y, x: one shape of any number of dimensions, one dtype (float32 or float64); y C-contiguous, x of any layout; slope is
    rounded to that dtype. Overwrites y, which may be x. NaN stays NaN.
    """
    _forward(flat(y), flat(plain(x)), float(slope))
    make_ready(forward_entry, y.dtype)


def leaky_relu_backward(dx: np.ndarray, dy: np.ndarray, y: np.ndarray, slope: float) -> None:
    """dx = dy where y > 0, else slope dy: the derivative at 0 is taken as the slope.

    dx, dy, y: one shape of any number of dimensions, one dtype (float32 or float64); dx C-contiguous, dy and y of any
    layout; y is the output of the forward pass, for a slope that is not negative. Overwrites dx, which may be dy.
    """
    _backward(flat(dx), flat(plain(dy)), flat(plain(y)), float(slope))
    make_ready(backward_entry, y.dtype)


@jit
def _forward(y, x, slope):
    for i in range(x.size):
        y[i] = x[i] if x[i] > 0 else cast_like(slope, x[i]) * x[i]


@jit
def _backward(dx, dy, y, slope):
    for i in range(y.size):
        dx[i] = dy[i] if y[i] > 0 else cast_like(slope, dy[i]) * dy[i]


@overload(leaky_relu_forward)
def _compiled_forward(y, x, slope):
    def in_compiled_code(y, x, slope):
        result = to_write(y)
        _forward(result.reshape(-1), to_read(x).reshape(-1), float(slope))
        written(y, result)

    return in_compiled_code


@overload(leaky_relu_backward)
def _compiled_backward(dx, dy, y, slope):
    def in_compiled_code(dx, dy, y, slope):
        result = to_write(dx)
        _backward(result.reshape(-1), to_read(dy).reshape(-1), to_read(y).reshape(-1), float(slope))
        written(dx, result)

    return in_compiled_code


@op_kernel
def leaky_relu_op(op, context, start, stop, one):
    """C = A where A > 0, else slope A, for samples start:stop of a compiled step."""
    o, c = op_at(op), context_at(context)
    for i in range(start, stop):
        _forward(row_of(o.c, i, o.n, one), input_row(o, c, i, one), o.number)


@op_kernel
def leaky_relu_grad_op(op, context, start, stop, one):
    """C = C where A > 0, else slope C: the way back, from the output A."""
    o = op_at(op)
    for i in range(start, stop):
        dx = row_of(o.c, i, o.n, one)
        _backward(dx, dx, row_of(o.a, i, o.n, one), o.number)


@for_dtypes(elements(1, 1, 1))
def forward_entry(y, x, slope):
    """`leaky_relu_forward` of a matrix of any layout for the layer; False, with nothing done, if y is not as it should be.

    That is of the shape of x, not empty, and without gaps, in C or Fortran order.
    """
    if y.shape != x.shape or x.size == 0:
        return False
    if not by_rows(y):
        y, x = y.T, x.T
    if not by_rows(y):
        return False
    _forward(line(y), line(x), slope)
    return True


@for_dtypes(elements(1, 2, 1))
def backward_entry(dx, dy, y, slope):
    """`leaky_relu_backward` likewise."""
    if dy.shape != y.shape or dx.shape != y.shape or y.size == 0:
        return False
    if not by_rows(dx):
        dx, dy, y = dx.T, dy.T, y.T
    if not by_rows(dx):
        return False
    _backward(line(dx), line(dy), line(y), slope)
    return True
