"""Start the processes that compare, wait for them, and collect what they found, however they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fastnet
from fastnet.dropin import _children

_PATIENCE = 900.0  # seconds for fastnet itself, which may have kernels to compile


@dataclass
class Finding:
    """What was found about a layer.

    Attributes
    ----------
    problems : list of (str or None, str)
        In which call, and what differs or fails there.
    notes : list of str
    compared : int or None
        Number of comparisons; None if they did not come to an end.
    """

    problems: list[tuple[str | None, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    compared: int | None = None


def run(folder: Path, subjects: list[str], timeout: float) -> dict[str, Finding]:
    """Compare each subject; one that ends or blocks its process costs the others nothing.

    Parameters
    ----------
    folder : Path
        The folder of layers.
    subjects : list of str
        Names of modules, ``dataset`` and ``training``.
    timeout : float
        Seconds that a single call of the folder's code may take.
    """
    findings: dict[str, Finding] = {}
    left, whole = list(subjects), True
    while left:
        clean = not any(finding.problems for finding in findings.values())
        last, step, how = _work(folder, left, whole, clean, timeout, findings)
        if how is None:
            break
        findings.setdefault(last, Finding()).problems.append((step, how))
        if last == "__init__":
            if not whole:
                break
            whole = False
        else:
            left = left[left.index(last) + 1:]
    return findings


def _work(
    folder: Path, subjects: list[str], whole: bool, clean: bool, timeout: float, findings: dict[str, Finding]
) -> tuple[str, str | None, str | None]:
    """One process. Returns the subject and the step it ended at, and how it ended if that was not by finishing."""
    with tempfile.TemporaryDirectory() as temporary:
        events, errors = Path(temporary) / "events", Path(temporary) / "errors"
        events.touch()
        flags = ["whole" if whole else "empty", "clean" if clean else "differs"]
        command = [sys.executable, "-m", "fastnet.check._worker", str(folder), str(events), *flags, *subjects]
        with open(errors, "wb") as stderr:
            process = subprocess.Popen(
                command, cwd=folder.parent, env=_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=stderr, start_new_session=True)
        reader = _Reader(events, findings)
        try:
            how = _watch(process, reader, timeout)
        finally:
            _kill(process)
        reader.read()
        if how is None and not reader.ended:
            how = _how_it_ended(process.returncode)
            if reader.step is None:  # fastnet's own work: say all there is
                how += f"\n{errors.read_text(errors='replace').strip()}"
        return reader.subject, reader.step, how


class _Reader:
    """Follows the file of events."""

    def __init__(self, path: Path, findings: dict[str, Finding]) -> None:
        self.path, self.findings = path, findings
        self.position = 0
        self.subject, self.step, self.ended = "__init__", None, False

    def read(self) -> bool:
        """Take in what is new; whether anything is."""
        with open(self.path, "rb") as file:
            file.seek(self.position)
            lines = file.read().split(b"\n")[:-1]
        self.position += sum(len(line) + 1 for line in lines)
        for line in lines:
            self._take(json.loads(line))
        return bool(lines)

    def _take(self, event: dict[str, Any]) -> None:
        self.subject = event.get("subject", self.subject)
        finding = self.findings.setdefault(self.subject, Finding())
        if "problem" in event:
            finding.problems.append((event["step"], event["problem"]))
        elif "step" in event:
            self.step = event["step"]
        if "note" in event:
            finding.notes.append(event["note"])
        finding.compared = event.get("done", finding.compared)
        self.ended = self.ended or "end" in event


def _watch(process: subprocess.Popen[bytes], reader: _Reader, timeout: float) -> str | None:
    """Wait for the process to end, or for a call that takes too long; what to say in that case."""
    since = time.monotonic()
    while True:
        try:
            process.wait(0.05)
            return None
        except subprocess.TimeoutExpired:
            pass
        if reader.read():
            since = time.monotonic()
        limit = _PATIENCE if reader.step is None else timeout
        if time.monotonic() - since > limit:
            return f"gives no answer within {limit:g} s; a slow layer may need --timeout"


def _how_it_ended(code: int) -> str:
    if code < 0:
        try:
            return f"crashes the process ({signal.Signals(-code).name})"
        except ValueError:
            pass
    return f"ends the process (exit code {code})"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The process, if it still runs, and those it has started."""
    if process.poll() is None:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()


def _environment() -> dict[str, str]:
    """With this fastnet on the path, and without the drop-in, which would serve it for the folder's layers.

    No windows that wait to be closed, and nothing written beside the folder's modules.
    """
    environment = {key: value for key, value in os.environ.items() if key != _children.MARK}
    environment |= {"MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": "1"}
    root = str(Path(fastnet.__file__).resolve().parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    return environment
