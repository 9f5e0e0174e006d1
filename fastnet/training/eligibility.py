"""The decision whether a compiled engine may replace training layer by layer: only if nothing observable differs.

The rule is strict: if the user changed anything of a model, a layer or the loss, even without an effect, fastnet calls the
methods instead of compiling them. The reasons are sentences for ``model.explain`` and ``model.history``.
"""
from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import FunctionType
from typing import Any

import numpy as np

from fastnet import layer as layers
from fastnet.program.builder import Builder, Unsupported

# A subclass of Sequential may override these: none of them runs within a fit.
_AROUND_TRAINING = frozenset({"__init__", "__repr__", "__str__", "__init_subclass__", "__class_getitem__", "summary",
                              "explain", "fit", "partial_fit", "evaluate", "predict_proba", "train", "eval"})
_ATTRIBUTES = frozenset({"layers", "loss", "history"})  # of Sequential's instances; a subclass may not make them properties


def unsupported_reason(model: Any, shape: tuple[int, ...] | None = None, lowered: bool = True) -> str | None:
    """Return why a model must be trained layer by layer; None if a compiled engine may train it.

    Parameters
    ----------
    model : Sequential
    shape : tuple of int, optional
        The shape of one sample. By default it is the input shape of the first layer.
    lowered : bool
        Whether to try to lower the model, too; False for a caller that does so.

    Returns
    -------
    str or None
        The first reason found: user-defined code in the model, a layer or the loss, or a network that the compiled engines
        do not support.
    """
    return (modified_reason(model)
            or shared_layer_reason(model.layers)
            or unsupported_dtypes_reason(model)
            or (_unsupported_ops_reason(model, shape) if lowered else None))


def modified_reason(model: Any) -> str | None:
    """Return what is modified or user-defined in a model, its layers or the loss; None if everything is fastnet's."""
    return (unsupported_model_reason(model)
            or _first(f"layers[{i}]: {why}" if why else None
                      for i, why in enumerate(map(unsupported_layer_reason, model.layers)))
            or _prefixed("loss: ", unsupported_loss_reason(model.loss)))


def unsupported_model_reason(model: Any) -> str | None:
    """Return why a model's methods must be called; None if they are Sequential's."""
    base = layers.known_class(model)  # Sequential
    own = next((name for klass in type(model).__mro__ if klass is not base for name in vars(klass)
                if name in _ATTRIBUTES), None)
    if own is not None:
        return f"{type(model).__name__} has its own {own}"
    return layers.redefined(model, base, _AROUND_TRAINING)


def unsupported_copies_reason(model: Any) -> str | None:
    """Return why copies of a model, trained without its ``fit`` as in a sweep, might differ from the model; None if not.

    A function assigned to an instance may refer to the original layer, and would change that one while its copy is
    trained. A bound method is bound to the copy.
    """
    if not layers.inherits(model, layers.known_class(model), "fit"):
        return f"{type(model).__name__} has its own fit, which a sweep does not call"
    parts = [("", model), *((f"layers[{i}].", layer) for i, layer in enumerate(model.layers)), ("loss.", model.loss)]
    for where, part in parts:
        for name, value in getattr(part, "__dict__", {}).items():
            if isinstance(value, (FunctionType, partial)) and callable(getattr(type(part), name, None)):
                return (f"{where}{name} is a function that was assigned to the instance, and copies of the model would "
                        "share it. Bind it with types.MethodType(function, owner), or write a subclass")
    return None


def unsupported_layer_reason(layer: Any) -> str | None:
    """Return why fastnet must call a layer's methods; None if the layer is fastnet's, unmodified, and lowers to ops."""
    base = layers.known_class(layer)
    if not layers.definition(base) or not hasattr(base, "lower"):
        return f"{type(layer).__name__} is not a class that the compiled engines support"
    return layers.overridden(layer, base)


def unsupported_loss_reason(loss: Any) -> str | None:
    """Do what `unsupported_layer_reason` does, for a loss."""
    return unsupported_layer_reason(loss)


def shared_layer_reason(stack: Sequence[Any]) -> str | None:
    """Return which layer occurs twice, and so shares its parameters and stored inputs; None if none does."""
    for i, layer in enumerate(stack):
        first = next(j for j, other in enumerate(stack) if other is layer)
        if first < i:
            return f"layers[{first}] and layers[{i}] are the same {type(layer).__name__}"
    return None


def _unsupported_ops_reason(model: Any, shape: tuple[int, ...] | None) -> str | None:
    """Return which combination of layers and loss has no ops; None if all have."""
    if shape is None:
        given = layers.input_shape(model.layers[0])
        if given is None or None in given:
            return None  # the shape depends on the data
        shape = tuple(n for n in given if n is not None)
    try:
        Builder(model.dtype, 1).lower(list(model.layers), shape, model.loss)
    except Unsupported as why:
        return str(why)
    return None


def of_images(stack: Sequence[Any]) -> bool:
    """Return whether a network takes images, which is so if one of its layers needs them."""
    return any(getattr(layer, "needs_images", False) for layer in stack)


def unsupported_dtypes_reason(model: Any) -> str | None:
    found = {np.dtype(getattr(layer, name).dtype).newbyteorder("=") for layer in model.layers
             if unsupported_layer_reason(layer) is None for name in layers.learned(layer)}
    if not found:
        return "it has no parameters to learn"
    if found != {np.dtype(model.dtype)}:
        return f"its parameters have several dtypes ({', '.join(sorted(map(str, found)))})"
    return None


def _first(reasons: Any) -> str | None:
    return next((reason for reason in reasons if reason), None)


def _prefixed(prefix: str, reason: str | None) -> str | None:
    return None if reason is None else prefix + reason
