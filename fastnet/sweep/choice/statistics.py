"""Paired comparisons of several candidates over the same seeds and folds; NumPy only."""
from __future__ import annotations

import functools

import numpy as np

from fastnet._student import quantile

_PRIOR = 4  # degrees of freedom that the typical variance counts for beside each pair's own
_NEARBY = 0.8  # width of the smoothing kernel, in the natural logarithm of the rate: a factor of 2.2


@functools.lru_cache(maxsize=1024)
def upper_quantile(p: float, freedom: int) -> float:
    """What Student's t stays below with probability `p`, above 0.5."""
    return quantile(freedom, 2 * p - 1)


def paired_errors(values: np.ndarray, groups: tuple[np.ndarray, ...] = ()) -> tuple[np.ndarray, int]:
    """Standard errors of the mean differences of all pairs of rows, and their degrees of freedom.

    Parameters
    ----------
    values : ndarray, shape (k, repeats)
        Of k candidates; a column is a seed and a fold. At least two columns.
    groups : tuple of integer arrays, shape (repeats,)
        Which repeats share something, a seed or a fold, so that they are not independent: the error is then that of the
        groups' means where that is larger.

    Returns
    -------
    (ndarray, shape (k, k); int)

    Notes
    -----
    A pair's variance over a few repeats is itself a rough guess: two rates may agree by luck. So it is drawn towards the
    median of all pairs, which counts for 4 degrees of freedom (a moderated t, as in Smyth 2004).
    """
    clusters = [np.arange(values.shape[1]), *groups]
    best = np.zeros((len(values),) * 2)
    least = 1 << 30
    for group in clusters:
        labels = np.unique(group)
        if len(labels) < 2:
            continue
        means = np.stack([values[:, group == label].mean(1) for label in labels], axis=1)
        spread = (means[:, None] - means[None]).var(axis=2, ddof=1) / len(labels)
        df = len(labels) - 1
        pairs = spread[np.triu_indices(len(values), 1)]
        typical = float(np.median(pairs)) if len(pairs) else 0.0
        prior = _PRIOR if len(pairs) > 2 else 0
        moderated = (df * spread + prior * typical) / (df + prior)
        best, least = np.maximum(best, moderated), min(least, df + prior)
    return np.sqrt(best), least


def not_worse(values: np.ndarray, confidence: float, groups: tuple[np.ndarray, ...] = ()) -> np.ndarray:
    """Which candidates can't be told apart from the best: none other is better beyond chance.

    Every candidate is compared with every other (multiple comparisons with the best, Hsu 1981, by Bonferroni's bound), so
    that the true best is among them with at least that confidence. More is better.

    Returns
    -------
    ndarray of bool, shape (k,)
    """
    k = len(values)
    if k < 2 or values.shape[1] < 2:
        return np.ones(k, bool)
    errors, df = paired_errors(values, groups)
    means = values.mean(1)
    lead = (means[None] - means[:, None]) - upper_quantile(1 - (1 - confidence) / (k - 1), df) * errors
    np.fill_diagonal(lead, -np.inf)
    return ~(lead > 0).any(axis=1)


def smoothed(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Local straight lines through (x, y): neighbours share their evidence, as the metric changes smoothly with log lr."""
    d = x[None] - x[:, None]
    w = weights * np.exp(-0.5 * (d / _NEARBY) ** 2)
    s0, s1, s2, t0, t1 = (term.sum(1) for term in (w, w * d, w * d * d, w * y, w * d * y))
    determinant = s0 * s2 - s1 * s1
    straight = determinant > 1e-9 * s0 * s0  # more than one rate nearby
    return np.where(straight, (s2 * t0 - s1 * t1) / np.where(straight, determinant, 1.0), t0 / s0)
