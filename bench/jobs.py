"""The README's table: training jobs of several kinds, fastnet beside its peers, round-robin in one process.

    python -m bench.jobs             # all; some minutes
    python -m bench.jobs course64    # one by name

Prints, for every peer that is installed, how many times as long as fastnet it takes: the median of paired rounds. A short
rest before each turn lets the other libraries' idle threads fall asleep, which otherwise spin on the cores.
"""
from __future__ import annotations

import os
import sys
import time

os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")  # before NumPy is imported

import numpy as np

from bench import peers
from fastnet._machine import fma_peak

JOBS = {  # n, widths, batch size, epochs, dtype, rounds
    "course": (2500, (3072, 500, 5), 128, 20, np.float32, 3),
    "course64": (2500, (3072, 500, 5), 128, 20, np.float64, 3),
    "batch8": (2500, (3072, 500, 5), 8, 1, np.float32, 5),
    "batch1": (1000, (3072, 500, 5), 1, 1, np.float32, 3),
    "large": (20000, (3072, 500, 100), 128, 2, np.float32, 3),
    "deep": (2500, (3072, 1024, 512, 5), 128, 20, np.float32, 2),
    "small": (10000, (784, 128, 10), 32, 1, np.float32, 7),
}
REST = 0.3


def compare(name: str) -> None:
    """Run one job and print its line."""
    n, widths, batch, epochs, dtype, rounds = JOBS[name]
    x, t, weights = peers.workload(n, widths, dtype)
    fits = {"fastnet": peers.fastnet_fit, **peers.installed("numpy", "torch", "jax")}
    if dtype == np.float64:
        fits.pop("jax", None)  # computes in float32 unless told otherwise
    losses, times = {}, {fit: [] for fit in fits}
    for fit in fits:
        losses[fit] = fits[fit](x, t, weights, epochs, 0.1, batch)[-1]
        if not np.isclose(losses[fit], losses["fastnet"], rtol=1e-3):
            raise SystemExit(f"{name}: {fit} ends at loss {losses[fit]}, fastnet at {losses['fastnet']}: not the same work")
    for _ in range(rounds):
        for fit, run in fits.items():
            time.sleep(REST)
            start = time.perf_counter()
            run(x, t, weights, epochs, 0.1, batch)
            times[fit].append(time.perf_counter() - start)
    ours = np.array(times["fastnet"])
    rate = epochs * peers.plain_flops(n, widths) / np.median(ours) / 1e9
    ratios = "  ".join(f"{fit} {np.median(np.array(taken) / ours):5.2f}x"
                       for fit, taken in times.items() if fit != "fastnet")
    print(f"{name:9s} {'-'.join(map(str, widths)):16s} n {n:<6d} batch {batch:<4d} {epochs:2d} epochs "
          f"{np.dtype(dtype).name}: {ratios}   fastnet: {rate / fma_peak(dtype):.0%} of the FMA peak, "
          "counting the plain algorithm", flush=True)


if __name__ == "__main__":
    for job in sys.argv[1:] or JOBS:
        compare(job)
