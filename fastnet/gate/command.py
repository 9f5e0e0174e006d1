"""``fastnet compare``: the gate from the command line."""
from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastnet.gate import GateError, arguments

DESCRIPTION = """\
Compare two revisions of a project by its benchmarks for pytest-benchmark, and
find out whether a change made them slower. The verdict is reliable on a shared,
noisy machine: in every round, new processes of both revisions and of a control
take turns. Rounds continue until every benchmark is decided or the budget is
spent. The default budget is the larger of 10 minutes and twice the estimated
time on a quiet machine. The probability that a run calls any benchmark
regressed by mistake is at most 1 %, however many benchmarks it has."""

EPILOG = """\
exit codes:
  0 ok
  1 regressed
  2 inconclusive, or the comparison could not run

examples:
  main against the working tree, with uncommitted changes:
    fastnet compare main
  any two revisions:
    fastnet compare v1.0 my-branch
  the time of importing the package, which needs no benchmarks:
    fastnet compare main --import
  two files of pytest-benchmark:
    fastnet compare a.json b.json
  the curve over a range of revisions, and the commit of each step:
    fastnet compare --range v1.0..main --bisect
  the results stored by --record, and where they changed:
    fastnet compare --history --plot speed.png"""

FORMATTER = argparse.RawDescriptionHelpFormatter
Log = Callable[[str], None]
RECORD = ".benchmarks/fastnet-history.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare everything that follows ``fastnet compare``."""
    from fastnet.gate.judge import Plan
    from fastnet.gate.runs import STATISTICS, Settings

    add = parser.add_argument
    add("base", metavar="BASE", nargs="?", help="a revision (branch, tag or commit), or a JSON file of pytest-benchmark")
    add("head", metavar="HEAD", nargs="?", help="the revision or file to judge (default: the working tree, with "
        "uncommitted changes)")
    add("--repo", type=Path, default=Path(), metavar="DIR", help="the project's folder (default: the current folder)")
    add("--path", metavar="PATH", help="folder or file of the benchmarks in the project (default: all files whose tests "
        "use pytest-benchmark's fixture)")
    add("--only", default="", metavar="EXPR", help="choose benchmarks, as pytest's -k does")
    add("--exclude", default="", metavar="EXPR", help="leave out benchmarks; EXPR is as in --only")
    add("--budget", type=float, metavar="MINUTES", help="largest time for measuring, in minutes (default: the larger of 10 "
        "and twice the estimated time on a quiet machine, which is printed before the first round)")
    add("--rounds", type=int, default=Plan.rounds, help="largest number of rounds (default: %(default)s)")
    add("--seconds", type=float, default=Settings.seconds, help="time for each benchmark in a process, in seconds "
        "(default: %(default)s)")
    add("--statistic", choices=STATISTICS, help="judge only this statistic of a process (default: fast, the sample that a "
        "tenth are faster than, and typical, the mean of the fastest three quarters; for files: min)")
    add("--no-turns", action="store_true", help="run the processes of a round one after the other, not in turns")
    add("--limits", type=Path, metavar="FILE", help="table of allowed slowdowns (default: head's limits.toml in the folder "
        "of the benchmarks, or above it; 5 %% without one)")
    add("--allow-removed", action="store_true", help="list benchmarks that head no longer has, but do not fail")
    add("--seed", type=int, help="seed of the random order of the processes")
    measured = parser.add_argument_group("measurements")
    measured.add_argument("--import", action="store_true", dest="imports",
                          help="measure the import of the package instead of the benchmarks")
    measured.add_argument("--package", metavar="NAME", help="the package that --import imports (default: the project's)")
    measured.add_argument("--no-memory", action="store_true", help="do not measure peak memory (of allocations, and of the "
                          "process)")
    measured.add_argument("--instructions", choices=("auto", "perf", "off"), default="auto",
                          help="count instructions with the processor's counter; auto: if the system offers it; perf: fail "
                               "without it (default: %(default)s)")
    many = parser.add_argument_group("history")
    many.add_argument("--range", metavar="OLD..NEW", dest="span", help="measure revisions of this range instead of BASE and "
                      "HEAD")
    many.add_argument("--points", type=int, default=8, help="number of revisions of the range to measure (default: "
                      "%(default)s)")
    many.add_argument("--bisect", action="store_true", help="search for the commit of each step")
    many.add_argument("--record", nargs="?", type=Path, const=Path(RECORD), metavar="FILE",
                      help=f"append the result to this file (default: {RECORD}, which git ignores)")
    many.add_argument("--history", nargs="?", type=Path, const=Path(RECORD), metavar="FILE",
                      help="only show the recorded results, and where they changed")
    many.add_argument("--plot", type=Path, metavar="FILE", help="draw the curves to this PNG, SVG or PDF file")
    setup = parser.add_argument_group("environments")
    option = setup.add_argument
    option("--env", choices=("own", "inherit", "current"), default="own",
           help="own: make an environment from each side's declared requirements, and keep it; inherit: install each "
                "side's project on top of the current packages; current: use the current environment for both sides, and "
                "install nothing (default: %(default)s)")
    option("--extra", action="append", metavar="NAME", help="an extra of the project that the benchmarks need; may be "
           "repeated (default: extras with benchmark-like names, otherwise those with test-like names)")
    option("--group", action="append", metavar="NAME", help="a dependency group that the benchmarks need; may be repeated "
           "(default: chosen by name, as for --extra)")
    option("-r", "--requirement", action="append", metavar="FILE", help="a requirement file; may be repeated (default: "
           "requirements.txt of the project and of its benchmarks, and files with benchmark-like names)")
    option("--with", action="append", metavar="PACKAGE", dest="packages", help="another package to install; may be repeated")
    option("--no-install", action="store_true", help="do not install the project, but import it from its folder or from "
           "src/")
    option("--setup", default="", metavar="COMMAND", help='a command to run in each worktree after the installation, such '
           'as "make data"')
    option("--pip-args", default="", metavar="ARGS", help='more arguments for pip install, such as "--no-index"')
    option("--plugin", action="append", metavar="NAME", help="a pytest plugin (as for -p) that the benchmarks need; name "
           "its package with --with")
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="FILE", help="write the verdict with all numbers to this file")
    output.add_argument("--markdown", type=Path, metavar="FILE", help="write the printed text to this file, too")


def parser(prog: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog=prog, formatter_class=FORMATTER, description=DESCRIPTION, epilog=EPILOG)
    add_arguments(made)
    return made


def execute(args: argparse.Namespace) -> int:
    """Compare, print and write the verdict, and return the exit code, which is 1 only for a regression."""
    from fastnet.gate.render import failed, to_json, to_markdown

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cancelled job cleans up after itself, too
    try:
        text, table, code = _compared(args, log=lambda line: print(line, file=sys.stderr, flush=True))
        print(text)
    except (Exception, KeyboardInterrupt) as error:
        why = str(error) or "stopped"
        if not isinstance(error, (GateError, KeyboardInterrupt)):
            traceback.print_exc()
            why = f"{type(error).__name__}: {why}. This is a bug in fastnet compare: please report it with the traceback"
        result = failed(why)
        text, table, code = to_markdown(result), to_json(result), result.exit_code
        print(f"could not run: {result.problems[0]}", file=sys.stderr)
    return _write(args, text, table, code)


def _write(args: argparse.Namespace, text: str, table: dict[str, Any], code: int) -> int:
    """Write the files of --json and --markdown, and the job summary of GitHub Actions."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    try:
        for file, content in ((args.markdown, text), (args.json, json.dumps(table, indent=1, allow_nan=False))):
            if file:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(content, encoding="utf-8")
        if summary:
            with open(summary, "a", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        print(f"could not write: {error}", file=sys.stderr)
        return 2
    return code


def _compared(args: argparse.Namespace, log: Log) -> tuple[str, dict[str, Any], int]:
    """Return the result as Markdown, as JSON, and as an exit code."""
    from fastnet.gate.files import compare_files
    from fastnet.gate.limits import read_limits
    from fastnet.gate.render import to_json, to_markdown

    arguments.check(args)
    if args.history:
        from fastnet.gate.record import show

        return show(args.history if args.history.exists() else _recorded(args), args.plot)
    if str(args.base).endswith(".json"):
        limits = read_limits(args.limits or args.repo / (args.path or "bench") / "limits.toml")
        result = compare_files(Path(args.base), Path(args.head), limits, args.statistic or "min", args.allow_removed)
    elif args.span:
        from fastnet.gate.history import walk

        return walk(args, log)
    else:
        result = _compare_revisions(args, log)
    return to_markdown(result), to_json(result), result.exit_code


def _recorded(args: argparse.Namespace) -> Path:
    """Return the path of the record; a relative name is relative to the top of the repository, as for --record."""
    from fastnet.gate.repository import find_repository

    try:
        return find_repository(args.repo) / args.history
    except GateError:
        return args.history


def _compare_revisions(args: argparse.Namespace, log: Log) -> Any:
    from fastnet.gate.compare import called, compare
    from fastnet.gate.limits import find_limits, read_limits
    from fastnet.gate.prepare import prepare
    from fastnet.gate.repository import find_repository

    repository, measured = find_repository(args.repo), arguments.metrics(args)
    revisions = {"base": args.base, "head": args.head, "same": args.base}
    imports = (args.package or "") if args.imports else None
    with prepare(repository, revisions, arguments.start_in(args.repo, repository), args.path, log,
                 arguments.recipe(args), arguments.settings(args),
                 imports=imports) as prepared:
        head = prepared.sides["head"]
        limits = read_limits(args.limits or find_limits(head.project, prepared.found.folders))
        log(f"base: {called(prepared.sides['base'])}; head: {called(head)}")
        result = compare(prepared, limits, plan=arguments.plan(args), seed=args.seed, log=log, metrics=measured,
                         allow_removed=args.allow_removed)
        result.about["uncounted"] = arguments.uncounted(args, measured)
        if args.record:
            from fastnet.gate.record import record

            log(record(args.record, repository, result, prepared.sides["base"].commit, head.commit))
    return result


def main(argv: Sequence[str] | None = None, prog: str = "fastnet compare") -> int:
    return execute(parser(prog).parse_args(argv))
