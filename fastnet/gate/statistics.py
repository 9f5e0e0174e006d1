"""Ratios of paired timings, with intervals that do not assume any distribution."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
_RESAMPLES = 2000


class Estimate(NamedTuple):
    """How many times as long b took as a: the median over rounds, and a bootstrap interval."""

    ratio: float
    low: float
    high: float
    rounds: int


def paired_ratio(a: npt.ArrayLike, b: npt.ArrayLike, confidence: float = CONFIDENCE) -> Estimate:
    """Estimate b / a from timings of both in the same rounds.

    Parameters
    ----------
    a, b : array_like, shape (rounds,)
        Positive; element i of both comes from round i.
    confidence : float
        Of the interval.

    Returns
    -------
    Estimate
        exp of the median of log(b / a), and of the percentile-bootstrap interval of that median over rounds. With
        fewer than two rounds the interval is (0, inf): it supports nothing.
    """
    from scipy.stats import bootstrap  # here, so that a benchmark without rivals starts quickly

    logs = log_ratios(a, b)
    if len(logs) < 2:
        return Estimate(float(np.exp(np.median(logs))), 0.0, float("inf"), len(logs))
    interval = bootstrap((logs,), np.median, n_resamples=_RESAMPLES, confidence_level=confidence, method="percentile",
                         rng=np.random.default_rng(0)).confidence_interval
    middle, low, high = (float(np.exp(v)) for v in (np.median(logs), interval.low, interval.high))
    return Estimate(middle, low, high, len(logs))


def log_ratios(a: npt.ArrayLike, b: npt.ArrayLike) -> np.ndarray:
    """log(b / a), round by round."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 1 or a.size == 0:
        raise ValueError(f"Paired timings need one number per round on both sides, got shapes {a.shape} and {b.shape}.")
    if not (np.isfinite(a).all() and np.isfinite(b).all() and (a > 0).all() and (b > 0).all()):
        raise ValueError("Timings must be finite and above 0.")
    return np.log(b / a)
