"""How honest is the gate? ``python -m bench.studies.power``

Makes a small project, with NumPy and Numba kernels of a few milliseconds, and puts the gate to three tests:
equal code must not be called regressed, one kernel made 15 % slower must, and a whole machine made 15 % slower by busy
loops must not. The results are kept in a file, so that the study can be run in parts: ``--more 2`` runs two more
comparisons, in about two minutes.
"""
import argparse
import contextlib
import multiprocessing
import os
import queue
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.studies import pieces
from bench.studies.pieces import Journal
from fastnet.gate import GateError
from fastnet.gate.compare import compare
from fastnet.gate.environment import CURRENT, Recipe
from fastnet.gate.judge import INCONCLUSIVE, OK, REGRESSED, Plan
from fastnet.gate.limits import Limits
from fastnet.gate.prepare import SETTINGS, prepare
from fastnet.gate.render import Result, to_json
from fastnet.gate.repository import git
from fastnet.gate.runs import Settings

WHAT = {"nothing": "nothing", "kernel": "one kernel, by 15 %", "machine": "the machine, by 15 % half-way"}
SLOWER = 0.15
REPEATS = 200  # of the work in each kernel: 230 are 15 % more
KERNELS = '''\
import numpy as np
from numba import njit

X = np.random.default_rng(0).standard_normal(4_000)
Y = np.empty_like(X)


@njit(cache=True)
def _polynomial(x, repeats):
    total = 0.0
    for _ in range(repeats):
        for value in x:
            total += ((value * 0.1 + 0.2) * value + 0.3) * value
    return total


def polynomial():
    return _polynomial(X, 200)


def exponential():
    for _ in range(200):
        np.exp(X, out=Y)


def cumulative():
    for _ in range(200):
        np.cumsum(X, out=Y)
'''
NAMES = ("polynomial", "exponential", "cumulative")
BENCHMARKS = "import pytest\n\nimport kernels\n\n" + "\n\n".join(
    f"def test_{name}(benchmark):\n    benchmark(kernels.{name})\n" for name in NAMES)


def make_project(folder: Path) -> None:
    """A repository with one commit tagged `base`, one `equal` to it, and for each kernel one where it is slower."""

    def commit(tag: str, kernels: str) -> None:
        (folder / "kernels.py").write_text(kernels)
        git(folder, "add", "--all")
        git(folder, "-c", "user.name=power", "-c", "user.email=power@localhost", "commit", "-q", "-m", tag)
        git(folder, "tag", tag)

    (folder / "bench").mkdir(parents=True)
    (folder / "bench" / "bench_kernels.py").write_text(BENCHMARKS)
    git(folder, "init", "--quiet")
    commit("base", KERNELS)
    commit("equal", KERNELS + "# a comment\n")
    for name in NAMES:
        commit(f"slow-{name}", make_slower(KERNELS, name))


def make_slower(source: str, name: str) -> str:
    """The injected regression: the named kernel does its work 230 times instead of 200."""
    head, body = source.split(f"def {name}(")
    return f"{head}def {name}({body.replace(f'{REPEATS})', f'{round(REPEATS * (1 + SLOWER))})', 1)}"


@contextlib.contextmanager
def slower_machine(allowed: Sequence[int], delay: float) -> Iterator[None]:
    """On every core, a busy loop that takes 13 % of the time, so that what gets the rest is 15 % slower.

    It starts after `delay` seconds, in the midst of the comparison: a change while one measures is what misleads those
    who measure one side after the other.
    """
    context = multiprocessing.get_context("spawn")
    loops = [context.Process(target=_busy, args=(core, delay), daemon=True) for core in allowed]
    for loop in loops:
        loop.start()
    try:
        yield
    finally:
        for loop in loops:
            loop.terminate()
            loop.join()


def _busy(core: int, delay: float) -> None:
    os.sched_setaffinity(0, {core})
    time.sleep(delay)
    period, share = 0.02, 1 - 1 / (1 + SLOWER)
    parent = os.getppid()
    while os.getppid() == parent:  # not forever, should the study be killed
        start = time.perf_counter()
        while time.perf_counter() - start < period * share:
            pass
        time.sleep(period * (1 - share))


# --- the study ------------------------------------------------------------------------------------------------------


Trial = tuple[str, int]  # what differs, and the how manieth


def head_of(trial: Trial) -> str:
    what, number = trial
    return f"slow-{NAMES[number % len(NAMES)]}" if what == "kernel" else "equal"


class Study:
    """The project, checked out once, and the cores to share out among comparisons that run at the same time."""

    def __init__(self, repository: Path, stack: contextlib.ExitStack, args: argparse.Namespace, journal: Journal,
                 trials: Sequence[Trial]):
        settings, self.plan, self.jobs = Settings(seconds=args.seconds), Plan(budget=args.budget), args.jobs
        self.journal, self.trials = journal, trials
        self.prepared = {head: stack.enter_context(prepare(repository, {"base": "base", "head": head, "same": "base"}, ".",
                                                           None, _silent, Recipe(CURRENT), settings))
                         for head in sorted({head_of(trial) for trial in trials})}
        allowed = sorted(os.sched_getaffinity(0))
        self.free: queue.Queue[list[int]] = queue.Queue()
        for job in range(self.jobs):
            self.free.put(allowed[job::self.jobs])
        self.duration = journal.results[-1]["seconds"] if journal.results else 0.0  # of the last comparison

    def run(self) -> None:
        with ThreadPoolExecutor(self.jobs) as pool:
            list(pool.map(self._trial, self.trials))

    def _trial(self, trial: Trial) -> None:
        (what, number), head = trial, head_of(trial)
        cores = self.free.get()
        os.sched_setaffinity(0, cores)  # of this thread, and so of the processes that it starts
        start = time.monotonic()
        delay = random.Random(number).uniform(0, 0.7 * self.duration)
        loops = slower_machine(cores, delay) if what == "machine" else contextlib.nullcontext()
        try:
            with loops:
                result = compare(self.prepared[head], Limits(), plan=self.plan, seed=number)
        finally:
            self.free.put(cores)
        self.duration = time.monotonic() - start
        self.journal.add({"what": what, "number": number, "head": head, "verdict": result.verdict,
                          "seconds": round(self.duration, 1), "result": to_json(result)})
        print(f"{what} {number + 1}: {_describe(result, head)}, {self.duration:.0f} s", file=sys.stderr, flush=True)


def _silent(text: str) -> None:
    """The study prints a line a comparison; a line a round would be too many."""


def _describe(result: Result, head: str) -> str:
    changes = ", ".join(f"{row.name.partition('test_')[2]} {100 * (row.change.ratio - 1):+.1f} %"
                        for row in result.rows)
    return f"{head} is {result.verdict} ({changes})"


def to_table(results: Sequence[dict[str, Any]]) -> str:
    lines = ["| what differs | comparisons | ok | regressed | inconclusive |", "| --- | ---: | ---: | ---: | ---: |"]
    for what, words in WHAT.items():
        verdicts = Counter(result["verdict"] for result in results if result["what"] == what)
        figures = [verdicts.total(), *(verdicts[verdict] for verdict in (OK, REGRESSED, INCONCLUSIVE))]
        lines.append(f"| {words} | {' | '.join(map(str, figures))} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.power", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    pieces.add_arguments(parser, ".benchmarks/power.jsonl")
    add("--what", choices=WHAT, action="append", help="differs; may be repeated (default: each of them)")
    add("--trials", type=int, default=20, help="comparisons of each kind in all (default: %(default)s)")
    add("--budget", type=float, default=10.0, help="minutes of measuring (default: %(default)s)")
    add("--seconds", type=float, default=SETTINGS.seconds, help="of each benchmark in a process (default: %(default)s)")
    add("--jobs", type=int, default=1, help="comparisons at a time, each on its own cores (default: %(default)s)")
    args = parser.parse_args(argv)
    if not hasattr(os, "sched_setaffinity"):
        parser.exit(2, "could not run: the busy loops must be bound to cores, which this system does not offer.\n")
    if not 1 <= args.jobs <= len(os.sched_getaffinity(0)):
        parser.exit(2, f"could not run: --jobs is {args.jobs}; expected 1 to {len(os.sched_getaffinity(0))}, the cores.\n")
    how = {"study": "power", "gate": pieces.gate_digest(), "budget": args.budget, "seconds": args.seconds}
    try:
        journal = Journal(args.state, how)
        wanted = [(what, number) for number in range(args.trials) for what in args.what or WHAT]
        trials = pieces.remaining(wanted, [(done["what"], done["number"]) for done in journal.results], args.more)
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            if trials:
                make_project(Path(folder))
                Study(Path(folder), stack, args, journal, trials).run()
    except (GateError, KeyboardInterrupt) as error:
        parser.exit(2, f"could not run: {str(error) or 'stopped'}\n")
    print(to_table(journal.results))
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up then, too
    sys.exit(main())
