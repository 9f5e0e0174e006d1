"""Training jobs of several kinds, ``Sequential.fit`` beside what a user would pick instead: the README's table."""
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pytest

from bench.harness import peers
from bench.harness.race import mode, sizes


class Job(NamedTuple):
    """What is trained; `name` is the README's."""

    name: str
    n: int
    widths: tuple[int, ...]
    batch_size: int
    epochs: int
    others: tuple[str, ...]
    rounds: int
    dtype: type = np.float32

    def __str__(self) -> str:
        return self.name

    @property
    def shape(self) -> str:
        return f"{self.name}: {self.n}x{'-'.join(map(str, self.widths))}, batch {self.batch_size}, {self.epochs} epochs"


COURSE = (3072, 500, 5)
JOBS = sizes(
    Job("part", 640, COURSE, 128, 2, ("numpy", "torch", "jax", "scikit-learn"), 7),
    Job("course", 2500, COURSE, 128, 20, ("torch", "jax"), 7),
    Job("course64", 2500, COURSE, 128, 20, ("numpy",), 7, np.float64),
    Job("batch8", 2500, COURSE, 8, 1, ("torch", "jax"), 5),
    Job("batch1", 1000, COURSE, 1, 1, ("torch", "jax"), 7),
    Job("large", 20_000, (3072, 500, 100), 128, 2, ("torch", "jax"), 7),
    Job("deep", 2500, (3072, 1024, 512, 5), 128, 10, ("torch", "jax"), 7),
    Job("small", 10_000, (784, 128, 10), 32, 1, ("numpy", "torch", "jax"), 7),
    tiny=Job("tiny", 20, (7, 5, 3), 8, 2, ("numpy", "torch", "jax", "scikit-learn"), 1))
RATE = 0.1


@pytest.mark.parametrize("job", JOBS, ids=str)
def test_job(race, job):
    x, t, weights = peers.workload(job.n, job.widths, job.dtype)

    def expected():
        return peers.numpy_fit(*peers.workload(job.n, job.widths, np.float64), job.epochs, RATE, job.batch_size)

    def contender(name, fit):
        def run():
            losses = fit(x, t, weights, job.epochs, RATE, job.batch_size)
            return None if name == "scikit-learn" else losses  # which draws its own weights
        return run

    race({"fastnet": contender("fastnet", peers.fastnet_fit),
          **{name: contender(name, fit) for name, fit in peers.installed(*job.others).items()}},
         expected=expected, tolerance=1e-4, kernel="fit", shape=job.shape, dtype=job.dtype,
         flops=job.epochs * peers.plain_flops(job.n, job.widths), rounds=job.rounds)


def test_two_at_once(race):
    """Two fits in two threads of Python share the cores, and should take no longer than one after the other."""
    n, widths, epochs = (20, (7, 5, 3), 2) if mode() == "tiny" else (1250, COURSE, 5)
    fit = *peers.workload(n, widths, np.float32), epochs, RATE

    def at_once():
        with ThreadPoolExecutor(2) as pool:
            return [future.result() for future in [pool.submit(peers.fastnet_fit, *fit) for _ in range(2)]]

    race({"fastnet": at_once, "in turn": lambda: [peers.fastnet_fit(*fit) for _ in range(2)]},
         expected=lambda: [peers.numpy_fit(*peers.workload(n, widths, np.float64), epochs, RATE)] * 2,
         tolerance=1e-4, kernel="two fits", shape=f"{n}x{'-'.join(map(str, widths))}, {epochs} epochs", dtype=np.float32,
         flops=2 * epochs * peers.plain_flops(n, widths))


@pytest.mark.parametrize("engine", ["fused", "gram", "windows"])
def test_last_batch(race, engine):
    """An epoch that ends with a batch of two samples, beside one without them: what the end of a fit costs."""
    n, widths, batch_size = (10, (7, 5, 3), 4) if mode() == "tiny" else (514, (784, 100, 10), 128)
    x, t, weights = peers.workload(n, widths, np.float32)
    expected = peers.numpy_fit(*peers.workload(n, widths, np.float64), 1, RATE, batch_size)

    def fit(rows):
        return peers.fastnet_model(weights).fit(x[:rows], t[:rows], 1, RATE, batch_size, engine=engine, progress=False)

    def whole_batches():
        fit(n - 2)  # has another loss, which is not to be compared

    race({"fastnet": lambda: fit(n), "whole batches": whole_batches}, expected=expected, tolerance=1e-4, kernel="fit",
         shape=f"last batch, {engine}: {n}x{'-'.join(map(str, widths))}, batch {batch_size}", dtype=np.float32,
         flops=peers.plain_flops(n, widths), rounds=9)


@pytest.mark.parametrize("engine", ["layers", "fused", "gram", "windows"])
def test_allocations(benchmark, engine):
    """What an epoch allocates at its height, in KiB: a count that no other program disturbs."""
    x, t, weights = peers.workload(*((60, (7, 5, 3)) if mode() == "tiny" else (512, COURSE)), np.float32)
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
