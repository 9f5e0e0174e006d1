"""The main job, ``Sequential.fit`` on the course network, beside what a user would pick instead."""
import tracemalloc

import numpy as np
import pytest

from bench import peers
from bench.race import mode, sizes

WIDTHS = (7, 5, 3) if mode() == "tiny" else (3072, 500, 5)
RATE = 0.1


def compete(race, dtype, n, epochs, others, rounds):
    x, t, weights = peers.workload(n, WIDTHS, dtype)
    expected = peers.numpy_fit(*peers.workload(n, WIDTHS, np.float64), epochs, RATE)

    def contender(name, fit):
        def run():
            losses = fit(x, t, weights, epochs, RATE)
            return None if name == "scikit-learn" else losses  # which draws its own weights
        return run

    race({"fastnet": contender("fastnet", peers.fastnet_fit),
          **{name: contender(name, fit) for name, fit in peers.installed(*others).items()}},
         expected=expected, tolerance=1e-4, kernel="fit", shape=f"{n}x{'-'.join(map(str, WIDTHS))}, {epochs} epochs",
         dtype=dtype, flops=epochs * peers.plain_flops(n, WIDTHS), rounds=rounds)


@pytest.mark.parametrize("work", sizes((640, 2), (2500, 20), tiny=(20, 2)), ids="{0[0]}x{0[1]}".format)
def test_float32(race, work):
    compete(race, np.float32, *work, ("numpy", "torch", "jax", "scikit-learn"), rounds=5)


@pytest.mark.parametrize("work", sizes((640, 2), (2500, 5), tiny=(20, 2)), ids="{0[0]}x{0[1]}".format)
def test_float64(race, work):
    compete(race, np.float64, *work, ("numpy", "torch", "jax"), rounds=5)


@pytest.mark.parametrize("engine", ["layers", "fused", "gram", "windows"])
def test_allocations(benchmark, engine):
    """What an epoch allocates at its height, in KiB: a count that no other program disturbs."""
    x, t, weights = peers.workload(60 if mode() == "tiny" else 512, WIDTHS, np.float32)
    peaks = []

    def note_peak(report):
        peaks.append(tracemalloc.get_traced_memory()[1] - start)
        tracemalloc.reset_peak()

    def fit(**options):
        peers.fastnet_model(weights).fit(x, t, 4, RATE, engine=engine, progress=False, **options)

    fit()  # compile first
    tracemalloc.start()
    try:
        start = tracemalloc.get_traced_memory()[0]
        fit(callbacks=note_peak)
    finally:
        tracemalloc.stop()
    benchmark.extra_info.update(kernel="fit", shape=f"allocations, {engine}",
                                counts={"allocated_kib": round(max(peaks[1:3]) / 1024)})
    benchmark.pedantic(fit, rounds=1)
