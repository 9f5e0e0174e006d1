"""Peak resident memory of training jobs, each in a fresh process: fastnet beside PyTorch.

    python -m bench.studies.memory               # all jobs of bench_fit.py and of bench_images.py
    python -m bench.studies.memory course cifar

A row shows the peak of the whole process, and in brackets what of it came after the libraries and the data were there.
"""
from __future__ import annotations

import multiprocessing
import sys

import numpy as np

from bench import bench_fit, bench_images
from bench.bench_fit import RATE
from bench.harness import image_peers, peers
from fastnet.base.system import peak_memory

CONTENDERS = {"fastnet": peers.fastnet_fit, "torch": peers.torch_fit}
OF_IMAGES = {"fastnet": image_peers.fastnet_fit, "torch": image_peers.torch_fit,
             "channels_last": image_peers.channels_last_fit}
JOBS = (*bench_fit.JOBS, *bench_images.JOBS, bench_images.Job("cifar, one batch", bench_images.CIFAR, 2500, 2500, 2, ()))


def train(name: str, job: bench_fit.Job | bench_images.Job) -> tuple[float, float]:
    """The peaks before and after a fit, in this process."""
    if isinstance(job, bench_images.Job):
        fit, network = OF_IMAGES[name], job.network
        fit(*image_peers.workload(network, 20, job.dtype), 2, RATE, 8)  # imports, and compiles or loads kernels
        x, t, weights = image_peers.workload(network, job.n, job.dtype)
    else:
        fit = CONTENDERS[name]
        fit(*peers.workload(20, job.widths, job.dtype), 2, RATE, 8)
        x, t, weights = peers.workload(job.n, job.widths, job.dtype)
    before = peak_memory()
    fit(x, t, weights, job.epochs, RATE, job.batch_size)
    return before, peak_memory()


def main(names: list[str]) -> None:
    with_torch = peers.is_installed("torch")
    for job in JOBS:
        if names and job.name not in names:
            continue
        cells = []
        contenders = OF_IMAGES if isinstance(job, bench_images.Job) else CONTENDERS
        for name in contenders if with_torch else ["fastnet"]:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                before, after = pool.apply(train, (name, job))
            cells.append(f"{name} {after / 1e6:5.0f} MB ({(after - before) / 1e6:4.0f})")
        print(f"{job.name:16s} {np.dtype(job.dtype).name}  " + "   ".join(cells), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
