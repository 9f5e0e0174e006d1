"""Peak resident memory of training jobs, each in a fresh process: fastnet beside PyTorch.

    python -m bench.studies.memory               # all jobs of bench_fit.py
    python -m bench.studies.memory course large

A row shows the peak of the whole process, and in brackets what of it came after the libraries and the data were there.
"""
from __future__ import annotations

import multiprocessing
import sys

import numpy as np

from bench.bench_fit import JOBS, RATE, Job
from bench.harness import peers
from fastnet._system import peak_memory

CONTENDERS = {"fastnet": peers.fastnet_fit, "torch": peers.torch_fit}


def train(name: str, job: Job) -> tuple[float, float]:
    """The peaks before and after a fit, in this process."""
    fit = CONTENDERS[name]
    fit(*peers.workload(20, job.widths, job.dtype), 2, RATE, 8)  # imports, and compiles or loads kernels
    x, t, weights = peers.workload(job.n, job.widths, job.dtype)
    before = peak_memory()
    fit(x, t, weights, job.epochs, RATE, job.batch_size)
    return before, peak_memory()


def main(names: list[str]) -> None:
    contenders = ["fastnet", *peers.installed("torch")]
    for job in JOBS:
        if names and job.name not in names:
            continue
        cells = []
        for name in contenders:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                before, after = pool.apply(train, (name, job))
            cells.append(f"{name} {after / 1e6:5.0f} MB ({(after - before) / 1e6:4.0f})")
        print(f"{job.name:9s} {np.dtype(job.dtype).name}  " + "   ".join(cells), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
