"""Row-wise stable softmax (3.16) and the product of a gradient with its Jacobian (3.17).

The exponential is our own: the C library's is called for one number at a time (4.6 ns an element, and Numba's vectorised
SVML is not in its wheels); the one below is plain arithmetic, which LLVM vectorises (1.0 ns, NumPy's 1.0 ns).
"""
import numpy as np
from fastnet.kernels.codegen.jit import ForEachType, jit, jit_exact
from fastnet.kernels.codegen.linking import INT, op_kernel, separate
from fastnet.kernels.compiled_calls import array_kernel, at, finish, in_compiled_code, opened, side
from fastnet.kernels.layout import for_dtypes, make_ready, matrices, plain
from fastnet.kernels.records import context_at, op_at, rows_at, vector_at
from fastnet.kernels.simd import VECTOR_BYTES, lanes, same_bits

BLOCK = 2048  # numbers a block of rows holds at least: enough to fill the vectors, few enough to stay in L1 cache

_LOG2_E = 1.4426950408889634
# ln 2 in two parts, the first with so few bits that its product with an exponent is exact.
_LN2_HI_F64, _LN2_LO_F64 = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_LN2_HI_F32, _LN2_LO_F32 = 6.93145751953125e-01, 1.42860676533018710e-06


def softmax_forward(y: np.ndarray, x: np.ndarray) -> None:
    """y_ij = exp(x_ij - max_k x_ik) / sum_k exp(x_ik - max_k x_ik) (3.16).

    y, x: (n, n_classes), one dtype (float32 or float64); y C-contiguous, x of any layout. Overwrites y, which may be x.
    -inf gives 0; a row with NaN or +inf, or of -inf alone, is all NaN, as in NumPy.
    """
    softmax_rows(y, plain(x))
    make_ready(forward_entry, y.dtype)


def softmax_backward(dx: np.ndarray, dy: np.ndarray, y: np.ndarray) -> None:
    """dx_ij = y_ij (dy_ij - sum_k dy_ik y_ik), which is dy (diag(y) - y.T y) without the Jacobian (3.17).

    dx, dy, y: (n, n_classes), one dtype (float32 or float64), any layout; y is the output of the forward pass.
    Overwrites dx, which may be dy.
    """
    out = dx if dx.flags.carray else np.empty(dx.shape, dx.dtype)
    _backward(out, plain(dy), plain(y))
    if out is not dx:
        dx[...] = out
    make_ready(backward_entry, y.dtype)


@jit
def softmax_rows(y, x):
    """`softmax_forward` inside kernels: y and x C-contiguous."""
    one = y.dtype.type(1)
    normalise_rows(y.ctypes.data, x.ctypes.data, x.shape[0], x.shape[1], one)


@separate(lambda element: (*[INT] * 4, element))
def normalise_rows(y_at, x_at, n, m, one):
    # Subtract, exponentiate, divide. The middle pass runs over whole blocks, so that it is as fast on rows of 5 as on
    # rows of 1000.
    y, x, zero = rows_at(y_at, n, m, one), rows_at(x_at, n, m, one), one - one
    rows = max(1, BLOCK // max(1, m))
    for start in range(0, n, rows):
        stop = min(start + rows, n)
        for i in range(start, stop):
            top = x.dtype.type(-np.inf)
            for j in range(m):
                top = max(top, x[i, j])  # passes over NaN, which the subtraction brings back
            for j in range(m):
                y[i, j] = x[i, j] - top
        exp_nonpositive(vector_at(y_at + start * m * (VECTOR_BYTES // lanes(one)), (stop - start) * m, one))
        for i in range(start, stop):
            total = zero
            for j in range(m):
                total += y[i, j]
            for j in range(m):
                y[i, j] /= total


@jit
def _backward(dx, dy, y):
    n, m = y.shape
    backward_rows(dx.ctypes.data, m, dy.ctypes.data, m, y.ctypes.data, m, n, m, y.dtype.type(1))


@separate(lambda element: (*[INT] * 8, element))
def backward_rows(dx_at, dx_row, dy_at, dy_row, y_at, y_row, n, m, one):
    # Compiled once, for all callers: inlined into each, LLVM 14 takes the sum in another order in some of them.
    size = VECTOR_BYTES // lanes(one)
    for i in range(n):
        dx, dy, y = (vector_at(dx_at + i * dx_row * size, m, one), vector_at(dy_at + i * dy_row * size, m, one),
                     vector_at(y_at + i * y_row * size, m, one))
        dot = one - one
        for j in range(m):
            dot += dy[j] * y[j]
        for j in range(m):
            dx[j] = y[j] * (dy[j] - dot)


@array_kernel(2)
def _forward_here(outcome, y, x, one):
    if opened(outcome, 1, (y, x)):
        normalise_rows(at(y), at(x), side(x, 0), side(x, 1), one)
        finish(outcome, 1, (y, x))


@array_kernel(3)
def _backward_here(outcome, dx, dy, y, one):
    if opened(outcome, 1, (dx, dy, y)):
        m = side(y, 1)
        backward_rows(at(dx), m, at(dy), m, at(y), m, side(y, 0), m, one)
        finish(outcome, 1, (dx, dy, y))


in_compiled_code(softmax_forward, _forward_here, "y:nm x:nm")
in_compiled_code(softmax_backward, _backward_here, "dx:nm dy:nm y:nm")


@op_kernel
def softmax_op(op, context, start, stop, one):
    """C = softmax of the rows of A (3.16), for samples start:stop of a compiled step."""
    o, now = op_at(op), context_at(context)
    size = VECTOR_BYTES // lanes(one)
    at, row = (now.batch, now.batch_row) if o.from_data else (o.a.at, o.a.row)
    together = max(1, stop - start) if row == o.n and o.c.row == o.n else 1  # rows without gaps between them
    for i in range(start, stop, together):
        normalise_rows(o.c.at + i * o.c.row * size, at + i * row * size, together, o.n, one)


@op_kernel
def softmax_grad_op(op, context, start, stop, one):
    """C = B (C - the sum of B C), row by row: the backward pass (3.17), from the output B."""
    o = op_at(op)
    size = VECTOR_BYTES // lanes(one)
    dx, y = o.c.at + start * o.c.row * size, o.b.at + start * o.b.row * size
    backward_rows(dx, o.c.row, dx, o.c.row, y, o.b.row, stop - start, o.n, one)


@for_dtypes(matrices(1, 1))
def forward_entry(y, x):
    """`softmax_forward` for the layer; False, with nothing done, if the shapes are not those of a batch."""
    if y.shape != x.shape or x.size == 0:
        return False
    softmax_rows(y, x)
    return True


@for_dtypes(matrices(1, 2))
def backward_entry(dx, dy, y):
    """`softmax_backward` likewise."""
    if dy.shape != y.shape or dx.shape != y.shape or y.size == 0:
        return False
    _backward(dx, dy, y)
    return True


# exp(x) = 2^k exp(r) with k = round(x / ln 2) and |r| <= ln 2 / 2, exp(r) by its Taylor series: 13 and 7 terms leave an
# error far below an ulp. 2^k is put together from bits, in two factors, since k reaches below the smallest exponent.
# Reassociation would undo the two parts of ln 2, hence jit_exact.


@jit_exact
def exp_f64(x):
    v = max(-746.0, x)  # exp(-746) is 0 already; NaN becomes -746 too, as no int can be made of it
    k = np.int32(v * _LOG2_E - 0.5)  # the conversion truncates towards 0: this rounds, as v <= 0
    r = v - k * _LN2_HI_F64 - k * _LN2_LO_F64
    p = 1 / 6227020800
    p = p * r + 1 / 479001600
    p = p * r + 1 / 39916800
    p = p * r + 1 / 3628800
    p = p * r + 1 / 362880
    p = p * r + 1 / 40320
    p = p * r + 1 / 5040
    p = p * r + 1 / 720
    p = p * r + 1 / 120
    p = p * r + 1 / 24
    p = p * r + 1 / 6
    p = p * r + 1 / 2
    p = p * r * r + r + 1
    half = k >> 1
    a, b = same_bits(np.int64((half + 1023) << 52), x), same_bits(np.int64((k - half + 1023) << 52), x)
    return x if np.isnan(x) else p * a * b


@jit_exact
def exp_f32(x):
    f32, i32 = np.float32, np.int32
    v = max(f32(-105), x)
    k = i32(v * f32(_LOG2_E) - f32(0.5))
    r = v - f32(k) * f32(_LN2_HI_F32) - f32(k) * f32(_LN2_LO_F32)
    p = f32(1 / 5040)
    p = p * r + f32(1 / 720)
    p = p * r + f32(1 / 120)
    p = p * r + f32(1 / 24)
    p = p * r + f32(1 / 6)
    p = p * r + f32(1 / 2)
    p = p * r * r + r + f32(1)
    half = k >> 1
    a, b = same_bits(i32((half + 127) << 23), x), same_bits(i32((k - half + 127) << 23), x)
    return x if np.isnan(x) else p * a * b


_exp = ForEachType(exp_f32, exp_f64)


@jit
def exp_nonpositive(v):
    """v = exp(v) in place, for v (any length) of float32 or float64 that holds no number above 0; NaN stays NaN.

    Within 1 ulp of the true value, subnormal results included; exp(-inf) = 0.
    """
    for i in range(v.size):
        v[i] = _exp(v[i])
