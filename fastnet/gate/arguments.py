"""What the arguments of ``fastnet compare`` say, for the modules that measure."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastnet.gate import GateError


def start_in(folder: Path, repository: Path) -> str:
    """Return the path of the user's current folder in the repository."""
    return folder.resolve().relative_to(repository.resolve()).as_posix()


def plan(args: argparse.Namespace) -> Any:
    from fastnet.gate.judge import Plan

    return Plan(rounds=args.rounds, budget=args.budget)


def recipe(args: argparse.Namespace) -> Any:
    from fastnet.gate.declared import Wanted
    from fastnet.gate.environment import Recipe

    def maybe(given: Sequence[str] | None) -> tuple[str, ...] | None:
        return (() if args.imports else None) if given is None else tuple(given)

    wanted = Wanted(maybe(args.extra), maybe(args.group), None if args.requirement is None else tuple(args.requirement),
                    tuple(args.packages or ()), not args.no_install)
    return Recipe(args.env, wanted, args.pip_args, args.setup)


def settings(args: argparse.Namespace) -> Any:
    from fastnet.gate.runs import Settings

    chosen = [f"({args.only})"] * bool(args.only) + [f"not ({args.exclude})"] * bool(args.exclude)
    statistics = (args.statistic,) if args.statistic else Settings.statistics
    return Settings(statistics, args.seconds, " and ".join(chosen), tuple(args.plugin or ()),
                    turns=Settings.turns and not args.no_turns)


def metrics(args: argparse.Namespace) -> list[str]:
    """Return what the probe measures in addition to time."""
    from fastnet.gate import instructions

    if args.imports:
        return []
    found = [] if args.no_memory else ["allocated", "process"]
    if args.instructions != "off" and instructions.available():
        found.append(instructions.COUNTER)
    elif args.instructions == "perf":
        raise GateError(f"--instructions perf: {instructions.WHY_NOT}. Leave the option out.")
    return found


def uncounted(args: argparse.Namespace, measured: Sequence[str]) -> str:
    """Return the reason why instructions could not be counted; an empty string if they were, or were not wanted."""
    from fastnet.gate import instructions

    if args.instructions == "off" or instructions.COUNTER in measured or args.imports:
        return ""
    return f"Instructions were not counted: {instructions.WHY_NOT}."


def check(args: argparse.Namespace) -> None:
    """Check the arguments before the first measurement."""
    files = [str(given).endswith(".json") for given in (args.base, args.head)]
    if args.history:
        return
    if args.span and (args.base or args.head):
        raise GateError(f"Got {args.base} and --range {args.span}; give only one of them.")
    if not args.span and not args.base:
        raise GateError("Name a revision to compare with, as in `fastnet compare main`, or --range OLD..NEW.")
    if all(files):
        return
    if any(files):
        raise GateError(f"Got {args.base} and {args.head or 'no HEAD'}; expected two revisions, or two JSON files.")
    if args.rounds < 1:
        raise GateError(f"--rounds is {args.rounds}; expected 1 or more.")
    if args.setup and args.env == "current":
        raise GateError("--setup would change your current environment. Leave out `--env current`.")
    for name in ("seconds", "budget"):
        given = getattr(args, name)
        if given is not None and not given > 0:
            raise GateError(f"--{name} is {given}; expected a positive number, such as {0.2 if name == 'seconds' else 5}.")
