"""Did this change make anything slower? ``python -m bench.compare BASE [HEAD]``

Compares two revisions of a project by its pytest-benchmark folder, such that the answer can be believed on a shared,
noisy machine: fresh processes of both sides take turns in random order, the ratio within a round is what counts, the
base runs against itself along with it, and whoever looks slower is measured again before being called *regressed*.
``bench/README.md`` explains how to read the answer.
"""
import argparse
import contextlib
import itertools
import json
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.gate import GateError, sides
from bench.gate.judge import INCONCLUSIVE, Arms, judge, judge_count, judge_single, need_scipy
from bench.gate.limits import Limits, read_limits
from bench.gate.render import Result, failed, to_json, to_markdown
from bench.gate.runs import STATISTICS, Run, Settings, cores, read_run, run
from bench.gate.sides import SIDES, Side
from bench.harness.statistics import paired_ratio

MIN_ROUNDS = 7
SECOND_BATCH = 2  # times as many rounds as the first one: it decides, and only the suspicious run in it
SETTINGS = Settings()
Log = Callable[[str], None]
Batch = dict[str, list[Run]]  # for each side, a run a round


# --- measuring ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def prepare(repository: Path, base: str, head: str | None, path: str, log: Log, *, own_environment: bool = True,
            extras: Sequence[str] = ("bench",), setup: str = "") -> Iterator[dict[str, Side]]:
    """Worktrees, environments and caches for base, head and same; all but the environments go at the end."""
    commits = {"base": sides.find_commit(repository, base)}
    commits["head"], head_called = (sides.snapshot(repository) if head is None else
                                    (sides.find_commit(repository, head), head))
    called = {"base": base, "head": head_called}
    with sides.worktrees(repository, commits["base"], commits["head"], path) as trees:
        found = {}
        for name in SIDES:
            kind = "head" if name == "head" else "base"
            python = Path(sys.executable)
            if own_environment:
                python = sides.environment(sides.requirements(trees[name], path, extras), log)
                python = sides.own_copy(python, trees[name].parent) if setup else python
            found[name] = Side(name, called[kind], commits[kind], trees[name], python, trees[name].parent,
                               sides.installed(python))
            if setup:
                sides.set_up(found[name], setup)
        yield found


def orders(rounds: int, rng: np.random.Generator) -> list[tuple[str, ...]]:
    """Who goes first, second, third in each round: every order once in six rounds, the six shuffled."""
    every = list(itertools.permutations(SIDES))
    chosen: list[tuple[str, ...]] = []
    while len(chosen) < rounds:
        chosen += [every[i] for i in rng.permutation(len(every))]
    return chosen[:rounds]


def measure(prepared: dict[str, Side], repository: Path, targets: Sequence[str], rounds: int, settings: Settings,
            rng: np.random.Generator, log: Log) -> Batch:
    """One batch: `rounds` times a fresh process of each side."""
    batch: Batch = {name: [] for name in SIDES}
    start = time.monotonic()
    for number, order in enumerate(orders(rounds, rng), start=1):
        for name in order:
            batch[name].append(run(prepared[name], repository, targets, settings, number))
        left = (time.monotonic() - start) / number * (rounds - number)
        log(f"round {number}/{rounds} ({', '.join(order)}), {left:.0f} s left")
    return batch


def compare(prepared: dict[str, Side], repository: Path, path: str, limits: Limits, *, rounds: int = MIN_ROUNDS,
            settings: Settings = SETTINGS, seed: int | None = None, log: Log = lambda text: None) -> Result:
    """Warm up, measure a batch, measure the suspicious again, and judge."""
    seed = int(np.random.default_rng().integers(2**32)) if seed is None else seed
    rng = np.random.default_rng(seed)
    log("warming up: compiling, filling caches")
    warm = {name: run(prepared[name], repository, [path], replace(settings, seconds=0.001), 0) for name in SIDES}
    _check_common(warm, path)

    batches = [measure(prepared, repository, [path], rounds, settings, rng, log)]
    names, problems, notes = _sort_out(warm, batches[0])
    arms = {name: [_arms(batches[0], name)] for name in names}
    suspects = [name for name in names if arms[name][0].suspicious(limits.of(name))]
    if suspects:
        log(f"{len(suspects)} suspicious: a second batch for {'it' if len(suspects) == 1 else 'them'}")
        batches.append(measure(prepared, repository, suspects, SECOND_BATCH * rounds, settings, rng, log))
        again = [name for name in suspects if _always(batches[1], name)]
        problems += [f"`{name}` was not measured in every round of the second batch" for name in suspects
                     if name not in again]
        for name in again:
            arms[name].append(_arms(batches[1], name))

    def middle(side: str, name: str) -> float:
        return float(np.median([run.times[name] for run in batches[0][side]]))

    rows = [judge(name, middle("base", name), middle("head", name), limits.of(name), arms[name]) for name in names]
    counts = _judge_counts(batches[0]["base"] + batches[0]["same"], batches[0]["head"], limits)
    about = {"base": _called(prepared["base"]), "head": _called(prepared["head"]), "rounds": rounds, "seed": seed,
             "statistic": settings.statistic, "machine": f"{platform.machine()}, {cores()} cores",
             "times": [{side: [run.times for run in runs] for side, runs in batch.items()} for batch in batches]}
    return Result(rows, counts, problems, notes + _package_notes(prepared), about)


def _arms(batch: Batch, name: str) -> Arms:
    times = {side: [run.times[name] for run in runs] for side, runs in batch.items()}
    return Arms(paired_ratio(times["base"], times["head"]), paired_ratio(times["base"], times["same"]))


def _always(batch: Batch, name: str) -> bool:
    return all(name in run.times for runs in batch.values() for run in runs)


def _check_common(warm: dict[str, Run], path: str) -> None:
    for name in ("head", "base"):
        if not warm[name].times:
            reasons = "".join(f"\n  {where}: {why}" for where, why in list(warm[name].reasons.items())[:5])
            raise GateError(f"No benchmark in {path!r} could be run on {name}" + (f":{reasons}" if reasons else
                            ": it has no tests that use pytest-benchmark's fixture in bench_*.py or test_*.py."))
    if not warm["base"].times.keys() & warm["head"].times.keys():
        raise GateError("base and head have no benchmark in common: nothing to compare.")


def _sort_out(warm: dict[str, Run], batch: Batch) -> tuple[list[str], list[str], list[str]]:
    """The benchmarks that all processes measured; what is wrong with the others; what is merely worth knowing."""
    names, problems, notes = [], [], []
    for name in sorted(warm["base"].times.keys() | warm["head"].times.keys()):
        if _always(batch, name):
            names.append(name)
        elif name not in warm["base"].times:
            notes.append(f"`{name}` is new: it does not run on base ({_reason(warm['base'], name)})")
        elif name not in warm["head"].times:
            problems.append(f"`{name}` runs on base but not on head: {_reason(warm['head'], name)}")
        else:
            problems.append(f"`{name}` was not measured in every round")
    return names, problems, notes


def _reason(run: Run, name: str) -> str:
    """Of the benchmark itself, or of its file, if that could not be collected."""
    return run.reasons.get(name) or run.reasons.get(name.split("::")[0]) or "it was not collected"


def _judge_counts(base: Sequence[Run], head: Sequence[Run], limits: Limits) -> list:
    rows = []
    for name, counted in sorted(head[0].counts.items()):
        for count in counted:
            before = [run.counts[name][count] for run in base if count in run.counts.get(name, {})]
            after = [run.counts[name][count] for run in head if count in run.counts.get(name, {})]
            if before:
                rows.append(judge_count(name, count, before, after, limits.of_count(count)))
    return rows


def _called(side: Side) -> str:
    return f"{side.revision} ({side.commit[:10]})"


def _package_notes(prepared: dict[str, Side]) -> list[str]:
    base, head = prepared["base"].packages, prepared["head"].packages
    return [f"{name} is {base.get(name, 'absent')} on base, {head.get(name, 'absent')} on head"
            for name in sorted(base.keys() | head.keys()) if base.get(name) != head.get(name)]


# --- two files ------------------------------------------------------------------------------------------------------


def compare_files(base: Path, head: Path, limits: Limits, statistic: str) -> Result:
    """Two files of pytest-benchmark's: one process a side, so differences are shown but nobody is accused."""
    before, after = read_run(base, statistic), read_run(head, statistic)
    names = sorted(before.times.keys() & after.times.keys())
    if not names:
        raise GateError(f"{base} and {head} have no benchmark in common: nothing to compare.")
    rows = [judge_single(name, before.times[name], after.times[name], limits.of(name)) for name in names]
    notes = [f"`{name}` is only in {file}" for run, other, file in ((before, after, base), (after, before, head))
             for name in sorted(run.times.keys() - other.times.keys())]
    problems = [] if before.machine == after.machine else [
        f"The files come from two machines ({before.machine or 'unknown'}; {after.machine or 'unknown'})"]
    if any(row.verdict == INCONCLUSIVE for row in rows):
        notes.append("To know, compare the revisions: python -m bench.compare BASE HEAD")
    return Result(rows, _judge_counts([before], [after], limits), problems, notes,
                  {"base": f"`{base}`", "head": f"`{head}`", "statistic": statistic})


# --- the command ----------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.compare", formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__,
        epilog="Exit codes: 0 ok, 1 regressed, 2 inconclusive or could not run.")
    add = parser.add_argument
    add("base", metavar="BASE", help="a revision (branch, tag, commit), or a JSON file of pytest-benchmark's")
    add("head", metavar="HEAD", nargs="?", help="the same; by default the working tree, uncommitted changes included")
    add("--repo", type=Path, default=Path(), metavar="DIR", help="the project, if it is not where you stand")
    add("--path", default="bench", metavar="FOLDER", help="of benchmarks, inside the project (default: %(default)s)")
    add("--only", default="", metavar="EXPR", help="choose benchmarks, as pytest's -k does")
    add("--rounds", type=int, default=MIN_ROUNDS, help="processes of each side in a batch (default: %(default)s)")
    add("--seconds", type=float, default=SETTINGS.seconds, help="of each benchmark in a process (default: %(default)s)")
    add("--statistic", choices=STATISTICS, default=SETTINGS.statistic,
        help="the one number that a process gives for a benchmark (default: %(default)s)")
    add("--limits", type=Path, metavar="FILE", help="default: limits.toml in head's folder of benchmarks")
    add("--env", choices=("own", "current"), default="own",
        help="own: environments made from what each side declares, and kept; current: the running one, for both")
    add("--extra", action="append", metavar="NAME",
        help="an extra of the project that the benchmarks need; may be repeated (default: bench)")
    add("--setup", default="", metavar="COMMAND",
        help='run in each worktree first, such as "python -m pip install --no-deps -e ."')
    add("--seed", type=int, help="of the order of runs")
    add("--json", type=Path, metavar="FILE", help="write the verdict with all numbers there")
    add("--markdown", type=Path, metavar="FILE", help="write there what is printed as well")
    return parser


def _compare_from(args: argparse.Namespace, log: Log) -> Result:
    files = [str(given).endswith(".json") for given in (args.base, args.head)]
    if all(files):
        limits = read_limits(args.limits or args.repo / args.path / "limits.toml")
        return compare_files(Path(args.base), Path(args.head), limits, args.statistic)
    if any(files):
        raise GateError(f"Got {args.base} and {args.head or 'nothing'}: expected two revisions, or two JSON files.")
    if args.rounds < MIN_ROUNDS:
        raise GateError(f"--rounds is {args.rounds}; with fewer than {MIN_ROUNDS} the interval means nothing.")
    if args.setup and args.env == "current":
        raise GateError("--setup would change the environment that you are in: leave out `--env current`.")
    if args.seconds <= 0:
        raise GateError(f"--seconds is {args.seconds}; expected a positive number, such as {SETTINGS.seconds}.")
    need_scipy()
    repository = sides.find_repository(args.repo)
    with prepare(repository, args.base, args.head, args.path, log, own_environment=args.env == "own",
                 extras=args.extra or ("bench",), setup=args.setup) as prepared:
        limits = read_limits(args.limits or prepared["head"].tree / args.path / "limits.toml")
        log(f"base: {_called(prepared['base'])}; head: {_called(prepared['head'])}")
        return compare(prepared, repository, args.path, limits, rounds=args.rounds, seed=args.seed, log=log,
                       settings=Settings(args.statistic, args.seconds, args.only))


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        result = _compare_from(args, log=lambda text: print(text, file=sys.stderr, flush=True))
        print(to_markdown(result))
    except (GateError, KeyboardInterrupt) as error:
        result = failed(str(error) or "stopped")
        print(f"could not run: {result.problems[0]}", file=sys.stderr)
    if args.markdown:
        args.markdown.write_text(to_markdown(result), encoding="utf-8")
    if args.json:
        args.json.write_text(json.dumps(to_json(result), indent=1), encoding="utf-8")
    return result.exit_code


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cancelled job cleans up after itself, too
    sys.exit(main())
