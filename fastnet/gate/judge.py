"""Verdicts: from the numbers of many processes to *ok*, *regressed* or *inconclusive*.

A process measures two statistics of a benchmark: `fast`, the sample that a tenth of the samples are faster than, and
`typical`, the mean of the fastest three quarters, which also detects work that only every second call does. The gate
compares head with two copies of the base: the base itself and its control, a second checkout of the same revision.
`fastnet.gate.statistics` computes an interval for each pair. The interval of a row covers both, so that a conclusion must
hold against both copies.

=============  ====================================================================================
regressed      the interval of one of the two statistics lies above the limit
ok             the intervals of both lie below it; *faster* if they lie below 1 / (1 + limit)
inconclusive   neither; more rounds or a quieter machine may decide
=============  ====================================================================================

The error of `Plan` is that of a whole run. With probability 1 - `Plan.error` the run calls no row regressed that is not
slower by more than its limit, however many rows and rounds it has. With the same probability it calls no row ok that is
slower.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import log
from statistics import median

import numpy as np

from fastnet.gate.limits import Limits
from fastnet.gate.statistics import Estimate, capital, confidence_sequence, log_ratios, rounds_needed

OK, FASTER, REGRESSED, INCONCLUSIVE = "ok", "faster", "regressed", "inconclusive"
EXIT_CODE = {OK: 0, REGRESSED: 1, INCONCLUSIVE: 2}
STATISTICS = ("fast", "typical")
Times = Mapping[str, Mapping[str, Sequence[float]]]  # by statistic, then by side: seconds, one per round


@dataclass(frozen=True)
class Plan:
    """The length of a comparison, and its probability of error.

    Parameters
    ----------
    error : float
        The largest probability that a run calls any row regressed by mistake.
    rounds : int
        The largest number of rounds.
    budget : float, optional
        Minutes of measuring. The default is 10, or twice the time that a quiet machine needs if that is longer.
    """

    error: float = 0.01
    rounds: int = 100
    budget: float | None = None

    def row_error(self, rows: int, statistics: int = len(STATISTICS)) -> float:
        """Return the error of one side of one interval in a run."""
        return self.error / max(1, rows * statistics)

    def quick(self, rows: int, statistics: int = len(STATISTICS)) -> int:
        """Return the number of rounds that a quiet machine needs."""
        return rounds_needed(self.row_error(rows, statistics))


@dataclass(frozen=True)
class Row:
    """The verdict on one benchmark."""

    name: str
    base: float  # seconds, the median over rounds
    change: Estimate  # head to base, by the statistic that decided
    control: Estimate  # base to its control, by the same
    limit: float
    verdict: str
    statistic: str = STATISTICS[0]
    note: str = ""
    all: dict[str, Estimate] = field(default_factory=dict)  # the change by each statistic

    @property
    def head(self) -> float:
        """Seconds of head: the base's, times the change."""
        return self.base * self.change.ratio

    @property
    def seen(self) -> float:
        """The smallest true slowdown, as a ratio, for which an interval of this width would lie above the limit."""
        return (1 + self.limit) * self.change.ratio / self.change.low if self.change.low > 0 else float("inf")


def change(base: Sequence[float], same: Sequence[float], head: Sequence[float], error: float) -> Estimate:
    """Estimate head's ratio to the base, with an interval that covers those against both copies of the base."""
    first, second = confidence_sequence(base, head, error), confidence_sequence(same, head, error)
    middle = float(np.exp(np.median((log_ratios(base, head) + log_ratios(same, head)) / 2)))
    return Estimate(middle, min(first.low, second.low), max(first.high, second.high), len(base))


def judge(name: str, times: Times, limit: float, error: float) -> Row:
    """Judge one benchmark after some rounds. The error holds for all rounds together.

    Parameters
    ----------
    name : str
    times : dict
        One number per round, by statistic and by side: base, same and head.
    limit : float
        The allowed slowdown, as a fraction.
    error : float
        The error of each side of an interval, see `Plan.row_error`.
    """
    found = {statistic: change(sides["base"], sides["same"], sides["head"], error) for statistic, sides in times.items()}
    slower = [statistic for statistic, one in found.items() if one.low > 1 + limit]
    if slower:
        verdict, shown = REGRESSED, slower[0]
    else:
        shown = max(found, key=lambda statistic: found[statistic].high)
        within = all(one.high < 1 + limit for one in found.values())
        verdict = INCONCLUSIVE if not within else FASTER if found[shown].high < 1 / (1 + limit) else OK
    sides = times[shown]
    control = confidence_sequence(sides["base"], sides["same"], error)
    note = _why_undecided(found[shown], control, limit) if verdict == INCONCLUSIVE else ""
    return Row(name, float(np.median(sides["base"])), found[shown], control, limit, verdict, shown, note, found)


def _why_undecided(change: Estimate, control: Estimate, limit: float) -> str:
    if control.low > 1 + limit or control.high < 1 / (1 + limit):
        return "the base differs from its control by more than the limit"
    if change.high == float("inf"):
        return f"too few rounds: {change.rounds}"
    return "the interval contains the limit"


def rounds_left(times: Times, limit: float, error: float) -> float:
    """Estimate how many more rounds a row needs for a decision, from the rounds so far."""
    slower: list[float] = []
    within: list[float] = []
    for sides in times.values():
        pairs = [log_ratios(sides[copy], sides["head"]) - log(1 + limit) for copy in ("base", "same")]
        rounds = len(pairs[0])
        for needed, wins in ((slower, min(int((pair > 0).sum()) for pair in pairs)),
                             (within, min(int((pair < 0).sum()) for pair in pairs))):
            pace = log(max(capital(wins, rounds - wins), 1.0)) / rounds
            needed.append(max(0.0, log(1 / error) / pace - rounds) if pace > 0 else float("inf"))
    return min([*slower, max(within)])


def judge_single(name: str, base: float, head: float, limit: float, statistic: str) -> Row:
    """Judge one process per side, as in two files, which gives no interval: a slowdown above the limit is inconclusive."""
    nothing = Estimate(head / base, 0.0, float("inf"), 1)
    if head / base - 1 > limit:
        return Row(name, base, nothing, Estimate(1.0, 0.0, float("inf"), 0), limit, INCONCLUSIVE, statistic,
                   "above the limit, but one process per side proves nothing")
    return Row(name, base, nothing, Estimate(1.0, 0.0, float("inf"), 0), limit, OK, statistic)


@dataclass(frozen=True)
class CountRow:
    """The verdict on a number that does not depend on the machine's load: bytes, instructions, modules, signatures."""

    benchmark: str
    count: str
    base: float
    head: float
    limit: float
    verdict: str
    slack: float = 0.0  # growth that may be chance, in the count's unit

    @property
    def grown(self) -> bool:
        return self.verdict == REGRESSED


# The growth of a metric that may be chance, such as one more page or a resized dictionary.
_SLACK = {"allocated": 16_384.0, "process": 4_194_304.0, "instructions": 20_000.0}


def judge_count(benchmark: str, count: str, base: Sequence[float], head: Sequence[float], limit: float,
                slack: float = 0.0) -> CountRow:
    """Call a count regressed if head's smallest value exceeds base's largest by more than the limit and the slack."""
    grown = min(head) > max(base) * (1 + limit) + slack
    return CountRow(benchmark, count, median(base), median(head), limit, REGRESSED if grown else OK, slack)


def judge_metric(benchmark: str, rounds: Sequence[Mapping[str, Mapping[str, Mapping[str, float]]]],
                 limits: Limits) -> list[CountRow]:
    """Judge the gate's own metrics of one benchmark.

    Parameters
    ----------
    benchmark : str
    rounds : sequence of dict
        One per round: numbers by side, benchmark and metric.
    limits : Limits
    """
    rows = []
    for metric, slack in _SLACK.items():
        found: dict[str, list[float]] = {"base": [], "head": []}
        for numbers in rounds:
            for side, by_benchmark in numbers.items():
                if metric in by_benchmark.get(benchmark, {}):
                    found["head" if side == "head" else "base"].append(by_benchmark[benchmark][metric])
        if all(found.values()):
            rows.append(judge_count(benchmark, metric, found["base"], found["head"], limits.of_metric(metric, benchmark),
                                    slack))
    return rows


def overall(rows: Sequence[Row], counts: Sequence[CountRow], problems: Sequence[str]) -> str:
    """Return one verdict for all rows: regressed if any is, otherwise inconclusive if any is, otherwise ok."""
    verdicts = {row.verdict for row in rows} | {count.verdict for count in counts}
    if REGRESSED in verdicts:
        return REGRESSED
    return INCONCLUSIVE if INCONCLUSIVE in verdicts or problems else OK
