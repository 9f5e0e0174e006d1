"""The command line of ``fastnet check``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastnet.check import _forms, _text
from fastnet.check._folder import Layout
from fastnet.check._reference import NAMES, NEXT
from fastnet.check._run import run

DESCRIPTION = (
    "Compare the layers that you wrote for the course with its equations, and show what is wrong, in which line and why. "
    "This takes about a second."
)
EPILOG = (
    "Verdicts: ok; ok with remarks (it passes the course, but could be better); DIFFERS; MISSING. Exit code: 0 if nothing "
    "differs or is missing, 1 otherwise, 2 if there is nothing to compare."
)
RUBRIC = {"full": 15.0, "relu": 10.0, "softmax": 15.0, "cross_entropy": 15.0, "sequential": 15.0}  # the chapter's Table 3.2


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
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path,
                        help="a folder with full.py, relu.py and so on, or a single file of all layers")
    parser.add_argument("--timeout", metavar="SECONDS", type=_seconds, default=2.0,
                        help="processor time limit for each file (default: 2)")
    for option, const, what in (
        ("json", "-", "all results as JSON"),
        ("table", "-", "one line per file, with tabs between the columns"),
        ("gradescope", "results.json", "the results for Gradescope"),
        ("html", "check.html", "a web page with your matrices next to the right ones, and a training curve"),
    ):
        where = "standard output" if const == "-" else const
        parser.add_argument(
            f"--{option}", metavar="FILE", nargs="?", const=const, help=f"write {what} (default: to {where})"
        )
    parser.add_argument("--points", metavar="FILE=N,...", nargs="?", const=RUBRIC, type=_points,
                        help="points for each file that is ok (default: those of the chapter's Table 3.2)")


def execute(arguments: argparse.Namespace) -> int:
    """Compare each folder; return the largest exit code."""
    reports, code = [], 0
    for given in arguments.folders:
        report = examine(given, arguments.timeout, arguments.points)
        if report is None:
            code = 2
            continue
        reports.append(report)
        code = max(code, int(report["verdict"] == "differs"))
        if not any(getattr(arguments, name) == "-" for name in ("json", "table", "gradescope")):
            print(_text.report(report), flush=True)
    if arguments.gradescope and len(reports) > 1:
        print("fastnet check: Gradescope accepts the results of only one folder. Give one folder.", file=sys.stderr)
        return 2
    for name in ("json", "table", "gradescope", "html"):
        target = getattr(arguments, name)
        if target and reports:
            _write(target, getattr(_forms, f"as_{name}")(reports))
    return code


def examine(given: Path, seconds: float = 2.0, points: dict[str, float] | None = None) -> dict[str, Any] | None:
    """Compare one folder.

    Parameters
    ----------
    given : path
        The folder of layers, the folder that contains it, or a single file with all layers.
    seconds : float
        Processor time limit for each file.
    points : dict, optional
        Module name -> points for a file that is ok.

    Returns
    -------
    dict or None
        ``folder``, ``verdict``, ``rows`` (one per file) and ``curves``; None if there is nothing to compare.
    """
    layout = Layout(given)
    if not layout.files:
        what = (
            "there is no such folder" if not Path(given).exists() else
            f"it contains none of the course's modules ({', '.join(NAMES)})"
        )
        print(f"fastnet check: {given}: {what}", file=sys.stderr)
        return None
    expected = {**NAMES, **(NEXT if layout.files.keys() & NEXT.keys() else {})}
    there = [stem for stem in expected if stem in layout.files]
    extra = ["dataset"] if layout.path.is_dir() and (layout.path / "dataset.py").is_file() else []
    findings = run(layout, [*there, *extra, "training"], seconds)
    rows = [_row(stem, name, findings.get(stem)) for stem, name in expected.items()]
    start = findings.get("__init__")
    if start and not _reported_elsewhere(start, rows):
        rows.insert(0, _row("__init__", "the package", start))
    clean = all(row["verdict"].startswith("ok") for row in rows)
    if "dataset" in findings:
        rows.append(_row("dataset", "the data", findings["dataset"]))
    curves = findings.get("training", {}).get("curves")
    if "training" in findings:
        rows.append(_row("training", "a network, trained", findings["training"] if clean else
                         {"verdict": "not judged", "remarks": ["because a layer differs or is missing"]}))
    for row in rows:
        if points and row["stem"] in points:
            row["points"] = points[row["stem"]] * row["verdict"].startswith("ok")
            row["of"] = points[row["stem"]]
    wrong = any(row["verdict"] in ("differs", "missing") for row in rows)
    remarks = any(row["verdict"] == "ok with remarks" for row in rows)
    return {
        "folder": str(layout.path),
        "verdict": "differs" if wrong else "ok with remarks" if remarks else "ok",
        "rows": rows,
        "curves": curves,
    }


def _reported_elsewhere(start: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
    """Return whether a file's row reports why the package fails: a missing class, or code that cannot be imported."""
    message = start["faults"][0]["message"]
    return any((row["verdict"] == "missing" and (f"'layers.{row['stem']}'" in message or row["name"] in message))
               or (row["verdict"] == "differs" and row["file"] == start["file"]) for row in rows)


def _row(stem: str, name: str, finding: dict[str, Any] | None) -> dict[str, Any]:
    empty = {"verdict": "missing", "file": f"{stem}.py", "faults": [], "remarks": [], "compared": 0, "matrices": []}
    kept = {key: value for key, value in (finding or {}).items() if key not in ("result", "curves")}
    return {"stem": stem, "name": name, **empty, **kept}


def _write(target: str, text: str) -> None:
    if target == "-":
        print(text)
        return
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"fastnet check: wrote {path}", file=sys.stderr)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError
    return seconds


def _points(text: str) -> dict[str, float]:
    points = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        name = name.strip().removesuffix(".py")
        if name not in {*NAMES, *NEXT} or not number:
            raise argparse.ArgumentTypeError(f"{part!r} is not FILE=POINTS, with FILE one of {', '.join({**NAMES, **NEXT})}")
        points[name] = float(number)
    return points
