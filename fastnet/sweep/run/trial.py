"""One trial: one network, one learning rate, one seed, one fold; run to its end, or to an epoch from which it can go on."""
from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet.kernels.runtime.pool import region
from fastnet.sweep.choice.metrics import averaged_epochs, metric_of
from fastnet.sweep.record import Record, State
from fastnet.sweep.run.randomness import Turns, current
from fastnet.sweep.run.shared import Part, Shared, Start, fit_options
from fastnet.sweep.spec import Spec, Trial
from fastnet.training.loop import epochs
from fastnet.training.scoring import is_classes, loss_of

_ACCURACY = metric_of("lr_sweep", "val_accuracy", ["val_accuracy"])


_FIRST_SAMPLES = 32  # whose losses say what a loss is at the start: that of one sample may happen to be near 0


class _Stopped(Exception):
    """The sweep ends before this trial does."""


class Trials(Shared):
    """What the trials of a sweep of networks share, and how one of them runs.

    Parameters
    ----------
    *data, **options
        As for `Shared`.
    turns : Turns
        Whose turn it is to have the global generators of random numbers, from which a user's layers may draw.
    """

    def __init__(self, *data: Any, turns: Turns, **options: Any) -> None:
        super().__init__(*data, **options)
        self.turns = turns

    def run(self, start: Start, spec: Spec, trial: Trial, until: int, state: State | None = None, keep: bool = False,
            stopped: Callable[[], bool] = lambda: False) -> tuple[Record, State | None] | None:
        """Train and evaluate.

        Parameters
        ----------
        until : int
            The number of epochs after which it ends.
        state : State, optional
            Of the same trial after fewer epochs. Without it, it starts from the beginning, with the same bits in the end.
        keep : bool
            Whether to return a state.

        Returns
        -------
        (Record, State or None), or None if `stopped()` became true before the end
        """

        def check_interrupt() -> None:
            if stopped():
                raise _Stopped

        began = time.perf_counter()
        part = self.part(trial.fold)
        run = _Run(spec, trial, part, state)
        layers = start.engines[trial.setting] == "layers"  # the user's own may be among them
        before = None if state is None else state.random
        try:
            with self.turns.taken(trial.seed, before) if layers else contextlib.nullcontext(), np.errstate(all="ignore"):
                check_interrupt()
                # Outside of the region: while the first trial makes what others wait for, all cores are its own.
                engine = start.engine(self, part, spec, trial)
                engine.check_interrupt = check_interrupt
                if state is not None:
                    engine.set_state(state.engine)
                with region():
                    run.epochs(engine, until)
                    test = None if part.test is None else engine.score(*part.test)
                    final = {} if test is None else {"test_loss": test.loss, "test_accuracy": test.accuracy}
                saved = engine.state() if keep and run.status == "done" else None
                random = current() if layers else None
        except _Stopped:
            return None
        status = "stopped" if run.status == "done" and until < spec.epochs else run.status
        seconds = time.perf_counter() - began + (0.0 if state is None else state.record.seconds)
        record = Record(trial, status, engine.name, run.curves, final, seconds, run.samples(status))
        if saved is None:
            return record, None
        return record, State(saved, run.rng_state(), run.limit, record, tuple(run.recent), random)


class _Run:
    """The epochs of a trial, as a fit runs them, but that it ends as soon as the loss says it is lost."""

    def __init__(self, spec: Spec, trial: Trial, part: Part, state: State | None) -> None:
        self.spec, self.trial, self.part = spec, trial, part
        self.rng = np.random.default_rng(trial.seed) if spec.shuffle else None
        validated = () if part.validation is None else ("val_loss", "val_accuracy")
        self.curves: dict[str, list[float]] = {name: [] for name in ("loss", *validated)}
        self.kept, self.judged = "val_accuracy", 0  # the curve that samples are kept of, and in how many epochs
        if spec.metric is not None and spec.metric[0] == "val_loss" and part.validation is not None:
            self.kept, self.judged = "val_loss", 1
        elif part.validation is not None and is_classes(part.validation[1]):
            self.judged = averaged_epochs(_ACCURACY, spec.epochs)
        self.recent: list[np.ndarray] = []  # which held-out samples were right in the last epochs, or their losses
        self.limit, self.status = np.inf, "done"
        if state is not None:
            self.curves, self.limit = {name: list(curve) for name, curve in state.record.curves.items()}, state.limit
            self.recent = list(state.recent)
            if self.rng is not None and state.rng is not None:
                self.rng.bit_generator.state = state.rng

    def rng_state(self) -> dict[str, Any] | None:
        """Of the generator that shuffles."""
        return None if self.rng is None else dict(self.rng.bit_generator.state)

    def epochs(self, engine: Any, until: int) -> None:
        """Train up to that number of epochs."""
        options = fit_options(self.spec, self.trial.setting).with_(
            epochs=until, lr=lambda epoch: self.spec.rate(self.trial, epoch), rng=self.rng, validation=self.part.validation)
        losses = self.curves["loss"]
        for report, batch_losses, _ in epochs(engine, options, len(self.part.x), start=len(losses), restorable=False):
            losses.append(report.loss)
            if report.epoch == 0:
                first = -(-_FIRST_SAMPLES // options.batch_size)
                self.limit = self.spec.diverged_above * max(batch_losses[:first])
            if report.val_loss is not None and report.val_accuracy is not None:
                self.curves["val_loss"].append(report.val_loss)
                self.curves["val_accuracy"].append(report.val_accuracy)
            if not losses[-1] <= self.limit or not np.isfinite(losses[-1]):
                self.status = "diverged"
                return
            if self.judged and self.part.validation is not None and report.epoch >= self.spec.epochs - self.judged:
                self.recent = [*self.recent, _by_sample(engine, self.kept, *self.part.validation)][-self.judged:]

    def samples(self, status: str) -> dict[str, np.ndarray]:
        """How often each held-out sample was right in the epochs that count, or its loss."""
        if not self.recent or status != "done":
            return {}
        return {self.kept: np.asarray(np.mean(self.recent, axis=0), np.float32)}


def _by_sample(engine: Any, kept: str, x: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Which samples the network has right now, or the loss of each."""
    y = engine.probabilities(x)
    if kept == "val_accuracy":
        return np.asarray(y.argmax(1) == t.argmax(1))
    loss = engine.model.loss
    return np.array([loss_of(loss, y[i:i + 1], t[i:i + 1]) for i in range(len(t))])
