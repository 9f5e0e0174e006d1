"""Advice about a loss that is not finite: the cause if fastnet can find it, otherwise the learning rate."""
from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.layer import foreign, learned, parameters

_LARGE = 20.0  # inputs should be of the order of 1; unscaled pixels go up to 255
_LOOKED_AT = 1000  # samples


def unsound(model: Any) -> str | None:
    """Return the first parameter of a model with a value that is not finite, such as ``layers[0].W``; None without one."""
    with np.errstate(all="ignore"):
        for i, layer in enumerate(model.layers):
            # `parameters` would compute what an earlier fit left lazy
            for name in parameters(layer) if foreign(layer) else learned(layer):
                array = np.asarray(getattr(layer, name, 0))
                # a finite sum is a proof without a temporary array; the sum of finite numbers may overflow, though
                if array.dtype.kind == "f" and not np.isfinite(array.sum()) and not np.isfinite(array).all():
                    return f"layers[{i}].{name}"
    return None


def advice(model: Any, x: np.ndarray, unsound_before: str | None) -> str:
    """Return one or two sentences for a user whose fit diverged.

    Parameters
    ----------
    model : Sequential
    x : ndarray
        The training data.
    unsound_before : str or None
        The return value of `unsound` before the fit.
    """
    if unsound_before is not None:
        return (f"{unsound_before} was not finite before the fit, perhaps because an earlier one diverged. Make new layers.")
    last = model.layers[-1]
    if model.compares_classes() and getattr(last, "gives", "") != "probabilities" and not foreign(last):
        return (f"The network ends in {last!r}, but a cross-entropy takes probabilities. Put a SoftMaxLayer() at the end.")
    largest = float(np.max(np.abs(x[:_LOOKED_AT].astype(np.float64)))) if len(x) else 0.0
    if largest > _LARGE:
        how = "x / 255 - 0.5" if 200 < largest <= 255 else "(x - x.mean(0)) / x.std()"
        return f"x has values up to {largest:g}, but inputs should be around 1. Scale them: {how}."
    return "Try a smaller learning rate."
