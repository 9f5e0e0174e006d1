"""`lr_sweep`: hands trials to threads or to an executor, and gathers what comes back."""
from __future__ import annotations

import concurrent.futures as cf
import os
import warnings
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet import _checks
from fastnet._system import available_memory, deferred_interrupt
from fastnet.kernels.threads import get_num_threads
from fastnet.sequential import Sequential
from fastnet.sweep import grid
from fastnet.sweep.journal import fingerprint, open_journal
from fastnet.sweep.places import Here, place_for
from fastnet.sweep.progress import progress_line
from fastnet.sweep.result import SweepResult
from fastnet.sweep.shared import Shared, Start
from fastnet.sweep.spec import Builders, Spec, Trial
from fastnet.sweep.trial import Record
from fastnet.training import labelled
from fastnet.training.plan import ENGINES, Plan, plan

_WAIT = 0.1  # seconds between looks for Ctrl-C
_RETRIES = 3  # of a trial whose place lost its data


class SweepError(RuntimeError):
    """A trial could not be run.

    Attributes
    ----------
    result : SweepResult
        Of the trials that were finished before.
    """

    def __init__(self, message: str, result: SweepResult) -> None:
        super().__init__(message)
        self.result = result


def lr_sweep(
    build: Any, x: npt.ArrayLike, y: npt.ArrayLike, lrs: Any = "1e-3:10:log13", epochs: int = 20, batch_size: int = 128,
    seeds: int | Sequence[int] = 5, validation: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    test: tuple[npt.ArrayLike, npt.ArrayLike] | None = None, engine: str = "auto", progress: bool | None = None,
    resume: str | os.PathLike[str] | None = None, executor: cf.Executor | None = None, *, shuffle: bool = False,
    momentum: float = 0.0, weight_decay: float = 0.0, diverged_above: float = 10.0,
) -> SweepResult:
    """Train the same network with many learning rates and seeds.

    Parameters
    ----------
    build : callable or dict of callables
        ``build(rng)`` returns a fresh :class:`fastnet.Sequential`, drawn from the generator. All rates of a seed start
        from the same weights and take the same batches. A dict of builders, by name, makes a grid of networks and rates.
    x, y : array_like
        Data to train on: one sample a row; one-hot targets.
    lrs : list of float, or str
        Learning rates, or a text such as ``"0.01,0.1,0.3"`` or ``"1e-3:10:log13"``, see :func:`fastnet.sweep.rates`.
    epochs, batch_size, engine, shuffle, momentum, weight_decay
        As in :meth:`fastnet.Sequential.fit`.
    seeds : int or list of int
        How many seeds, 0, 1, 2, ..., or which.
    validation : (x, y), optional
        Evaluated after every epoch; :meth:`SweepResult.suggest` judges by it. y one-hot, or labels.
    test : (x, y), optional
        Evaluated after the last epoch.
    progress : bool, optional
        Show a progress line. By default if the error stream is a terminal.
    resume : path, optional
        A file to which each finished trial is appended. If it is there already, its trials are not run again.
    executor : concurrent.futures.Executor, optional
        Where to run the trials; by default on the cores of this machine. For a Dask cluster, ``client.get_executor()``.
    diverged_above : float
        A trial whose loss is not finite, or more than so many times that of its first batch, has diverged and stops;
        ``inf`` lets only the first count.

    Returns
    -------
    SweepResult
        Interrupted by Ctrl-C, that of the trials that are finished.

    Raises
    ------
    SweepError
        If a trial fails; its ``result`` has those that did not.

    Notes
    -----
    A trial gives, bit for bit, the losses of ``build(numpy.random.default_rng(seed)).fit(x, y, epochs, lr, batch_size,
    engine=...)`` with the sweep's engine, and with ``rng=seed`` if it shuffles. X Xᵀ is computed once for all trials and
    X W₀ᵀ once for each seed. The weights that were trained are not kept: :meth:`SweepResult.best_model` trains again.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnet import CrossEntropyLayer, FullLayer, Sequential, SoftMaxLayer, one_hot
    >>> def build(rng):
    ...     return Sequential((FullLayer(4, 3, rng=rng), SoftMaxLayer()), loss=CrossEntropyLayer())
    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(0, 3, 60)
    >>> x = rng.normal(size=(60, 4)) + labels[:, None]
    >>> result = lr_sweep(build, x[:40], one_hot(labels[:40]), lrs="0.01:1:log3", epochs=5, batch_size=8,
    ...                   seeds=2, validation=(x[40:], labels[40:]))
    >>> result.losses.shape
    (3, 2, 5)
    """
    who = "lr_sweep"
    builders = Builders(build)
    spec = Spec(
        names=builders.names, lrs=grid.rates(lrs, who), seeds=grid.seeds(seeds, who),
        epochs=_checks.whole_number(who, "epochs", epochs, "It is how often to go through the data."),
        batch_size=_checks.whole_number(who, "batch_size", batch_size, "128 is usual."),
        engine=_checks.choice(who, "engine", engine, ("auto", *ENGINES)), shuffle=bool(shuffle),
        momentum=_checks.fraction(who, "momentum", momentum),
        weight_decay=_checks.rate(who, weight_decay, "weight_decay"),
        diverged_above=_multiple(who, diverged_above))
    firsts = {name: builders.first(name, spec.seeds[0]) for name in spec.names}
    data = _data(firsts, x, y, validation, test)
    plans = _plans(firsts, data[0], spec)
    engines = {name: found.chosen for name, found in plans.items()}
    place = Here(_models_at_once(plans, data[0], spec)) if executor is None else place_for(executor)
    mark = None if resume is None else fingerprint(spec, firsts, data, engines)
    with open_journal(resume, mark) as journal, progress_line(progress, spec) as show, deferred_interrupt() as check:
        result = SweepResult(spec, journal.records, journal.engines or engines, builders, data)
        for record in journal.records.values():
            show(record)
        todo = [trial for trial in spec.trials() if trial not in journal.records]
        if todo:
            def keep(record: Record) -> None:
                journal.add(record)
                show(record)

            starts = _Starts(builders, spec.seeds[0], firsts, result.engines, todo)
            _run(place, Shared(*data, gram="gram" in result.engines.values()), starts, spec, todo, keep, check, result)
        journal.finish(spec.trials())
    return result


def _run(place: Any, shared: Shared, starts: _Starts, spec: Spec, todo: list[Trial], keep: Callable[[Record], None],
         check_interrupt: Callable[[], None], result: SweepResult) -> None:
    """Run trials; Ctrl-C ends it with a warning, an error with `SweepError`."""
    waiting = deque(todo)
    running: dict[cf.Future[Record | None], Trial] = {}
    failures: Counter[Trial] = Counter()
    try:
        with place.holding(shared):
            while waiting or running:
                while waiting and len(running) < place.window():
                    trial = waiting.popleft()
                    running[place.submit(starts.of(trial, place), spec, trial)] = trial
                done, _ = cf.wait(running, _WAIT, cf.FIRST_COMPLETED)
                for future in sorted(done, key=lambda f: todo.index(running[f])):
                    trial = running.pop(future)
                    try:
                        record = future.result()
                        assert record is not None  # only trials that nobody waits for are stopped
                        keep(record)
                        starts.done(trial)
                    except Exception as error:
                        failures[trial] += 1
                        if failures[trial] > _RETRIES or not place.recovered(error):
                            raise
                        starts.forget()
                        waiting.appendleft(trial)
                check_interrupt()
    except KeyboardInterrupt:
        warnings.warn(f"lr_sweep: interrupted; {result.finished} of {len(spec.trials())} trials are finished.",
                      RuntimeWarning, stacklevel=3)
    except Exception as error:
        raise SweepError(f"lr_sweep: the trial of {trial} failed: {type(error).__name__}: {error}. "
                         f"{result.finished} of {len(spec.trials())} trials are finished, and in this error's `result`.",
                         result) from error
    finally:
        for future in running:
            future.cancel()


def _multiple(who: str, value: Any) -> float:
    if isinstance(value, (int, float)) and value > 0:
        return float(value)
    raise ValueError(f"{who}: diverged_above must be a number above 0, or inf, got {value!r}. It multiplies the loss of the "
                     "first batch.")


class _Starts:
    """The networks that trials start from, made when the first trial needs them and dropped after the last."""

    def __init__(self, builders: Builders, first_seed: int, firsts: dict[str, Sequential], engines: dict[str, str],
                 todo: list[Trial]) -> None:
        self.builders, self.first_seed, self.firsts, self.engines = builders, first_seed, firsts, engines
        self.left = Counter((trial.name, trial.seed) for trial in todo)
        self.made: dict[tuple[str, int], Any] = {}

    def of(self, trial: Trial, place: Any) -> Any:
        key = trial.name, trial.seed
        if key not in self.made:
            first = self.firsts.pop(trial.name, None) if trial.seed == self.first_seed else None
            self.made[key] = place.placed(Start(first or self.builders.build(*key), self.engines[trial.name]))
        return self.made[key]

    def forget(self) -> None:
        """Have all of them made and placed anew."""
        self.made.clear()

    def done(self, trial: Trial) -> None:
        key = trial.name, trial.seed
        self.left[key] -= 1
        if not self.left[key]:
            self.made.pop(key, None)


def _data(models: dict[str, Sequential], x: Any, y: Any, validation: Any, test: Any) -> tuple[Any, Any, Any, Any]:
    """All data in the dtype of the networks, which must all be able to take them."""
    dtypes = {model.dtype for model in models.values()}
    if len(dtypes) > 1:
        raise TypeError(f"lr_sweep: the networks of build are of several dtypes, {', '.join(sorted(map(str, dtypes)))}. "
                        "Make them of one: they share the data.")
    for name, model in models.items():
        who = f"lr_sweep: build[{name!r}]" if name else "lr_sweep"
        x, t = _checks.samples_and_targets(who, model, x, y, on_disk=True)
        others = []
        for what, pair in (("validation", validation), ("test", test)):
            others.append(None if pair is None else labelled(f"{who}: {what}", model, *_checks.pair(who, what, pair)))
        (y, validation, test) = t, *others
    return (x if isinstance(x, np.memmap) else np.ascontiguousarray(x)), t, validation, test


def _plans(models: dict[str, Sequential], x: np.ndarray, spec: Spec) -> dict[str, Plan]:
    return {name: plan(model, x, spec.epochs, spec.batch_size, engine=spec.engine, shuffle=spec.shuffle,
                       momentum=spec.momentum, decay=spec.weight_decay, models=len(spec.trials()))
            for name, model in models.items()}


def _models_at_once(plans: dict[str, Plan], x: np.ndarray, spec: Spec) -> int:
    """One model a core, which needs no waiting for each other, where there is memory for it; else fewer.

    Layers that compiled engines do not know may use all cores themselves, or NumPy's global state: one at a time.
    """
    chosen = [next(e for e in found.estimates if e.name == found.chosen) for found in plans.values()]
    if any(estimate.name == "layers" for estimate in chosen):
        return 1
    shared = x.nbytes // x.shape[1] * len(x) if any(estimate.name == "gram" for estimate in chosen) else 0
    each = max(estimate.memory - (shared if estimate.name == "gram" else 0) for estimate in chosen)
    room = int((available_memory() / 2 - shared) // max(each, 1))
    return max(1, min(get_num_threads(), len(spec.trials()), room))
