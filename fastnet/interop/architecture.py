"""What layers are made of, as plain data: for files, and for other libraries' modules.

A class is described by its name and its ``settings``, the constructor's arguments that make the layer again. So a class
that `fastnet.layer.known` knows, and that has ``settings``, can be saved and loaded; there is no list of them. Where the
constructor takes other arguments, a class method ``from_settings`` makes the layer.
"""
from __future__ import annotations

import inspect
import reprlib
from types import SimpleNamespace
from typing import Any, NamedTuple

import fastnet
from fastnet.base import checks
from fastnet.layer import KNOWN, learned_by


class Description(NamedTuple):
    """A layer that has not been made yet."""

    kind: type
    settings: dict[str, Any]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the layer's parameters, which take no memory yet.

        Raises
        ------
        ValueError
            If a side is no whole number.
        """
        shapes = {}
        for name, array in learned_by(self.kind).items():
            shapes[name] = array.shape(SimpleNamespace(**self.settings))
            if not all(type(side) is int for side in shapes[name]):
                raise ValueError(f"{name} of a {self.kind.__name__} would have the shape {_short(shapes[name])}: each side "
                                 "must be a whole number.")
        return shapes

    def make(self, is_loss: bool = False) -> Any:
        """Make the layer or loss; parameters are drawn without touching NumPy's global state.

        Raises
        ------
        TypeError
            If it is a loss where a layer belongs, or a layer where the loss belongs.
        """
        make = getattr(self.kind, "from_settings", self.kind)
        seed = {"rng": 0} if "rng" in inspect.signature(make).parameters else {}
        made = make(**self.settings, **seed)
        checks.layer("fastnet.load", "the loss" if is_loss else "a layer", made, target=made if is_loss else None)
        return made


def describe(who: str, model: Any, kind: Any) -> dict[str, Any]:
    """The layers and the loss of a model as ``{"layers": [{"class": ..., argument: value}], "loss": {...}}``.

    Raises
    ------
    TypeError
        If the model is not of the class `kind` itself, or one of its layers is of a class that its settings do not describe.
    """
    if type(model) is not kind:
        raise TypeError(f"{who}: the model is a {type(model).__name__}, a class of yours, which cannot be described. "
                        "Use fastnet.Sequential(model.layers, loss=model.loss).")
    return {"layers": [_describe_layer(who, f"layers[{i}]", layer) for i, layer in enumerate(model.layers)],
            "loss": _describe_layer(who, "loss", model.loss)}


def _describe_layer(who: str, name: str, layer: Any) -> dict[str, Any]:
    kind, classes = type(layer), _classes()
    if classes.get(kind.__name__) is not kind:
        raise TypeError(f"{who}: {name} is a {kind.__name__} of {kind.__module__}, and only fastnet's own layers can be "
                        f"described: {', '.join(classes)}.")
    return {"class": kind.__name__, **{argument: getattr(layer, argument) for argument in classes[kind.__name__].settings}}


def read(data: Any) -> Description:
    """What a description in a file says, before anything is made.

    Raises
    ------
    ValueError
        If it is of no known class, or its arguments are not that class's.
    """
    name, classes = data.get("class") if isinstance(data, dict) else None, _classes()
    if not isinstance(name, str) or name not in classes:
        raise ValueError(f"{_short(data)} describes none of {', '.join(classes)}. It may come from a newer fastnet.")
    kind = classes[name]
    given = {argument: value for argument, value in data.items() if argument != "class"}
    given = {**_added_later(kind, given), **given}
    if given.keys() != set(kind.settings):
        raise ValueError(f"a {name} takes {', '.join(kind.settings) or 'no arguments'}, got {_short(given)}.")
    return Description(kind, given)


def _added_later(kind: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Settings that an older fastnet did not have, and so did not write: what the constructor takes in their place."""
    later = {name for name in getattr(kind, "added_settings", ()) if name not in given}
    return {name: parameter.default for name, parameter in inspect.signature(kind).parameters.items() if name in later}


def _classes() -> dict[str, Any]:
    """All classes that can be described, by name."""
    exported = [getattr(fastnet, name) for name in fastnet.__all__ if name.endswith("Layer")]
    classes: dict[str, Any] = {}
    for kind in (*exported, *KNOWN):
        if getattr(kind, "settings", None) is not None:
            classes.setdefault(kind.__name__, kind)
    return classes


def _short(value: Any) -> str:
    return reprlib.repr(value)
