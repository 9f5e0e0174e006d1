"""Maximum pooling, forward and back, beside vectorised NumPy and the naive twins."""
import numpy as np
import pytest
from fastnet.kernels import maxpool, naive

from bench.harness.race import sizes

CASES = sizes((128, 16, 32, 2), (128, 16, 32, 3), tiny=(2, 3, 5, 2))  # n, channels, side, size


@pytest.fixture(params=CASES, ids=lambda case: "x".join(map(str, case)))
def data(request, dtype, rng):
    n, c, side, size = request.param
    x = rng.standard_normal((n, c, side, side)).astype(dtype)
    y, locs = np.empty((n, c, side // size, side // size)), np.empty(x.shape, bool)
    naive.maxpool_forward(y, locs, x, size)
    return x, y.astype(dtype), locs, size, {"shape": f"{n}x{c}x{side}x{side}, size {size}", "layout": "C", "dtype": dtype,
                                            "flops": x.size, "nbytes": 2 * x.nbytes, "tolerance": 0}


def test_forward(race, data):
    x, y, locs, size, facts = data
    ours, places, twin = np.empty_like(y), np.empty_like(locs), np.empty(y.shape)
    rows = y.shape[2]

    def fastnet():
        maxpool.maxpool_forward(ours, places, x, size)
        return ours

    def numpy():
        whole = x[:, :, :rows * size, :rows * size].reshape(*x.shape[:2], rows, size, rows, size)
        top = whole.max(axis=(3, 5))
        np.equal(whole, top[:, :, :, None, :, None])
        return top

    def naive_twin():
        naive.maxpool_forward(twin, places, x, size)
        return twin

    race({"fastnet": fastnet, "numpy": numpy, "naive": naive_twin}, expected=y, kernel="maxpool_forward", **facts)


def test_backward(race, data):
    x, y, locs, size, facts = data
    ours, twin = np.empty_like(x), np.empty(x.shape)
    naive.maxpool_backward(twin, y, locs, size)
    expected = twin.copy()

    def fastnet():
        maxpool.maxpool_backward(ours, y, locs, size)
        return ours

    def naive_twin():
        naive.maxpool_backward(twin, y, locs, size)
        return twin

    race({"fastnet": fastnet, "naive": naive_twin}, expected=expected, kernel="maxpool_backward", **facts)
