"""Ratios of paired timings: a confidence sequence, which is valid after any number of looks at the data.

**Model.** In every round each side runs once, in an order drawn anew by a fair shuffle. The time of a side is the time of
its code multiplied by the noise of its moment. The shuffle does not depend on the noise, so given everything before a
round, head and base are equally likely to get the worse moment: the logarithm of their ratio lies above the true one with
probability 1/2 at most. The model needs no distribution, no independence between rounds and no common variance.

**Test.** To refute the hypothesis "the true ratio head / base is at most m", bet on each round that its ratio lies above m.
With the stake λ, the capital is multiplied by 1 + λ if it does and by 1 - λ otherwise. Under the hypothesis the capital,
also its mean over several λ, is a non-negative supermartingale that starts at 1. By Ville's inequality the probability that
it ever reaches 1/α is at most α, with any rule for stopping (J. Ville, *Étude critique de la notion de collectif*, 1939; S.
R. Howard, A. Ramdas, J. McAuliffe and J. Sekhon, *Time-uniform, nonparametric, nonasymptotic confidence sequences*, Annals
of Statistics 49, 2021; A. Ramdas, P. Grünwald, V. Vovk and G. Shafer, *Game-theoretic statistics and safe anytime-valid
inference*, Statistical Science 38, 2023). All m that are not refuted form the interval; its ends are order statistics of
the ratios.

**Worktrees that drift.** The shuffle balances the machine's noise, but not an effect that lasts for several rounds in one
checkout. So the interval is never narrower than a normal one whose standard error allows for serial dependence, estimated
from the rounds (`standard_error`). This part is a heuristic, and can only widen the interval.

**Many rows.** Each of the K intervals of a run gets α / K on either side. By Bonferroni's inequality all of them hold at the
same time, at every look, with probability 1 - 2α.
"""
from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
_STAKES = (0.98, 0.8, 0.5, 0.25)  # λ: the first decides rows with little noise quickly, the others those with more
_DRIFT = 1.3
_WEIGHTS = (0.55, 0.2, 0.15, 0.1)


class Estimate(NamedTuple):
    """The ratio b / a of times: the median over rounds, and its interval."""

    ratio: float
    low: float
    high: float
    rounds: int


@lru_cache(maxsize=4096)
def capital(wins: int, losses: int) -> float:
    """Compute the capital after this many rounds above and below the hypothesis, from a start of 1."""
    return sum(weight * (1 + stake) ** wins * (1 - stake) ** losses for weight, stake in zip(_WEIGHTS, _STAKES))


@lru_cache(maxsize=4096)
def wins_needed(rounds: int, error: float) -> int | None:
    """Return how many of the rounds must lie above a ratio to refute it at this error; None if even all are too few."""
    return next((wins for wins in range(rounds + 1) if capital(wins, rounds - wins) >= 1 / error), None)


def rounds_needed(error: float) -> int:
    """Return the number of rounds until a decision if all rounds agree."""
    rounds = 1
    while wins_needed(rounds, error) is None:
        rounds += 1
    return rounds


def confidence_sequence(a: npt.ArrayLike, b: npt.ArrayLike, error: float) -> Estimate:
    """Estimate b / a from timings of both in the same rounds, valid at every look.

    Parameters
    ----------
    a, b : array_like, shape (rounds,)
        Positive times; element i of both comes from round i.
    error : float
        The largest probability that the true ratio is ever below the interval, and that it is ever above it.

    Returns
    -------
    Estimate
        The median ratio with its interval, which is (0, inf) if the rounds are too few.
    """
    logs = log_ratios(a, b)
    found, reach = _between(logs, wins_needed(len(logs), error)), math.exp(drift_reach(error) * float(standard_error(logs)))
    return found._replace(low=min(found.low, found.ratio / reach), high=max(found.high, found.ratio * reach))


def drift_reach(error: float) -> float:
    """Return the least reach of an interval in standard errors; `bench.studies.verdicts` shows how the factor was chosen."""
    return _DRIFT * NormalDist().inv_cdf(1 - min(error, 0.5))


def standard_error(logs: np.ndarray) -> np.ndarray:
    """Estimate the standard error of the median of a serially dependent series along its first axis.

    The lag-1 autocorrelation gets the correction of its bias (Marriott and Pope, Biometrika 41, 1954) and half a standard
    error on top, since a short series of a slow process looks independent.
    """
    rounds = len(logs)
    deviation = logs - np.median(logs, axis=0)
    spread = 1.4826 * np.median(np.abs(deviation), axis=0)
    clipped = np.clip(deviation, -3 * spread, 3 * spread)
    total = (clipped**2).sum(axis=0)
    correlation = (clipped[1:] * clipped[:-1]).sum(axis=0) / np.where(total > 0, total, 1)
    correlation = np.clip(correlation + (1 + 4 * correlation) / rounds + 0.5 / math.sqrt(rounds), 0, 0.95)
    return 1.25 * spread * np.sqrt((1 + correlation) / (1 - correlation) / rounds)


def paired_ratio(a: npt.ArrayLike, b: npt.ArrayLike, confidence: float = CONFIDENCE) -> Estimate:
    """Estimate b / a from timings of both in a number of rounds that was fixed in advance.

    The interval is that of the sign test: exact for every distribution, with order statistics as its ends.

    Parameters
    ----------
    a, b : array_like, shape (rounds,)
        Positive times; element i of both comes from round i.
    confidence : float
        The least probability that the interval covers the true ratio.
    """
    logs = log_ratios(a, b)
    rounds, tail, wins = len(logs), 0.0, None
    for needed in range(rounds, -1, -1):  # P(needed or more of fair coins)
        tail += math.comb(rounds, needed) / 2**rounds
        if tail > (1 - confidence) / 2:
            break
        wins = needed
    return _between(logs, wins)


def _between(logs: np.ndarray, wins: int | None) -> Estimate:
    """Return the interval of ratios with fewer than `wins` rounds above them, and fewer than `wins` below."""
    middle, rounds = float(np.exp(np.median(logs))), len(logs)
    if wins is None:
        return Estimate(middle, 0.0, float("inf"), rounds)
    ordered = np.exp(np.sort(logs))
    return Estimate(middle, float(ordered[rounds - wins]), float(ordered[wins - 1]), rounds)


def log_ratios(a: npt.ArrayLike, b: npt.ArrayLike) -> np.ndarray:
    """Compute log(b / a) for each round."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 1 or a.size == 0:
        raise ValueError(f"Paired timings need one number per round on both sides, got shapes {a.shape} and {b.shape}.")
    if not (np.isfinite(a).all() and np.isfinite(b).all() and (a > 0).all() and (b > 0).all()):
        raise ValueError("Timings must be finite and above 0.")
    return np.log(b / a)
