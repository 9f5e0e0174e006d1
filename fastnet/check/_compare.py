"""Put into words where a result differs from what was expected, and by how much."""

from __future__ import annotations

from typing import Any

import numpy as np


def difference(name: str, found: Any, expected: Any, n: int | None = None) -> str | None:
    """Describe how a result differs.

    Parameters
    ----------
    name : str
        What the result is: "the gradient of x".
    found, expected : array_like
        Equal if no element differs by more than 1e-9 of the largest expected one; 1e-4 where found is not float64.
    n : int, optional
        Number of samples: a usual factor to be off by.

    Returns
    -------
    str or None
        None if they agree.
    """
    e = np.asarray(expected, np.float64)
    if found is None:
        return f"{name} is None, expected {_kind(e)}: not written yet?"
    try:
        given = np.asarray(found)
        if given.dtype.kind == "c":
            raise TypeError("complex")
        f = given.astype(np.float64)
    except (TypeError, ValueError):
        return f"{name} is {type(found).__name__} {str(found)[:40]!r}, expected {_kind(e)}"
    if f.shape != e.shape:
        turned = f.ndim == 2 and f.T.shape == e.shape and not _wrong(f.T, e, given.dtype).any()
        return f"{name} has shape {f.shape}, expected {e.shape}" + (": it is the transpose" if turned else "")
    wrong = _wrong(f, e, given.dtype)
    if not wrong.any():
        return None
    if e.ndim == 0:
        return f"{name} is {_pair(f, e)}{_explained(f, e, n)}"
    with np.errstate(invalid="ignore"):
        distance = np.where(wrong, np.nan_to_num(np.abs(f - e), nan=np.inf), -1)
    worst = np.unravel_index(np.argmax(distance), e.shape)
    what = f"{_pair(f[worst], e[worst])}{_explained(f, e, n)}"
    if e.size == 1:
        return f"{name} is {what}"
    where = ", ".join(map(str, worst))
    return f"{name}: {np.count_nonzero(wrong)} of {e.size} elements differ, most at [{where}]: {what}"


def _pair(f: Any, e: Any) -> str:
    text, expected = f"{f:.8g}", f"{e:.8g}"
    return f"{text}, expected {expected}" + (f", off by {abs(f - e):.1g}" if text == expected else "")


def _wrong(f: np.ndarray, e: np.ndarray, dtype: np.dtype) -> np.ndarray:
    tolerance = 1e-4 if dtype.kind == "f" and dtype.itemsize < 8 else 1e-9
    scale = np.max(np.abs(e), initial=0.0, where=np.isfinite(e))
    return ~np.isclose(f, e, rtol=0, atol=tolerance * scale + 1e-12, equal_nan=True)


def _explained(f: np.ndarray, e: np.ndarray, n: int | None) -> str:
    """The usual mistakes: a sign, a factor, a transpose."""
    if f.ndim == 2 and f.shape[0] == f.shape[1] > 1 and not _wrong(f.T, e, f.dtype).any():
        return "; it is the transpose"
    at = np.abs(e) > 1e-9 * np.max(np.abs(e), initial=0.0)
    if not (at.any() and np.isfinite(f).all() and np.isfinite(e).all()):
        return ""
    factor = float(np.median(f[at] / e[at]))
    if factor == 0 or _wrong(f, factor * e, f.dtype).any():
        return ""
    if np.isclose(factor, -1):
        return "; the sign is reversed"
    for times, words in ((n, "the number of samples"), (1 / n if n else None, "one over the number of samples")):
        if times and times != 1 and np.isclose(factor, times):
            return f"; {factor:.4g} times what is expected: {words}"
    return f"; everywhere {factor:.6g} times what is expected" if e.size > 1 else ""


def _kind(e: np.ndarray) -> str:
    return f"an array of shape {e.shape}" if e.ndim else "a number"
