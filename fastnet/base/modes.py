"""The modes of layers such as dropout: training and prediction.

A layer's attribute ``training`` holds its mode, as in PyTorch. It is initially True; `Sequential.train` and
`Sequential.eval` set it. While fastnet trains or predicts, layers are in that mode, independent of the attribute. fastnet
does not write the attribute of its own layers for that, so several threads may predict with a model at once. It sets the
attribute of user-defined layers, and restores it afterwards.
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
    """Put all layers of a model into a mode, in this thread, and back into their previous mode afterwards."""
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
    """Return the layers of a model whose attribute ``training`` is a bool, those within user-defined layers included."""
    return [part for layer in (*model.layers, model.loss) for part in parts_of(layer)
            if isinstance(getattr(part, "training", None), (bool, np.bool_))]


def _is_ours(part: Any) -> bool:
    return getattr(type(part), "training", None) is MODE


def _set(part: Any, mode: bool) -> None:
    with contextlib.suppress(AttributeError):  # a property without a setter decides for itself
        part.training = mode
