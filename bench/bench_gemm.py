"""The matrix products of training, beside NumPy's and PyTorch's."""
import numpy as np
import pytest
from fastnet.kernels.gemm import matmul, pack, syrk

from bench.harness.peers import is_installed
from bench.harness.race import sizes

HAS_TORCH = is_installed("torch")
COURSE = sizes((128, 500, 3072), tiny=(3, 5, 7))  # batch, hidden units, inputs


@pytest.fixture(scope="session", autouse=True)
def say_what_is_missing():
    if not HAS_TORCH:
        print("PyTorch is not installed: left out. To include it: pip install torch")


def normal(rng, dtype, *shape):
    return rng.standard_normal(shape).astype(dtype)


def compete(race, use, ours, a, b, start=None):
    """C = A B, or C = start - A B / 10, which is the update of weights."""
    (m, k), n = a.shape, b.shape[1]
    product = a.astype(np.float64) @ b.astype(np.float64)
    expected = product if start is None else start - 0.1 * product
    out = np.empty((m, n), a.dtype)

    def numpy():
        np.matmul(a, b, out=out)
        if start is not None:
            np.multiply(out, a.dtype.type(-0.1), out=out)
            np.add(out, start, out=out)
        return out

    contenders = {"fastnet": ours, "numpy": numpy}
    if HAS_TORCH:
        import torch
        A, B, C = (torch.from_numpy(array) for array in (a, b, np.empty((m, n), a.dtype)))
        S = None if start is None else torch.from_numpy(start)
        contenders["torch"] = lambda: (torch.matmul(A, B, out=C) if S is None
                                       else torch.addmm(S, A, B, alpha=-0.1, out=C)).numpy()
    race(contenders, expected=expected, tolerance=100 * np.finfo(a.dtype).eps, kernel="gemm",
         shape=f"{m}x{n}x{k}", layout=use, dtype=a.dtype, flops=2 * m * n * k,
         nbytes=a.nbytes + b.nbytes + out.nbytes)


@pytest.mark.parametrize("shape", COURSE, ids=str)
def test_forward(race, rng, dtype, shape):
    m, n, k = shape
    x, W, c = normal(rng, dtype, m, k), normal(rng, dtype, n, k), np.empty((m, n), dtype)
    compete(race, "forward", lambda: matmul(c, x, W.T) or c, x, W.T)


@pytest.mark.parametrize("shape", COURSE, ids=str)
def test_weight_update(race, rng, dtype, shape):
    """W -= lr dy.T x in one go; verified on its first call, the later ones go on from there."""
    n, h, d = shape
    dy, x, W = normal(rng, dtype, n, h), normal(rng, dtype, n, d), normal(rng, dtype, h, d)
    updated = W.copy()
    compete(race, "update", lambda: matmul(updated, dy.T, x, alpha=-0.1, beta=1.0) or updated, dy.T, x, start=W)


@pytest.mark.parametrize("shape", COURSE, ids=str)
def test_input_gradient(race, rng, dtype, shape):
    n, h, d = shape
    dy, W, dx = normal(rng, dtype, n, h), normal(rng, dtype, h, d), np.empty((n, d), dtype)
    compete(race, "input gradient", lambda: matmul(dx, dy, W) or dx, dy, W)


@pytest.mark.parametrize("shape", sizes((128, 500, 2500), tiny=(3, 5, 7)), ids=str)
def test_kept_packed(race, rng, dtype, shape):
    m, n, k = shape
    a, b, c = normal(rng, dtype, m, k), normal(rng, dtype, k, n), np.empty((m, n), dtype)
    packed = pack(b)
    compete(race, "kept packed", lambda: matmul(c, a, packed) or c, a, b)


@pytest.mark.parametrize("shape", sizes((640, 3072), (2500, 3072), tiny=(5, 7)), ids=str)
def test_symmetric(race, rng, dtype, shape):
    """A A.T, counted in the operations of a full product."""
    n, k = shape
    a, c = normal(rng, dtype, n, k), np.empty((n, n), dtype)
    compete(race, "symmetric", lambda: syrk(c, a) or c, a, a.T)


@pytest.mark.parametrize("size", sizes(257, 1024, tiny=9))
def test_square(race, rng, dtype, size):
    a, b, c = normal(rng, dtype, size, size), normal(rng, dtype, size, size), np.empty((size, size), dtype)
    compete(race, "square", lambda: matmul(c, a, b) or c, a, b)
