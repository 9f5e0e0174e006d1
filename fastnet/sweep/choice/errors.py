"""How far the means of several candidates can be trusted, over seeds and held-out samples; NumPy only.

Every candidate is measured with the same seeds s on the same held-out samples v (or folds), so a value is

    value[i, s, v] = mean[i] + seed[i, s] + sample[i, v] + rest[i, s, v]

and both seeds and samples are drawn from many. The variance of a mean over S seeds and V samples is the sum of the first
two terms' variances, divided by S and by V, and of the third's, divided by S V (two-way analysis of variance). More seeds
make only the first and the last part smaller.
"""
from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

_DRAWS = 2000  # of the distribution of the largest difference
_NEAR = 2.0  # standard errors: a candidate that is better by more is no rival for being the best


class Errors(NamedTuple):
    """Variances of mean differences of all pairs, shape (k, k), and what they are made of."""

    variance: np.ndarray
    freedom: np.ndarray
    of_samples: np.ndarray  # the part that more seeds leave as it is
    covariance: np.ndarray  # of the means
    of_mean: np.ndarray  # variance of each mean, shape (k,)
    repeated: bool  # whether there are several seeds, samples or folds, without which nothing is known of chance


def errors(cells: np.ndarray) -> Errors:
    """From values of shape (k, seeds, samples or folds); a single seed or sample contributes no variance of its own."""
    k, seeds, samples = cells.shape
    cells = cells.astype(np.float64, copy=False)
    by_seed, by_sample = cells.mean(2), cells.mean(1)
    mean = by_seed.mean(1)
    rest = (cells - by_seed[:, :, None] - by_sample[:, None, :] + mean[:, None, None]).reshape(k, -1)
    of_seeds, of_samples = _covariance(by_seed), _covariance(by_sample)
    of_rest = rest @ rest.T / (max(1, (seeds - 1) * (samples - 1)) * seeds * samples)
    covariance = of_seeds + of_samples - of_rest
    a, b, c = _pairs(of_seeds), _pairs(of_samples), _pairs(of_rest)
    if seeds > 1:
        a = np.maximum(a, c)  # a few seeds may agree by luck, but not more than their samples allow
    variance = np.maximum(a + b - c, np.maximum(a, b))
    freedom = variance**2 / (a**2 / max(1, seeds - 1) + b**2 / max(1, samples - 1) + 1e-300)
    of_mean = np.maximum(np.diag(covariance), np.maximum(np.diag(of_seeds), np.diag(of_samples)))
    return Errors(variance, np.maximum(freedom, 1.0), np.maximum(b - c, 0.0), covariance, of_mean, seeds > 1 or samples > 1)


def not_worse(mean: np.ndarray, found: Errors, confidence: float) -> np.ndarray:
    """Which candidates may be the best: none other is better beyond chance. More is better.

    Candidate i leaves if the largest lead over it, in standard errors, exceeds what the largest of so many leads stays
    below with that confidence if nobody leads (multiple comparisons with the best, Hsu 1981). That quantile comes from
    draws with the candidates' own covariance, among those that are not clearly worse than i.
    """
    k = len(mean)
    inside = np.ones(k, bool)
    if k < 2 or not found.repeated:
        return inside
    error, scale = np.sqrt(found.variance), np.abs(mean).max()
    with np.errstate(divide="ignore", invalid="ignore"):
        lead = np.nan_to_num((mean[None] - mean[:, None]) / error, nan=0.0)  # [i, j]: of j over i
    values, vectors = np.linalg.eigh(found.covariance)
    draws = np.random.default_rng(0).normal(size=(_DRAWS, k)) @ (vectors * np.sqrt(np.maximum(values, 0))).T
    for i in range(k):
        rivals = np.flatnonzero((lead[i] > -_NEAR) & (error[i] > 1e-12 * scale) & (np.arange(k) != i))
        # What differs by the same amount with every seed and sample, but for rounding
        certain = (error[i] <= 1e-12 * scale) & (mean > mean[i] + 1e-9 * scale)
        if len(rivals):
            limit = np.quantile(((draws[:, rivals] - draws[:, [i]]) / error[i, rivals]).max(1), confidence)
            inside[i] = (as_normal(lead[i, rivals], found.freedom[i, rivals]) <= limit).all()
        inside[i] &= not certain.any()
    return inside


def as_normal(t: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """The normal deviate that is exceeded as often as Student's t (Wallace 1959); a little too small for few degrees."""
    return np.sign(t) * (8 * freedom + 1) / (8 * freedom + 3) * np.sqrt(freedom * np.log1p(t * t / freedom))


def normal_quantile(p: float) -> float:
    """What a normal deviate stays below with probability `p`, by bisection."""
    low, high = -40.0, 40.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if math.erfc(-middle / math.sqrt(2)) / 2 < p else (low, middle)
    return (low + high) / 2


def _covariance(values: np.ndarray) -> np.ndarray:
    """Of the means of rows of values; zeros for a single column."""
    k, n = values.shape
    return np.zeros((k, k)) if n < 2 else np.cov(values).reshape(k, k) / n


def _pairs(covariance: np.ndarray) -> np.ndarray:
    """Variances of the differences."""
    own = np.diag(covariance)
    return np.maximum(own[:, None] + own[None] - 2 * covariance, 0.0)
