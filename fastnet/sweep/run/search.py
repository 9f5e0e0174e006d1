"""Which trials to run: all of them, those that may still be the best, successive halving, or a grid that finds itself."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from fastnet.sweep.choice.metrics import Metric, settled
from fastnet.sweep.choice.ranking import CONFIDENCE, equal_to_best
from fastnet.sweep.choice.table import Candidate
from fastnet.sweep.spec import Trial

_GROUP = 0.2  # part of the repeats, a group: after each one the candidates are compared
_PROMOTED = (0.5, 0.3, 0.2)  # part of the candidates that go on after the first group, the second, and the others
_RUNG = 0.3  # part of the epochs of the first group, after which the slowest are stopped
_SLOWEST = 0.2  # part of the candidates that may be stopped then
_EXTENSIONS = 8  # half decades that a grid may grow by
_LEAST = 1e-12  # where smaller rates diverge, too, it is not their fault
_REFINEMENTS = (10**0.25, 10**0.125)
_FINALISTS = 5
_OF_ADAM = range(-8, -3)  # half decades: from 1e-4 to 1e-2


def full(session: Any) -> None:
    """All trials to the end."""
    session.run(session.spec.trials(), session.spec.epochs)


def racing(session: Any) -> None:
    """All epochs, but only of rates that may still be the best. Seeds and folds run in five groups; see `_contenders`."""
    alive = [Candidate(setting, lr) for setting in session.spec.settings for lr in session.spec.lrs]
    groups = _groups(session.spec.repeats())
    for number, group in enumerate(groups):
        session.run(_trials(session, alive, group), session.spec.epochs)
        if number + 1 < len(groups):
            alive = _contenders(session, alive, groups[:number + 1], len(groups) - 1)


def _groups(repeats: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    size = math.ceil(_GROUP * len(repeats))
    return [repeats[first:first + size] for first in range(0, len(repeats), size)]


def halving(session: Any) -> None:
    """Successive halving, over epochs and over seeds.

    The seeds and folds run in five groups.

    1. In the first, all candidates run 30% of the epochs. What is in the worst fifth both by the metric and by the
       training loss is stopped. (Large rates are behind at first and ahead at the end, so that the metric alone would stop
       the best: the loss shows how fast they learn.) The rest run to the end, what looks best first.
    2. Of what did not diverge, the best half by the mean of all groups so far goes on to the second group, three tenths to
       the third, a fifth, at least two, to the others; fewer where others are worse beyond chance, see `_contenders`.

    Trials that go on do so from where they stopped: in the end they are, bit for bit, those of the full grid.
    """
    spec = session.spec
    groups = _groups(spec.repeats())
    everyone = alive = [Candidate(setting, lr) for setting in spec.settings for lr in spec.lrs]
    rung = math.ceil(_RUNG * spec.epochs)
    if 0 < rung < spec.epochs:
        session.run(_trials(session, alive, groups[0]), rung)
        alive = _not_slowest(session, alive, groups[0], rung)
        score = _levels(session, alive, groups[0], session.metric, rung)
        alive.sort(key=lambda candidate: -score[candidate])  # what looks best is finished first
    for number, group in enumerate(groups):
        session.run(_trials(session, alive, group), spec.epochs)
        if not number:
            count = len(everyone) - _diverged(session, everyone, group)
        if number + 1 < len(groups):
            promoted = max(2, round(_PROMOTED[min(number, len(_PROMOTED) - 1)] * count))
            alive = _contenders(session, alive, groups[:number + 1], len(groups) - 1)[:promoted]


def _diverged(session: Any, candidates: Iterable[Candidate], repeats: list[tuple[int, int]]) -> int:
    """How many of the candidates have a trial that diverged: they cost the full grid little, too."""
    records = session.journal.records
    return sum(any(records[trial].status == "diverged" for trial in _trials(session, [candidate], repeats))
               for candidate in candidates)


def _trials(session: Any, candidates: Iterable[Candidate], repeats: Iterable[tuple[int, int]]) -> list[Trial]:
    return [session.spec.trial(candidate.setting, candidate.lr, *repeat) for repeat in repeats for candidate in candidates]


def _not_slowest(session: Any, alive: list[Candidate], repeats: list[tuple[int, int]], rung: int) -> list[Candidate]:
    """Those that are not in the worst fifth by the metric, or not by the training loss if there is one.

    Where the metric is equal, as it often is early and on few samples, the loss decides there, too.
    """
    records = session.journal.records
    score = _levels(session, alive, repeats, session.metric, rung)
    if not all(records[trial].losses for trial in _trials(session, alive, repeats)):
        loss = dict.fromkeys(score, 0.0)
    else:
        loss = _levels(session, alive, repeats, Metric("loss", -1), rung)
    count = math.ceil((1 - _SLOWEST) * len(score))
    kept = set(sorted(score, key=lambda candidate: (-score[candidate], -loss[candidate]))[:count])
    kept |= set(sorted(score, key=lambda candidate: (-loss[candidate], -score[candidate]))[:count])
    return [candidate for candidate in alive if candidate in kept]


def _contenders(session: Any, alive: list[Candidate], groups: list[list[tuple[int, int]]],
                looks: int = 1) -> list[Candidate]:
    """Those that did not diverge and are not worse than another beyond chance, in pairs; the best mean first.

    A look that may be one of several has its part of the chance to err; a single seed cannot say what chance is.
    """
    repeats = [repeat for group in groups for repeat in group]
    score = _levels(session, alive, repeats, session.metric, session.spec.epochs)
    equal = set(score)
    if len({seed for seed, _ in repeats}) > 1 and score:
        equal = equal_to_best(session.result.table(repeats=repeats), 1 - (1 - CONFIDENCE) / looks)
    return sorted((candidate for candidate in score if candidate in equal), key=lambda candidate: -score[candidate])


def _levels(session: Any, alive: list[Candidate], repeats: list[tuple[int, int]], metric: Metric,
            epochs: int) -> dict[Candidate, float]:
    """The mean metric after so many epochs, even if a resumed sweep has more; without what diverged by then."""
    records = session.journal.records
    found = {}
    for candidate in alive:
        of = [records[trial] for trial in _trials(session, [candidate], repeats)]
        if all(record.status != "diverged" or record.epochs > epochs for record in of):
            found[candidate] = metric.sign * float(np.mean([settled(record, metric, epochs) for record in of]))
    return found


def find_rates(session: Any) -> None:
    """A grid that finds itself.

    1. A range test of each network says where to look; a grid of half decades covers that. (Adam's steps do not grow with
       the gradients, so that its rates begin at the usual ones.)
    2. On the first two fifths of the seeds and folds: while the best rate of a setting is at an edge that did not diverge,
       the grid grows there; then rates are put between it and its neighbours, twice, down to a factor of 1.33.
    3. What can't be told from the best then, five candidates at most, runs on all seeds and folds.
    """
    session.result.range_test = {name: session.range_test(name) for name in session.spec.names}
    low = min(test.low for test in session.result.range_test.values())
    high = max(test.high for test in session.result.range_test.values())
    exponents = range(math.floor(2 * math.log10(low)), math.ceil(2 * math.log10(high)) + 1)
    repeats = session.spec.repeats()
    first = repeats[:math.ceil(0.4 * len(repeats))]
    wanted = {Candidate(setting, lr) for setting in session.spec.settings
              for lr in _half_decades(exponents if setting.optimizer == "sgd" else _OF_ADAM)}
    _run_all(session, wanted, first)
    for _ in range(_EXTENSIONS):
        more = _beyond_edges(session, wanted, first)
        if not more:
            break
        wanted |= more
        _run_all(session, more, first)
    for ratio in _REFINEMENTS:
        more = _around_the_best(session, wanted, first, ratio)
        wanted |= more
        _run_all(session, more, first)
    if session.result.table().candidates:  # not all diverged
        _run_all(session, set(_contenders(session, sorted(wanted), [first])[:_FINALISTS]), repeats)


def _half_decades(exponents: Iterable[int]) -> list[float]:
    return [float(f"{10 ** (exponent / 2):.3g}") for exponent in exponents]


def _run_all(session: Any, candidates: set[Candidate], repeats: list[tuple[int, int]]) -> None:
    session.add_rates(candidate.lr for candidate in candidates)
    session.run(_trials(session, sorted(candidates), repeats), session.spec.epochs)


def _leaders(session: Any, wanted: set[Candidate], repeats: list[tuple[int, int]]) -> list[tuple[Candidate, list[float]]]:
    """The best of each setting that converged somewhere, and all rates of the setting that were run."""
    found = []
    for setting in session.spec.settings:
        of = sorted(candidate for candidate in wanted if candidate.setting == setting)
        score = _levels(session, of, repeats, session.metric, session.spec.epochs)
        if score:
            top = [candidate for candidate in score if score[candidate] == max(score.values())]
            found.append((top[len(top) // 2], [candidate.lr for candidate in of]))
    return found


def _beyond_edges(session: Any, wanted: set[Candidate], repeats: list[tuple[int, int]]) -> set[Candidate]:
    """The next half decade where the best is at an edge; below, where all diverged."""
    more: set[Candidate] = set()
    leaders = _leaders(session, wanted, repeats)
    for best, lrs in leaders:
        step = -1 if best.lr == lrs[0] else 1 if best.lr == lrs[-1] else 0
        if step:
            more.update(Candidate(best.setting, lr) for lr in _half_decades([round(2 * math.log10(best.lr)) + step]))
    for setting in {candidate.setting for candidate in wanted} - {best.setting for best, _ in leaders}:
        least = min(candidate.lr for candidate in wanted if candidate.setting == setting)
        if least > _LEAST:
            more.update(Candidate(setting, lr) for lr in _half_decades([round(2 * math.log10(least)) - k for k in (1, 2)]))
    return more


def _around_the_best(session: Any, wanted: set[Candidate], repeats: list[tuple[int, int]], ratio: float) -> set[Candidate]:
    around = {Candidate(best.setting, float(f"{lr:.3g}"))
              for best, _ in _leaders(session, wanted, repeats) for lr in (best.lr / ratio, best.lr * ratio)}
    return around - wanted


SEARCHES: dict[str, Callable[[Any], None]] = {"grid": full, "halving": halving, "racing": racing}
