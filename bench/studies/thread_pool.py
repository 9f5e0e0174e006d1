"""Our pool of nogil threads beside Numba's parallel layer, on the same kernel: dispatch, one product, compilation.

    python -m bench.studies.thread_pool

Prints, for an almost empty kernel and for the forward product of the course network, the time with Numba's
`prange` as a multiple of the time with our pool: medians over paired rounds. The reasons for the choice are in
kernels/README.md.
"""
from __future__ import annotations

import statistics
import time

import numpy as np
from fastnet.kernels.codegen.jit import FASTMATH, jit
from fastnet.kernels.gemm import vector_lanes
from fastnet.kernels.gemm.product import gemm
from fastnet.kernels.runtime.pool import get_num_threads, run
from numba import njit, prange

ROUNDS = 41


@jit
def almost_nothing(thread, threads, sync, scratch):
    """What a dispatch costs."""
    sync[24 + thread % 8] = thread


@njit(parallel=True, error_model="numpy", fastmath=FASTMATH)
def almost_nothing_in_prange(threads, sync):
    for thread in prange(threads):
        sync[24 + thread % 8] = thread


@njit(parallel=True, error_model="numpy", fastmath=FASTMATH)
def gemm_in_prange(threads, sync, scratch, c, c_row, a, a_row, b, m, n, k, one, zero, width):
    for thread in prange(threads):
        gemm(thread, threads, sync, scratch + thread * (1 << 21), c, c_row, width, a, a_row, 1, b, 1, a_row, 0, m, n, k,
             one, zero, 0, 0)


def main() -> None:
    rng = np.random.default_rng(0)
    m, n, k = 128, 500, 3072
    a, b = rng.normal(size=(m, k)).astype(np.float32), rng.normal(size=(n, k)).astype(np.float32)
    c, threads = np.empty((m, n), np.float32), get_num_threads()
    sync, scratch = np.zeros(32, np.int64), np.empty(threads << 21, np.uint8)
    one, zero = np.float32(1), np.float32(0)
    width = vector_lanes(np.float32)
    places = [array.ctypes.data for array in (c, a, b)]

    def ours() -> None:
        run(gemm, places[0], n, width, places[1], k, 1, places[2], 1, k, 0, m, n, k, one, zero, 0, 0)

    def numbas() -> None:
        gemm_in_prange(threads, sync, scratch.ctypes.data, places[0], n, places[1], k, places[2], m, n, k, one, zero, width)

    expected = a @ b.T
    for job in (ours, numbas):
        c[:] = np.nan
        start = time.perf_counter()
        job()
        print(f"{job.__name__:8s} first call {time.perf_counter() - start:5.1f} s  max. error {abs(c - expected).max():.1e}")
    nothing = (lambda: run(almost_nothing), lambda: almost_nothing_in_prange(threads, sync))
    for what, pair in (("almost empty kernel", nothing), (f"product {m} x {n} x {k}", (ours, numbas))):
        times: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            for job, kept in zip(pair, times, strict=True):
                job()
                start = time.perf_counter()
                job()
                kept.append(time.perf_counter() - start)
        ratio = statistics.median(b / a for a, b in zip(*times, strict=True))
        print(f"{what:28s} Numba's prange takes {ratio:5.2f} times as long as our pool, {threads} threads")


if __name__ == "__main__":
    main()
