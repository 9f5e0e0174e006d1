"""The order of candidates: paired comparisons, means smoothed along the rate, and how far another draw would change it."""
from __future__ import annotations

import math

import numpy as np

from fastnet.sweep.choice.candidates import Candidate, Table
from fastnet.sweep.choice.metrics import tolerance
from fastnet.sweep.choice.statistics import not_worse, paired_errors, smoothed, upper_quantile

CONFIDENCE = 0.95
_DRAWS = 300  # of the bootstrap
_SPREAD = 0.5  # of what a rate's spread exceeds the usual by is taken off its mean
_USUAL = 1.5  # times the median spread is still usual


def equal_to_best(table: Table) -> set[Candidate]:
    """Which candidates can't be told apart from the best."""
    _, equal = pick(table, np.flatnonzero(table.common))
    return {candidate for candidate, yes in zip(table.candidates, equal) if yes}


def pick(table: Table, columns: np.ndarray) -> tuple[int, np.ndarray]:
    """The index of the choice, and which can't be told apart from the best."""
    values = table.values[:, columns]
    whole = table.whole
    equal = np.zeros(len(values), bool)
    equal[whole] = not_worse(values[whole], CONFIDENCE, groups(table, columns))
    level, error = _levels(values, whole)
    weights = np.isfinite(values).sum(1) / max(1, len(columns))
    score = neighbourhood(table.candidates, level, weights)
    if np.isnan(error).all():
        error[:] = tolerance(table.metric, float(np.nanmedian(values)))
    drawn = np.isfinite(error) & np.isfinite(score)
    if drawn.any():  # what neighbours do not explain, beyond noise, is the candidate's own
        misfit = max(0.0, float(np.mean((level - score)[drawn] ** 2) - np.mean(error[drawn] ** 2)))
        score[drawn] += (level - score)[drawn] * misfit / (misfit + error[drawn] ** 2 + 1e-300)
    score[whole] -= _instability(values[whole])
    score[~equal] = -np.inf
    return int(np.argmax(score)), equal


def _levels(values: np.ndarray, whole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means relative to the whole candidates' in the same repeats, and their standard errors; nan for one repeat."""
    relative = values - values[whole].mean(0)
    level, error = np.zeros(len(values)), np.full(len(values), np.nan)
    for i, row in enumerate(relative):
        ran = row[np.isfinite(row)]
        if len(ran):
            level[i] = ran.mean()
        if len(ran) > 1:
            error[i] = ran.std(ddof=1) / math.sqrt(len(ran))
    return level, error


def neighbourhood(candidates: list[Candidate], level: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The levels smoothed along the logarithm of the rate, each setting by itself; -inf without weight."""
    score = np.full(len(candidates), -np.inf)
    for setting in dict.fromkeys(candidate.setting for candidate in candidates):
        rows = [i for i, candidate in enumerate(candidates) if candidate.setting == setting and weights[i]]
        if rows:
            score[rows] = smoothed(np.log([candidates[i].lr for i in rows]), level[rows], weights[rows])
    return score


def _instability(values: np.ndarray) -> np.ndarray:
    """What rates pay whose trials scatter more than usual."""
    if values.shape[1] < 2:
        return np.zeros(len(values))
    variance = (values - np.median(values, axis=0)).var(1, ddof=1)  # the median: a wild one does not spoil the others
    usual = float(np.median(variance))
    df = values.shape[1] - 1
    spread = np.sqrt((df * variance + 4 * usual) / (df + 4))
    return _SPREAD * np.maximum(0, spread - _USUAL * math.sqrt(usual))


def groups(table: Table, columns: np.ndarray) -> tuple[np.ndarray, ...]:
    if not table.spec.folds:
        return ()
    seeds, folds = np.array(table.repeats)[columns].T
    return tuple(group for group in (seeds, folds) if len(np.unique(group)) > 1)


def redrawn(table: Table, columns: np.ndarray) -> list[np.ndarray]:
    """Columns of bootstrap samples: seeds and folds are drawn again, with replacement."""
    if len(columns) < 2:
        return []
    rng = np.random.default_rng(0)
    seeds, folds = np.array(table.repeats)[columns].T
    at = {repeat: column for repeat, column in zip(zip(seeds, folds), columns)}
    draws = []
    for _ in range(_DRAWS):
        drawn = [at[s, f] for s in rng.choice(np.unique(seeds), len(np.unique(seeds)))
                 for f in rng.choice(np.unique(folds), len(np.unique(folds))) if (s, f) in at]
        if drawn:
            draws.append(np.array(drawn))
    return draws


def also_close(table: Table, columns: np.ndarray, equal: np.ndarray) -> np.ndarray:
    """Candidates that a search ran on fewer repeats, not enough to tell them from the best.

    One repeat has no scatter of its own: that of the others is taken.
    """
    found = np.zeros(len(equal), bool)
    whole = table.values[table.whole][:, columns]
    if table.whole.all() or len(whole) < 2 or len(columns) < 2:
        return found
    errors, freedom = paired_errors(whole, groups(table, columns))
    usual = float(np.median(errors[np.triu_indices(len(errors), 1)])) * math.sqrt(len(columns))
    bound = upper_quantile(1 - (1 - CONFIDENCE) / (len(equal) - 1), freedom)
    best = table.values[equal & table.whole].mean(0)  # nan where a repeat is not common
    for i in np.flatnonzero(~table.whole):
        ran = np.isfinite(table.values[i]) & np.isfinite(best)
        if ran.any():
            found[i] = (best - table.values[i])[ran].mean() <= bound * usual / math.sqrt(ran.sum())
    return found
