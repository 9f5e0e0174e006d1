"""How honest is the gate? ``python -m bench.studies.power``

Makes a small project of its own, with NumPy and Numba kernels of a few milliseconds, and puts the gate to three tests:
equal code must not be called regressed, one kernel made 15 % slower must, and a whole machine made 15 % slower by busy
loops must not. The table that it prints stands in ``fastnet/gate/README.md``.
"""
import argparse
import contextlib
import json
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

from fastnet.gate import GateError
from fastnet.gate.compare import MIN_ROUNDS, SETTINGS, compare, prepare
from fastnet.gate.environment import CURRENT, Recipe
from fastnet.gate.judge import INCONCLUSIVE, OK, REGRESSED, need_scipy
from fastnet.gate.limits import Limits
from fastnet.gate.render import Result, to_json
from fastnet.gate.repository import git
from fastnet.gate.runs import STATISTICS, Settings

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


class Study:
    """The project, checked out once, and the cores to share out among comparisons that run at the same time."""

    def __init__(self, repository: Path, stack: contextlib.ExitStack, jobs: int, settings: Settings, rounds: int):
        self.settings, self.rounds, self.jobs = settings, rounds, jobs
        self.prepared = {head: stack.enter_context(prepare(repository, {"base": "base", "head": head, "same": "base"}, ".",
                                                           "bench", _silent, Recipe(CURRENT)))
                         for head in ("equal", *(f"slow-{name}" for name in NAMES))}
        allowed = sorted(os.sched_getaffinity(0))
        self.free: queue.Queue[list[int]] = queue.Queue()
        for job in range(jobs):
            self.free.put(allowed[job::jobs])
        self.duration = 0.0  # of the last comparison

    def run(self, what: str, trials: int) -> list[Result]:
        with ThreadPoolExecutor(self.jobs) as pool:
            return list(pool.map(lambda number: self._trial(what, number), range(trials)))

    def _trial(self, what: str, number: int) -> Result:
        head = f"slow-{NAMES[number % len(NAMES)]}" if what == "kernel" else "equal"
        cores = self.free.get()
        os.sched_setaffinity(0, cores)  # of this thread, and so of the processes that it starts
        start = time.monotonic()
        delay = random.Random(number).uniform(0, 0.7 * self.duration)
        loops = slower_machine(cores, delay) if what == "machine" else contextlib.nullcontext()
        try:
            with loops:
                result = compare(self.prepared[head], Limits(), rounds=self.rounds, settings=self.settings, seed=number)
        finally:
            self.free.put(cores)
        self.duration = time.monotonic() - start
        print(f"{what} {number + 1}: {_describe(result, head)}", file=sys.stderr, flush=True)
        return result


def _silent(text: str) -> None:
    """The study prints a line a comparison; a line a round would be too many."""


def _describe(result: Result, head: str) -> str:
    changes = ", ".join(f"{row.name.partition('test_')[2]} {100 * (row.batches[-1].head.ratio - 1):+.1f} %"
                        for row in result.rows)
    return f"{head} is {result.verdict} ({changes})"


def to_table(results: dict[str, list[Result]]) -> str:
    lines = ["| what differs | comparisons | ok | regressed | inconclusive |", "| --- | ---: | ---: | ---: | ---: |"]
    for what, found in results.items():
        verdicts = Counter(result.verdict for result in found)
        figures = [len(found), *(verdicts[verdict] for verdict in (OK, REGRESSED, INCONCLUSIVE))]
        lines.append(f"| {WHAT[what]} | {' | '.join(map(str, figures))} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.power", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--what", choices=WHAT, action="append", help="differs; may be repeated (default: each of them)")
    add("--trials", type=int, default=20, help="comparisons of each kind (default: %(default)s)")
    add("--rounds", type=int, default=MIN_ROUNDS, help="(default: %(default)s)")
    add("--seconds", type=float, default=SETTINGS.seconds, help="of each benchmark in a process (default: %(default)s)")
    add("--statistic", choices=STATISTICS, default=SETTINGS.statistic, help="(default: %(default)s)")
    add("--jobs", type=int, default=1, help="comparisons at a time, each on cores of its own (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write all results there")
    args = parser.parse_args(argv)
    if not hasattr(os, "sched_setaffinity"):
        parser.exit(2, "could not run: the busy loops must be bound to cores, which this system does not offer.\n")
    if not 1 <= args.jobs <= len(os.sched_getaffinity(0)):
        parser.exit(2, f"could not run: --jobs is {args.jobs}; expected 1 to {len(os.sched_getaffinity(0))}, the cores.\n")
    try:
        need_scipy()
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            make_project(Path(folder))
            study = Study(Path(folder), stack, args.jobs, Settings(args.statistic, args.seconds), args.rounds)
            results = {what: study.run(what, args.trials) for what in args.what or WHAT}
    except (GateError, KeyboardInterrupt) as error:
        parser.exit(2, f"could not run: {str(error) or 'stopped'}\n")
    print(to_table(results))
    if args.json:
        args.json.write_text(json.dumps({what: [to_json(result) for result in found]
                                         for what, found in results.items()}))
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up then, too
    sys.exit(main())
