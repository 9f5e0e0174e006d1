"""The file that a sweep is resumed from: a line of JSON that says which sweep it is, then one a finished trial.

A line is written at once, and to the disk before the sweep goes on, so that a crash costs the trials that were running. At
the end the trials stand in the order of the sweep, whichever finished first.
"""
from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fastnet._system import lock_file, unlock_file
from fastnet.layer import parameters
from fastnet.sequential import Sequential
from fastnet.sweep.spec import Spec, Trial
from fastnet.sweep.trial import Record
from fastnet.training import Evaluation

_FORMAT = 1
_JUST_FOR_INFORMATION = ("fastnet_sweep", "key", "engines")  # in the first line, not part of what must be the same


def fingerprint(spec: Spec, models: dict[str, Sequential], data: tuple[Any, ...], engines: dict[str, str]) -> dict[str, Any]:
    """The first line of a journal: the specification, digests of the data and of a first network, and their hash."""
    x, t, validation, test = data
    mark: dict[str, Any] = {
        "builders": list(spec.names), "lrs": list(spec.lrs), "seeds": list(spec.seeds)}
    mark |= {name: getattr(spec, name) for name in
             ("epochs", "batch_size", "engine", "shuffle", "momentum", "weight_decay")}
    mark["diverged_above"] = _text(spec.diverged_above)
    mark |= {"x": _digest(x), "y": _digest(t)}
    mark |= {name: None if pair is None else [_digest(a) for a in pair]
             for name, pair in (("validation", validation), ("test", test))}
    for name, model in models.items():
        kinds = ", ".join(type(layer).__name__ for layer in (*model.layers, model.loss))
        of_first_seed = [_digest(getattr(layer, p)) for layer in model.layers for p in parameters(layer)]
        mark["network" + (f" {name!r}" if name else "")] = [kinds, *of_first_seed]
    key = hashlib.blake2b(json.dumps(mark, sort_keys=True).encode(), digest_size=16).hexdigest()
    return {"fastnet_sweep": _FORMAT, "key": key, **mark, "engines": engines}


@contextlib.contextmanager
def open_journal(path: str | os.PathLike[str] | None, mark: dict[str, Any] | None) -> Iterator[Any]:
    """The journal of that path; without one, an object that only remembers."""
    if path is None or mark is None:
        yield Unwritten()
        return
    journal = Journal(Path(path), mark)
    try:
        yield journal
    finally:
        journal.close()


class Unwritten:
    """A journal without a file."""

    engines: dict[str, str] | None = None

    def __init__(self) -> None:
        self.records: dict[Trial, Record] = {}

    def add(self, record: Record) -> None:
        """Remember a finished trial."""
        self.records[record.trial] = record

    def finish(self, trials: list[Trial]) -> None:
        """Nothing to do."""


class Journal:
    """A journal in a file, which no other process can open meanwhile.

    Parameters
    ----------
    path : Path
        Made if it is not there.
    mark : dict
        From `fingerprint`; a file with another one is refused.

    Attributes
    ----------
    records : dict
        Of all finished trials, those found in the file included.
    engines : dict
        What trains each network: as the file says, since another choice would give other bits.
    """

    def __init__(self, path: Path, mark: dict[str, Any]) -> None:
        self.path = path
        self.records: dict[Trial, Record] = {}
        self.engines: dict[str, str] = mark["engines"]
        self._lines: dict[Trial, bytes] = {}
        self._first = _line(mark)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        _open_journals.add(self)
        try:
            _lock(self._file, path)
            self._read(mark)
        except BaseException:
            self.close()
            raise

    def add(self, record: Record) -> None:
        """Append a finished trial."""
        line = _line(_to_json(record))
        self._write(line)
        self.records[record.trial], self._lines[record.trial] = record, line

    def finish(self, trials: list[Trial]) -> None:
        """If all trials are there, put them into their order."""
        if len(self._lines) < len(trials) or list(self._lines) == trials:
            return
        beside = self.path.with_name(self.path.name + ".new")
        with open(beside, "wb") as file:
            file.write(self._first + b"".join(self._lines[trial] for trial in trials))
            file.flush()
            os.fsync(file.fileno())
        self.close()  # Windows replaces no open file
        os.replace(beside, self.path)

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

    def _write(self, line: bytes) -> None:
        at = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, line)
            if written < len(line):
                raise OSError(f"only {written} of {len(line)} bytes could be written to {self.path}")
            os.fsync(self._file)
        except BaseException:
            os.ftruncate(self._file, at)
            raise

    def _read(self, mark: dict[str, Any]) -> None:
        with open(self._file, "rb", closefd=False) as file:
            content = file.read()
        *lines, torn = content.split(b"\n")
        if not lines and not self._first.startswith(torn):
            raise self._foreign("it has no first line that says which sweep it is of")
        if torn:
            warnings.warn(f"lr_sweep: the last line of {self.path} was only half written, and is dropped: that trial "
                          "runs again.", RuntimeWarning, stacklevel=6)
            os.ftruncate(self._file, len(content) - len(torn))
        if not lines:
            self._write(self._first)
            return
        self._compare(lines[0], mark)
        self._first = lines[0] + b"\n"
        for number, line in enumerate(lines[1:], 2):
            try:
                record = _from_json(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"lr_sweep: line {number} of {self.path} is damaged ({error!r}). Delete that line, and its "
                                 "trial runs again.") from None
            self.records[record.trial], self._lines[record.trial] = record, line + b"\n"

    def _compare(self, line: bytes, mark: dict[str, Any]) -> None:
        try:
            found = json.loads(line)
            version = found["fastnet_sweep"]
        except (ValueError, KeyError, TypeError):
            raise self._foreign(f"its first line is {line[:60]!r}") from None
        if version != _FORMAT:
            raise self._foreign(f"it is of format {version}, and this version of fastnet writes format {_FORMAT}")
        self.engines = found["engines"]
        names = [name for name in {**found, **mark} if name not in _JUST_FOR_INFORMATION]
        now = json.loads(_line(mark))
        different = [f"  {name}: {_shown(found.get(name))} in the file, {_shown(now.get(name))} now"
                     for name in names if found.get(name) != now.get(name)]
        if different:
            raise ValueError("\n".join([f"lr_sweep: {self.path} is of another sweep:", *different,
                                        "Ask for what the file holds, or resume from another file."]))

    def _foreign(self, why: str) -> ValueError:
        return ValueError(f"lr_sweep: {self.path} is not a file of lr_sweep: {why}. Resume from another file.")


# A child made by fork has the same open files, and would hold the lock for as long as it lives
_open_journals: weakref.WeakSet[Journal] = weakref.WeakSet()


def _let_all_go() -> None:
    for journal in list(_open_journals):
        journal.let_go()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_all_go)


def _lock(file: int, path: Path) -> None:
    try:
        lock_file(file)
    except OSError:
        raise RuntimeError(f"lr_sweep: another sweep is writing to {path}. Wait until it has ended, or resume from another "
                           "file.") from None


def _digest(array: np.ndarray) -> str:
    """Type, shape, and a hash of the bytes."""
    hashed = hashlib.blake2b(digest_size=16)
    for first in range(0, len(array), 4096):
        hashed.update(np.ascontiguousarray(array[first:first + 4096]).view(np.uint8).data)
    return f"{array.dtype} {'x'.join(map(str, array.shape))} {hashed.hexdigest()}"


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, allow_nan=False).encode() + b"\n"


def _to_json(record: Record) -> dict[str, Any]:
    test = record.test or Evaluation(math.nan, math.nan)
    return {"name": record.trial.name, "lr": record.trial.lr, "seed": record.trial.seed, "status": record.status,
            "engine": record.engine, "losses": [_text(v) for v in record.losses],
            "val_losses": [_text(v) for v in record.val_losses],
            "val_accuracies": [_text(v) for v in record.val_accuracies],
            "test": None if record.test is None else [_text(test.loss), _text(test.accuracy)],
            "seconds": record.seconds}


def _from_json(found: dict[str, Any]) -> Record:
    numbers = {name: [float(v) for v in found[name]] for name in ("losses", "val_losses", "val_accuracies")}
    return Record(Trial(found["name"], found["lr"], found["seed"]), found["status"], found["engine"],
                  test=None if found["test"] is None else Evaluation(*map(float, found["test"])),
                  seconds=float(found["seconds"]), **numbers)


def _text(value: float) -> float | str:
    """JSON has no nan and no inf: as texts, which `float` reads."""
    return value if math.isfinite(value) else str(value)
