"""A folder of layers: which file has which class, and how it is imported."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from fastnet.check._reference import NAMES, NEXT
from fastnet.check._source import Source, read

PACKAGE = "layers"
STEMS = {**NAMES, **NEXT}
_LARGEST = 2_000_000  # bytes of a file that is copied


class Layout:
    """Where a folder has its classes; nothing is run to find out.

    Parameters
    ----------
    given : path
        The folder, or a single file of all layers.

    Attributes
    ----------
    path : Path
        The folder or file.
    files : dict
        Stem -> file with its class, or its own file without it.
    """

    def __init__(self, given: Path) -> None:
        path = Path(os.path.abspath(given))
        for inner in (path / "layers", path / "layers.py"):
            if path.is_dir() and inner.exists() and not any((path / f"{stem}.py").is_file() for stem in STEMS):
                path = inner
                break
        self.path = path
        self.files = self._find()

    def _find(self) -> dict[str, Path]:
        files = [self.path] if self.path.is_file() else sorted(self.path.glob("*.py")) if self.path.is_dir() else []
        classes = {file: _classes(file) for file in files}
        found: dict[str, Path] = {}
        for stem, name in STEMS.items():
            own = self.path / f"{stem}.py"
            other = next((file for file, names in classes.items() if name in names), None)
            if own in classes and (name in classes[own] or other is None):
                found[stem] = own
            elif other is not None:
                found[stem] = other
        return found

    def copy(self, sandbox: Path) -> Path:
        """A copy that may be written; what it is called there: ``layers`` or ``layers.py``."""
        if self.path.is_file():
            target = sandbox / "course" / f"{PACKAGE}.py"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.path, target)
            return target
        target = sandbox / "course" / PACKAGE
        shutil.copytree(self.path, target, ignore=_not_copied, ignore_dangling_symlinks=True)
        return target


def _not_copied(folder: str, names: list[str]) -> set[str]:
    paths = {name: os.path.join(folder, name) for name in names}
    return {name for name, path in paths.items() if name.startswith((".", "__pycache__", "cifar-100"))
            or (os.path.isfile(path) and os.path.getsize(path) > _LARGEST)}


def _classes(path: Path) -> set[str]:
    text = read(path)
    try:
        return {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)}
    except (SyntaxError, ValueError):  # Python 2, or a typo: the words will do
        return {words[1].split("(")[0].rstrip(":") for line in text.splitlines()
                if len(words := line.split(None, 1)) == 2 and words[0] == "class"}


class Imported:
    """The folder's classes, in the process that runs them.

    Parameters
    ----------
    copy : Path
        The copied folder or file.
    original : Path
        The folder or file that it is a copy of.
    """

    def __init__(self, copy: Path, original: Path) -> None:
        self.copy, self.layout = copy, Layout(copy)
        sys.path[:0] = [str(copy.parent), str(original.parent)]  # beside the folder lies what its scripts import
        if copy.is_dir():
            sys.path.append(str(copy))  # from full import FullLayer

    def package(self, whole: bool) -> None:
        """Import ``layers``; with an empty ``__init__.py`` if that fails or is not wanted."""
        if self.copy.is_file():
            if whole:
                importlib.import_module(PACKAGE)
            return
        init = self.copy / "__init__.py"
        if whole and init.is_file():
            spec = importlib.util.spec_from_file_location(PACKAGE, init, submodule_search_locations=[str(self.copy)])
            assert spec is not None and spec.loader is not None
            sys.modules[PACKAGE] = module = importlib.util.module_from_spec(spec)
            try:
                spec.loader.exec_module(module)
                return
            except BaseException:
                self._empty()
                raise
        self._empty()

    def _empty(self) -> None:
        sys.modules[PACKAGE] = module = ModuleType(PACKAGE)
        module.__path__ = [str(self.copy)]

    def file(self, stem: str) -> Path:
        return self.layout.files[stem]

    def get(self, stem: str) -> Any:
        """The class of a stem."""
        file = self.file(stem)
        inside = self.copy.is_dir() and file.name != "__init__.py"
        module = importlib.import_module(f"{PACKAGE}.{file.stem}" if inside else PACKAGE)
        try:
            return getattr(module, STEMS[stem])
        except AttributeError:
            raise AttributeError(f"{file.name} has no class {STEMS[stem]}") from None

    def source(self, stem: str) -> Source:
        return Source(read(self.file(stem)), str(self.file(stem)), STEMS[stem])
