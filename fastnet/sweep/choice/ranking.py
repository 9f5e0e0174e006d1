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


def tied(table: Table, columns: np.ndarray) -> tuple[np.ndarray, Errors]:
    """Which candidates can't be told from the best, those that a search ran on fewer repeats included; the errors."""
    rows = np.flatnonzero(table.whole)
    found = errors(table.cells(rows, columns))
    equal = np.zeros(len(table.candidates), bool)
    equal[rows] = not_worse(table.values[rows][:, columns].mean(1), found, CONFIDENCE)
    return equal | _close(table, columns, found), found


def _close(table: Table, columns: np.ndarray, found: Errors) -> np.ndarray:
    """Candidates that a search ran on fewer repeats, not enough to tell them from the best.

    One repeat has no scatter of its own: the usual one of the others is taken.
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


def equal_to_best(table: Table) -> set[Candidate]:
    """Which candidates can't be told from the best."""
    equal, _ = tied(table, np.flatnonzero(table.common))
    return {candidate for candidate, yes in zip(table.candidates, equal) if yes}


def instability(table: Table, columns: np.ndarray) -> float:
    """How often as many other seeds would choose another candidate, on the same held-out samples; nan for one seed.

    It is the mean of two guesses. How often two halves of the seeds choose differently is too large, as each has half of the
    seeds. How often draws choose differently whose means are these, with the error of a difference of two such means, is too
    small, as these means are themselves spread by chance. bench/studies/sweep_choice.py compares the mean with the truth.
    (A bootstrap of the seeds sees less than half of it.)
    """
    rows = np.flatnonzero(table.whole)
    by_seed = table.cells(rows, columns).mean(2, dtype=np.float64)
    if by_seed.shape[1] < 2:
        by_seed = table.values[rows][:, columns]  # a single seed: its folds
    seeds = by_seed.shape[1]
    if seeds < 2:
        return math.nan
    mean = by_seed.mean(1)
    rng = np.random.default_rng(0)
    scatter = (by_seed - mean[:, None]) / math.sqrt(seeds * (seeds - 1))
    t = np.sqrt((seeds - 1) / rng.chisquare(seeds - 1, (_DRAWS, 1)))  # a few seeds are a poor guess of their own scatter
    draws = mean + math.sqrt(2) * t * (rng.normal(size=(_DRAWS, seeds)) @ scatter.T)
    mine = _middle(table, rows, mean)
    drawn = np.mean([_middle(table, rows, draw) != mine for draw in draws])
    half = seeds // 2
    orders = [rng.permutation(seeds) for _ in range(_DRAWS)]
    halves = np.mean([_middle(table, rows, by_seed[:, order[:half]].mean(1))
                      != _middle(table, rows, by_seed[:, order[half:2 * half]].mean(1)) for order in orders])
    return float(drawn + halves) / 2
