"""Training and prediction: the mode that layers such as dropout are in.

A layer's attribute ``training`` says which it is, as in PyTorch: True at first, set by `Sequential.train` and
`Sequential.eval`. While fastnet itself trains or predicts, layers are in that mode whatever was set. For fastnet's layers
nothing is written then, so several threads may predict with a model at once; a user-defined layer has its attribute set, and
put back afterwards.
"""
from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnet.base.attributes import MODE, parts_of, present_modes


def set_mode(model: Any, mode: bool) -> None:
    """Set the mode of all layers of a model that have one."""
    for part in _with_modes(model):
        _set(part, mode)


@contextlib.contextmanager
def in_mode(model: Any, mode: bool) -> Iterator[None]:
    """All layers of a model are in a mode, in this thread; afterwards in the mode that they were in."""
    parts = _with_modes(model)
    others = [(part, part.training) for part in parts if not _is_ours(part)]
    before = present_modes.of
    present_modes.of = before | {id(part): mode for part in parts if _is_ours(part)}
    try:
        for part, _ in others:
            _set(part, mode)
        yield
    finally:
        present_modes.of = before
        for part, old in others:
            _set(part, old)


def _with_modes(model: Any) -> list[Any]:
    """The layers of a model, those within user-defined layers included, whose attribute ``training`` is True or False."""
    return [part for layer in (*model.layers, model.loss) for part in parts_of(layer)
            if isinstance(getattr(part, "training", None), (bool, np.bool_))]


def _is_ours(part: Any) -> bool:
    return getattr(type(part), "training", None) is MODE


def _set(part: Any, mode: bool) -> None:
    with contextlib.suppress(AttributeError):  # a property without a setter decides for itself
        part.training = mode
