"""Timing one function of ours beside others that do the same work, round-robin.

The fixture ``race`` (see conftest.py) is what benchmarks call. It

1. runs every contender and compares its result with a float64 one: who computes something else is not timed,
2. warms up,
3. times all contenders once a round, so that a drifting machine touches all of them alike; pytest-benchmark records
   ours, `extra_info` the rest and the ratios,
4. writes down rates, the error, and the share of what the machine can do in this very session.
"""
from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from fastnet.kernels.runtime.pool import get_num_threads

from bench.harness import machine

MODES = ("full", "gate", "tiny")
_MIN_ROUND = 1e-3  # seconds: shorter calls are repeated within a round
_WARM_UP = 0.001  # seconds that the gate gives each benchmark in its warm-up, the one process of a side that verifies
_SECONDS = 0.15  # time for our own rounds; the gate sets its own with --benchmark-max-time
_PAUSE = 0.005  # after which idle threads of a rival's library have stopped to spin on a core that the next one needs
_LONG = 0.1  # seconds that a call takes, of which those to fill the caches are a small part
_LONGEST = 1.0  # seconds of a first call, compilation and all, after which no second one is spent on warming up
_RIVAL_SECONDS = 1.5  # a slow rival ends the rounds early
_ROUNDS = {"full": (7, 11), "gate": (3, 200), "tiny": (1, 1)}


def mode() -> str:
    """Why benchmarks run: "full" for figures, "gate" without rivals, "tiny" to see that they work.

    Taken from the environment variable FASTNET_BENCH.
    """
    chosen = os.environ.get("FASTNET_BENCH", "full")
    if chosen not in MODES:
        raise ValueError(f"FASTNET_BENCH is {chosen!r}: expected one of {', '.join(MODES)}.")
    return chosen


def sizes(*full: Any, tiny: Any) -> list[Any]:
    """The parameters to run: all of `full`, or the one that is quick.

    For the gate the first of `full`, or all of them where the environment has FASTNET_BENCH_SIZES=all.
    """
    first = list(full) if os.environ.get("FASTNET_BENCH_SIZES") == "all" else list(full[:1])
    return {"full": list(full), "gate": first, "tiny": [tiny]}[mode()]


class Race:
    """Callable as ``race(contenders, ...)``; made by the fixture of the same name."""

    def __init__(self, benchmark: Any, seconds: float) -> None:
        self._benchmark = benchmark
        self._seconds = seconds if mode() == "gate" else _SECONDS
        self._verifies = mode() != "gate" or seconds <= _WARM_UP

    def __call__(
        self, contenders: Mapping[str, Callable[[], Any]], *, expected: Any = None, tolerance: float = 0.0,
        flops: float = 0, nbytes: float = 0, dtype: Any = np.float32, rounds: int | None = None, **facts: Any,
    ) -> None:
        """Verify, warm up, time.

        Parameters
        ----------
        contenders : dict of callables
            Ours first. Each takes nothing and returns its result, or None if it cannot be compared.
        expected : array_like or callable, optional
            What each must return, in float64, or a function that computes it: worth it where that takes long, as the gate
            asks for it in its warm-up only.
        tolerance : float
            Largest error allowed, relative to the largest number expected.
        flops, nbytes : float
            Operations of the plain algorithm; bytes that must be read and written.
        dtype : dtype-like
            Decides which peak `flops` is a share of.
        rounds : int, optional
            For long benchmarks: fewer than usual.
        **facts
            Written to ``extra_info``: kernel, shape, layout, ...
        """
        if callable(expected):
            expected = expected() if self._verifies else None
        (ours, function), *others = contenders.items()
        rivals = {} if mode() == "gate" else dict(others)
        errors, loops = {}, {}
        for name, contender in {ours: function, **rivals}.items():
            started = time.perf_counter()
            result = contender()
            first = time.perf_counter() - started
            errors[name] = _verified(name, result, expected, tolerance)
            loops[name] = (1, first) if first > _LONGEST else _loops(contender)
        rounds = _rounds(loops, rounds, self._seconds)
        seconds: dict[str, list[float]] = {name: [] for name in rivals}

        def run_rivals(*_: Any) -> None:
            for name, rival in rivals.items():
                count, expected_seconds = loops[name]
                _settle(rival, expected_seconds)
                seconds[name].append(_seconds(rival, count) / count)
            if rivals:
                _settle(function, loops[ours][1])

        self._benchmark.pedantic(function, rounds=rounds, iterations=loops[ours][0], warmup_rounds=1,
                                 teardown=run_rivals)
        if self._benchmark.disabled:
            return
        info = self._benchmark.extra_info
        info.update(facts, dtype=np.dtype(dtype).name, threads=get_num_threads(), error=errors[ours], flops=flops,
                    bytes=nbytes)
        own = np.array(self._benchmark.stats.stats.data)
        info.update(_rates(float(np.median(own)), flops, nbytes, np.dtype(dtype).name))
        info["against"] = {name: _against(np.array(times[-len(own):]), own, errors[name])
                           for name, times in seconds.items()}


def _verified(name: str, result: Any, expected: Any, tolerance: float) -> float | None:
    """The error, relative to the largest number expected; raises if it is too large."""
    if expected is None or result is None:
        return None
    expected = np.asarray(expected, np.float64)
    result = np.asarray(result, np.float64)
    if result.shape != expected.shape:
        raise AssertionError(f"{name} computed shape {result.shape}, expected {expected.shape}: not timed.")
    if result.size == 0:
        return 0.0
    error = float(np.max(np.abs(result - expected)) / max(np.max(np.abs(expected)), np.finfo(np.float64).tiny))
    if not error <= tolerance:
        raise AssertionError(f"{name} is wrong by {error:.2g} of the largest number, allowed is {tolerance:.2g}: "
                             "not timed.")
    return error


def _settle(function: Callable[[], Any], seconds: float) -> None:
    """Let others' threads fall asleep, then have this one's data in the caches again."""
    if mode() != "full":
        return
    time.sleep(_PAUSE if seconds < _LONG else 10 * _PAUSE)
    if seconds < _LONG:
        function()


def _seconds(function: Callable[[], Any], count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        function()
    return time.perf_counter() - started


def _loops(function: Callable[[], Any]) -> tuple[int, float]:
    """Calls in one round, and about how long a call takes."""
    count, seconds = 1, _seconds(function, 1)
    while seconds < _MIN_ROUND:
        count *= 2
        seconds = _seconds(function, count)
    return count, seconds / count


def _rounds(loops: Mapping[str, tuple[int, float]], wanted: int | None, seconds_for_ours: float) -> int:
    low, high = _ROUNDS[mode()]
    if wanted is not None:
        return min(wanted, low)
    (own, *others) = [count * seconds for count, seconds in loops.values()]
    fit = seconds_for_ours / own
    if others:
        fit = min(fit, _RIVAL_SECONDS / sum(others))
    return int(min(high, max(low, fit)))


def _rates(seconds: float, flops: float, nbytes: float, dtype: str) -> dict[str, Any]:
    """GFLOP/s, GB/s, and the share of the machine's own rate, for whichever of the two limits this work."""
    rates: dict[str, Any] = {"gflops": flops / seconds / 1e9 or None, "gbs": nbytes / seconds / 1e9 or None,
                             "share": None, "limit": None}
    if mode() != "full" or not (flops or nbytes):
        return rates
    least = {"fma": flops / machine.fma_peak(dtype), "copy": nbytes / machine.copy_bandwidth(nbytes)}
    rates["limit"] = max(least, key=lambda name: least[name])
    rates["share"] = least[rates["limit"]] / seconds
    return rates


def _against(theirs: np.ndarray, ours: np.ndarray, error: float | None) -> dict[str, Any]:
    from fastnet.gate.statistics import paired_ratio  # here: older revisions, which run without rivals, have no gate

    estimate = paired_ratio(ours, theirs)
    return {"seconds": float(np.median(theirs)), "ratio": estimate.ratio, "low": estimate.low, "high": estimate.high,
            "error": error}
