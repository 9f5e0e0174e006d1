"""The Gram matrix, and training the first layer in its space beside training it plainly."""
import numpy as np
import pytest

from bench.harness import peers
from bench.harness.race import sizes
from fastnet.training.first import gram_matrix


@pytest.mark.parametrize("shape", sizes((640, 3072), (2500, 3072), tiny=(5, 7)), ids=str)
def test_matrix(race, rng, dtype, shape):
    """X X.T, counted in the operations of a full product."""
    x = rng.standard_normal(shape).astype(dtype)
    n, d = shape
    race({"fastnet": lambda: gram_matrix(x), "numpy": lambda: x @ x.T},
         expected=lambda: x.astype(np.float64) @ x.T.astype(np.float64), tolerance=100 * np.finfo(dtype).eps,
         kernel="gram_matrix", shape=f"{n}x{d}", dtype=dtype, flops=2 * n * n * d, nbytes=x.nbytes + n * n * x.itemsize)


@pytest.mark.parametrize("work", sizes((640, 2, 128), (640, 5, 16), tiny=(20, 2, 8)),
                         ids=lambda work: "{}x{}-batch{}".format(*work))
def test_fit(race, dtype, work):
    """All of a fit, the matrix included; rates in the operations of the plain algorithm."""
    compete(race, dtype, "gram", *work)


@pytest.mark.parametrize("work", sizes((640, 1, 2), (640, 1, 16), tiny=(20, 2, 2)),
                         ids=lambda work: "{}x{}-batch{}".format(*work))
def test_windows(race, dtype, work):
    """The same in windows of some hundred rows."""
    compete(race, dtype, "windows", *work)


def compete(race, dtype, engine, n, epochs, batch_size):
    widths = (3072, 500, 5) if n > 20 else (7, 5, 3)
    x, t, weights = peers.workload(n, widths, dtype)
    fit = x, t, weights, epochs, 0.1, batch_size

    def expected():
        return peers.numpy_fit(*peers.workload(n, widths, np.float64), epochs, 0.1, batch_size)

    race({"fastnet": lambda: peers.fastnet_fit(*fit, engine=engine),
          "fused": lambda: peers.fastnet_fit(*fit, engine="fused")},
         expected=expected, tolerance=1e-4, kernel=engine, shape=f"{n}x{'-'.join(map(str, widths))}, {epochs} epochs, "
         f"batch {batch_size}", dtype=dtype, flops=epochs * peers.plain_flops(n, widths))
