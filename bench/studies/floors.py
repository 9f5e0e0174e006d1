"""How far each training job is from what this machine allows, and what the rest of the time goes to.

    python -m bench.studies.floors               # all jobs of bench_fit.py, as a Markdown table
    python -m bench.studies.floors course batch8

The floor is the larger of two times: the operations of the engine that `fit` chooses, at the multipliers' peak, and the
bytes that it must move, at the rate of a copy; both measured in this session. The floor without zeros leaves out the
products with half of the values behind a ReLU, which are 0. It takes 9 loads for 8 of the other products, and CPUs load as
many vectors as they multiply. The study then times the products of the engine alone, at the same sizes and without
zeros. Their time above the floor is one part of a fit's time, everything but the products is the rest.
"""
from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.gemm import matmul, vector_lanes
from fastnet.kernels.gemm.pixels import GROUP
from fastnet.kernels.gemm.product import gemm
from fastnet.kernels.runtime.pool import barrier, run
from fastnet.kernels.simd import LEAST_ACROSS

from bench.bench_fit import JOBS, RATE, Job
from bench.harness import machine, peers
from fastnet.training.first import first_outputs, gram_matrix, window_rows

ROUNDS = 7
HEAD = ("job", "engine", "GFLOP", "GB", "floor", "of the time", "without zeros", "products alone", "above their floor",
        "the rest")


def seconds(function: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """Median of some calls, after one that does not count."""
    function()
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        function()
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))


@jit
def _repeat(thread, threads, sync, scratch, repeats, c, c_row, c_vec, a, a_row, a_k, b, b_k, b_col, b_vec, m, n, k, alpha):
    """One product again and again within a call, as in a fit: the threads are woken once."""
    for _ in range(repeats):
        gemm(thread, threads, sync, scratch, c, c_row, c_vec, a, a_row, a_k, b, b_k, b_col, b_vec, m, n, k, alpha,
             alpha - alpha, 0, 0)
        barrier(sync, threads)


def step_product(m: int, n: int, k: int, dtype: np.dtype, update: bool = False) -> float:
    """Seconds of A (m, k) B (k, n) within a step: B kept packed, or for an update A as a transpose and C kept packed."""
    width = vector_lanes(dtype)
    a, b, c = np.ones((m, k), dtype), np.ones((k, n + width), dtype), np.ones((m, n + width), dtype)
    at_a, at_b, at_c = (array.ctypes.data for array in (a, b, c))
    factor = 4 if m * n * k < 1 << 24 else 1
    one = c.dtype.type(1)
    if update:
        places = at_c, width, m * width, at_a, 1, m, at_b, n + width, 1, 0
    else:
        places = at_c, n + width, width, at_a, k, 1, at_b, width, 1, k * width
    return seconds(lambda: run(_repeat, 25 * factor, *places, m, n, k, one)) / (25 * factor)


def products(job: Job, engine: str, x: np.ndarray, W: np.ndarray) -> float:
    """Seconds of all products that a fit computes, each timed alone."""
    n, d, h, batch = job.n, x.shape[1], len(W), min(job.batch_size, job.n)
    steps = -(-n // batch)
    total = job.epochs * steps * sum(
        step_product(batch, n_out, n_in, x.dtype) + step_product(batch, n_in, n_out, x.dtype)
        + step_product(n_in, n_out, batch, x.dtype, update=True) for n_in, n_out in itertools.pairwise(job.widths[1:]))
    rows = min(window_rows(batch), n) if engine == "windows" else n
    dz = np.ones((rows, h), x.dtype)
    if engine == "fused":
        return total + job.epochs * steps * (
            step_product(batch, h, d, x.dtype) + step_product(d, h, batch, x.dtype, update=True))
    times = 1 if engine == "gram" else job.epochs * -(-n // rows)
    total += times * (seconds(lambda: gram_matrix(x[:rows])) + seconds(lambda: first_outputs(x[:rows], W))
                      + seconds(lambda: matmul(W, dz.T, x[:rows], alpha=0.0, beta=1.0)))
    if engine == "windows":
        return total + job.epochs * steps * step_product(batch, h, rows // 2, x.dtype)
    return total + steps * (step_product(batch, h, n // 2, x.dtype)  # in the first epoch, D fills up
                            + (job.epochs - 1) * step_product(batch, h, n, x.dtype))


def saved_by_bytes(job: Job, engine: str) -> float:
    """Operations that X X.T of 8-bit images does not take, counted in those of the job's own numbers."""
    rows = {"gram": job.n, "windows": min(window_rows(job.batch_size), job.n) * job.epochs}.get(engine, 0)
    sums = GROUP * np.dtype(job.dtype).itemsize // 4  # products of pixels in the time of one of the job's numbers
    return job.n * rows * job.widths[0] * (1 - 1 / sums)


def saved_by_zeros(job: Job, engine: str) -> float:
    """Operations that are not needed if half of the outputs of each ReLU and half of their gradients are 0."""
    batch, (d, h, *_) = min(job.batch_size, job.n), job.widths
    least = (LEAST_ACROSS - 1) * vector_lanes(np.dtype(job.dtype))  # a product with more columns leaves out zeros
    visits = job.n * job.epochs
    products = {"gram": (visits - job.n / 2) * job.n * h * (batch > least), "fused": visits * d * h * (batch >= 64),
                "windows": visits * d * h}[engine]
    for number, (n_in, n_out) in enumerate(itertools.pairwise(job.widths[1:])):
        last = number == len(job.widths) - 3  # whose gradient comes from the loss: it has no zeros
        products += visits * n_in * n_out * ((2 if last else 3) * (n_out > least))
    return 2 * products * (1 - 0.5 * 9 / 8)


def row(job: Job) -> tuple[str, ...]:
    """One job's line of the table."""
    x, t, weights = peers.workload(job.n, job.widths, job.dtype)
    plan = peers.fastnet_model(weights).explain(x, t, job.epochs, job.batch_size)
    chosen = next(estimate for estimate in plan.estimates if estimate.name == plan.chosen)
    first = (job.epochs - 0.5) * chosen.epoch_flops if chosen.name == "gram" else job.epochs * chosen.epoch_flops
    flops, moved = chosen.setup_flops + first - saved_by_bytes(job, plan.chosen), job.epochs * chosen.epoch_bytes
    steps = job.epochs * -(-job.n // job.batch_size)
    by_flops = flops / machine.fma_peak(np.dtype(job.dtype).name)
    by_bytes = moved / machine.copy_bandwidth(moved / steps)
    floor, without_zeros = max(by_flops, by_bytes), max(by_flops * (1 - saved_by_zeros(job, plan.chosen) / flops), by_bytes)
    taken = seconds(lambda: peers.fastnet_fit(x, t, weights, job.epochs, RATE, job.batch_size), min(ROUNDS, job.rounds + 2))
    alone = products(job, chosen.name, x, weights[0][0].copy())
    return (job.name, chosen.name, f"{flops / 1e9:.1f}", f"{moved / 1e9:.2f}",
            "operations" if by_flops > by_bytes else "bytes", f"{floor / taken:.0%}",
            f"{without_zeros / taken:.0%}", f"{alone / taken:.0%}",
            f"{max(0.0, alone - floor) / taken:.0%}", f"{(taken - max(alone, floor)) / taken:.0%}")


def main(names: list[str]) -> None:
    print("| " + " | ".join(HEAD) + " |\n|" + " --- |" * len(HEAD))
    for job in JOBS:
        if not names or job.name in names:
            print("| " + " | ".join(row(job)) + " |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
