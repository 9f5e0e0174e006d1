"""The import hook, which maps the names below ``layers`` to modules and classes."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import fastnet
from fastnet.base import confinement
from fastnet.dropin import _children, _local

NAME = "layers"
CHAPTER = ("full", "relu", "softmax", "cross_entropy", "sequential")
COURSE = (*CHAPTER, "dataset", "conv", "maxpool", "flatten")  # fastnet replaces those that it has


def install(quiet: bool = False) -> None:
    """Make ``import layers`` import fastnet, in this process and in the Python processes that it starts.

    Further calls have no effect.

    Parameters
    ----------
    quiet : bool
        Do not print to the error stream what fastnet replaces.

    Raises
    ------
    RuntimeError
        If the process has already imported another ``layers``.
    """
    if _installed() is not None:
        return
    other = sys.modules.get(NAME)
    if other is not None:
        raise RuntimeError(
            f"fastnet.dropin: {NAME} is already imported, from {getattr(other, '__file__', None) or other}. "
            f"Call install() before the first import of {NAME}."
        )
    sys.meta_path.insert(0, _Finder(quiet))
    confinement.serve_cpickle()
    _children.serve()


def served() -> bool:
    """Return whether the process has imported anything of fastnet under the course's names."""
    finder = _installed()
    return finder is not None and finder.served


def _installed() -> _Finder | None:
    return next((finder for finder in sys.meta_path if isinstance(finder, _Finder)), None)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds ``layers``, everything below it, and the course's modules as scripts inside the folder name them."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.served = False
        self.said: set[str] = set()

    def say(self, text: str) -> None:
        """Print a line to the error stream, once."""
        if not self.quiet and text not in self.said:
            self.said.add(text)
            print(f"fastnet.dropin: {text}", file=sys.stderr)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package != NAME:
            return self._without_package(fullname) if fullname in COURSE else None
        if not name:
            return self._package()
        stem, _, below = name.partition(".")
        if stem in COURSE and _is_module(stem):
            if below:
                return importlib.machinery.ModuleSpec(fullname, _Alias(name))
            return _course_spec(fullname, stem, _origin(fullname, path), self)
        if name == "Sequential":
            return importlib.machinery.ModuleSpec(fullname, _Chosen())
        if name in _course_classes():
            return importlib.machinery.ModuleSpec(fullname, _Alias(name))
        parent = sys.modules.get(fullname.rpartition(".")[0])
        is_ours = getattr(parent, "__name__", "").startswith("fastnet.")  # then its path is fastnet's, not the folder's
        local = None if is_ours else importlib.machinery.PathFinder.find_spec(fullname, path)
        if local is not None:
            self.say(f"{fullname} is {local.origin or ', '.join(local.submodule_search_locations or ())}")
            return local
        return importlib.machinery.ModuleSpec(fullname, _Alias(name)) if _fastnet_has(name) else None

    def _package(self) -> importlib.machinery.ModuleSpec:
        folders, file = _local_folders()
        self.served = True
        here = file or (folders[0] if folders else None)
        self.say(f"{NAME!r} is fastnet" + (f", not {here}" if here else ""))
        spec = importlib.machinery.ModuleSpec(NAME, _PackageLoader(folders, file, self), is_package=True)
        spec.submodule_search_locations = folders
        return spec

    def _without_package(self, stem: str) -> importlib.machinery.ModuleSpec | None:
        """Replace a module of the course's folder for scripts inside the folder: ``from full import FullLayer``."""
        origin = _origin(stem, None)
        if origin is None or not _is_module(stem):
            return None
        folder = os.path.dirname(os.path.abspath(origin))
        complete = all(os.path.isfile(os.path.join(folder, f"{name}.py")) for name in CHAPTER)
        if not complete or os.path.samefile(folder, os.path.dirname(fastnet.__file__)):
            return None
        self.served = True
        self.say(f"{stem!r} is fastnet's, not {origin}")
        return _course_spec(stem, stem, origin, self)


class _PackageLoader(importlib.abc.Loader):
    """Makes the package as a separate module, so that imports of its submodules do not change fastnet."""

    def __init__(self, folders: Sequence[str], file: str | None, finder: _Finder) -> None:
        init = file or (os.path.join(folders[0], "__init__.py") if folders else "")
        self.file = init or fastnet.__file__  # scripts may look for files next to it
        self.local = _local.Source(NAME, init if os.path.isfile(init) else None, finder.say)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Package(spec.name, self.local)

    def exec_module(self, module: ModuleType) -> None:
        extra = [name for name in self.local.names() if name not in COURSE and not name.startswith("_")]
        module.__dict__["__all__"] = list(dict.fromkeys([*fastnet.__all__, *extra]))
        module.__file__ = self.file
        _act_like_the_courses()


class _Package(ModuleType):
    def __init__(self, name: str, local: _local.Source) -> None:
        super().__init__(name, f"{fastnet.__doc__}\nfastnet.dropin provides it as {NAME!r}.")
        self._local = local

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "cifar100" and "cifar100" in self._local.defined():
            from fastnet.dropin import _editions_data

            return self._keep(name, _editions_data.loader(self._local))
        if name == "Sequential":
            from fastnet.dropin import _sequential

            alone = "Sequential" in self._local.defined()  # a single file of all layers
            return self._keep(name, _sequential.choose(self._local) if alone
                              else importlib.import_module(f"{NAME}.sequential").Sequential)
        if name in _course_classes():
            return getattr(fastnet, name)
        if name not in COURSE and self._local.has(name):
            return self._local.value(name)
        if name in fastnet.__all__:
            return getattr(fastnet, name)
        try:
            return importlib.import_module(f"{NAME}.{name}")  # layers.dataset after nothing but `import layers`
        except ModuleNotFoundError as error:
            if error.name != f"{NAME}.{name}":
                raise
        raise AttributeError(f"module {NAME!r} (fastnet by fastnet.dropin) has no attribute {name!r}")

    def _keep(self, name: str, value: Any) -> Any:
        self.__dict__[name] = value
        return value

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *fastnet.__all__})


def _course_spec(
    fullname: str, stem: str, origin: str | None, finder: _Finder
) -> importlib.machinery.ModuleSpec:
    loader = _CourseLoader(stem, _local.Source(fullname, origin, finder.say))
    return importlib.machinery.ModuleSpec(fullname, loader, origin=origin, is_package=stem == "dataset")


class _CourseLoader(importlib.abc.Loader):
    """Makes a module with the names of fastnet's module and, in addition, those that only the folder's module has."""

    def __init__(self, stem: str, local: _local.Source) -> None:
        self.stem = stem
        self.local = local

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _CourseModule(spec.name, self.local)

    def exec_module(self, module: ModuleType) -> None:
        original = importlib.import_module(f"fastnet.{self.stem}")
        names = {name: value for name, value in vars(original).items() if not name.startswith("_")}
        if self.stem == "dataset":
            from fastnet.dropin import _editions_data

            names["cifar100"] = _editions_data.loader(self.local)
        if self.stem == "sequential":
            from fastnet.dropin import _sequential

            names["Sequential"] = _sequential.choose(self.local)
        module.__dict__.update(names)
        module.__doc__ = original.__doc__
        is_data = self.stem == "dataset" and self.local.path
        module.__file__ = self.local.path if is_data else original.__file__
        extra = [name for name in self.local.defined() if name not in names and not name.startswith("_")]
        module.__dict__["__all__"] = [*names, *extra]
        _act_like_the_courses()


class _CourseModule(ModuleType):
    def __init__(self, name: str, local: _local.Source) -> None:
        super().__init__(name)
        self._local = local

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__") and self._local.has(name):
            return self._local.value(name)
        raise AttributeError(f"module {self.__name__!r} (fastnet by fastnet.dropin) has no attribute {name!r}")


class _Alias(importlib.abc.Loader):
    """Replaces the module or class to import by fastnet's."""

    def __init__(self, name: str) -> None:
        self.name = name

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None  # an empty module, which is discarded: the import system would rename fastnet's if it were returned here

    def exec_module(self, module: ModuleType) -> None:
        try:
            original: Any = importlib.import_module(f"fastnet.{self.name}")
        except ModuleNotFoundError as error:
            if error.name != f"fastnet.{self.name}":
                raise
            original = getattr(fastnet, self.name)
        sys.modules[module.__name__] = original  # the import system takes it from here, and binds it in the package


class _Chosen(importlib.abc.Loader):
    """Replaces a module ``layers.Sequential``, as the chapter imports it, by the chosen class."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = getattr(sys.modules[NAME], "Sequential")  # noqa: B009 - mypy knows no such name


def _act_like_the_courses() -> None:
    """Make the changes to fastnet that only the drop-in needs; at the first import, as every child process has the hook."""
    from fastnet.base import editions
    from fastnet.dropin import _unittest

    editions.cuts_targets = True
    _unittest.restore_names()


def _is_module(name: str) -> bool:
    """Return whether fastnet has a module of that name."""
    try:
        return importlib.util.find_spec(f"fastnet.{name}") is not None
    except ModuleNotFoundError:  # for layers.a.b, if fastnet has no a
        return False


def _fastnet_has(name: str) -> bool:
    """Return whether fastnet has a module, or a public object, of that name."""
    return _is_module(name) or ("." not in name and hasattr(fastnet, name))


def _course_classes() -> set[str]:
    """Return fastnet's public names that come from the course's modules: ``FullLayer`` and so on."""
    modules = {f"fastnet.{stem}" for stem in COURSE}
    return {name for name, module in fastnet._MODULE_OF.items() if module in modules}


def _origin(fullname: str, path: Sequence[str] | None) -> str | None:
    """Return the source file that Python would import without the drop-in."""
    spec = importlib.machinery.PathFinder.find_spec(fullname, path)
    return spec.origin if spec is not None and spec.has_location else None


def _local_folders() -> tuple[list[str], str | None]:
    """Return the folders ``layers`` on Python's path, or the single file if ``layers.py`` comes first."""
    folders = []
    for entry in dict.fromkeys(map(os.path.abspath, sys.path)):
        folder = os.path.join(entry, NAME)
        if os.path.isdir(folder):
            folders.append(folder)
        elif os.path.isfile(folder + ".py") and not folders:
            return [], folder + ".py"
    return folders, None
