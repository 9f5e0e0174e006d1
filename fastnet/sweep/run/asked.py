"""Checks of what `lr_sweep` and `sweep` have in common."""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnet.sweep.choice.metrics import metric_of
from fastnet.sweep.run.session import seconds_in
from fastnet.training.scoring import is_classes, loss_of


def checked_multiple(who: str, value: Any) -> float:
    """`diverged_above`."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
        return float(value)
    raise ValueError(f"{who}: diverged_above must be a number above 0, or inf, got {value!r}. It multiplies the first loss.")


def checked_budget(who: str, value: Any) -> float | str | None:
    """Epochs, or a time."""
    try:
        amount = seconds_in(value) if isinstance(value, str) else 1.0 if value is None else float(value)
    except (TypeError, ValueError):
        amount = math.nan
    if not amount > 0 or isinstance(value, bool):
        raise ValueError(f'{who}: budget must be a number of epochs, or a time such as "90 s", "5 min" or "2 h", '
                         f"got {value!r}.")
    return value if value is None or isinstance(value, str) else float(value)


def direction_of(who: str, metric: Any) -> tuple[str, str] | None:
    """A metric's name, and whether "max" or "min" is best; None for the default."""
    if metric is None:
        return None
    name = metric[0] if isinstance(metric, (tuple, list)) and metric else metric
    curve = name.removeprefix("best_") if isinstance(name, str) else name
    found = metric_of(who, metric, [curve])
    return found.name, "max" if found.sign > 0 else "min"


def constant_prediction(model: Any, data: tuple[Any, Any, Any, Any], folds: bool) -> tuple[tuple[str, float], ...]:
    """What a prediction gets that is the same for every sample: the classes' shares, and the largest class."""
    _, t, validation, _ = data
    if not is_classes(t):
        return ()
    shares = t.mean(0)
    held_out = t if folds else None if validation is None else validation[1]
    found = {"loss": _constant_loss(model, shares, t)}
    if held_out is not None and is_classes(held_out):
        found["val_loss"] = _constant_loss(model, shares, held_out)
        found["val_accuracy"] = float(np.bincount(held_out.argmax(1)).max() / len(held_out))
    return tuple((name, value) for name, value in found.items() if math.isfinite(value))


def _constant_loss(model: Any, shares: np.ndarray, t: np.ndarray) -> float:
    with np.errstate(all="ignore"):
        try:
            return float(loss_of(model.loss, np.tile(shares, (len(t), 1)).astype(t.dtype), t))
        except Exception:  # a user's loss that takes something else
            return math.nan
