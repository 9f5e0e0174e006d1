"""The lines of a journal: JSON with a checksum, and in what two of them contradict each other.

=====================  =============================================================================================
``{"fastnet_sweep"``   the first line: format, version, digests of the data, and what no sweep in this file may change
``{"asked"``           a grid that was asked for, with its networks; the last such line is the sweep that the file is of
``{"trial"``           a trial that ended, or was stopped in a rung; a later line of the same trial replaces it
=====================  =============================================================================================
"""
from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

from fastnet.sweep.record import Record
from fastnet.sweep.spec import Trial
from fastnet.training import Evaluation

FORMAT = 2
_CHECK = b', "check": "%08x"}\n'
_LENGTH = len(_CHECK % 0)


def line_of(value: dict[str, Any]) -> bytes:
    """JSON whose last entry is the checksum of what stands before it."""
    content = json.dumps(value, allow_nan=False).encode()[:-1]
    return content + _CHECK % zlib.crc32(content)


def parsed(path: Path, lines: list[bytes]) -> tuple[list[dict[str, Any]], dict[Trial, Record]]:
    asked: list[dict[str, Any]] = []
    records: dict[Trial, Record] = {}
    for number, line in enumerate(lines[1:], 2):
        try:
            if not line.strip():
                raise ValueError("it is blank")
            content = line[:-_LENGTH + 1]
            if line[-_LENGTH + 1:] + b"\n" != _CHECK % zlib.crc32(content):
                raise ValueError("its checksum does not match")
            found = json.loads(line)
            del found["check"]
            if "asked" in found:
                asked.append(found)
            else:
                record = from_json(found)
                if not any(_asked_for(record.trial, grid["asked"]) for grid in asked):
                    raise ValueError(f"it is of a trial that no sweep in the file asked for: {record.trial}")
                records[record.trial] = record
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"lr_sweep: line {number} of {path} is damaged: {error}. Delete that line; a trial that it was "
                             "of runs again.") from None
    return asked, records


def _asked_for(trial: Trial, grid: dict[str, Any]) -> bool:
    return (trial.name in grid["names"] and trial.lr in grid["lrs"] and trial.seed in grid["seeds"]
            and trial.folds == grid["folds"] and 0 <= trial.fold <= trial.folds and trial.batch_size in grid["batch_sizes"]
            and trial.momentum in grid["momenta"] and trial.weight_decay in grid["weight_decays"]
            and trial.schedule in dict(grid["schedules"]) and trial.optimizer in grid.get("optimizers", ["sgd"]))


def head_of(path: Path, line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
        version = found["fastnet_sweep"]
    except (ValueError, KeyError, TypeError):
        raise foreign(path, f"its first line is {line[:60]!r}") from None
    if version != FORMAT:
        raise foreign(path, f"it is of format {version}, and this version of fastnet writes format {FORMAT}")
    found.pop("check", None)
    return found


def foreign(path: Path, why: str) -> ValueError:
    return ValueError(f"lr_sweep: {path} is not a file of lr_sweep: {why}. Resume from another file.")


def to_json(record: Record) -> dict[str, Any]:
    test = record.test
    return {"trial": record.trial._asdict(), "status": record.status, "engine": record.engine,
            "losses": [plain(v) for v in record.losses], "val_losses": [plain(v) for v in record.val_losses],
            "val_accuracies": [plain(v) for v in record.val_accuracies],
            "test": None if test is None else [plain(test.loss), plain(test.accuracy)], "seconds": record.seconds}


def from_json(found: dict[str, Any]) -> Record:
    numbers = {name: [float(v) for v in found[name]] for name in ("losses", "val_losses", "val_accuracies")}
    if not numbers["losses"]:
        raise ValueError("it is of a trial that ran no epoch")
    if any(len(numbers[name]) not in (0, len(numbers["losses"])) for name in ("val_losses", "val_accuracies")):
        raise ValueError("its losses and validation losses are of different numbers of epochs")
    if found["status"] not in ("done", "diverged", "stopped"):
        raise ValueError(f"its status is {found['status']!r}")
    return Record(Trial(**found["trial"]), found["status"], found["engine"],
                  test=None if found["test"] is None else Evaluation(*map(float, found["test"])),
                  seconds=float(found["seconds"]), **numbers)


def plain(value: float) -> float | str:
    """JSON has no nan and no inf: as texts, which `float` reads."""
    return value if math.isfinite(value) else str(value)


# --- what no two sweeps of a file may differ in --------------------------------------------------------------------------


def contradictions(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Networks and schedules of the same name that are not the same; epochs may be added."""
    found = [difference(f"network {name!r}" if name else "network", network, now["networks"][name])
             for name, network in before["networks"].items() if now["networks"].get(name, network) != network]
    new = dict(now["asked"]["schedules"])
    for name, factors in before["asked"]["schedules"]:
        if name in new and factors != new[name][:len(factors)] and new[name] != factors[:len(new[name])]:
            found.append(difference(f"schedule {name!r}", factors, new[name]))
    return found


def difference(name: str, before: Any, now: Any) -> str:
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        at = next((i for i, (one, other) in enumerate(zip(before, now)) if one != other), None)
        if at is not None and isinstance(before[at], dict):  # a layer
            return difference(f"{name}, layer {at}", before[at], now[at])
    if isinstance(before, dict) and isinstance(now, dict):
        key = next((key for key in {**before, **now} if before.get(key) != now.get(key)), None)
        if key is not None:
            return difference(f"{name}, {key}", before.get(key), now.get(key))
    return f"  {name}: {_shown(before)} in the file, {_shown(now)} now"


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else text[:97] + "..."
