"""A study in parts: a file keeps its results, so that a long study can be run bit by bit while the machine is quiet."""
from __future__ import annotations

import argparse
import hashlib
import json
import threading
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from fastnet import gate
from fastnet.gate import GateError

_DECIDES = ("addresses.py", "compare.py", "judge.py", "pairing.py", "runs.py", "statistics.py", "turns.py",
            "probe/fastnet_gate_probe.py", "probe/fastnet_gate_meters.py")
Trial = TypeVar("Trial", bound=Hashable)


class Journal:
    """The results of a study, one line of JSON each, below a line that says how they were made.

    Parameters
    ----------
    file : Path
        Made if it does not exist. Results made otherwise than `how` are refused, not mixed with.
    how : dict
        What all results have in common: the settings, and which code.
    """

    def __init__(self, file: Path, how: dict[str, Any]):
        self.file, self._lock = file, threading.Lock()
        self.results: list[dict[str, Any]] = []
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            self._append(how)
            return
        first, *others = file.read_text(encoding="utf-8").splitlines() or ["{}"]
        if json.loads(first) != json.loads(json.dumps(how)):
            raise GateError(f"{file} holds results of other code or settings: {first}, not {json.dumps(how)}. Name another "
                            "file with --state, or remove this one.")
        self.results = [json.loads(line) for line in others]

    def add(self, result: dict[str, Any]) -> None:
        with self._lock:
            self._append(result)
            self.results.append(result)

    def _append(self, entry: dict[str, Any]) -> None:
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def gate_digest() -> str:
    """Of the modules of the gate that measure and judge."""
    folder = Path(gate.__file__).parent
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in _DECIDES)).hexdigest()[:12]


def remaining(trials: Iterable[Trial], done: Iterable[Trial], more: int | None) -> list[Trial]:
    """The trials that are not done yet, or the first `more` of them."""
    known = set(done)
    return [trial for trial in trials if trial not in known][:more]


def add_arguments(parser: argparse.ArgumentParser, state: str) -> None:
    parser.add_argument("--state", type=Path, default=Path(state), metavar="FILE",
                        help="the results so far, which are not run again (default: %(default)s)")
    parser.add_argument("--more", type=int, metavar="N", help="comparisons to run now, 0 to print the table only (default: "
                        "all that are left)")
