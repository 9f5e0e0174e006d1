"""Training and prediction: the mode that layers such as dropout are in.

A layer's attribute ``training`` says which it is, as in PyTorch: True at first, set by `Sequential.train` and
`Sequential.eval`. While fastnet itself trains or predicts, layers are in that mode whatever was set. For fastnet's layers
nothing is written then, so several threads may predict with a model at once; a user-defined layer has its attribute set, and
put back afterwards.
"""
from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np


class _Modes(threading.local):
    """The modes of layers that are at work in this thread, by the layer's id."""

    def __init__(self) -> None:
        self.of: dict[int, bool] = {}


_here = _Modes()


def _mode(layer: Any) -> bool:
    """Whether the layer trains: what fastnet's present work asks for in this thread, otherwise what was set."""
    return _here.of.get(id(layer), layer._training)


def _set_mode(layer: Any, mode: bool) -> None:
    layer._training = bool(mode)


MODE = property(_mode, _set_mode)  # the attribute `training` of fastnet's layers


def set_mode(model: Any, mode: bool) -> None:
    """Set the mode of all layers of a model that have one."""
    for part in _with_modes(model):
        _set(part, mode)


@contextlib.contextmanager
def in_mode(model: Any, mode: bool) -> Iterator[None]:
    """All layers of a model are in a mode, in this thread; afterwards in the mode that they were in."""
    parts = _with_modes(model)
    others = [(part, part.training) for part in parts if not _is_ours(part)]
    before = _here.of
    _here.of = before | {id(part): mode for part in parts if _is_ours(part)}
    try:
        for part, _ in others:
            _set(part, mode)
        yield
    finally:
        _here.of = before
        for part, old in others:
            _set(part, old)


def _with_modes(model: Any) -> list[Any]:
    """The layers of a model, those within user-defined layers included, whose attribute ``training`` is True or False."""
    from fastnet._state import parts_of  # which imports this module

    return [part for layer in (*model.layers, model.loss) for part in parts_of(layer)
            if isinstance(getattr(part, "training", None), (bool, np.bool_))]


def _is_ours(part: Any) -> bool:
    return getattr(type(part), "training", None) is MODE


def _set(part: Any, mode: bool) -> None:
    with contextlib.suppress(AttributeError):  # a property without a setter decides for itself
        part.training = mode
