"""The file that a sweep is resumed from: lines of JSON, each with a checksum.

=====================  =============================================================================================
``{"fastnet_sweep"``   the first line: format, version, digests of the data, and what no sweep in this file may change
``{"asked"``           a grid that was asked for, with its networks; the last such line is the sweep that the file is of
``{"trial"``           a trial that ended, or was stopped in a rung; a later line of the same trial replaces it
=====================  =============================================================================================

A line is written at once, and to the disk before the sweep goes on, so that a crash costs the trials that were running. At
the end the trials stand in the order of the sweep, whichever finished first.
"""
from __future__ import annotations

import contextlib
import json
import math
import os
import warnings
import weakref
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastnet._system import lock_file, unlock_file
from fastnet.sweep.spec import Setting, Spec, Trial
from fastnet.sweep.trial import Record
from fastnet.training import Evaluation

_FORMAT = 2
_CHECK = b', "check": "%08x"}\n'
_LENGTH = len(_CHECK % 0)


class Unwritten:
    """A journal without a file."""

    def __init__(self) -> None:
        self.records: dict[Trial, Record] = {}
        self.engines: dict[Setting, str] = {}

    def ask(self, spec: Spec, networks: dict[str, Any], engines: dict[Setting, str]) -> None:
        """Say what is to be run."""
        self.engines |= engines

    def add(self, record: Record) -> None:
        """Remember a trial that ended."""
        self.records[record.trial] = record

    def finish(self, trials: list[Trial]) -> None:
        """Nothing to do."""


class Journal:
    """A journal in a file, which no other process can open meanwhile.

    Parameters
    ----------
    path : Path
        Made if it is not there.
    head : dict
        What all sweeps in a file have in common; a file with another one is refused.

    Attributes
    ----------
    records : dict
        Of all trials that ended, those found in the file included.
    engines : dict
        What trains each setting: as the file says, since another choice would give other bits.
    """

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self.path = path
        self.records: dict[Trial, Record] = {}
        self.engines: dict[Setting, str] = {}
        self.asked: list[dict[str, Any]] = []
        self._head = _line({"fastnet_sweep": _FORMAT, **head})
        with _named(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        _open_journals.add(self)
        try:
            _lock(self._file, path)
            self._read(head)
        except BaseException:
            self.close()
            raise

    def ask(self, spec: Spec, networks: dict[str, Any], engines: dict[Setting, str]) -> None:
        """Say what is to be run; refuse networks, schedules or a number of epochs that contradict the file."""
        asked = json.loads(json.dumps({"asked": {**asdict(spec), "diverged_above": _text(spec.diverged_above)},
                                       "networks": networks}))
        different = [line for before in self.asked for line in _contradictions(before, asked)]
        ran = max((record.epochs for trial, record in self.records.items() if trial in set(spec.trials())), default=0)
        if ran > spec.epochs:
            different.append(f"  epochs: {ran} in the file, {spec.epochs} now")
        if different:
            raise self._other(different)
        for setting, engine in engines.items():
            self.engines.setdefault(setting, engine)
        asked["engines"] = [[list(setting), self.engines[setting]] for setting in engines]
        grown = spec.search == "auto" and asked in self.asked  # a grid that finds itself asks for its steps again
        if not self.asked or (self.asked[-1] != asked and not grown):
            self.asked.append(asked)
            self._write(_line(asked))

    def add(self, record: Record) -> None:
        """Append a trial that ended."""
        self._write(_line(_to_json(record)))
        self.records[record.trial] = record

    def finish(self, trials: list[Trial]) -> None:
        """If all trials are there, put them into their order; others that the file holds come first.

        The file is whole before: if this fails, there is a warning and no more.
        """
        if any(trial not in self.records for trial in trials):
            return
        wanted = set(trials)
        ordered = [*(trial for trial in self.records if trial not in wanted), *trials]
        lines = [self._head, *map(_line, self.asked), *(_line(_to_json(self.records[trial])) for trial in ordered)]
        if lines == self._lines():
            return
        beside = self.path.with_name(self.path.name + ".new")
        try:
            with open(beside, "wb") as file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
            self.close()  # Windows replaces no open file
            os.replace(beside, self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink()
            warnings.warn(f"lr_sweep: {self.path} holds all trials, in the order in which they ended; it could not be put "
                          f"into the order of the sweep: {error}.", RuntimeWarning, stacklevel=4)

    def close(self) -> None:
        """Let others open the file, also where a child that was just made by fork has it open still."""
        if self._file >= 0:
            with contextlib.suppress(OSError):  # of a journal that could not be locked
                unlock_file(self._file)
        self.let_go()

    def let_go(self) -> None:
        """Close the file alone: a child's, which must not unlock what its parent has locked."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1
        _open_journals.discard(self)

    def _lines(self) -> list[bytes]:
        with _named(self.path), open(self.path, "rb") as file:
            return file.readlines()

    def _write(self, line: bytes) -> None:
        at = os.fstat(self._file).st_size
        try:
            with _named(self.path):
                written = os.write(self._file, line)
            if written < len(line):
                raise OSError(f"only {written} of {len(line)} bytes could be written to {self.path}; is the disk full?")
            os.fsync(self._file)
        except BaseException:
            os.ftruncate(self._file, at)
            raise

    def _read(self, head: dict[str, Any]) -> None:
        with open(self._file, "rb", closefd=False) as file:
            content = file.read()
        *lines, torn = content.split(b"\n")
        if not lines and not self._head.startswith(torn):
            raise _foreign(self.path, "it has no first line that says which sweep it is of")
        if torn:
            warnings.warn(f"lr_sweep: the last line of {self.path} was only half written, and is dropped: that trial "
                          "runs again.", RuntimeWarning, stacklevel=6)
            os.ftruncate(self._file, len(content) - len(torn))
        if not lines:
            self._write(self._head)
            return
        found = _parsed_head(self.path, lines[0])
        now = json.loads(json.dumps(head))
        different = [_difference(name, found.get(name), now.get(name)) for name in {**found, **now}
                     if name != "fastnet_sweep" and found.get(name) != now.get(name)]
        if different:
            raise self._other(different)
        self.asked, self.records = _parsed(self.path, lines)
        for asked in self.asked:
            self.engines |= {Setting(*setting): engine for setting, engine in asked["engines"]}

    def _other(self, different: list[str]) -> ValueError:
        return ValueError("\n".join([f"lr_sweep: {self.path} is of another sweep:", *dict.fromkeys(different),
                                     "Ask for what the file holds, or resume from another file."]))


@contextlib.contextmanager
def open_journal(path: str | os.PathLike[str] | None, head: dict[str, Any] | None) -> Iterator[Any]:
    """The journal of that path; without one, an object that only remembers."""
    if path is None or head is None:
        yield Unwritten()
        return
    journal = Journal(Path(path), head)
    try:
        yield journal
    finally:
        journal.close()


def read(path: str | os.PathLike[str]) -> tuple[Spec, dict[Setting, str], dict[Trial, Record]]:
    """The sweep that a file was asked for last, what trained it, and all trials in the file. A half line is left out.

    Raises
    ------
    ValueError
        If it is not a file of `lr_sweep`, or a line is damaged.
    """
    path = Path(path)
    *lines, _ = path.read_bytes().split(b"\n")
    if not lines:
        raise _foreign(path, "it has no first line that says which sweep it is of")
    _parsed_head(path, lines[0])
    asked, records = _parsed(path, lines)
    if not asked:
        raise ValueError(f"lr_sweep: {path} was begun, and nothing was asked for: there is no sweep in it.")
    found = dict(asked[-1]["asked"])
    found["schedules"] = tuple((name, tuple(factors)) for name, factors in found["schedules"])
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
    spec = Spec(**{**fields, "diverged_above": float(found["diverged_above"])})
    return spec, {Setting(*setting): engine for setting, engine in asked[-1]["engines"]}, records


# --- lines -----------------------------------------------------------------------------------------------------------


def _line(value: dict[str, Any]) -> bytes:
    """JSON whose last entry is the checksum of what stands before it."""
    content = json.dumps(value, allow_nan=False).encode()[:-1]
    return content + _CHECK % zlib.crc32(content)


def _parsed(path: Path, lines: list[bytes]) -> tuple[list[dict[str, Any]], dict[Trial, Record]]:
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
                record = _from_json(found)
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
            and trial.schedule in dict(grid["schedules"]))


def _parsed_head(path: Path, line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
        version = found["fastnet_sweep"]
    except (ValueError, KeyError, TypeError):
        raise _foreign(path, f"its first line is {line[:60]!r}") from None
    if version != _FORMAT:
        raise _foreign(path, f"it is of format {version}, and this version of fastnet writes format {_FORMAT}")
    found.pop("check", None)
    return found


def _contradictions(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Networks and schedules of the same name that are not the same; epochs may be added."""
    found = [_difference(f"network {name!r}" if name else "network", network, now["networks"][name])
             for name, network in before["networks"].items() if now["networks"].get(name, network) != network]
    new = dict(now["asked"]["schedules"])
    for name, factors in before["asked"]["schedules"]:
        if name in new and factors != new[name][:len(factors)] and new[name] != factors[:len(new[name])]:
            found.append(_difference(f"schedule {name!r}", factors, new[name]))
    return found


def _difference(name: str, before: Any, now: Any) -> str:
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        at = next((i for i, (one, other) in enumerate(zip(before, now)) if one != other), None)
        if at is not None and isinstance(before[at], dict):  # a layer
            return _difference(f"{name}, layer {at}", before[at], now[at])
    if isinstance(before, dict) and isinstance(now, dict):
        key = next((key for key in {**before, **now} if before.get(key) != now.get(key)), None)
        if key is not None:
            return _difference(f"{name}, {key}", before.get(key), now.get(key))
    return f"  {name}: {_shown(before)} in the file, {_shown(now)} now"


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _foreign(path: Path, why: str) -> ValueError:
    return ValueError(f"lr_sweep: {path} is not a file of lr_sweep: {why}. Resume from another file.")


def _to_json(record: Record) -> dict[str, Any]:
    test = record.test
    return {"trial": record.trial._asdict(), "status": record.status, "engine": record.engine,
            "losses": [_text(v) for v in record.losses], "val_losses": [_text(v) for v in record.val_losses],
            "val_accuracies": [_text(v) for v in record.val_accuracies],
            "test": None if test is None else [_text(test.loss), _text(test.accuracy)], "seconds": record.seconds}


def _from_json(found: dict[str, Any]) -> Record:
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


def _text(value: float) -> float | str:
    """JSON has no nan and no inf: as texts, which `float` reads."""
    return value if math.isfinite(value) else str(value)


# --- one writer ------------------------------------------------------------------------------------------------------

# A child made by fork has the same open files, and would hold the lock for as long as it lives
_open_journals: weakref.WeakSet[Journal] = weakref.WeakSet()


def _let_all_go() -> None:
    for journal in list(_open_journals):
        journal.let_go()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_all_go)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Have errors of the system name the file."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename:
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from None


def _lock(file: int, path: Path) -> None:
    try:
        lock_file(file)
    except OSError:
        raise RuntimeError(f"lr_sweep: another sweep is writing to {path}. Wait until it has ended, or resume from another "
                           "file.") from None
