"""The rectified linear unit and its mask (3.14)."""
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
from numba.extending import overload


def relu_forward(y: np.ndarray, x: np.ndarray) -> None:
    """y = x where x > 0, else 0 (3.14).

    y, x: one shape of any number of dimensions, one dtype (float32 or float64); y C-contiguous, x of any layout.
    Overwrites y, which may be x. NaN stays NaN.
    """
    _forward(flat(y), flat(plain(x)))
    make_ready(forward_entry, y.dtype)


def relu_backward(dx: np.ndarray, dy: np.ndarray, y: np.ndarray) -> None:
    """dx = dy where y > 0, else 0 dy: the derivative at 0 is taken as 0 (3.14).

    dx, dy, y: one shape of any number of dimensions, one dtype (float32 or float64); dx C-contiguous, dy and y of any
    layout; y is the output of the forward pass (its input does as well). Overwrites dx, which may be dy.
    Where y is NaN, dx is 0 dy. A gradient that is NaN or inf gives NaN where y is not above 0, as in NumPy's product with a
    mask: a lost network is lost in all its weights.
    """
    _backward(flat(dx), flat(plain(dy)), flat(plain(y)))
    make_ready(backward_entry, y.dtype)


@jit
def _forward(y, x):
    zero = x.dtype.type(0)
    for i in range(x.size):
        y[i] = max(x[i], zero)  # in this order: the second only if it is greater, so that NaN stays


@jit
def _backward(dx, dy, y):
    zero = y.dtype.type(0)
    for i in range(y.size):
        dx[i] = dy[i] if y[i] > zero else dy[i] - dy[i]  # a difference, as 0 (-1) is -0


@overload(relu_forward)
def _compiled_forward(y, x):
    def in_compiled_code(y, x):
        result = to_write(y)
        _forward(result.reshape(-1), to_read(x).reshape(-1))
        written(y, result)

    return in_compiled_code


@overload(relu_backward)
def _compiled_backward(dx, dy, y):
    def in_compiled_code(dx, dy, y):
        result = to_write(dx)
        _backward(result.reshape(-1), to_read(dy).reshape(-1), to_read(y).reshape(-1))
        written(dx, result)

    return in_compiled_code


@op_kernel
def relu_op(op, context, start, stop, one):
    """C = A where A > 0, else 0 (3.14), for samples start:stop of a compiled step."""
    o, c = op_at(op), context_at(context)
    for i in range(start, stop):
        _forward(row_of(o.c, i, o.n, one), input_row(o, c, i, one))


@for_dtypes(elements(1, 1))
def forward_entry(y, x):
    """`relu_forward` of a matrix of any layout for the layer; False, with nothing done, if y is not as it should be.

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
    """`relu_backward` likewise."""
    if dy.shape != y.shape or dx.shape != y.shape or y.size == 0:
        return False
    if not by_rows(dx):
        dx, dy, y = dx.T, dy.T, y.T
    if not by_rows(dx):
        return False
    _backward(line(dx), line(dy), line(y))
    return True
