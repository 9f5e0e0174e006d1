"""What layers hold: their array attributes, and how to put them back as they were."""
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
    """The modes of layers that are at work in this thread, by the layer's id."""

    def __init__(self) -> None:
        self.of: dict[int, bool] = {}


present_modes = _Modes()


def _mode(layer: Any) -> bool:
    """Whether the layer trains: what fastnet's present work asks for in this thread, otherwise what was set."""
    return present_modes.of.get(id(layer), layer._training)


def _set_mode(layer: Any, mode: bool) -> None:
    layer._training = bool(mode)


MODE = property(_mode, _set_mode)  # the attribute `training` of fastnet's layers


class FloatArray:
    """An attribute of a layer that holds a float array, or None before there is one.

    What a user assigns is kept as given if it is a float array of any layout, so that changes in place are seen by the
    next call; lists and integers are converted. ``shape(layer)``, where given, is the only shape that is accepted.
    """

    is_array = True  # and so decides what the layer computes in

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
            value = checks.assigned(layer, self.name, value, shape, getattr(layer, "dtype", dtypes.default))
        layer.__dict__[self.name] = value


class Remembered(FloatArray):
    """An attribute of a layer that holds anything it remembers of its last input, or None before there was one."""

    def __set__(self, layer: Any, value: Any) -> None:
        layer.__dict__[self.name] = value


class Counter(FloatArray):
    """An attribute of a layer that holds a whole number, which training counts up. It is state, as parameters are."""

    is_array = False

    def __init__(self) -> None:
        super().__init__(optional=False)

    def __set__(self, layer: Any, value: Any) -> None:
        layer.__dict__[self.name] = checks.count(layer, self.name, value)


class Owned:
    """A layer some of whose attributes may be held elsewhere until they are read, by its ``_owner``.

    That is `training.on_batch.OnBatch` or `training.last_batch.LastBatch`, usually nobody. Copies and pickles are whole.
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
    """Have layers hold themselves what is kept for them elsewhere, see `Owned`."""
    for o in objects:
        owner = getattr(o, "_owner", None)
        if owner is not None:
            owner.give("")


def _pending(o: Any) -> Any:
    """The owner that a layer still has once its parameters are its own; None without one."""
    owner = getattr(o, "_owner", None)
    if owner is not None and owner.holds:
        owner.give("")
    return getattr(o, "_owner", None)


def snapshot(objects: Iterable[Any], copy: bool = False) -> Callable[[], None]:
    """Remember what the objects hold; the function returned puts it back.

    References are enough for fastnet's own layers, which never write into an array they hold. Of all others, what stands
    in their lists, dicts and inner layers is remembered too, and with ``copy`` the numbers in their arrays: their update
    may well be ``self.W -= ...``. The arrays that are put back are the same objects as before.
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
    """Remember what the objects hold before something that may raise, for `roll_back`.

    As `snapshot`, but in less than a microsecond for a network of fastnet's own layers: of these, which never write into an
    array they hold, it copies references.
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
    """Have the objects of a `checkpoint` hold what they held then."""
    own, restores = before
    for held, old in own:
        _refill(held, old)
    for restore in restores:
        restore()


def arrays(layer: Any) -> dict[str, np.ndarray]:
    """All arrays that a layer holds, also in lists, dicts and inner layers, by a name such as ``.W`` or ``.inner.W``."""
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
    """A layer, and what a user-defined one holds: layers, helpers, lists and dicts of these."""
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
    """What is in a list, tuple, dict, or in a layer or helper of a user's, each with its name."""
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
