"""The search for references from a user-defined layer to other layers, which then have to hold their current arrays.

Partially compiled training keeps the parameters of compiled layers elsewhere until the end of an epoch. A user-defined layer
that reads them would get old numbers. The search finds what such a layer can name: its attributes, closures, defaults,
globals, modules, imports inside functions, weak references and context variables. It does not find what code gets from the
interpreter itself, such as frames or all objects of the garbage collector.
"""
from __future__ import annotations

import contextvars
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
    """Return whether a function or layer may reach a model or another of its layers, or has too many references to tell."""
    found = {id(part) for part in (model, *model.layers, model.loss, model.layers)} - {id(subject)}
    seen: set[int] = set()
    todo = [subject]
    while todo:
        o = todo.pop()
        if type(o) in weakref.ProxyTypes:
            o = _behind(o)
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
    if isinstance(o, contextvars.ContextVar):
        return (o.get(None),)
    return [*gc.get_referents(o), type(o)]


def _behind(proxy: Any) -> Any:
    """Return the object of a weak proxy; None if it is gone."""
    try:
        return proxy.__dir__.__self__  # the proxy passes on the look-up of an attribute
    except ReferenceError:
        return None


def _within_function(function: types.FunctionType) -> Iterable[Any]:
    """Return a function's closure, its defaults, and what it names: globals, and attributes of modules."""
    if (function.__module__ or "").partition(".")[0] == "fastnet" and function.__closure__ is None:
        return ()
    names = set() if _of_a_library(function.__module__) else _names(function.__code__)
    scopes = [function.__globals__, *(vars(sys.modules[name]) for name in names & sys.modules.keys()
                                      if not _of_a_library(name))]
    named = []
    for scope in scopes:
        found = [scope[name] for name in names & scope.keys()]
        named += found
        scopes += [vars(o) for o in found if isinstance(o, types.ModuleType) and all(vars(o) is not seen for seen in scopes)]
    empty = types.CellType()
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != empty]
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return [*cells, *defaults, *named, *vars(function).values()]


def _of_a_library(module: str | None) -> bool:
    """Return whether a module is Python's, NumPy's or fastnet's, which do not refer to the user's objects."""
    root = (module or "").partition(".")[0]
    return root in ("fastnet", "numpy") or root in sys.stdlib_module_names


def _names(code: types.CodeType) -> set[str]:
    """Return the names in a function's code, and its strings, as in ``globals()["model"]`` and ``sys.modules["state"]``."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
        elif isinstance(constant, str):
            found.add(constant)
    return found
