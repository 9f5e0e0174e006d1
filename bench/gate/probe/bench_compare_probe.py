"""A pytest plugin loaded into every process of a comparison. It stands alone: the process may lack all else of bench.

It writes to $BENCH_COMPARE_NOTES why benchmarks were not measured, and which modules came from the repository itself
instead of the worktree: with those, a comparison would compare the working tree with itself, and always pass.
"""
import json
import os
import sys
from pathlib import Path

import pytest

_reasons = {}


@pytest.hookimpl(tryfirst=True)
def pytest_benchmark_generate_machine_info():
    """Nothing: asking the CPU takes longer than many a benchmark."""
    return {}


def pytest_collectreport(report):
    if report.failed:
        _reasons[report.nodeid] = _last_line(report.longrepr)


def pytest_runtest_logreport(report):
    if report.failed:
        _reasons[report.nodeid] = _last_line(report.longrepr)
    elif report.skipped and isinstance(report.longrepr, tuple):
        _reasons[report.nodeid] = report.longrepr[2]


def _last_line(longrepr):
    crash = getattr(longrepr, "reprcrash", None)
    lines = str(crash.message if crash else longrepr).strip().splitlines() or ["no message"]
    return lines[0] if crash else lines[-1].removeprefix("E").strip()


def pytest_sessionfinish(session):
    repository, tree = Path(os.environ["BENCH_COMPARE_REPOSITORY"]), Path(session.config.rootpath)
    foreign = set()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not file or Path(__file__) == Path(file):
            continue
        path = Path(file).resolve()
        if path.is_relative_to(repository) and not path.is_relative_to(tree) and "site-packages" not in path.parts:
            foreign.add(name)
    Path(os.environ["BENCH_COMPARE_NOTES"]).write_text(json.dumps({"reasons": _reasons, "foreign": sorted(foreign)}))
