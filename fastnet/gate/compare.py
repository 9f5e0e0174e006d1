"""The comparison of two revisions, reliable on a shared, noisy machine.

In every round, new processes of both sides and of a control take turns, in random order; the gate judges the ratios within
rounds. Rounds continue for the undecided rows, until all are decided or the budget is spent.
"""
from __future__ import annotations

import math
import platform
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

import numpy as np

from fastnet.gate import GateError, addresses
from fastnet.gate.declared import project_name
from fastnet.gate.environment import Side
from fastnet.gate.judge import INCONCLUSIVE, CountRow, Plan, Row, judge, judge_count, judge_metric, rounds_left
from fastnet.gate.limits import Limits
from fastnet.gate.pairing import Pairing, Sources, pair, some, warm_up
from fastnet.gate.prepare import SIDES, Prepared
from fastnet.gate.render import Result
from fastnet.gate.runs import MIN_SAMPLES, WARM_UP_SECONDS, Run, Settings, cores, run, run_round

PLAN = Plan()
_PATIENCE = 3  # times the rounds that a quiet machine needs; after these the gate may give up a row
_HOPELESS = 2.0  # times the rounds that the budget still allows; the gate gives up a row that needs more
Log = Callable[[str], None]
Batch = dict[str, list[Run]]  # for each side, a run per round


@dataclass
class Clock:
    """The time for measuring."""

    plan: Plan
    rows: int
    statistics: int
    start: float = field(default_factory=time.monotonic)
    rounds: int = 0

    @property
    def a_round(self) -> float:
        """The mean time of the rounds so far, in seconds."""
        return (time.monotonic() - self.start) / max(1, self.rounds)

    def minutes(self, a_round: float) -> float:
        """Return the budget in minutes, if a round takes `a_round` seconds."""
        quick = self.plan.quick(self.rows, self.statistics) * a_round / 60
        return max(10.0, 2 * quick) if self.plan.budget is None else self.plan.budget

    def left(self) -> int:
        """Return the number of rounds that the budget still allows."""
        seconds = 60 * self.minutes(self.a_round) - (time.monotonic() - self.start)
        fit = math.ceil(seconds / max(self.a_round, 1e-9)) if seconds > 0 else 0
        return max(0, min(self.plan.rounds - self.rounds, fit))


def measure(prepared: Prepared, names: Sequence[str], settings: Settings, rng: np.random.Generator,
            batch: Batch, may_lack: bool = False) -> Settings:
    """Measure one round, with a new process of each side in random order, and return the settings for the next round.

    If benchmarks are missing from a round in turns, and no side `may_lack` any, the round is repeated without turns.
    """
    order = [list(prepared.sides)[place] for place in rng.permutation(len(prepared.sides))]
    number = int(rng.integers(1, 2**32))
    found = run_round([prepared.sides[name] for name in order], prepared.where, settings, number, names)
    if settings.turns and not may_lack and any(name not in one.times for one in found.values() for name in names):
        settings = replace(settings, turns=False)  # perhaps two cannot run at the same time, for instance on the same port
        found = run_round([prepared.sides[name] for name in order], prepared.where, settings, number, names)
    for name in prepared.sides:
        batch[name].append(found[name])
    return settings


def compare(prepared: Prepared, limits: Limits, *, plan: Plan = PLAN, seed: int | None = None, log: Log = lambda text: None,
            metrics: Sequence[str] = (), allow_removed: bool = False) -> Result:
    """Warm up, measure rounds until all rows are decided or the budget is spent, and judge the rows."""
    seed = int(np.random.default_rng().integers(2**32)) if seed is None else seed
    settings = prepared.settings
    warm, pairing, settings = _warm_up(prepared, settings, metrics, log)
    expected = a_round(prepared.own["base"], warm["same"], pairing.compared, settings)
    rows, took, given_up = _rounds(prepared, pairing, limits, plan, settings, seed, log, expected)
    counts = judge_counts(took["base"] + took["same"], took["head"], limits)
    counts += _judge_metrics(prepared, warm, [row.name for row in rows], metrics, limits, settings, log)
    sides, rounds = prepared.sides, len(took["base"])
    about = {"base": called(sides["base"]), "head": called(sides["head"]), "rounds": rounds, "seed": seed,
             "error": plan.error, "statistics": list(settings.statistics),
             "machine": f"{platform.machine()}, {cores()} cores",
             "given_up": given_up, "times": {side: [run.times for run in runs] for side, runs in took.items()}}
    notes = [*prepared.remarks, *pairing.notes, *package_notes(sides["base"], sides["head"]), *addresses.remarks()]
    return Result(rows, counts, missing=pairing.missing, removed=pairing.removed, allow_removed=allow_removed, notes=notes,
                  about=about)


def a_round(collected: Run, warm: Run, compared: Sequence[str], settings: Settings) -> float:
    """Estimate the seconds of a round by two processes that take longer to start than those of a round.

    One collected all files of benchmarks. The other compiled, and ran each benchmark of the round.
    """
    starting = min(collected.seconds or warm.seconds, warm.seconds)
    measuring = sum(max(settings.seconds, MIN_SAMPLES * warm.times[name]["min"]) for name in compared)
    return len(SIDES) * (starting + measuring)


def _rounds(prepared: Prepared, pairing: Pairing, limits: Limits, plan: Plan, settings: Settings, seed: int,
            log: Log, expected: float) -> tuple[list[Row], Batch, str]:
    rng = np.random.default_rng(seed)
    batch: Batch = {name: [] for name in prepared.sides}
    open_, decided = list(pairing.compared), dict[str, Row]()
    clock = Clock(plan, len(open_), len(settings.statistics))
    error, quick = plan.row_error(len(open_), len(settings.statistics)), plan.quick(len(open_), len(settings.statistics))
    given_up = ""
    log(f"{len(open_)} benchmark{'s' * (len(open_) != 1)}: a round takes about {expected:.0f} s. A quiet machine needs "
        f"{quick} rounds ({duration(quick * expected)}); the budget is {duration(60 * clock.minutes(expected))}")
    while open_:
        settings = measure(prepared, open_, settings, rng, batch)
        clock.rounds += 1
        for name in open_[:]:
            without = next((runs[-1] for runs in batch.values() if name not in runs[-1].times), None)
            if without is not None:
                open_.remove(name)
                decided.pop(name, None)
                pairing.missing[name] = f"was not measured in every round: {without.failed.get(name, 'no reason was given')}"
                continue
            decided[name] = judge(name, times_of(batch, name, settings.statistics), limits.of(name), error)
        open_ = [name for name in open_ if decided[name].verdict == INCONCLUSIVE]
        left = clock.left()
        log(f"round {clock.rounds}: {len(decided) - len(open_)} of {len(decided)} decided, {clock.a_round:.1f} s per round"
            + (f"; a quiet machine needs {max(0, quick - clock.rounds)} more, the budget allows {left}" if open_ else ""))
        if not left:
            given_up = "the budget is spent" if open_ else ""
            break
        if clock.rounds >= _PATIENCE * quick:
            needed = min((rounds_left(times_of(batch, name, settings.statistics), limits.of(name), error) for name in open_),
                         default=0.0)
            if needed > _HOPELESS * left:
                given_up = f"the machine is so noisy that the next row would need about {needed:.0f} more rounds" if (
                    math.isfinite(needed)) else "the machine is so noisy that more rounds would not help"
                break
    return [decided[name] for name in sorted(decided)], batch, given_up


def times_of(batch: Batch, name: str, statistics: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """Return the numbers of one benchmark by statistic and side, one per round that measured it."""
    return {statistic: {side: [run.times[name][statistic] for run in runs if name in run.times]
                        for side, runs in batch.items()} for statistic in statistics}


_NO_PLUGIN = re.compile(r"fixture '\w+' not found|async def function")  # what pytest says of it, in any version


def _warm_up(prepared: Prepared, settings: Settings, metrics: Sequence[str],
             log: Log) -> tuple[dict[str, Run], Pairing, Settings]:
    sides, where, found = prepared.sides, prepared.where, prepared.found
    log("warming up head: compiling, filling caches")
    head = run(sides["head"], where, replace(settings, seconds=WARM_UP_SECONDS), 0, metrics=metrics)
    if not settings.autoload and any(_NO_PLUGIN.search(why) for why in (*head.failed.values(), *head.skipped.values())):
        settings = replace(settings, autoload=True)
        head = run(sides["head"], where, replace(settings, seconds=WARM_UP_SECONDS), 0, metrics=metrics)
    log("warming up base and its control")
    (base, same), notes = warm_up([sides["base"], sides["same"]], run, where, found, settings, prepared.own["base"], head,
                                  sides["head"], metrics)
    sources = Sources(sides["base"], sides["head"])
    pairing = pair(prepared.own["base"], base, head, sources.renamed)
    pairing.notes.extend(notes)
    _check_subjects(pairing, sources, head, prepared)
    _check_common(pairing)
    return {"base": base, "head": head, "same": same}, pairing, settings


def _check_subjects(pairing: Pairing, sources: Sources, head: Run, prepared: Prepared) -> None:
    """Leave out benchmarks that time code of their own file, if it changed: both sides would run the same code."""
    project = PurePosixPath(prepared.found.project)
    shared = [str(project / one) for one in prepared.found.shared]
    subjects = {top for top, path in head.loaded if not any(path == one or path.startswith(f"{one}/") for one in shared)}
    for file in sorted({name.partition("::")[0] for name in pairing.compared}):
        changed = sources.changed_helpers(file, subjects)
        if changed:
            for name in [one for one in pairing.compared if one.startswith(f"{file}::")]:
                pairing.compared.remove(name)
                pairing.missing[name] = (f"times code of its own file, in which {some(changed)} changed. Both sides run "
                                         "head's version of that file: move the code to a module and import it")


def _check_common(pairing: Pairing) -> None:
    if pairing.compared:
        return
    reasons = [f"`{name}` {why}" for name, why in pairing.missing.items()] + pairing.notes
    reasons += [f"`{name}` was removed" for name in pairing.removed]
    if not reasons:
        raise GateError("pytest collected no benchmark: --only or --exclude chose none, or the project deselects all.")
    raise GateError("base and head have no benchmark in common that can be compared:" +
                    "".join(f"\n  {reason}" for reason in reasons[:8]))


def judge_counts(base: Sequence[Run], head: Sequence[Run], limits: Limits) -> list[CountRow]:
    """Judge the numbers that the benchmarks counted themselves."""
    rows = []
    for name, counted in sorted(head[0].counts.items()) if head else []:
        for count in counted:
            before = [run.counts[name][count] for run in base if count in run.counts.get(name, {})]
            after = [run.counts[name][count] for run in head if count in run.counts.get(name, {})]
            if before:
                rows.append(judge_count(name, count, before, after, limits.of_count(count)))
    return rows


def _judge_metrics(prepared: Prepared, warm: dict[str, Run], names: Sequence[str], metrics: Sequence[str], limits: Limits,
                   settings: Settings, log: Log) -> list[CountRow]:
    """Judge memory and instructions of one process per side; a growth above the limit must also show in a second one."""
    quick = replace(settings, seconds=WARM_UP_SECONDS)

    def once(chosen: Sequence[str], number: int) -> dict[str, Run]:
        return {side: run(prepared.sides[side], prepared.where, quick, number, chosen, metrics=metrics) for side in SIDES}

    rounds = [{side: warm[side].metrics for side in SIDES}] if metrics else []
    rows = [row for name in names for row in judge_metric(name, rounds, limits)]
    grown = sorted({row.benchmark for row in rows if row.grown})
    if grown:
        log(f"{len(grown)} need more memory or instructions: measuring them again")
        rounds.append({side: found.metrics for side, found in once(grown, 1).items()})
        rows = [row for row in rows if row.benchmark not in grown]
        rows += [row for name in grown for row in judge_metric(name, rounds, limits)]
    return rows


def duration(seconds: float) -> str:
    """Return a time as text."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def called(side: Side) -> str:
    return f"{side.revision} ({side.commit[:10]})"


def package_notes(base: Side, head: Side) -> list[str]:
    """Name the packages of which the sides have different versions, except the project, whose version may come from git."""
    own = re.sub(r"[-_.]+", "-", project_name(head.project) or "").lower()
    return [f"{name} is {base.packages.get(name, 'absent')} on base, {head.packages.get(name, 'absent')} on head"
            for name in sorted(base.packages.keys() | head.packages.keys())
            if base.packages.get(name) != head.packages.get(name) and re.sub(r"[-_.]+", "-", name).lower() != own]
