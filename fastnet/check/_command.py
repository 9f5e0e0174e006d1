"""The command line, and the report."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from fastnet.check._run import Finding, run

_CHAPTER = {"full": "FullLayer", "relu": "ReluLayer", "softmax": "SoftMaxLayer", "cross_entropy": "CrossEntropyLayer",
            "sequential": "Sequential"}
_NEXT = {"conv": "ConvLayer", "maxpool": "MaxPoolLayer", "flatten": "FlattenLayer"}
_SHOWN = 8  # kinds of problems of a layer; more follow from them, as a rule


DESCRIPTION = "Compare folders of the course's layers, your own, with fastnet's."
EPILOG = "Exit code: 0 if everything agrees; 1 if something differs, fails or is missing; 2 if there is nothing to compare."


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``python -m fastnet.check``; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fastnet.check", description=DESCRIPTION, epilog=EPILOG)
    add_arguments(parser)
    try:
        return execute(parser.parse_args(argv))
    except KeyboardInterrupt:
        print("fastnet check: stopped.", file=sys.stderr)
        return 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments, for ``python -m fastnet.check`` and for ``fastnet check``."""
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path, help="a folder with full.py, relu.py and so on")
    parser.add_argument("--timeout", metavar="SECONDS", type=_seconds, default=20.0,
                        help="how long one call of a layer may take (default: 20)")


def execute(arguments: argparse.Namespace) -> int:
    """Compare each folder; return the largest exit code."""
    return max([_check(folder, arguments.timeout) for folder in arguments.folders])


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError
    return seconds


def _check(given: Path, timeout: float) -> int:
    folder = Path(os.path.abspath(given))
    if not _stems(folder) and _stems(folder / "layers"):
        folder = folder / "layers"
    there = _stems(folder)
    if not there:
        what = "there is no such folder" if not folder.is_dir() else f"no module of the course in it: {', '.join(_CHAPTER)}"
        print(f"fastnet check: {given}: {what}", file=sys.stderr)
        return 2
    print(f"\n{folder}: each layer beside fastnet's")
    expected = {**_CHAPTER, **(_NEXT if there & _NEXT.keys() else {})}
    in_package = _CHAPTER.keys() - there if (folder / "__init__.py").is_file() else set()
    subjects = [stem for stem in expected if stem in there or stem in in_package]
    if (folder / "dataset.py").is_file():
        subjects.append("dataset")
    missing = [stem for stem in expected if stem not in subjects]
    findings = run(folder, subjects if missing else [*subjects, "training"], timeout)
    return _report(expected, findings, missing)


def _stems(folder: Path) -> set[str]:
    return {stem for stem in (*_CHAPTER, *_NEXT) if (folder / f"{stem}.py").is_file()}


def _report(expected: dict[str, str], findings: dict[str, Finding], missing: list[str]) -> int:
    rows = {"__init__": "the package", **expected, "dataset": "the data", "training": "a network, trained"}
    wrong = 0
    for stem, name in rows.items():
        finding = findings.get(stem)
        if stem in missing:
            verdict = f"MISSING: there is no {stem}.py"
        elif finding is None or (stem == "__init__" and not finding.problems):
            continue
        elif finding.problems:
            verdict = f"DIFFERS, {_count(finding.problems)}"
        elif finding.compared:
            verdict = f"ok, {finding.compared} comparisons"
        else:
            verdict = "nothing compared"
        wrong += stem in missing or bool(finding and finding.problems)
        print(f"{stem:14s} {name:18s} {verdict}")
        for line in _lines(finding):
            print(f"    {line}")
    print(f"{'Everything agrees.' if not wrong else f'{wrong} of these differ.'}", flush=True)
    return 1 if wrong else 0


def _count(problems: list[tuple[str | None, str]]) -> str:
    return "in one place" if len(problems) == 1 else f"in {len(problems)} places"


def _lines(finding: Finding | None) -> list[str]:
    """Problems, alike ones once, and notes."""
    if finding is None:
        return []
    alike: dict[str, list[str]] = {}
    for step, problem in finding.problems:
        text = f"{step}: {problem}" if step else problem
        alike.setdefault(re.sub(r"nan|inf|[-\d.,:;() ]+", " ", text), []).append(text)
    lines = [first + (f" (and {len(rest)} more of this kind)" if rest else "") for first, *rest in alike.values()]
    more = [f"... and {len(lines) - _SHOWN} more kinds"] if len(lines) > _SHOWN else []
    return [*lines[:_SHOWN], *more, *finding.notes]
