"""The range test: one short run of a growing rate, which shows where training begins and where it ends."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastnet.sequential import Sequential

_FIRST, _LAST, _STEPS = 1e-8, 1e3, 180  # raw pixels want 1e-6, small networks on scaled data 10
_SMOOTHING = 0.9  # of the loss, exponentially
_LOST = 4.0  # times the best smoothed loss is divergence,
_HARD = 1.1  # if it is also more than so many times the untrained network's on the same batch, which may be a hard one
_BELOW = 300.0  # the grid begins so far below divergence: a whole training has more steps than this run


@dataclass(frozen=True)
class RangeTest:
    """What the run gave: a rate and a loss for each step, and where the useful rates may begin and end."""

    lrs: np.ndarray
    losses: np.ndarray  # of the mini-batches, not smoothed
    smooth: np.ndarray
    low: float
    high: float


def range_test(model: Sequential, x: np.ndarray, t: np.ndarray, batch_size: int,
               check_interrupt: Callable[[], None]) -> RangeTest:
    """Train with a rate that grows from step to step, until the loss explodes; the model is spoiled.

    Parameters
    ----------
    model : Sequential
    x, t : ndarray
        Samples and one-hot targets; taken in turn, over and over.
    batch_size : int
    check_interrupt : callable
        Called after each step.

    Raises
    ------
    ValueError
        If the loss is not finite to begin with.
    """
    lrs = np.geomspace(_FIRST, _LAST, _STEPS)
    batch = min(batch_size, len(x))
    batches = [slice(at, at + batch) for at in range(0, len(x), batch)]
    losses: list[float] = []
    smooth: list[float] = []
    with np.errstate(all="ignore"):
        untrained = [float(model.forward(np.asarray(x[rows], model.dtype), t[rows])) for rows in batches[:_STEPS]]
        worst = untrained[int(np.argmin(np.isfinite(untrained)))]
        if not np.isfinite(worst):
            raise ValueError(_too_large(worst, float(np.min(x)), float(np.max(x))))
        average = float(np.mean(untrained))
        for step, lr in enumerate(lrs):
            at = step % len(batches)
            loss = float(model.forward(np.asarray(x[batches[at]], model.dtype), t[batches[at]]))
            losses.append(loss)
            average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
            smooth.append(average)
            if not np.isfinite(loss) or (loss > _LOST * min(smooth) and loss > _HARD * untrained[at]):
                break
            model.backward()
            model.update_param(float(lr))
            check_interrupt()
    high = float(lrs[len(losses) - 1])
    return RangeTest(lrs[:len(losses)], np.array(losses), np.array(smooth), high / _BELOW, high)


def _too_large(loss: float, low: float, high: float) -> str:
    middle, half = (low + high) / 2, (high - low) / 2 or 1.0
    return (f"lr_sweep: the loss is {loss} before the first step, whatever the rate: values of x from {low:g} to {high:g} "
            "are too large for the network's first weights, which give the true class a probability of 0. Scale them to "
            f"about 1 first, for example x = (x - {middle:g}) / {half:g}; the validation and test data in the same way.")
