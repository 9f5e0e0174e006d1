"""How far float32 losses are from float64 ones: our engines beside PyTorch and plain NumPy.

    python -m bench.studies.accuracy            the course's job for 20 epochs, smaller ones for 500

All start from the same float32 numbers; the reference takes those very numbers on in float64. What is printed is the
largest relative deviation of an epoch's loss.
"""
from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bench.harness import peers


class Job(NamedTuple):
    """A training whose losses are compared."""

    n: int
    widths: tuple[int, ...]
    epochs: int
    lr: float
    batch_size: int = 128

    def __str__(self) -> str:
        return f"n={self.n}, {'-'.join(map(str, self.widths))}, batch {self.batch_size}, lr {self.lr}, {self.epochs} epochs"


JOBS = (
    Job(2500, (3072, 500, 5), 20, 0.1),
    Job(2500, (3072, 500, 5), 20, 0.01),
    Job(2000, (3072, 256, 128, 5), 20, 0.05),
    Job(1000, (1500, 200, 5), 500, 0.05),
    Job(1000, (1500, 200, 5), 500, 0.3),
    Job(500, (300, 60, 10), 500, 0.1, 16),
)


def deviations(job: Job) -> dict[str, float]:
    """Largest relative deviation of each contender's losses from those in float64."""
    x, t, weights = peers.workload(job.n, job.widths, np.float32)
    exact = peers.numpy_fit(x.astype(float), t.astype(float), [(W.astype(float), b.astype(float)) for W, b in weights],
                            job.epochs, job.lr, job.batch_size)
    contenders: dict[str, Callable[..., np.ndarray]] = {
        engine: functools.partial(peers.fastnet_fit, engine=engine) for engine in ("layers", "fused", "gram", "windows")}
    contenders.update(peers.installed("numpy", "torch"))
    return {name: float(np.max(np.abs(fit(x, t, weights, job.epochs, job.lr, job.batch_size) / exact - 1)))
            for name, fit in contenders.items()} | {"last loss": float(exact[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(description="Deviation of float32 losses from float64 ones.")
    parser.add_argument("--only", type=int, metavar="N", help="the N-th job alone, from 0")
    options = parser.parse_args()
    for number, job in enumerate(JOBS):
        if options.only in (None, number):
            started = time.perf_counter()
            numbers = deviations(job)
            print(job, "  ".join(f"{name} {value:.1e}" for name, value in numbers.items()),
                  f"({time.perf_counter() - started:.0f} s)", sep="\n    ", flush=True)


if __name__ == "__main__":
    main()
