"""Which trials to run: all of them, or successive halving, or a grid that finds itself."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from fastnet.sweep.candidates import Candidate
from fastnet.sweep.metrics import METRICS, check_metric, settled
from fastnet.sweep.ranking import equal_to_best, neighbourhood
from fastnet.sweep.spec import Trial

_LOT = 0.2  # part of the repeats that candidates run before they are compared again
_PROMOTED = 0.4  # part of the candidates that go on after the first lot
_FINAL = 0.2  # part of the candidates that go on after the second lot, and to the end
_RUNG = 0.3  # part of the epochs of the first lot after which the slowest are stopped
_SLOWEST = 0.2  # part of the candidates that may be stopped then
_EXTENSIONS = 8  # half decades that a grid may grow by
_REFINEMENTS = (10**0.25, 10**0.125)
_FINALISTS = 5
_OF_ADAM = range(-8, -3)  # half decades: from 1e-4 to 1e-2


def full(session: Any) -> None:
    """All trials to the end."""
    session.run(session.spec.trials(), session.spec.epochs)


def halving(session: Any) -> None:
    """Successive halving, over epochs and over seeds.

    The seeds and folds are run in five lots.

    1. In the first, all candidates run 30% of the epochs. What is in the worst fifth both by the metric and by the
       training loss is stopped. (Large rates are behind at first and ahead at the end, so that the metric alone would stop
       the best: the loss shows how fast they learn.) The rest run to the end, what looks best first.
    2. The best two fifths of what did not diverge go on to the second lot, and a fifth, two at least, to the others; less
       where others are worse beyond chance, in pairs.

    Trials that go on do so from where they stopped: in the end they are, bit for bit, those of the full grid.
    """
    spec = session.spec
    repeats = spec.repeats()
    size = math.ceil(_LOT * len(repeats))
    lots = [repeats[first:first + size] for first in range(0, len(repeats), size)]
    everyone = alive = [Candidate(setting, lr) for setting in spec.settings for lr in spec.lrs]
    rung = math.ceil(_RUNG * spec.epochs)
    if 0 < rung < spec.epochs:
        session.run(_trials(session, alive, lots[0]), rung)
        alive = _not_slowest(session, alive, lots[0], rung)
        score = _levels(session, alive, lots[0], _metric(session), rung)
        alive.sort(key=lambda candidate: -score[candidate])  # what looks best is finished first
    for number, lot in enumerate(lots):
        done = repeats[:(number + 1) * size]
        session.run(_trials(session, alive, lot), spec.epochs)
        if not number:
            count = len(everyone) - _diverged(session, everyone, lot)
        if number + 1 < len(lots):
            alive = _best(session, alive, done, max(2, math.ceil((_FINAL if number else _PROMOTED) * count)))


def _diverged(session: Any, candidates: Iterable[Candidate], repeats: list[tuple[int, int]]) -> int:
    """How many of the candidates have a trial that diverged: they cost the full grid little, too."""
    records = session.journal.records
    return sum(any(records[trial].status == "diverged" for trial in _trials(session, [candidate], repeats))
               for candidate in candidates)


def _trials(session: Any, candidates: Iterable[Candidate], repeats: Iterable[tuple[int, int]]) -> list[Trial]:
    return [session.spec.trial(candidate.setting, candidate.lr, *repeat) for repeat in repeats for candidate in candidates]


def _not_slowest(session: Any, alive: list[Candidate], repeats: list[tuple[int, int]], rung: int) -> list[Candidate]:
    """Those that are not in the worst fifth by the metric, smoothed along the rate, or not by the training loss."""
    kept: set[Candidate] = set()
    for judge in dict.fromkeys((_metric(session), "loss")):
        score = _levels(session, alive, repeats, judge, rung)
        kept.update(sorted(score, key=lambda candidate: -score[candidate])[:math.ceil((1 - _SLOWEST) * len(score))])
    return [candidate for candidate in alive if candidate in kept]


def _best(session: Any, alive: list[Candidate], repeats: list[tuple[int, int]], count: int) -> list[Candidate]:
    """So many of the best, smoothed along the rate, and none that is worse beyond chance."""
    equal = equal_to_best(session.result.table(repeats=repeats))
    score = _levels(session, alive, repeats, _metric(session), session.spec.epochs)
    return sorted((candidate for candidate in score if candidate in equal), key=lambda candidate: -score[candidate])[:count]


def _metric(session: Any) -> str:
    return check_metric("lr_sweep", session.result.metric, session.result.validated)


def _levels(session: Any, alive: list[Candidate], repeats: list[tuple[int, int]], metric: str,
            epochs: int) -> dict[Candidate, float]:
    """The smoothed metric after so many epochs, whatever a resumed sweep knows beyond; what had diverged has none."""
    records = session.journal.records
    found = {}
    for candidate in alive:
        of = [records[session.spec.trial(candidate.setting, candidate.lr, *repeat)] for repeat in repeats]
        if all(record.status != "diverged" or record.epochs > epochs for record in of):
            values = [settled(record, metric, epochs) for record in of]
            found[candidate] = METRICS[metric].sign * float(np.mean(values))
    candidates = list(found)
    level = neighbourhood(candidates, np.array(list(found.values())), np.ones(len(found)))
    return dict(zip(candidates, map(float, level)))


def find_rates(session: Any) -> None:
    """A grid that finds itself.

    1. A range test of each network says where to look; a grid of half decades covers that. (Adam's steps do not grow with
       the gradients, so that its rates begin at the usual ones.)
    2. On the first two fifths of the seeds and folds: while the best rate of a setting is at an edge that did not diverge,
       the grid grows there; then rates are put between it and its neighbours, twice, down to a factor of 1.33.
    3. What can't be told apart from the best then, five candidates at most, runs on all seeds and folds; and if that is
       not enough to tell, on as many seeds again.
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
    if not session.result.table().candidates:
        return  # all diverged
    candidates = _best(session, sorted(wanted), first, _FINALISTS)
    _run_all(session, set(candidates), session.spec.repeats())
    suggestion = session.result.suggestion()
    if suggestion is not None and not suggestion.enough:
        session.add_seeds(len(session.spec.seeds))
        _run_all(session, set(suggestion.equals) & set(candidates) or set(candidates), session.spec.repeats())


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
        score = _levels(session, of, repeats, _metric(session), session.spec.epochs)
        if score:
            found.append((max(score, key=lambda candidate: score[candidate]), [candidate.lr for candidate in of]))
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
        more.update(Candidate(setting, lr) for lr in _half_decades([round(2 * math.log10(least)) - k for k in (1, 2)]))
    return more


def _around_the_best(session: Any, wanted: set[Candidate], repeats: list[tuple[int, int]], ratio: float) -> set[Candidate]:
    around = {Candidate(best.setting, float(f"{lr:.3g}"))
              for best, _ in _leaders(session, wanted, repeats) for lr in (best.lr / ratio, best.lr * ratio)}
    return around - wanted


SEARCHES: dict[str, Callable[[Any], None]] = {"grid": full, "halving": halving}
