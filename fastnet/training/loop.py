"""The loop over epochs: the same for every engine."""
from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from fastnet._system import deferred_interrupt
from fastnet._warn import warn
from fastnet.kernels.threads import region
from fastnet.training.divergence import advice, unsound
from fastnet.training.engine import Engine
from fastnet.training.history import EpochReport, History
from fastnet.training.last_batch import LastBatch, present_parameters, release
from fastnet.training.layerwise import Descent, Layerwise, forward_backward
from fastnet.training.mixed import Mixed
from fastnet.training.options import FitOptions
from fastnet.training.plan import Plan
from fastnet.training.scoring import converted, score
from fastnet.training.watching import Watched


def train(model: Any, x: np.ndarray, t: np.ndarray, options: FitOptions, plan: Plan) -> np.ndarray:
    """Run the epochs and return their losses; `model.history` keeps the rest."""
    history = model.history = History()
    losses = np.full(options.epochs, np.nan)
    before = unsound(model)
    with region(), deferred_interrupt() as interrupt:
        engine = make_engine(plan.chosen, model, x, t, options)
        history.engine, history.why = engine.name, plan.why
        engine.check_interrupt = interrupt
        with _progress_bar(options) as bar:
            _fit(model, engine, x, t, options, history, losses, bar, interrupt)
    if history.stopped.startswith("diverged"):
        message = f"fit: {history.stopped}. {advice(model, x, before)}"
        if options.on_divergence == "raise":
            raise FloatingPointError(message)
        warn(message)
    return losses


def make_engine(name: str, model: Any, x: np.ndarray, t: np.ndarray, options: FitOptions, **shared: Any) -> Any:
    """The engine of that name; the next simpler one if its memory cannot be had.

    `shared` is what models trained on the same data share, see `fastnet.training.first.Gram`.
    """
    try:
        if name == "layers":
            return Layerwise(model, x, t, options)
        if name == "mixed":
            return Mixed(model, x, t, options)
        return Engine(model, x, t, options.batch_size, options.momentum, options.weight_decay, options.optimizer, name,
                      **shared)
    except MemoryError:
        if name != "gram":
            raise
        warn(f"fit: there is no memory for the Gram matrix of {len(x)} samples; the fused engine trains "
             "instead, with the same result.")
        return make_engine("fused", model, x, t, options)


class Epoch(NamedTuple):
    """One epoch, as `epochs` yields it."""

    report: EpochReport
    batch_losses: np.ndarray
    order: np.ndarray | None  # of the rows; None if they were taken as they are


def epochs(engine: Any, options: FitOptions, n: int, *, start: int = 0, restorable: bool = True,
           last_batch: Callable[[np.ndarray | None, int, float], float] | None = None) -> Iterator[Epoch]:
    """Train epoch after epoch on n samples, and yield each when it is done: what `fit` and a sweep's trials run.

    Parameters
    ----------
    engine : Engine or Layerwise
    options : FitOptions
    n : int
        Samples.
    start : int
        Epochs that were run before, from whose end the engine goes on; `options.rng` must have come as far.
    restorable : bool
        Whether an error or Ctrl-C within an epoch takes the engine back to the end of the one before.
    last_batch : callable, optional
        Trains on the very last batch of all instead of the engine, and returns its loss. It gets the order of the rows, the
        place in it where the batch starts, and the learning rate.
    """
    for epoch in range(start, options.epochs):
        engine.check_interrupt()
        started = time.perf_counter()
        by_hand = last_batch is not None and epoch == options.epochs - 1
        stop = (n - 1) // engine.batch_size * engine.batch_size if by_hand else n
        saved = engine.save() if restorable and (by_hand or not engine.in_one_call) else None
        try:
            order = None if options.rng is None else options.rng.permutation(n)
            lr = options.lr(epoch)
            losses = engine.epoch(lr, order, stop)
            if by_hand and last_batch is not None:
                losses = np.append(losses, last_batch(order, stop, lr))
        except BaseException:
            if saved is not None:
                engine.restore(saved)
            raise
        del saved
        report = _report(engine, epoch, lr, losses.mean(), options, time.perf_counter() - started)
        yield Epoch(report, losses, order)


def _fit(model, engine, x, t, options, history, losses, bar, interrupt) -> None:
    whole = False  # whether the layers hold the result, last batch included

    def last_batch(order: np.ndarray | None, start: int, lr: float) -> float:
        nonlocal whole
        loss = _last_batch(model, engine, x, t, order, start, lr, options)
        whole = True
        return loss

    def all_epochs() -> Iterator[Epoch]:
        done = 0
        while done < options.epochs:
            trained_by = engine
            for epoch in epochs(engine, options, len(x), start=done, last_batch=last_batch):
                done += 1
                yield epoch
                if engine is not trained_by:  # another goes on
                    break

    order = None
    watched = Watched(model, (*options.callbacks, options.lr))
    try:
        for epoch in all_epochs():
            report, order = epoch.report, epoch.order
            losses[report.epoch] = report.loss
            history.add(report)
            _show(bar, report)
            if not whole:
                watched.show(engine)
            with interrupt.at_once():
                history.stopped = _reason_to_stop(report, options, history)
            change = watched.changed()
            if change is not None:
                engine = _by_layers(engine, model, x, t, options)
                history.engine, history.why = engine.name, f"{change} after epoch {report.epoch + 1}"
            if history.stopped:
                break
        else:
            history.stopped = "all epochs done"
    except BaseException as error:
        history.stopped = f"{type(error).__name__} in epoch {history.epochs + 1}"
        if not whole:
            engine.write()
        raise
    if not whole:
        engine.write()
        start = (len(x) - 1) // engine.batch_size * engine.batch_size
        if isinstance(engine, Engine):
            now = present_parameters(model)
            _leave(model, engine, x, t, order, start, lambda _: now)
        else:
            with np.errstate(all="ignore"):
                _forward_backward(model, x, t, order, start)
    if not isinstance(engine, Engine):
        release(model)


def _by_layers(engine, model, x, t, options) -> Layerwise:
    """The engine that goes on from what the layers hold, after code of the user's has changed the model."""
    layerwise = Layerwise(model, x, t, options)
    layerwise.check_interrupt = engine.check_interrupt
    layerwise.descent = Descent(model, options, engine.moments(), engine.steps)
    return layerwise


def _last_batch(model, engine, x, t, order, start, lr, options) -> float:
    """The fit's last batch, after which the layers hold what a hand-written loop would have left in them.

    A compiled engine leaves the batch to be computed from, see `LastBatch`; else it goes through the layers.
    """
    if isinstance(engine, Engine):
        loss, before = engine.last_batch(lr, order, start)
        _leave(model, engine, x, t, order, start, before)
        return loss
    engine.write()
    if isinstance(engine, Mixed):
        engine.hand_over()
    moments = engine.moments() if engine.name != "layers" and engine.steps else None
    descent = engine.descent if engine.name == "layers" else Descent(model, options, moments, engine.steps)
    loss = _forward_backward(model, x, t, order, start)
    descent.step(lr)
    return loss


def _leave(model, engine, x, t, order, start, parameters) -> None:
    rows = _rows(order, start)
    LastBatch(model, converted(x[rows], engine.dtype, copy=True), np.array(t[rows]), parameters)


def _forward_backward(model, x, t, order, start) -> float:
    return forward_backward(model, x, t, _rows(order, start))


def _rows(order: np.ndarray | None, start: int) -> slice | np.ndarray:
    return slice(start, None) if order is None else order[start:]


def _report(engine, epoch: int, lr: float, loss: float, options: FitOptions, seconds: float) -> EpochReport:
    value = accuracy = None
    if options.validation is not None:
        value, accuracy = score(engine, *options.validation)
    return EpochReport(epoch, options.epochs, lr, float(loss), value, accuracy, seconds)


def _reason_to_stop(report: EpochReport, options: FitOptions, history: History) -> str:
    """Why training ends after this epoch; empty if it goes on."""
    for callback in options.callbacks:
        if isinstance(answer := callback(report), (bool, np.bool_)) and answer:
            return f"callback after epoch {report.epoch + 1}"
    if not np.isfinite(report.loss) and options.on_divergence != "ignore":
        return (f"diverged in epoch {report.epoch + 1} of {report.epochs}: the loss is {report.loss} "
                f"at learning rate {report.lr:g}")
    if options.early_stop is not None:
        values = np.nan_to_num(history.val_losses or history.losses, nan=np.inf)
        if len(values) - 1 - int(np.argmin(values)) >= options.early_stop:
            what = "validation loss" if history.val_losses else "loss"
            return f"early stop: no better {what} for {options.early_stop} epochs"
    return ""


@contextlib.contextmanager
def _progress_bar(options: FitOptions) -> Iterator[Any]:
    if not options.progress:
        yield None
        return
    from tqdm import tqdm  # here, since importing fastnet must stay quick

    with tqdm(total=options.epochs, unit="epoch", file=sys.stderr, dynamic_ncols=True) as bar:
        yield bar


def _show(bar: Any, report: EpochReport) -> None:
    if bar is None:
        return
    numbers = {"loss": f"{report.loss:.4f}"}
    if report.val_accuracy is not None and not np.isnan(report.val_accuracy):
        numbers["val_accuracy"] = f"{report.val_accuracy:.3f}"
    bar.set_postfix(numbers, refresh=False)
    bar.update()
