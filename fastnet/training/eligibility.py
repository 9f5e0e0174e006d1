"""Where a compiled engine may stand in for training layer by layer: only where nothing observable differs.

The one place that decides. It is strict: whatever a user changed about a model, a layer or the loss, even if it
would make no difference, is reason enough to run the code as it is written. The reasons are sentences for
``model.explain`` and ``model.history``.
"""
from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import FunctionType
from typing import Any

import numpy as np

from fastnet import layer as layers
from fastnet.program.builder import Builder, Unsupported

# What a subclass of Sequential may have of its own: nothing of it runs within a fit.
_AROUND_TRAINING = frozenset({"__init__", "__repr__", "__str__", "__init_subclass__", "__class_getitem__", "summary",
                              "explain", "fit", "partial_fit", "evaluate", "predict_proba", "train", "eval"})
_ATTRIBUTES = frozenset({"layers", "loss", "history"})  # of a Sequential's instances: not to be properties of a subclass


def why_not_compiled(model: Any, shape: tuple[int, ...] | None = None, lowered: bool = True) -> str | None:
    """Why a model has to be trained layer by layer; None if a compiled engine may stand in.

    Parameters
    ----------
    model : Sequential
    shape : tuple of int, optional
        Of one sample. By default what the first layer says that it takes.
    lowered : bool
        Whether to try to lower it, too; False for a caller who does that itself.

    Returns
    -------
    str or None
        The first reason found: something of the user's own in the model, a layer or the loss, or a network that the
        compiled engines don't know.
    """
    return (why_not_as_written(model)
            or why_not_twice(model.layers)
            or why_not_dtypes(model)
            or (_why_not_lowered(model, shape) if lowered else None))


def why_not_as_written(model: Any) -> str | None:
    """What in a model, its layers or the loss is not as fastnet has written it; None if everything is."""
    return (why_not_model(model)
            or _first(f"layers[{i}]: {why}" if why else None for i, why in enumerate(map(why_not, model.layers)))
            or _prefixed("loss: ", why_not_loss(model.loss)))


def why_not_model(model: Any) -> str | None:
    """Why a model's own methods must be called; None if they do what Sequential's do."""
    base = layers.known_class(model)  # Sequential
    own = next((name for klass in type(model).__mro__ if klass is not base for name in vars(klass)
                if name in _ATTRIBUTES), None)
    if own is not None:
        return f"{type(model).__name__} has its own {own}"
    return layers.redefined(model, base, _AROUND_TRAINING)


def why_not_in_copies(model: Any) -> str | None:
    """Why copies of a model, trained step by step without its ``fit``, might not do what the model itself would.

    That is what a sweep does. A function put on an instance may refer to the original layer, which it would go on changing
    while its copy is trained; a bound method is bound to the copy.
    """
    if not layers.inherits(model, layers.known_class(model), "fit"):
        return f"{type(model).__name__} has a fit of its own, which a sweep does not call"
    parts = [("", model), *((f"layers[{i}].", layer) for i, layer in enumerate(model.layers)), ("loss.", model.loss)]
    for where, part in parts:
        for name, value in getattr(part, "__dict__", {}).items():
            if isinstance(value, (FunctionType, partial)) and callable(getattr(type(part), name, None)):
                return (f"{where}{name} is a function that was put on the instance, and copies of the model would share it: "
                        "bind it: types.MethodType(function, owner), or write a subclass")
    return None


def why_not(layer: Any) -> str | None:
    """Why a layer or loss must be run as it is written; None if it is exactly one of fastnet's that lower to ops."""
    base = layers.known_class(layer)
    if not layers.definition(base) or not hasattr(base, "lower"):
        return f"{type(layer).__name__} is not a class that the compiled engines know"
    return layers.overridden(layer, base)


def why_not_loss(loss: Any) -> str | None:
    """As `why_not`, for a loss."""
    return why_not(loss)


def why_not_twice(stack: Sequence[Any]) -> str | None:
    """Whether a layer stands in two places: it shares its parameters, and what it remembers."""
    for i, layer in enumerate(stack):
        first = next(j for j, other in enumerate(stack) if other is layer)
        if first < i:
            return f"layers[{first}] and layers[{i}] are the same {type(layer).__name__}"
    return None


def _why_not_lowered(model: Any, shape: tuple[int, ...] | None) -> str | None:
    """What a layer or the loss says that it has no ops for: a combination that nobody has written."""
    if shape is None:
        given = layers.input_shape(model.layers[0])
        if given is None or None in given:
            return None  # only the data can tell
        shape = tuple(n for n in given if n is not None)
    try:
        Builder(model.dtype, 1).lower(list(model.layers), shape, model.loss)
    except Unsupported as why:
        return str(why)
    return None


def of_images(stack: Sequence[Any]) -> bool:
    """Whether a network takes images: it has a layer of them."""
    return any(getattr(layer, "needs_images", False) for layer in stack)


def why_not_dtypes(model: Any) -> str | None:
    found = {np.dtype(getattr(layer, name).dtype).newbyteorder("=") for layer in model.layers if why_not(layer) is None
             for name in layers.learned(layer)}
    if not found:
        return "nothing in it learns"
    if found != {np.dtype(model.dtype)}:
        return f"its parameters are of several dtypes ({', '.join(sorted(map(str, found)))})"
    return None


def _first(reasons: Any) -> str | None:
    return next((reason for reason in reasons if reason), None)


def _prefixed(prefix: str, reason: str | None) -> str | None:
    return None if reason is None else prefix + reason
