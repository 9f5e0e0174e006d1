"""What trials can be judged by."""
from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from fastnet.sweep.record import Record

_SETTLED = 0.15  # part of the epochs, the last, whose accuracies are averaged
_WITHIN = 0.01  # differences that do not matter: of an accuracy, or of a loss as a fraction of itself
_LABELS = {"loss": "training loss", "val_loss": "validation loss", "val_accuracy": "validation accuracy",
           "test_loss": "test loss", "test_accuracy": "test accuracy"}
_MORE_IS_BETTER = ("accuracy", "acc", "score", "f1", "auc", "r2", "precision", "recall")
_LESS_IS_BETTER = ("loss", "error", "mse", "mae", "rmse", "perplexity", "nll")
DEFAULTS = ("val_accuracy", "val_loss", "loss")


class Metric(NamedTuple):
    """A number of a trial to judge it by: a curve's last value, or its best one."""

    name: str
    sign: int  # 1 if more is better
    best: bool = False

    @property
    def curve(self) -> str:
        """The curve it is taken from."""
        return self.name.removeprefix("best_") if self.best else self.name

    @property
    def label(self) -> str:
        """In words."""
        return _LABELS.get(self.curve, self.curve.replace("_", " ")) + (" in its best epoch" if self.best else "")

    @property
    def accuracy(self) -> bool:
        """Whether differences count as they are, and not as a part of the value."""
        return self.sign > 0


def metric_of(who: str, metric: Any, curves: Iterable[str]) -> Metric:
    """The metric of that name, or of (name, "max" or "min"); by default the validation accuracy, a loss without it.

    Raises
    ------
    ValueError
        If there is no such curve, or it cannot be seen from its name whether more or less is better.
    """
    curves = tuple(curves)
    if metric is None:
        metric = next((name for name in DEFAULTS if name in curves), None)
        if metric is None:
            raise ValueError(f"{who}: say what to judge by, metric=(name, 'max' or 'min'). There is: {_listed(curves)}.")
    name, direction = metric if isinstance(metric, (tuple, list)) and len(metric) == 2 else (metric, None)
    if not isinstance(name, str) or direction not in (None, "max", "min"):
        raise ValueError(f"{who}: metric must be a name, or a pair such as ('val_accuracy', 'max'), got {metric!r}.")
    best = name.startswith("best_") and name not in curves
    curve = name.removeprefix("best_") if best else name
    if curve not in curves:
        if curve in ("val_accuracy", "val_loss"):
            raise ValueError(f"{who}: metric={name!r} needs validation data. Give lr_sweep validation=(x, y) or folds=5.")
        known = [*curves, *(f"best_{known}" for known in curves if known != "loss")]
        raise ValueError(f"{who}: metric must be one of {_listed(known)}, got {name!r}.")
    return Metric(name, _sign(who, curve, direction), best)


def _sign(who: str, curve: str, direction: str | None) -> int:
    words = curve.lower().split("_")
    more, less = (any(word in known for word in words) for known in (_MORE_IS_BETTER, _LESS_IS_BETTER))
    if direction is None and more == less:
        raise ValueError(f"{who}: is a higher {curve!r} better? Give metric=({curve!r}, 'max') or ({curve!r}, 'min').")
    return 1 if direction == "max" or (direction is None and more) else -1


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def value_of(record: Record, metric: Metric, epochs: int | None = None) -> float:
    """What a trial gave, after all or so many epochs; nan without such data."""
    values = record.curves.get(metric.curve, [])[:epochs]
    if not values:
        return math.nan
    if metric.best:
        return max(values) if metric.sign > 0 else min(values)
    return values[-1]


def averaged_epochs(metric: Metric, epochs: int) -> int:
    """Over how many of the last epochs a trial is judged: an accuracy jumps from one to the next, a loss does not."""
    return max(1, round(_SETTLED * epochs)) if metric.accuracy and not metric.best else 1


def settled(record: Record, metric: Metric, epochs: int | None = None) -> float:
    """What a trial is judged by: `value_of`, and of an accuracy the mean over the last epochs.

    From one epoch to the next the accuracy of a held-out set jumps by as much as from one seed to the next, and these jumps
    say nothing about the rate.
    """
    values = record.curves.get(metric.curve, [])[:epochs]
    last = averaged_epochs(metric, len(values))
    return math.fsum(values[-last:]) / last if last > 1 else value_of(record, metric, epochs)


def rounded_error(mean: float, error: float) -> float:
    """An error, 0 if it is nothing but rounding."""
    return error if error > 1e-12 * abs(mean) else 0.0


def tolerance(metric: Metric, mean: float) -> float:
    """Which difference does not matter."""
    return _WITHIN * (1.0 if metric.accuracy and abs(mean) <= 1 else abs(mean) or 1.0)
