"""The fixture ``race``, and what every stored run says about its machine."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.harness import machine
from bench.harness.race import Race, mode
from bench.harness.table import rows, table


@pytest.fixture
def race(benchmark: Any, request: Any) -> Race:
    """Verifies contenders, warms them up and times them round-robin; see bench/harness/race.py."""
    return Race(benchmark, float(request.config.getoption("benchmark_max_time")))


@pytest.fixture(params=["float32", "float64"])
def dtype(request: Any) -> np.dtype:
    return np.dtype(request.param)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    machine_info["fingerprint"] = machine.fingerprint()
    machine_info["load"] = machine.load_average()
    if mode() == "full":
        machine_info["limits"] = machine.limits()


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    session = getattr(config, "_benchmarksession", None)
    if session is None or not config.getoption("benchmark_quiet"):
        return  # pytest-benchmark prints its own table
    done = [bench.as_dict(include_data=False) for bench in session.benchmarks if bench]
    if done:
        terminalreporter.section("benchmarks")
        terminalreporter.write_line(table(rows(done)))
