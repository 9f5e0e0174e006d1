"""How fast something is on this machine, what the machine can do at most, and whether others were in the way meanwhile.

The one place for it: `fastnet doctor`, the benchmarks and their report all quote the same FMA peak.
"""
from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastnet.kernels import peak
from fastnet.kernels.runtime.pool import get_num_threads, run
from fastnet.kernels.simd import MR, NV, VECTOR_BITS

_SECONDS = 0.02  # one timing
_TIMINGS = 12
_REST = 0.05  # seconds between timings: a neighbour who comes for a moment must not be in all of them
_MOST_MISSING = 0.15  # of the cores' time: what a process alone on its cores misses is some 0.02
_MOST_SPREAD = 1.3  # the median timing beside the best: 1.02 on a quiet machine


class Rate(NamedTuple):
    """Work per second, of the best of several timings; and how it went in the median one."""

    best: float
    cores: float  # whose time the process had: its CPU time per second
    threads: int  # that were at work, and so the cores that it could have used
    spread: float  # seconds of the median timing / seconds of the best

    @property
    def busy(self) -> str:
        """Why `best` is not what the machine can do; empty on a quiet machine."""
        if self.cores < self.threads * (1 - _MOST_MISSING):
            cores = f"{self.threads} core{'s' if self.threads > 1 else ''}"
            return f"the machine is busy: of {cores}, other programs left {self.cores:.1f} to this one"
        return self.unsteady

    @property
    def unsteady(self) -> str:
        """Why timings of the same work differ more than they do on a quiet machine; empty where they do not."""
        if self.spread > _MOST_SPREAD:
            return (f"the machine is busy, or changes its clock: the same work took {self.spread:.1f} times as long in the "
                    "median as at best")
        return ""


def measure(work: float, function: Callable[[int], object], threads: int) -> Rate:
    """Time a function several times, with rests in between.

    Parameters
    ----------
    work : float
        What one repetition does, in any unit: operations, bytes.
    function : callable
        ``function(repeats)`` does it so many times.
    threads : int
        How many threads it keeps busy.
    """
    function(1)
    repeats, seconds = 1, 0.0
    while seconds < _SECONDS / 4:
        repeats *= 4
        seconds, _ = _timed(function, repeats)
    repeats = max(1, round(repeats * _SECONDS / seconds))
    timings = []
    for _ in range(_TIMINGS):
        time.sleep(_REST)
        timings.append(_timed(function, repeats))
    best, median = min(timings)[0], statistics.median(seconds for seconds, _ in timings)
    cores = sum(cpu for _, cpu in timings) / sum(seconds for seconds, _ in timings)
    return Rate(repeats * work / best, cores, threads, median / best)


def _timed(function: Callable[[int], object], repeats: int) -> tuple[float, float]:
    """Seconds by the clock, and of CPU time of all threads of the process."""
    started, cpu = time.perf_counter(), time.process_time()
    function(repeats)
    return time.perf_counter() - started, time.process_time() - cpu


def fma_peak(dtype: np.dtype | type | str) -> Rate:
    """FLOP/s of the micro-kernel alone, on all threads, measured now."""
    zero, threads = np.dtype(dtype).type(0), get_num_threads()
    width = VECTOR_BITS // 8 // zero.itemsize
    flops = 2 * MR * NV * width * peak.PANEL_K * threads
    return measure(flops, lambda repeats: run(peak.fma_peak, repeats, zero), threads)


def copy_rate(nbytes: int) -> Rate:
    """Bytes/s, read and written, of a plain copy of `nbytes` on all threads, measured now."""
    source, to = np.ones((2, nbytes // 8))
    vectors = nbytes // (VECTOR_BITS // 8)
    return measure(2 * nbytes, lambda repeats: run(peak.copy, to.ctypes.data, source.ctypes.data, vectors, repeats, 0.0),
                   get_num_threads())
