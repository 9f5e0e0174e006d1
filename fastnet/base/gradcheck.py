"""Numerical gradients: does ``backward`` compute the derivative of ``forward``?"""
from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnet.base import checks
from fastnet.layer import parameters

_KINK = 1e-3  # the slopes left and right of a point differ by more than this, relatively, only at a corner of the function


@dataclass(frozen=True)
class ArrayGradient:
    """The comparison for one array: its worst element and that element's error.

    Attributes
    ----------
    name : str
        ``x``, ``W``, or in a model ``layers[0].W``.
    index : tuple of int, or None
        The worst element; None if no element was compared.
    analytic, numeric : float
        The gradients of that element from ``backward`` and from central differences.
    excess : float
        Their difference divided by the tolerance. At most 1 is right.
    checked, size, kinks : int
        The number of compared elements, of all elements, and of those left out because the function has a corner there.
    """

    name: str
    index: tuple[int, ...] | None
    analytic: float
    numeric: float
    excess: float
    checked: int
    size: int
    kinks: int

    @property
    def ok(self) -> bool:
        """Whether all compared elements are within the tolerance."""
        return self.excess <= 1  # false for NaN

    def __str__(self) -> str:
        if self.index is None:
            return f"{self.name}: nothing to check, {self.kinks} of {self.size} elements at a corner"
        corners = f", {self.kinks} at a corner left out" if self.kinks else ""
        return (
            f"{self.name}: {'ok' if self.ok else 'WRONG'}, {self.checked} of {self.size} elements{corners}; worst at "
            f"{self.name}{list(self.index)}: backward gives {self.analytic:.10g}, differences give {self.numeric:.10g}"
        )


@dataclass(frozen=True)
class GradientReport:
    """The result of :func:`gradcheck`. It is true if all gradients are right, and prints the worst element of each array.

    Attributes
    ----------
    arrays : tuple of ArrayGradient
        One for the input and one for each parameter.
    """

    arrays: tuple[ArrayGradient, ...]

    @property
    def ok(self) -> bool:
        """Whether the gradients of all arrays are right."""
        return all(a.ok for a in self.arrays)

    @property
    def worst(self) -> ArrayGradient:
        """The comparison of the array with the worst element."""
        return max(self.arrays, key=lambda a: np.inf if np.isnan(a.excess) else a.excess)

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        verdict = "gradients agree" if self.ok else f"gradients differ, most at {self.worst.name}"
        return "\n".join([verdict, *(f"  {a}" for a in self.arrays)])

    __repr__ = __str__


def gradcheck(
    subject: Any,
    x: npt.ArrayLike,
    target: npt.ArrayLike | None = None,
    *,
    step: float = 1e-5,
    atol: float = 1e-7,
    rtol: float = 1e-6,
    max_elements: int = 200,
    seed: int = 0,
) -> GradientReport:
    """Compare the gradients of a layer, a loss or a whole model with central differences.

    gradcheck moves each element up and down by a step, divides the difference of the two outputs by twice the step, and
    compares the quotient with the gradient from ``backward``. It works on copies with float64 parameters, and does not
    change the subject.

    Parameters
    ----------
    subject : layer, loss layer or Sequential
        One of fastnet's or your own. A layer has ``forward(x)`` and ``backward(y_grad)``; gradcheck weights its output
        with random numbers to get one number. A loss has ``forward(x, t)`` and ``backward()``. An attribute ``W`` is a
        parameter if the layer has a ``W_grad`` (or ``w_grad``) after ``backward``.
    x : array_like
        The input at which to compare, preferably random.
    target : array_like, optional
        The target, for a loss and for a model.
    step : float
        The distance by which to move an element; it is multiplied by the element's absolute value if that is above 1.
    atol, rtol : float
        Gradients a (analytic) and n (numeric) agree if abs(a - n) <= atol + rtol * abs(n).
    max_elements : int
        In a larger array, gradcheck compares this many elements, drawn with ``seed``.
    seed : int
        The seed of the elements, and of the weights of a layer's output.

    Returns
    -------
    GradientReport
        True if all gradients agree.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnet import FullLayer, gradcheck
    >>> report = gradcheck(FullLayer(3, 2, rng=0), np.ones((4, 3)))
    >>> bool(report), [a.name for a in report.arrays]
    (True, ['x', 'W', 'b'])
    """
    rng = np.random.default_rng(checks.seed("gradcheck", seed))
    max_elements = checks.whole_number("gradcheck", "max_elements", max_elements, "200 is usual.")
    step = checks.positive("gradcheck", "step", step, "1e-5 is usual.")
    atol, rtol = checks.rate("gradcheck", atol, "atol"), checks.rate("gradcheck", rtol, "rtol")
    if atol == rtol == 0:
        raise ValueError("gradcheck: atol and rtol are both 0, but differences are not exact. 1e-7 and 1e-6 are usual.")
    checks.layer("gradcheck", "the subject", subject, target)
    trial = _Trial(subject, checks.numbers("gradcheck", "x", x).astype(np.float64), target, rng)
    arrays = []
    for spot, analytic in trial.gradients():
        chosen = np.arange(analytic.size)
        if analytic.size > max_elements:
            chosen = np.sort(rng.choice(analytic.size, max_elements, replace=False))
        arrays.append(_compare(trial, spot, analytic, chosen, step, lambda n: atol + rtol * abs(n)))
    return GradientReport(tuple(arrays))


class _Spot(NamedTuple):
    """The location of an array: an attribute of the subject, or of its layer ``place``; ``x`` is the input."""

    place: int | None
    name: str

    def holder(self, subject: Any) -> Any:
        return subject if self.place is None else subject.layers[self.place]

    def __str__(self) -> str:
        return self.name if self.place is None else f"layers[{self.place}].{self.name}"


_INPUT = _Spot(None, "x")


class _Trial:
    """The subject as a function from one array to one number. Each call starts from the same state of random layers."""

    def __init__(self, subject: Any, x: np.ndarray, target: npt.ArrayLike | None, rng: np.random.Generator) -> None:
        self.subject = _in_float64(copy.deepcopy(subject))
        self.x, self.target = x, target
        self.model = hasattr(subject, "layers")
        if self.model and target is None:
            raise TypeError("gradcheck: a model needs a target: gradcheck(model, x, target).")
        self.weights: Any = None  # of a layer's output
        if target is None:
            self.weights = rng.standard_normal(np.shape(self._forward(copy.deepcopy(self.subject), x)))

    def value(self, spot: _Spot, array: np.ndarray) -> float:
        """The number, with ``array`` at one of the spots of ``gradients``."""
        subject = copy.deepcopy(self.subject)
        if spot is _INPUT:
            return self._number(subject, array)
        setattr(spot.holder(subject), spot.name, array)
        return self._number(subject, self.x)

    def start(self, spot: _Spot) -> np.ndarray:
        """Return the unmodified array."""
        return self.x if spot is _INPUT else getattr(spot.holder(self.subject), spot.name)

    def gradients(self) -> list[tuple[_Spot, np.ndarray]]:
        """Return the gradients from ``backward``, for x and for each parameter of the subject or of its layers."""
        subject = copy.deepcopy(self.subject)
        self._number(subject, self.x)
        found = [(_INPUT, subject.backward() if self.weights is None else subject.backward(self.weights))]
        places = range(len(subject.layers)) if self.model else (None,)
        for place in places:
            layer = subject if place is None else subject.layers[place]
            found += [(_Spot(place, name), getattr(layer, grad)) for name, grad in parameters(layer).items()]
        for spot, grad in found:
            checks.gradient_found("gradcheck", str(spot), grad, self.start(spot).shape)
        return found

    def _number(self, subject: Any, x: np.ndarray) -> float:
        y = self._forward(subject, x)
        return float(y) if self.weights is None else float(np.sum(np.asarray(y, np.float64) * self.weights))

    def _forward(self, subject: Any, x: np.ndarray) -> Any:
        state = np.random.get_state()  # so that a layer that draws from it draws the same numbers in every call
        try:
            return subject.forward(x) if self.target is None else subject.forward(x, self.target)
        finally:
            np.random.set_state(state)


def _compare(
    trial: _Trial, spot: _Spot, analytic: np.ndarray, chosen: np.ndarray, step: float, tolerated: Callable[[float], float]
) -> ArrayGradient:
    start = trial.start(spot)
    middle = trial.value(spot, start)
    worst = ArrayGradient(str(spot), None, 0.0, 0.0, 0.0, 0, start.size, 0)
    kinks = 0
    for element in chosen:
        index = tuple(int(i) for i in np.unravel_index(element, start.shape))
        left, right = _slopes(lambda array: trial.value(spot, array), start, index, step, middle)
        if abs(right - left) > _KINK * max(1.0, abs(left), abs(right)):
            kinks += 1
            continue
        a, n = float(analytic[index]), (left + right) / 2
        excess = abs(a - n) / tolerated(n)
        if worst.index is None or excess > worst.excess or np.isnan(excess) > np.isnan(worst.excess):
            worst = replace(worst, index=index, analytic=a, numeric=n, excess=excess)
    return replace(worst, checked=len(chosen) - kinks, kinks=kinks)


def _slopes(
    function: Callable[[np.ndarray], float], start: np.ndarray, index: tuple[int, ...], step: float, middle: float
) -> tuple[float, float]:
    moved = np.array(start)
    h = step * max(1.0, abs(float(start[index])))
    moved[index] = start[index] + h
    up, right = float(moved[index] - start[index]), function(moved)  # the step that rounding left of h
    moved[index] = start[index] - h
    down, left = float(start[index] - moved[index]), function(moved)
    return (middle - left) / down, (right - middle) / up


def _in_float64(subject: Any) -> Any:
    """Convert all float arrays of the subject's layers to float64."""
    for layer in getattr(subject, "layers", (subject,)):
        for name, value in list(getattr(layer, "__dict__", {}).items()):
            if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                setattr(layer, name, value.astype(np.float64))
    return subject
