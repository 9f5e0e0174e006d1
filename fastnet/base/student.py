"""Student's t, for the confidence interval of a mean of a few repetitions, without SciPy."""
from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def interval(values: npt.ArrayLike, confidence: float = 0.95) -> tuple[float, float, float]:
    """Compute the mean of repeated measurements, and both ends of its confidence interval.

    Parameters
    ----------
    values : array_like, shape (n,)
        At least two measurements.
    confidence : float
        The probability that the interval covers the mean, between 0 and 1.

    Returns
    -------
    mean, low, high : float
    """
    values = np.asarray(values, np.float64)
    half = quantile(len(values) - 1, confidence) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def quantile(freedom: int, confidence: float = 0.95) -> float:
    """Compute the t that the absolute value of a Student's t variable exceeds with probability 1 - confidence.

    Parameters
    ----------
    freedom : int
        Degrees of freedom, at least 1: one less than the number of repetitions.
    confidence : float
        A probability between 0 and 1.

    Returns
    -------
    float
        The quantile, with a relative error of about 1e-12.
    """
    if freedom < 1 or not 0 < confidence < 1:
        raise ValueError(f"quantile: expected at least 1 degree of freedom and a confidence between 0 and 1, got {freedom} "
                         f"and {confidence}.")
    low, high = 0.0, math.pi / 2  # angles whose tangent is t / sqrt(freedom)
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return math.sqrt(freedom) * math.tan(middle)
        low, high = (middle, high) if _within(middle, freedom) < confidence else (low, middle)


def _within(angle: float, freedom: int) -> float:
    """Compute the probability that abs(t) <= sqrt(freedom) tan(angle): Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    odd = freedom % 2
    square = math.cos(angle) ** 2
    steps = np.arange(1 + odd, freedom - 2 + odd, 2, dtype=np.float64)  # 1/2, 3/4, ... or 2/3, 4/5, ...
    terms = np.cumprod(steps / (steps + 1) * square)
    total = math.sin(angle) * (1 + terms.sum())
    if not odd:
        return total
    return 2 / math.pi * (angle + (total * math.cos(angle) if freedom > 1 else 0))
