"""What the last mini-batch of a compiled fit left in the layers: computed when somebody reads it, and not before.

A loop by hand leaves each layer with its last input, output and gradients. A compiled step keeps them elsewhere or not at
all, and hardly anybody looks at them after a fit. So the layers get the batch and the parameters from before it, and compute
the rest, layer by layer, for the first who reads one of these attributes.
"""
from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet._state import FloatArray

Parameters = dict[tuple[int, str], np.ndarray]  # by the layer's number and the attribute's name
ParametersBefore = Callable[[np.ndarray], Parameters]  # those from before a step, from the batch's x


class LastBatch:
    """Owns the layers' inputs, outputs and gradients until one of them is read.

    It refers to the layers weakly, and computes with copies of them: what happens to the layers meanwhile does not matter.

    Parameters
    ----------
    model : Sequential
        One that compiled engines may train.
    x : ndarray, shape (n, ...)
        The batch, in the model's dtype. Kept as it is, so nobody else may write into it.
    t : ndarray, shape (n, n_outputs)
        Likewise.
    parameters : callable
        Gives the layers' parameters from before the step, for x. The arrays are the layers' to keep.
    """

    holds = False  # the layers' parameters, as `training.on_batch.OnBatch` may

    def __init__(self, model: Any, x: np.ndarray, t: np.ndarray, parameters: ParametersBefore) -> None:
        parts = (*model.layers, model.loss)
        self._batch, self._parameters = (x, t), parameters
        self._twins = [_twin(part) for part in parts]
        self._parts = [weakref.ref(part) for part in parts]
        self._computed = False
        for part in parts:
            for name in _left_behind(part):
                part.__dict__.pop(name, None)
            part._owner = self

    def give(self, name: str) -> None:
        """Put what the layers should hold into them, but for attributes that were assigned since the fit."""
        if not self._computed:
            self._compute()
            self._computed = True
        for reference, twin in zip(self._parts, self._twins, strict=True):
            part = reference()
            if part is not None and part._owner is self:
                part._owner = None
                for attribute in _left_behind(twin):
                    part.__dict__.setdefault(attribute, twin.__dict__.get(attribute))

    def _compute(self) -> None:
        *layers, loss = self._twins
        y, t = self._batch
        for (number, name), value in self._parameters(y).items():
            setattr(layers[number], name, value)
        with np.errstate(all="ignore"):
            for layer in layers:
                y = layer.forward(y)
            loss.forward(y, t)
            gradient = loss.backward()
            for layer in reversed(layers):
                gradient = layer.backward(gradient)


def present_parameters(model: Any) -> Parameters:
    """Copies of the parameters that the layers hold now."""
    return {(i, name): np.array(getattr(layer, name)) for i, layer in enumerate(model.layers)
            for name, kind in _kept(layer).items() if not kind.optional}


def release(model: Any) -> None:
    """Forget an earlier fit's last batch: the layers were run themselves since, and hold what that left."""
    for part in (*model.layers, model.loss):
        if isinstance(getattr(part, "_owner", None), LastBatch):
            part._owner = None


def _twin(part: Any) -> Any:
    """A layer like this one, but for its arrays."""
    klass: Any = type(part)
    twin = klass.__new__(klass)
    arrays = _kept(part)
    twin.__dict__.update((name, value) for name, value in part.__dict__.items() if name not in arrays)
    return twin


def _left_behind(part: Any) -> list[str]:
    return [name for name, kind in _kept(part).items() if kind.optional]


def _kept(part: Any) -> dict[str, FloatArray]:
    """The attributes of a layer that hold arrays, by their names."""
    return {name: kind for klass in reversed(type(part).__mro__) for name, kind in vars(klass).items()
            if isinstance(kind, FloatArray)}
