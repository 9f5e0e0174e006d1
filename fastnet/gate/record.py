"""The record: results stored per commit in a file that git ignores, and the commits at which a benchmark changed.

Every comparison adds ratios between two commits. A benchmark's level at a commit is the level at the commit with which it
was compared, multiplied by the ratio, so that the record does not depend on the speed of the machine on each day.
"""
from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np

from fastnet.gate import GateError
from fastnet.gate.render import SCHEMA, Result
from fastnet.gate.repository import git

SIGNIFICANCE = 0.01
_PERMUTATIONS = 999
_SHORTEST = 3  # commits between two change points


@dataclass(frozen=True)
class Series:
    """The levels of one benchmark, relative to its first commit, and where they changed."""

    name: str
    commits: list[str]
    levels: list[float]
    changes: list[int]  # the first commit of each new level

    def ratio(self, change: int) -> float:
        """Return the ratio of the times after and before a change point, up to the neighbouring change points."""
        number = self.changes.index(change)
        ends = [0, *self.changes, len(self.levels)]
        before, after = self.levels[ends[number]:change], self.levels[change:ends[number + 2]]
        return float(np.median(after) / np.median(before))


def record(file: Path, repository: Path, result: Result, base: str, head: str) -> str:
    """Add a comparison to the record, and return a message about it."""
    place = file if file.is_absolute() else repository / file
    try:
        git(repository, "cat-file", "-e", head)
    except GateError:
        return "not recorded: head has uncommitted changes, so that it has no commit"
    if not result.rows:
        return "not recorded: there were no benchmarks to compare"
    place.parent.mkdir(parents=True, exist_ok=True)
    if not file.is_absolute() and place.parent != repository and not (place.parent / ".gitignore").exists():
        (place.parent / ".gitignore").write_text("*\n", encoding="utf-8")
    rows = {row.name: {"ratio": row.change.ratio, "base": row.base, "verdict": row.verdict} for row in result.rows}
    entry = {"schema": SCHEMA, "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
             "base": base, "head": head, "rows": rows}
    with open(place, "a", encoding="utf-8") as lines:
        lines.write(json.dumps(entry) + "\n")
    return f"recorded in {place}"


def read(file: Path) -> list[Series]:
    """The series of all benchmarks in a record, in the order in which their commits were compared."""
    try:
        entries = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        found: dict[str, dict[str, float]] = {}
        for entry in entries:
            for name, row in entry["rows"].items():
                levels = found.setdefault(name, {})
                start = levels.setdefault(entry["base"], log(row["base"]))
                levels[entry["head"]] = start + log(row["ratio"])
    except OSError as error:
        raise GateError(f"{file} cannot be read ({error.strerror}): fastnet compare BASE HEAD --record makes it.") \
            from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GateError(f"{file} is not a record of fastnet compare ({type(error).__name__}: {error}).") from error
    return [Series(name, list(levels), [exp(level - next(iter(levels.values()))) for level in levels.values()],
                   change_points(list(levels.values()))) for name, levels in sorted(found.items())]


def change_points(values: Sequence[float]) -> list[int]:
    """Where the distribution of a series changes: the first places of new segments.

    The method is E-divisive: the split with the largest energy distance between both sides is kept if few random
    orders of the segment have a split as good, and both sides are searched again (D. S. Matteson and N. A. James, *A
    nonparametric approach for multiple change point analysis of multivariate data*, JASA 109, 2014; used for benchmarks by
    Hunter, now Apache Otava).
    """
    series, rng, found = np.asarray(values, np.float64), np.random.default_rng(0), []
    segments = [(0, len(series))]
    while segments:
        start, end = segments.pop()
        if end - start < 2 * _SHORTEST:
            continue
        part = series[start:end]
        place, best = _split(part)
        better = sum(_split(rng.permutation(part))[1] >= best for _ in range(_PERMUTATIONS))
        if best > 0 and (better + 1) / (_PERMUTATIONS + 1) <= SIGNIFICANCE:
            found.append(start + place)
            segments += [(start, start + place), (start + place, end)]
    return sorted(found)


def _split(part: np.ndarray) -> tuple[int, float]:
    """The best place to split a segment, and the energy distance of its sides, scaled by their sizes."""
    distances = np.abs(part[:, None] - part)
    sums = np.zeros((len(part) + 1,) * 2)
    sums[1:, 1:] = distances.cumsum(axis=0).cumsum(axis=1)
    places = np.arange(_SHORTEST, len(part) - _SHORTEST + 1)
    left, right = places, len(part) - places
    within_left, total = sums[places, places], sums[-1, -1]
    across = sums[places, -1] - within_left
    within_right = total - within_left - 2 * across
    energy = 2 * across / (left * right) - within_left / left**2 - within_right / right**2
    scaled = energy * left * right / len(part)
    return int(places[np.argmax(scaled)]), float(scaled.max())


def show(file: Path, plot: Path | None) -> tuple[str, dict[str, Any], int]:
    """The record as Markdown and for JSON; the exit code is 0, as a record is no verdict."""
    series = read(file)
    if plot:
        from fastnet.gate.plot import draw_record

        draw_record(series, plot)
    lines = [f"## {len(series)} benchmark{'s' * (len(series) != 1)} in {file}", "",
             "| benchmark | commits | since the first | changes |", "| --- | ---: | ---: | --- |"]
    for one in series:
        changes = [f"`{one.commits[place][:10]}` {100 * (one.ratio(place) - 1):+.1f} %" for place in one.changes]
        since = f"{100 * (one.levels[-1] - 1):+.1f} %"
        lines.append(f"| `{one.name}` | {len(one.commits)} | {since} | {', '.join(changes) or 'none'} |")
    table = {"schema": SCHEMA, "verdict": "ok", "exit_code": 0, "series": [
        {"name": one.name, "commits": one.commits, "levels": one.levels, "changes": one.changes} for one in series]}
    return "\n".join(lines) + "\n", table, 0
