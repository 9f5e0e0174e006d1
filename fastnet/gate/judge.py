"""Statistics and verdicts: from the numbers of many processes to *ok*, *regressed* or *inconclusive*.

Every round runs one process of each side, close together in time, and each process gives one number per benchmark. A
machine that slows down slows both sides of a round, so the logarithm of their ratio barely moves: that, and not the
times, is what is judged. The median over rounds ignores the rounds that something else disturbed.
"""
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from fastnet.gate import GateError
from fastnet.gate.limits import Limits
from fastnet.gate.statistics import Estimate

OK, FASTER, REGRESSED, INCONCLUSIVE = "ok", "faster", "regressed", "inconclusive"
EXIT_CODE = {OK: 0, REGRESSED: 1, INCONCLUSIVE: 2}


@dataclass(frozen=True)
class Arms:
    """One batch of one benchmark: the change under test, and the base against itself."""

    head: Estimate
    same: Estimate

    def suspicious(self, limit: float) -> bool:
        """Whether either may be slower than base, or head faster, by more than the limit."""
        return max(self.head.ratio, self.same.ratio) > 1 + limit or self.head.ratio < 1 / (1 + limit)


@dataclass(frozen=True)
class Row:
    """The verdict on one benchmark. `base` and `head` are seconds, for the reader; no verdict hangs on them."""

    name: str
    base: float
    head: float
    limit: float
    batches: tuple[Arms, ...]
    verdict: str
    note: str = ""


def need_scipy() -> None:
    """Ask before anything is measured, so that nobody waits in vain."""
    if importlib.util.find_spec("scipy") is None:
        raise GateError("The interval needs SciPy: pip install scipy (it is in the extra `bench`).")


def slower(first: Estimate, second: Estimate, limit: float) -> bool:
    """Past the limit in both batches, and in the second one slower at all with confidence.

    The first batch only chooses whom to look at again. Its own interval is not asked for: seven rounds of a kernel that
    neighbours disturb would let every fourth slowdown of 15 % go. The second batch is longer and had no part in the
    choice, so it convicts nobody whom the first interval would have saved.
    """
    return first.ratio > 1 + limit and second.ratio > 1 + limit and second.low > 1


def faster(first: Estimate, second: Estimate, limit: float) -> bool:
    """The same rule, the other way round."""
    return slower(_inverse(first), _inverse(second), limit)


def _inverse(estimate: Estimate) -> Estimate:
    low = 1 / estimate.high if estimate.high else 0.0
    return Estimate(1 / estimate.ratio, low, 1 / estimate.low if estimate.low else float("inf"), estimate.rounds)


def judge(name: str, base: float, head: float, limit: float, batches: Sequence[Arms]) -> Row:
    """Regressed or faster only if a second batch confirms it; inconclusive if the base "regressed" against itself."""
    verdict, note = OK, ""
    if len(batches) == 2:
        first, second = batches
        if slower(first.same, second.same, limit):
            verdict, note = INCONCLUSIVE, "the base is slower than itself by more than the limit: the machine is too noisy"
        elif slower(first.head, second.head, limit):
            verdict = REGRESSED
        elif faster(first.head, second.head, limit) and not faster(first.same, second.same, limit):
            verdict = FASTER
        elif first.head.ratio > 1 + limit:
            note = "suspicious at first, not confirmed by the second batch"
    return Row(name, base, head, limit, tuple(batches), verdict, note)


def judge_single(name: str, base: float, head: float, limit: float) -> Row:
    """From one process per side, as in two files: good enough to pass, never to accuse."""
    if head / base - 1 > limit:
        return Row(name, base, head, limit, (), INCONCLUSIVE, "past the limit, but one process per side proves nothing")
    return Row(name, base, head, limit, (), OK)


@dataclass(frozen=True)
class CountRow:
    """The verdict on a number that does not depend on the machine's load: bytes, instructions, modules, signatures."""

    benchmark: str
    count: str
    base: float
    head: float
    limit: float
    verdict: str

    @property
    def grown(self) -> bool:
        return self.verdict == REGRESSED


# What a metric may grow by in any case: less is chance, such as one more page or a dictionary that was resized.
_SLACK = {"allocated": 16_384.0, "process": 4_194_304.0, "instructions": 20_000.0}


def judge_count(benchmark: str, count: str, base: Sequence[float], head: Sequence[float], limit: float,
                slack: float = 0.0) -> CountRow:
    """Regressed if the least that head ever counted is more than the most that base did, and the limit and the slack."""
    grown = min(head) > max(base) * (1 + limit) + slack
    return CountRow(benchmark, count, median(base), median(head), limit, REGRESSED if grown else OK)


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
    """One verdict for all. Counts are exact, so they stand even where times are not to be trusted."""
    verdicts = {row.verdict for row in rows}
    if any(count.grown for count in counts):
        return REGRESSED
    if INCONCLUSIVE in verdicts:
        return INCONCLUSIVE
    if REGRESSED in verdicts:
        return REGRESSED
    return INCONCLUSIVE if problems else OK
