"""`lr_sweep`: checks the arguments, and has a search run the trials."""
from __future__ import annotations

import concurrent.futures as cf
import contextlib
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet.base import checks
from fastnet.base.system import available_memory, deferred_interrupt
from fastnet.kernels.runtime.pool import get_num_threads
from fastnet.sequential import Sequential
from fastnet.sweep import grid
from fastnet.sweep.choice.metrics import DEFAULTS, metric_of
from fastnet.sweep.record import Record
from fastnet.sweep.result import SweepResult
from fastnet.sweep.run.again import train_again
from fastnet.sweep.run.asked import checked_budget, checked_multiple, constant_prediction, direction_of
from fastnet.sweep.run.builders import Builders
from fastnet.sweep.run.executors import LocalThreads, executor_for
from fastnet.sweep.run.progress import progress_line
from fastnet.sweep.run.range_test import RangeTest, range_test
from fastnet.sweep.run.schedules import multipliers
from fastnet.sweep.run.search import SEARCHES, find_rates
from fastnet.sweep.run.session import Budget, Interrupted, Session
from fastnet.sweep.run.shared import Start, fit_options
from fastnet.sweep.run.trial import Trials
from fastnet.sweep.spec import Setting, Spec, Trial
from fastnet.sweep.store import fingerprint
from fastnet.sweep.store.journal import open_journal
from fastnet.sweep.store.states import Files, Memory
from fastnet.training import labelled
from fastnet.training.options import ENGINES, OPTIMIZERS, refuse_momentum
from fastnet.training.plan import Plan, plan

_WHO = "lr_sweep"
_STARTS_KEPT = 16  # networks in memory that trials start from


def lr_sweep(
    build: Any, x: npt.ArrayLike, y: npt.ArrayLike, lrs: Any = "1e-3:10:log13", epochs: int = 20,
    batch_size: int | Sequence[int] = 128, seeds: int | Sequence[int] = 5,
    validation: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    test: tuple[npt.ArrayLike, npt.ArrayLike] | None = None, engine: str = "auto", progress: bool | None = None,
    resume: str | os.PathLike[str] | None = None, executor: cf.Executor | None = None, *, folds: int = 0,
    shuffle: bool = False, momentum: float | Sequence[float] = 0.0, weight_decay: float | Sequence[float] = 0.0,
    schedule: str | Callable[[int], float] | Mapping[str, Any] = "constant", search: str = "grid",
    metric: str | tuple[str, str] | None = None, keep_states: bool = False, diverged_above: float = 10.0,
    optimizer: str | Sequence[str] = "sgd", budget: float | str | None = None, nesterov: bool = False,
) -> SweepResult:
    """Train the same network with many learning rates and seeds, and other hyperparameters.

    Parameters
    ----------
    build : callable or dict of callables
        ``build(rng)`` returns a fresh :class:`fastnet.Sequential`, drawn from the generator. All rates of a seed start
        from the same weights and take the same batches. A dict of builders, by name, makes a grid of networks and rates.
    x, y : array_like
        Data to train on: one sample per row; one-hot targets.
    lrs : list of float, or str
        Learning rates, or a text such as ``"0.01,0.1,0.3"`` or ``"1e-3:10:log13"``, see :func:`fastnet.sweep.rates`.
        ``"auto"`` finds the range, refines it around the best, and adds rates at an edge.
    epochs, engine, shuffle
        As in :meth:`fastnet.Sequential.fit`.
    batch_size, momentum, weight_decay : number or list of numbers
        As in ``fit``; every one of a list is combined with every rate. Weight decay acts on weights, not on biases.
    schedule : str, callable or dict of these
        How the rate changes: ``"constant"``, ``"cosine"`` (to 0 after the last epoch), ``"linear"`` (the same), ``"step"``
        (a tenth in the last quarter), or a function of the epoch, from 0, that returns what the rate is multiplied by.
        Every one of a dict, by name, is combined with every rate; epochs in which schedules do not differ yet are trained
        once.
    seeds : int or list of int
        How many seeds, 0, 1, 2, ..., or which.
    validation : (x, y), optional
        Evaluated after every epoch; :meth:`SweepResult.suggest` judges by it. y one-hot, or labels.
    folds : int
        Instead of `validation`: cross-validation. Each of so many parts of the data, shuffled and stratified, is held out
        in turn, from trials that train on the rest; 0 for none.
    test : (x, y), optional
        Evaluated after the last epoch.
    search : {"grid", "racing", "halving"}
        ``"racing"`` runs no more seeds of a rate that is worse than another beyond chance. ``"halving"`` also stops, after a
        few epochs, the rates that are clearly behind, and lets fewer go on from group to group. Trials that go on have the
        bits of the full grid's.
    metric : str, optional
        What the search and :meth:`SweepResult.suggest` judge by: ``"val_accuracy"`` (the default, if there are validation
        data), the mean over the last 15% of the epochs; ``"val_loss"``, ``"best_val_accuracy"`` or ``"best_val_loss"`` of
        all epochs, or ``"loss"``.
    progress : bool, optional
        Show a progress line. By default if the error stream is a terminal, or in a notebook.
    resume : path, optional
        A file to which each finished trial is appended. If it is there already, its trials are not run again: the same
        call goes on after a crash, and one with more seeds, rates, folds, epochs, networks or other hyperparameters runs
        what is missing.
    keep_states : bool
        With `resume`: keep the state of every trial in the folder ``<resume>.states`` next to the file, so that more epochs
        go on from there instead of from the start. Both give the same bits.
    executor : concurrent.futures.Executor, optional
        Where to run the trials; by default on the cores of this machine. For a Dask cluster, its ``Client``.
    diverged_above : float
        A trial whose loss is not finite, or more than so many times that of its first batch, has diverged and stops;
        ``inf`` lets only the first count.
    optimizer : {"sgd", "adam", "rmsprop"} or list of these
        As in ``fit``: every one is combined with every rate. Useful rates of Adam and RMSprop are a hundred times smaller.
        Both need ``momentum=0``, and do not share the Gram matrix.
    budget : float or str, optional
        How many epochs all trials may have together, or for how long the sweep may run: ``"90 s"``, ``"5 min"``, ``"2 h"``.
        The sweep never runs more; trials for which it does not suffice are left out. Epochs that `resume` finds count, too.
    nesterov : bool
        As in ``fit``, for every momentum above 0.

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
    engine=...)`` with the sweep's engine, and with ``rng=seed`` if it shuffles. X Xᵀ is computed once for all trials, those
    of all folds included, and X W₀ᵀ once for each seed. The weights that were trained are not kept:
    :meth:`SweepResult.best_model` trains again.

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
    builders = Builders(build)
    run_search = SEARCHES[checks.choice(_WHO, "search", search, tuple(SEARCHES))]
    spec = _spec(builders.names, lrs, epochs, batch_size, seeds, engine, folds, shuffle, momentum, weight_decay, schedule,
                 search, metric, diverged_above, optimizer, budget, nesterov)
    if grid.is_automatic(lrs):
        if search != "grid":
            raise ValueError(f'lr_sweep: search={search!r} needs a grid, and lrs="auto" makes its own. Use one of them.')
        run_search = find_rates
    firsts = {name: builders.first(name, spec.seeds, spec.shuffle) for name in spec.names}
    data = _data(firsts, x, y, validation, test, spec)
    spec = replace(spec, guess=constant_prediction(firsts[spec.names[0]], data, bool(folds)))
    metric_of(_WHO, spec.metric, _curves(data, spec))
    planner = _Planner(firsts, data, len(spec.repeats()) * len(spec.settings) * (len(spec.lrs) or 12))
    head, digests = _fingerprint(builders, firsts, data, spec) if resume is not None else (None, {})
    runner = LocalThreads(planner.models_at_once(spec)) if executor is None else executor_for(executor, _WHO)
    states = Files(Path(f"{os.fspath(resume)}.states")) if keep_states and resume is not None else Memory()
    with (open_journal(resume, head, _WHO) as journal, progress_line(progress) as show, deferred_interrupt() as check,
          contextlib.ExitStack() as stack):
        result = SweepResult(spec, journal.records, {}, partial(train_again, builders, data))
        work = Networks(builders, data, firsts, digests, planner.engines, runner, stack)
        session = Session(work, runner, journal, show, check, result, states, Budget(budget))
        session.ask(spec)
        with contextlib.suppress(Interrupted):
            run_search(session)
        journal.finish(result.spec.trials())
    return result


class Networks:
    """What trains in `lr_sweep`: networks that share data and first weights; see `fastnet.sweep.run.session.Work`."""

    who = _WHO

    def __init__(self, builders: Builders, data: tuple[Any, Any, Any, Any], firsts: dict[str, Any], digests: dict[str, Any],
                 engines: Callable[[Spec], dict[Setting, str]], runner: Any, stack: contextlib.ExitStack) -> None:
        self.builders, self.data, self.firsts, self.digests = builders, data, firsts, digests
        self.engines, self.runner, self.stack = engines, runner, stack

    def hold(self, result: SweepResult) -> None:
        self.result = result
        self.starts: OrderedDict[tuple[str, int], Any] = OrderedDict()
        gram = "gram" in result.settings_engines.values()
        self.stack.enter_context(self.runner.holding(
            Trials(*self.data, gram=gram, folds=result.spec.folds, turns=self.builders.turns)))

    def start(self, trial: Trial) -> Any:
        """The network of its name and seed, made when the first trial needs it; the latest are kept."""
        name, spec = trial.setting.name, self.result.spec
        key = name, trial.seed
        if key not in self.starts:
            first = self.firsts.get(name) if trial.seed == spec.seeds[0] else None
            model = self.builders.build(*key) if first is None else first
            engines = {setting: engine for setting, engine in self.result.settings_engines.items() if setting.name == name}
            self.starts[key] = self.runner.put(Start(model, engines))
            while len(self.starts) > _STARTS_KEPT:
                self.starts.popitem(last=False)
        self.starts.move_to_end(key)
        return self.starts[key]

    def forget(self) -> None:
        self.starts.clear()

    def range_test(self, name: str, spec: Spec, check_interrupt: Callable[[], None]) -> RangeTest:
        model = self.builders.build(name, spec.seeds[0])
        return range_test(model, *self.data[:2], min(dict(spec.params)["batch_size"]), check_interrupt)

    def check(self, record: Record, records: dict[Trial, Record]) -> None:
        """Nothing to see in a single record: `Builders.refuse_equal_seeds` has looked at the networks."""


def check(lrs: Any = "auto", epochs: Any = 20, batch_size: Any = 128, seeds: Any = 5, engine: str = "auto", folds: Any = 0,
          shuffle: Any = False, momentum: Any = 0.0, weight_decay: Any = 0.0, schedule: Any = "constant",
          search: str = "grid", metric: Any = None, diverged_above: Any = 10.0, keep_states: bool = False,
          optimizer: Any = "sgd", budget: Any = None, nesterov: Any = False) -> None:
    """Refuse what `lr_sweep` would, as far as that can be seen without data and networks."""
    checks.choice(_WHO, "search", search, tuple(SEARCHES))
    _spec(("",), lrs, epochs, batch_size, seeds, engine, folds, shuffle, momentum, weight_decay, schedule, search, metric,
          diverged_above, optimizer, budget, nesterov)


def _spec(names: tuple[str, ...], lrs: Any, epochs: Any, batch_size: Any, seeds: Any, engine: str, folds: Any, shuffle: Any,
          momentum: Any, weight_decay: Any, schedule: Any, search: str, metric: Any, diverged_above: Any,
          optimizer: Any, budget: Any, nesterov: Any) -> Spec:
    epochs = checks.whole_number(_WHO, "epochs", epochs, "It is how often to go through the data.")
    schedules = multipliers(schedule, epochs, _WHO)
    metric_of(_WHO, metric, DEFAULTS)
    params = {
        "name": names,
        "batch_size": grid.values(_WHO, "batch_size", batch_size,
                                  lambda value: checks.whole_number(_WHO, "batch_size", value, "128 is usual.")),
        "momentum": grid.values(_WHO, "momentum", momentum, lambda value: checks.fraction(_WHO, "momentum", value)),
        "weight_decay": grid.values(_WHO, "weight_decay", weight_decay,
                                    lambda value: checks.rate(_WHO, value, "weight_decay")),
        "schedule": tuple(name for name, _ in schedules), "optimizer": _optimizers(optimizer, momentum),
        **({"nesterov": (True,)} if _nesterov(nesterov, momentum) else {})}
    return Spec(
        lrs=() if grid.is_automatic(lrs) else grid.checked_rates(lrs, _WHO), seeds=grid.seeds(seeds, _WHO),
        epochs=epochs, engine=checks.choice(_WHO, "engine", engine, ("auto", *ENGINES)), shuffle=bool(shuffle),
        params=tuple(params.items()), schedules=schedules, folds=_folds(folds),
        diverged_above=checked_multiple(_WHO, diverged_above), search="auto" if grid.is_automatic(lrs) else search,
        metric=direction_of(_WHO, metric), budget=checked_budget(_WHO, budget))


def _optimizers(optimizer: Any, momentum: Any) -> tuple[str, ...]:
    several = (optimizer,) if isinstance(optimizer, str) else optimizer
    found = grid.values(_WHO, "optimizer", several, lambda value: checks.choice(_WHO, "optimizer", value, OPTIMIZERS))
    for name in found:
        refuse_momentum(_WHO, name, momentum)
    return found


def _nesterov(value: Any, momentum: Any) -> bool:
    if checks.truth(_WHO, "nesterov", value) and not np.any(momentum):
        raise ValueError(f"{_WHO}: nesterov=True needs a momentum. Give momentum=0.9, or leave nesterov out.")
    return bool(value)


def _folds(value: Any) -> int:
    return 0 if isinstance(value, int) and value == 0 else checks.whole_number(
        _WHO, "folds", value, "It is how many parts of the data are held out in turn; 0 for none.")


def _curves(data: tuple[Any, Any, Any, Any], spec: Spec) -> tuple[str, ...]:
    return DEFAULTS if data[2] is not None or spec.folds else ("loss",)


def _data(models: dict[str, Sequential], x: Any, y: Any, validation: Any, test: Any,
          spec: Spec) -> tuple[Any, Any, Any, Any]:
    """All data in the dtype of the networks, which must all be able to take them."""
    if spec.folds and validation is not None:
        raise ValueError(f"{_WHO}: folds hold out parts of x themselves. Give either folds or validation.")
    dtypes = {model.dtype for model in models.values()}
    if len(dtypes) > 1:
        raise TypeError(f"{_WHO}: the networks of build are of several dtypes, {', '.join(sorted(map(str, dtypes)))}. "
                        "Give all of them the same dtype: they share the data.")
    for name, model in models.items():
        who = f"{_WHO}: build[{name!r}]" if name else _WHO
        x, t = checks.samples_and_targets(who, model, x, y, on_disk=True)
        others = []
        for what, pair in (("validation", validation), ("test", test)):
            others.append(None if pair is None else labelled(f"{who}: {what}", model, *checks.pair(who, what, pair)))
        (y, validation, test) = t, *others
    if spec.folds and not 2 <= spec.folds <= len(x):
        raise ValueError(f"{_WHO}: folds must be 0, or from 2 to the number of samples, {len(x)}, got {spec.folds}.")
    return (x if isinstance(x, np.memmap) else np.ascontiguousarray(x)), t, validation, test


def _fingerprint(builders: Builders, firsts: dict[str, Sequential], data: Any, spec: Spec) -> tuple[dict, dict]:
    """What no sweep of a file may change, and the networks: those of seed 0, whichever seeds are asked for."""
    head = {"fastnet": fingerprint.package_version(), **fingerprint.data_digests(data), "engine": spec.engine,
            "shuffle": spec.shuffle, "diverged_above": spec.diverged_above if np.isfinite(spec.diverged_above) else "inf"}
    models = {name: builders.build(name, 0) if spec.seeds[0] else firsts[name] for name in spec.names}
    return head, fingerprint.network_digests(models)


class _Planner:
    """Chooses the engine of each setting, and how many models are trained at once."""

    def __init__(self, models: dict[str, Sequential], data: tuple[Any, Any, Any, Any], trials: int) -> None:
        self.models, self.x, self.trials = models, data[0], trials
        self._plans: tuple[Spec | None, dict[Setting, Plan]] = None, {}  # those made for one spec: it is asked about twice

    def engines(self, spec: Spec) -> dict[Setting, str]:
        """By setting: those that differ in the schedule alone have the same."""
        return {setting: self._plan(spec, setting).chosen for setting in spec.settings}

    def _plan(self, spec: Spec, setting: Setting) -> Plan:
        if self._plans[0] is not spec:
            self._plans = spec, {}
        plans = self._plans[1]
        if setting not in plans:
            n = len(self.x) - (len(self.x) // spec.folds if spec.folds else 0)
            plans[setting] = plan(self.models[setting.name], self.x[:n], fit_options(spec, setting), models=self.trials,
                                  mixed=False)
        return plans[setting]

    def models_at_once(self, spec: Spec) -> int:
        """One model a core, which needs no waiting for each other, where there is memory for it; else fewer.

        Layers that compiled engines do not know may use all cores themselves, or NumPy's global state: one at a time.
        """
        plans = [self._plan(spec, setting) for setting in spec.settings]
        chosen = [next(e for e in found.estimates if e.name == found.chosen) for found in plans]
        if any(estimate.name == "layers" for estimate in chosen):
            return 1
        x = self.x
        shared = x.nbytes // x.shape[1] * len(x) if any(estimate.name == "gram" for estimate in chosen) else 0
        each = max(estimate.memory - (shared if estimate.name == "gram" else 0) for estimate in chosen)
        room = int((available_memory() / 2 - shared) // max(each, 1))
        return max(1, min(get_num_threads(), self.trials, room))
