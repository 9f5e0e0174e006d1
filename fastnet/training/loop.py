"""The loop over epochs, the same for every engine."""
from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from fastnet.base.system import deferred_interrupt
from fastnet.base.warn import warn
from fastnet.kernels.runtime.pool import region
from fastnet.training.divergence import advice, unsound
from fastnet.training.engine import Engine
from fastnet.training.history import EpochReport, History
from fastnet.training.layerwise import Layerwise
from fastnet.training.lazy import Mirror
from fastnet.training.mixed import Mixed
from fastnet.training.options import FitOptions
from fastnet.training.plan import Plan


def train(model: Any, x: np.ndarray, t: np.ndarray, options: FitOptions, plan: Plan) -> np.ndarray:
    """Run the epochs and return their losses; `model.history` has the other results."""
    history = model.history = History()
    losses = np.full(options.epochs, np.nan)
    before = unsound(model)
    with region(), deferred_interrupt() as interrupt:
        engine = make_engine(plan.chosen, model, x, t, options, net=plan.net)
        history.engine, history.why = engine.name, plan.why
        engine.check_interrupt = interrupt
        if options.state is not None and options.resumes(model):
            engine.resume(options.state.moments, options.state.steps)
        with _progress_bar(options) as bar:
            _fit(model, engine, x, t, options, history, losses, bar, interrupt)
    if history.stopped.startswith("diverged"):
        message = f"fit: {history.stopped}. {advice(model, x, before)}"
        if options.on_divergence == "raise":
            raise FloatingPointError(message)
        warn(message)
    return losses


def make_engine(name: str, model: Any, x: np.ndarray, t: np.ndarray, options: FitOptions, net: Any = None,
                **shared: Any) -> Any:
    """Make the engine of that name, or a simpler one if there is not enough memory.

    `shared` is what models trained on the same data share, see `fastnet.training.first.Gram`; `net` is a plan's program.
    """
    try:
        if name == "layers":
            return Layerwise(model, x, t, options)
        if name == "mixed":
            return Mixed(model, x, t, options)
        return Engine(model, x, t, options.batch_size, options.momentum, options.weight_decay, options.optimizer, name,
                      net, nesterov=options.nesterov, **shared)
    except MemoryError:
        if name != "gram":
            raise
        warn(f"fit: there is not enough memory for the Gram matrix of {len(x)} samples; the fused engine trains "
             "instead, with the same result.")
        return make_engine("fused", model, x, t, options, net)


class Epoch(NamedTuple):
    """One epoch, as `epochs` yields it."""

    report: EpochReport
    batch_losses: np.ndarray
    order: np.ndarray | None  # the order of the rows; None if they were not shuffled


def epochs(engine: Any, options: FitOptions, n: int, *, start: int = 0, restorable: bool = True,
           last_batch: Callable[[np.ndarray | None, int, float], float] | None = None,
           look: Callable[[], None] = lambda: None) -> Iterator[Epoch]:
    """Train epoch after epoch on n samples, and yield each when it is done: what `fit` and a sweep's trials run.

    Parameters
    ----------
    engine : Engine or Layerwise
    options : FitOptions
    n : int
        Samples.
    start : int
        The number of earlier epochs, from whose end the engine continues; `options.rng` must be in the state after them.
    restorable : bool
        Whether an error or Ctrl-C within an epoch restores the engine's state at the end of the previous epoch.
    last_batch : callable, optional
        A function that trains on the last batch of the fit instead of the engine, and returns its loss. Its arguments are
        the order of the rows, the position in it where the batch starts, and the learning rate.
    look : callable, optional
        A function that is called before each epoch, after the schedule has returned its rate.
    """
    for epoch in range(start, options.epochs):
        engine.check_interrupt()
        lr = options.lr(epoch)
        look()
        started = time.perf_counter()
        by_hand = last_batch is not None and epoch == options.epochs - 1
        stop = (n - 1) // engine.batch_size * engine.batch_size if by_hand else n
        saved = engine.save() if restorable and (by_hand or not engine.in_one_call) else None
        try:
            order = None if options.rng is None else options.rng.permutation(n)
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
    done, order, ended = 0, None, False
    mirror = Mirror(model, engine.parts, engine.write) if engine.parts and options.user_code else None

    def last_batch(order: np.ndarray | None, start: int, lr: float) -> float:
        nonlocal ended
        if mirror is not None:
            mirror.release()
        loss = engine.last_batch(lr, order, start)
        ended = True  # the layers hold the result, and what the last batch left
        return loss

    def look() -> None:
        """Raise `_Changed` if callbacks or the schedule have changed the model."""
        change = None if mirror is None or ended else mirror.changed()
        if change is not None:
            raise _Changed(change)

    try:
        while done < options.epochs and not history.stopped:
            try:
                for report, _, order in epochs(  # noqa: B007 - the order of the last one is needed below
                        engine, options, len(x), start=done, last_batch=last_batch, look=look):
                    losses[report.epoch] = report.loss
                    history.add(report)
                    _show(bar, report)
                    done += 1
                    if mirror is not None and not ended:
                        mirror.take()
                    with interrupt.at_once():
                        history.stopped = _reason_to_stop(report, options, history)
                    look()
                    if history.stopped:
                        break
            except _Changed as change:  # training continues from the layers' state
                assert mirror is not None
                mirror.settle()
                mirror, engine = None, _by_layers(engine, model, x, t, options)
                history.engine, history.why = engine.name, f"{change} after epoch {done}"
        history.stopped = history.stopped or "all epochs done"
    except BaseException as error:
        history.stopped = f"{type(error).__name__} in epoch {history.epochs + 1}"
        if not ended:
            if mirror is not None:
                mirror.release()
            engine.write()
        raise
    finally:
        if options.state is not None:
            options.state.keep(model, options.optimizer, engine)
    if not ended:
        if mirror is not None:
            mirror.release()
        engine.leave(order, (len(x) - 1) // engine.batch_size * engine.batch_size)


class _Changed(Exception):
    """A user's function has changed the model; the message names the change."""


def _by_layers(engine, model, x, t, options) -> Layerwise:
    """Return the engine that continues from the layers' state."""
    layerwise = Layerwise(model, x, t, options, engine.moments(), engine.steps)
    layerwise.check_interrupt = engine.check_interrupt
    return layerwise


def _report(engine, epoch: int, lr: float, loss: float, options: FitOptions, seconds: float) -> EpochReport:
    value = accuracy = None
    if options.validation is not None:
        value, accuracy = engine.score(*options.validation)
    return EpochReport(epoch, options.epochs, lr, float(loss), value, accuracy, seconds)


def _reason_to_stop(report: EpochReport, options: FitOptions, history: History) -> str:
    """Return why training ends after this epoch; an empty string if it continues."""
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
            return f"early stop: no lower {what} for {options.early_stop} epochs"
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
