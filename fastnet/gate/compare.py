"""Compare two revisions such that the answer can be believed on a shared, noisy machine.

Fresh processes of both sides take turns in random order, the ratio within a round is what counts, the base runs against
itself along with it, and whatever looks slower, or faster, is measured again before it is called so.
"""
from __future__ import annotations

import contextlib
import itertools
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fastnet.gate import GateError, environment, repository
from fastnet.gate.environment import Recipe, Side
from fastnet.gate.judge import Arms, CountRow, judge, judge_count, judge_metric
from fastnet.gate.limits import Limits
from fastnet.gate.pairing import WARM_UP_SECONDS, Pairing, give_benchmarks, own_benchmarks, pair, warm_up
from fastnet.gate.render import Result
from fastnet.gate.runs import Run, Settings, cores, run
from fastnet.gate.statistics import paired_ratio

SIDES = ("base", "head", "same")  # names of one length, as even the lengths of paths shift timings
MIN_ROUNDS = 7
SECOND_BATCH = 2  # times as many rounds as the first one: it decides, and only the suspicious run in it
SETTINGS = Settings()
Log = Callable[[str], None]
Batch = dict[str, list[Run]]  # for each side, a run per round


@dataclass(frozen=True)
class Prepared:
    """Sides that can run: checked out, installed, and given head's benchmarks."""

    repository: Path
    path: str  # of the benchmarks, in the project
    sides: dict[str, Side]
    own: dict[str, Run]  # what each side's own version of the benchmarks holds, but head's


@contextlib.contextmanager
def prepare(repo: Path, revisions: dict[str, str | None], project: str, path: str, log: Log, recipe: Recipe,
            settings: Settings = SETTINGS, may_fail: Sequence[str] = ()) -> Iterator[Prepared]:
    """Worktrees, environments and caches for each side; at the end only the environments stay.

    Parameters
    ----------
    repo : Path
    revisions : dict
        By the name of the side, as ``{"base": "main", "head": None, "same": "main"}``; None is the working tree.
    project, path : str
        The project's folder in the repository, and its folder of benchmarks. All sides get those of `head`.
    log, recipe, settings
        Where to say what happens, what to install, and which benchmarks and plugins to use.
    may_fail : sequence of str
        Sides that are left out, and said to be, if they cannot be set up.
    """
    found = {name: repository.snapshot(repo) if revision is None else (repository.find_commit(repo, revision), revision)
             for name, revision in revisions.items()}
    home = None if recipe.kind == environment.CURRENT else environment.home()
    with repository.room(repo, home, f"{project} {recipe.key()}") as room:
        sides = {}
        for name, (commit, called) in found.items():
            tree = repository.add_worktree(repo, room / name, commit)
            shutil.rmtree(room / name / "own", ignore_errors=True)
            if name == "head" and not (tree / project / path).is_dir():
                raise GateError(f"{path!r} is no folder of the revision under test. Name the benchmarks' with --path.")
            side = Side(name, called, commit, tree, tree / project, Path(), room / name / "caches")
            try:
                sides[name] = environment.prepare(side, path, recipe, log)
            except GateError as error:
                if name not in may_fail:
                    raise
                log(f"{called} is left out: {error}")
        own: dict[str, Run] = {}
        benchmarks = repository.git(sides["head"].project, "rev-parse", f"HEAD:./{path}")
        for name, side in sides.items():
            environment.keep_caches(side, benchmarks)
            if name != "head":
                known = next((other for other in own if sides[other].commit == side.commit), None)
                own[name] = own[known] if known else own_benchmarks(side, repo, path, settings)
                give_benchmarks(side, sides["head"], path)
        yield Prepared(repo, path, sides, own)


def orders(names: Sequence[str], rounds: int, rng: np.random.Generator) -> list[tuple[str, ...]]:
    """Who goes first, second, third in each round: of three sides, every order once in six rounds, the six shuffled."""
    if len(names) > 3:
        return [tuple(names[i] for i in rng.permutation(len(names))) for _ in range(rounds)]
    every = list(itertools.permutations(names))
    chosen: list[tuple[str, ...]] = []
    while len(chosen) < rounds:
        chosen += [every[i] for i in rng.permutation(len(every))]
    return chosen[:rounds]


def measure(prepared: Prepared, names: Sequence[str], rounds: int, settings: Settings, rng: np.random.Generator,
            log: Log) -> Batch:
    """One batch: `rounds` times a fresh process of each side."""
    batch: Batch = {name: [] for name in prepared.sides}
    start = time.monotonic()
    for number, order in enumerate(orders(list(prepared.sides), rounds, rng), start=1):
        for name in order:
            batch[name].append(run(prepared.sides[name], prepared.repository, prepared.path, settings, number, names))
        left = (time.monotonic() - start) / number * (rounds - number)
        log(f"round {number}/{rounds} ({', '.join(order)}), {left:.0f} s left")
    return batch


def compare(prepared: Prepared, limits: Limits, *, rounds: int = MIN_ROUNDS, settings: Settings = SETTINGS,
            seed: int | None = None, log: Log = lambda text: None, metrics: Sequence[str] = (),
            allow_removed: bool = False) -> Result:
    """Warm up, measure a batch, measure the suspicious again, and judge."""
    seed = int(np.random.default_rng().integers(2**32)) if seed is None else seed
    rng = np.random.default_rng(seed)
    log("warming up: compiling, filling caches")
    warm, pairing = _warm_up(prepared, settings, metrics)
    names = pairing.compared

    batches = [measure(prepared, names, rounds, settings, rng, log)]
    names, lost = _always(batches[0], names)
    arms = {name: [_arms(batches[0], name)] for name in names}
    suspects = [name for name in names if arms[name][0].suspicious(limits.of(name))]
    if suspects:
        log(f"{len(suspects)} suspicious: a second batch for {'it' if len(suspects) == 1 else 'them'}")
        batches.append(measure(prepared, suspects, SECOND_BATCH * rounds, settings, rng, log))
        again, lost_again = _always(batches[1], suspects)
        lost |= lost_again
        for name in again:
            arms[name].append(_arms(batches[1], name))

    rows = [judge(name, _median(batches[0]["base"], name), _median(batches[0]["head"], name), limits.of(name), arms[name])
            for name in names]
    counts = judge_counts(batches[0]["base"] + batches[0]["same"], batches[0]["head"], limits)
    counts += _judge_metrics(prepared, warm, names, metrics, limits, settings, log)
    sides = prepared.sides
    about = {"base": called(sides["base"]), "head": called(sides["head"]), "rounds": rounds, "seed": seed,
             "statistic": settings.statistic, "machine": f"{platform.machine()}, {cores()} cores",
             "times": [{side: [run.times for run in runs] for side, runs in batch.items()} for batch in batches]}
    return Result(rows, counts, missing=pairing.missing | lost, removed=pairing.removed, allow_removed=allow_removed,
                  notes=pairing.notes + package_notes(sides["base"], sides["head"]), about=about)


def _warm_up(prepared: Prepared, settings: Settings, metrics: Sequence[str]) -> tuple[dict[str, Run], Pairing]:
    sides, path, repo = prepared.sides, prepared.path, prepared.repository
    head = run(sides["head"], repo, path, replace(settings, seconds=WARM_UP_SECONDS), 0, metrics=metrics)
    (base, same), notes = warm_up([sides["base"], sides["same"]], run, repo, path, settings, prepared.own["base"], head,
                                  sides["head"], metrics)
    pairing = pair(prepared.own["base"], base, head)
    _check_common(pairing, path)
    pairing.notes.extend(notes)
    return {"base": base, "head": head, "same": same}, pairing


def _check_common(pairing: Pairing, path: str) -> None:
    if pairing.compared:
        return
    reasons = [f"`{name}` {why}" for name, why in pairing.missing.items()] + pairing.notes
    reasons += [f"`{name}` was removed" for name in pairing.removed]
    if not reasons:
        raise GateError(f"{path!r} holds no benchmark: it has no tests that use pytest-benchmark's fixture in bench_*.py "
                        "or test_*.py (or --only chose none).")
    raise GateError("base and head have no benchmark in common that runs on both:" +
                    "".join(f"\n  {reason}" for reason in reasons[:8]))


def _always(batch: Batch, names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Those that every process of the batch measured, and why not the others."""
    kept, lost = [], {}
    for name in names:
        without = next((run for runs in batch.values() for run in runs if name not in run.times), None)
        if without is None:
            kept.append(name)
        else:
            lost[name] = f"was not measured in every round: {without.failed.get(name, 'no reason was given')}"
    return kept, lost


def _arms(batch: Batch, name: str) -> Arms:
    times = {side: [run.times[name] for run in runs] for side, runs in batch.items()}
    return Arms(paired_ratio(times["base"], times["head"]), paired_ratio(times["base"], times["same"]))


def _median(runs: Sequence[Run], name: str) -> float:
    return float(np.median([run.times[name] for run in runs]))


def judge_counts(base: Sequence[Run], head: Sequence[Run], limits: Limits) -> list[CountRow]:
    """What the benchmarks counted themselves."""
    rows = []
    for name, counted in sorted(head[0].counts.items()):
        for count in counted:
            before = [run.counts[name][count] for run in base if count in run.counts.get(name, {})]
            after = [run.counts[name][count] for run in head if count in run.counts.get(name, {})]
            if before:
                rows.append(judge_count(name, count, before, after, limits.of_count(count)))
    return rows


def _judge_metrics(prepared: Prepared, warm: dict[str, Run], names: Sequence[str], metrics: Sequence[str], limits: Limits,
                   settings: Settings, log: Log) -> list[CountRow]:
    """Memory and instructions: one process per side; a growth past its limit must show in a second one as well."""
    quick = replace(settings, seconds=WARM_UP_SECONDS)

    def once(chosen: Sequence[str], number: int) -> dict[str, Run]:
        return {side: run(prepared.sides[side], prepared.repository, prepared.path, quick, number, chosen, metrics=metrics)
                for side in SIDES}

    rounds = [{side: warm[side].metrics for side in SIDES}] if metrics else []
    rows = [row for name in names for row in judge_metric(name, rounds, limits)]
    grown = sorted({row.benchmark for row in rows if row.grown})
    if grown:
        log(f"{len(grown)} need more memory or instructions: looking again")
        rounds.append({side: found.metrics for side, found in once(grown, 1).items()})
        rows = [row for row in rows if row.benchmark not in grown]
        rows += [row for name in grown for row in judge_metric(name, rounds, limits)]
    return rows


def called(side: Side) -> str:
    return f"{side.revision} ({side.commit[:10]})"


def package_notes(base: Side, head: Side) -> list[str]:
    """Packages of which the two sides have different versions."""
    return [f"{name} is {base.packages.get(name, 'absent')} on base, {head.packages.get(name, 'absent')} on head"
            for name in sorted(base.packages.keys() | head.packages.keys())
            if base.packages.get(name) != head.packages.get(name)]
