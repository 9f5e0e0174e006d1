"""One process: run a side's benchmarks with pytest, and read its numbers."""
from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastnet.gate import GateError, addresses
from fastnet.gate.children import tail
from fastnet.gate.declared import pytest_option
from fastnet.gate.environment import Side, process_environment
from fastnet.gate.turns import POSSIBLE, Turns

STATISTICS = ("fast", "typical", "min", "median", "mean", "q1", "q3")
_RAN = (0, 1, 5)  # pytest's exit codes: all passed, some failed, nothing collected
_USAGE = (2, 4)  # interrupted by errors, or wrong usage: what a conftest.py that cannot be imported ends with
_FUNCTIONS = "test_* test bench_*"
MIN_SAMPLES = 3  # of a benchmark in a process
_LONG = 60.0  # seconds, after which a process that is not done says where it is
WARM_UP_SECONDS = 0.001  # of a benchmark in a process that only compiles, fills caches and measures memory
_NOISY = ("cov", "xdist", "codspeed", "randomly", "random_order", "timeout", "sugar", "html", "rerunfailures", "pytest_cov",
          "faulthandler")  # plugins that disturb timings, and are never loaded

_NOT_THE_PROJECTS = ("addopts=", "required_plugins=", "filterwarnings=", "strict=false", "strict_markers=false",
                     "strict_config=false")  # options of the project's configuration of pytest, as the gate sets them


@dataclass(frozen=True)
class Run:
    """What one process, or one file, said."""

    times: dict[str, dict[str, float]]  # seconds, by full name, then by statistic
    counts: dict[str, dict[str, float]] = field(default_factory=dict)  # by full name, then by what was counted
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)  # the gate's own: bytes, instructions
    failed: dict[str, str] = field(default_factory=dict)  # why a benchmark, or a file of them, was not measured
    skipped: dict[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()  # all benchmarks that were collected
    loaded: tuple[tuple[str, str], ...] = ()  # the worktree's modules: top-level name and path in the worktree
    machine: str = ""
    seconds: float = 0.0  # that the process took


@dataclass(frozen=True)
class Settings:
    """How a process measures."""

    statistics: tuple[str, ...] = ("fast", "typical")
    seconds: float = 0.1  # for one benchmark
    only: str = ""  # pytest's -k
    plugins: tuple[str, ...] = ()  # pytest's -p
    autoload: bool = False  # whether the plugins of the environment are loaded
    marked: bool = False  # whether a marker alone makes a benchmark
    turns: bool = POSSIBLE  # whether the processes of a round compute in turns
    timeout: float = 1800.0  # for one process


class ConfigurationError(GateError):
    """pytest could not start on a side, as when its conftest.py cannot be imported."""


@dataclass(frozen=True)
class Where:
    """What is the same for all processes of a comparison."""

    repository: Path  # the user's, from which nothing may be imported
    files: tuple[str, ...]  # of benchmarks, relative to the project


def run(side: Side, where: Where, settings: Settings, number: int, names: Sequence[str] | None = None,
        metrics: Sequence[str] = (), collect_only: bool = False) -> Run:
    """Measure once, in a fresh process.

    Parameters
    ----------
    side, where
        Which revision, and where its benchmarks are.
    number : int
        Of the round: all sides get its seed of hashes and its addresses, see `fastnet.gate.addresses`.
    names : sequence of str, optional
        Only these benchmarks run, and only their files are imported.
    metrics : sequence of str
        Measured as well, in one more call each: allocated, process, instructions.
    collect_only : bool
        Only find out which benchmarks there are.
    """
    with _process(side, where, settings, number, names, metrics, collect_only, None) as process:
        return process.result()


def run_round(sides: Sequence[Side], where: Where, settings: Settings, number: int, names: Sequence[str]) -> dict[str, Run]:
    """Measure once on each side, in this order: fresh processes that take turns, or run one after the other."""
    if not settings.turns or len(sides) < 2:
        return {side.name: run(side, where, settings, number, names) for side in sides}
    from contextlib import ExitStack

    turns = Turns([side.name for side in sides], number)
    with ExitStack() as stack:
        stack.callback(turns.join)  # last, when the processes have ended
        started = {side.name: stack.enter_context(_process(side, where, settings, number, names, (), False,
                                                           turns.descriptor(side.name))) for side in sides}
        turns.start()
        return {name: process.result() for name, process in started.items()}


class _Process:
    """A running process, and where it writes what it found."""

    def __init__(self, process: subprocess.Popen[str], side: Side, where: Where, settings: Settings, folder: Path):
        self.process, self.side, self.where, self.settings, self.folder = process, side, where, settings, folder
        self.began = time.monotonic()

    def _place(self) -> str:
        now = self.folder / "now.txt"
        return f" in {now.read_text(encoding='utf-8')}" if now.exists() else " before its first benchmark"

    def _say_where(self) -> None:
        print(f"{self.side.name} has run for {_LONG:.0f} s and is{self._place()}; --exclude leaves benchmarks out",
              file=sys.stderr, flush=True)

    def result(self) -> Run:
        stopped = threading.Event()

        def stop() -> None:
            stopped.set()
            self.process.kill()

        # `wait` with a timeout would look twenty times a second, and the next round would start later
        timers = [threading.Timer(max(0.0, self.began + seconds - time.monotonic()), call)
                  for seconds, call in ((_LONG, self._say_where), (self.settings.timeout, stop))]
        for timer in timers:
            timer.start()
        try:
            self.process.wait()
        finally:
            for timer in timers:
                timer.cancel()
        if stopped.is_set():
            raise GateError(f"{self.side.name} was stopped after {self.settings.timeout:g} s{self._place()}: choose fewer "
                            "benchmarks with --only or --exclude, or give them less time with --seconds.")
        seconds = time.monotonic() - self.began
        said = (self.folder / "said.txt").read_text(encoding="utf-8", errors="replace")
        notes, numbers = self.folder / "notes.json", self.folder / "numbers.json"
        if self.process.returncode not in _RAN or not notes.exists():
            kind = ConfigurationError if self.process.returncode in _USAGE else GateError
            raise kind(f"pytest ended with {self.process.returncode} on {self.side.name}:\n{tail(said)}")
        noted = json.loads(notes.read_text(encoding="utf-8"))
        if noted["foreign"]:
            raise GateError(f"{self.side.name} loaded {', '.join(noted['foreign'][:5])} from {self.where.repository} and "
                            "not from its own worktree, so both sides would run the same code. Is it installed in editable "
                            "mode? Leave out `--env current`.")
        found = read_run(numbers) if numbers.exists() and numbers.stat().st_size else Run({})
        return Run(found.times, found.counts, found.metrics, noted["failed"], noted["skipped"], tuple(noted["names"]),
                   tuple((top, path) for top, path in noted["loaded"]), seconds=seconds)


@contextmanager
def _process(side: Side, where: Where, settings: Settings, number: int, names: Sequence[str] | None, metrics: Sequence[str],
             collect_only: bool, descriptor: int | None) -> Iterator[_Process]:
    """Start a process; it is gone at the end, whatever happens."""
    with tempfile.TemporaryDirectory(prefix="fastnet-run-", ignore_cleanup_errors=True) as scratch:
        folder, targets = Path(scratch), list(where.files)
        env = process_environment(side, autoload=settings.autoload) | {
            "PYTHONHASHSEED": str(number), "FASTNET_GATE_NOTES": str(folder / "notes.json"),
            "FASTNET_GATE_METRICS": " ".join(metrics), "FASTNET_GATE_MARKED": str(int(settings.marked)),
            "FASTNET_GATE_REPOSITORY": str(where.repository.resolve()), "FASTNET_GATE_TREE": str(side.tree.resolve())}
        if names is not None:
            (folder / "only.json").write_text(json.dumps(list(names)), encoding="utf-8")
            env["FASTNET_GATE_ONLY"] = str(folder / "only.json")
            targets = sorted({name.split("::")[0] for name in names})
        if descriptor is not None:
            env["FASTNET_GATE_TURNS"] = str(descriptor)
        targets = [target for target in targets if (side.project / target).exists()]
        command = _command(side, targets, settings, folder / "numbers.json", collect_only)
        if not targets:
            command = [str(side.python), "-c", _NO_TARGETS]
        env |= addresses.padding(command, env, number)
        with open(folder / "said.txt", "wb") as said, addresses.shared():
            started = subprocess.Popen(command, cwd=side.project, env=env, text=True, stdin=subprocess.DEVNULL, stdout=said,
                                       stderr=said, pass_fds=() if descriptor is None else (descriptor,))
        with started as process:
            try:
                yield _Process(process, side, where, settings, folder)
            finally:
                if process.poll() is None:
                    process.kill()


_NO_TARGETS = ("import json, os; open(os.environ['FASTNET_GATE_NOTES'], 'w').write(json.dumps("
               "dict(names=[], failed={}, skipped={}, foreign=[], loaded=[])))")


def _command(side: Side, targets: Sequence[str], settings: Settings, numbers: Path, collect_only: bool) -> list[str]:
    plugins = ["pytest_benchmark.plugin", "fastnet_gate_probe", "no:cacheprovider", *settings.plugins]
    if settings.autoload:
        plugins = ["fastnet_gate_probe", "no:cacheprovider", *(f"no:{name}" for name in _NOISY), *settings.plugins]
    mode = pytest_option(side.project, "import-mode")
    functions = f"{pytest_option(side.project, 'python_functions') or ''} {_FUNCTIONS}".strip()
    return [str(side.python), "-m", "pytest", *targets, f"--rootdir={side.project}", "-q",
            *(part for plugin in plugins for part in ("-p", plugin)),
            # What the project's own configuration asks for must not decide here: plugins that are not loaded, coverage,
            # parallel workers, warnings as errors. Files are named, so python_files and norecursedirs do not matter. Strict
            # options would be errors: they forbid the marks and settings of plugins that are not loaded.
            *(part for option in _NOT_THE_PROJECTS for part in ("-o", option)),
            *([f"--import-mode={mode}"] if mode else []),
            "-o", f"python_functions={functions}", "--continue-on-collection-errors",
            # Without a warm-up call pytest-benchmark plans by the first one, which loads compiled code: few rounds.
            "--benchmark-only", "--benchmark-disable-gc", "--benchmark-warmup=on", "--benchmark-warmup-iterations=1",
            f"--benchmark-max-time={settings.seconds}",
            f"--benchmark-min-rounds={MIN_SAMPLES if settings.seconds > WARM_UP_SECONDS else 1}",
            *(["--collect-only"] if collect_only else [f"--benchmark-json={numbers}"]),
            *(["-k", settings.only] if settings.only else [])]


def read_run(path: Path) -> Run:
    """Read a file of pytest-benchmark's."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        benchmarks = table["benchmarks"]
        times = {entry["fullname"]: {name: float(entry["stats"][name]) for name in STATISTICS if name in entry["stats"]}
                 for entry in benchmarks}
        counts = {entry["fullname"]: _numbers(entry, "counts") for entry in benchmarks if _numbers(entry, "counts")}
        metrics = {entry["fullname"]: _numbers(entry, "gate") for entry in benchmarks if _numbers(entry, "gate")}
    except OSError as error:
        raise GateError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise GateError(f"{path} is not valid JSON: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise GateError(f"{path} is not a file of pytest-benchmark's ({type(error).__name__}: {error}). Make one with "
                        "pytest --benchmark-json=FILE.") from error
    for name, found in times.items():
        broken = [value for value in found.values() if not (math.isfinite(value) and value > 0)]
        if broken or not found:
            shown = repr(broken[0]) if broken else "missing"
            raise GateError(f"{path}: the time of {name} is {shown}; expected a positive number.")
    machine = table.get("machine_info") or {}
    return Run(times, counts, metrics, machine=" ".join(filter(None, [machine.get("node"), _brand(machine)])))


def _numbers(entry: dict[str, Any], kind: str) -> dict[str, float]:
    return {key: float(value) for key, value in (entry.get("extra_info") or {}).get(kind, {}).items()}


def _brand(machine: dict[str, Any]) -> str:
    return (machine.get("cpu") or {}).get("brand_raw", "")


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
