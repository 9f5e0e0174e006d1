"""The search for references from a user-defined layer to other layers, which then have to hold their arrays."""
from __future__ import annotations

import gc
import sys
import types
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np

_OBJECTS = 2000  # the search assumes a reference after so many objects
_PLAIN = (str, bytes, int, float, complex, type(None), types.CodeType, types.ModuleType, np.ndarray, np.generic)
_WRITTEN_IN_PYTHON = 1 << 9  # a flag of classes (Py_TPFLAGS_HEAPTYPE)


def reaches(subject: Any, model: Any) -> bool:
    """Return whether a function or layer may reach a model or another of its layers.

    It may do so through its closure, its globals or its object. The answer is also True if there is too much to search.
    """
    found = {id(part) for part in (model, *model.layers, model.loss, model.layers)} - {id(subject)}
    seen: set[int] = set()
    todo = [subject]
    while todo:
        o = todo.pop()
        if id(o) in found:
            return True
        if id(o) in seen or isinstance(o, _PLAIN):
            continue
        seen.add(id(o))
        if len(seen) > _OBJECTS:
            return True
        todo.extend(_within(o))
    return False


def _within(o: Any) -> Iterable[Any]:
    """Return the objects that one object refers to. fastnet's functions and classes do not refer to the user's objects."""
    if isinstance(o, types.FunctionType):
        return _within_function(o)
    if isinstance(o, types.BuiltinFunctionType):
        return (o.__self__,)  # as in losses.append
    if isinstance(o, type):
        own = o.__flags__ & _WRITTEN_IN_PYTHON and not _of_a_library(o.__module__)
        return [*vars(o).values(), *o.__bases__] if own else ()
    if isinstance(o, (staticmethod, classmethod)):
        return (o.__func__,)
    if isinstance(o, property):
        return o.fget, o.fset
    if isinstance(o, weakref.ref):
        return (o(),)
    return [*gc.get_referents(o), type(o)]


def _within_function(function: types.FunctionType) -> Iterable[Any]:
    """Return a function's closure, its defaults, and the globals that it names, also in modules."""
    if (function.__module__ or "").partition(".")[0] == "fastnet" and function.__closure__ is None:
        return ()
    names = () if _of_a_library(function.__module__) else _names(function.__code__)
    named = [function.__globals__[name] for name in names if name in function.__globals__]
    of_modules = [vars(module)[name] for module in named if isinstance(module, types.ModuleType) for name in names
                  if name in vars(module)]
    empty = types.CellType()
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != empty]
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return [*cells, *defaults, *named, *of_modules, *vars(function).values()]


def _of_a_library(module: str | None) -> bool:
    """Return whether a module is Python's, NumPy's or fastnet's, which do not refer to the user's objects."""
    root = (module or "").partition(".")[0]
    return root in ("fastnet", "numpy") or root in sys.stdlib_module_names


def _names(code: types.CodeType) -> set[str]:
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
    return found
