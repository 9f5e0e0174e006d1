"""Statistics and verdicts: from the numbers of many processes to *ok*, *regressed* or *inconclusive*.

Every round runs one process of each side, close together in time, and each process gives one number a benchmark. A
machine that slows down slows both sides of a round, so the logarithm of their ratio barely moves: that, and not the
times, is what is judged. The median over rounds ignores the rounds that something else disturbed.
"""
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.gate import GateError
from bench.statistics import Estimate

OK, REGRESSED, INCONCLUSIVE = "ok", "regressed", "inconclusive"
EXIT_CODE = {OK: 0, REGRESSED: 1, INCONCLUSIVE: 2}


def exceeds(estimate: Estimate, limit: float) -> bool:
    """Past the limit, and slower at all with confidence."""
    return estimate.ratio > 1 + limit and estimate.low > 1


@dataclass(frozen=True)
class Arms:
    """One batch of one benchmark: the change under test, and the base against itself."""

    head: Estimate
    same: Estimate

    def suspicious(self, limit: float) -> bool:
        return exceeds(self.head, limit) or exceeds(self.same, limit)


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


def judge(name: str, base: float, head: float, limit: float, batches: Sequence[Arms]) -> Row:
    """Regressed only if every one of two batches says so; inconclusive if the base "regressed" against itself."""
    confirmed = len(batches) == 2
    if confirmed and all(exceeds(batch.same, limit) for batch in batches):
        verdict, note = INCONCLUSIVE, "the base differs from itself by more than the limit: the machine is too noisy"
    elif confirmed and all(exceeds(batch.head, limit) for batch in batches):
        verdict, note = REGRESSED, ""
    elif confirmed and exceeds(batches[0].head, limit):
        verdict, note = OK, "suspicious at first, not confirmed by the second batch"
    else:
        verdict, note = OK, ""
    return Row(name, base, head, limit, tuple(batches), verdict, note)


def judge_single(name: str, base: float, head: float, limit: float) -> Row:
    """From one process a side, as in two files: good enough to pass, never to accuse."""
    if head / base - 1 > limit:
        return Row(name, base, head, limit, (), INCONCLUSIVE, "past the limit, but one process a side proves nothing")
    return Row(name, base, head, limit, (), OK)


@dataclass(frozen=True)
class CountRow:
    """The verdict on a number that does not depend on the machine's load: allocations, modules, signatures."""

    benchmark: str
    count: str
    base: float
    head: float
    limit: float
    verdict: str


def judge_count(benchmark: str, count: str, base: Sequence[float], head: Sequence[float], limit: float) -> CountRow:
    """Regressed if the least that head ever counted is more than the most that base did, and the limit."""
    grown = min(head) > max(base) * (1 + limit)
    return CountRow(benchmark, count, median(base), median(head), limit, REGRESSED if grown else OK)


def overall(rows: Sequence[Row], counts: Sequence[CountRow], problems: Sequence[str]) -> str:
    """One verdict for all. Counts are exact, so they stand even where times are not to be trusted."""
    verdicts = {row.verdict for row in rows}
    if any(count.verdict == REGRESSED for count in counts):
        return REGRESSED
    if problems or INCONCLUSIVE in verdicts:
        return INCONCLUSIVE
    return REGRESSED if REGRESSED in verdicts else OK
