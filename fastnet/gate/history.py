"""Many revisions against one baseline: the curve of each benchmark, and the search for the commit of a step.

All revisions take part in every round, so that they share a baseline and the state of the machine. Several consecutive
slowdowns below the limit, which no comparison of two neighbours detects, show against the oldest revision. All judgements,
of each point against the previous one and of the last against the first, share the error of the run.
"""
from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fastnet.gate import GateError, arguments, repository
from fastnet.gate.compare import Batch, Clock, measure, times_of
from fastnet.gate.environment import Recipe
from fastnet.gate.judge import EXIT_CODE, INCONCLUSIVE, OK, REGRESSED, Plan, Row, judge
from fastnet.gate.limits import Limits, find_limits, read_limits
from fastnet.gate.pairing import warm_up
from fastnet.gate.prepare import Prepared, prepare
from fastnet.gate.render import SCHEMA, estimate, interval
from fastnet.gate.runs import WARM_UP_SECONDS, Run, Settings, run
from fastnet.gate.statistics import Estimate

Log = Callable[[str], None]


@dataclass(frozen=True)
class Point:
    """One revision on the curve of one benchmark: its ratio to the oldest revision."""

    side: str
    commit: str
    estimate: Estimate


@dataclass(frozen=True)
class Curve:
    """One benchmark over the range; `steps` are the points that are slower than the one before, confirmed."""

    name: str
    limit: float
    points: list[Point]
    steps: list[int]
    verdict: str
    note: str = ""


@dataclass(frozen=True)
class Found:
    """The first commit at which a benchmark is slower than before its step; None if the noise hid it."""

    benchmark: str
    commit: str | None
    note: str


@dataclass(frozen=True)
class Walk:
    """Everything that stays the same while revisions come and go."""

    repo: Path
    start: str
    path: str | None
    recipe: Recipe
    settings: Settings
    plan: Plan
    seed: int | None
    limits_file: Path | None
    log: Log

    def limits(self, prepared: Prepared) -> Limits:
        return read_limits(self.limits_file or find_limits(prepared.sides["head"].project, prepared.found.folders))

    def curves(self, old: str, middle: Sequence[str], new: str) -> list[Curve]:
        """Measure `old` (twice, as base and same), the revisions between, and `new`, whose benchmarks all of them get."""
        names = {f"r{number:03d}": commit for number, commit in enumerate(middle, start=1)}
        revisions: dict[str, str | None] = {"base": old, "same": old, **names, "head": new}
        with prepare(self.repo, revisions, self.start, self.path, self.log, self.recipe, self.settings,
                     may_fail=list(names)) as prepared:
            return _measured(self, prepared, [name for name in ("base", *names, "head") if name in prepared.sides])

    def bisect(self, curve: Curve, step: int) -> Found:
        """Search between two points of a curve by the gate's own rule: each commit on the way is judged like a head."""
        before, after = curve.points[step - 1].commit, curve.points[step].commit
        between = repository.commits_between(self.repo, before, after)
        exact = replace(self, settings=replace(self.settings, only=curve.name.rpartition("::")[2].partition("[")[0]))
        low, high = -1, len(between) - 1  # between[high] is slower than `before`, between[low] is not
        while high - low > 1:
            middle = (low + high) // 2
            self.log(f"bisecting {curve.name}: {high - low} commits left")
            found = [one for one in exact.curves(before, [between[middle]], after) if one.name == curve.name]
            verdicts = [_verdict_at(one, between[middle]) for one in found]
            if not verdicts or verdicts[0] == INCONCLUSIVE:
                return Found(curve.name, None, f"between {before[:10]} and {between[high][:10]}: "
                             f"{between[middle][:10]} could not be judged")
            low, high = (low, middle) if verdicts[0] == REGRESSED else (middle, high)
        return Found(curve.name, between[high], repository.subject(self.repo, between[high]))


def _verdict_at(curve: Curve, commit: str) -> str:
    """Of a curve of three points: whether the step is at the middle one, or after it."""
    place = next((number for number, point in enumerate(curve.points[:-1]) if number and point.commit == commit), None)
    if place is None or (curve.verdict == INCONCLUSIVE):
        return INCONCLUSIVE
    return REGRESSED if place in curve.steps else OK


def _measured(walk: Walk, prepared: Prepared, order: Sequence[str]) -> list[Curve]:
    sides, limits, log, settings = prepared.sides, walk.limits(prepared), walk.log, prepared.settings
    rng = np.random.default_rng(walk.seed)
    log(f"warming up {len(sides)} sides: compiling, filling caches")
    head = run(sides["head"], prepared.where, replace(settings, seconds=WARM_UP_SECONDS), 0)
    warm: dict[str, Run] = {"head": head}
    for group in (("base", "same"), *((name,) for name in order if name not in ("base", "head"))):
        found, notes = warm_up([sides[name] for name in group], run, prepared.where, prepared.found, settings,
                               prepared.own[group[0]], head, sides["head"], ())
        warm.update(zip(group, found))
        for note in notes:
            log(note)
    names = sorted(head.times.keys() & warm["base"].times.keys())
    if not names:
        raise GateError("The oldest and the newest revision have no benchmark in common that runs on both.")
    judgements = len(names) * len(order)  # of a row: each step, and the newest revision against the oldest
    error = walk.plan.row_error(judgements, len(settings.statistics))
    clock = Clock(walk.plan, judgements, len(settings.statistics))
    batch: Batch = {name: [] for name in sides}
    open_, curves = list(names), {}
    while open_:
        settings = measure(prepared, open_, settings, rng, batch, may_lack=True)
        clock.rounds += 1
        for name in open_[:]:
            curves[name], decided = _curve(name, batch, prepared, settings, order, limits.of(name), error)
            if decided:
                open_.remove(name)
        log(f"round {clock.rounds}: {len(names) - len(open_)} of {len(names)} decided, {clock.a_round:.1f} s per round")
        if not clock.left() or clock.rounds >= 3 * walk.plan.quick(judgements, len(settings.statistics)):
            break
    return [curves[name] for name in names]


def _present(batch: Batch, name: str, order: Sequence[str]) -> list[str]:
    """The sides, oldest first, that measured a benchmark in every round in which base did; none if its control did not."""
    rounds = [name in one.times for one in batch["base"]]
    if not any(rounds) or [name in one.times for one in batch["same"]] != rounds:
        return []
    return [side for side in order if [name in one.times for one in batch[side]] == rounds]


def _judged(times: Any, before: str, after: str, limit: float, error: float, name: str) -> Row:
    control = "same" if before == "base" else before
    chosen = {statistic: {"base": sides[before], "same": sides[control], "head": sides[after]}
              for statistic, sides in times.items()}
    return judge(name, chosen, limit, error)


def _curve(name: str, batch: Batch, prepared: Prepared, settings: Settings, order: Sequence[str], limit: float,
           error: float) -> tuple[Curve, bool]:
    """Return the curve of a benchmark so far, and whether more rounds would be useless."""
    kept = _present(batch, name, order)
    if not kept:
        return Curve(name, limit, [], [], INCONCLUSIVE, "was not measured in every round"), True
    times = times_of(batch, name, settings.statistics)
    rows = [_judged(times, "base", side, limit, error, name) for side in kept]
    points = [Point(side, prepared.sides[side].commit, row.change) for side, row in zip(kept, rows)]
    if kept[-1:] != ["head"]:
        return Curve(name, limit, points, [], INCONCLUSIVE, "the newest revision was not measured in every round"), True
    verdicts = [_judged(times, before, after, limit, error, name).verdict for before, after in itertools.pairwise(kept)]
    steps = [number for number, verdict in enumerate(verdicts, start=1) if verdict == REGRESSED]
    last = rows[-1]
    verdict = last.verdict if last.verdict in (REGRESSED, INCONCLUSIVE) else OK
    note = "several slowdowns in a row, each below the limit" if verdict == REGRESSED and not steps else last.note
    return Curve(name, limit, points, steps, verdict, note), INCONCLUSIVE not in (verdict, *verdicts)


def choose(commits: Sequence[str], points: int) -> list[str]:
    """So many of the commits, evenly spread, the last one among them."""
    places = np.linspace(-1, len(commits) - 1, min(points, len(commits)) + 1).round().astype(int)[1:]
    return [commits[place] for place in places]


# --- the command ----------------------------------------------------------------------------------------------------


def walk(args: argparse.Namespace, log: Log) -> tuple[str, dict[str, Any], int]:
    """Walk the range of ``--range``: Markdown, what goes into the JSON file, and the exit code."""
    old, dots, new = args.span.partition("..")
    if not old or not dots or new.startswith("."):
        raise GateError(f"--range is {args.span!r}; expected two revisions, such as v1.0..main.")
    if args.points < 1:
        raise GateError(f"--points is {args.points}; expected 1 or more.")
    repo = repository.find_repository(args.repo)
    first, last = repository.find_commit(repo, old), repository.find_commit(repo, new or "HEAD")
    commits = repository.commits_between(repo, first, last)
    plan = Walk(repo, arguments.start_in(args.repo, repo), args.path, arguments.recipe(args), arguments.settings(args),
                arguments.plan(args), args.seed, args.limits, log)
    curves = plan.curves(first, choose(commits, args.points)[:-1], last)
    found = [plan.bisect(curve, step) for curve in curves for step in curve.steps] if args.bisect else []
    verdicts = {curve.verdict for curve in curves}
    verdict = next((one for one in (REGRESSED, INCONCLUSIVE) if one in verdicts), OK)
    if args.plot:
        from fastnet.gate.plot import draw

        draw(curves, args.plot)
    code = EXIT_CODE[verdict]
    table = {"schema": SCHEMA, "verdict": verdict, "exit_code": code, "range": args.span,
             "curves": [_table(curve) for curve in curves],
             "found": [{"benchmark": one.benchmark, "commit": one.commit, "note": one.note} for one in found]}
    return to_markdown(args.span, verdict, curves, found, lambda commit: repository.subject(repo, commit)), table, code


def _table(curve: Curve) -> dict[str, Any]:
    points = [{"side": point.side, "commit": point.commit, "change": estimate(point.estimate)} for point in curve.points]
    return {"name": curve.name, "limit": curve.limit, "verdict": curve.verdict, "note": curve.note, "steps": curve.steps,
            "points": points}


def to_markdown(span: str, verdict: str, curves: Sequence[Curve], found: Sequence[Found],
                subject: Callable[[str], str]) -> str:
    """What moved, with each point; what did not, in a line each."""
    parts = [f"## Benchmarks over {span}: {verdict}"]
    for one in found:
        where = f"`{one.commit[:10]}` {one.note}" if one.commit else f"not found, {one.note}"
        parts.append(f"`{one.benchmark}` became slower at {where}")
    for curve in curves:
        if curve.verdict == OK and not curve.steps:
            continue
        lines = [f"**{curve.verdict}** `{curve.name}`{f': {curve.note}' if curve.note else ''}", "",
                 "| since the first | interval | | revision |", "| ---: | :---: | --- | --- |"]
        for number, point in enumerate(curve.points):
            lines.append(f"| {100 * (point.estimate.ratio - 1):+.1f} % | {interval(point.estimate)} | "
                         f"{'**step**' if number in curve.steps else ''} | `{point.commit[:10]}` {subject(point.commit)} |")
        parts.append("\n".join(lines))
    still = [curve for curve in curves if curve.verdict == OK and not curve.steps]
    if still:
        lines = [f"- `{curve.name}` " + " ".join(f"{100 * (point.estimate.ratio - 1):+.1f}" for point in curve.points[1:])
                 + " %" for curve in still]
        parts.append(f"Within the limits, each revision against the first:\n\n{chr(10).join(lines)}")
    return "\n\n".join(parts) + "\n"
