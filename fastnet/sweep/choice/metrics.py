"""What trials can be judged by."""
from __future__ import annotations

import math
from typing import NamedTuple

from fastnet import _checks
from fastnet.sweep.record import Record

_SETTLED = 0.15  # part of the epochs, the last, whose accuracies are averaged
_WITHIN = 0.01  # differences that do not matter: of an accuracy, or of a loss as a fraction of itself


class Metric(NamedTuple):
    """A number of a trial to judge it by."""

    label: str
    sign: int  # 1 if more is better
    validation: bool
    accuracy: bool


METRICS = {
    "val_accuracy": Metric("validation accuracy", 1, True, True),
    "val_loss": Metric("validation loss", -1, True, False),
    "best_val_accuracy": Metric("validation accuracy in its best epoch", 1, True, True),
    "best_val_loss": Metric("validation loss in its best epoch", -1, True, False),
    "loss": Metric("training loss", -1, False, False),
}


def check_metric(who: str, metric: str | None, validation: bool) -> str:
    """The name of the metric, by default the validation accuracy or, without validation data, the loss."""
    if metric is None:
        return "val_accuracy" if validation else "loss"
    _checks.choice(who, "metric", metric, tuple(METRICS))
    if METRICS[metric].validation and not validation:
        raise ValueError(f"{who}: metric={metric!r} needs validation data. Give lr_sweep validation=(x, y) or folds=5.")
    return metric


def value_of(record: Record, metric: str, epochs: int | None = None) -> float:
    """What a trial gave, after all or so many epochs; nan without such data."""
    values = {"loss": record.losses, "val_loss": record.val_losses, "val_accuracy": record.val_accuracies,
              "best_val_loss": record.val_losses, "best_val_accuracy": record.val_accuracies}[metric][:epochs]
    if not values:
        return math.nan
    if metric.startswith("best"):
        return max(values) if METRICS[metric].accuracy else min(values)
    return values[-1]


def averaged_epochs(metric: str, epochs: int) -> int:
    """Over how many of the last epochs a trial is judged: an accuracy jumps from one to the next, a loss does not."""
    return max(1, round(_SETTLED * epochs)) if metric == "val_accuracy" else 1


def settled(record: Record, metric: str, epochs: int | None = None) -> float:
    """What a trial is judged by: `value_of`, and of the validation accuracy the mean over the last epochs.

    From one epoch to the next the accuracy of a held-out set jumps by as much as from one seed to the next, and these jumps
    say nothing about the rate.
    """
    values = record.val_accuracies[:epochs]
    last = averaged_epochs(metric, len(values))
    return math.fsum(values[-last:]) / last if last > 1 else value_of(record, metric, epochs)


def tolerance(metric: str, mean: float) -> float:
    """Which difference does not matter; with a single seed, also what is taken for noise."""
    return _WITHIN * (1.0 if METRICS[metric].accuracy else abs(mean) or 1.0)
