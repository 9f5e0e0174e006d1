"""What to say about a loss that is no longer finite: the cause, where it can be seen, and only then the rate."""
from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.layer import foreign, parameters

_LARGE = 20.0  # inputs should be of the order of 1; pixels as they are kept go up to 255
_LOOKED_AT = 1000  # samples


def unsound(model: Any) -> str | None:
    """The first parameter of a model that holds something that is not finite, such as ``layers[0].W``; None without one."""
    with np.errstate(all="ignore"):
        for i, layer in enumerate(model.layers):
            for name in parameters(layer):
                array = np.asarray(getattr(layer, name, 0))
                # a finite sum needs no array of its own, and proves it; the sum of finite numbers may still overflow
                if array.dtype.kind == "f" and not np.isfinite(array.sum()) and not np.isfinite(array).all():
                    return f"layers[{i}].{name}"
    return None


def advice(model: Any, x: np.ndarray, unsound_before: str | None) -> str:
    """A sentence or two for a user whose fit diverged.

    Parameters
    ----------
    model : Sequential
    x : ndarray
        What it was trained on.
    unsound_before : str or None
        What `unsound` said before the fit.
    """
    if unsound_before is not None:
        return (f"{unsound_before} was not finite before the fit, perhaps since an earlier one diverged: make new layers.")
    last = model.layers[-1]
    if model.compares_classes() and getattr(last, "gives", "") != "probabilities" and not foreign(last):
        return (f"The network ends in {last!r}, but a cross-entropy takes probabilities: put a SoftMaxLayer() at the end.")
    largest = float(np.max(np.abs(x[:_LOOKED_AT].astype(np.float64)))) if len(x) else 0.0
    if largest > _LARGE:
        how = "x / 255 - 0.5" if 200 < largest <= 255 else "(x - x.mean(0)) / x.std()"
        return f"x goes up to {largest:g} in size; inputs should be around 1, so scale them: {how}."
    return "Try a smaller learning rate."
