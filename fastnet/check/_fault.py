"""A fault, and the difference of two results in words and as matrices."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from fastnet.check._observe import numbers_of
from fastnet.check._reference import Equation


@dataclass
class Fault:
    """A wrong quantity, and its explanation.

    Attributes
    ----------
    method, quantity : str
        The method that computes the quantity, and the quantity's name.
    equation, formula : str
        The equation's number and text.
    message : str
        The difference, or the exception.
    slip : str or None
        The mistake, if the numbers show it.
    line : int or None
        The number of the line that computes the quantity.
    source : str
        The text of that line.
    repair : str or None
        The change that makes the numbers right.
    counterexample : list of str
        Lines of code that show the fault.
    also : list of str
        Quantities that are wrong because of it.
    """

    method: str
    quantity: str
    equation: str
    formula: str
    message: str
    slip: str | None = None
    line: int | None = None
    source: str = ""
    repair: str | None = None
    counterexample: list[str] = field(default_factory=list)
    also: list[str] = field(default_factory=list)


@dataclass
class Diagnosis:
    """The faults of one class, remarks about it, and the compared values."""

    faults: list[Fault] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    compared: int = 0
    matrices: list[dict[str, Any]] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        return "differs" if self.faults else "ok with remarks" if self.remarks else "ok"

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict}


def raised(error: BaseException) -> str:
    """Return an exception in words."""
    text = " ".join(str(error).split())[:160]
    return f"raises {type(error).__name__}" + (f": {text}" if text else "")


def difference(found: Any, expected: Any) -> str:
    """Return in words how a result differs."""
    e = np.asarray(expected, np.float64)
    kind = f"an array of shape {e.shape}" if e.ndim else "a number"
    f = numbers_of(found)
    if found is None:
        return f"it is None, expected {kind}: not written yet?"
    if f is None:
        return f"it is {type(found).__name__} {str(found)[:40]!r}, expected {kind}"
    if (f.shape != e.shape and f.size != e.size) or (f.ndim != e.ndim and e.ndim):
        return f"its shape is {f.shape}, expected {e.shape}"
    if f.shape != e.shape and f.ndim == e.ndim:
        return f"its shape is {f.shape}, expected {e.shape}"
    with np.errstate(invalid="ignore"):
        off = np.nan_to_num(np.abs(np.ravel(f) - np.ravel(e)), nan=np.inf)
    scale = np.max(np.abs(e), initial=0.0, where=np.isfinite(e))
    worst, count = int(np.argmax(off)), int(np.count_nonzero(off > 1e-5 * scale + 1e-8))
    pair = f"{np.ravel(f)[worst]:.6g}, expected {np.ravel(e)[worst]:.6g}"
    if not e.ndim or e.size == 1:
        return f"it is {pair}"
    where = ", ".join(map(str, np.unravel_index(worst, e.shape)))
    return f"{count} of {e.size} values differ, most at [{where}]: {pair}"


def matrix(equation: Equation, name: str, found: Any, expected: Any) -> dict[str, Any]:
    """Return both values for the web page: rows of numbers, and whether each number is wrong."""
    f: Any = numbers_of(found)
    e = np.asarray(expected, np.float64)
    same = f is not None and f.size == e.size
    off = np.zeros(e.shape, bool)
    if same and f is not None:
        scale = np.max(np.abs(e), initial=0.0)
        off = ~(np.abs(f.reshape(e.shape) - e) <= 1e-5 * scale + 1e-8)
    return {"quantity": name, "equation": equation.number, "formula": equation.formula,
            "yours": _flat(f), "right": _flat(e), "wrong": _flat(off.reshape(np.shape(f))) if same else None}


def _flat(a: Any) -> list[list[Any]] | None:
    if a is None:
        return None
    a = np.asarray(a)
    rows = a.reshape(-1, a.shape[-1]) if a.ndim and a.size else a.reshape(1, -1)
    return [[bool(v) if a.dtype == bool else float(f"{v:.5g}") for v in row] for row in rows[:12, :12]]
