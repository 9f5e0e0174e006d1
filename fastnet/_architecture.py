"""What fastnet's layers are made of, as plain data: for files, and for other libraries' modules."""
from __future__ import annotations

import importlib
from typing import Any

# class: (module, arguments that make it, each an attribute too)
LAYERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "FullLayer": ("fastnet.full", ("n_i", "n_o")),
    "ConvLayer": ("fastnet.conv", ("n_i", "n_o", "h")),
    "MaxPoolLayer": ("fastnet.maxpool", ("size",)),
    "FlattenLayer": ("fastnet.flatten", ()),
    "ReluLayer": ("fastnet.relu", ()),
    "LeakyReluLayer": ("fastnet.leaky_relu", ("slope",)),
    "TanhLayer": ("fastnet.tanh", ()),
    "SigmoidLayer": ("fastnet.sigmoid", ()),
    "BatchNormLayer": ("fastnet.batch_norm", ("n", "eps", "momentum")),
    "AveragePoolLayer": ("fastnet.average_pool", ("size",)),
    "DropoutLayer": ("fastnet.dropout", ("rate", "seed", "calls")),
    "SoftMaxLayer": ("fastnet.softmax", ()),
    "CrossEntropyLayer": ("fastnet.cross_entropy", ()),
    "MeanSquaredErrorLayer": ("fastnet.mean_squared_error", ()),
}


def describe(who: str, model: Any) -> dict[str, Any]:
    """The layers and the loss of a model as ``{"layers": [{"class": ..., argument: value}], "loss": {...}}``.

    Raises
    ------
    TypeError
        If the model or one of its layers is not of fastnet's own classes: a description of those says everything.
    """
    from fastnet.sequential import Sequential

    if type(model) is not Sequential:
        raise TypeError(f"{who}: the model is a {type(model).__name__}, a class of yours, which cannot be described. "
                        "Use fastnet.Sequential(model.layers, loss=model.loss).")
    return {"layers": [_describe_layer(who, f"layers[{i}]", layer) for i, layer in enumerate(model.layers)],
            "loss": _describe_layer(who, "loss", model.loss)}


def _describe_layer(who: str, name: str, layer: Any) -> dict[str, Any]:
    kind = type(layer).__name__
    module, arguments = LAYERS.get(kind, ("", ()))
    if type(layer).__module__ != module:
        raise TypeError(f"{who}: {name} is a {kind} of {type(layer).__module__}, and only fastnet's own layers can be "
                        f"described: {', '.join(LAYERS)}.")
    return {"class": kind, **{argument: getattr(layer, argument) for argument in arguments}}


def build(description: Any) -> Any:
    """A layer made from its description.

    Raises
    ------
    ValueError
        If it is of no known class, or its arguments are not that class's.
    """
    if not isinstance(description, dict) or description.get("class") not in LAYERS:
        known = ", ".join(LAYERS)
        raise ValueError(f"{description!r} describes none of {known}. It may come from a newer fastnet.")
    module, arguments = LAYERS[description["class"]]
    given = {name: value for name, value in description.items() if name != "class"}
    if given.keys() != set(arguments):
        raise ValueError(f"a {description['class']} takes {', '.join(arguments) or 'no arguments'}, got {given}.")
    made = getattr(importlib.import_module(module), description["class"])
    if "seed" in given:
        layer = made(given["rate"], given["seed"])
        layer.calls = given["calls"]
        return layer
    # the weights drawn here are replaced; a generator of their own leaves NumPy's global state alone
    return made(**given, rng=0) if hasattr(made, "W") else made(**given)
