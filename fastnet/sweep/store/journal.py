"""The file that a sweep is resumed from: who may write it, what may be asked of it. Its lines are those of `lines`.

A line is written at once, and to the disk before the sweep goes on, so that a crash costs the trials that were running. At
the end the trials are in the order of the sweep, not in that in which they finished.
"""
from __future__ import annotations

import contextlib
import errno
import json
import os
import warnings
import weakref
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastnet.base.system import lock_file, unlock_file
from fastnet.sweep.record import Record
from fastnet.sweep.spec import Setting, Spec, Trial
from fastnet.sweep.store.lines import (
    FORMAT,
    contradictions,
    difference,
    foreign,
    head_of,
    line_of,
    parsed,
    plain,
    settings_of,
    spec_of,
    to_json,
)


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
    who : str
        The function that complains.

    Attributes
    ----------
    records : dict
        Of all trials that ended, those found in the file included.
    engines : dict
        What trains each setting: as the file says, since another choice would give other bits.
    """

    def __init__(self, path: Path, head: dict[str, Any], who: str = "lr_sweep") -> None:
        self.path, self.who = path, who
        self.records: dict[Trial, Record] = {}
        self.engines: dict[Setting, str] = {}
        self.asked: list[dict[str, Any]] = []
        self._head = line_of({"fastnet_sweep": FORMAT, **head})
        with _named(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        _open_journals.add(self)
        try:
            _lock(self._file, path, who)
            self._read(head)
        except BaseException:
            self.close()
            raise

    def ask(self, spec: Spec, networks: dict[str, Any], engines: dict[Setting, str]) -> None:
        """Say what is to be run; refuse networks, schedules or a number of epochs that contradict the file."""
        asked = json.loads(json.dumps({"asked": {**asdict(spec), "diverged_above": plain(spec.diverged_above)},
                                       "networks": networks}))
        different = [line for before in self.asked for line in contradictions(before, asked)]
        ran = max((record.epochs for trial, record in self.records.items() if trial in set(spec.trials())), default=0)
        if ran > spec.epochs:
            different.append(f"  epochs: {ran} in the file, {spec.epochs} now")
        if different:
            raise self._other(different)
        for setting, engine in engines.items():
            self.engines.setdefault(setting, engine)
        asked["engines"] = [[list(map(list, setting)), self.engines[setting]] for setting in engines]
        grown = spec.search == "auto" and asked in self.asked  # a grid that finds itself asks for its steps again
        if not self.asked or (self.asked[-1] != asked and not grown):
            self.asked.append(asked)
            self._write(line_of(asked))

    def add(self, record: Record) -> None:
        """Append a trial that ended."""
        self._write(line_of(to_json(record)))
        self.records[record.trial] = record

    def finish(self, trials: list[Trial]) -> None:
        """If all trials are there, put them into their order; others that the file holds come first.

        The file is whole before: if this fails, there is a warning and no more.
        """
        if any(trial not in self.records for trial in trials):
            return
        wanted = set(trials)
        ordered = [*(trial for trial in self.records if trial not in wanted), *trials]
        lines = [self._head, *map(line_of, self.asked), *(line_of(to_json(self.records[trial])) for trial in ordered)]
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
            warnings.warn(f"{self.who}: {self.path} holds all trials, in the order in which they ended; it could not be put "
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
            raise foreign(self.who, self.path, "it has no first line that says which sweep it is of")
        if lines:
            found = head_of(self.who, self.path, lines[0])
            now = json.loads(json.dumps(head))
            different = [difference(name, found.get(name), now.get(name)) for name in {**found, **now}
                         if name != "fastnet_sweep" and found.get(name) != now.get(name)]
            if different:
                raise self._other(different)
            self.asked, self.records = parsed(self.who, self.path, lines)
        if torn:  # of this sweep: a file of something else is not changed
            warnings.warn(f"{self.who}: the last line of {self.path} was only half written, and is dropped: that trial "
                          "runs again.", RuntimeWarning, stacklevel=6)
            os.ftruncate(self._file, len(content) - len(torn))
        if not lines:
            self._write(self._head)
        for asked in self.asked:
            self.engines |= settings_of(asked)

    def _other(self, different: list[str]) -> ValueError:
        return ValueError("\n".join([f"{self.who}: {self.path} is of another sweep:", *dict.fromkeys(different),
                                     "Ask for what the file holds, or resume from another file."]))


@contextlib.contextmanager
def open_journal(path: str | os.PathLike[str] | None, head: dict[str, Any] | None, who: str) -> Iterator[Any]:
    """The journal of that path; without one, an object that only remembers."""
    if path is None or head is None:
        yield Unwritten()
        return
    journal = Journal(Path(path), head, who)
    try:
        yield journal
    finally:
        journal.close()


def read(path: str | os.PathLike[str]) -> tuple[Spec, dict[Setting, str], dict[Trial, Record]]:
    """The last sweep that used a file, what trained it, and all trials in the file. A half line is left out.

    Raises
    ------
    ValueError
        If it is not a file of `lr_sweep`, or a line is damaged.
    """
    path = Path(path)
    *lines, _ = path.read_bytes().split(b"\n")
    who = "lr_sweep"
    if not lines:
        raise foreign(who, path, "it has no first line that says which sweep it is of")
    head_of(who, path, lines[0])
    asked, records = parsed(who, path, lines)
    if not asked:
        raise ValueError(f"{who}: {path} was begun, and nothing was asked for: there is no sweep in it.")
    return spec_of(asked[-1]["asked"]), settings_of(asked[-1]), records


def has_trials(path: str | os.PathLike[str]) -> bool:
    """Whether a file holds something that must not be lost: all but a journal that was begun and holds no trial."""
    try:
        _, _, records = read(path)
    except ValueError as error:
        return "nothing was asked for" not in str(error)
    return bool(records)


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


_NO_LOCKS = {getattr(errno, name, None) for name in ("ENOSYS", "ENOLCK", "EOPNOTSUPP", "ENOTSUP")}


def _lock(file: int, path: Path, who: str) -> None:
    try:
        lock_file(file)
    except OSError as error:
        if error.errno in _NO_LOCKS:  # as on some network file systems
            warnings.warn(f"{who}: the file system of {path} has no locks. Take care that no other sweep writes to that "
                          "file meanwhile.", RuntimeWarning, stacklevel=7)
            return
        raise RuntimeError(f"{who}: another sweep is writing to {path}. Wait until it has ended, or resume from another "
                           "file.") from None
