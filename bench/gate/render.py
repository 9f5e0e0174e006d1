"""A result as Markdown, fit for a pull request's comment, and as JSON."""
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.gate.judge import EXIT_CODE, INCONCLUSIVE, OK, REGRESSED, CountRow, Row, overall
from bench.harness.table import seconds

_SIGN = {OK: "✅", REGRESSED: "❌", INCONCLUSIVE: "⚠️"}


@dataclass(frozen=True)
class Result:
    """All that a comparison found."""

    rows: list[Row]
    counts: list[CountRow] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # these make the verdict inconclusive
    notes: list[str] = field(default_factory=list)  # these only inform
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        return overall(self.rows, self.counts, self.problems)

    @property
    def exit_code(self) -> int:
        return EXIT_CODE[self.verdict]


def failed(why: str) -> Result:
    """What stands in the files when there was nothing to compare."""
    return Result([], problems=[why])


def to_json(result: Result) -> dict[str, Any]:
    return {"verdict": result.verdict, "exit_code": result.exit_code, **asdict(result)}


def to_markdown(result: Result) -> str:
    """The verdict, what led to it, and everything else folded away."""
    rows = sorted(result.rows, key=lambda row: -_ratio(row))
    blamed = [row for row in rows if row.verdict != OK]
    rest = [row for row in rows if row.verdict == OK]
    grown = [count for count in result.counts if count.verdict != OK]
    parts = [f"## {_SIGN[result.verdict]} Benchmarks: {result.verdict if rows else 'could not run'}"]
    if result.about:
        parts.append(_summary(result))
    if blamed:
        parts.append(_table(blamed))
    if grown:
        parts.append(_count_table(grown))
    parts += [_list(title, lines) for title, lines in (("Problems", result.problems), ("Notes", result.notes))
              if lines]
    if rest:
        title = f"{_benchmarks(rest)} within the limits"
        parts.append(f"<details><summary>{title}</summary>\n\n{_table(rest)}\n\n</details>")
    return "\n\n".join(parts) + "\n"


def _summary(result: Result) -> str:
    about = result.about
    lines = [f"`base` is {about['base']}, `head` is {about['head']}."]
    if "rounds" in about:
        again = sum(len(row.batches) == 2 for row in result.rows)
        lines.append(f"{_benchmarks(result.rows)}, {about['rounds']} rounds, the {about['statistic']} of each process; "
                     f"{again or 'none'} looked suspicious{' and went through a second batch' * (again > 0)}. "
                     f"{about['machine']}.")
    return "  \n".join(lines)


def _ratio(row: Row) -> float:
    return row.batches[-1].head.ratio if row.batches else row.head / row.base


def _table(rows: list[Row]) -> str:
    lines = ["| benchmark | base | head | change | 95 % interval | base against itself | limit | verdict |",
             "| --- | ---: | ---: | ---: | :---: | ---: | ---: | --- |"]
    for row in rows:
        verdict = row.verdict if row.verdict == OK else f"**{row.verdict}**"
        if row.note:
            verdict += f": {row.note}"
        lines.append(_line(_code(row.name), seconds(row.base), seconds(row.head), _percent(_ratio(row)),
                           *_evidence(row), f"{100 * row.limit:.3g} %", verdict))
    return "\n".join(lines)


def _evidence(row: Row) -> tuple[str, str]:
    """Of the last batch: the first one chose the suspects, so its figures flatter the suspicion."""
    if not row.batches:
        return "", ""
    last = row.batches[-1]
    return f"{_percent(last.head.low)} … {_percent(last.head.high)}", _percent(last.same.ratio)


def _count_table(counts: list[CountRow]) -> str:
    lines = ["| benchmark | counted | base | head | limit | verdict |", "| --- | --- | ---: | ---: | ---: | --- |"]
    lines += [_line(_code(row.benchmark), row.count, f"{row.base:g}", f"{row.head:g}", f"{100 * row.limit:.3g} %",
                    f"**{row.verdict}**") for row in counts]
    return "\n".join(lines)


def _list(title: str, lines: list[str]) -> str:
    return "\n".join([f"{title}:\n", *(f"- {line}" for line in lines)])


def _benchmarks(rows: list[Row]) -> str:
    return f"{len(rows)} benchmark{'s' * (len(rows) != 1)}"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _code(name: str) -> str:
    return f"`{name}`".replace("|", "\\|")


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %"

