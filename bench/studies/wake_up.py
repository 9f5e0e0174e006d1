"""What it costs to call a second thread, and what a thread that waits costs: latency, and time of an idle process.

    python -m bench.studies.wake_up

Prints the time of a call of an empty kernel on all threads, minus that on one: while calls follow each other at once, and
after pauses; and how much CPU time an idle process takes once its threads have worked.
"""
from __future__ import annotations

import time

from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.codegen.linking import thread_kernel
from fastnet.kernels.runtime import pool

CALLS = 300


@thread_kernel
def _nothing(thread, threads, sync, scratch, job):
    pass


@jit
def _call(context, function, most):
    return pool.run_compiled(context, function, 0, most, pool.UNLIMITED)


def _best_and_median(function: int, most: int, gap: float) -> tuple[float, float]:
    context, times = pool.thread_context(), []
    for _ in range(CALLS if gap < 1e-3 else 60):
        end = time.perf_counter() + gap
        if gap >= 1e-3:
            time.sleep(gap)
        while time.perf_counter() < end:
            pass
        start = time.perf_counter()
        _call(context, function, most)
        times.append(time.perf_counter() - start)
    times.sort()
    return times[0], times[len(times) // 2]


def main() -> None:
    function = _nothing.address()
    pool.start_workers()
    count = pool.get_num_threads()
    for most in (1, count):
        _call(pool.thread_context(), function, most)
    print(f"a call of an empty kernel on {count} threads, less one on a single thread, in microseconds: best, median")
    gaps = {"in a row": 0.0, "20 us apart": 20e-6, "asleep, 1 ms apart": 1e-3, "asleep, 20 ms apart": 20e-3}
    for name, gap in gaps.items():
        alone, together = (_best_and_median(function, most, gap) for most in (1, count))
        print(f"{name:20s} {(together[0] - alone[0]) * 1e6:8.1f} {(together[1] - alone[1]) * 1e6:8.1f}")
    start = time.process_time()
    time.sleep(1.0)
    print(f"CPU time of one idle second: {(time.process_time() - start) * 1e6:.0f} us")


if __name__ == "__main__":
    main()
