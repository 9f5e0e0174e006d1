"""Measurement of speed: a function's rate, the machine's peak, and whether other programs disturbed the measurement.

`fastnet doctor`, the benchmarks and their report all use the FMA peak of this module.
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
_REST = 0.05  # seconds between timings, so that a short disturbance does not affect all of them
_MOST_MISSING = 0.15  # of the cores' time; a process alone on its cores misses about 0.02
_MOST_SPREAD = 1.3  # median timing / best timing; 1.02 on a quiet machine


class Rate(NamedTuple):
    """Work per second in the best of several timings, and how much the timings vary."""

    best: float
    cores: float  # the process's CPU time per second
    threads: int  # the threads that worked, and so the cores that the process could use
    spread: float  # seconds of the median timing / seconds of the best

    @property
    def busy(self) -> str:
        """The reason why `best` is below the machine's speed; an empty string on a quiet machine."""
        if self.cores < self.threads * (1 - _MOST_MISSING):
            cores = f"{self.threads} core{'s' if self.threads > 1 else ''}"
            return f"the machine is busy: other programs left {self.cores:.1f} of {cores} to this one"
        return self.unsteady

    @property
    def unsteady(self) -> str:
        """The reason why timings of the same work vary more than on a quiet machine; empty if they do not."""
        if self.spread > _MOST_SPREAD:
            return (f"the machine is busy, or changes its clock: the median timing of the same work was {self.spread:.1f} "
                    "times the best")
        return ""


def measure(work: float, function: Callable[[int], object], threads: int) -> Rate:
    """Time a function several times, with pauses in between.

    Parameters
    ----------
    work : float
        The work of one repetition, in any unit: operations, bytes.
    function : callable
        ``function(repeats)`` does the work `repeats` times.
    threads : int
        The number of threads that work.
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
    """Return wall-clock seconds, and CPU seconds of all threads of the process."""
    started, cpu = time.perf_counter(), time.process_time()
    function(repeats)
    return time.perf_counter() - started, time.process_time() - cpu


def fma_peak(dtype: np.dtype | type | str) -> Rate:
    """Measure the FLOP/s of the micro-kernel alone, on all threads."""
    zero, threads = np.dtype(dtype).type(0), get_num_threads()
    width = VECTOR_BITS // 8 // zero.itemsize
    flops = 2 * MR * NV * width * peak.PANEL_K * threads
    return measure(flops, lambda repeats: run(peak.fma_peak, repeats, zero), threads)


def copy_rate(nbytes: int) -> Rate:
    """Measure the bytes/s, read and written, of a plain copy of `nbytes` on all threads."""
    source, to = np.ones((2, nbytes // 8))
    vectors = nbytes // (VECTOR_BITS // 8)
    return measure(2 * nbytes, lambda repeats: run(peak.copy, to.ctypes.data, source.ctypes.data, vectors, repeats, 0.0),
                   get_num_threads())
