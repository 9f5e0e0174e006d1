"""Lazy sources: the attributes of layers that a compiled step trains are materialised when they are read.

A compiled step keeps the parameters in packed form, and the inputs, outputs and gradients of a hand-written loop elsewhere
or not at all. They are rarely read. So a lazy source takes the arrays out of the layers' dictionaries, and the layers'
attributes (`fastnet.base.attributes.FloatArray`) ask the source, which the layers hold as ``_owner``: `LastBatch` after a
fit, `Mirror` while a user's callback or schedule runs between two epochs, `training.on_batch.OnBatch` between two steps.
"""
from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from fastnet.base.attributes import FloatArray, Owned
from fastnet.layer import trained
from fastnet.training.eligibility import modified_reason

Parameters = dict[tuple[int, str], np.ndarray]  # by the layer's number and the attribute's name
_PLAIN = (bool, int, float, str)
ParametersBefore = Callable[[np.ndarray], Parameters]  # those from before a step, from the batch's x


class LazySource:
    """Holds the arrays of some layers until one is read.

    Parameters
    ----------
    parts : iterable
        Layers, and perhaps a loss.
    write : callable
        A function that copies the current parameters into the layers.
    """

    def __init__(self, parts: Iterable[Any], write: Callable[[], None]) -> None:
        self.parts = [part for part in parts if isinstance(part, Owned)]
        self.write = write
        self.holds = False  # whether it holds the parameters
        self.attributes: Any = None  # the layers' attributes, except arrays, at the time of `take`
        self.names = [list(kept_arrays(part)) for part in self.parts]
        self.learned = {name for part in self.parts for name in trained(part)}

    def take(self) -> None:
        """Take the arrays out of the layers, and become their source."""
        self.before = [{name: part.__dict__.pop(name) for name in names if name in part.__dict__}
                       for part, names in zip(self.parts, self.names, strict=True)]
        self.attributes = [dict(part.__dict__) for part in self.parts]
        self.holds = True
        for part in self.parts:
            part._owner = self

    def give(self, name: str) -> None:
        """Materialise the layers' attributes, except those assigned since `take`; `name` is the attribute that is read."""
        if self.holds:
            self.holds = False
            newer = [{name: part.__dict__[name] for name in trained(part) if name in part.__dict__} for part in self.parts]
            self.write()
            for part, assigned in zip(self.parts, newer, strict=True):
                part.__dict__.update(assigned)
        if name not in self.learned:
            self.leave()

    def leave(self) -> None:
        """Materialise the other results of a step. By default there are none, and their attributes are None."""

    def settle(self) -> None:
        """Materialise the parameters, and detach from the layers."""
        if self.holds:
            self.give(next(iter(self.learned)))
        self.release()

    def release(self) -> None:
        """Detach from the layers; the caller copies the parameters into them."""
        for part in self.parts:
            if part._owner is self:
                part._owner = None


class Mirror(LazySource):
    """Lets a user's function read and change a model that a compiled engine is training.

    Parameters
    ----------
    model : Sequential
    parts : iterable
        The layers whose parameters the engine holds.
    write : callable
        A function that copies these into the layers.
    """

    def __init__(self, model: Any, parts: Iterable[Any], write: Callable[[], None]) -> None:
        super().__init__(parts, write)
        self.model, self.layers, self.loss = model, tuple(model.layers), model.loss
        self.reason = modified_reason(model)
        self._given: dict[tuple[int, str], tuple[np.ndarray, np.ndarray]] = {}

    def take(self) -> None:
        super().take()
        self._given = {}

    def give(self, name: str) -> None:
        """Do what `LazySource.give` does, and store copies, with which `changed` compares the attributes later."""
        asked = self.holds
        assigned = {(i, name) for i, part in enumerate(self.parts) for name in trained(part) if name in part.__dict__}
        super().give(name)
        if asked:
            self._given = {(i, name): (part.__dict__[name], np.array(part.__dict__[name]))
                           for i, part in enumerate(self.parts) for name in trained(part) if (i, name) not in assigned}

    def changed(self) -> str | None:
        """Return what the user changed since `take`, after which training must continue layer by layer; None if nothing."""
        if self.attributes is None:  # nothing has been taken yet
            return None
        reason = modified_reason(self.model)  # which reads no parameter
        if reason != self.reason:
            return reason
        if self.model.loss is not self.loss:
            return "the loss was replaced"
        if len(self.layers) != len(self.model.layers):
            return "there are more or fewer layers"
        for i, (layer, now) in enumerate(zip(self.layers, self.model.layers, strict=True)):
            if now is not layer:
                return f"layers[{i}] was replaced"
        for k, part in enumerate(self.parts):
            name = self._changed(k, part)
            if name is not None:
                where = next((f"layers[{i}]" for i, layer in enumerate(self.layers) if layer is part), "loss")
                return f"{where}.{name} was changed"
        return None

    def _changed(self, k: int, part: Any) -> str | None:
        held, before, arrays = part.__dict__, self.attributes[k], kept_arrays(part)
        for name in {*held, *before} - arrays.keys():
            now, old = held.get(name), before.get(name)
            if now is not old and not (isinstance(now, _PLAIN) and isinstance(old, _PLAIN) and now == old):
                return name
        for name in trained(part):
            given = self._given.get((k, name))
            if name in held and (given is None or held[name] is not given[0] or not np.array_equal(*given, equal_nan=True)):
                return name
        return None


class LastBatch:
    """Computes the layers' inputs, outputs and gradients after a fit, when one of them is read.

    It refers to the layers weakly and computes with copies of them, so that later changes of the layers have no effect.

    Parameters
    ----------
    model : Sequential
        A model that compiled engines may train.
    x : ndarray, shape (n, ...)
        The batch, in the model's dtype. It is stored without a copy, so that no other code may write into it.
    t : ndarray, shape (n, n_outputs)
        The targets, stored in the same way.
    parameters : callable
        A function that returns the layers' parameters before the step, for x. The layers keep the arrays.
    """

    holds = False  # it never holds the layers' parameters, as a `LazySource` may

    def __init__(self, model: Any, x: np.ndarray, t: np.ndarray, parameters: ParametersBefore) -> None:
        parts = (*model.layers, model.loss)
        self._batch, self._parameters = (x, t), parameters
        self._copies = [without_arrays(part) for part in parts]
        self._parts = [weakref.ref(part) for part in parts]
        self._computed = False
        for part in parts:
            for name in _left_behind(part):
                part.__dict__.pop(name, None)
            part._owner = self

    def give(self, name: str) -> None:
        """Materialise the layers' attributes, except those assigned since the fit."""
        if not self._computed:
            self._compute()
            self._computed = True
        for reference, copy in zip(self._parts, self._copies, strict=True):
            part = reference()
            if part is not None and part._owner is self:
                part._owner = None
                for attribute in _left_behind(copy):
                    part.__dict__.setdefault(attribute, copy.__dict__.get(attribute))

    def _compute(self) -> None:
        *layers, loss = self._copies
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
    """Return copies of the layers' current parameters."""
    return {(i, name): np.array(getattr(layer, name)) for i, layer in enumerate(model.layers) for name in trained(layer)}


def release(model: Any) -> None:
    """Detach an earlier fit's last batch from the layers, which have run since and hold newer results."""
    for part in (*model.layers, model.loss):
        if isinstance(getattr(part, "_owner", None), LastBatch):
            part._owner = None


def kept_arrays(part: Any) -> dict[str, FloatArray]:
    """Return the attributes of a layer that hold arrays, by their names."""
    klass: type = type(part)
    return _kept_arrays(klass)


@functools.cache
def _kept_arrays(klass: type) -> dict[str, FloatArray]:
    return {name: kind for base in reversed(klass.__mro__) for name, kind in vars(base).items()
            if isinstance(kind, FloatArray)}


def without_arrays(part: Any) -> Any:
    """Return a copy of a layer without its arrays."""
    klass: Any = type(part)
    copy = klass.__new__(klass)
    arrays = kept_arrays(part)
    copy.__dict__.update((name, value) for name, value in part.__dict__.items() if name not in arrays)
    return copy


def _left_behind(part: Any) -> list[str]:
    return [name for name, kind in kept_arrays(part).items() if kind.optional]
