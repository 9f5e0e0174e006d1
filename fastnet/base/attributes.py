"""The array attributes of layers, and how to save and restore them."""
from __future__ import annotations

import functools
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet.base import checks, dtypes
from fastnet.layer import KNOWN, foreign

_NO_STATE = (type, types.ModuleType, types.FunctionType, types.MethodType, functools.partial)


class _Modes(threading.local):
    """The modes of the layers that this thread uses, by the layer's id."""

    def __init__(self) -> None:
        self.of: dict[int, bool] = {}


present_modes = _Modes()


def _mode(layer: Any) -> bool:
    """Return the layer's mode: the one that a running method of fastnet needs in this thread, otherwise the one set."""
    return present_modes.of.get(id(layer), layer._training)


def _set_mode(layer: Any, mode: bool) -> None:
    layer._training = bool(mode)


MODE = property(_mode, _set_mode)  # the attribute `training` of fastnet's layers


class FloatArray:
    """An attribute of a layer that holds a float array, or None before there is one.

    A float array of any layout is stored without a copy, so that the next call sees changes in place; lists and integers
    are converted. If ``shape`` is given, the array must have the shape ``shape(layer)``.
    """

    is_array = True  # its dtype helps to decide the layer's

    def __init__(self, shape: Callable[[Any], tuple[int, ...]] | None = None, optional: bool = True,
                 sizes: str = "n_o and n_i") -> None:
        self.shape = shape
        self.optional = optional
        self.sizes = sizes  # the layer's attributes that decide the shape, for messages

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        if layer is None:
            return self
        held = layer.__dict__
        if self.name not in held:
            owner = getattr(layer, "_owner", None)
            if owner is not None:
                owner.give(self.name)
        return held.get(self.name)

    def __set__(self, layer: Any, value: npt.ArrayLike | None) -> None:
        if value is not None or not self.optional:
            shape = self.shape(layer) if self.shape else None
            if type(value) is not np.ndarray or value.dtype.kind != "f" or shape not in (None, value.shape):
                value = checks.assigned(layer, self.name, value, shape, getattr(layer, "dtype", dtypes.default))
        layer.__dict__[self.name] = value


class Remembered(FloatArray):
    """An attribute of a layer that holds any value it stores about its last input, or None before the first input."""

    def __set__(self, layer: Any, value: Any) -> None:
        layer.__dict__[self.name] = value


class Counter(FloatArray):
    """An attribute of a layer that holds a whole number, which training increases. It is state, as parameters are."""

    is_array = False

    def __init__(self) -> None:
        super().__init__(optional=False)

    def __set__(self, layer: Any, value: Any) -> None:
        layer.__dict__[self.name] = checks.count(layer, self.name, value)


class Owned:
    """A layer whose attributes may be lazy: its ``_owner``, a lazy source, materialises them when they are read.

    The source is a `LazySource` or a `LastBatch` of ``fastnet/training/lazy.py``, usually None. Copies and pickles hold all
    values.
    """

    __slots__ = ("__dict__", "__weakref__", "_owner", "_training")
    _owner: Any
    _training: bool

    training = MODE

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        layer = super().__new__(cls)
        layer._owner = None
        layer._training = True
        return layer

    def __getstate__(self) -> Any:
        settle((self,))
        held = self.__dict__.copy()
        return held if self._training else (held, {"_training": False})


def settle(objects: Iterable[Any]) -> None:
    """Materialise the lazy attributes of layers, see `Owned`."""
    for o in objects:
        owner = getattr(o, "_owner", None)
        if owner is not None:
            owner.give("")


def _pending(o: Any) -> Any:
    """Materialise a layer's parameters, and return the lazy source that it still has; None without one."""
    owner = getattr(o, "_owner", None)
    if owner is not None and owner.holds:
        owner.give("")
    return getattr(o, "_owner", None)


def snapshot(objects: Iterable[Any], copy: bool = False) -> Callable[[], None]:
    """Save the state of objects, and return a function that restores it.

    For fastnet's layers, which never write into an array they hold, it saves references. For all other objects it also
    saves the contents of their lists, dicts and inner layers and, with ``copy``, the numbers in their arrays, since their
    update may be ``self.W -= ...``. The restored arrays are the same objects as before.
    """
    restores: list[Callable[[], None]] = []
    seen: set[int] = set()
    for o in objects:
        _remember(o, type(o), copy, restores, seen)

    def restore() -> None:
        for put_back in restores:
            put_back()

    return restore


Checkpoint = tuple[list[tuple[dict[str, Any], dict[str, Any]]], list[Callable[[], None]]]


def checkpoint(objects: Iterable[Any]) -> Checkpoint:
    """Save the state of objects for `roll_back`, before an operation that may raise.

    It does what `snapshot` does, but takes less than a microsecond for a network of fastnet's layers: as these never write
    into an array they hold, it copies references.
    """
    own: list[tuple[dict[str, Any], dict[str, Any]]] = []
    restores: list[Callable[[], None]] = []
    others = []
    for o in objects:
        if type(o) in KNOWN:
            if getattr(o, "_owner", None) is not None and (owner := _pending(o)) is not None:
                restores.append(functools.partial(setattr, o, "_owner", owner))
            held = o.__dict__
            own.append((held, held.copy()))
        else:
            others.append(o)
    if others:
        restores.append(snapshot(others))
    return own, restores


def roll_back(before: Checkpoint) -> None:
    """Restore the state that a `checkpoint` saved."""
    own, restores = before
    for held, old in own:
        _refill(held, old)
    for restore in restores:
        restore()


def arrays(layer: Any) -> dict[str, np.ndarray]:
    """Return all arrays of a layer, its lists, dicts and inner layers included, by a name such as ``.W`` or ``.inner.W``."""
    found: dict[str, np.ndarray] = {}
    seen: set[int] = set()

    def collect(value: Any, name: str) -> None:
        if id(value) in seen:
            return
        settle((value,))
        seen.add(id(value))
        if isinstance(value, np.ndarray):
            found[name] = value
        for key, inner in _contents(value, type(layer)):
            collect(inner, name + key)

    collect(layer, "")
    return found


def parts_of(layer: Any) -> Iterator[Any]:
    """Yield a layer and, if it is user-defined, the layers, helpers, lists and dicts that it holds."""
    seen: set[int] = set()

    def walk(o: Any) -> Iterator[Any]:
        if id(o) in seen or isinstance(o, np.ndarray):
            return
        seen.add(id(o))
        yield o
        if type(o) not in KNOWN:
            for _, inner in _contents(o, type(layer)):
                yield from walk(inner)

    return walk(layer)


def _remember(o: Any, owner: type, copy: bool, restores: list[Callable[[], None]], seen: set[int]) -> None:
    if id(o) in seen:
        return
    seen.add(id(o))
    pending = _pending(o)
    if pending is not None:
        restores.append(functools.partial(setattr, o, "_owner", pending))
    held = getattr(o, "__dict__", None)
    if isinstance(o, np.ndarray):
        if copy and o.flags.writeable:
            restores.append(functools.partial(np.copyto, o, o.copy()))
        return
    if isinstance(o, list):
        restores.append(functools.partial(o.__setitem__, slice(None), list(o)))
    elif isinstance(o, dict):
        restores.append(functools.partial(_refill, o, dict(o)))
    elif held is not None:
        restores.append(functools.partial(_refill, held, dict(held)))
    slots = {name: getattr(o, name) for name in _slots(o) if hasattr(o, name)}
    if slots:
        restores.append(functools.partial(_set, o, slots))
    if type(o) not in KNOWN or (copy and foreign(o)):
        for _, inner in _contents(o, owner):
            _remember(inner, owner, copy, restores, seen)


def _contents(o: Any, owner: type) -> Iterator[tuple[str, Any]]:
    """Yield the contents of a list, tuple, dict, user-defined layer or helper, each with its name."""
    if isinstance(o, (list, tuple)):
        yield from ((f"[{i}]", value) for i, value in enumerate(o))
    elif isinstance(o, dict):
        yield from ((f"[{key!r}]", value) for key, value in o.items())
    elif hasattr(type(o), "forward") or (type(o).__module__.partition(".")[0] == owner.__module__.partition(".")[0]
                                         and not isinstance(o, _NO_STATE)):
        yield from ((f".{name}", value) for name, value in (getattr(o, "__dict__", None) or {}).items())
        yield from ((f".{name}", getattr(o, name)) for name in _slots(o) if hasattr(o, name))


def _slots(o: Any) -> Iterator[str]:
    for klass in type(o).__mro__:
        names = vars(klass).get("__slots__", ())
        yield from (name for name in ((names,) if isinstance(names, str) else names)
                    if not name.startswith("__") and name not in ("_buffers", "_owner", "_training"))


def _refill(held: dict[Any, Any], before: dict[Any, Any]) -> None:
    held.clear()
    held.update(before)


def _set(o: Any, slots: dict[str, Any]) -> None:
    for name, value in slots.items():
        setattr(o, name, value)
