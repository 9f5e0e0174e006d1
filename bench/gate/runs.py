"""One process: run a side's benchmarks with pytest, and read one number each."""
import json
import math
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.gate import GateError
from bench.gate.sides import Side, process_environment

STATISTICS = ("min", "median", "mean", "q1")
_RAN = (0, 1, 5)  # pytest's exit codes: all passed, some failed, nothing collected


@dataclass(frozen=True)
class Run:
    """What one process, or one file, said."""

    times: dict[str, float]  # seconds, by full name
    counts: dict[str, dict[str, float]] = field(default_factory=dict)  # by full name, then by what was counted
    reasons: dict[str, str] = field(default_factory=dict)  # why a benchmark, or a file of them, was not measured
    machine: str = ""


@dataclass(frozen=True)
class Settings:
    """How a process measures."""

    statistic: str = "min"
    seconds: float = 0.2  # for one benchmark
    only: str = ""  # pytest's -k
    timeout: float = 1800.0  # for one process


def run(side: Side, repository: Path, targets: Sequence[str], settings: Settings, number: int) -> Run:
    """Measure once, in a fresh process. `number` is the round: its hash seed is the same on all sides."""
    with tempfile.TemporaryDirectory() as folder:
        numbers, notes = Path(folder, "numbers.json"), Path(folder, "notes.json")
        env = process_environment(side) | {"PYTHONHASHSEED": str(number), "BENCH_COMPARE_NOTES": str(notes),
                                           "BENCH_COMPARE_REPOSITORY": str(repository.resolve())}
        try:
            done = subprocess.run(_command(side, targets, settings, numbers), cwd=side.tree, env=env, text=True,
                                  capture_output=True, timeout=settings.timeout)
        except subprocess.TimeoutExpired as error:
            raise GateError(f"{side.name} was stopped after {settings.timeout:g} s: choose fewer benchmarks with "
                            "--only, or give them less time with --seconds.") from error
        if done.returncode not in _RAN or not notes.exists():
            output = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
            raise GateError(f"pytest ended with {done.returncode} on {side.name}:\n{output}")
        noted = json.loads(notes.read_text())
        if noted["foreign"]:
            raise GateError(f"{side.name} loaded {', '.join(noted['foreign'][:5])} from {repository} and not from its "
                            "own worktree, so both sides would run the same code. Is it installed in editable mode? "
                            "Leave out `--env current`.")
        found = read_run(numbers, settings.statistic) if numbers.exists() and numbers.stat().st_size else Run({})
        return Run(found.times, found.counts, noted["reasons"])


def _command(side: Side, targets: Sequence[str], settings: Settings, numbers: Path) -> list[str]:
    return [str(side.python), "-m", "pytest", *targets, f"--rootdir={side.tree}", "-q",
            "-p", "pytest_benchmark.plugin", "-p", "bench_compare_probe", "-p", "no:cacheprovider",
            "-o", "addopts=", "-o", "python_files=bench_*.py test_*.py *_test.py *_bench.py",
            "-o", "python_functions=bench_* test_*", "--continue-on-collection-errors",
            # Without a warm-up call pytest-benchmark plans by the first one, which loads compiled code: few rounds.
            "--benchmark-only", "--benchmark-disable-gc", "--benchmark-warmup=on", "--benchmark-warmup-iterations=1",
            f"--benchmark-max-time={settings.seconds}", "--benchmark-min-rounds=5",
            f"--benchmark-json={numbers}", *(["-k", settings.only] if settings.only else [])]


def read_run(path: Path, statistic: str) -> Run:
    """Read a file of pytest-benchmark's."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        benchmarks = table["benchmarks"]
        times = {entry["fullname"]: float(entry["stats"][statistic]) for entry in benchmarks}
        counts = {entry["fullname"]: _counts(entry) for entry in benchmarks if _counts(entry)}
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
    return Run(times, counts, machine=" ".join(filter(None, [machine.get("node"), _brand(machine)])))


def _counts(entry: dict[str, Any]) -> dict[str, float]:
    counts = entry.get("extra_info", {}).get("counts", {})
    return {key: float(value) for key, value in counts.items()}


def _brand(machine: dict[str, Any]) -> str:
    return (machine.get("cpu") or {}).get("brand_raw", "")


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
