"""Instructions of a benchmark, counted: the same on a busy machine as on a quiet one.

Where the kernel offers the processor's counter, as `perf` uses it, the probe reads it around a call. Elsewhere valgrind's
callgrind simulates the processor and counts exactly, some fifty times slower. It knows no AVX-512, and says so to
programs that ask, so NumPy and LLVM choose other code there than outside.
"""
from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fastnet.gate import GateError
from fastnet.gate.probe import fastnet_gate_meters
from fastnet.gate.runs import Settings, run

if TYPE_CHECKING:
    from fastnet.gate.compare import Prepared

COUNTER, CALLGRIND = "instructions", "callgrind"
_SECONDS = 1e-6  # of timing, which means nothing in a simulation
Counts = dict[str, dict[str, dict[str, float]]]  # by side, benchmark, metric


def available() -> str | None:
    """What counts instructions here at little cost: the processor's counter, or nothing."""
    return COUNTER if fastnet_gate_meters.instructions(lambda: None, calls=1) else None


def count(prepared: Prepared, names: Sequence[str], settings: Settings, sides: Sequence[str]) -> Counts:
    """Count with callgrind, one process per side."""
    if shutil.which("valgrind") is None:
        raise GateError("--instructions valgrind needs valgrind: install it, or use --instructions perf.")
    return {side: _count(prepared, side, names, settings) for side in sides}


def _count(prepared: Prepared, side: str, names: Sequence[str], settings: Settings) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "callgrind.out")
        wrapper = ["valgrind", "--tool=callgrind", "--collect-atstart=no", "--toggle-collect=qsort", "--dump-after=qsort",
                   f"--callgrind-out-file={out}", "--quiet"]
        found = run(prepared.sides[side], prepared.repository, prepared.path, replace(settings, seconds=_SECONDS), 0, names,
                    metrics=[CALLGRIND], wrapper=wrapper)
        files = sorted(Path(folder).glob("callgrind.out.*"), key=lambda file: int(file.suffix[1:]))
        totals = [int(match[1]) for file in files
                  if (match := re.search(r"^(?:summary|totals): (\d+)", file.read_text(errors="replace"), re.MULTILINE))]
    measured = [name for name in found.names if CALLGRIND in found.metrics.get(name, {})]
    return {name: {COUNTER: float(total)} for name, total in zip(measured, totals)}
