"""One process: run a side's benchmarks with pytest, and read one number each."""
from __future__ import annotations

import json
import math
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastnet.gate import GateError
from fastnet.gate.environment import Side, process_environment, tail

STATISTICS = ("min", "median", "mean", "q1")
_RAN = (0, 1, 5)  # pytest's exit codes: all passed, some failed, nothing collected
_USAGE = (2, 4)  # interrupted by errors, or wrong usage: what a conftest.py that cannot be imported ends with
_PATTERNS = ("bench_*.py", "test_*.py", "*_test.py", "*_bench.py")


@dataclass(frozen=True)
class Run:
    """What one process, or one file, said."""

    times: dict[str, float]  # seconds, by full name
    counts: dict[str, dict[str, float]] = field(default_factory=dict)  # by full name, then by what was counted
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)  # the gate's own: bytes, instructions
    failed: dict[str, str] = field(default_factory=dict)  # why a benchmark, or a file of them, was not measured
    skipped: dict[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()  # all benchmarks that were collected
    machine: str = ""


@dataclass(frozen=True)
class Settings:
    """How a process measures."""

    statistic: str = "min"
    seconds: float = 0.2  # for one benchmark
    only: str = ""  # pytest's -k
    plugins: tuple[str, ...] = ()  # pytest's -p
    timeout: float = 1800.0  # for one process


class ConfigurationError(GateError):
    """pytest could not start on a side, as when its conftest.py cannot be imported."""


def run(side: Side, repository: Path, path: str, settings: Settings, number: int, names: Sequence[str] | None = None,
        metrics: Sequence[str] = (), collect_only: bool = False) -> Run:
    """Measure once, in a fresh process.

    Parameters
    ----------
    side, repository, path
        Where; `path` is the folder of benchmarks.
    number : int
        The round: its hash seed is the same on all sides.
    names : sequence of str, optional
        Only these benchmarks run, and only their files are imported.
    metrics : sequence of str
        Measured beside time, in one more call each: allocated, process, instructions.
    collect_only : bool
        Only find out which benchmarks there are.
    """
    with tempfile.TemporaryDirectory() as folder:
        numbers, notes, only = (Path(folder, name) for name in ("numbers.json", "notes.json", "only.json"))
        env = process_environment(side) | {
            "PYTHONHASHSEED": str(number), "FASTNET_GATE_NOTES": str(notes), "FASTNET_GATE_METRICS": " ".join(metrics),
            "FASTNET_GATE_REPOSITORY": str(repository.resolve()), "FASTNET_GATE_TREE": str(side.tree.resolve())}
        targets = [path]
        if names is not None:
            only.write_text(json.dumps(list(names)), encoding="utf-8")
            env["FASTNET_GATE_ONLY"] = str(only)
            targets = sorted({name.split("::")[0] for name in names})
        command = _command(side, targets, settings, numbers, collect_only)
        try:
            done = subprocess.run(command, cwd=side.project, env=env, text=True, capture_output=True,
                                  timeout=settings.timeout)
        except subprocess.TimeoutExpired as error:
            raise GateError(f"{side.name} was stopped after {settings.timeout:g} s: choose fewer benchmarks with "
                            "--only, or give them less time with --seconds.") from error
        if done.returncode not in _RAN or not notes.exists():
            kind = ConfigurationError if done.returncode in _USAGE else GateError
            raise kind(f"pytest ended with {done.returncode} on {side.name}:\n{tail(done.stdout + done.stderr)}")
        noted = json.loads(notes.read_text(encoding="utf-8"))
        if noted["foreign"]:
            raise GateError(f"{side.name} loaded {', '.join(noted['foreign'][:5])} from {repository} and not from its "
                            "own worktree, so both sides would run the same code. Is it installed in editable mode? "
                            "Leave out `--env current`.")
        found = read_run(numbers, settings.statistic) if numbers.exists() and numbers.stat().st_size else Run({})
        return Run(found.times, found.counts, found.metrics, noted["failed"], noted["skipped"], tuple(noted["names"]))


def _command(side: Side, targets: Sequence[str], settings: Settings, numbers: Path, collect_only: bool) -> list[str]:
    plugins = ("pytest_benchmark.plugin", "fastnet_gate_probe", "no:cacheprovider", *settings.plugins)
    return [str(side.python), "-m", "pytest", *targets, f"--rootdir={side.project}", "-q",
            *(part for plugin in plugins for part in ("-p", plugin)),
            # What the project's own configuration asks for must not decide here: plugins that are not loaded, coverage,
            # parallel workers, warnings as errors.
            "-o", "addopts=", "-o", "required_plugins=", "-o", "filterwarnings=", *_import_mode(side.project),
            "-o", f"python_files={' '.join(_PATTERNS)}", "-o", "python_functions=bench_* test_*",
            "--continue-on-collection-errors",
            # Without a warm-up call pytest-benchmark plans by the first one, which loads compiled code: few rounds.
            "--benchmark-only", "--benchmark-disable-gc", "--benchmark-warmup=on", "--benchmark-warmup-iterations=1",
            f"--benchmark-max-time={settings.seconds}", "--benchmark-min-rounds=5",
            *(["--collect-only"] if collect_only else [f"--benchmark-json={numbers}"]),
            *(["-k", settings.only] if settings.only else [])]


def _import_mode(project: Path) -> list[str]:
    """The one option of the project's addopts without which its files may not be importable."""
    for name in ("pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg"):
        file = project / name
        found = file.exists() and re.search(r"--import-mode[= ](\w+)", file.read_text(encoding="utf-8", errors="replace"))
        if found:
            return [f"--import-mode={found[1]}"]
    return []


def read_run(path: Path, statistic: str) -> Run:
    """Read a file of pytest-benchmark's."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        benchmarks = table["benchmarks"]
        times = {entry["fullname"]: float(entry["stats"][statistic]) for entry in benchmarks}
        counts = {entry["fullname"]: _numbers(entry, "counts") for entry in benchmarks if _numbers(entry, "counts")}
        metrics = {entry["fullname"]: _numbers(entry, "gate") for entry in benchmarks if _numbers(entry, "gate")}
    except OSError as error:
        raise GateError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise GateError(f"{path} is not valid JSON: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise GateError(f"{path} is not a file of pytest-benchmark's ({type(error).__name__}: {error}). Make one with "
                        "pytest --benchmark-json=FILE.") from error
    broken = [name for name, time in times.items() if not (math.isfinite(time) and time > 0)]
    if broken:
        raise GateError(f"{path}: the time of {broken[0]} is {times[broken[0]]!r}; expected a positive number.")
    machine = table.get("machine_info") or {}
    return Run(times, counts, metrics, machine=" ".join(filter(None, [machine.get("node"), _brand(machine)])))


def _numbers(entry: dict[str, Any], kind: str) -> dict[str, float]:
    return {key: float(value) for key, value in entry.get("extra_info", {}).get(kind, {}).items()}


def _brand(machine: dict[str, Any]) -> str:
    return (machine.get("cpu") or {}).get("brand_raw", "")


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
