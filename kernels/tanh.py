"""The hyperbolic tangent and its derivative.

tanh(x) = x (1 + x^2 P(x^2) / Q(x^2)) near 0 (Cephes, S. Moshier) and (1 - t) / (1 + t) with t = exp(-2 |x|) elsewhere: plain
arithmetic and our own exponential, which LLVM vectorises; the C library's function is called for one number at a time.
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


def tanh_forward(y: np.ndarray, x: np.ndarray) -> None:
    """y = tanh(x).

    y, x: one shape of any number of dimensions, one dtype (float32 or float64); y C-contiguous, x of any layout.
    Overwrites y, which may be x. NaN stays NaN. Within 4 units in the last place.
    """
    _forward(flat(y), flat(plain(x)))
    make_ready(forward_entry, y.dtype)


def tanh_backward(dx: np.ndarray, dy: np.ndarray, y: np.ndarray) -> None:
    """dx = dy (1 - y^2).

    dx, dy, y: one shape of any number of dimensions, one dtype (float32 or float64); dx C-contiguous, dy and y of any
    layout; y is the output of the forward pass. Overwrites dx, which may be dy.
    """
    _backward(flat(dx), flat(plain(dy)), flat(plain(y)))
    make_ready(backward_entry, y.dtype)


@jit
def _forward(y, x):
    if x.itemsize == 4:
        for i in range(x.size):
            y[i] = _tanh_f32(x[i])
    else:
        for i in range(x.size):
            y[i] = _tanh_f64(x[i])


@jit_exact
def _tanh_f64(x):
    # near 0, where 1 - t cancels: a rational form of (tanh(x) - x) / x^3 in s = x^2
    s = x * x
    p = (-9.64399179425052238628e-1 * s - 9.92877231001918586564e1) * s - 1.61468768441708447952e3
    q = ((s + 1.12811678491632931402e2) * s + 2.23548839060100448583e3) * s + 4.84406305325125486048e3
    near = x + x * s * (p / q)
    t = exp_f64(-2.0 * abs(x))
    return np.copysign(near if abs(x) < 0.625 else (1.0 - t) / (1.0 + t), x)  # also of -0


@jit_exact
def _tanh_f32(x):
    f = np.float32
    s = x * x
    p = (((f(-5.70498872745e-3) * s + f(2.06390887954e-2)) * s - f(5.37397155531e-2)) * s + f(1.33314422036e-1)) * s
    near = x + x * s * (p - f(3.33332819422e-1))
    t = exp_f32(f(-2) * abs(x))
    return np.copysign(near if abs(x) < f(0.625) else (f(1) - t) / (f(1) + t), x)


@jit
def _backward(dx, dy, y):
    for i in range(y.size):
        dx[i] = dy[i] * (cast_like(1, y[i]) - y[i] * y[i])


@overload(tanh_forward)
def _compiled_forward(y, x):
    def in_compiled_code(y, x):
        result = to_write(y)
        _forward(result.reshape(-1), to_read(x).reshape(-1))
        written(y, result)

    return in_compiled_code


@overload(tanh_backward)
def _compiled_backward(dx, dy, y):
    def in_compiled_code(dx, dy, y):
        result = to_write(dx)
        _backward(result.reshape(-1), to_read(dy).reshape(-1), to_read(y).reshape(-1))
        written(dx, result)

    return in_compiled_code


@op_kernel
def tanh_op(op, context, start, stop, one):
    """C = tanh(A) for samples start:stop of a compiled step."""
    o, c = op_at(op), context_at(context)
    for i in range(start, stop):
        _forward(row_of(o.c, i, o.n, one), input_row(o, c, i, one))


@op_kernel
def tanh_grad_op(op, context, start, stop, one):
    """C = C (1 - A^2): the way back, from the output A."""
    o = op_at(op)
    for i in range(start, stop):
        dx = row_of(o.c, i, o.n, one)
        _backward(dx, dx, row_of(o.a, i, o.n, one))


@for_dtypes(elements(1, 1))
def forward_entry(y, x):
    """`tanh_forward` of a matrix of any layout for the layer; False, with nothing done, if y is not as it should be.

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
    """`tanh_backward` likewise."""
    if dy.shape != y.shape or dx.shape != y.shape or y.size == 0:
        return False
    if not by_rows(dx):
        dx, dy, y = dx.T, dy.T, y.T
    if not by_rows(dx):
        return False
    _backward(line(dx), line(dy), line(y))
    return True
