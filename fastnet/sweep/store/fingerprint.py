"""What decides the numbers of a sweep, apart from its grid, in a form that can be compared: data, networks, version."""
from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet._version import __version__
from fastnet.sequential import Sequential

_TRANSIENT = ("x", "y", "t")  # what a layer remembers of its last call
_DEPTH = 4  # of objects in objects: deeper ones count by their type


def data_digests(data: tuple[Any, ...]) -> dict[str, Any]:
    """Digests of x, y, validation and test."""
    x, t, validation, test = data
    pairs = {"validation": validation, "test": test}
    return {"x": digest(x), "y": digest(t),
            **{name: None if pair is None else [digest(array) for array in pair] for name, pair in pairs.items()}}


def network_digests(models: dict[str, Sequential]) -> dict[str, list[Any]]:
    """Of each network of the first seed: a description of every layer, options and arrays included."""
    return {name: [describe(layer) for layer in (*model.layers, model.loss)] for name, model in models.items()}


def package_version() -> str:
    """Of fastnet: another one may compute other bits."""
    return __version__


def describe(thing: Any, depth: int = _DEPTH) -> Any:
    """What an object holds, as JSON: its class, scalars, arrays by digest, functions by their code.

    Two objects with the same description compute the same, as far as that can be seen from outside: state behind a C
    extension, in a closure's objects or in a module's globals is not seen.
    """
    if thing is None or isinstance(thing, (bool, int, str)):
        return thing
    if isinstance(thing, float):
        return thing if np.isfinite(thing) else str(thing)
    if isinstance(thing, np.ndarray):
        return digest(thing) if thing.dtype != object else [describe(item, depth - 1) for item in thing.ravel()]
    if isinstance(thing, np.generic):
        return describe(thing.item(), depth)
    if isinstance(thing, (np.dtype, bytes, complex)):
        return str(thing)
    if isinstance(thing, type):
        return f"{thing.__module__}.{thing.__qualname__}"
    if depth == 0:
        return type(thing).__qualname__
    if isinstance(thing, (list, tuple)):
        return [describe(item, depth - 1) for item in thing]
    if isinstance(thing, dict):
        return {str(key): describe(value, depth - 1) for key, value in thing.items()}
    if isinstance(thing, (set, frozenset)):
        return sorted(str(describe(item, depth - 1)) for item in thing)
    code = getattr(thing, "__code__", None)
    return {"class": type(thing).__qualname__, **_methods(type(thing)),
            **({} if code is None else {"code": _code(code), "closure": [
                describe(cell.cell_contents, depth - 1) for cell in thing.__closure__ or ()]}),
            **{name: describe(value, depth - 1) for name, value in _attributes(thing) if name not in _TRANSIENT}}


def digest(array: np.ndarray) -> str:
    """Type, shape, and a hash of the bytes."""
    hashed = hashlib.blake2b(digest_size=16)
    rows = array if array.ndim else array[None]
    for first in range(0, len(rows), 4096):
        hashed.update(np.ascontiguousarray(rows[first:first + 4096]).tobytes())
    return f"{array.dtype} {'x'.join(map(str, array.shape))} {hashed.hexdigest()}"


def _attributes(thing: Any) -> list[tuple[str, Any]]:
    """Of the instance: from its ``__dict__`` and its ``__slots__``."""
    held = dict(getattr(thing, "__dict__", {}))
    for cls in type(thing).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(thing, name):
                held[name] = getattr(thing, name)
    return sorted((name, value) for name, value in held.items())


def _methods(cls: type) -> dict[str, str]:
    """A hash of what a user's class does; fastnet's own are known by its version."""
    if cls.__module__.split(".")[0] in ("fastnet", "builtins", "numpy", "functools"):
        return {}
    codes = [f"{name} {_code(function.__code__)}" for owner in cls.__mro__ for name, function in sorted(vars(owner).items())
             if hasattr(function, "__code__")]
    return {"methods": hashlib.blake2b("\n".join(codes).encode(), digest_size=16).hexdigest()} if codes else {}


def _code(code: Any) -> str:
    """A hash of a function's instructions and constants, functions inside included."""
    hashed = hashlib.blake2b(code.co_code, digest_size=16)
    _update(hashed.update, code)
    return hashed.hexdigest()


def _update(update: Callable[[bytes], Any], code: Any) -> None:
    for constant in code.co_consts:
        if hasattr(constant, "co_code"):
            update(constant.co_code)
            _update(update, constant)
        else:
            update(repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant).encode())
    update(repr(code.co_names).encode())
