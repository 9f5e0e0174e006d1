"""Cross-entropy of probabilities and one-hot targets, and its gradient (3.18, 3.19)."""
import numpy as np
from fastnet.kernels._jit import jit
from fastnet.kernels._layout import for_dtypes, make_ready, matrices, plain
from numba.extending import overload


def cross_entropy_forward(p: np.ndarray, t: np.ndarray) -> float:
    """-sum_ij t_ij log p_ij / n (3.18).

    p, t: (n, n_classes), n > 0, one dtype (float32 or float64), any layout; t need not be one-hot. Overwrites nothing.
    Summed in float64, in the order of the elements. 0 log 0 counts as 0, the limit; a true class with p = 0 gives inf;
    NaN in p or t gives NaN, and so does p < 0.
    """
    make_ready(forward_entry, p.dtype)
    return forward_entry(plain(p), plain(t))


def cross_entropy_backward(dp: np.ndarray, p: np.ndarray, t: np.ndarray) -> None:
    """dp_ij = -t_ij / p_ij / n (3.19), and 0 where t_ij = 0.

    dp, p, t: (n, n_classes), one dtype (float32 or float64), any layout. Overwrites dp, which may be p or t.
    p = 0 at the true class gives -inf.
    """
    _backward(dp, plain(p), plain(t))
    make_ready(backward_entry, p.dtype)


@jit
def _forward(p, t):
    n, m = p.shape
    total = 0.0
    for i in range(n):
        for j in range(m):
            if t[i, j] != 0:  # a logarithm only where it counts: of a one-hot row that is one in n_classes
                total += np.float64(t[i, j]) * np.log(np.float64(p[i, j]))
            elif not p[i, j] >= 0:  # two branches: as one condition LLVM makes it four times as slow in float32
                total += np.nan
    return -total / n


@jit
def _backward(dp, p, t):
    n, m = p.shape
    zero, count = p.dtype.type(0), p.dtype.type(n)
    for i in range(n):
        for j in range(m):
            dp[i, j] = zero if t[i, j] == zero else -t[i, j] / p[i, j] / count


@overload(cross_entropy_forward)
def _compiled_forward(p, t):
    def rows(p, t):
        return _forward(p, t)

    return rows


@overload(cross_entropy_backward)
def _compiled_backward(dp, p, t):
    def rows(dp, p, t):
        _backward(dp, p, t)

    return rows


@for_dtypes(matrices(0, 2))
def forward_entry(p, t):
    """`cross_entropy_forward` for the layer, which has compared the shapes."""
    return _forward(p, t)


@for_dtypes(matrices(1, 2))
def backward_entry(dp, p, t):
    """`cross_entropy_backward` for the layer; False, with nothing done, if the shapes are not those of a batch."""
    if p.shape != t.shape or dp.shape != p.shape or p.size == 0 or p.shape[1] == 1:
        return False
    _backward(dp, p, t)
    return True
