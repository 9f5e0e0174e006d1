"""The process that runs a folder's code: ``python -m fastnet.check._worker FOLDER EVENTS WHOLE CLEAN SUBJECT...``"""

from __future__ import annotations

import ast
import importlib
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import fastnet.dataset
from fastnet.check._layers import CHAPTER, LAYERS, NEXT_CHAPTER
from fastnet.check._models import images, network
from fastnet.check._probe import Probe
from fastnet.dropin import _read_dataset
from fastnet.dropin._local import parsed

PACKAGE = "layers"


class Folder:
    """A folder of modules, importable as the package ``layers`` whatever its name is."""

    def __init__(self, path: str) -> None:
        self.path = path
        sys.path.insert(0, os.path.dirname(path))  # beside the folder lies what its scripts import
        sys.path.append(path)  # from full import FullLayer

    def import_package(self, probe: Probe, whole: bool) -> None:
        """Make the package. If its ``__init__.py`` fails, or is not to be run, an empty one stands in for it."""
        init = os.path.join(self.path, "__init__.py")
        if whole and os.path.isfile(init):
            spec = importlib.util.spec_from_file_location(PACKAGE, init, submodule_search_locations=[self.path])
            assert spec is not None and spec.loader is not None
            sys.modules[PACKAGE] = module = importlib.util.module_from_spec(spec)
            clean, probe.clean = probe.clean, True
            with probe.scenario(), probe.step("import of the folder's __init__.py"):
                spec.loader.exec_module(module)
            probe.clean, succeeded = clean and probe.clean, probe.clean
            if succeeded:
                return
        sys.modules[PACKAGE] = module = ModuleType(PACKAGE)
        module.__path__ = [self.path]

    def get(self, name: str) -> Any:
        """The class, or function, of that name: of its own module, or of the package."""
        stem = next((stem for stem, (known, _) in LAYERS.items() if known == name), "dataset")
        try:
            return getattr(importlib.import_module(f"{PACKAGE}.{stem}"), name)
        except (ModuleNotFoundError, AttributeError):
            if hasattr(sys.modules[PACKAGE], name):
                return getattr(sys.modules[PACKAGE], name)
            raise


def compare(probe: Probe, folder: Folder, subject: str) -> None:
    """One layer's turn. It draws the same weights each time, so that a report can be printed again."""
    np.random.seed(0)
    with probe.subject(subject):
        if subject == "training":
            _train(probe, folder)
        elif subject == "dataset":
            _compare_helpers(probe, folder)
        else:
            name, check = LAYERS[subject]
            with probe.step(f"import of {subject}.py"):
                folder.get(name)
            probe.current = None
            check(probe, folder.get)


def _train(probe: Probe, folder: Folder) -> None:
    if not probe.clean:
        probe.emit(note="not tried, since a layer differs")
        return
    network(probe, folder.get)
    if all(os.path.isfile(os.path.join(folder.path, f"{stem}.py")) for stem in NEXT_CHAPTER):
        images(probe, folder.get)


def _compare_helpers(probe: Probe, folder: Folder) -> None:
    """onehot and scale are compared, cifar100 is read: it needs the data, and a minute."""
    path = Path(folder.path) / "dataset.py"
    try:
        probe.emit(note=f"cifar100(seed) is read, not run: {_read_dataset.read(path)}")
    except _read_dataset.Unreadable as reason:
        probe.emit(note=f"cifar100(seed) is not compared: {reason}")
    tree = parsed(path)
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)} if tree is not None else set()
    y, x = np.array([2, 0, 1, 1]), np.random.default_rng(0).integers(0, 256, (3, 3072), np.uint8)
    for name, given in (("onehot", y), ("scale", x)):
        if name in defined:
            expected = getattr(fastnet.dataset, name)(given)
            with probe.scenario():
                with probe.step(f"{name}, given an array of shape {given.shape}"):
                    found = np.asarray(folder.get(name)(given.copy()))
                probe.same("the result", found.reshape(expected.shape) if found.size == expected.size else found, expected)


def main(argv: Sequence[str]) -> None:
    """Compare the subjects one after the other."""
    path, events, whole, clean, *subjects = argv
    with open(events, "a", encoding="utf-8") as file:
        probe = Probe(file, path)
        probe.clean = clean == "clean"
        with probe.subject("__init__"):
            folder = Folder(path)
            folder.import_package(probe, whole == "whole")
        for subject in subjects:
            compare(probe, folder, subject)
        probe.emit(end=True)
    os._exit(0)  # whatever threads and exit handlers the folder's code has left behind


assert set(CHAPTER) | set(NEXT_CHAPTER) == set(LAYERS)

if __name__ == "__main__":
    main(sys.argv[1:])
