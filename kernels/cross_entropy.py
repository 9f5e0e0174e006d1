"""Cross-entropy of probabilities and one-hot targets, and its gradient (3.18, 3.19)."""
import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.compiled_calls import array_kernel, at, elements_of, finish, in_compiled_code, opened, side
from fastnet.kernels.layout import by_rows, elements, flat, for_dtypes, line, make_ready, matrices, plain
from fastnet.kernels.records import rows_at, vector_at
from fastnet.kernels.simd import store
from numba import types

_BLOCK = 64  # elements that are looked at together


def cross_entropy_forward(p: np.ndarray, t: np.ndarray) -> float:
    """-sum_ij t_ij log p_ij / n (3.18).

    p, t: (n, n_classes), one dtype (float32 or float64), any layout; t need not be one-hot. Overwrites nothing.
    Summed in float64, each row in the order of its elements, then the rows. 0 log 0 counts as 0, the limit; a true class
    with p = 0 gives inf; NaN in p or t gives NaN, and so do p < 0 and n = 0.
    """
    make_ready(forward_entry, p.dtype)
    if p.flags.f_contiguous and not p.flags.c_contiguous:
        make_ready(columns_entry, p.dtype)
    return forward_entry(plain(p), plain(t))


def cross_entropy_backward(dp: np.ndarray, p: np.ndarray, t: np.ndarray) -> None:
    """dp_ij = -t_ij / p_ij / n (3.19), and 0 where t_ij = 0.

    dp, p, t: (n, n_classes), one dtype (float32 or float64), any layout. Overwrites dp, which may be p or t.
    p = 0 at the true class gives -inf.
    """
    result = dp if dp.flags.carray else np.empty(dp.shape, dp.dtype)
    _backward(flat(result), flat(plain(p)), flat(plain(t)), len(p))
    if result is not dp:
        dp[...] = result
    make_ready(backward_entry, p.dtype)


@jit
def _forward(p, t):
    n, m = p.shape
    total = 0.0
    for i in range(n):
        row = 0.0
        for start in range(0, m, _BLOCK):
            q, u = p[i, start:start + _BLOCK], t[i, start:start + _BLOCK]
            if q.size == _BLOCK and _adds_nothing(q, u):
                continue
            for j in range(q.size):
                if u[j] != 0:  # a logarithm only where it counts: of a one-hot row that is one in n_classes
                    row += np.float64(u[j]) * np.log(np.float64(q[j]))
                elif not q[j] >= 0:  # two branches: as one condition LLVM makes it four times as slow in float32
                    row += np.nan
        total += row
    return -total / n


@jit
def _forward_by_columns(p, t):
    """`_forward` of transposed rows: p and t (n_classes, n). Each row's sum is added in the same order."""
    m, n = p.shape
    rows = np.zeros(n)
    for j in range(m):
        for start in range(0, n, _BLOCK):
            q, u, sums = p[j, start:start + _BLOCK], t[j, start:start + _BLOCK], rows[start:start + _BLOCK]
            if _adds_nothing(q, u):
                continue
            for i in range(q.size):
                if u[i] != 0:
                    sums[i] += np.float64(u[i]) * np.log(np.float64(q[i]))
                elif not q[i] >= 0:
                    sums[i] += np.nan
    total = 0.0
    for i in range(n):
        total += rows[i]
    return -total / n


@jit
def _adds_nothing(p, t):
    """Whether all t are 0 and no p is NaN or below 0; at most `_BLOCK` of them, without a branch for each."""
    zero, one = p.dtype.type(0), p.dtype.type(1)
    others = zero
    for j in range(p.size):
        others += zero if (t[j] == zero) & (p[j] >= zero) else one
    return others == zero


@jit
def _backward(dp, p, t, n):
    zero, count = p.dtype.type(0), p.dtype.type(n)
    for i in range(p.size):
        dp[i] = zero if t[i] == zero else -t[i] / p[i] / count


@array_kernel(2)
def _forward_here(outcome, p, t, one):
    if opened(outcome, 0, (p, t)):
        n, m = side(p, 0), side(p, 1)
        store(outcome + 8, _forward(rows_at(at(p), n, m, one), rows_at(at(t), n, m, one)))
        finish(outcome, 0, (p, t))


@array_kernel(3)
def _backward_here(outcome, dp, p, t, one):
    if opened(outcome, 1, (dp, p, t)):
        n = elements_of(p)
        _backward(vector_at(at(dp), n, one), vector_at(at(p), n, one), vector_at(at(t), n, one), side(p, 0))
        finish(outcome, 1, (dp, p, t))


in_compiled_code(cross_entropy_forward, _forward_here, "p:nm t:nm", writes=0, returns=types.float64)
in_compiled_code(cross_entropy_backward, _backward_here, "dp:nm p:nm t:nm")


@for_dtypes(matrices(0, 2))
def forward_entry(p, t):
    """`cross_entropy_forward` for the layer, which has compared the shapes."""
    return _forward(p, t)


@for_dtypes(matrices(0, 2))
def columns_entry(p, t):
    """`cross_entropy_forward` of the transposes, for arrays in Fortran order."""
    return _forward_by_columns(p, t)


@for_dtypes(elements(1, 2))
def backward_entry(dp, p, t):
    """`cross_entropy_backward` of any layout for the layer; False, with nothing done, if dp is not as it should be.

    That is of the shape of p and t, not empty, and without gaps, in C or Fortran order.
    """
    if p.shape != t.shape or dp.shape != p.shape or p.size == 0:
        return False
    n = len(p)
    if not by_rows(dp):
        dp, p, t = dp.T, p.T, t.T
    if not by_rows(dp):
        return False
    _backward(line(dp), line(p), line(t), n)
    return True
