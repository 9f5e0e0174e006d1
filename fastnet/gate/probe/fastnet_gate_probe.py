"""A pytest plugin loaded into every process of a comparison. It stands alone: the process may lack fastnet.

It lets only the benchmarks named in the file $FASTNET_GATE_ONLY run, measures memory and instructions where
$FASTNET_GATE_METRICS asks for them, and writes to $FASTNET_GATE_NOTES which benchmarks there are, why some were not
measured, and which modules came from the repository itself instead of the worktree: with those, a comparison would
compare the working tree with itself, and always pass.
"""
import json
import os
import sys
from pathlib import Path

import pytest

_METRICS = os.environ.get("FASTNET_GATE_METRICS", "").split()
_names: list[str] = []
_failed: dict[str, str] = {}
_skipped: dict[str, str] = {}


@pytest.hookimpl(tryfirst=True)
def pytest_benchmark_generate_machine_info():
    """Nothing: asking the CPU takes longer than many a benchmark."""
    return {}


# --- which benchmarks there are, and what became of them ------------------------------------------------------------


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    file = os.environ.get("FASTNET_GATE_ONLY")
    if file:
        wanted = set(json.loads(Path(file).read_text(encoding="utf-8")))
        items[:] = [item for item in items if item.nodeid in wanted]


def pytest_collection_finish(session):
    _names.extend(item.nodeid for item in session.items if "benchmark" in getattr(item, "fixturenames", ()))


def pytest_collectreport(report):
    if report.failed:
        _failed[report.nodeid] = _last_line(report.longrepr)


def pytest_runtest_logreport(report):
    if report.failed:
        _failed[report.nodeid] = _last_line(report.longrepr)
    elif report.skipped and isinstance(report.longrepr, tuple):
        _skipped[report.nodeid] = report.longrepr[2]


def _last_line(longrepr):
    crash = getattr(longrepr, "reprcrash", None)
    lines = str(crash.message if crash else longrepr).strip().splitlines() or ["no message"]
    return lines[0] if crash else lines[-1].removeprefix("E").strip()


def pytest_sessionfinish(session):
    repository, tree = Path(os.environ["FASTNET_GATE_REPOSITORY"]), Path(os.environ["FASTNET_GATE_TREE"])
    foreign = set()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not file or Path(file).parent == Path(__file__).parent:  # the gate's own, which may be in that repository
            continue
        path = Path(file).resolve()
        if path.is_relative_to(repository) and not path.is_relative_to(tree) and "site-packages" not in path.parts:
            foreign.add(name)
    Path(os.environ["FASTNET_GATE_NOTES"]).write_text(json.dumps(
        {"names": _names, "failed": _failed, "skipped": _skipped, "foreign": sorted(foreign)}), encoding="utf-8")


# --- memory and instructions ----------------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    if not _METRICS:
        return
    from fastnet_gate_meters import METERS
    from pytest_benchmark.fixture import BenchmarkFixture

    plain, pedantic = BenchmarkFixture.__call__, BenchmarkFixture.pedantic

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

    BenchmarkFixture.__call__, BenchmarkFixture.pedantic = call, call_pedantic


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
