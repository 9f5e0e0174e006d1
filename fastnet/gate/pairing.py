"""Which benchmarks of two revisions can be compared, and what becomes of the others.

Both sides must be asked the same question, so base gets head's benchmarks. Where one of head's files does not run on
base, as when it imports what only head has, base keeps its own version of that file. Nothing disappears in silence:
each benchmark of either side is compared, new, removed, skipped on both, or *not compared* with the reason.
"""
from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fastnet.gate.environment import Side
from fastnet.gate.runs import ConfigurationError, Run, Settings, run

WARM_UP_SECONDS = 0.001
Measure = Callable[..., Run]


@dataclass(frozen=True)
class Pairing:
    """Every benchmark of both sides, sorted."""

    compared: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)  # a benchmark or a file, and why it is not compared
    notes: list[str] = field(default_factory=list)


def own_benchmarks(side: Side, repository: Path, path: str, settings: Settings) -> Run:
    """What a side's own version of the benchmarks holds, only collected."""
    if not (side.project / path).is_dir():
        return Run({})
    try:
        return run(side, repository, path, settings, 0, collect_only=True)
    except ConfigurationError as error:
        return Run({}, failed={path: str(error).splitlines()[-1]})


def give_benchmarks(side: Side, source: Side, path: str) -> None:
    """Lay the benchmarks of `source` over those of `side`, whose own are kept for `take_back`.

    Files that only `side` has stay, but for benchmarks: a helper may be needed by a file that is taken back.
    """
    own, given = side.project / path, source.project / path
    if own.is_dir():
        shutil.copytree(own, _kept(side), symlinks=True, dirs_exist_ok=True)
        for file in own.rglob("*.py"):
            if _is_benchmark(file) and not (given / file.relative_to(own)).exists():
                file.unlink()
    shutil.copytree(given, own, symlinks=True, dirs_exist_ok=True)


def take_back(side: Side, path: str, files: Iterable[str] | None) -> list[str]:
    """Put a side's own version of some files of benchmarks, or of all of the folder, in the place of those it got."""
    if files is None:
        if _kept(side).is_dir():
            shutil.rmtree(side.project / path)
            shutil.copytree(_kept(side), side.project / path, symlinks=True)
        return []
    done = []
    for file in files:
        own = _kept(side) / Path(file).relative_to(path)
        if own.is_file():
            shutil.copy(own, side.project / file)
            done.append(file)
    return done


def _kept(side: Side) -> Path:
    return side.tree.parent / "own"


def _is_benchmark(file: Path) -> bool:
    return file.stem.startswith(("bench_", "test_")) or file.stem.endswith(("_bench", "_test"))


def warm_up(sides: Sequence[Side], measure: Measure, repository: Path, path: str, settings: Settings, own: Run,
            head: Run, source: Side, metrics: Sequence[str]) -> tuple[list[Run], list[str]]:
    """Run everything once on sides of one revision, with its own version of the files that need it.

    Parameters
    ----------
    sides
        Of one revision, such as base and same.
    measure
        `runs.run`, or its stand-in.
    own, head
        What that revision's own benchmarks hold, and the warm-up of head.
    source
        The side whose benchmarks they were given.

    Returns
    -------
    runs : list of Run
        One per side.
    notes : list of str
        Which files are the revision's own.
    """
    quick = replace(settings, seconds=WARM_UP_SECONDS)
    first, notes = sides[0], []
    try:
        found = measure(first, repository, path, quick, 0, metrics=metrics)
    except ConfigurationError as error:
        if not own.names:
            raise
        for side in sides:
            take_back(side, path, None)
        notes.append(f"{first.revision} runs its own benchmarks, as head's folder cannot be used on it: "
                     f"{str(error).splitlines()[-1]}")
        found = measure(first, repository, path, quick, 0, metrics=metrics)
    else:
        lost = [name for name in own.names if name in head.names and name not in found.times and name not in found.skipped]
        files = take_back(first, path, sorted({_file(name) for name in lost}))
        if files:
            wanted = [name for name in own.names if _file(name) in files]
            again = measure(first, repository, path, quick, 0, names=wanted, metrics=metrics)
            rescued = [file for file in files if any(_file(name) == file for name in again.times)]
            for file in set(files) - set(rescued):
                shutil.copy(source.project / file, first.project / file)
            for side in sides[1:]:
                take_back(side, path, rescued)
            notes += [f"{first.revision} runs its own version of `{file}`, as head's does not run there: "
                      f"{_reason(found, next(name for name in lost if _file(name) == file))}" for file in rescued]
            found = _merged(found, again, rescued)
    others = [measure(side, repository, path, quick, 0, names=sorted(found.times), metrics=metrics) for side in sides[1:]]
    return [found, *others], notes


def _merged(given: Run, own: Run, files: Sequence[str]) -> Run:
    """The first run, but of those files what the second one said."""
    def choose(first: dict, second: dict) -> dict:
        return ({name: value for name, value in first.items() if _file(name) not in files}
                | {name: value for name, value in second.items() if _file(name) in files})
    return Run(choose(given.times, own.times), choose(given.counts, own.counts), choose(given.metrics, own.metrics),
               given.failed | own.failed, given.skipped | own.skipped, given.names + own.names)


def pair(own: Run, base: Run, head: Run) -> Pairing:
    """Sort the benchmarks of both sides.

    Parameters
    ----------
    own : Run
        What base's own version of the benchmarks holds.
    base, head : Run
        The warm-ups.
    """
    result = Pairing(compared=sorted(base.times.keys() & head.times.keys()))
    broken = {name: reason for name, reason in head.failed.items() if "::" not in name}  # files, or the folder
    result.missing.update({name: f"cannot be collected on head: {reason}" for name, reason in broken.items()})
    for name in sorted({*head.names, *head.times} - {*result.compared}):
        if name in head.times:
            _missing_on_base(result, own, base, name)
        elif name in head.skipped:
            if name in base.times:
                result.missing[name] = f"runs on base but is skipped on head: {head.skipped[name]}"
            else:
                result.notes.append(f"`{name}` is skipped: {head.skipped[name]}")
        else:
            where = ("runs on base but fails on head" if name in base.times else
                     "fails on both sides" if name in {*own.names, *base.names} else "fails on head")
            result.missing[name] = f"{where}: {_reason(head, name)}"
    for name in sorted({*own.names, *base.times} - {*head.names, *head.times}):
        if _file(name) in broken:
            result.missing[name] = f"its file cannot be collected on head: {broken[_file(name)]}"
        else:
            result.removed.append(name)
    return result


def _missing_on_base(result: Pairing, own: Run, base: Run, name: str) -> None:
    """Sort one that runs on head but not on base."""
    if name in own.names:
        result.missing[name] = f"runs on head but fails on base: {_reason(base, name)}"
    elif _file(name) in own.failed:
        result.missing[name] = f"its file cannot be collected on base, in neither version: {own.failed[_file(name)]}"
    else:
        result.notes.append(f"`{name}` is new: it does not run on base ({_reason(base, name)})")


def _reason(run: Run, name: str) -> str:
    """Of the benchmark itself, or of its file, if that could not be collected."""
    return (run.failed.get(name) or run.skipped.get(name) or run.failed.get(_file(name)) or
            ("it never called the fixture" if name in run.names else "it was not collected"))


def _file(name: str) -> str:
    return name.split("::")[0]
