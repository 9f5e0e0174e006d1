"""Serve fastnet under the name ``layers``, to course scripts and tests that stay as they are.

::

    python -m fastnet.dropin script.py [arguments]      a script
    python -m fastnet.dropin -m unittest test.test_full  a module, unittest for one
    pytest -p fastnet.dropin                             a test suite

From then on ``layers`` and its modules are fastnet's in that process::

    import layers.full                              layers.full.FullLayer(3072, 500)
    import layers.FullLayer                         layers.FullLayer(3072, 500), as the chapter writes it
    from layers import FullLayer
    from layers.sequential import Sequential
    from layers.dataset import cifar100

fastnet wins over a folder ``layers`` beside the script: to replace that is what the drop-in is for, and it says so on
the error stream. Only modules that fastnet does not have, such as ``layers/dropout.py``, still come from that folder.

What Python does not allow: ``from layers.FullLayer import FullLayer``, because after ``import layers.FullLayer`` the name
stands for the class itself, which has no modules in it. Write ``from layers.full import FullLayer``.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import runpy
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import fastnet

NAME = "layers"


def install() -> None:
    """Make ``import layers`` mean fastnet from now on, in this process; once is enough.

    Raises
    ------
    RuntimeError
        If another ``layers`` has been imported already.
    """
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    other = sys.modules.get(NAME)
    if other is not None:
        raise RuntimeError(
            f"fastnet.dropin: {NAME} is imported already, from {getattr(other, '__file__', None) or other}. "
            f"Call install() before the first import of {NAME}."
        )
    sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds ``layers`` and everything below it."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package != NAME:
            return None
        if not name:
            spec = importlib.machinery.ModuleSpec(NAME, _PackageLoader(), is_package=True)
            spec.submodule_search_locations = _local_folders()
            _announce(spec.submodule_search_locations)
            return spec
        if _fastnet_has(name):
            return importlib.machinery.ModuleSpec(fullname, _Alias(name))
        return importlib.machinery.PathFinder.find_spec(fullname, path)


class _PackageLoader(importlib.abc.Loader):
    """Makes the package: a module of its own, so that nothing an import does to it changes fastnet."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Package(spec.name, f"{fastnet.__doc__}\nServed as {NAME!r} by fastnet.dropin.")

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__all__"] = list(fastnet.__all__)


class _Package(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return getattr(fastnet, name)
        except AttributeError:
            pass
        try:
            return importlib.import_module(f"{NAME}.{name}")  # layers.dataset after nothing but `import layers`
        except ModuleNotFoundError:
            raise AttributeError(f"module {NAME!r}, served by fastnet.dropin, has no attribute {name!r}") from None

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *fastnet.__all__})


class _Alias(importlib.abc.Loader):
    """Puts fastnet's module, or class, in the place of the one that is being imported."""

    def __init__(self, name: str) -> None:
        self.name = name

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None  # an empty one, which is thrown away: returned here, fastnet's own would be renamed

    def exec_module(self, module: ModuleType) -> None:
        try:
            original: Any = importlib.import_module(f"fastnet.{self.name}")
        except ModuleNotFoundError as error:
            if error.name != f"fastnet.{self.name}":
                raise
            original = getattr(fastnet, self.name)
        sys.modules[module.__name__] = original  # what the import system takes, and binds to the name in the package


def _fastnet_has(name: str) -> bool:
    """Whether fastnet has a module, or at its top an object, of that name."""
    if hasattr(fastnet, name):
        return True
    try:
        return importlib.util.find_spec(f"fastnet.{name}") is not None
    except ModuleNotFoundError:  # of layers.a.b, fastnet does not even have a
        return False


def _local_folders() -> list[str]:
    folders = (os.path.abspath(os.path.join(entry, NAME)) for entry in sys.path)
    return [folder for folder in dict.fromkeys(folders) if os.path.isdir(folder)]


def _announce(local: Sequence[str]) -> None:
    instead = f", not {local[0]}" if local else ""
    print(f"fastnet.dropin: {NAME!r} is fastnet{instead}", file=sys.stderr)


def pytest_load_initial_conftests() -> None:
    """Called by ``pytest -p fastnet.dropin`` before it imports a conftest.py or a test."""
    install()


def pytest_report_header() -> str:
    """Said at the head of pytest's report, where what is printed during imports is not seen."""
    return f"fastnet.dropin: {NAME!r} is fastnet"


def main(argv: Sequence[str] | None = None) -> None:
    """Run a script or a module as ``python`` would, with ``layers`` being fastnet."""
    parser = argparse.ArgumentParser(
        prog="python -m fastnet.dropin",
        usage="%(prog)s script.py [arguments]\n       %(prog)s -m module [arguments]",
        description=f"Run a script or a module that imports {NAME!r}, unchanged, on fastnet.",
    )
    parser.add_argument("-m", action="store_true", dest="is_module", help="run a module, such as unittest")
    parser.add_argument("target", metavar="script.py", help="a script, or with -m the name of a module")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on to it")
    given = parser.parse_args(argv)
    if not given.is_module and not os.path.exists(given.target):
        parser.error(f"there is no file {given.target}, seen from {os.getcwd()}")
    install()
    sys.argv[:] = [given.target, *given.arguments]
    if given.is_module:
        runpy.run_module(given.target, run_name="__main__", alter_sys=True)
    else:
        if not getattr(sys.flags, "safe_path", False):
            sys.path[0] = os.path.dirname(os.path.abspath(given.target))  # until now the current folder
        runpy.run_path(given.target, run_name="__main__")


if __name__ == "__main__":
    # The module that `import fastnet.dropin` gives, not this second copy of it.
    importlib.import_module("fastnet.dropin").main()
