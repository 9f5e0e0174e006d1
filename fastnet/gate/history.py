"""Many revisions against one baseline: the curve of each benchmark, and the search for the commit of a step.

All revisions take part in every round, so they share a baseline and a moment of the machine. What a comparison of two
neighbours cannot see, several slowdowns in a row that are each below the limit, shows against the oldest revision.
"""
from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fastnet.gate import GateError, command, repository
from fastnet.gate.compare import SECOND_BATCH, Batch, Prepared, measure, prepare
from fastnet.gate.environment import Recipe
from fastnet.gate.judge import INCONCLUSIVE, OK, REGRESSED, Arms, judge, slower
from fastnet.gate.limits import Limits, read_limits
from fastnet.gate.pairing import WARM_UP_SECONDS, warm_up
from fastnet.gate.runs import Run, Settings, run
from fastnet.gate.statistics import Estimate, paired_ratio

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
    project: str
    path: str
    recipe: Recipe
    settings: Settings
    rounds: int
    seed: int | None
    limits_file: Path | None
    log: Log

    def limits(self, prepared: Prepared) -> Limits:
        return read_limits(self.limits_file or prepared.sides["head"].project / self.path / "limits.toml")

    def curves(self, old: str, middle: Sequence[str], new: str) -> list[Curve]:
        """Measure `old` (twice, as base and same), the revisions between, and `new`, whose benchmarks all of them get."""
        names = {f"r{number:03d}": commit for number, commit in enumerate(middle, start=1)}
        revisions: dict[str, str | None] = {"base": old, "same": old, **names, "head": new}
        with prepare(self.repo, revisions, self.project, self.path, self.log, self.recipe, self.settings,
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
    sides, limits, log = prepared.sides, walk.limits(prepared), walk.log
    rng = np.random.default_rng(walk.seed)
    log(f"warming up {len(sides)} sides: compiling, filling caches")
    head = run(sides["head"], prepared.repository, walk.path, replace(walk.settings, seconds=WARM_UP_SECONDS), 0)
    warm: dict[str, Run] = {"head": head}
    for group in (("base", "same"), *((name,) for name in order if name not in ("base", "head"))):
        found, notes = warm_up([sides[name] for name in group], run, prepared.repository, walk.path, walk.settings,
                               prepared.own[group[0]], head, sides["head"], ())
        warm.update(zip(group, found))
        for note in notes:
            log(note)
    names = sorted(head.times.keys() & warm["base"].times.keys())
    if not names:
        raise GateError("The oldest and the newest revision have no benchmark in common that runs on both.")
    batches = [measure(prepared, names, walk.rounds, walk.settings, rng, log)]
    suspects = [name for name in names if _suspicious(batches[0], name, order, limits.of(name))]
    if suspects:
        log(f"{len(suspects)} moved: a second batch for {'it' if len(suspects) == 1 else 'them'}")
        batches.append(measure(prepared, suspects, SECOND_BATCH * walk.rounds, walk.settings, rng, log))
    return [_curve(name, [batch for batch in batches if _present(batch, name, order)], prepared, order, limits.of(name))
            for name in names]


def _present(batch: Batch, name: str, order: Sequence[str]) -> list[str]:
    """The sides, oldest first, that measured a benchmark in every round of a batch; none if base or same did not."""
    kept = [side for side in ("same", *order) if all(name in run.times for run in batch[side])]
    return kept[1:] if kept[:2] == ["same", "base"] else []


def _ratio(batch: Batch, name: str, before: str, after: str) -> Estimate:
    return paired_ratio([run.times[name] for run in batch[before]], [run.times[name] for run in batch[after]])


def _suspicious(batch: Batch, name: str, order: Sequence[str], limit: float) -> bool:
    kept = _present(batch, name, order)
    pairs = [*itertools.pairwise(kept), *(("base", side) for side in kept[1:]), ("base", "same")] if kept else []
    return any(_ratio(batch, name, *pair).ratio > 1 + limit for pair in pairs)


def _curve(name: str, batches: Sequence[Batch], prepared: Prepared, order: Sequence[str], limit: float) -> Curve:
    if not batches:
        return Curve(name, limit, [], [], INCONCLUSIVE, "was not measured in every round")
    kept = [side for side in order if all(side in _present(batch, name, order) for batch in batches)]
    points = [Point(side, prepared.sides[side].commit, _ratio(batches[-1], name, "base", side)) for side in kept]
    if kept[-1:] != ["head"]:
        return Curve(name, limit, points, [], INCONCLUSIVE, "the newest revision was not measured in every round")
    if len(batches) == 1:
        return Curve(name, limit, points, [], OK)
    first, second = batches
    steps = [number for number, (before, after) in enumerate(itertools.pairwise(kept), start=1)
             if slower(_ratio(first, name, before, after), _ratio(second, name, before, after), limit)]
    arms = [Arms(_ratio(batch, name, "base", "head"), _ratio(batch, name, "base", "same")) for batch in batches]
    row = judge(name, 1.0, 1.0, limit, arms)
    note = "several slowdowns in a row, each below the limit" if row.verdict == REGRESSED and not steps else row.note
    return Curve(name, limit, points, steps, row.verdict, note)


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
    project, path = repository.find_project(args.repo, repo, args.path)
    first, last = repository.find_commit(repo, old), repository.find_commit(repo, new or "HEAD")
    commits = repository.commits_between(repo, first, last)
    plan = Walk(repo, project, path, command.recipe(args), command.settings(args), args.rounds, args.seed, args.limits, log)
    curves = plan.curves(first, choose(commits, args.points)[:-1], last)
    found = [plan.bisect(curve, step) for curve in curves for step in curve.steps] if args.bisect else []
    verdicts = {curve.verdict for curve in curves}
    verdict = next((one for one in (INCONCLUSIVE, REGRESSED) if one in verdicts), OK)
    if args.plot:
        from fastnet.gate.plot import draw

        draw(curves, args.plot)
    code = {OK: 0, REGRESSED: 1, INCONCLUSIVE: 2}[verdict]
    table = {"verdict": verdict, "exit_code": code, "range": args.span, "curves": [asdict(curve) for curve in curves],
             "found": [asdict(one) for one in found]}
    return to_markdown(args.span, verdict, curves, found, lambda commit: repository.subject(repo, commit)), table, code


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
                 "| since the first | 95 % interval | | revision |", "| ---: | :---: | --- | --- |"]
        for number, point in enumerate(curve.points):
            low, high = (f"{100 * (end - 1):+.1f} %" for end in (point.estimate.low, point.estimate.high))
            lines.append(f"| {100 * (point.estimate.ratio - 1):+.1f} % | {low} to {high} | "
                         f"{'**step**' if number in curve.steps else ''} | `{point.commit[:10]}` {subject(point.commit)} |")
        parts.append("\n".join(lines))
    still = [curve for curve in curves if curve.verdict == OK and not curve.steps]
    if still:
        lines = [f"- `{curve.name}` " + " ".join(f"{100 * (point.estimate.ratio - 1):+.1f}" for point in curve.points[1:])
                 + " %" for curve in still]
        parts.append(f"Within the limits, each revision against the first:\n\n{chr(10).join(lines)}")
    return "\n\n".join(parts) + "\n"
