"""Instructions of a benchmark, counted: the same on a busy machine as on a quiet one."""
from __future__ import annotations

from fastnet.gate.probe import fastnet_gate_meters

COUNTER = "instructions"
WHY_NOT = ("the system does not offer the processor's counter to this process (a virtual machine without one, or "
           "/proc/sys/kernel/perf_event_paranoid above 2, or no Linux)")


def available() -> bool:
    """Whether the system offers the processor's counter, as `perf` uses it, to this process."""
    return fastnet_gate_meters.instructions(lambda: None, calls=1) is not None
