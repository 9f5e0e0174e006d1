"""``fastnet compare``: the gate from the command line."""
from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastnet.gate import GateError

DESCRIPTION = """\
Did this change make anything slower? Compares two revisions of a project by its benchmarks for pytest-benchmark, such
that the answer can be believed on a shared, noisy machine: fresh processes of both sides take turns in random order, the
ratio within a round is what counts, the base runs against itself along with it, and what looks slower is measured again
before it is called regressed. With --range, walks a range of revisions and finds the commit where a step happened."""

EPILOG = """\
exit codes: 0 ok, 1 regressed, 2 inconclusive or could not run

examples:
  fastnet compare main                       main against the working tree, uncommitted changes included
  fastnet compare v1.0 my-branch             any two revisions
  fastnet compare a.json b.json              two files of pytest-benchmark
  fastnet compare --range v1.0..main --bisect  the curve over a range, and the commit of each step"""

Log = Callable[[str], None]
MIN_ROUNDS = 7  # with fewer the interval means nothing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare everything that follows ``fastnet compare``."""
    from fastnet.gate.runs import STATISTICS, Settings

    add = parser.add_argument
    add("base", metavar="BASE", nargs="?", help="a revision (branch, tag, commit), or a JSON file of pytest-benchmark's")
    add("head", metavar="HEAD", nargs="?", help="the same; by default the working tree, uncommitted changes included")
    add("--repo", type=Path, default=Path(), metavar="DIR", help="the project, if it is not where you stand")
    add("--path", metavar="FOLDER", help="of benchmarks, in the project (default: bench, benchmarks, tests/bench or "
        "tests/benchmarks)")
    add("--only", default="", metavar="EXPR", help="choose benchmarks, as pytest's -k does")
    add("--rounds", type=int, default=MIN_ROUNDS, help="processes of each side in a batch (default: %(default)s)")
    add("--seconds", type=float, default=Settings.seconds, help="of each benchmark in a process (default: %(default)s)")
    add("--statistic", choices=STATISTICS, default=Settings.statistic,
        help="the one number that a process gives for a benchmark (default: %(default)s)")
    add("--limits", type=Path, metavar="FILE", help="default: limits.toml in head's folder of benchmarks")
    add("--allow-removed", action="store_true", help="a benchmark that head no longer has is listed, but does not fail")
    add("--seed", type=int, help="of the order of runs")
    measured = parser.add_argument_group("what is measured beside time")
    measured.add_argument("--no-memory", action="store_true", help="leave out the peaks of allocations and of the process")
    measured.add_argument("--instructions", choices=("auto", "perf", "off"), default="auto",
                          help="auto: with the processor's counter, where the system offers it; perf: insist on it")
    many = parser.add_argument_group("history")
    many.add_argument("--range", metavar="OLD..NEW", dest="span", help="walk these revisions in place of BASE and HEAD")
    many.add_argument("--points", type=int, default=8, help="revisions of the range to measure (default: %(default)s)")
    many.add_argument("--bisect", action="store_true", help="search for the commit of each step")
    many.add_argument("--plot", type=Path, metavar="FILE", help="draw the curves there, as PNG, SVG or PDF")
    setup = parser.add_argument_group("environments")
    option = setup.add_argument
    option("--env", choices=("own", "inherit", "current"), default="own",
           help="own: made by pip from what each side declares, and kept; inherit: the project of each side installed on "
                "top of the packages that you have; current: the running environment for both, with nothing installed")
    option("--extra", action="append", metavar="NAME",
           help="an extra of the project that the benchmarks need; may be repeated (default: bench)")
    option("--group", action="append", metavar="NAME",
           help="a dependency group; may be repeated (default: bench, where it is declared)")
    option("-r", "--requirement", action="append", metavar="FILE",
           help="a requirement file; may be repeated (default: requirements.txt of the project and of its benchmarks)")
    option("--no-install", action="store_true", help="do not install the project: it is found in its folder, and in src/")
    option("--setup", default="", metavar="COMMAND", help='then run in each worktree, such as "make data"')
    option("--pip-args", default="", metavar="ARGS", help='further arguments of pip install, such as "--no-index"')
    option("--plugin", action="append", metavar="NAME", help="a module that pytest loads with -p, for benchmarks that "
           "need a plugin; name its package with --extra, --group or -r")
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="FILE", help="write the verdict with all numbers there")
    output.add_argument("--markdown", type=Path, metavar="FILE", help="write there what is printed as well")


def parser(prog: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog=prog, formatter_class=argparse.RawDescriptionHelpFormatter,
                                   description=DESCRIPTION, epilog=EPILOG)
    add_arguments(made)
    return made


def execute(args: argparse.Namespace) -> int:
    """Compare as asked, print and write the verdict, and return the exit code."""
    from fastnet.gate.render import failed, to_json, to_markdown

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cancelled job cleans up after itself, too
    try:
        text, table, code = _compared(args, log=lambda line: print(line, file=sys.stderr, flush=True))
        print(text)
    except (GateError, KeyboardInterrupt) as error:
        result = failed(str(error) or "stopped")
        text, table, code = to_markdown(result), to_json(result), result.exit_code
        print(f"could not run: {result.problems[0]}", file=sys.stderr)
    if args.markdown:
        args.markdown.write_text(text, encoding="utf-8")
    if args.json:
        args.json.write_text(json.dumps(table, indent=1), encoding="utf-8")
    return code


def _compared(args: argparse.Namespace, log: Log) -> tuple[str, dict[str, Any], int]:
    """The answer as Markdown, as JSON, and as an exit code."""
    from fastnet.gate.files import compare_files
    from fastnet.gate.limits import read_limits
    from fastnet.gate.render import to_json, to_markdown

    _check(args)
    if str(args.base).endswith(".json"):
        limits = read_limits(args.limits or args.repo / (args.path or "bench") / "limits.toml")
        result = compare_files(Path(args.base), Path(args.head), limits, args.statistic, args.allow_removed)
    elif args.span:
        from fastnet.gate.history import walk

        return walk(args, log)
    else:
        result = _compare_revisions(args, log)
    return to_markdown(result), to_json(result), result.exit_code


def _compare_revisions(args: argparse.Namespace, log: Log) -> Any:
    from fastnet.gate.compare import called, compare, prepare
    from fastnet.gate.limits import read_limits
    from fastnet.gate.repository import find_project, find_repository

    repository, measured = find_repository(args.repo), metrics(args)
    project, path = find_project(args.repo, repository, args.path)
    revisions = {"base": args.base, "head": args.head, "same": args.base}
    with prepare(repository, revisions, project, path, log, recipe(args), settings(args)) as prepared:
        limits = read_limits(args.limits or prepared.sides["head"].project / path / "limits.toml")
        log(f"base: {called(prepared.sides['base'])}; head: {called(prepared.sides['head'])}")
        result = compare(prepared, limits, rounds=args.rounds, settings=settings(args), seed=args.seed, log=log,
                         metrics=measured, allow_removed=args.allow_removed)
    result.about["uncounted"] = uncounted(args, measured)
    return result


def recipe(args: argparse.Namespace) -> Any:
    from fastnet.gate.environment import Recipe

    def maybe(given: Sequence[str] | None) -> tuple[str, ...] | None:
        return None if given is None else tuple(given)

    return Recipe(args.env, tuple(args.extra or ("bench",)), maybe(args.group), maybe(args.requirement), args.pip_args,
                  not args.no_install, args.setup)


def settings(args: argparse.Namespace) -> Any:
    from fastnet.gate.runs import Settings

    return Settings(args.statistic, args.seconds, args.only, tuple(args.plugin or ()))


def metrics(args: argparse.Namespace) -> list[str]:
    """What the probe is to measure beside time."""
    from fastnet.gate import instructions

    found = [] if args.no_memory else ["allocated", "process"]
    if args.instructions != "off" and instructions.available():
        found.append(instructions.COUNTER)
    elif args.instructions == "perf":
        raise GateError(f"--instructions perf: {instructions.WHY_NOT}. Leave the option out.")
    return found


def uncounted(args: argparse.Namespace, measured: Sequence[str]) -> str:
    """What a reader of the verdict must know of the instructions, if they were wanted and could not be counted."""
    from fastnet.gate import instructions

    if args.instructions == "off" or instructions.COUNTER in measured:
        return ""
    return f"Instructions were not counted: {instructions.WHY_NOT}."


def _check(args: argparse.Namespace) -> None:
    """Ask before anything is measured, so that nobody waits in vain."""
    from fastnet.gate.judge import need_scipy

    files = [str(given).endswith(".json") for given in (args.base, args.head)]
    if args.span and (args.base or args.head):
        raise GateError(f"Got {args.base} and --range {args.span}: expected one of them.")
    if not args.span and not args.base:
        raise GateError("Name a revision to compare with, as in `fastnet compare main`, or --range OLD..NEW.")
    if all(files):
        return
    if any(files):
        raise GateError(f"Got {args.base} and {args.head or 'nothing'}: expected two revisions, or two JSON files.")
    if args.rounds < MIN_ROUNDS:
        raise GateError(f"--rounds is {args.rounds}; with fewer than {MIN_ROUNDS} the interval means nothing.")
    if args.setup and args.env == "current":
        raise GateError("--setup would change the environment that you are in: leave out `--env current`.")
    if args.seconds <= 0:
        raise GateError(f"--seconds is {args.seconds}; expected a positive number, such as 0.2.")
    need_scipy()


def main(argv: Sequence[str] | None = None, prog: str = "fastnet compare") -> int:
    return execute(parser(prog).parse_args(argv))
