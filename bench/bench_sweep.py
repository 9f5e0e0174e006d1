"""A sweep of learning rates, compared with one fit after the other by fastnet and by other libraries."""
import numpy as np
import pytest

from bench.harness import peers
from bench.harness.race import sizes
from fastnet.sweep import lr_sweep

EPOCHS = 3


@pytest.mark.parametrize("work", sizes((320, 4), (2500, 1), (2500, 4), (2500, 8), tiny=(20, 2)),
                         ids="{0[0]}x{0[1]}rates".format)
def test_rates(race, work):
    n, rates = work
    widths = (3072, 500, 5) if n > 20 else (7, 5, 3)
    x, t, weights = peers.workload(n, widths, np.float32)
    lrs = list(np.logspace(-3, -0.5, rates))

    def expected():
        exact = peers.workload(n, widths, np.float64)
        return np.array([peers.numpy_fit(*exact, EPOCHS, lr) for lr in lrs])

    def sweep():
        return lr_sweep(lambda rng: peers.fastnet_model(weights), x, t, lrs, EPOCHS, seeds=1, progress=False).losses[:, 0]

    def one_by_one(fit):
        return lambda: np.array([fit(x, t, weights, EPOCHS, lr) for lr in lrs])

    others = peers.installed("torch", "jax") if rates <= 4 else {}
    race({"fastnet": sweep, "fits": one_by_one(peers.fastnet_fit),
          **{name: one_by_one(fit) for name, fit in others.items()}},
         expected=expected if rates <= 4 else None, tolerance=1e-4, kernel="sweep", rates=rates, dtype=np.float32,
         shape=f"{rates} rates, {n}x{'-'.join(map(str, widths))}, {EPOCHS} epochs",
         flops=rates * EPOCHS * peers.plain_flops(n, widths), rounds=7)  # with fewer there is no interval
