"""What layers hold: their array attributes, and how to put them back as they were."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet import _checks, _dtypes


class FloatArray:
    """An attribute of a layer that holds a float array, or None before there is one.

    What a user assigns is kept as given if it is a float array of any layout, so that changes in place are seen by the
    next call; lists and integers are converted. ``shape(layer)``, where given, is the only shape that is accepted.
    """

    def __init__(self, shape: Callable[[Any], tuple[int, ...]] | None = None, optional: bool = True) -> None:
        self.shape = shape
        self.optional = optional

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        return self if layer is None else layer.__dict__.get(self.name)

    def __set__(self, layer: Any, value: npt.ArrayLike | None) -> None:
        if value is not None or not self.optional:
            shape = self.shape(layer) if self.shape else None
            value = _checks.assigned(layer, self.name, value, shape, getattr(layer, "dtype", _dtypes.default))
        layer.__dict__[self.name] = value


def snapshot(objects: Iterable[Any], copy: bool = False) -> Callable[[], None]:
    """Remember what the objects hold; the function returned puts it back.

    References are enough for fastnet's own layers, which never write into an array they hold. ``copy`` copies the
    arrays of all other layers, whose update may well be ``self.W -= ...``.
    """
    saved = []
    for o in objects:
        held = getattr(o, "__dict__", None)
        if held is not None:
            own = type(o).__module__.startswith("fastnet.")
            saved.append((held, dict(held) if own or not copy else _copied(held)))

    def restore() -> None:
        for held, before in saved:
            held.clear()
            held.update(before)

    return restore


@contextmanager
def unchanged_on_error(objects: Iterable[Any]) -> Iterator[None]:
    """Run a block; if it raises, the objects hold what they held before."""
    restore = snapshot(objects)
    try:
        yield
    except BaseException:  # Ctrl-C as well
        restore()
        raise


def _copied(held: dict[str, Any]) -> dict[str, Any]:
    return {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in held.items()}
