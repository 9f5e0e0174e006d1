"""Networks of images, ``Sequential.fit`` beside PyTorch in both of its layouts, JAX, NumPy and a loop over our layers."""
from typing import NamedTuple

import numpy as np
import pytest

from bench.harness import image_peers as peers
from bench.harness.race import sizes


class Job(NamedTuple):
    """What is trained."""

    name: str
    network: peers.Network
    n: int
    batch_size: int
    epochs: int
    others: tuple[str, ...]
    dtype: type = np.float32

    def __str__(self) -> str:
        return self.name


CIFAR, FACES = peers.Network((3, 32, 32), (16, 32)), peers.Network((1, 48, 48), (16, 32), 7)
WIDE = peers.Network((3, 32, 32), (32, 64, 128))
JOBS = sizes(
    Job("cifar", CIFAR, 2500, 128, 3, ("layers", "torch", "channels_last", "jax", "numpy")),
    Job("cifar64", CIFAR, 640, 128, 1, ("layers", "torch", "numpy"), np.float64),
    Job("faces", FACES, 2500, 128, 1, ("torch", "channels_last")),
    Job("wide", WIDE, 2500, 128, 1, ("torch", "channels_last")),
    Job("cifar, batch 8", CIFAR, 2500, 8, 1, ("torch", "channels_last")),
    Job("no pools", CIFAR._replace(pool=1), 640, 128, 1, ("torch", "channels_last")),
    tiny=Job("tiny", peers.Network((2, 8, 8), (3, 4), 3), 12, 5, 2, ("layers", "torch", "channels_last", "jax", "numpy")))
RATE = 0.05


@pytest.mark.parametrize("job", JOBS, ids=str)
def test_job(race, job):
    x, t, weights = peers.workload(job.network, job.n, job.dtype)

    def expected():
        return peers.numpy_fit(x.astype(np.float64), t.astype(np.float64), weights, job.epochs, RATE, job.batch_size)

    def contender(fit):
        return lambda: fit(x, t, weights, job.epochs, RATE, job.batch_size)

    race({"fastnet": contender(peers.fastnet_fit),
          **{name: contender(fit) for name, fit in peers.installed(*job.others).items()}},
         expected=expected, tolerance=2e-4 if job.dtype == np.float32 else 1e-9, kernel="fit_images",
         shape=f"{job.name}: {job.n}x{job.network.shape}, {job.network.channels}, batch {job.batch_size}", dtype=job.dtype,
         flops=job.n * job.epochs * job.network.operations(), nbytes=job.epochs * x.nbytes, layout="C", rounds=3)
