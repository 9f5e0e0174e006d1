"""The process that runs a folder's code: ``python -m fastnet.check._worker JSON``."""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
import traceback
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from fastnet.base import confinement
from fastnet.check import _diagnose, _fault, _repair
from fastnet.check._cases import drawn
from fastnet.check._fit import call_fit, random_state
from fastnet.check._folder import STEMS, Imported
from fastnet.check._observe import agree
from fastnet.check._reference import CLASSES, NEXT
from fastnet.check._source import python_2

_REPAIRS = 1.0  # seconds of processor time for all layers together


class Worker:
    """Compares the subjects one after the other, and writes one line of JSON for each.

    Parameters
    ----------
    events : text file
    task : dict
        ``sandbox``, ``copy``, ``original``, ``subjects``, ``broken`` (modules that must not be imported), ``whole`` (whether
        to run ``__init__.py``), ``repairs``, ``seconds``.
    """

    def __init__(self, events: TextIO, task: dict[str, Any]) -> None:
        self.events, self.task = events, task
        self.subject = "__init__"
        self.since = time.process_time()
        threading.Thread(target=self.watch, daemon=True).start()

    def emit(self, **event: Any) -> None:
        self.events.write(json.dumps(event) + "\n")
        self.events.flush()

    def begin(self, subject: str) -> None:
        self.subject, self.since = subject, time.process_time()
        self.emit(begin=subject)

    def watch(self) -> None:
        """End the process if a subject needs too much processor time, which does not depend on other programs."""
        main = threading.main_thread().ident
        limit = self.task["seconds"]
        while True:
            threading.Event().wait(0.05)
            if time.process_time() - self.since > limit + (_REPAIRS if self.task["repairs"] else 0):
                frames = traceback.extract_stack(sys._current_frames()[main]) if main is not None else []
                own = [f for f in frames if f.filename.startswith(str(Path(self.task["copy"])))]
                line = own[-1].lineno if own else None
                name = os.path.basename(own[-1].filename) if own else ""
                in_repair = any(f.filename == _repair.__file__ for f in frames)
                self.emit(stuck=self.subject, line=line, file=name, source=own[-1].line if own else "", repair=in_repair)
                os._exit(0)

    def run(self) -> None:
        np.random.seed(0)
        _repair.budget = _REPAIRS if self.task["repairs"] else 0
        self.folder = Imported(Path(self.task["copy"]), Path(self.task["original"]))
        self.begin("__init__")
        try:
            self.folder.package(self.task["whole"])
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            self.emit(result="__init__", **self.of_error(error, "__init__.py"))
        for subject in self.task["subjects"]:
            self.begin(subject)
            try:
                getattr(self, f"_{subject}", self.compare)(subject)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                self.emit(result=subject, **self.of_error(error, self.name(subject)))
        self.emit(end=True)

    def name(self, subject: str) -> str:
        return self.folder.file(subject).name if subject in self.folder.layout.files else f"{subject}.py"

    def compare(self, stem: str) -> None:
        klass = self.folder.get(stem)
        if not isinstance(klass, type):
            raise TypeError(f"{STEMS[stem]} is not a class")
        own = {} if stem != "sequential" else self.own()
        images = any(name in self.folder.layout.files for name in NEXT)
        try:
            found = _diagnose.diagnose(stem, klass, self.folder.source(stem), own, images)
        except Exception as error:
            fault = _fault.Fault(
                "", "comparison", "", "", f"its results cannot be compared: {type(error).__name__}: {error}"
            )
            found = _fault.Diagnosis([fault])
        self.emit(result=stem, file=self.name(stem), **found.as_dict())

    def own(self) -> dict[str, type]:
        """Return the folder's classes that can be imported."""
        found: dict[str, type] = {}
        for stem, name in STEMS.items():
            if stem in self.folder.layout.files and stem not in self.task["broken"]:
                try:
                    klass = self.folder.get(stem)
                except KeyboardInterrupt:
                    raise
                except BaseException:  # SystemExit too; that file's row reports it
                    continue
                if isinstance(klass, type):
                    found[name] = klass
        return found

    def of_error(self, error: BaseException, file: str) -> dict[str, Any]:
        """Return the finding for code that cannot be imported."""
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(self.task["copy"])]
        line = frames[-1].lineno if frames else None
        source = frames[-1].line if frames else ""
        if isinstance(error, SyntaxError) and error.filename:
            line, source, file = error.lineno, (error.text or "").strip(), os.path.basename(error.filename)
        elif frames:
            file = os.path.basename(frames[-1].filename)
        message = str(error) if "has no class" in str(error) else _fault.raised(error)
        fault = _fault.Fault("", f"import of {file}", "", "", message, python_2(error, source or ""), line, source or "")
        return {"file": file, "verdict": "differs", "faults": [asdict(fault)], "remarks": [], "compared": 0, "matrices": []}

    # --- the helpers of dataset.py, and a network as a whole ----------------------------------------------------------

    def _dataset(self, _: str) -> None:
        module = importlib.import_module("layers.dataset")
        y, x = np.array([2, 0, 1, 1]), np.random.default_rng(0).integers(0, 256, (3, 3072), np.uint8)
        right = {"onehot": (y, np.eye(3)[y]), "scale": (x, x / 255 - 0.5)}
        faults = []
        for name, (given, expected) in right.items():
            function = getattr(module, name, None)
            if function is None:
                continue
            found = np.asarray(function(given.copy()), np.float64)
            found = found.reshape(expected.shape) if found.size == expected.size else found
            if not agree(found, expected):
                faults.append(asdict(_fault.Fault(name, "the result", "section 3.4.2", {
                    "onehot": "class 3 of 5 is [0, 0, 0, 1, 0]", "scale": "pixels / 255 - 0.5"}[name],
                    _fault.difference(found, expected))))
        self.emit(result="dataset", file="dataset.py", verdict="differs" if faults else "ok", faults=faults, remarks=[],
                  compared=2, matrices=[])

    def _training(self, _: str) -> None:
        """Train the folder's network and the right one, for the curves of both."""
        own = {**CLASSES, **self.own()}
        x = drawn((60, 8), 1)
        t = np.eye(3)[np.argmax(x[:, :3] + 0.5 * x[:, 3:6], axis=1)]
        curves, faults = {}, []
        state = random_state()
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            curves["right"] = _trained(CLASSES, x, t)
            try:
                curves["yours"] = _trained(own, x, t)
            except Exception as error:
                curves["yours"] = []
                faults.append(_fault.raised(error))
        shuffled = not np.array_equal(state, random_state())
        if (
            not faults
            and not shuffled
            and len(curves["yours"]) == 20
            and not agree(curves["yours"], curves["right"], tolerance=1e-3)
        ):
            faults.append(_fault.difference(curves["yours"], curves["right"]))
        found = [
            asdict(
                _fault.Fault(
                    "fit", "the losses", "section 3.4.2", "an epoch's loss is the mean of its batches' losses", text
                )
            )
            for text in faults
        ]
        self.emit(result="training", file="", verdict="differs" if faults else "ok", faults=found, remarks=[], compared=1,
                  matrices=[], curves=curves)


def _trained(own: dict[str, Any], x: np.ndarray, t: np.ndarray) -> list[float]:
    layers: list[Any] = []
    np.random.seed(0)
    for n_i, n_o in ((8, 12), (12, 3)):
        layer = own["FullLayer"](n_i, n_o)
        layer.W = drawn((n_o, n_i), n_i, 0.4)
        layers += [layer, own["ReluLayer"]()]
    model = own["Sequential"]((*layers[:-1], own["SoftMaxLayer"]()), own["CrossEntropyLayer"]())
    np.random.seed(0)
    losses = call_fit(model, x.copy(), t.copy(), 20, 0.3, 16)
    losses = losses[0] if isinstance(losses, tuple) else losses
    return [float(v) for v in np.ravel(np.asarray(losses, np.float64))]


def main() -> None:
    task = json.loads(sys.argv[1])
    with open(task["events"], "a", encoding="utf-8") as events:
        confinement.confine(task["sandbox"], os.path.dirname(task["original"]))
        Worker(events, task).run()
    os._exit(0)  # without the threads and exit handlers of the folder's code


if __name__ == "__main__":
    main()
