"""The preparation of the sides of a comparison: checkout, installation, and head's benchmarks."""
from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fastnet.gate import GateError, environment
from fastnet.gate.declared import tiers
from fastnet.gate.discover import Found, find
from fastnet.gate.environment import CURRENT, Order, Recipe, Side
from fastnet.gate.imports import FILE, find_package
from fastnet.gate.pairing import give_benchmarks, own_benchmarks, some
from fastnet.gate.repository import Store, find_commit, git, store
from fastnet.gate.runs import Run, Settings, Where, run
from fastnet.gate.workspace import home, workspace

SIDES = ("base", "head", "same")  # names of one length, as even the lengths of paths shift timings
SETTINGS = Settings()
Log = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """Sides that can run: checked out, installed, and given head's benchmarks."""

    where: Where
    found: Found
    sides: dict[str, Side]
    own: dict[str, Run]  # what each side's own version of the benchmarks holds, but head's
    settings: Settings = SETTINGS
    remarks: list[str] = field(default_factory=list)


@contextlib.contextmanager
def prepare(repo: Path, revisions: dict[str, str | None], start: str, path: str | None, log: Log, recipe: Recipe,
            settings: Settings = SETTINGS, may_fail: Sequence[str] = (), imports: str | None = None) -> Iterator[Prepared]:
    """Make worktrees, environments and caches for each side, and at the end delete all but the environments.

    Parameters
    ----------
    repo : Path
        The user's repository.
    revisions : dict
        By the name of the side, as ``{"base": "main", "head": None, "same": "main"}``; None is the working tree.
    start, path : str
        The user's current folder in the repository, and the benchmarks' path if the user named it.
    log, recipe, settings
        A function for messages, the packages to install, and the way to measure.
    may_fail : sequence of str
        Sides that are left out if their setup fails.
    imports : str, optional
        The package whose import is timed instead of benchmarks; "" for the project's.
    """
    place = None if recipe.kind == CURRENT else home()
    with workspace(repo, place, f"{start} {path} {recipe.key()}") as folder, store(repo, folder) as kept:
        commits = {name: kept.snapshot() if revision is None else (find_commit(repo, revision), revision)
                   for name, revision in revisions.items()}
        head, found, settings = _check_out_head(kept, folder, commits["head"], start, path, log, settings, imports)
        where = Where(repo, found.files)
        order = _order(folder, head, found, recipe, log)
        head = environment.prepare(head, order, log)
        sides, own = {"head": head}, dict[str, Run]()
        for name, (commit, called) in commits.items():
            if name != "head":
                tree = kept.check_out(folder / name, commit)
                sides[name] = Side(name, called, commit, tree, tree / found.project, Path(), folder / name / "caches")
        head, order, settings = _collect(head, where, order, settings, folder, log)
        sides["head"] = head
        for name in [name for name in commits if name != "head"]:
            side = sides.pop(name)
            if not side.project.is_dir():
                side.project.mkdir(parents=True)
            twin = next((other for other in own if sides[other].commit == side.commit), None)
            try:
                side = (environment.prepare(side, order, log) if twin is None else
                        environment.copy(side, sides[twin], recipe))
            except GateError as error:
                if name not in may_fail:
                    raise
                log(f"{side.revision} is left out: {error}")
                continue
            sides[name] = side
            if imports is not None:
                shutil.copy(head.project / FILE, side.project / FILE)
            files = found.files if imports is not None else _files(side, start, path)
            own[name] = own[twin] if twin else own_benchmarks(side, Where(repo, files), settings)
        shared = git(head.project, "ls-files", "--stage", "--", *found.shared)
        for name, side in sides.items():
            environment.keep_caches(side, hashlib.sha256(shared.encode()).hexdigest())
            if name != "head" and found.shared:
                give_benchmarks(side, head, found)
        yield Prepared(where, found, {name: sides[name] for name in commits if name in sides}, own, settings, kept.remarks)


def _check_out_head(kept: Store, folder: Path, commit: tuple[str, str], start: str, path: str | None, log: Log,
                    settings: Settings, imports: str | None) -> tuple[Side, Found, Settings]:
    tree = kept.check_out(folder / "head", commit[0])
    if imports is None:
        found = find(tree, start, path)
        log(f"found {len(found.files)} file{'s' * (len(found.files) != 1)} of benchmarks: {some(found.files)}")
        kept.remarks.extend(f"`{other}` is a separate project: --repo {other} compares its benchmarks"
                            for other in found.others)
    else:
        found, source = find_package(tree, start, imports)
        (tree / found.project / FILE).write_text(source, encoding="utf-8")
    side = Side("head", commit[1], commit[0], tree, tree / found.project, Path(), folder / "head" / "caches")
    return side, found, replace(settings, marked=found.marked)


def _files(side: Side, start: str, path: str | None) -> tuple[str, ...]:
    """Return a side's own files of benchmarks."""
    try:
        return find(side.tree, start, path).files
    except GateError:
        return ()


def _order(folder: Path, head: Side, found: Found, recipe: Recipe, log: Log) -> Order:
    """What to install, beginning with the tier that was enough the last time."""
    names = [] if recipe.wanted.given or recipe.kind == CURRENT else tiers(head.project, found.folders)
    memory, tier = folder / "tier.json", 0
    if memory.exists():
        known = json.loads(memory.read_text(encoding="utf-8"))
        tier = known["tier"] if known["names"] == names else 0
    if names:
        log(f"installing, chosen by name: {', '.join(name for one in names[:tier + 1] for name in one)}")
    return Order(recipe, found.folders, tier, head.project)


_MISSING = re.compile(r"No module named '([\w.]+)'")


def _collect(head: Side, where: Where, order: Order, settings: Settings, folder: Path,
             log: Log) -> tuple[Side, Order, Settings]:
    """Collect head's benchmarks before anything else is installed; install more where a module is missing."""
    names = [] if order.recipe.wanted.given or order.recipe.kind == CURRENT else tiers(head.project, order.folders)
    while True:
        try:
            collected = run(head, where, settings, 0, collect_only=True)
            why = " ".join(collected.failed.values())
        except GateError as error:
            collected, why = None, str(error)
        missing = sorted({name.partition(".")[0] for name in _MISSING.findall(why)})
        if not settings.autoload and collected is None and not missing:
            settings = replace(settings, autoload=True)  # a conftest.py that needs a plugin
        elif (missing or collected is None) and order.tier + 1 < len(names):
            order = replace(order, tier=order.tier + 1)
            log((f"the benchmarks need {', '.join(missing)}" if missing else "pytest cannot start with what is installed") +
                f": installing {', '.join(names[order.tier])}, too")
            head = environment.prepare(head, order, log)
        else:
            break
    if names:
        (folder / "tier.json").write_text(json.dumps({"tier": order.tier, "names": names}), encoding="utf-8")
    if missing and not (collected and collected.names):
        raise GateError(f"The benchmarks import {', '.join(missing)}, which no installed package provides. Name the "
                        f"package: fastnet compare BASE --with {missing[0]}")
    if collected is None:
        raise GateError(f"{why}\nIf a plugin of pytest is missing, name its package: --with PACKAGE.")
    return head, order, settings
