"""One trial: one network, one learning rate, one seed."""
from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from fastnet.kernels.threads import region
from fastnet.sweep.shared import Shared, Start
from fastnet.sweep.spec import Spec, Trial
from fastnet.training import Evaluation
from fastnet.training.scoring import score


@dataclass(frozen=True)
class Record:
    """What a trial gave.

    `losses`, `val_losses` and `val_accuracies` hold a number for each epoch that was run; a diverged trial ends with
    the epoch in which it diverged.
    """

    trial: Trial
    status: str  # "done" or "diverged"
    engine: str
    losses: list[float]
    val_losses: list[float] = field(default_factory=list)
    val_accuracies: list[float] = field(default_factory=list)
    test: Evaluation | None = None
    seconds: float = 0.0


class _Stopped(Exception):
    """The sweep ends before this trial does."""


def run_trial(shared: Shared, start: Start, spec: Spec, trial: Trial,
              stopped: Callable[[], bool] = lambda: False) -> Record | None:
    """Train and evaluate; None if `stopped()` became true before the end."""

    def between() -> None:
        if stopped():
            raise _Stopped

    began = time.perf_counter()
    try:
        with region(), np.errstate(all="ignore"):
            between()
            engine = start.engine(shared, spec)
            engine.check_interrupt = between
            status, losses, scores = _train(engine, shared, spec, trial)
            test = None if shared.test is None else score(engine, *shared.test)
    except _Stopped:
        return None
    return Record(trial, status, engine.name, losses, [s.loss for s in scores], [s.accuracy for s in scores], test,
                  time.perf_counter() - began)


def _train(engine, shared: Shared, spec: Spec, trial: Trial) -> tuple[str, list[float], list[Evaluation]]:
    """All epochs, as `fastnet.training.loop` runs them, but that it ends as soon as the loss says that it is lost."""
    n = len(shared.x)
    rng = np.random.default_rng(trial.seed) if spec.shuffle else None
    losses: list[float] = []
    scores: list[Evaluation] = []
    limit = np.inf
    for epoch in range(spec.epochs):
        of_batches = engine.epoch(trial.lr, None if rng is None else rng.permutation(n), n)
        losses.append(float(of_batches.mean()))
        if epoch == 0:
            limit = spec.diverged_above * of_batches[0]  # the first batch is seen with the weights of the start
        if shared.validation is not None:
            scores.append(score(engine, *shared.validation))
        if not losses[-1] <= limit or not np.isfinite(losses[-1]):
            return "diverged", losses, scores
        engine.check_interrupt()
    return "done", losses, scores
