"""Compare two files of pytest-benchmark: one process per side, so differences are shown but nobody is accused."""
from __future__ import annotations

from pathlib import Path

from fastnet.gate import GateError
from fastnet.gate.compare import judge_counts
from fastnet.gate.judge import INCONCLUSIVE, judge_metric, judge_single
from fastnet.gate.limits import Limits
from fastnet.gate.render import Result
from fastnet.gate.runs import read_run


def compare_files(base: Path, head: Path, limits: Limits, statistic: str, allow_removed: bool = False) -> Result:
    """Judge the times of both, and what was counted, which needs no second look."""
    before, after = read_run(base), read_run(head)
    names = sorted(before.times.keys() & after.times.keys())
    if not names:
        raise GateError(f"{base} and {head} have no benchmark in common: nothing to compare.")
    for file, run in ((base, before), (head, after)):
        lacks = next((name for name in names if statistic not in run.times[name]), None)
        if lacks:
            raise GateError(f"{file} has no {statistic!r} of {lacks}; it has {', '.join(run.times[lacks])}.")
    rows = [judge_single(name, before.times[name][statistic], after.times[name][statistic], limits.of(name), statistic)
            for name in names]
    counts = judge_counts([before], [after], limits)
    counts += [row for name in names
               for row in judge_metric(name, [{"base": before.metrics, "head": after.metrics}], limits)]
    notes = [f"`{name}` is new: it is only in {head}" for name in sorted(after.times.keys() - before.times.keys())]
    problems = [] if before.machine == after.machine else [
        f"The files come from two machines ({before.machine or 'unknown'}; {after.machine or 'unknown'})"]
    if any(row.verdict == INCONCLUSIVE for row in rows):
        notes.append("To know, compare the revisions: fastnet compare BASE HEAD")
    return Result(rows, counts, removed=sorted(before.times.keys() - after.times.keys()), allow_removed=allow_removed,
                  problems=problems, notes=notes,
                  about={"base": f"`{base}`", "head": f"`{head}`", "statistics": [statistic]})
