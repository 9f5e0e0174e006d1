"""The order of candidates: means in pairs, which of them are tied with the best, and what other seeds would choose."""
from __future__ import annotations

import math

import numpy as np

from fastnet.sweep.choice.errors import Errors, as_normal, errors, normal_quantile, not_worse
from fastnet.sweep.choice.table import Candidate, Table

CONFIDENCE = 0.95
_DRAWS = 200


def best_of(table: Table, columns: np.ndarray) -> int:
    """The candidate with the highest mean among those with all repeats; of equal ones of a setting the middle one."""
    rows = np.flatnonzero(table.whole)
    return int(rows[_middle(table, rows, table.values[rows][:, columns].mean(1))])


def _middle(table: Table, rows: np.ndarray, mean: np.ndarray) -> int:
    top = np.flatnonzero(mean >= mean.max() - 1e-12)
    setting = table.candidates[rows[top[0]]].setting
    same = sorted((i for i in top if table.candidates[rows[i]].setting == setting),
                  key=lambda i: table.candidates[rows[i]].lr)
    return int(same[len(same) // 2])


def tied(table: Table, columns: np.ndarray, confidence: float = CONFIDENCE) -> tuple[np.ndarray, Errors]:
    """Which candidates can't be told from the best, those that a search ran on fewer repeats included; the errors."""
    rows = np.flatnonzero(table.whole)
    found = errors(table.cells(rows, columns))
    equal = np.zeros(len(table.candidates), bool)
    equal[rows] = not_worse(table.values[rows][:, columns].mean(1), found, confidence)
    return equal | _close(table, columns, found), found


def _close(table: Table, columns: np.ndarray, found: Errors) -> np.ndarray:
    """Candidates that a search ran on fewer repeats, not enough to tell them from the best.

    The scatter of one repeat is unknown, so the median scatter of the others is used.
    """
    close = np.zeros(len(table.candidates), bool)
    rows = np.flatnonzero(table.whole)
    pairs = np.triu_indices(len(rows), 1)
    if len(rows) == len(close) or not len(pairs[0]):
        return close
    samples = float(np.median(found.of_samples[pairs]))
    each = max(0.0, float(np.median(found.variance[pairs])) - samples) * len(columns)  # of a single repeat
    freedom = np.median(found.freedom[pairs])
    limit = normal_quantile(1 - (1 - CONFIDENCE) / (len(close) - 1))
    best = table.values[best_of(table, columns)]
    for i in np.flatnonzero(~table.whole):
        ran = np.isfinite(table.values[i]) & np.isfinite(best)
        if ran.any():
            behind = (best - table.values[i])[ran].mean()
            error = math.sqrt(each / ran.sum() + samples)
            close[i] = behind <= 0 or (error > 0 and as_normal(np.float64(behind / error), freedom) <= limit)
    return close


def error_of(table: Table, row: int) -> float:
    """The standard error of a candidate's mean, over its repeats and the held-out samples."""
    columns = np.flatnonzero(np.isfinite(table.values[row]))
    return math.sqrt(errors(table.cells(np.array([row]), columns)).of_mean[0])


def equal_to_best(table: Table, confidence: float) -> set[Candidate]:
    """Which candidates can't be told from the best."""
    equal, _ = tied(table, np.flatnonzero(table.common), confidence)
    return {candidate for candidate, yes in zip(table.candidates, equal) if yes}


def instability(table: Table, columns: np.ndarray) -> float:
    """How often as many other seeds would choose another candidate, on the same held-out samples.

    It is nan for one seed, and where there is no other candidate.

    How often two disjoint halves of the seeds choose differently is unbiased for half as many seeds, for any candidates.
    Two estimates say what doubling the seeds changes. Their mean is used:

    - what changed from quarters to halves, carried on in the square root of the number of seeds, as errors shrink with it;
    - what changes for normal draws around the observed means.
    """
    rows = np.flatnonzero(table.whole)
    by_seed = table.cells(rows, columns).mean(2, dtype=np.float64)
    if by_seed.shape[1] < 2:
        by_seed = table.values[rows][:, columns]  # a single seed: its folds
    seeds = by_seed.shape[1]
    if seeds < 2 or len(table.candidates) < 2:
        return math.nan
    rng = np.random.default_rng(0)
    half = seeds // 2
    found = _disagree(table, rows, by_seed, half, rng)
    trend, quarter = 0.0, half // 2
    if quarter:
        steps = np.diff(np.sqrt([quarter, half, seeds]))
        trend = (found - _disagree(table, rows, by_seed, quarter, rng)) * steps[1] / steps[0]
    return float(np.clip(found + (trend + _drawn_change(by_seed, half, rng)) / 2, 0.0, 1.0))


def _disagree(table: Table, rows: np.ndarray, by_seed: np.ndarray, size: int, rng: np.random.Generator) -> float:
    """How often two disjoint sets of so many seeds choose differently."""
    orders = [rng.permutation(by_seed.shape[1]) for _ in range(_DRAWS)]
    chosen = [[_middle(table, rows, by_seed[:, part].mean(1)) for part in (order[:size], order[size:2 * size])]
              for order in orders]
    return float(np.mean([one != other for one, other in chosen]))


def _drawn_change(by_seed: np.ndarray, half: int, rng: np.random.Generator) -> float:
    """How much more often two draws of all seeds choose differently than two draws of half of them: mostly less than 0."""
    seeds = by_seed.shape[1]
    mean = by_seed.mean(1)
    scatter = (by_seed - mean[:, None]).T / math.sqrt(seeds - 1)  # of a single seed
    t = np.sqrt((seeds - 1) / rng.chisquare(seeds - 1, (_DRAWS, 1)))  # a few seeds estimate their scatter badly
    truth = mean + t * (rng.normal(size=(_DRAWS, seeds)) @ scatter) / math.sqrt(seeds)
    of_all, of_half = (np.mean(np.diff([
        (truth + rng.normal(size=(_DRAWS, seeds)) @ scatter / math.sqrt(size)).argmax(1) for _ in range(2)], axis=0) != 0)
        for size in (seeds, half))
    return float(of_all - of_half)
