"""A folder of layers: the file of each class, and the import of these files."""

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
_LARGEST = 2_000_000  # bytes; the check does not copy larger files


class Layout:
    """The files of a folder's classes, found without running them.

    Parameters
    ----------
    given : path
        The folder, or a single file with all layers.

    Attributes
    ----------
    path : Path
        The folder or file.
    files : dict
        Module name -> file with its class, or the file of that name without the class.
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
        """Copy the layers to the sandbox, where code may write them, and return the copy: ``layers`` or ``layers.py``."""
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
    except (SyntaxError, ValueError):  # Python 2, or a typo: find the classes by their lines
        return {words[1].split("(")[0].rstrip(":") for line in text.splitlines()
                if len(words := line.split(None, 1)) == 2 and words[0] == "class"}


class Imported:
    """The folder's classes, in the process that runs them.

    Parameters
    ----------
    copy : Path
        The copied folder or file.
    original : Path
        The original folder or file.
    """

    def __init__(self, copy: Path, original: Path) -> None:
        self.copy, self.layout = copy, Layout(copy)
        sys.path[:0] = [str(copy.parent), str(original.parent)]  # the layers may import modules next to the folder
        if copy.is_dir():
            sys.path.append(str(copy))  # from full import FullLayer

    def package(self, whole: bool) -> None:
        """Import ``layers``; if that fails or `whole` is false, put an empty package of that name in its place."""
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
        """Return the class of a module of the course."""
        file = self.file(stem)
        inside = self.copy.is_dir() and file.name != "__init__.py"
        module = importlib.import_module(f"{PACKAGE}.{file.stem}" if inside else PACKAGE)
        try:
            return getattr(module, STEMS[stem])
        except AttributeError:
            raise AttributeError(f"{file.name} has no class {STEMS[stem]}") from None

    def source(self, stem: str) -> Source:
        return Source(read(self.file(stem)), str(self.file(stem)), STEMS[stem])
