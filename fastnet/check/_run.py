"""The process that compares: the check starts it, waits for it, and collects its findings, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import fastnet
from fastnet.base import confinement
from fastnet.check._folder import Layout

ROOT = str(Path(fastnet.__file__).resolve().parent.parent)
_PATIENCE = 10  # the factor by which a process may exceed its processor time without an event
Finding = dict[str, Any]


def run(layout: Layout, subjects: list[str], seconds: float) -> dict[str, Finding]:
    """Compare each subject; one that ends or blocks its process does not affect the others.

    Parameters
    ----------
    layout : Layout
    subjects : list of str
        Module names, ``dataset`` and ``training``.
    seconds : float
        The processor time limit of one subject.
    """
    findings: dict[str, Finding] = {}
    left = list(subjects)
    broken: list[str] = []
    whole = repairs = True
    with tempfile.TemporaryDirectory(prefix="fastnet-check-") as temporary:
        sandbox = Path(os.path.realpath(temporary))
        copy = layout.copy(sandbox)
        while True:
            task = {
                "sandbox": str(sandbox),
                "copy": str(copy),
                "original": str(layout.path),
                "subjects": left,
                "broken": broken,
                "whole": whole,
                "repairs": repairs,
                "seconds": seconds,
                "events": str(sandbox / "events"),
            }
            last, event, how = _work(task, findings)
            if how is None:
                return findings
            if event.get("repair") and repairs:
                repairs, left = False, left[left.index(last):]
                continue
            findings[last] = _stopped(how, event)
            if last == "__init__":
                if not whole:
                    return findings
                whole = False
            else:
                broken.append(last)
                left = left[left.index(last) + 1:]


def _work(task: dict[str, Any], findings: dict[str, Finding]) -> tuple[str, dict[str, Any], str | None]:
    """Run one process; return the subject at which it ended, its last event, and how it failed, if it did."""
    events = Path(task["events"])
    events.write_text("")
    errors = Path(task["sandbox"]) / "errors"
    with open(errors, "wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "fastnet.check._worker", json.dumps(task)], cwd=task["sandbox"],
            env=confinement.environment(ROOT, task["sandbox"]), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=stderr, start_new_session=True)
    late = False
    try:
        size, since = 0, time.monotonic()
        while process.poll() is None:
            time.sleep(0.01)
            if events.stat().st_size != size:
                size, since = events.stat().st_size, time.monotonic()
            if time.monotonic() - since > _PATIENCE * task["seconds"] + 20:
                late = True
                break
    finally:
        _kill(process)
    subject, event = "__init__", {}
    for line in events.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:  # the process ended in the middle of a line
            continue
        subject = event.get("begin", subject)
        if "result" in event:
            findings[event["result"]] = event
    if "end" in event:
        return subject, event, None
    if "stuck" in event or late:
        return subject, event, f"gives no answer within {task['seconds']:g} s; a slow layer may need --timeout"
    how = _how_it_ended(process.returncode)
    if not event:  # the participant's code did not cause this
        raise RuntimeError(f"fastnet check: its process {how}:\n{errors.read_text(errors='replace')}")
    return subject, {}, how


def _stopped(how: str, event: dict[str, Any]) -> Finding:
    fault: Finding = {
        "method": "",
        "quantity": "run",
        "equation": "",
        "formula": "",
        "message": how,
        "slip": None,
        "line": event.get("line"),
        "source": event.get("source") or "",
        "repair": None,
        "counterexample": [],
        "also": [],
    }
    return {
        "verdict": "differs",
        "file": event.get("file", ""),
        "faults": [fault],
        "remarks": [],
        "compared": 0,
        "matrices": [],
    }


def _how_it_ended(code: int) -> str:
    if code < 0:
        try:
            return f"crashes the process ({signal.Signals(-code).name})"
        except ValueError:
            pass
    return f"ends the process (exit code {code})"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the process and its process group, if it still runs."""
    if process.poll() is None:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
