"""The pairs of benchmarks of two revisions that can be compared, and the reasons why others cannot.

Both sides must run the same benchmarks, so base gets head's. If one of head's files does not run on base, for instance
because it imports a module that only head has, base keeps its own version of that file. The report lists every benchmark of
both sides: as compared, new, renamed, removed, skipped or failing on both, or as *not compared* with the reason.
"""
from __future__ import annotations

import ast
import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from fastnet.gate import GateError
from fastnet.gate.discover import Found, functions, imports
from fastnet.gate.environment import Side
from fastnet.gate.repository import git
from fastnet.gate.runs import WARM_UP_SECONDS, ConfigurationError, Run, Settings, Where, run

Measure = Callable[..., Run]


@dataclass(frozen=True)
class Pairing:
    """Every benchmark of both sides, sorted."""

    compared: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)  # a benchmark or a file, and why it is not compared
    notes: list[str] = field(default_factory=list)


def some(names: Sequence[str], most: int = 4) -> str:
    """The first names of many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def own_benchmarks(side: Side, where: Where, settings: Settings) -> Run:
    """What a side's own version of the benchmarks holds, only collected."""
    try:
        return run(side, where, settings, 0, collect_only=True)
    except ConfigurationError as error:
        return Run({}, failed={file: str(error).splitlines()[-1] for file in where.files})


def give_benchmarks(side: Side, source: Side, found: Found) -> None:
    """Lay head's benchmarks, and what they share, over those of another side. Files that only that side has stay."""
    git(side.project, "checkout", "--quiet", "--force", source.commit, "--", *found.shared)


def take_back(side: Side, found: Found, files: Iterable[str] | None) -> list[str]:
    """Put a side's own version of some files of benchmarks, or of all that was shared, in the place of those it got."""
    done = []
    for file in found.shared if files is None else files:
        with contextlib.suppress(GateError):  # its revision may not have it
            git(side.project, "checkout", "--quiet", "--force", side.commit, "--", file)
            done.append(file)
    return done


def warm_up(sides: Sequence[Side], measure: Measure, where: Where, found: Found, settings: Settings, own: Run, head: Run,
            source: Side, metrics: Sequence[str]) -> tuple[list[Run], list[str]]:
    """Run everything once on sides of one revision, with its own version of the files that need it.

    Parameters
    ----------
    sides
        Of one revision, such as base and same.
    measure
        `runs.run`, or its stand-in.
    own, head
        The benchmarks of that revision, and the warm-up of head.
    source
        The side whose benchmarks they run.

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
        ran = measure(first, where, quick, 0, metrics=metrics)
    except ConfigurationError as error:
        if not own.names:
            raise
        for side in sides:
            take_back(side, found, None)
        notes.append(f"{first.revision} runs its own benchmarks, as head's folder cannot be used on it: "
                     f"{str(error).splitlines()[-1]}")
        ran = measure(first, where, quick, 0, metrics=metrics)
    else:
        lost = [name for name in own.names if name in head.names and name not in ran.times and name not in ran.skipped]
        files = take_back(first, found, sorted({_file(name) for name in lost}))
        if files:
            wanted = [name for name in own.names if _file(name) in files]
            again = measure(first, where, quick, 0, names=wanted, metrics=metrics)
            back = [name for name in lost if name in again.times]
            # What fails on head is not compared in any version, and what fails in both versions is no reason to take one.
            rescued = sorted({_file(name) for name in back if name in head.times})
            for file in set(files) - set(rescued):
                git(first.project, "checkout", "--quiet", "--force", source.commit, "--", file)
            for side in sides[1:]:
                take_back(side, found, rescued)
            notes += [f"{first.revision} runs its own version of `{file}`, as head's does not run there: " + _reason(
                ran, next(name for name in back if _file(name) == file and name in head.times)) for file in rescued]
            ran = _merged(ran, again, rescued)
            ran = replace(ran, times={name: again.times[name] for name in back} | ran.times)
    others = [measure(side, where, quick, 0, names=sorted(ran.times), metrics=metrics) for side in sides[1:]]
    return [ran, *others], notes


def _merged(given: Run, own: Run, files: Sequence[str]) -> Run:
    """The first run, but of those files what the second one said."""
    def choose(first: dict, second: dict) -> dict:
        return ({name: value for name, value in first.items() if _file(name) not in files}
                | {name: value for name, value in second.items() if _file(name) in files})
    return Run(choose(given.times, own.times), choose(given.counts, own.counts), choose(given.metrics, own.metrics),
               given.failed | own.failed, given.skipped | own.skipped,
               tuple(name for name in given.names if _file(name) not in files) + own.names)


def pair(own: Run, base: Run, head: Run, renamed: Callable[[str, str], bool] = lambda old, new: False) -> Pairing:
    """Sort the benchmarks of both sides.

    Parameters
    ----------
    own : Run
        What base's own version of the benchmarks holds.
    base, head : Run
        The warm-ups.
    renamed : callable
        Whether a benchmark that only base's own version has is one that only head's has, under another name.
    """
    result = Pairing(compared=sorted(base.times.keys() & head.times.keys()))
    broken = {name: reason for name, reason in head.failed.items() if "::" not in name}  # files, or the folder
    for name, reason in broken.items():
        if name in own.failed:
            result.notes.append(f"`{name}` cannot be collected on either side: {reason}{_hint(reason)}")
        else:
            result.missing[name] = f"cannot be collected on head: {reason}"
    alike: dict[tuple[str, str], list[str]] = {}  # by what became of them, and why
    for name in sorted({*head.names, *head.times} - {*result.compared}):
        if name in head.times:
            _missing_on_base(result, own, base, name)
        elif name in head.skipped:
            if name in base.times:
                result.missing[name] = f"runs on base but is skipped on head: {head.skipped[name]}"
            else:
                alike.setdefault(("skipped", head.skipped[name]), []).append(name)
        elif name in base.times:
            result.missing[name] = f"runs on base but fails on head: {_reason(head, name)}"
        elif name in own.names:
            alike.setdefault(("failing on both sides", _reason(head, name)), []).append(name)
        else:
            result.missing[name] = f"fails on head, where it is new: {_reason(head, name)}"
    for (fate, why), names in alike.items():
        result.notes.append(f"{fate}: {some([f'`{name}`' for name in names])}: {why}{_hint(why)}")
    fresh = [name for name in result.compared if name not in own.names]
    for name in sorted({*own.names, *base.times} - {*head.names, *head.times}):
        if _file(name) in broken:
            if _file(name) not in own.failed:
                result.missing[name] = f"its file cannot be collected on head: {broken[_file(name)]}"
            continue
        new = next((one for one in fresh if renamed(name, one)), None)
        if new is None:
            result.removed.append(name)
        else:
            fresh.remove(new)
            result.notes.append(f"`{name}` is now called `{new}`, and was compared under that name")
    return result


def _missing_on_base(result: Pairing, own: Run, base: Run, name: str) -> None:
    """Sort one that runs on head but not on base."""
    if name in base.skipped and name not in base.failed:
        result.notes.append(f"`{name}` is skipped on base: {base.skipped[name]}")
    elif name in own.names:
        result.missing[name] = f"runs on head but fails on base: {_reason(base, name)}"
    elif _file(name) in own.failed:
        result.missing[name] = f"its file cannot be collected on base, in neither version: {own.failed[_file(name)]}"
    else:
        result.notes.append(f"`{name}` is new: it does not run on base ({_reason(base, name)})")


def _reason(run: Run, name: str) -> str:
    """Of the benchmark itself, or of its file, if that could not be collected."""
    return (run.failed.get(name) or run.skipped.get(name) or run.failed.get(_file(name)) or
            ("it never called the fixture" if name in run.names else "it was not collected"))


def _hint(why: str) -> str:
    """What makes benchmarks run that lack a package."""
    if "No module named" in why:
        return ". If it should run, name the package: --with PACKAGE"
    if "async def function" in why:
        return " If it should run, name the package of a plugin: --with pytest-asyncio"
    return ""


def _file(name: str) -> str:
    return name.split("::")[0]


# --- what changed in the benchmarks themselves ----------------------------------------------------------------------


class Sources:
    """The sources of the benchmarks on both sides."""

    def __init__(self, base: Side, head: Side):
        self.base, self.head, self._known = base, head, {}  # type: ignore[var-annotated]

    def renamed(self, old: str, new: str) -> bool:
        """Whether a benchmark of base and one of head differ in their name, their file or their parameters' ids only."""
        before, after = self._function(self.base, old), self._function(self.head, new)
        same_body = before is not None and before == after
        return same_body or (_function_name(old) == _function_name(new) and _ids(old) == _ids(new))

    def changed_helpers(self, file: str, subjects: Iterable[str]) -> list[str]:
        """Functions and classes of a file of benchmarks, other than tests, that differ, if it imports nothing to measure.

        Both sides run head's version of the file, so that code which the file defines and times is not compared.

        Parameters
        ----------
        subjects : iterable of str
            Top-level names of the project's modules.
        """
        before, after = self._module(self.base, file), self._module(self.head, file)
        if before is None or after is None or imports(after) & set(subjects):
            return []
        old, new = (_definitions(module) for module in (before, after))
        return sorted(name for name in old.keys() & new.keys() if old[name] != new[name])

    def _module(self, side: Side, file: str) -> ast.Module | None:
        key = (side.name, file)
        if key not in self._known:
            try:
                self._known[key] = ast.parse(git(side.project, "show", f"{side.commit}:./{file}"))
            except (GateError, SyntaxError, ValueError):
                self._known[key] = None
        return self._known[key]

    def _function(self, side: Side, name: str) -> str | None:
        module = self._module(side, _file(name))
        found = [node for node in functions(module) if node.name == _function_name(name)] if module else []
        return ast.dump(ast.Module([*found[0].body], [])) + ast.dump(found[0].args) + _ids(name) if found else None


def _definitions(module: ast.Module) -> dict[str, str]:
    return {node.name: ast.dump(node) for node in module.body
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            and not node.name.startswith(("test", "bench", "Test"))}


def _function_name(name: str) -> str:
    return name.rpartition("::")[2].partition("[")[0]


def _ids(name: str) -> str:
    return name.rpartition("::")[2].partition("[")[2]
