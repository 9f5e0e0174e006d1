"""Maximum pooling, forward and back, beside vectorised NumPy, PyTorch and the naive twins."""
import numpy as np
import pytest
from fastnet.kernels import maxpool, naive

from bench.harness.peers import is_installed
from bench.harness.race import sizes

# n, channels, side, size, stride
CASES = sizes((128, 16, 32, 2, 2), (128, 16, 32, 3, 3), (128, 16, 32, 3, 2), (128, 16, 32, 2, 3), tiny=(2, 3, 5, 3, 2))


@pytest.fixture(params=CASES, ids=lambda case: "x".join(map(str, case)))
def data(request, dtype, rng):
    n, c, side, *windows = request.param
    size, stride = windows
    x = rng.standard_normal((n, c, side, side)).astype(dtype)
    shape = n, c, (side - size) // stride + 1, (side - size) // stride + 1
    y, locs = np.empty(shape), np.empty(x.shape if stride >= size else (*shape, size, size), bool)
    naive.maxpool_forward(y, locs, x, *windows)
    return x, y.astype(dtype), locs, windows, {
        "shape": f"{n}x{c}x{side}x{side}, size {size}" + (f", stride {stride}" if stride != size else ""), "layout": "C",
        "dtype": dtype, "flops": x.size, "nbytes": 2 * x.nbytes, "tolerance": 0}


def test_forward(race, data):
    x, y, locs, windows, facts = data
    ours, places, twin = np.empty_like(y), np.empty_like(locs), np.empty(y.shape)
    rows, (size, stride) = y.shape[2], windows

    def fastnet():
        maxpool.maxpool_forward(ours, places, x, *windows)
        return ours

    def numpy():
        whole = x[:, :, :rows * size, :rows * size].reshape(*x.shape[:2], rows, size, rows, size)
        top = whole.max(axis=(3, 5))
        np.equal(whole, top[:, :, :, None, :, None])
        return top

    def torch():
        import torch

        return torch.nn.functional.max_pool2d(torch.from_numpy(x), size, stride, return_indices=True)[0].numpy()

    def naive_twin():
        naive.maxpool_forward(twin, places, x, *windows)
        return twin

    contenders = {"fastnet": fastnet, "naive": naive_twin}
    contenders |= {"numpy": numpy} if size == stride else {}
    contenders |= {"torch": torch} if is_installed("torch") else {}
    race(contenders, expected=y, kernel="maxpool_forward", **facts)


def test_backward(race, data):
    x, y, locs, windows, facts = data
    ours, twin = np.empty_like(x), np.empty(x.shape)
    naive.maxpool_backward(twin, y, locs, *windows)
    expected = twin.copy()

    def fastnet():
        maxpool.maxpool_backward(ours, y, locs, *windows)
        return ours

    def naive_twin():
        naive.maxpool_backward(twin, y, locs, *windows)
        return twin

    facts["tolerance"] = 10 * float(np.finfo(x.dtype).eps) if locs.ndim == 6 else 0
    race({"fastnet": fastnet, "naive": naive_twin}, expected=expected, kernel="maxpool_backward", **facts)
