"""The interface of a layer, and what fastnet can find out about a user-defined one.

This module answers every question that fastnet has about a layer: its parameters, which of them decay, the shape of its
output, how it is updated, and whether it is an unmodified layer of fastnet's. A layer needs no base class: an object with
the methods of :class:`Layer` is a layer.
"""
from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np

Shape = tuple[int | None, ...]  # of one sample, without the axis of samples; None where a side is not known
_Class = TypeVar("_Class", bound=type)

_BIAS = re.compile(r"(b|bias)(\d+|_\w*)?", re.IGNORECASE)  # b, b1, b_out, bias, bias_2; but not beta or basis
_DEFINITIONS: dict[type, dict[str, Any]] = {}  # of fastnet's classes: what each defined when it was made
KNOWN = _DEFINITIONS.keys()  # fastnet's own classes
_FORWARD: dict[type, Any] = {}  # of those with a forward: the one they defined
_UPDATES: dict[type, Any] = {}  # of those with both names of it: their update_params
_HOOKS = frozenset({"__getattribute__", "__setattr__", "__delattr__", "__getattr__"})  # called for every attribute
_IGNORED = frozenset({"__module__", "__doc__", "__dict__", "__weakref__", "__qualname__", "__annotations__", "__annotate__",
                      "__annotations_cache__", "__annotate_func__", "__static_attributes__", "__firstlineno__",
                      "__type_params__", "__orig_bases__", "__parameters__"})


@runtime_checkable
class Layer(Protocol):
    """A layer of a network. It needs ``forward`` and ``backward``; the other members are optional.

    ``update_param(lr)`` (or ``update_params(lr)``)
        Takes a step against the gradients that ``backward`` stored. A layer without this method does not learn.
    ``parameters()``
        Returns a mapping from the name of each learned attribute to the name of the attribute that holds its gradient
        after ``backward``, for instance ``{"W": "W_grad", "gamma": "dgamma"}``. Without this method, an array ``X`` is a
        parameter if the layer also has an ``X_grad``. Momentum and weight decay change the gradients of these parameters
        before fastnet calls ``update_param``; they do not reach other arrays.
    ``output_shape(shape)``
        Returns the shape of one sample's output for one sample's input of this shape: tuples without the axis of samples.
        It raises ValueError for an input that the layer cannot take.
    ``training``
        True in training, False in prediction. fastnet sets it in a layer that has it: to True in ``fit`` and
        ``train_on_batch``, to False in ``predict``, ``evaluate`` and for validation data. In a hand-written loop,
        :meth:`fastnet.Sequential.train` and :meth:`fastnet.Sequential.eval` set it.
    ``decays``
        The names of the parameters that weight decay shrinks. By default these are all except biases, which are called
        ``b`` or ``bias``, perhaps followed by a number or by an underscore and more.
    """

    def forward(self, x: Any) -> Any:
        """Compute the output for a batch, shape (n, ...), and store what ``backward`` needs."""

    def backward(self, y_grad: Any) -> Any:
        """From the gradient of the output, store the gradients of the parameters and return that of the input."""


@runtime_checkable
class Loss(Protocol):
    """The loss of a network: the number that training makes small."""

    def forward(self, x: Any, t: Any) -> float:
        """Compute the loss of outputs x, shape (n, ...), for targets t, and store what ``backward`` needs."""

    def backward(self) -> Any:
        """Return the gradient of the loss with respect to x."""


# --- what a layer says about itself -----------------------------------------------------------------------------------


def parameters(layer: Any) -> dict[str, str]:
    """Return the names of the arrays a layer learns, and of their gradients.

    If the layer has a method ``parameters`` that returns a mapping of names, it decides. Otherwise a parameter is an array
    that has a gradient, ``W`` with ``W_grad`` or, as the chapter spells it, ``w_grad``. Such a gradient may appear only
    with the first backward pass. ``x`` and ``y`` are the last input and output in the course's layers, and no parameters
    even if the layer stores their gradients.
    """
    declared = declared_parameters(layer)
    if declared is not None:
        return declared
    owner = getattr(layer, "_owner", None)
    if owner is not None and hasattr(owner, "give"):
        owner.give("")  # what a compiled step keeps for the layer, see `training.on_batch`
    held = getattr(layer, "__dict__", {})
    found = {}
    for name, value in held.items():
        grad = next((g for g in (f"{name}_grad", f"{name.lower()}_grad") if g in held), None)
        if grad is not None and isinstance(value, np.ndarray) and name not in ("x", "y"):
            found[name] = grad
    return found


def declared_parameters(layer: Any) -> dict[str, str] | None:
    """Return the mapping that the layer's method ``parameters`` returns; None without such a method or mapping."""
    method = getattr(layer, "parameters", None)
    if not callable(method) or isinstance(layer, type):
        return None
    try:
        given = method()
    except TypeError:  # it wants arguments: a method of the same name for another purpose
        return None
    if not isinstance(given, Mapping) or not all(isinstance(n, str) for pair in given.items() for n in pair):
        return None
    return dict(given)


def decaying(layer: Any) -> frozenset[str]:
    """Return the names of a layer's parameters that weight decay shrinks.

    Raises
    ------
    ValueError
        If the layer's ``decays`` names something that is not one of its parameters.
    """
    names = parameters(layer)
    said = getattr(layer, "decays", None)
    if said is None or callable(said):
        return frozenset(name for name in names if _BIAS.fullmatch(name) is None)
    said = frozenset((said,) if isinstance(said, str) else said if isinstance(said, Iterable) else ())
    unknown = sorted(map(str, said - names.keys()))
    if unknown:
        raise ValueError(
            f"{type(layer).__name__}: decays names {', '.join(unknown)}, but its parameters are "
            f"{', '.join(names) or 'unknown'}. A parameter is an array X if the layer also has X_grad, or one that the "
            "layer's method parameters() names.")
    return said


def output_shape(layer: Any, shape: Shape | None) -> Shape | None:
    """Return the shape of a sample's output for the shape of its input; None if that is not known.

    fastnet uses a layer's ``output_shape`` only with the ``forward`` that it was written for, not if a subclass or an
    instance overrides ``forward``. It calls the method of a user-defined layer only if the input's shape is known.
    """
    method = getattr(layer, "output_shape", None)
    if not callable(method) or not _written_together(layer, "output_shape", "forward"):
        return None
    if not any(klass in _DEFINITIONS for klass in type(layer).__mro__) and (shape is None or None in shape):
        return None
    try:
        given = method(shape)
    except TypeError:  # it wants other arguments: a method of the same name for another purpose
        return None
    whole = isinstance(given, (tuple, list)) and all(n is None or isinstance(n, (int, np.integer)) for n in given)
    return tuple(given) if whole else None


def input_shape(layer: Any) -> Shape | None:
    """Return the shape of a sample that a layer takes, with None for a side of any length; None if it is not known.

    As with ``output_shape``, fastnet uses ``input_shape`` only with the ``forward`` that it was written for.
    """
    method = getattr(layer, "input_shape", None)
    if not callable(method) or not any(klass in _DEFINITIONS for klass in type(layer).__mro__):
        return None
    return tuple(method()) if _written_together(layer, "input_shape", "forward") else None


def learned(layer: Any) -> dict[str, Any]:
    """Return the arrays that training changes in a fastnet layer, or a subclass, as a mapping of name to `FloatArray`.

    These are the parameters and, for instance, running statistics. The mapping is empty for any other layer.
    """
    klass: type = type(layer)
    return learned_by(klass)


def trained(layer: Any) -> dict[str, Any]:
    """Return everything that training changes in a fastnet layer, or a subclass: the arrays of `learned`, and counters."""
    klass: type = type(layer)
    return _trained(klass)


@functools.cache
def learned_by(klass: type) -> dict[str, Any]:
    """Return the arrays that training changes in the layers of a class, see `learned`."""
    return {name: kept for name, kept in _trained(klass).items() if kept.is_array}


@functools.cache
def _trained(klass: type) -> dict[str, Any]:
    return {name: kept for base in reversed(klass.__mro__) for name, kept in vars(base).items()
            if not getattr(kept, "optional", True)}


def shielded(x: Any, layer: Any) -> Any:
    """Return x, or a defensive copy for a layer that may write into its input, since the caller or a layer also holds x."""
    klass = type(layer)
    if klass in _FORWARD and klass.forward is _FORWARD[klass] and "forward" not in layer.__dict__:
        return x  # fastnet's forward writes to no input
    return np.array(x) if isinstance(x, np.ndarray) else x


def updater(layer: Any) -> Callable[[float], Any] | None:
    """Return the layer's ``update_param`` or ``update_params``, the one that overrides the other; None if it has neither.

    A subclass or an instance may override only one of the two names.
    """
    klass = type(layer)
    if (klass in _UPDATES and klass.update_params is _UPDATES[klass] and "update_param" not in (held := layer.__dict__)
            and "update_params" not in held):  # fastnet's own, unmodified
        return layer.update_param
    names = ("update_param", "update_params")
    for held in (getattr(layer, "__dict__", {}), *map(vars, type(layer).__mro__)):
        name = next((name for name in names if callable(getattr(layer, name, None)) and name in held), None)
        if name is not None:
            return getattr(layer, name)
    return next((method for method in (getattr(layer, name, None) for name in names) if callable(method)), None)


def foreign(layer: Any) -> bool:
    """Return whether user-defined code runs in a layer or loss, which may then write into its input."""
    return type(layer) not in _DEFINITIONS or overridden(layer, type(layer)) is not None


def _written_together(layer: Any, promise: str, method: str) -> bool:
    """Return whether neither a class below the one that defines `promise` nor the instance overrides `method`."""
    if method in getattr(layer, "__dict__", {}):
        return promise in layer.__dict__
    for klass in type(layer).__mro__:
        if promise in vars(klass):
            original = _DEFINITIONS.get(klass, vars(klass)).get(method)
            return original is None or original is vars(klass).get(method)
        if method in vars(klass):
            return False
    return True


# --- whether a class of fastnet's is unmodified -----------------------------------------------------------------------


def known(klass: _Class) -> _Class:
    """Class decorator: record what the class defines, so that `overridden` detects later changes."""
    _DEFINITIONS[klass] = dict(vars(klass))
    if hasattr(klass, "forward"):
        _FORWARD[klass] = klass.forward
    if hasattr(klass, "update_param") and hasattr(klass, "update_params"):
        _UPDATES[klass] = klass.update_params
    return klass


def known_class(subject: Any) -> type:
    """Return the fastnet class that an object's class is, or derives from; the object's class if there is none."""
    return next((klass for klass in type(subject).__mro__ if klass in _DEFINITIONS), type(subject))


def definition(klass: type) -> dict[str, Any]:
    """Return what a fastnet class defined when it was made; nothing for any other class."""
    return _DEFINITIONS.get(klass, {})


@functools.cache
def _meant(klass: type) -> dict[str, Any]:
    """Return the values of all names of a fastnet class, inherited ones included, as its modules defined them."""
    meant: dict[str, Any] = {}
    for base in reversed(klass.__mro__):
        meant.update(_DEFINITIONS.get(base, {}))
    return meant


def overridden(subject: Any, klass: type) -> str | None:
    """Return how an object differs from an unmodified instance of a fastnet class.

    Parameters
    ----------
    subject : object
    klass : type
        A class decorated with `known`.

    Returns
    -------
    str or None
        For instance ``"Frozen is a subclass of FullLayer"``, ``"update_param of this FullLayer has been replaced"`` or
        ``"FullLayer.forward has been replaced"``; None if nothing was changed.
    """
    if type(subject) is not klass:
        relation = "a subclass of" if isinstance(subject, klass) else "not"
        return f"{type(subject).__name__} is {relation} {klass.__name__}"
    return redefined(subject, klass)


def redefined(subject: Any, klass: type, free: frozenset[str] = frozenset()) -> str | None:
    """Do what `overridden` does, but let a subclass add what `klass` does not have and override the names in `free`."""
    original = _meant(klass)
    for below in type(subject).__mro__:
        if below is klass:
            break
        for name in vars(below):
            if (name in original or name in _HOOKS) and name not in free and name not in _IGNORED:
                return f"{below.__name__} has its own {name}"
    for base in klass.__mro__:
        changed = _changed(base, free) if base in _DEFINITIONS else None
        if changed is not None:
            return f"{base.__name__}.{changed} has been replaced"
    for name in getattr(subject, "__dict__", {}):
        if name in original and name not in free and not hasattr(type(original[name]), "__set__"):
            return f"{name} of this {type(subject).__name__} has been replaced"
    return None


def inherits(subject: Any, klass: type, name: str) -> bool:
    """Return whether a name of an object still has the value that `klass`, decorated with `known`, gave it."""
    if name in getattr(subject, "__dict__", {}):
        return False
    found = next((vars(base)[name] for base in type(subject).__mro__ if name in vars(base)), None)
    return found is not None and found is _meant(klass).get(name)


def _changed(klass: type, free: frozenset[str]) -> str | None:
    """Return the name of something in the class that has changed since its definition."""
    now, original = vars(klass), _DEFINITIONS[klass]
    for name, value in original.items():
        if now.get(name) is not value and name not in free and name not in _IGNORED:
            return name
    inherited = _meant(klass)
    return next((name for name in now if name not in original and name not in free and name not in _IGNORED
                 and (name in inherited or name in _HOOKS)), None)
