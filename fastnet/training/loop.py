"""The loop over epochs: the same for every engine."""
from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnet._system import deferred_interrupt
from fastnet._warn import warn
from fastnet.kernels.threads import region
from fastnet.training.divergence import advice, unsound
from fastnet.training.history import EpochReport, History
from fastnet.training.layerwise import Descent, forward_backward
from fastnet.training.plan import ENGINES, Plan
from fastnet.training.scoring import score


@dataclass(frozen=True)
class Options:
    """Everything `fit` was asked for, checked."""

    epochs: int
    lr: Callable[[int], float]
    batch_size: int
    validation: tuple[np.ndarray, np.ndarray] | None
    rng: np.random.Generator | None  # shuffles, if given
    progress: bool
    callbacks: tuple[Callable[[EpochReport], Any], ...]
    momentum: float
    decay: float
    early_stop: int | None
    on_divergence: str


def train(model: Any, x: np.ndarray, t: np.ndarray, options: Options, plan: Plan) -> np.ndarray:
    """Run the epochs and return their losses; `model.history` keeps the rest."""
    history = model.history = History()
    losses = np.full(options.epochs, np.nan)
    before = unsound(model)
    with region(), deferred_interrupt() as interrupt:
        engine = make_engine(plan.chosen, model, x, t, options)
        history.engine, history.why = engine.name, plan.why
        engine.check_interrupt = interrupt
        with _progress_bar(options) as bar:
            _epochs(model, engine, x, t, options, history, losses, bar, interrupt)
    if history.stopped.startswith("diverged"):
        message = f"fit: {history.stopped}. {advice(model, x, before)}"
        if options.on_divergence == "raise":
            raise FloatingPointError(message)
        warn(message)
    return losses


def make_engine(name: str, model: Any, x: np.ndarray, t: np.ndarray, options: Options) -> Any:
    """The engine of that name; the next simpler one if its memory cannot be had."""
    try:
        return ENGINES[name](model, x, t, options.batch_size, options.momentum, options.decay)
    except MemoryError:
        if name != "gram":
            raise
        warn(f"fit: there is no memory for the Gram matrix of {len(x)} samples; the fused engine trains "
             "instead, with the same result.")
        return make_engine("fused", model, x, t, options)


def _epochs(model, engine, x, t, options, history, losses, bar, interrupt) -> None:
    last_start = (len(x) - 1) // engine.batch_size * engine.batch_size
    order = saved = None
    done = False  # the layers hold the result, last batch included
    try:
        for epoch in range(options.epochs):
            interrupt()
            started = time.perf_counter()
            final = epoch == options.epochs - 1
            saved = engine.save() if final or not engine.in_one_call else None
            order = None if options.rng is None else options.rng.permutation(len(x))
            lr = options.lr(epoch)
            of_batches = engine.epoch(lr, order, last_start if final else len(x))
            if final:
                of_batches = np.append(of_batches, _last_batch(model, engine, x, t, order, last_start, lr, options))
                done = True
            losses[epoch] = of_batches.mean()
            saved = None
            report = _report(engine, epoch, lr, losses[epoch], options, time.perf_counter() - started)
            history.add(report)
            _show(bar, report)
            with interrupt.at_once():
                history.stopped = _reason_to_stop(report, options, history)
            if history.stopped:
                break
        else:
            history.stopped = "all epochs done"
    except BaseException as error:
        history.stopped = f"{type(error).__name__} in epoch {history.epochs + 1}"
        if saved is not None:
            engine.restore(saved)
        if not done or saved is not None:
            engine.write()
        raise
    if not done:
        engine.write()
        with np.errstate(all="ignore"):
            _forward_backward(model, x, t, order, last_start)


def _last_batch(model, engine, x, t, order, start, lr, options) -> float:
    """The fit's last batch layer by layer, so that the layers hold what a hand-written loop would have left in them."""
    engine.write()
    descent = engine.descent if engine.name == "layers" else Descent(
        model, options.momentum, options.decay, engine.velocities() if options.momentum else None)
    loss = _forward_backward(model, x, t, order, start)
    descent.step(lr)
    # a compiled engine takes this step too: its loss is what a sweep, which forms no weights, gets to the bit
    return loss if engine.name == "layers" else engine.epoch(lr, order, len(x), start)[0]


def _forward_backward(model, x, t, order, start) -> float:
    return forward_backward(model, x, t, slice(start, None) if order is None else order[start:])


def _report(engine, epoch: int, lr: float, loss: float, options: Options, seconds: float) -> EpochReport:
    value = accuracy = None
    if options.validation is not None:
        value, accuracy = score(engine, *options.validation)
    return EpochReport(epoch, options.epochs, lr, float(loss), value, accuracy, seconds)


def _reason_to_stop(report: EpochReport, options: Options, history: History) -> str:
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
def _progress_bar(options: Options) -> Iterator[Any]:
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
