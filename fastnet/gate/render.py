"""A result as Markdown, for a comment on a pull request, and as JSON."""
from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from fastnet.gate.judge import EXIT_CODE, FASTER, INCONCLUSIVE, OK, REGRESSED, STATISTICS, CountRow, Row, overall
from fastnet.gate.statistics import Estimate

SCHEMA = 2  # of the JSON file, described by verdict.schema.json; it changes when a field is renamed or removed
_SIGN = {OK: "✅", REGRESSED: "❌", INCONCLUSIVE: "⚠️"}
_METRICS = {"allocated": "peak of allocations", "process": "peak of the process", "instructions": "instructions"}
_ORDER = (REGRESSED, INCONCLUSIVE, FASTER, OK)


@dataclass(frozen=True)
class Result:
    """The result of a comparison."""

    rows: list[Row]
    counts: list[CountRow] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)  # benchmarks or files that were not compared, and why
    removed: list[str] = field(default_factory=list)  # benchmarks that only base has
    allow_removed: bool = False
    problems: list[str] = field(default_factory=list)  # these make the verdict inconclusive
    notes: list[str] = field(default_factory=list)  # these only inform
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        open_questions = [*self.problems, *self.missing, *([] if self.allow_removed else self.removed)]
        return overall(self.rows, self.counts, open_questions)

    @property
    def exit_code(self) -> int:
        return EXIT_CODE[self.verdict]

    @property
    def moved(self) -> bool:
        """Whether anything changed or is unknown."""
        return self.verdict != OK or bool(self.removed) or any(row.verdict != OK for row in self.rows)


def failed(why: str) -> Result:
    """Return the result of a comparison that could not run."""
    return Result([], problems=[why])


def to_json(result: Result) -> dict[str, Any]:
    """Return the result in the form of ``verdict.schema.json``; an unknown end of an interval is null."""
    return {"schema": SCHEMA, "verdict": result.verdict, "exit_code": result.exit_code, "moved": result.moved,
            "rows": [_row(row) for row in result.rows], "counts": [asdict(count) for count in result.counts],
            "missing": result.missing, "removed": result.removed, "allow_removed": result.allow_removed,
            "problems": result.problems, "notes": result.notes, "about": result.about}


def _row(row: Row) -> dict[str, Any]:
    return {"name": row.name, "verdict": row.verdict, "note": row.note, "limit": row.limit, "statistic": row.statistic,
            "base_seconds": row.base, "head_seconds": row.head, "change": estimate(row.change),
            "control": estimate(row.control), "smallest_seen": _finite(row.seen),
            "statistics": {name: estimate(one) for name, one in row.all.items()}}


def estimate(one: Estimate) -> dict[str, Any]:
    """Convert an estimate for JSON, which has no infinity."""
    return {"ratio": one.ratio, "low": one.low or None, "high": _finite(one.high), "rounds": one.rounds}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def to_markdown(result: Result) -> str:
    """Return the verdict and the rows that led to it, with all other rows folded away."""
    rows = sorted(result.rows, key=lambda row: (_ORDER.index(row.verdict), -row.change.ratio))
    shown = [row for row in rows if row.verdict != OK]
    rest = [row for row in rows if row.verdict == OK]
    grown = [count for count in result.counts if count.grown]
    same = [count for count in result.counts if not count.grown]
    parts = [f"## {_SIGN[result.verdict]} Benchmarks: {headline(result)}"]
    if shown:
        parts.append(_table(shown))
    if grown:
        parts.append(_count_table(grown))
    removed = [f"`{name}`" for name in result.removed]
    missing = [f"`{name}` {why}" for name, why in result.missing.items()]
    may = "allowed by `--allow-removed`" if result.allow_removed else "`--allow-removed` lets this pass"
    for title, lines in (("Not compared", missing), (f"Removed ({may})", removed), ("Problems", result.problems),
                         ("Notes", result.notes)):
        if lines:
            parts.append(_list(title, lines))
    if rest:
        parts.append(_folded(f"{_benchmarks(len(rest))} within the limits", _table(rest)))
    if same:
        parts.append(_folded(f"{len(same)} counts within the limits", _count_table(same)))
    if result.about:
        parts.append(_summary(result))
    return "\n\n".join(parts) + "\n"


def headline(result: Result) -> str:
    """Return one line with the verdict and the number of rows that led to it."""
    if not result.rows and result.verdict == INCONCLUSIVE and result.problems:
        return "could not run"
    numbers = {what: sum(row.verdict == what for row in result.rows) for what in (REGRESSED, FASTER, INCONCLUSIVE)}
    numbers |= {"not compared": len(result.missing), "removed": len(result.removed),
                "needing more memory or counting more": sum(count.grown for count in result.counts)}
    details = ", ".join(f"{number} {what}" for what, number in numbers.items() if number)
    return f"{result.verdict} ({details})" if details else result.verdict


def _summary(result: Result) -> str:
    about = result.about
    lines = [f"`base` is {about['base']}, `head` is {about['head']}."]
    if "rounds" in about:
        stopped = f", then {about['given_up']}" if about.get("given_up") else ""
        rounds = f"{about['rounds']} round{'s' * (about['rounds'] != 1)}"
        lines.append(f"{_benchmarks(len(result.rows))}, {rounds}{stopped}. The probability that the run calls any benchmark "
                     f"regressed by mistake is at most {100 * about['error']:g} %. {about['machine']}.")
    if about.get("uncounted"):
        lines.append(about["uncounted"])
    return "  \n".join(lines)


def _table(rows: list[Row]) -> str:
    """Return a table with the verdict first, whose columns are narrow enough for a comment on a pull request."""
    lines = ["| verdict | benchmark | change | interval | limit | base | head | base / control | could have seen |",
             "| --- | --- | ---: | :---: | ---: | ---: | ---: | ---: | ---: |"]
    for row in rows:
        verdict = row.verdict if row.verdict == OK else f"**{row.verdict}**"
        if row.note:
            verdict += f": {row.note}"
        change = _percent(row.change.ratio) + ("" if row.statistic == STATISTICS[0] else f" ({row.statistic})")
        known = row.change.rounds > 1
        lines.append(_line(verdict, _code(row.name), change, interval(row.change) if known else "",
                           f"{100 * row.limit:.3g} %", seconds(row.base), seconds(row.head),
                           _percent(row.control.ratio) if known else "",
                           _percent(row.seen) if known and math.isfinite(row.seen) else ""))
    return "\n".join(lines)


def interval(one: Estimate) -> str:
    """Return the ends of the interval in per cent."""
    return f"{_percent(one.low)} … {_percent(one.high)}" if math.isfinite(one.high) else "too few rounds"


def _count_table(counts: list[CountRow]) -> str:
    lines = ["| verdict | benchmark | counted | base | head | limit |", "| --- | --- | --- | ---: | ---: | ---: |"]
    for row in counts:
        verdict = f"**{row.verdict}**" if row.grown else row.verdict
        slack = f" + {_amount(row.count, row.slack)}" if row.slack else ""
        lines.append(_line(verdict, _code(row.benchmark), _METRICS.get(row.count, row.count), _amount(row.count, row.base),
                           _amount(row.count, row.head), f"{100 * row.limit:.3g} %{slack}"))
    return "\n".join(lines)


def _amount(count: str, value: float) -> str:
    if count not in ("allocated", "process"):
        return f"{value:g}" if value < 1e6 else f"{value:.4g}"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{value / scale:.4g} {unit}"
    return f"{value:.0f} B"


def seconds(value: float) -> str:
    """Return a time with three digits and a unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def _list(title: str, lines: list[str]) -> str:
    return "\n".join([f"{title}:\n", *(f"- {line}" for line in lines)])


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def _benchmarks(number: int) -> str:
    return f"{number} benchmark{'s' * (number != 1)}"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _code(name: str) -> str:
    return f"`{name}`".replace("|", "\\|")


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %"
