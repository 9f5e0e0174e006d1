"""Names that only the folder's own modules have: found by reading the source, served by running it when asked for."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any


class Source:
    """The source file of a module that fastnet replaces.

    Parameters
    ----------
    module : str
        The name of the module, for example ``layers.dataset``.
    path : str or None
        The source file; None if there is none.
    say : callable
        A function that prints a line to the error stream.
    """

    def __init__(self, module: str, path: str | None, say: Callable[[str], None]) -> None:
        self.module, self.path, self.say = module, path, say
        self._names: dict[str, tuple[str, str] | None] | None = None
        self._loaded: ModuleType | None = None

    def names(self) -> dict[str, tuple[str, str] | None]:
        """Names that the file binds at its top level, each with the (module, name) of the package it is imported from."""
        if self._names is None:
            self._names = {} if self.path is None else _bindings(Path(self.path), self.module)
        return self._names

    def defined(self) -> list[str]:
        """Names of functions, classes and variables that the file makes itself."""
        return [name for name, origin in self.names().items() if origin is None]

    def has(self, name: str) -> bool:
        """Whether the file binds that name."""
        return name in self.names()

    def value(self, name: str) -> Any:
        """What the file binds to a name. Runs the file, or only the module that the name is imported from.

        Raises
        ------
        ImportError
            If that code fails, and which file it was.
        """
        assert self.path is not None
        origin = self.names()[name]
        if origin is not None and origin[0] != self.module:
            module = importlib.import_module(origin[0])
            return getattr(module, origin[1]) if origin[1] else module
        if name not in ("Sequential", "cifar100"):  # these lines, with the reason, are already printed
            self.say(f"{name} of {self.module} comes from {self.path}")
        return getattr(self._load(name), name)

    def _load(self, name: str) -> ModuleType:
        if self._loaded is None:
            assert self.path is not None
            folders = [os.path.dirname(self.path)] if os.path.basename(self.path) == "__init__.py" else None
            # The name is that of the replaced module, where pickle will look for classes; it is not in sys.modules.
            spec = importlib.util.spec_from_file_location(self.module, self.path, submodule_search_locations=folders)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            self._loaded = module
            try:
                try:
                    spec.loader.exec_module(module)
                except SyntaxError:
                    run_source(self.path, module)
            except Exception as error:
                self._loaded = None
                raise ImportError(
                    f"{name} is not one of fastnet's names, and {self.path}, which has it, fails: "
                    f"{type(error).__name__}: {error}", name=self.module, path=self.path
                ) from error
        return self._loaded


def run_source(path: str, module: ModuleType) -> None:
    """Run a file in a module; one of Python 2 too, if print statements are all that tells.

    Raises
    ------
    SyntaxError
        If it is neither.
    """
    tree: Any = parsed(Path(path))
    if tree is None:  # too deep for a tree, but not for the compiler, or an error that the compiler states
        tree = Path(path).read_text(encoding="utf-8", errors="replace")
    exec(compile(tree, path, "exec"), module.__dict__)


def parsed(path: Path) -> ast.Module | None:
    """The syntax tree of a source file; of Python 2 as well, if print statements are all that tells. None without one."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for source in (text, re.sub(r"(?m)^([ \t]*)print\b(?![ \t]*\().*$", r"\1pass", text)):
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two of sources that are nested too deeply
            continue
    return None


def _bindings(path: Path, module: str, above: frozenset[Path] = frozenset()) -> dict[str, tuple[str, str] | None]:
    """Names that a file binds; `above` are files that import all names of it, which have no new ones for it."""
    tree = parsed(path)
    if tree is None:  # not Python 3; an attempt to run it will raise the right error
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        return {name: None for name in re.findall(r"(?m)^(?:def|class)\s+(\w+)", text)}
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return dict(_bound(tree.body, package, path.parent, above | {path}))


def _bound(body: list[ast.stmt], package: str, folder: Path,
           above: frozenset[Path]) -> Iterator[tuple[str, tuple[str, str] | None]]:
    """Names bound by statements, not by what is called in them."""
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield statement.name, None
        elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for target in targets:
                yield from ((node.id, None) for node in ast.walk(target) if isinstance(node, ast.Name))
        elif isinstance(statement, ast.ImportFrom):
            yield from _imported(statement, package, folder, above)
        elif isinstance(statement, (ast.If, ast.Try)):
            for part in ("body", "orelse", "finalbody"):
                yield from _bound(getattr(statement, part, []), package, folder, above)
            for handler in getattr(statement, "handlers", []):
                yield from _bound(handler.body, package, folder, above)


def _imported(
    statement: ast.ImportFrom, package: str, folder: Path, above: frozenset[Path]
) -> Iterator[tuple[str, tuple[str, str] | None]]:
    """Yield the names that a file imports from its package; names from NumPy and other packages do not count."""
    top = package.partition(".")[0]
    if statement.level:
        parent = package.rsplit(".", statement.level - 1)[0]
        origin = f"{parent}.{statement.module}" if statement.module else parent
    elif top and statement.module and statement.module.partition(".")[0] == top:
        origin = statement.module
    elif package and statement.module and (folder / f"{statement.module}.py").is_file():
        origin = f"{package}.{statement.module}"  # from full import FullLayer, inside the package: Python 2
    else:
        return
    for alias in statement.names:
        if alias.name != "*":
            bound = alias.asname or alias.name
            yield bound, ((origin, alias.name) if statement.module else (f"{origin}.{alias.name}", ""))
        elif origin.startswith(f"{package}."):
            yield from ((name, (origin, name)) for name in _public(origin, origin[len(package) + 1:], folder, above))


def _public(module: str, place: str, folder: Path, above: frozenset[Path]) -> list[str]:
    """Names that ``from module import *`` binds, for a module of the package in `folder`."""
    file = folder.joinpath(*place.split("."))
    path = next((path for path in (file.with_suffix(".py"), file / "__init__.py") if path.is_file()), None)
    if path is None or path in above:
        return []
    for statement in getattr(parsed(path), "body", []):
        if (isinstance(statement, ast.Assign) and isinstance(statement.value, (ast.List, ast.Tuple))
                and any(isinstance(target, ast.Name) and target.id == "__all__" for target in statement.targets)):
            constants = [node for node in statement.value.elts if isinstance(node, ast.Constant)]
            return [node.value for node in constants if isinstance(node.value, str)]
    return [name for name in _bindings(path, module, above) if not name.startswith("_")]
