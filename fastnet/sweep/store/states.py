"""The states of stopped trials that may continue: in memory, or in files next to the journal."""
from __future__ import annotations

import hashlib
import json
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from fastnet.base.system import available_memory
from fastnet.sweep.record import Record, State
from fastnet.sweep.spec import Spec, Trial


class Memory:
    """States in memory, as many as half of it holds; a trial whose state went runs from the start again."""

    def __init__(self, room: float | None = None) -> None:
        self.room = available_memory() / 2 if room is None else room
        self.held: OrderedDict[Trial, tuple[int, State]] = OrderedDict()
        self.size = 0

    def wanted(self, until: int, spec: Spec) -> bool:
        """Whether a trial that ends at that epoch may have to go on."""
        return until < spec.epochs

    def put(self, trial: Trial, state: State) -> None:
        """Keep the state of a trial, in place of an earlier one."""
        if trial in self.held and self.held[trial][1].engine is state.engine:  # it has gone on
            self.size -= self.held.pop(trial)[0]
        self.drop(trial)
        size = sum(array.nbytes for array in _arrays(state.engine))
        self.held[trial] = size, state
        self.size += size
        while self.size > self.room:
            self.drop(next(iter(self.held)))

    def get(self, record: Record) -> State | None:
        """The state of a trial as its record leaves it, if it is there."""
        return self.held[record.trial][1] if record.trial in self.held else None

    def drop(self, trial: Trial) -> None:
        """Forget a trial; a function that is suspended in it ends."""
        size, state = self.held.pop(trial, (0, None))
        self.size -= size
        if state is not None and hasattr(state.engine, "close"):
            state.engine.close()

    def clear(self) -> None:
        """Forget all."""
        for trial in list(self.held):
            self.drop(trial)


class Files(Memory):
    """As `Memory`, and in a folder as well, the states of finished trials too, so that epochs can be added later.

    A file is NumPy's .npz, without pickles. The layers of engines that run layer by layer cannot be written so: such
    trials run from the start again.
    """

    def __init__(self, folder: Path, room: float | None = None) -> None:
        super().__init__(room)
        self.folder = folder

    def wanted(self, until: int, spec: Spec) -> bool:
        return True

    def put(self, trial: Trial, state: State) -> None:
        super().put(trial, state)
        arrays: dict[str, np.ndarray] = {}
        try:
            tree = _flat({"engine": state.engine, "rng": state.rng, "limit": state.limit, "recent": state.recent}, arrays)
        except TypeError:
            return
        record = state.record
        arrays["losses"] = np.array(record.losses)
        head = {"tree": tree, "trial": trial.asdict(), "epochs": record.epochs}
        arrays["head"] = np.frombuffer(json.dumps(head).encode(), np.uint8)
        self.folder.mkdir(exist_ok=True)
        path = self._path(trial)
        beside = path.with_suffix(".new")
        with open(beside, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        os.replace(beside, path)

    def get(self, record: Record) -> State | None:
        return super().get(record) or self._read(record)

    def _read(self, record: Record) -> State | None:
        try:
            with open(self._path(record.trial), "rb") as file, np.load(file, allow_pickle=False) as found:
                arrays = dict(found)
            head = json.loads(arrays["head"].tobytes())
            tree = _deep(head["tree"], arrays)
        except Exception:  # not there, torn or foreign: errors of the system, of zipfile, NumPy and JSON
            return None
        if head["trial"] != record.trial.asdict() or not np.array_equal(arrays["losses"], record.losses):
            return None
        return State(tree["engine"], tree["rng"], tree["limit"], record, tree["recent"])

    def _path(self, trial: Trial) -> Path:
        return self.folder / (hashlib.blake2b(repr(tuple(trial)).encode(), digest_size=12).hexdigest() + ".npz")


def _arrays(state: Any) -> list[np.ndarray]:
    if isinstance(state, np.ndarray):
        return [state]
    if isinstance(state, dict):
        state = list(state.values())
    return [array for item in state for array in _arrays(item)] if isinstance(state, (list, tuple)) else []


def _flat(state: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Nested tuples, lists and dicts as JSON, in which an array is the name of one in `arrays`."""
    if isinstance(state, np.ndarray) and state.dtype != object:
        name = f"a{len(arrays)}"
        arrays[name] = state
        return {"array": name}
    if isinstance(state, (tuple, list)):
        return {"tuple" if isinstance(state, tuple) else "list": [_flat(item, arrays) for item in state]}
    if isinstance(state, dict) and all(isinstance(key, str) for key in state):
        return {"dict": {key: _flat(value, arrays) for key, value in state.items()}}
    if isinstance(state, np.generic):
        return {"scalar": _flat(np.array(state), arrays)}
    if state is None or isinstance(state, (bool, int, str, float)):
        return {"value": str(state) if isinstance(state, float) else state, "float": isinstance(state, float)}
    raise TypeError(f"{type(state).__name__} cannot be written to a file of arrays")


def _deep(tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    """What `_flat` was given."""
    kind = next(iter(tree))
    if kind == "array":
        return arrays[tree["array"]]
    if kind in ("tuple", "list"):
        items = [_deep(item, arrays) for item in tree[kind]]
        return tuple(items) if kind == "tuple" else items
    if kind == "dict":
        return {key: _deep(value, arrays) for key, value in tree["dict"].items()}
    if kind == "scalar":
        return _deep(tree["scalar"], arrays)[()]
    return float(tree["value"]) if tree["float"] else tree["value"]
