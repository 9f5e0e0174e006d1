"""The same two revisions judged by four tools under a noisy neighbour: ``python -m bench.studies.gates``

Makes a small project in plain Python and has `fastnet compare`, `pytest-benchmark compare`, `asv continuous` and
`pyperf compare_to` say whether the second revision is slower, each with a limit of 5 %: once for equal code and once for
one function made 15 % slower. Meanwhile a neighbour on the same cores computes and sleeps at random. A *false alarm* is a
comparison in which a function that did not change is called slower; a *hit*, one in which the changed one is. Needs asv,
virtualenv and pyperf; those that are missing are left out. The table stands in ``fastnet/gate/README.md``.
"""
from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fastnet.gate.repository import git

LIMIT = 0.05
NAMES = ("numbers", "words", "table")
CHANGED = "words"
KERNELS = '''\
def numbers():
    total = 0
    for i in range(20_000):
        total += i * i
    return total


def words():
    return [str(i) for i in range({words})]


def table():
    return {{i: -i for i in range(20_000)}}
'''
FILES = {
    "setup.py": "from setuptools import setup\n\nsetup(name='judged', version='1', py_modules=['kernels'])\n",
    ".gitignore": "asv\n.benchmarks\n__pycache__\n",
    "bench/bench_kernels.py": "import kernels\n\n" + "\n\n".join(
        f"def test_{name}(benchmark):\n    benchmark(kernels.{name})\n" for name in NAMES),
    "asv_bench/__init__.py": "",
    "asv_bench/benchmarks.py": "import kernels\n\n" + "\n\n".join(
        f"def time_{name}():\n    kernels.{name}()\n" for name in NAMES),
    "perf.py": "import pyperf\n\nimport kernels\n\nrunner = pyperf.Runner()\n" + "".join(
        f"runner.bench_func({name!r}, kernels.{name})\n" for name in NAMES),
}
Verdict = set[str]  # the functions that a tool calls slower


def make_project(folder: Path) -> None:
    """Revisions `base`, `equal` (a comment more) and `slow` (one function 15 % slower)."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "asv.conf.json").write_text(json.dumps({
        "version": 1, "project": "judged", "repo": ".", "branches": ["HEAD"], "environment_type": "virtualenv",
        "benchmark_dir": "asv_bench", "env_dir": "asv/env", "results_dir": "asv/results", "html_dir": "asv/html",
        "build_command": [], "install_command": ["in-dir={env_dir} python -m pip install --no-deps {build_dir}"]}))
    git(folder, "init", "--quiet")
    sources = {"base": KERNELS.format(words=20_000), "equal": KERNELS.format(words=20_000) + "# a comment\n",
               "slow": KERNELS.format(words=23_000)}
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


def by_fastnet(project: Path, head: str, scratch: Path) -> Verdict:
    out = scratch / "verdict.json"
    _call([sys.executable, "-m", "fastnet", "compare", "base", head, "--env", "current", "--json", str(out)], project)
    rows = json.loads(out.read_text())["rows"]
    return {row["name"].partition("test_")[2] for row in rows if row["verdict"] == "regressed"}


def by_pytest_benchmark(project: Path, head: str, scratch: Path) -> Verdict:
    """Run base and save it, run head and compare: `--benchmark-compare-fail=min:5%`."""
    said = ""
    for revision in ("base", head):
        git(project, "checkout", "--quiet", "--force", revision)
        options = ["--benchmark-save=base"] if revision == "base" else [
            "--benchmark-compare", f"--benchmark-compare-fail=min:{LIMIT:.0%}"]
        said = _call([sys.executable, "-m", "pytest", "bench/bench_kernels.py", "-q", "-p", "no:cacheprovider",
                      f"--benchmark-storage={scratch / 'stored'}", *options], project)
    found = re.findall(r"test_(\w+) .*?has regressed|Performance has regressed:(.*)", said, re.DOTALL)
    text = " ".join(part for pair in found for part in pair)
    return {name for name in NAMES if re.search(rf"test_{name}\b", text)}


def by_asv(project: Path, head: str, scratch: Path) -> Verdict:
    """`asv continuous --factor 1.05`: its lines that begin with a plus sign."""
    shutil.rmtree(project / "asv" / "results", ignore_errors=True)
    asv = [sys.executable, "-m", "asv"]
    _call([*asv, "machine", "--yes"], project)
    said = _call([*asv, "continuous", "--factor", str(1 + LIMIT), "base", head], project)
    if "BENCHMARKS" not in said.upper():
        raise RuntimeError(f"asv continuous did not run:\n{said[-2000:]}")
    return {name for name in NAMES if re.search(rf"^\|?\s*\+.*time_{name}\b", said, re.MULTILINE)}


def by_pyperf(project: Path, head: str, scratch: Path) -> Verdict:
    """`pyperf compare_to --min-speed 5` of two runs with `--fast`."""
    files = []
    for revision in ("base", head):
        git(project, "checkout", "--quiet", "--force", revision)
        files.append(str(scratch / f"{revision}.json"))
        Path(files[-1]).unlink(missing_ok=True)
        _call([sys.executable, "perf.py", "--fast", "--quiet", "-o", files[-1]], project)
    said = _call([sys.executable, "-m", "pyperf", "compare_to", "--min-speed", f"{100 * LIMIT:g}", *files], project)
    return {name for name in NAMES if re.search(rf"^{name}:.*slower", said, re.MULTILINE | re.IGNORECASE)}


TOOLS: dict[str, tuple[str, Callable[[Path, str, Path], Verdict]]] = {
    "fastnet compare": ("pytest_benchmark", by_fastnet),
    "pytest-benchmark compare": ("pytest_benchmark", by_pytest_benchmark),
    "asv continuous": ("asv", by_asv), "pyperf compare_to": ("pyperf", by_pyperf)}


def _call(command: Sequence[str], folder: Path) -> str:
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    root = str(Path(__file__).parents[2])
    env["PYTHONPATH"] = root if "fastnet" in command else str(folder)
    return subprocess.run(command, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout


# --- the study ------------------------------------------------------------------------------------------------------


def to_table(found: dict[str, dict[str, list[Verdict]]], spent: dict[str, float]) -> str:
    lines = ["| tool | false alarms, equal code | false alarms, others while one is slower | hits | seconds each |",
             "| --- | ---: | ---: | ---: | ---: |"]
    for tool, by_head in found.items():
        equal, slow = by_head["equal"], by_head["slow"]
        counts = [f"{sum(bool(one) for one in equal)} of {len(equal)}",
                  f"{sum(bool(one - {CHANGED}) for one in slow)} of {len(slow)}",
                  f"{sum(CHANGED in one for one in slow)} of {len(slow)}",
                  f"{spent[tool] / max(1, len(equal) + len(slow)):.0f}"]
        lines.append(f"| {tool} | {' | '.join(counts)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.gates", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10, help="comparisons of each kind (default: %(default)s)")
    parser.add_argument("--tool", choices=TOOLS, action="append", help="may be repeated (default: all that are installed)")
    args = parser.parse_args(argv)
    tools = [tool for tool in args.tool or TOOLS if importlib.util.find_spec(TOOLS[tool][0])]
    found: dict[str, dict[str, list[Verdict]]] = {tool: {"equal": [], "slow": []} for tool in tools}
    spent = dict.fromkeys(tools, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder, "project")
        project.mkdir()
        make_project(project)
        for trial in range(args.trials):
            for head in ("equal", "slow"):
                for tool in tools:
                    scratch = Path(folder, f"scratch-{trial}-{head}-{tool.replace(' ', '-')}")
                    scratch.mkdir()
                    start = time.monotonic()
                    with noisy_neighbour(trial):
                        found[tool][head].append(TOOLS[tool][1](project, head, scratch))
                    spent[tool] += time.monotonic() - start
                    print(f"{trial + 1} {head} {tool}: {', '.join(sorted(found[tool][head][-1])) or 'nothing'} "
                          f"({time.monotonic() - start:.0f} s)", file=sys.stderr, flush=True)
            print(to_table(found, spent), file=sys.stderr, flush=True)
    print(to_table(found, spent))
    return 0


if __name__ == "__main__":
    sys.exit(main())
