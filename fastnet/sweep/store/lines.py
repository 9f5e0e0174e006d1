"""The lines of a journal: JSON with a checksum, and in what two of them contradict each other.

=====================  =============================================================================================
``{"fastnet_sweep"``   the first line: format, digests of the data, and what no sweep in this file may change
``{"asked"``           a grid that was asked for, with its networks; the last such line is the sweep that the file is of
``{"trial"``           a trial that ended, or was stopped in a rung; a later line of the same trial replaces it
=====================  =============================================================================================
"""
from __future__ import annotations

import base64
import dataclasses
import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from fastnet.sweep.record import Record
from fastnet.sweep.spec import Setting, Spec, Trial

FORMAT = 3
_CHECK = b', "check": "%08x"}'
_LENGTH = len(_CHECK % 0)
_SAMPLES = 1 << 28  # more held-out samples than that are no line of ours


def line_of(value: dict[str, Any]) -> bytes:
    """JSON whose last entry is the checksum of what stands before it."""
    content = json.dumps(value, allow_nan=False).encode()[:-1]
    return content + _CHECK % zlib.crc32(content) + b"\n"


def content_of(line: bytes) -> dict[str, Any]:
    """What a line says. Its end may be that of Windows: an editor or version control has rewritten the file then.

    Raises
    ------
    ValueError
        If the line is not whole.
    """
    line = line.rstrip(b"\r\n")
    if not line.strip():
        raise ValueError("it is blank")
    content = line[:-_LENGTH]
    if line[-_LENGTH:] != _CHECK % zlib.crc32(content):
        raise ValueError("its checksum does not match")
    try:
        found = json.loads(line)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    found.pop("check", None)
    return found


def parsed(who: str, path: Path, lines: list[bytes]) -> tuple[list[dict[str, Any]], dict[Trial, Record]]:
    """The grids of all calls, and the trials."""
    asked: list[dict[str, Any]] = []
    specs: list[Spec] = []
    records: dict[Trial, Record] = {}
    for number, line in enumerate(lines[1:], 2):
        try:
            found = content_of(line)
            if "asked" in found:
                specs.append(spec_of(found["asked"]))
                settings_of(found)
                asked.append(found)
            else:
                record = from_json(found, specs)
                records[record.trial] = record
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, zlib.error) as error:
            raise ValueError(f"{who}: line {number} of {path} is damaged: {_said(error)}. Delete that line; a trial that it "
                             "was of runs again.") from None
    return asked, records


def _said(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]!r}"
    return str(error)


def spec_of(found: Any) -> Spec:
    """The arguments of a sweep, from JSON; a value of another type than expected is refused."""
    fields = {field.name: found[field.name] for field in dataclasses.fields(Spec) if field.name in found}
    if len(fields) != len(found):
        raise ValueError("it asks for something that this version does not know")
    for name in ("lrs", "seeds", "params", "guess", "schedules"):
        fields[name] = _deep_tuple(fields[name])
    fields["metric"] = None if fields["metric"] is None else tuple(map(str, fields["metric"]))
    fields["diverged_above"] = float(fields["diverged_above"])
    spec = Spec(**fields)
    whole = [spec.epochs, spec.folds, *spec.seeds]
    if not all(isinstance(lr, float) for lr in spec.lrs) or any(type(value) is not int for value in whole):
        raise ValueError("its rates, seeds or numbers are of a wrong type")
    for name, values in spec.params:
        if not isinstance(name, str) or not isinstance(values, tuple):
            raise ValueError("its hyperparameters are not names with values")
    dict(spec.schedules), dict(spec.guess), hash(spec)
    return spec


def settings_of(asked: dict[str, Any]) -> dict[Setting, str]:
    """What trains each setting."""
    return {Setting(map(tuple, pairs)): str(engine) for pairs, engine in asked["engines"]}


def _deep_tuple(value: Any) -> Any:
    return tuple(map(_deep_tuple, value)) if isinstance(value, list) else value


def head_of(who: str, path: Path, line: bytes) -> dict[str, Any]:
    """The first line's entries."""
    try:
        found = json.loads(line)
        version = found["fastnet_sweep"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise foreign(who, path, f"its first line is {line[:60]!r}") from None
    if version != FORMAT:
        raise foreign(who, path, f"it is of format {version}, and this version of fastnet writes format {FORMAT}")
    try:
        return content_of(line)
    except ValueError as error:
        raise ValueError(f"{who}: the first line of {path} is damaged: {error}. It says which data the trials are of. "
                         "Resume from another file.") from None


def foreign(who: str, path: Path, why: str) -> ValueError:
    return ValueError(f"{who}: {path} is not a file of {who}: {why}. Resume from another file.")


def to_json(record: Record) -> dict[str, Any]:
    return {"trial": record.trial.asdict(), "status": record.status, "engine": record.engine,
            "curves": {name: [plain(v) for v in curve] for name, curve in record.curves.items()},
            "final": {name: plain(v) for name, v in record.final.items()}, "seconds": record.seconds,
            "samples": {name: _packed(values) for name, values in record.samples.items()},
            **({"ended": True} if record.ended else {})}


def from_json(found: dict[str, Any], specs: list[Spec]) -> Record:
    """A trial of one of these sweeps."""
    trial, spec = _trial_of(found["trial"], specs)
    curves = {str(name): [_number(v) for v in curve] for name, curve in found["curves"].items()}
    lengths = set(map(len, curves.values()))
    if lengths in (set(), {0}):
        raise ValueError("it is of a trial that ran no epoch")
    if len(lengths) > 1:
        raise ValueError("its curves are of different numbers of epochs")
    if max(lengths) > spec.epochs:
        raise ValueError(f"it is of {max(lengths)} epochs, and {spec.epochs} were asked for")
    if found["status"] not in ("done", "diverged", "stopped"):
        raise ValueError(f"its status is {found['status']!r}")
    if not isinstance(found["engine"], str):
        raise ValueError("its engine has no name")
    samples = {str(name): _unpacked(packed) for name, packed in found["samples"].items()}
    if any(name not in curves for name in samples):
        raise ValueError("its samples are of no curve")
    return Record(trial, found["status"], found["engine"], curves,
                  {str(name): _number(v) for name, v in found["final"].items()}, _number(found["seconds"]), samples,
                  found.get("ended") is True)


def _trial_of(found: dict[str, Any], specs: list[Spec]) -> tuple[Trial, Spec]:
    """The trial, and the largest sweep in the file that asked for it."""
    asking = []
    for spec in specs:
        setting = Setting((name, found.get(name)) for name, _ in spec.params)
        trial = Trial(setting, found["lr"], found["seed"], found["fold"], found["folds"])
        if trial.asdict() == found and trial.lr in spec.lrs and trial.seed in spec.seeds and (
                trial.folds == spec.folds and type(trial.fold) is int and 0 <= trial.fold <= trial.folds
                and all(value in values for (_, value), (_, values) in zip(setting, spec.params))):
            asking.append((spec.epochs, trial, spec))
    if not asking:
        of = Trial(Setting(), found["lr"], found["seed"])
        raise ValueError(f"it is of a trial that no sweep in the file asked for: rate {of.lr}, seed {of.seed}")
    _, trial, spec = max(asking, key=lambda one: one[0])
    return trial, spec


def _number(value: Any) -> float:
    if isinstance(value, bool) or (not isinstance(value, (int, float)) and value not in ("nan", "inf", "-inf")):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def _packed(values: np.ndarray) -> list[Any]:
    """float32, compressed: values of a few epochs repeat."""
    return [len(values), base64.b64encode(zlib.compress(np.asarray(values, "<f4").tobytes(), 6)).decode()]


def _unpacked(packed: Any) -> np.ndarray:
    count, text = packed
    if type(count) is not int or not 0 < count < _SAMPLES:
        raise ValueError(f"it is of {count!r} held-out samples")
    raw = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), 4 * count + 1)
    if len(raw) != 4 * count:
        raise ValueError(f"it does not hold the values of {count} held-out samples")
    return np.frombuffer(raw, "<f4").astype(np.float32)


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
