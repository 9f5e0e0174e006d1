"""How far each training job is from what this machine allows, and what the rest of the time goes to.

    python -m bench.floors               # all jobs of bench_fit.py, as a Markdown table
    python -m bench.floors course batch8

The floor is the larger of two times: the operations of the engine that `fit` chooses, at the multipliers' peak, and the
bytes that it must move, at the rate of a copy; both measured in this session. The big products of that engine are then
timed alone, at the same sizes: what they take above the floor is theirs, the rest is everything else in a fit.
"""
from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bench import machine, peers
from bench.bench_fit import JOBS, RATE, Job
from fastnet.training.gram import first_outputs, gram_matrix
from fastnet.training.windows import window_rows
from kernels.gemm import Packed, matmul, pack

ROUNDS = 7
HEAD = ("job", "engine", "GFLOP", "GB", "floor", "of the time", "products alone", "above their floor", "the rest")


def seconds(function: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """Median of some calls, after one that does not count."""
    function()
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        function()
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))


def products(job: Job, engine: str, x: np.ndarray, W: np.ndarray) -> Iterator[tuple[int, Callable[[], Any]]]:
    """The products with the first layer's sizes, and how often a fit does each."""
    n, _d, h, batch = job.n, x.shape[1], len(W), job.batch_size
    steps = job.epochs * -(-n // batch)
    rows = min(window_rows(batch), n) if engine == "windows" else batch
    dz = np.ones((n, h), x.dtype)
    z = np.empty((rows, h), x.dtype)
    if engine == "gram":
        g, d_rows = gram_matrix(x), pack(dz)
        half = Packed(d_rows.data, (n // 2, h)).data[:, :n // 2].copy()
        yield 1, lambda: gram_matrix(x)
        yield 1, lambda: first_outputs(x, W)
        yield 1, lambda: matmul(W, dz.T, x, alpha=0.0, beta=1.0)
        yield steps - steps // job.epochs, lambda: matmul(z, g[:batch], d_rows)
        yield steps // job.epochs, lambda: matmul(z, g[:batch, :n // 2], Packed(half, (n // 2, h)))  # D fills up
    elif engine == "fused":
        packed, flipped = pack(W.T), np.ascontiguousarray(W.T)
        yield steps, lambda: matmul(z, x[:batch], packed)
        yield steps, lambda: matmul(flipped, x[:batch].T, z, alpha=0.0, beta=1.0)
    else:
        times = job.epochs * -(-n // rows)
        yield times, lambda: first_outputs(x[:rows], W)
        yield times, lambda: gram_matrix(x[:rows])
        yield times, lambda: matmul(W, z.T, x[:rows], alpha=0.0, beta=1.0)


def row(job: Job) -> tuple[str, ...]:
    """One job's line of the table."""
    x, t, weights = peers.workload(job.n, job.widths, job.dtype)
    plan = peers.fastnet_model(weights).explain(x, t, job.epochs, job.batch_size)
    chosen = next(estimate for estimate in plan.estimates if estimate.name == plan.chosen)
    first = (job.epochs - 0.5) * chosen.epoch_flops if chosen.name == "gram" else job.epochs * chosen.epoch_flops
    flops, moved = chosen.setup_flops + first, job.epochs * chosen.epoch_bytes
    steps = job.epochs * -(-job.n // job.batch_size)
    by_flops = flops / machine.fma_peak(np.dtype(job.dtype).name)
    by_bytes = moved / machine.copy_bandwidth(moved / steps)
    floor = max(by_flops, by_bytes)
    taken = seconds(lambda: peers.fastnet_fit(x, t, weights, job.epochs, RATE, job.batch_size), min(ROUNDS, job.rounds + 2))
    alone = sum(times * seconds(function) for times, function in products(job, chosen.name, x, weights[0][0].copy()))
    return (job.name, chosen.name, f"{flops / 1e9:.1f}", f"{moved / 1e9:.2f}",
            "operations" if by_flops > by_bytes else "bytes", f"{floor / taken:.0%}", f"{alone / taken:.0%}",
            f"{max(0.0, alone - floor) / taken:.0%}", f"{(taken - max(alone, floor)) / taken:.0%}")


def main(names: list[str]) -> None:
    print("| " + " | ".join(HEAD) + " |\n|" + " --- |" * len(HEAD))
    for job in JOBS:
        if not names or job.name in names:
            print("| " + " | ".join(row(job)) + " |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
