"""What a layer promises, and what can be known about one that somebody else wrote.

Everything fastnet asks of a layer goes through this module: its parameters, which of them decay, the shape of its
output, how it is updated, and whether it is one of fastnet's own, with nothing changed about it. Nobody needs a base
class: an object with the methods of :class:`Layer` is a layer.
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
    """A layer of a network. Two methods make one; the other members are optional.

    ``update_param(lr)`` (or ``update_params(lr)``)
        Step against the gradients that ``backward`` left behind. A layer without it does not learn.
    ``parameters()``
        A mapping from the name of each attribute that is learned to the name of the attribute that holds its
        gradient after ``backward``, for instance ``{"W": "W_grad", "gamma": "dgamma"}``. Without it, an array ``X`` is a
        parameter if there is an ``X_grad`` beside it. Momentum and weight decay, which work by changing the gradient
        that ``update_param`` finds, reach these parameters and no others.
    ``output_shape(shape)``
        The shape of one sample's output, for one sample's input of this shape: tuples without the axis of samples.
        Raises ValueError for an input that the layer cannot take.
    ``training``
        True or False: whether the layer is at work in training or in prediction. fastnet sets it in a layer that has it:
        to True in ``fit`` and ``train_on_batch``, to False in ``predict``, ``evaluate`` and for validation data. In a loop
        by hand it is what :meth:`fastnet.Sequential.train` or :meth:`fastnet.Sequential.eval` has set last.
    ``decays``
        The names of the parameters that weight decay shrinks. By default all but biases: those called ``b`` or
        ``bias``, perhaps with a number or an underscore and more behind it.
    """

    def forward(self, x: Any) -> Any:
        """Compute the output for a batch, shape (n, ...), and remember what ``backward`` needs."""

    def backward(self, y_grad: Any) -> Any:
        """Keep the gradients of the parameters, and return that of the input, from that of the output."""


@runtime_checkable
class Loss(Protocol):
    """The end of a network, in training: the number that is to become small."""

    def forward(self, x: Any, t: Any) -> float:
        """Compute the loss of outputs x, shape (n, ...), for targets t, and remember what ``backward`` needs."""

    def backward(self) -> Any:
        """Return the gradient of the loss with respect to x."""


# --- what a layer says about itself -----------------------------------------------------------------------------------


def parameters(layer: Any) -> dict[str, str]:
    """Names of the arrays a layer learns, and of their gradients.

    As its method ``parameters`` says, if it has one that gives a mapping of names. Otherwise a parameter is an array with
    a gradient beside it, ``W`` with ``W_grad`` or, as the chapter spells it, ``w_grad``. Such a gradient may appear with
    the first backward pass only. ``x`` and ``y``, in the course's layers, are the last input and output, whether or not
    their gradients are kept too.
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
    """What the layer's own method ``parameters`` gives, None if it has none or one that gives anything else."""
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
    """Names of the parameters of a layer that weight decay shrinks.

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
            f"{', '.join(names) or 'unknown'}. A parameter is an array X with an X_grad beside it, or one that the "
            "layer's method parameters() names.")
    return said


def output_shape(layer: Any, shape: Shape | None) -> Shape | None:
    """Shape of a sample's output for the shape of its input; None if that is not known.

    A layer's ``output_shape`` is believed only as long as its ``forward`` is the one it was written for: not if a
    subclass or an instance has another. Layers that are not fastnet's are asked only where the input's shape is known.
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
    """Shape of a sample that a layer takes, with None for a side that may be any; None if it does not say.

    As its ``output_shape``, its ``input_shape`` is believed only as long as its ``forward`` is the one it was written for.
    """
    method = getattr(layer, "input_shape", None)
    if not callable(method) or not any(klass in _DEFINITIONS for klass in type(layer).__mro__):
        return None
    return tuple(method()) if _written_together(layer, "input_shape", "forward") else None


def learned(layer: Any) -> dict[str, Any]:
    """The arrays of a layer of fastnet's, or of a subclass, that training changes: their `FloatArray` by their name.

    These are the parameters and, for instance, running statistics. Empty for any other layer.
    """
    klass: type = type(layer)
    return learned_by(klass)


def trained(layer: Any) -> dict[str, Any]:
    """Everything that training changes in a layer of fastnet's, or of a subclass: as `learned`, and counters."""
    klass: type = type(layer)
    return _trained(klass)


@functools.cache
def learned_by(klass: type) -> dict[str, Any]:
    """The arrays that training changes in the layers of a class, see `learned`."""
    return {name: kept for name, kept in _trained(klass).items() if kept.is_array}


@functools.cache
def _trained(klass: type) -> dict[str, Any]:
    return {name: kept for base in reversed(klass.__mro__) for name, kept in vars(base).items()
            if not getattr(kept, "optional", True)}


def shielded(x: Any, layer: Any) -> Any:
    """x, or a copy of it for a layer that may write into what it is given, which others hold: the caller, other layers."""
    klass = type(layer)
    if klass in _FORWARD and klass.forward is _FORWARD[klass] and "forward" not in layer.__dict__:
        return x  # fastnet's forward writes to no input
    return np.array(x) if isinstance(x, np.ndarray) else x


def updater(layer: Any) -> Callable[[float], Any] | None:
    """The layer's ``update_param`` or ``update_params``, whichever was written last; None if it does not learn.

    A subclass may have its own version of one of the two names, and an instance of its class's.
    """
    klass = type(layer)
    if (klass in _UPDATES and klass.update_params is _UPDATES[klass] and "update_param" not in (held := layer.__dict__)
            and "update_params" not in held):  # one of fastnet's, as it was written
        return layer.update_param
    names = ("update_param", "update_params")
    for held in (getattr(layer, "__dict__", {}), *map(vars, type(layer).__mro__)):
        name = next((name for name in names if callable(getattr(layer, name, None)) and name in held), None)
        if name is not None:
            return getattr(layer, name)
    return next((method for method in (getattr(layer, name, None) for name in names) if callable(method)), None)


def foreign(layer: Any) -> bool:
    """Whether code that is not fastnet's runs in a layer or loss, which may write into the arrays it is given."""
    return type(layer) not in _DEFINITIONS or overridden(layer, type(layer)) is not None


def _written_together(layer: Any, promise: str, method: str) -> bool:
    """Whether no class below the one that defines `promise`, nor the instance, has another `method`."""
    if method in getattr(layer, "__dict__", {}):
        return promise in layer.__dict__
    for klass in type(layer).__mro__:
        if promise in vars(klass):
            original = _DEFINITIONS.get(klass, vars(klass)).get(method)
            return original is None or original is vars(klass).get(method)
        if method in vars(klass):
            return False
    return True


# --- whether a class of fastnet's is as it was written ----------------------------------------------------------------


def known(klass: _Class) -> _Class:
    """Class decorator: remember what the class defines, so that `overridden` sees what is changed later."""
    _DEFINITIONS[klass] = dict(vars(klass))
    if hasattr(klass, "forward"):
        _FORWARD[klass] = klass.forward
    if hasattr(klass, "update_param") and hasattr(klass, "update_params"):
        _UPDATES[klass] = klass.update_params
    return klass


def known_class(subject: Any) -> type:
    """The class of fastnet's that an object's class is, or derives from; its own class if there is none."""
    return next((klass for klass in type(subject).__mro__ if klass in _DEFINITIONS), type(subject))


def definition(klass: type) -> dict[str, Any]:
    """What a class of fastnet's defined when it was made; empty for any other class."""
    return _DEFINITIONS.get(klass, {})


@functools.cache
def _meant(klass: type) -> dict[str, Any]:
    """What the names of a class of fastnet's stand for, inherited ones included, as its modules defined them."""
    meant: dict[str, Any] = {}
    for base in reversed(klass.__mro__):
        meant.update(_DEFINITIONS.get(base, {}))
    return meant


def overridden(subject: Any, klass: type) -> str | None:
    """What keeps an object from being exactly what a class of fastnet's was written to be.

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
    """As `overridden`, but that a subclass may add what `klass` does not have, and redefine the names in `free`."""
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
    """Whether a name of an object means what `klass`, decorated with `known`, defined under it."""
    if name in getattr(subject, "__dict__", {}):
        return False
    found = next((vars(base)[name] for base in type(subject).__mro__ if name in vars(base)), None)
    return found is not None and found is _meant(klass).get(name)


def _changed(klass: type, free: frozenset[str]) -> str | None:
    """Name of something in the class that is not what its definition said."""
    now, original = vars(klass), _DEFINITIONS[klass]
    for name, value in original.items():
        if now.get(name) is not value and name not in free and name not in _IGNORED:
            return name
    inherited = _meant(klass)
    return next((name for name in now if name not in original and name not in free and name not in _IGNORED
                 and (name in inherited or name in _HOOKS)), None)
