"""How often does the gate's judge err? By simulation: ``python -m bench.studies.verdicts``

Simulates whole runs of ``fastnet compare``: rounds of three processes in shuffled order, for 1, 10 and 100 benchmarks, on
machines of many kinds, until every row is decided or the default number of rounds is used up. The table that it prints
is in ``fastnet/gate/README.md``. Nothing is timed, so that it can run on a busy machine; it takes some minutes.

The judge is that of `fastnet.gate.judge`, vectorised: `tests/test_gate_verdicts.py` checks that both say the same.
"""
from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fastnet.gate.judge import STATISTICS, Plan
from fastnet.gate.statistics import capital, drift_reach, standard_error

LIMIT = 0.05
SIDES = ("base", "same", "head")
BUDGET = {1: 100, 10: 60, 100: 32}  # rounds that the default budget gives so many benchmarks of 0.1 s each
Noise = Callable[[np.random.Generator, tuple[int, int, int]], np.ndarray]


@dataclass(frozen=True)
class Machine:
    """A kind of noise: of each process and row, or of the three worktrees of a run."""

    name: str
    noise: Noise  # (rng, (slots, runs, rows)) -> logarithms, one slot after the other in time
    shuffled: bool = True  # whether the noise is the machine's, so that the shuffle shares it out
    offset: float = 0.0  # additional time of one worktree, drawn at random, in all its processes


def normal(sigma: float) -> Noise:
    return lambda rng, shape: rng.normal(0, sigma, shape)


def student(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    return 0.02 * rng.standard_t(2, shape)


def spikes(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """One process in ten meets a neighbour that makes it half as slow again."""
    return rng.normal(0, 0.02, shape) + np.log(1.5) * (rng.random(shape) < 0.1)


def two_modes(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Every process draws one of two memory layouts, 20 % apart."""
    return rng.normal(0, 0.01, shape) + np.log(1.2) * (rng.random(shape) < 0.5)


def autoregressive(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """The machine drifts: AR(1) from process to process with a coefficient of 0.9, 10 % in all."""
    shocks = rng.normal(0, 0.1 * np.sqrt(1 - 0.9**2), shape)
    shocks[0] = rng.normal(0, 0.1, shape[1:])
    for slot in range(1, shape[0]):
        shocks[slot] += 0.9 * shocks[slot - 1]
    return shocks


def drifting_worktrees(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Every worktree drifts independently from round to round: AR(1) with a coefficient of 0.7, 10 % in all.

    Noise belongs to slots elsewhere, and to sides here: `times` leaves it in its place.
    """
    shocks = rng.normal(0, 0.1 * np.sqrt(1 - 0.7**2), (shape[0] // 3, 3, *shape[1:]))
    shocks[0] = rng.normal(0, 0.1, shocks.shape[1:])
    for number in range(1, len(shocks)):
        shocks[number] += 0.7 * shocks[number - 1]
    return shocks.reshape(shape)


MACHINES = [Machine("normal, 1 %", normal(0.01)), Machine("normal, 5 %", normal(0.05)), Machine("normal, 10 %", normal(0.1)),
            Machine("normal, 20 %", normal(0.2)), Machine("Student's t, 2 degrees, 2 %", student), Machine("spikes", spikes),
            Machine("two modes", two_modes), Machine("AR(1), 10 %", autoregressive),
            Machine("worktrees that drift, 10 %", drifting_worktrees, shuffled=False),
            Machine("a worktree 2 % slower", normal(0.01), offset=0.02)]


@dataclass(frozen=True)
class Runs:
    """Verdicts of simulated runs, each an array of shape (runs, rows), and rounds until the last row was decided."""

    regressed: np.ndarray
    ok: np.ndarray
    rounds: np.ndarray


def times(machine: Machine, slowdown: np.ndarray, runs: int, rounds: int, rng: np.random.Generator) -> np.ndarray:
    """Logarithms of times: shape (rounds, statistics, sides, runs, rows).

    Parameters
    ----------
    slowdown : array, shape (rows,)
        Logarithm of what head takes longer.
    """
    rows = len(slowdown)
    noise = machine.noise(rng, (3 * rounds, runs, rows)).reshape(rounds, 3, runs, rows)
    order = np.argsort(rng.random((rounds, 3, runs, 1)), axis=1)
    fastest = np.take_along_axis(noise, order, axis=1) if machine.shuffled else noise
    typical = fastest + np.abs(rng.normal(0, 0.005, fastest.shape))
    found = np.stack([fastest, typical], axis=1)
    found[:, :, SIDES.index("head")] += slowdown
    unlucky = np.arange(3)[:, None] == rng.integers(3, size=runs)
    return found + np.log1p(machine.offset) * unlucky[:, :, None]


def judge(logs: np.ndarray, limit: float, plan: Plan) -> Runs:
    """Judge runs after every round, as `fastnet.gate.compare` does: a row that is decided stays so."""
    rounds, statistics, _, runs, rows = logs.shape
    ratios = logs[:, :, 2:] - logs[:, :, :2] - np.log1p(limit)  # to both copies of the base
    above, below = np.cumsum(ratios > 0, axis=0), np.cumsum(ratios < 0, axis=0)
    regressed, ok = np.zeros((runs, rows), bool), np.zeros((runs, rows), bool)
    last, error = np.full((runs, rows), rounds), plan.row_error(rows, statistics)
    for done in range(1, rounds + 1):
        wins = np.array([capital(won, done - won) for won in range(done + 1)]) >= 1 / error
        open_ = ~(regressed | ok)
        slower, within = wins[above[done - 1]].all(axis=1), wins[below[done - 1]].all(axis=(0, 1))
        candidates = open_ & (slower.any(axis=0) | within)
        if not candidates.any():
            continue
        series = ratios[:done, :, :, candidates]
        middle, reach = np.median(series, axis=0), drift_reach(error) * standard_error(series)
        slower[:, candidates] &= (middle - reach > 0).all(axis=1)
        within[candidates] &= (middle + reach < 0).all(axis=(0, 1))
        slower = slower.any(axis=0)
        regressed |= open_ & slower
        ok |= open_ & within & ~slower
        last[open_ & (slower | within)] = done
    return Runs(regressed, ok, last.max(axis=1))


def simulate(machine: Machine, rows: int, slowdown: float, runs: int, seed: int, slow_rows: int | None = None) -> Runs:
    """Runs with one slow row (or `slow_rows` of them) and others that are equal, a part at a time to save memory."""
    rng, plan, rounds = np.random.default_rng(seed), Plan(), BUDGET[rows]
    slow = np.zeros(rows)
    slow[:1 if slow_rows is None else slow_rows] = np.log1p(slowdown)
    part = max(1, 6000 // rows)
    parts = [judge(times(machine, slow, min(part, runs - done), rounds, rng), LIMIT, plan) for done in range(0, runs, part)]
    return Runs(*(np.concatenate([getattr(one, name) for one in parts]) for name in ("regressed", "ok", "rounds")))


def line(machine: Machine, rows: int, runs: int, seed: int) -> str:
    """Equal code, a row slower by twice the limit, and rows slower by the limit, which are not to be called regressed."""
    equal = simulate(machine, rows, 0.0, runs, seed)
    twice = simulate(machine, rows, 2 * LIMIT, runs, seed + 1)
    within = simulate(machine, rows, LIMIT / (1 + machine.offset) - machine.offset, runs, seed + 2, rows)
    figures = [equal.regressed.any(axis=1), within.regressed.any(axis=1), equal.ok.all(axis=1), equal.ok,
               twice.regressed[:, 0], twice.ok[:, 0]]
    shares = " | ".join(f"{100 * figure.mean():.1f} %" for figure in figures)
    return f"| {machine.name} | {rows} | {shares} | {np.median(equal.rounds):.0f} |"


HEADER = """\
| machine | rows | false *regressed*, equal code | false *regressed*, slower by the limit | run ok, equal code | \
row ok, equal code | slow row *regressed* | slow row ok | rounds |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.verdicts", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300, help="of each kind (default: %(default)s)")
    parser.add_argument("--rows", type=int, choices=BUDGET, action="append", help="may be repeated (default: 1, 10 and 100)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    start = time.monotonic()
    print(HEADER)
    for machine in MACHINES:
        for rows in args.rows or BUDGET:
            print(line(machine, rows, args.runs, args.seed), flush=True)
    print(f"{args.runs} runs each, limit {LIMIT:.0%}, {', '.join(STATISTICS)}; {time.monotonic() - start:.0f} s",
          file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
