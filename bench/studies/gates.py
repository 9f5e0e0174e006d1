"""The same two revisions judged by six tools under a noisy neighbour: ``python -m bench.studies.gates``

The study makes a small project in plain Python. `fastnet compare`, `benchmatrix`, `asv continuous`, `pyperf compare_to`,
`pytest-benchmark compare` and `pytest-perf` each say whether the second revision is slower, with a limit of 5 %: once for
equal code, and once for one function that is 15 % slower. Meanwhile another process on the same cores computes and sleeps
at random. A *false alarm* is a comparison that calls an unchanged function slower, and a *detection* is one that calls the
slower function slower. The tools take turns, so that the rest of the machine's load is the same for all of them. The table
is in ``fastnet/gate/README.md``. Needs benchmatrix, asv, virtualenv, pyperf and pytest-perf; the study names those that
are missing, and leaves them out.

The results are kept in a file, so that the study can be run in parts: ``--more 2`` runs two more comparisons, and ``--more
0`` only prints the table. ``--prove`` shows that the study understands each tool's alarm: without the other process, on a
function that takes twice as long, and on equal code.
"""
from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import math
import multiprocessing
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.studies import pieces
from bench.studies.pieces import Journal
from fastnet.gate import GateError, workspace
from fastnet.gate.repository import git

LIMIT = 0.05
NAMES = ("numbers", "words")
CHANGED = "words"
KERNELS = '''\
def numbers():
    total = 0
    for i in range(20_000):
        total += i * i
    return total


def words():
    return [str(i) for i in range({words})]
'''
PROJECT = "judged"
FILES = {
    "setup.py": f"from setuptools import setup\n\nsetup(name={PROJECT!r}, version='1', py_modules=['kernels'])\n",
    ".gitignore": "asv\n.benchmarks\n__pycache__\n",
    "bench/bench_kernels.py": "import kernels\n\n" + "\n\n".join(
        f"def test_{name}(benchmark):\n    benchmark(kernels.{name})\n" for name in NAMES),
    "asv_bench/__init__.py": "",
    "asv_bench/benchmarks.py": "import kernels\n\n" + "\n\n".join(
        f"def time_{name}():\n    kernels.{name}()\n" for name in NAMES),
    "matrix.py": ("from benchmatrix import BenchmarkCase, make_benchmark_test\n\nimport kernels\n\n"
                  f"test_kernels = make_benchmark_test({{name: getattr(kernels, name) for name in {NAMES}}}, "
                  "[BenchmarkCase.from_values('all')], metrics=['single_call_latency'])\n"),
    "exercises.py": '"""Exercises for pytest_perf."""\n\n\n' + "\n\n".join(
        f"def perf_{name}():\n    import kernels\n    # end warmup\n    kernels.{name}()\n\n\nperf_{name}.control = 'base'\n"
        for name in NAMES),
    "perf.py": "import pyperf\n\nimport kernels\n\nrunner = pyperf.Runner()\n" + "".join(
        f"runner.bench_func({name!r}, kernels.{name})\n" for name in NAMES),
}
ASV_INSTALL = ("""in-dir={build_dir} python -c "import shutil, sysconfig; """
               """shutil.copy('kernels.py', sysconfig.get_paths()['purelib'])\"""")  # as pip does, in less than a minute
SLOWER, UNDECIDED = "slower", "undecided"
Alarms = set[str]  # the functions that a tool calls slower
Said = dict[str, str]  # SLOWER or UNDECIDED, by function; the tool says of no other that it is slower


def make_project(folder: Path) -> None:
    """Revisions `base`, `equal` (a comment more), `slow` (one function 15 % slower) and `twice` (that one twice as slow)."""
    folder.mkdir(parents=True)
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "asv.conf.json").write_text(json.dumps({
        "version": 1, "project": "judged", "repo": ".", "branches": ["HEAD"], "environment_type": "virtualenv",
        "benchmark_dir": "asv_bench", "env_dir": "asv/env", "results_dir": "asv/results", "html_dir": "asv/html",
        "build_command": [], "uninstall_command": [], "install_command": [ASV_INSTALL]}))
    git(folder, "init", "--quiet")
    git(folder, "remote", "add", "origin", folder.as_uri())  # pytest-perf installs the base from there
    sources = {"base": KERNELS.format(words=20_000), "equal": KERNELS.format(words=20_000) + "# a comment\n",
               "slow": KERNELS.format(words=23_000), "twice": KERNELS.format(words=40_000)}
    for tag, source in sources.items():
        (folder / "kernels.py").write_text(source)
        git(folder, "add", "--all")
        git(folder, "-c", "user.name=study", "-c", "user.email=study@localhost", "commit", "-q", "-m", tag)
        git(folder, "tag", tag)


@contextlib.contextmanager
def noisy_neighbour(seed: int) -> Iterator[None]:
    """A process on the same cores that computes and sleeps, for up to three seconds each, at random."""
    process = multiprocessing.get_context("spawn").Process(target=_neighbour, args=(seed, os.getpid()), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def _neighbour(seed: int, parent: int) -> None:
    rng = random.Random(seed)
    while os.getppid() == parent:  # not forever, should the study be killed
        end = time.monotonic() + rng.uniform(0.1, 3)
        while time.monotonic() < end:
            pass
        time.sleep(rng.uniform(0.1, 3))


# --- the tools ------------------------------------------------------------------------------------------------------


def by_fastnet(project: Path, head: str, scratch: Path) -> Said:
    """`fastnet compare --budget 1`: a minute at most, times only."""
    out = scratch / "verdict.json"
    said = _call([sys.executable, "-m", "fastnet", "compare", "base", head, "--env", "current", "--no-memory",
                  "--instructions", "off", "--budget", "1", "--json", str(out)], project)
    rows = json.loads(out.read_text())["rows"] if out.exists() else []
    if len(rows) != len(NAMES):
        raise GateError(f"fastnet compare did not compare everything:\n{said[-2000:]}")
    words = {"regressed": SLOWER, "inconclusive": UNDECIDED}
    return {row["name"].partition("test_")[2]: words[row["verdict"]] for row in rows if row["verdict"] in words}


def by_benchmatrix(project: Path, head: str, scratch: Path) -> Said:
    """`benchmatrix collect-paired` with its own number of pairs, 0.1 s a function and process, as fastnet; limit 5 %."""
    for name, revision in (("base", "base"), ("head", head)):
        git(scratch, "clone", "--quiet", "--branch", revision, str(project), name)
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--benchmark-only", "--benchmark-max-time=0.1",
              "matrix.py"]
    matrix = [sys.executable, "-m", "benchmatrix"]
    _call([*matrix, "collect-paired", "--output", "paired", "--baseline-cwd", "base", "--candidate-cwd", "head",
           "--", *pytest, ":::", *pytest], scratch, "")
    return said_by_benchmatrix(_call([*matrix, "compare", "paired", "--paired", "--threshold", f"{LIMIT:.0%}", "--format",
                                      "json"], scratch))


def said_by_benchmatrix(said: str) -> Said:
    _expect('"comparisons"', said)
    words = {"regressed": SLOWER, "inconclusive": UNDECIDED}
    cells = {cell["implementation_name"]: cell["regression"] for cell in json.loads(said)["comparisons"]}
    if sorted(cells) != sorted(NAMES) or not {"regressed", "inconclusive", "unchanged", "improved"} >= set(cells.values()):
        raise GateError(f"benchmatrix did not compare everything: {cells}")
    return {name: words[verdict] for name, verdict in cells.items() if verdict in words}


def by_pytest_benchmark(project: Path, head: str, scratch: Path) -> Said:
    """Run base and save it, run head and compare: `--benchmark-compare-fail=min:5%`."""
    said = ""
    for revision in ("base", head):
        _check_out(project, revision)
        options = ["--benchmark-save=base"] if revision == "base" else [
            "--benchmark-compare", f"--benchmark-compare-fail=min:{LIMIT:.0%}"]
        said = _call([sys.executable, "-m", "pytest", "bench/bench_kernels.py", "-q", "-p", "no:cacheprovider",
                      f"--benchmark-storage={scratch / 'stored'}", *options], project)
    return dict.fromkeys(alarms_of_pytest_benchmark(said), SLOWER)


def alarms_of_pytest_benchmark(said: str) -> Alarms:
    """A line per alarm: test_words (0001_base) - Field 'min' has failed PercentageRegressionCheck: 14.9 > 5.0"""
    _expect("Comparing against benchmarks from", said)
    return set(re.findall(r"^\s*test_(\w+) .* has failed \w*RegressionCheck", said, re.MULTILINE))


def by_pytest_perf(project: Path, head: str, scratch: Path) -> Said:
    """`pytest` on its exercises: it installs both revisions, times each once with timeit, and prints the difference."""
    _check_out(project, head)
    options = ["-q", "-p", "no:benchmark", "-p", "no:cacheprovider"]
    said = _call([sys.executable, "-m", "pytest", "exercises.py", *options], project)
    return dict.fromkeys(alarms_of_pytest_perf(said), SLOWER)


def alarms_of_pytest_perf(said: str) -> Alarms:
    """A line per function: exercises.py:perf_words: 1.52 msec (+120 µsec, 9%)"""
    _expect("= perf =", said)
    found = re.findall(r"^exercises.py:perf_(\w+): .*, (-?\d+)%\)$", said, re.MULTILINE)
    return {name for name, percent in found if int(percent) > 100 * LIMIT}


def by_asv(project: Path, head: str, scratch: Path) -> Said:
    """`asv continuous --interleave-rounds --factor 1.05`: four rounds, in each of which both revisions are timed."""
    shutil.rmtree(project / "asv" / "results", ignore_errors=True)
    asv = [sys.executable, "-m", "asv"]
    _call([*asv, "machine", "--yes"], project)
    options = ["--interleave-rounds", "-a", "rounds=4", "--factor", str(1 + LIMIT)]
    return dict.fromkeys(alarms_of_asv(_call([*asv, "continuous", *options, "base", head], project)), SLOWER)


def alarms_of_asv(said: str) -> Alarms:
    """A row per change, the slower ones with a plus sign: | + | 1.17±0.02ms | 1.36±0.01ms | 1.16 | module.time_words |"""
    _expect("BENCHMARKS NOT SIGNIFICANTLY CHANGED" if "NOT SIGNIFICANTLY" in said else "| Change", said)
    return set(re.findall(r"^\|\s*\+.*\btime_(\w+)", said, re.MULTILINE))


def by_pyperf(project: Path, head: str, scratch: Path) -> Said:
    """`pyperf compare_to --min-speed 5` of two runs with `--fast`: ten processes each."""
    files = []
    for revision in ("base", head):
        _check_out(project, revision)
        files.append(str(scratch / f"{revision}.json"))
        _call([sys.executable, "perf.py", "--fast", "--min-time", "0.03", "--quiet", "-o", files[-1]], project)
    return dict.fromkeys(alarms_of_pyperf(_call(
        [sys.executable, "-m", "pyperf", "compare_to", "--min-speed", f"{100 * LIMIT:g}", *files], project)), SLOWER)


def alarms_of_pyperf(said: str) -> Alarms:
    """A line per change: words: Mean +- std dev: [base] 1.17 ms +- 0.03 ms -> [slow] 1.36 ms +- 0.02 ms: 1.16x slower"""
    _expect("[base]" if "[base]" in said else "Benchmark hidden because not significant", said)
    return set(re.findall(r"^(\w+): .*\bslower$", said, re.MULTILINE))


def _expect(words: str, said: str) -> None:
    """A tool that did not compare is no tool without alarms."""
    if words not in said:
        raise GateError(f"it did not compare; expected {words!r} in:\n{said[-2000:]}")


def _check_out(project: Path, revision: str) -> None:
    git(project, "checkout", "--quiet", "--force", revision)


TOOLS: dict[str, tuple[str, Callable[[Path, str, Path], Said]]] = {
    "fastnet compare": ("pytest_benchmark", by_fastnet), "benchmatrix": ("benchmatrix", by_benchmatrix),
    "asv continuous": ("asv", by_asv), "pyperf compare_to": ("pyperf", by_pyperf),
    "pytest-benchmark compare": ("pytest_benchmark", by_pytest_benchmark), "pytest-perf": ("pytest_perf", by_pytest_perf)}
THREE_OUTCOMES = {"fastnet compare", "benchmatrix"}


def _call(command: Sequence[str], folder: Path, path: str | None = None) -> str:
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
    env["PIP_NO_BUILD_ISOLATION"] = env["UV_NO_BUILD_ISOLATION"] = "1"  # setuptools need not be downloaded each time
    root = str(Path(__file__).parents[2])
    env["PYTHONPATH"] = path if path is not None else root if "fastnet" in command else str(folder)
    return subprocess.run(command, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout


# --- the study ------------------------------------------------------------------------------------------------------


def to_table(results: Sequence[dict[str, Any]]) -> str:
    lines = ["| tool | false alarms, equal code | false alarms, other function slower | slower function detected | "
             "undecided functions | time, relative |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    seconds = {tool: statistics.fmean([result["seconds"] for result in results if result["tool"] == tool] or [math.nan])
               for tool in TOOLS}
    for tool in [tool for tool in TOOLS if not math.isnan(seconds[tool])]:
        equal, slow = ([result["said"] for result in results if (result["tool"], result["head"]) == (tool, head)]
                       for head in ("equal", "slow"))
        undecided = [said.get(name) == UNDECIDED for said in [*equal, *slow] for name in NAMES]
        cells = [rate(sum(SLOWER in said.values() for said in equal), len(equal)),
                 rate(sum(SLOWER in {**said, CHANGED: ""}.values() for said in slow), len(slow)),
                 rate(sum(said.get(CHANGED) == SLOWER for said in slow), len(slow)),
                 f"{statistics.fmean(undecided):.0%}" if tool in THREE_OUTCOMES else "-",
                 f"{seconds[tool] / seconds['fastnet compare']:.2f}"]
        lines.append(f"| {tool} | {' | '.join(cells)} |")
    return "\n".join(lines)


def rate(count: int, trials: int) -> str:
    """A number of cases, and the exact 95 % interval of its rate (Clopper and Pearson's), in per cent."""
    if not trials:
        return "0 of 0"

    def tail(share: float, cases: Sequence[int]) -> float:
        return sum(math.comb(trials, case) * share**case * (1 - share)**(trials - case) for case in cases)

    low, high = 0.0, 1.0  # by bisection, as the tails are monotone
    for bit in range(1, 30):
        low += 2.0**-bit * (count > 0 and tail(low + 2.0**-bit, range(count, trials + 1)) < 0.025)
        high -= 2.0**-bit * (count < trials and tail(high - 2.0**-bit, range(count + 1)) < 0.025)
    return f"{count} of {trials} ({100 * low:.0f} - {100 * high:.0f} %)"


def judged(tool: str, head: str, project: Path, neighbour: contextlib.AbstractContextManager[None]) -> dict[str, Any]:
    """One comparison by one tool."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, neighbour:
        said = TOOLS[tool][1](project, head, Path(scratch))
    seconds = time.monotonic() - start
    print(f"{head}, {tool}: {said or 'nothing'} ({seconds:.0f} s)", file=sys.stderr, flush=True)
    return {"tool": tool, "head": head, "said": said, "seconds": round(seconds, 1)}


def prove(tools: Sequence[str], project: Path) -> int:
    """Each tool on twice as slow and on equal code, alone; the exit code says whether all were right."""
    wrong = 0
    for tool in tools:
        for head, expected in (("twice", {CHANGED}), ("equal", set())):
            said = judged(tool, head, project, contextlib.nullcontext())["said"]
            found = {name for name in said if said[name] == SLOWER}
            wrong += found != expected
            print(f"{tool}, {head}: alarms {sorted(found)}, expected {sorted(expected)}", flush=True)
    return int(wrong > 0)


def versions() -> dict[str, str]:
    names = ("pytest-benchmark", "benchmatrix", "asv", "pyperf", "pytest-perf")
    return {name: importlib.metadata.version(name) for name in names
            if importlib.util.find_spec(name.replace("-", "_"))}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.gates", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    pieces.add_arguments(parser, ".benchmarks/gates.jsonl")
    parser.add_argument("--project", type=Path, default=workspace.home() / "shoot-out" / PROJECT, metavar="FOLDER",
                        help="where the project is made, and kept with asv's environments (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=50, help="comparisons of each kind in all (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first comparison: two processes on "
                        "different cores, with a --state and a --project each, can share the work (default: %(default)s)")
    parser.add_argument("--tool", choices=TOOLS, action="append", help="may be repeated (default: all that are installed)")
    parser.add_argument("--prove", action="store_true", help="show that each tool's alarms are understood")
    args = parser.parse_args(argv)
    tools = []
    for tool in args.tool or TOOLS:
        if importlib.util.find_spec(TOOLS[tool][0]):
            tools.append(tool)
        else:
            print(f"{tool} is left out: {TOOLS[tool][0]} is not installed", file=sys.stderr)
    project = args.project.absolute()
    if not project.exists():
        make_project(project)
    if args.prove:
        return prove(tools, project)
    journal = Journal(args.state, {"study": "gates", "gate": pieces.gate_digest(), "versions": versions()})
    numbers = range(args.first, args.trials)
    wanted = [(number, head, tool) for number in numbers for head in ("equal", "slow") for tool in tools]
    done = [(result["number"], result["head"], result["tool"]) for result in journal.results]
    for number, head, tool in pieces.remaining(wanted, done, args.more):
        journal.add({"number": number, **judged(tool, head, project, noisy_neighbour(number))})
    print(to_table(journal.results))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (GateError, KeyboardInterrupt) as error:
        sys.exit(f"could not run: {str(error) or 'stopped'}")
