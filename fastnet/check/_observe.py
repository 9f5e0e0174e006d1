"""Calls of a layer and of the right one, step by step, and a record of the results of both."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastnet.check._cases import Case, drawn, name_of
from fastnet.check._reference import CLASSES

LR = 0.5
PARAMETERS = ("W", "b")


@dataclass
class Step:
    """One batch through one layer.

    Attributes
    ----------
    case : Case
    x, g : ndarray
        The batch: x and y_grad, or z and t of the loss.
    W, b : ndarray or None
        The parameters of both layers.
    found, expected : dict
        The value of each quantity; found is None if the layer returned none.
    accepted : dict
        Other values for which the method is right: those that follow from the layer's output.
    error : (quantity, exception) or None
        The call that failed; the check did not try later steps.
    before : Step or None
        The batch before this one.
    kept : dict
        The layer's arrays after forward, by the name of the attribute.
    mask : ndarray or None
        Where MaxPoolLayer's largest values are.
    remarks : list of str
    """

    case: Case
    x: np.ndarray
    g: np.ndarray
    W: Any = None
    b: Any = None
    found: dict[str, Any] = field(default_factory=dict)
    expected: dict[str, np.ndarray] = field(default_factory=dict)
    accepted: dict[str, np.ndarray] = field(default_factory=dict)
    error: tuple[str, BaseException] | None = None
    before: Step | None = None
    kept: dict[str, Any] = field(default_factory=dict)
    mask: Any = None
    remarks: list[str] = field(default_factory=list)

    def wrong(self) -> list[str]:
        """Return the names of the quantities that differ or are missing."""
        names = [name for name, value in self.expected.items() if name in self.found
                 and not agree(self.found[name], value, name)
                 and not (name in self.accepted and agree(self.found[name], self.accepted[name], name))]
        return names + ([self.error[0]] if self.error and self.error[0] not in names else [])


    def kept_wrong(self) -> str | None:
        """Return the attribute x, y, t or locs, or one of the shape of a padded x, in which forward stores a wrong value."""
        right = {"x": self.x, "y": self.expected.get("the output"), "t": self.g, "locs": self.mask}
        padded = None
        if np.ndim(self.x) == 4 and self.W is not None:
            p = self.W.shape[2] // 2
            padded = np.pad(self.x, ((0, 0), (0, 0), (p, p), (p, p)))
        for name, value in self.kept.items():
            meant = right.get(name, padded)
            if meant is not None and np.shape(value) == meant.shape and not agree(value, meant):
                return name
        return None


def agree(found: Any, expected: Any, name: str = "", tolerance: float = 1e-5) -> bool:
    """Return whether two results are equal by the rule of the course's tests: to 1e-5 of the largest value.

    Biases may have any shape with as many elements, and the loss any shape with one.
    """
    f: Any = numbers_of(found)
    e = np.asarray(expected, np.float64)
    if f is None or f.size != e.size:
        return False
    if f.shape != e.shape and not (name in ("b", "b_grad", "the losses") or e.ndim == 0):
        return False
    f, e = f.ravel(), e.ravel()
    scale = np.max(np.abs(e), initial=0.0, where=np.isfinite(e))
    return bool(np.allclose(f, e, rtol=0, atol=tolerance * scale + 1e-8 * tolerance / 1e-5, equal_nan=True))


def numbers_of(value: Any) -> np.ndarray | None:
    """Return a copy of a result as float64; None if it is not an array of real numbers."""
    try:
        array = np.asarray(value)
        return None if value is None or array.dtype.kind not in "fiub" else array.astype(np.float64)
    except (TypeError, ValueError):
        return None


def shape_of(value: Any) -> tuple[int, ...]:
    """Return the shape of an array, and () for any other object."""
    array: Any = numbers_of(value)
    return () if array is None else array.shape


def observe(stem: str, make: Callable[..., Any], tried: Sequence[Case]) -> list[Step]:
    """Run a layer through its cases.

    Parameters
    ----------
    stem : str
    make : callable
        The layer's class.
    tried : sequence of Case

    Returns
    -------
    list of Step
        Without those that follow an error in their case.
    """
    steps: list[Step] = []
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in tried:
            steps += _loss_steps(make, case) if stem == "cross_entropy" else _layer_steps(stem, make, case)
    return steps


def _loss_steps(make: Callable[..., Any], case: Case) -> list[Step]:
    first = Step(case, *case.batches[0])
    layer = _called(first, "the layer", make)
    if layer is None:
        return [first]
    steps: list[Step] = []
    for i, (z, t) in enumerate(case.batches):
        step = first if i == 0 else Step(case, z, t, before=steps[-1])
        steps.append(step)
        if not _loss_step(step, layer):
            break
    return steps


def _loss_step(step: Step, layer: Any) -> bool:
    right = CLASSES["CrossEntropyLayer"]()
    step.expected = {"the loss": right.forward(step.x, step.g), "the gradient of x": right.backward()}
    z, t = step.x.copy(), step.g.copy()
    if not _store(step, "the loss", lambda: layer.forward(z, t)):
        return False
    step.kept = _arrays(layer)
    if not _store(step, "the gradient of x", lambda: _backward_of_loss(layer)):
        return False
    _note_writes(step, {"z": (z, step.x), "t": (t, step.g)})
    return True


def _backward_of_loss(layer: Any) -> Any:
    try:
        return layer.backward()
    except TypeError as error:
        if "argument" not in str(error):
            raise
        return layer.backward(None)  # the chapter: y_grad will be set to None


def _layer_steps(stem: str, make: Callable[..., Any], case: Case) -> list[Step]:
    right = CLASSES[name_of(stem)](*case.arguments)
    learns = hasattr(right, "W")
    first = Step(case, *case.batches[0])
    layer = _called(first, "initial W" if learns else "the layer", lambda: make(*case.arguments))
    if layer is None:
        return [first]
    steps: list[Step] = []
    previous = None
    for i, (x, g) in enumerate(case.batches):
        step = first if i == 0 else Step(case, x, g, before=steps[-1])
        steps.append(step)
        if learns:
            _give_parameters(step, layer, right, first=i == 0)
        if not _passes(step, stem, layer, right):
            break
        output = step.found.pop("array")
        if previous is not None and not np.array_equal(*previous, equal_nan=True):
            steps[-2].found["the output"] = np.full_like(steps[-2].expected["the output"], np.nan)
            steps[-2].remarks.append("the next forward changes the array that this one returned; return a new one each time")
        previous = (output, output.copy()) if isinstance(output, np.ndarray) and output.dtype.kind == "f" else None
        if learns and not _update(step, layer):
            break
    return steps


def _give_parameters(step: Step, layer: Any, right: Any, first: bool) -> None:
    """Give both layers the same W and b, with b in the shape that the layer itself uses."""
    n_o = right.W.shape[0]
    if first:
        own = getattr(layer, "W", None)
        step.found["initial W"] = None if own is None else np.zeros(shape_of(own))
        step.expected["initial W"] = np.zeros(right.W.shape)
        b = numbers_of(getattr(layer, "b", None))
        step.found["initial b"] = np.zeros(n_o) if b is not None and b.size in (1, n_o) else b
        step.expected["initial b"] = np.zeros(n_o)
        right.W = np.round(drawn(right.W.shape, 5) * 2) if step.case.batches[0][0].size < 10 else drawn(right.W.shape, 5)
    own_b: Any = numbers_of(getattr(layer, "b", None))
    shape = () if own_b is None else own_b.shape
    size = int(np.prod(shape))
    a_number = own_b is not None and (own_b.ndim == 0 or size == 1 < n_o)  # b = 0; an array from the first update on
    right.b = np.full((1, n_o), np.ravel(own_b)[0]) if a_number else (0.75 * np.arange(n_o) + 0.5).reshape(1, -1)
    if size != n_o and not a_number:
        shape = (1, n_o)
    step.W, step.b = right.W.copy(), right.b.copy()
    layer.W = right.W.copy()
    if not a_number:
        layer.b = right.b.reshape(shape).copy()


def _passes(step: Step, stem: str, layer: Any, right: Any) -> bool:
    x, g = step.x.copy(), step.g.copy()
    y = right.forward(step.x)
    step.expected["the output"] = y
    held: dict[str, Any] = {}

    def forward() -> Any:
        held["array"] = layer.forward(x)
        if stem == "flatten" and isinstance(held["array"], np.ndarray) and np.shares_memory(held["array"], x):
            step.remarks.append("the output is a view of x: a change of one changes the other")
            return np.full(y.shape, np.nan)
        return held["array"]

    if not _store(step, "the output", forward):
        return False
    step.kept = _arrays(layer)
    step.mask = getattr(right, "locs", None)
    own = numbers_of(step.found["the output"])
    step.expected["the gradient of x"] = right.backward(step.g)
    if own is not None and own.shape == y.shape:
        if stem == "softmax":
            step.accepted["the gradient of x"] = own * (step.g - (step.g * own).sum(axis=1, keepdims=True))
        if stem == "relu":
            step.accepted["the gradient of x"] = step.g * (own > 0)
    for name in PARAMETERS if step.W is not None else ():
        step.expected[f"{name}_grad"] = getattr(right, f"{name}_grad")
    if not _store(step, "the gradient of x", lambda: layer.backward(g)):
        return False
    for name in PARAMETERS if step.W is not None else ():
        step.found[f"{name}_grad"] = _copied(gradient_of(layer, name))
    _note_writes(step, {"x": (x, step.x), "y_grad": (g, step.g)})
    step.found["array"] = held["array"]
    return True


def _update(step: Step, layer: Any) -> bool:
    """Check the update against the gradients that the layer itself holds."""
    for name in PARAMETERS:
        value, own = getattr(step, name), numbers_of(step.found[f"{name}_grad"])
        usable = own is not None and own.size == value.size and np.isfinite(own).all()
        step.expected[name] = value - LR * (own.reshape(value.shape) if usable and own is not None
                                            else step.expected[f"{name}_grad"])
    if not _store(step, "W", lambda: updater(layer)(LR)):
        step.found.pop("W", None)
        return False
    for name in PARAMETERS:
        step.found[name] = _copied(getattr(layer, name, None))
    return True


def gradient_of(layer: Any, name: str) -> Any:
    """Return a gradient by either of its names: w_grad in the chapter, W_grad in the tests."""
    grad = getattr(layer, f"{name}_grad", None)
    return getattr(layer, f"{name.lower()}_grad", None) if grad is None else grad


def updater(layer: Any) -> Callable[[float], Any]:
    """Return the template's ``update_param`` or the chapter's ``update_params``."""
    return getattr(layer, "update_param", None) or layer.update_params


def _called(step: Step, quantity: str, call: Callable[[], Any]) -> Any:
    """Return the result of a call of the folder's code; if it raises, store the error and return None."""
    try:
        return call()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too
        step.error = (quantity, error)
        return None


def _store(step: Step, quantity: str, call: Callable[[], Any]) -> bool:
    value = _called(step, quantity, call)
    step.found[quantity] = _copied(value)
    if step.error is not None:
        step.found.pop(quantity)
    return step.error is None


def _arrays(layer: Any) -> dict[str, np.ndarray]:
    return {name: value.copy() for name, value in getattr(layer, "__dict__", {}).items() if isinstance(value, np.ndarray)}


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value


def _note_writes(step: Step, arrays: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    for name, (given, before) in arrays.items():
        if not np.array_equal(given, before, equal_nan=True):
            step.remarks.append(f"it writes into {name}, which belongs to the caller; work on a copy, {name}.copy()")
