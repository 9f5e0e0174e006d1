"""Epochs of the compiled engine, beside the layer-by-layer one and NumPy."""
import numpy as np
import pytest

from bench.harness import peers
from bench.harness.race import sizes

WORK = sizes((640, (3072, 500, 5), 128), (2500, (256, 128, 64, 10), 128),
             tiny=(20, (7, 5, 3), 8))  # samples, widths, batch size
EPOCHS = 2


def name_of(work):
    n, widths, batch_size = work
    return f"{n}x{'-'.join(map(str, widths))}-batch{batch_size}"


@pytest.mark.parametrize("work", WORK, ids=name_of)
def test_epochs(race, dtype, work):
    n, widths, batch_size = work
    x, t, weights = peers.workload(n, widths, dtype)
    fit = x, t, weights, EPOCHS, 0.1, batch_size
    race({"fastnet": lambda: peers.fastnet_fit(*fit, engine="fused"),
          "layers": lambda: peers.fastnet_fit(*fit, engine="layers"),
          "numpy": lambda: peers.numpy_fit(*fit)},
         expected=lambda: peers.numpy_fit(*peers.workload(n, widths, np.float64), EPOCHS, 0.1, batch_size),
         tolerance=1e-4, kernel="step", shape=name_of(work), dtype=dtype, flops=EPOCHS * peers.plain_flops(n, widths))
