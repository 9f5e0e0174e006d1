"""A pytest plugin loaded into every process of a comparison. It stands alone: the process may lack fastnet.

It lets only the benchmarks named in the file $FASTNET_GATE_ONLY run, has them take turns with those of the other processes
of a round, measures memory and instructions where $FASTNET_GATE_METRICS asks for them, and writes to $FASTNET_GATE_NOTES
which benchmarks there are, why some were not measured, and which modules came from the repository itself instead of the
worktree: with those, a comparison would compare the working tree with itself, and always pass.
"""
import inspect
import json
import mmap
import os
import random
import re
import socket
import sys
import time
from pathlib import Path

import pytest

_METRICS = os.environ.get("FASTNET_GATE_METRICS", "").split()
_MARKED = os.environ.get("FASTNET_GATE_MARKED") == "1"  # a marker alone makes a benchmark, as with pytest-codspeed
_MARKERS = ("benchmark", "codspeed_benchmark")
_TREE = os.environ.get("FASTNET_GATE_TREE", "")
_SLICE = 0.005  # seconds that a process computes before it is the next one's turn
_names: list[str] = []
_failed: dict[str, str] = {}
_skipped: dict[str, str] = {}
_called: dict[str, str] = {}  # what a test is called by the gate: the same in every process


def _move(seed):
    """Give the heap, and what is mapped or loaded later, another place in every round, and the same one on all sides."""
    rng = random.Random(seed)
    return [bytes(rng.randrange(16, 512)) for _ in range(rng.randrange(4000))], mmap.mmap(-1, 4096 * rng.randrange(1, 4096))


_moved = _move(os.environ.get("PYTHONHASHSEED"))


@pytest.hookimpl(tryfirst=True)
def pytest_benchmark_generate_machine_info():
    """Nothing: asking the CPU takes longer than many a benchmark."""
    return {}


@pytest.hookimpl(tryfirst=True)
def pytest_benchmark_generate_commit_info(config):
    """Nothing: the gate knows the commit, and asking git for it takes longer than many a benchmark."""
    return {}


@pytest.hookimpl(trylast=True)
def pytest_benchmark_update_json(config, benchmarks, output_json):
    """Add the tenth percentile and the mean of the fastest three quarters of the samples, and leave the samples out."""
    for benchmark in output_json["benchmarks"]:
        benchmark["fullname"] = _name(benchmark["fullname"])
        data = sorted(benchmark["stats"].pop("data", ()))
        if data:
            # Not the fastest one: a lucky sample, for instance in a moment of a higher clock, is no property of the code.
            benchmark["stats"]["fast"] = data[(len(data) - 1) // 10]
            kept = data[:len(data) - len(data) // 4]
            benchmark["stats"]["typical"] = sum(kept) / len(kept)


# --- which benchmarks there are, and what became of them ------------------------------------------------------------


@pytest.hookimpl(hookwrapper=True)
def pytest_collection_modifyitems(config, items):
    seen = {}
    for item in items:
        name = re.sub(r"0x[0-9a-fA-F]{5,}", "0x", item.nodeid.replace(_TREE, "") if _TREE else item.nodeid)
        seen[name] = seen.get(name, 0) + 1
        _called[item.nodeid] = name if seen[name] == 1 else f"{name}#{seen[name]}"
        if _only_marked(item):
            item.fixturenames.append("benchmark")
    yield
    file = os.environ.get("FASTNET_GATE_ONLY")
    if file:
        wanted = set(json.loads(Path(file).read_text(encoding="utf-8")))
        items[:] = [item for item in items if _name(item.nodeid) in wanted]


def _name(nodeid):
    """Without addresses of objects, and without the worktree's path."""
    return _called.get(nodeid, nodeid)


def _only_marked(item):
    return (_MARKED and "benchmark" not in getattr(item, "fixturenames", ("benchmark",))
            and any(item.get_closest_marker(name) for name in _MARKERS))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Time the whole of a function that has the marker and does not use the fixture."""
    arguments = pyfuncitem._fixtureinfo.argnames
    if not _MARKED or "benchmark" in arguments or "benchmark" not in pyfuncitem.fixturenames:
        return None
    if not any(pyfuncitem.get_closest_marker(name) for name in _MARKERS):
        return None
    if inspect.iscoroutinefunction(pyfuncitem.obj):  # no plugin made a function of it: a call would only make a coroutine
        return None
    pyfuncitem.funcargs["benchmark"](pyfuncitem.obj, **{name: pyfuncitem.funcargs[name] for name in arguments})
    return True


def pytest_collection_finish(session):
    _names.extend(_name(item.nodeid) for item in session.items if "benchmark" in getattr(item, "fixturenames", ()))


def pytest_runtest_logstart(nodeid):
    Path(os.environ["FASTNET_GATE_NOTES"]).with_name("now.txt").write_text(_name(nodeid), encoding="utf-8")


def pytest_collectreport(report):
    if report.failed:
        _failed[_name(report.nodeid)] = _last_line(report.longrepr)


def pytest_runtest_logreport(report):
    if report.failed:
        _failed[_name(report.nodeid)] = _last_line(report.longrepr)
    elif report.skipped and isinstance(report.longrepr, tuple):
        _skipped[_name(report.nodeid)] = report.longrepr[2]


def _last_line(longrepr):
    crash = getattr(longrepr, "reprcrash", None)
    lines = str(crash.message if crash else longrepr).strip().splitlines() or ["no message"]
    errors = [line.strip() for line in lines if line.startswith("E ")]
    chosen = lines[0] if crash else (errors[-1] if errors else lines[-1])
    return chosen.removeprefix("E").strip()


def pytest_sessionfinish(session):
    repository, tree = Path(os.environ["FASTNET_GATE_REPOSITORY"]), Path(_TREE)
    foreign, loaded = set(), set()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not file or Path(file).parent == Path(__file__).parent:  # the gate's own, which may be in that repository
            continue
        path = Path(file).resolve()
        if "site-packages" in path.parts:
            continue
        if path.is_relative_to(tree):
            loaded.add((name.partition(".")[0], path.relative_to(tree).as_posix()))
        elif path.is_relative_to(repository):
            foreign.add(name)
    Path(os.environ["FASTNET_GATE_NOTES"]).write_text(json.dumps(
        {"names": _names, "failed": _failed, "skipped": _skipped, "foreign": sorted(foreign), "loaded": sorted(loaded)}),
        encoding="utf-8")


# --- turns ----------------------------------------------------------------------------------------------------------


class Turns:
    """Only one process of a round computes at a time: this one between a grant and the next `yield_`."""

    def __init__(self, descriptor):
        self._socket = socket.socket(fileno=descriptor)
        self._since = 0.0

    def begin(self):
        self._say(b"y")

    def yield_(self):
        if time.monotonic() - self._since > _SLICE:
            self._say(b"y")

    def end(self):
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # also where a process that a benchmark forked still holds it
        except OSError:
            pass
        self._socket.close()

    def _say(self, word):
        try:
            self._socket.sendall(word)
            self._socket.recv(1)
        except OSError:  # the gate is gone
            pass
        self._since = time.monotonic()


_turns = Turns(int(os.environ["FASTNET_GATE_TURNS"])) if os.environ.get("FASTNET_GATE_TURNS") else None


@pytest.hookimpl(hookwrapper=True)
def pytest_runtestloop(session):
    if _turns:
        _turns.begin()
    yield
    if _turns:
        _turns.end()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    from pytest_benchmark.fixture import BenchmarkFixture

    if _turns:
        make = BenchmarkFixture._make_runner

        def make_runner(self, *args, **kwargs):
            runner = make(self, *args, **kwargs)

            def in_turn(*given, **named):
                _turns.yield_()
                return runner(*given, **named)
            return in_turn

        BenchmarkFixture._make_runner = make_runner
    if _METRICS:
        _measure_metrics(BenchmarkFixture)


# --- memory and instructions ----------------------------------------------------------------------------------------


def _measure_metrics(fixture):
    from fastnet_gate_meters import METERS

    plain, pedantic = fixture.__call__, fixture.pedantic

    def call(self, function, *args, **kwargs):
        result = plain(self, function, *args, **kwargs)
        self.extra_info["gate"] = _measure(METERS, lambda: function(*args, **kwargs))
        return result

    def call_pedantic(self, target, args=(), kwargs=None, setup=None, teardown=None, **options):
        result = pedantic(self, target, args, kwargs, setup, teardown, **options)

        def once():
            made = setup() if setup else None
            given, named = made if made else (args, kwargs or {})
            return given, named, lambda: target(*given, **named)

        self.extra_info["gate"] = _measure(METERS, None, once, teardown)
        return result

    fixture.__call__, fixture.pedantic = call, call_pedantic


def _measure(meters, function, prepare=None, teardown=None):
    """Each metric of one more call, after the timing, so that nothing is compiled or imported in it any more."""
    found = {}
    for metric in _METRICS:
        given, named, work = prepare() if prepare else ((), {}, function)
        try:
            value = meters[metric](work)
        finally:
            if teardown:
                teardown(*given, **named)
        if value is not None:
            found[metric] = value
    return found
