"""Instructions of a benchmark, counted: the same on a busy machine as on a quiet one."""
from __future__ import annotations

from fastnet.gate.probe import fastnet_gate_meters

COUNTER = "instructions"


def available() -> bool:
    """Whether the system offers the processor's counter, as `perf` uses it, to this process."""
    return fastnet_gate_meters.instructions(lambda: None, calls=1) is not None
