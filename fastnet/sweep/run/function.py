"""`sweep`: any training function, with the search, the choice, the journal and the report of `lr_sweep`."""
from __future__ import annotations

import concurrent.futures as cf
import contextlib
import functools
import inspect
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastnet.base import checks
from fastnet.base.system import deferred_interrupt
from fastnet.sweep import grid
from fastnet.sweep.choice.metrics import averaged_epochs, metric_of
from fastnet.sweep.record import Record, State
from fastnet.sweep.result import SweepResult
from fastnet.sweep.run.asked import checked_budget, checked_multiple, direction_of
from fastnet.sweep.run.executors import LocalThreads, executor_for
from fastnet.sweep.run.generators import END, Suspended
from fastnet.sweep.run.progress import progress_line
from fastnet.sweep.run.randomness import turns
from fastnet.sweep.run.range_test import RangeTest
from fastnet.sweep.run.search import SEARCHES
from fastnet.sweep.run.session import Budget, Interrupted, Session
from fastnet.sweep.spec import RESERVED, Setting, Spec, Trial
from fastnet.sweep.store.fingerprint import describe
from fastnet.sweep.store.journal import open_journal

_WHO = "sweep"
_HOW = 'Write: def train(trial): ... yield {"loss": loss}.'


@dataclass(frozen=True)
class Training:
    """The argument of a training function: one trial to run.

    Attributes
    ----------
    lr : float
    seed : int
    epochs : int
    params : dict
        The other hyperparameters, by name.
    """

    lr: float
    seed: int
    epochs: int
    params: dict[str, Any] = field(default_factory=dict)


def sweep(
    train: Callable[[Training], Any], lrs: Any = "1e-3:1:log10", epochs: int = 20, seeds: int | Sequence[int] = 5, *,
    params: Mapping[str, Any] | None = None, metric: str | tuple[str, str] | None = None, search: str = "grid",
    resume: str | os.PathLike[str] | None = None, executor: cf.Executor | None = None, key: Any = None,
    progress: bool | None = None, diverged_above: float = 10.0, budget: float | str | None = None,
    guess: float | None = None,
) -> SweepResult:
    """Run any training function with many learning rates, seeds and other hyperparameters.

    Parameters
    ----------
    train : callable
        ``train(trial)`` trains one model, with ``trial.lr``, ``trial.seed``, ``trial.epochs`` and ``trial.params``, a dict.
        Best it is a generator: after each epoch it yields a dict of numbers by name, ``{"loss": l, "val_accuracy": a}``, and
        at last, if it likes, a dict of what is only reported, ``{"test_accuracy": t}``. A number may also be an array with a
        value for each held-out sample (which of them are right, say): its mean counts, and errors then take the samples
        into account. A function may also return a dict of curves, lists of a number for each epoch.
    lrs, epochs, seeds, progress, resume, search, budget
        As for :func:`lr_sweep`. ``search="halving"`` needs a generator, which is suspended and goes on.
    params : dict, optional
        Other hyperparameters by name: a value, or a list of values, each of which is combined with every rate.
    metric : str or (str, str), optional
        What to judge by: the name of a curve, with ``"max"`` or ``"min"`` where its name does not say what is best. By
        default ``"val_accuracy"``, ``"val_loss"`` or ``"loss"``, the first that there is.
    executor : concurrent.futures.Executor or Client of Dask, optional
        Where to run the trials; by default one after the other in this process. Processes cannot hand a suspended generator
        over: with them, what halving promotes starts again.
    key : optional
        Anything that decides the numbers and cannot be seen in the code of `train`, such as the version of the data:
        with `resume`, a file of another key, or of other code, is refused.
    diverged_above : float
        A trial stops, and has diverged, when a number is not finite, or its ``"loss"`` is more than so many times that of
        its first epoch.
    guess : float, optional
        What a constant prediction gets of the metric, such as the share of the largest class. If no rate does better, the
        result says so.

    Returns
    -------
    SweepResult
        `curve` and `final` give arrays by name. There is no `best_model`: the sweep does not know your models.

    Raises
    ------
    SweepError
        If a trial fails, or two seeds give the same numbers; its ``result`` has the trials that did not.

    Notes
    -----
    Each trial begins with the global generators of ``random``, NumPy and, if it is imported, PyTorch seeded with
    `trial.seed`, and every generator runs in its own thread, with its own global random state: what one trial leaves
    behind, be it a seed or a ``torch.no_grad()`` around a ``yield``, changes no other. These generators belong to the
    process, so trials in an executor of threads take turns; processes run them at the same time.

    Examples
    --------
    >>> def train(trial):
    ...     w = 1.0 + trial.seed
    ...     for epoch in range(trial.epochs):
    ...         w -= trial.lr * 2 * w
    ...         yield {"loss": w * w}
    >>> result = sweep(train, lrs=[0.01, 0.1, 0.4], epochs=5, seeds=3)
    >>> float(result.suggestion())
    0.4
    """
    if not callable(train):
        raise TypeError(f"{_WHO}: train must be a function that trains a model, got {train!r}. {_HOW}")
    with contextlib.suppress(ValueError):  # of a callable whose signature cannot be seen
        try:
            inspect.signature(train).bind(None)
        except TypeError:
            raise TypeError(f"{_WHO}: train must take one argument, what it is asked for. {_HOW}") from None
    run_search = SEARCHES[checks.choice(_WHO, "search", search, tuple(SEARCHES))]
    if grid.is_automatic(lrs):
        raise ValueError(f'{_WHO}: lrs="auto" needs networks of fastnet. Give a range, such as "1e-4:1:log9".')
    direction = direction_of(_WHO, metric)
    if guess is not None and direction is None:
        raise ValueError(f"{_WHO}: guess={guess!r} is of the metric. Give metric=(name, 'max' or 'min'), too.")
    if guess is not None and not (isinstance(guess, (int, float, np.number)) and math.isfinite(guess)):
        raise TypeError(f"{_WHO}: guess must be a number, got {guess!r}.")
    spec = Spec(grid.checked_rates(lrs, _WHO), grid.seeds(seeds, _WHO),
                checks.whole_number(_WHO, "epochs", epochs, "It is how often to go through the data."), _params(params),
                diverged_above=checked_multiple(_WHO, diverged_above), search=search, metric=direction,
                guess=() if guess is None or direction is None else ((direction[0], float(guess)),),
                budget=checked_budget(_WHO, budget))
    head = {"train": describe(train), "key": describe(key), "diverged_above": str(spec.diverged_above)}
    runner = LocalThreads(1) if executor is None else executor_for(executor, _WHO)
    with (open_journal(resume, None if resume is None else head, _WHO) as journal, progress_line(progress) as show,
          deferred_interrupt() as check, contextlib.ExitStack() as stack):
        result = SweepResult(spec, journal.records, {})
        session = Session(Functions(train, runner, stack), runner, journal, show, check, result, budget=Budget(budget))
        stack.callback(session.states.clear)  # ends what is suspended
        session.ask(spec)
        with contextlib.suppress(Interrupted):
            run_search(session)
        journal.finish(result.spec.trials())
    return result


def _params(params: Mapping[str, Any] | None) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    if params is not None and not isinstance(params, Mapping):
        raise TypeError(f'{_WHO}: params must be a dict of values by name, such as {{"dropout": [0, 0.5]}}, got {params!r}.')
    found = []
    for name, given in (params or {}).items():
        if not isinstance(name, str) or not name.isidentifier() or name in RESERVED:
            raise ValueError(f"{_WHO}: params names a hyperparameter {name!r}. Names are words, and none of "
                             f"{', '.join(RESERVED)}.")
        found.append((name, grid.values(_WHO, f"params[{name!r}]", given, functools.partial(_value, name))))
    return tuple(found)


def _value(name: str, value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise TypeError(f"{_WHO}: params[{name!r}] holds {value!r}. Values are numbers, texts, booleans or None: name other "
                    "things by a text, and look them up in train.")


class Functions:
    """What trains in `sweep`: see `fastnet.sweep.run.session.Work`."""

    who = _WHO
    digests: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, train: Callable[[Training], Any], runner: Any, stack: contextlib.ExitStack) -> None:
        self.train, self.runner, self.stack = train, runner, stack

    def engines(self, spec: Spec) -> dict[Setting, str]:
        return dict.fromkeys(spec.settings, "function")

    def hold(self, result: SweepResult) -> None:
        try:
            self.stack.enter_context(self.runner.holding(Function(self.train)))
        except Exception as error:
            if "pickl" not in f"{type(error).__name__} {error}".lower():
                raise
            raise TypeError(f"{_WHO}: train cannot be sent to other processes: {error}. Define it at the top level of a "
                            "module, or leave executor out.") from None

    def start(self, trial: Trial) -> None:
        """Nothing: the function starts by itself."""

    def forget(self) -> None:
        """Nothing is kept."""

    def range_test(self, name: str, spec: Spec, check_interrupt: Callable[[], None]) -> RangeTest:
        raise NotImplementedError

    def check(self, record: Record, records: Mapping[Trial, Record]) -> None:
        """Refuse seeds that give the same curves: they would say nothing about chance."""
        if record.status != "done" or all(len(set(curve)) < 2 for curve in record.curves.values()):
            return
        for trial, other in records.items():
            if trial.seed != record.trial.seed and trial._replace(seed=record.trial.seed) == record.trial and (
                    other.status == "done" and other.curves == record.curves):
                raise ValueError(f"seeds {trial.seed} and {record.trial.seed} gave the same numbers in every epoch, so they "
                                 "say nothing about chance. Let trial.seed decide the first weights, or give seeds=1")


class Function:
    """A training function, where its trials run."""

    def __init__(self, train: Callable[[Training], Any], suspends: bool = True) -> None:
        self.train, self.suspends, self.turns = train, suspends, turns()

    def __getstate__(self) -> dict[str, Any]:  # in another process: what is suspended there can't be found again
        return vars(self) | {"suspends": False}

    def run(self, start: None, spec: Spec, trial: Trial, until: int, state: State | None, keep: bool,
            stopped: Callable[[], bool] = lambda: False) -> tuple[Record, State | None] | None:
        """Run a trial up to that epoch, see `fastnet.sweep.run.trial.Trials.run`."""
        began = time.perf_counter()
        suspended = self._begun(spec, trial) if state is None else state.engine
        run = _Run(spec, trial, state)
        status = run.epochs(suspended, until, stopped)
        if status == "left":
            suspended.close()
            return None
        if status == "done" and until < spec.epochs and not suspended.ended:
            status = "stopped"
        ended = status == "done" and len(next(iter(run.curves.values()))) < spec.epochs
        record = Record(trial, status, "function", run.curves, run.final, samples=run.samples(status), ended=ended,
                        seconds=(0.0 if state is None else state.record.seconds) + time.perf_counter() - began)
        if status == "stopped" and keep and self.suspends:
            return record, State(suspended, None, run.limit, record, tuple(run.recent))
        suspended.close()
        return record, None

    def _begun(self, spec: Spec, trial: Trial) -> Suspended:
        asked = Training(trial.lr, trial.seed, spec.epochs, trial.setting.asdict())

        def reports() -> Iterator[Any]:
            answer = self.train(asked)
            if isinstance(answer, Mapping):
                if spec.search == "halving":
                    raise TypeError(f'{_WHO}: search={spec.search!r} needs a train that yields after each epoch; this one '
                                    'returns its curves at the end. Write: yield {"loss": loss}')
                answer = _by_epoch(answer)
            if not hasattr(answer, "__iter__"):
                raise TypeError(f"{_WHO}: train must yield a dict of numbers after each epoch, or return a dict of curves, "
                                f"got {answer!r}")
            yield from answer

        return Suspended(reports, trial.seed, self.turns)


def _number_or_samples(value: Any) -> np.ndarray | None:
    """A number, or one for each held-out sample; None if it is neither."""
    try:
        given = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
        texts = given.dtype.kind in "USO" and any(one is None or isinstance(one, (str, bytes)) for one in given.flat)
        if texts or given.dtype.kind in "cmM":  # None is not nan: the trial has not diverged
            return None
        array = given.astype(float)
    except (TypeError, ValueError, OverflowError):
        return None
    return array if array.size and array.ndim < 2 else None


def _by_epoch(curves: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Returned curves as if they had been yielded; single numbers are only reported."""
    lists = {name: list(values) for name, values in curves.items() if np.ndim(values) >= 1}
    if not lists:
        raise ValueError(f"{_WHO}: train returned no curve, but {dict(curves)!r}. A curve is a list of numbers, one for "
                         "each epoch")
    if len({len(values) for values in lists.values()}) != 1:
        raise ValueError(f"{_WHO}: train returned curves of different lengths: "
                         + ", ".join(f"{name} of {len(values)}" for name, values in lists.items()))
    for values in zip(*lists.values()):
        yield dict(zip(lists, values))
    final = {name: value for name, value in curves.items() if name not in lists}
    if final:
        yield final


class _Run:
    """The epochs of a trial, from what its function reports."""

    def __init__(self, spec: Spec, trial: Trial, state: State | None) -> None:
        self.spec, self.trial = spec, trial
        self.curves: dict[str, list[float]] = {}
        self.final: dict[str, float] = {}
        self.recent: list[Any] = []
        self.limit = math.inf
        if state is not None:
            self.curves = {name: list(curve) for name, curve in state.record.curves.items()}
            self.recent, self.limit = list(state.recent), state.limit

    def epochs(self, suspended: Suspended, until: int, stopped: Callable[[], bool]) -> str:
        """Take reports until that epoch; "done", "diverged", or "left" if the sweep ended before."""
        count = len(next(iter(self.curves.values()), ()))
        while True:
            if stopped():
                return "left"
            if count == until < self.spec.epochs:
                return "done"
            try:
                report = suspended.next()
            except FloatingPointError:
                if not count:
                    raise
                return "diverged"
            if report is END:
                if not count:
                    raise ValueError("train ended without a report of any epoch")
                return "done"
            values, samples = self._numbers(report)
            if self.curves and not set(values) & set(self.curves):
                self.final |= values
                continue
            if self.curves and set(values) != set(self.curves):
                raise ValueError(f"train reported {', '.join(values)} after epoch {count + 1}, and {', '.join(self.curves)} "
                                 "before. Report the same names after every epoch: of what is measured less often, the last "
                                 "value again")
            if count == self.spec.epochs:
                raise ValueError(f"train reported more than the {count} epochs that it was asked for (trial.epochs)")
            if self.final:
                raise ValueError("train reported another epoch after what is only reported")
            for name, value in values.items():
                self.curves.setdefault(name, []).append(value)
            count += 1
            self.recent.append(samples)
            if count == 1 and values.get("loss"):  # of a loss that begins at 0, no multiple says anything
                self.limit = self.spec.diverged_above * abs(values["loss"])
            if not all(map(math.isfinite, values.values())) or values.get("loss", -math.inf) > self.limit:
                return "diverged"

    def _numbers(self, report: Any) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Numbers by name, and the values of single samples."""
        if not isinstance(report, Mapping) or not report:
            raise TypeError(f"train must yield a dict of numbers, such as {{'loss': 0.5}}, got {report!r}")
        values, samples = {}, {}
        taken = [name for name in report if name in RESERVED or name in self.trial.setting.asdict()]
        if taken:
            raise ValueError(f"train reported {taken[0]!r}, which is the name of a hyperparameter, or of a column of every "
                             "table. Name the curve otherwise")
        for name, value in report.items():
            if not isinstance(name, str):
                raise TypeError(f"train reported a number by the name {name!r}. Names of curves are texts")
            array = _number_or_samples(value)
            if array is None:
                raise TypeError(f"train reported {name!r}: {value!r}, which is neither a number nor an array of one for "
                                "each held-out sample")
            values[name] = float(array.mean())
            if array.ndim and array.size > 1:
                samples[name] = array
        return values, samples

    def samples(self, status: str) -> dict[str, np.ndarray]:
        """The values of single samples, the mean of the epochs that count."""
        if status != "done" or not self.recent:
            return {}
        metric = metric_of(_WHO, self.spec.metric, self.curves)
        last = [of[metric.curve] for of in self.recent[-averaged_epochs(metric, len(self.recent)):] if metric.curve in of]
        if not last or len({len(values) for values in last}) > 1:
            return {}
        return {metric.curve: np.mean(last, axis=0).astype(np.float32)}
