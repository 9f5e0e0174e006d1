"""Runs trials of a sweep, on threads or on an executor, and keeps what comes back."""
from __future__ import annotations

import concurrent.futures as cf
import warnings
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from fastnet.sweep.record import Record, State
from fastnet.sweep.result import SweepResult
from fastnet.sweep.run.builders import Builders
from fastnet.sweep.run.range_test import RangeTest, range_test
from fastnet.sweep.run.shared import Start
from fastnet.sweep.spec import Setting, Spec, Trial
from fastnet.sweep.store.states import Memory

_WAIT = 0.1  # seconds between looks for Ctrl-C
_RETRIES = 3  # of a trial whose data died with workers
_STARTS_KEPT = 16  # networks in memory that trials start from


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


class Interrupted(Exception):
    """Ctrl-C: what is finished is kept."""


@dataclass
class Session:
    """A sweep that runs: its grid may grow, and its trials may go on.

    Attributes
    ----------
    result : SweepResult
        With the grid that was asked for last, and the records of the journal.
    """

    builders: Builders
    data: tuple[Any, Any, Any, Any]
    firsts: dict[str, Any]  # networks of the first seed
    hold: Callable[[], None]  # brings the data to where trials run: called before the first one
    runner: Any  # of `fastnet.sweep.run.executors`
    journal: Any
    networks: dict[str, Any]  # their digests
    engines_for: Callable[[Spec], dict[Setting, str]]
    show: Any  # progress: called with records, knows the number of trials
    check_interrupt: Callable[[], None]
    result: SweepResult
    states: Memory = field(default_factory=Memory)
    starts: _Starts | None = None

    @property
    def spec(self) -> Spec:
        return self.result.spec

    def ask(self, spec: Spec) -> None:
        """Take this grid from now on."""
        self.journal.ask(spec, self.networks, self.engines_for(spec))
        self.result.settings_engines = {setting: self.journal.engines[setting] for setting in spec.settings}
        self.result.spec = spec
        self.show.total(len(spec.trials()))

    def add_rates(self, lrs: Iterable[float]) -> None:
        """Let the grid have these rates too."""
        new = tuple(lr for lr in lrs if lr not in self.spec.lrs)
        self.ask(replace(self.spec, lrs=tuple(sorted(self.spec.lrs + new))))

    def add_seeds(self, count: int) -> None:
        """Let the grid have so many more seeds."""
        last = max(self.spec.seeds)
        self.ask(replace(self.spec, seeds=self.spec.seeds + tuple(range(last + 1, last + 1 + count))))

    def range_test(self, name: str) -> RangeTest:
        """Of the network of that name, with the weights of the first seed."""
        model = self.builders.build(name, self.spec.seeds[0])
        x, t = self.data[:2]
        try:
            return range_test(model, x, t, min(self.spec.batch_sizes), self.check_interrupt)
        except KeyboardInterrupt:
            warnings.warn("lr_sweep: interrupted in the range test; no trial was begun.", RuntimeWarning, stacklevel=4)
            raise Interrupted from None

    def run(self, trials: Iterable[Trial], until: int) -> None:
        """Run those of the trials that have not come to that number of epochs, nor diverged.

        Raises
        ------
        Interrupted
            After Ctrl-C.
        SweepError
            If a trial failed.
        """
        records = self.journal.records
        trials = list(trials)
        todo = [trial for trial in trials
                if trial not in records or (records[trial].status != "diverged" and records[trial].epochs < until)]
        for trial in set(trials) - set(todo):
            self.show(records[trial], self.spec)
        if not todo:
            return
        if self.starts is None:
            self.hold()
            self.starts = _Starts(self.builders, self.spec.seeds[0], self.firsts, self.result.settings_engines,
                                  self.runner)
        self._run(todo, until, self.starts)

    def _run(self, todo: list[Trial], until: int, starts: _Starts) -> None:
        waiting = deque(todo)
        place = {trial: number for number, trial in enumerate(todo)}
        running: dict[cf.Future[Any], Trial] = {}
        failures: Counter[Trial] = Counter()
        try:
            while waiting or running:
                while waiting and len(running) < self.runner.window():
                    trial = waiting.popleft()
                    running[self._submit(trial, until, starts)] = trial
                done, _ = cf.wait(running, _WAIT, cf.FIRST_COMPLETED)
                for future in sorted(done, key=lambda f: place[running[f]]):
                    trial = running.pop(future)
                    try:
                        record, state = future.result()
                        self._keep(record, state)
                    except Exception as error:
                        failures[trial] += 1
                        if failures[trial] > _RETRIES or not self.runner.recovered(error):
                            raise
                        starts.forget()
                        waiting.appendleft(trial)
                self.check_interrupt()
        except KeyboardInterrupt:
            total = len(self.spec.trials())
            warnings.warn(f"lr_sweep: interrupted; {self.result.finished} of {total} trials are finished.", RuntimeWarning,
                          stacklevel=5)
            raise Interrupted from None
        except Exception as error:
            raise SweepError(
                f"lr_sweep: the trial of {self.spec.described(trial)} failed: {type(error).__name__}: {error}. "
                f"{self.result.finished} of {len(self.spec.trials())} trials are finished, and in this error's `result`.",
                self.result) from error
        finally:
            for future in running:
                future.cancel()

    def _submit(self, trial: Trial, until: int, starts: _Starts) -> cf.Future[Any]:
        state: State | None = None
        if trial in self.journal.records:
            state = self.states.get(self.journal.records[trial])
        keep = self.states.wanted(until, self.spec)
        return self.runner.submit(starts.of(trial), self.spec, trial, until, state, keep)

    def _keep(self, record: Record, state: State | None) -> None:
        if state is None:
            self.states.drop(record.trial)
        else:
            self.states.put(record.trial, state)
        self.journal.add(record)
        self.show(record, self.spec)


class _Starts:
    """The networks that trials start from, made when the first trial needs them; the latest are kept."""

    def __init__(self, builders: Builders, first_seed: int, firsts: dict[str, Any], engines: dict[Setting, str],
                 runner: Any) -> None:
        self.builders, self.first_seed, self.firsts = builders, first_seed, firsts
        self.engines, self.runner = engines, runner
        self.made: OrderedDict[tuple[str, int], Any] = OrderedDict()

    def of(self, trial: Trial) -> Any:
        key = trial.name, trial.seed
        if key not in self.made:
            first = self.firsts.get(trial.name) if trial.seed == self.first_seed else None
            model = self.builders.build(*key) if first is None else first
            engines = {setting: engine for setting, engine in self.engines.items() if setting.name == trial.name}
            self.made[key] = self.runner.put(Start(model, engines))
            while len(self.made) > _STARTS_KEPT:
                self.made.popitem(last=False)
        self.made.move_to_end(key)
        return self.made[key]

    def forget(self) -> None:
        """Have all of them made and put anew."""
        self.made.clear()
