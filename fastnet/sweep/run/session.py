"""Runs trials of a sweep, on threads or on an executor, and keeps what comes back."""
from __future__ import annotations

import concurrent.futures as cf
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from fastnet.sweep.choice.metrics import Metric, metric_of
from fastnet.sweep.record import Record, State
from fastnet.sweep.result import SweepResult
from fastnet.sweep.run.prefixes import Fork, blocks, forks
from fastnet.sweep.run.range_test import RangeTest
from fastnet.sweep.spec import Setting, Spec, Trial
from fastnet.sweep.store.states import Memory

_WAIT = 0.1  # seconds between looks for Ctrl-C
_BLOCK = 4  # times the trials that are submitted at once: so many share beginnings, and end before others begin
_RETRIES = 3  # of a trial whose data died with workers


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
    """Ctrl-C, or the budget is spent; finished trials are kept."""


class Work(Protocol):
    """What trains: networks of fastnet, or any function."""

    who: str  # the public function
    digests: dict[str, Any]  # of the networks

    def engines(self, spec: Spec) -> dict[Setting, str]:
        """What trains each setting."""

    def hold(self, result: SweepResult) -> None:
        """Bring what all trials share to where they run: called before the first one."""

    def start(self, trial: Trial) -> Any:
        """What the trial starts from, as the runner takes it."""

    def forget(self) -> None:
        """Have all starts made anew."""

    def range_test(self, name: str, spec: Spec, check_interrupt: Callable[[], None]) -> RangeTest:
        """The range test of a network."""

    def check(self, record: Record, records: dict[Trial, Record]) -> None:
        """Refuse a record that shows a fault of what trains."""


@dataclass
class Session:
    """A sweep that runs: its grid may grow, and its trials may go on.

    Attributes
    ----------
    result : SweepResult
        With the grid that was asked for last, and the records of the journal.
    """

    work: Work
    runner: Any  # of `fastnet.sweep.run.executors`
    journal: Any
    show: Any  # progress: called with records, knows the number of trials
    check_interrupt: Callable[[], None]
    result: SweepResult
    states: Memory = field(default_factory=Memory)
    budget: Budget = field(default_factory=lambda: Budget(None))
    held: bool = False

    @property
    def spec(self) -> Spec:
        return self.result.spec

    @property
    def metric(self) -> Metric:
        """What the search judges by."""
        return self.result.judged_by(None)

    def ask(self, spec: Spec) -> None:
        """Take this grid from now on."""
        self.journal.ask(spec, self.work.digests, self.work.engines(spec))
        self.result.settings_engines = {setting: self.journal.engines[setting] for setting in spec.settings}
        self.result.spec = spec
        self.show.total(len(spec.trials()))

    def add_rates(self, lrs: Iterable[float]) -> None:
        """Let the grid have these rates too."""
        new = tuple(lr for lr in dict.fromkeys(lrs) if lr not in self.spec.lrs)
        self.ask(replace(self.spec, lrs=tuple(sorted(self.spec.lrs + new))))

    def range_test(self, name: str) -> RangeTest:
        """Of the network of that name, with the weights of the first seed."""
        try:
            return self.work.range_test(name, self.spec, self.check_interrupt)
        except KeyboardInterrupt:
            warnings.warn(f"{self.work.who}: interrupted in the range test; no trial was started.", RuntimeWarning,
                          stacklevel=4)
            raise Interrupted from None

    def run(self, trials: Iterable[Trial], until: int) -> None:
        """Run those of the trials that have not come to that number of epochs, nor diverged.

        Raises
        ------
        Interrupted
            After Ctrl-C, or when the budget does not suffice for the next trial.
        SweepError
            If a trial failed.
        """
        records = self.journal.records
        trials = list(trials)
        todo = self._unfinished(trials, until)
        for trial in set(trials) - set(todo):
            self.budget.found(records[trial])
            self.show(records[trial], self.spec)
        if not todo:
            return
        if not self.held:
            self.work.hold(self.result)
            self.held = True
        at = {trial: records[trial].epochs if trial in records else 0 for trial in todo}
        for block in blocks(self.spec, todo, _BLOCK * self.runner.window()):
            shared = forks(self.spec, block, at, until, self.result.settings_engines)
            for epoch in sorted({fork.epoch for fork in shared}):
                now = [fork for fork in shared if fork.epoch == epoch]
                self._run(self._unfinished([fork.leader for fork in now], epoch), epoch)
                for fork in now:
                    self._share(fork)
            self._run(self._unfinished(block, until), until)

    def _unfinished(self, trials: Iterable[Trial], until: int) -> list[Trial]:
        """The trials that have neither reached that epoch nor diverged or ended before it."""
        records = self.journal.records
        return [trial for trial in trials
                if trial not in records or (records[trial].epochs < until and not records[trial].ended
                                            and records[trial].status != "diverged")]

    def _share(self, fork: Fork) -> None:
        """Let the followers stand where their leader does."""
        leader = self.journal.records[fork.leader]
        state = self.states.get(leader)
        if leader.status != "diverged" and (state is None or leader.epochs != fork.epoch):
            return  # there was no memory for its state: they run from the start
        for trial in fork.followers:
            record = replace(leader, trial=trial, seconds=0.0)
            more = record.epochs - (self.journal.records[trial].epochs if trial in self.journal.records else 0)
            if more <= 0:  # they diverged together before
                continue
            if not self.budget.share(more):
                raise Interrupted
            if leader.status != "diverged" and state is not None:
                self.states.put(trial, replace(state, record=record))
            self.journal.add(record)
            self.show(record, self.spec)

    def _run(self, todo: list[Trial], until: int) -> None:
        waiting = deque(todo)
        place = {trial: number for number, trial in enumerate(todo)}
        running: dict[cf.Future[Any], Trial] = {}
        failures: Counter[Trial] = Counter()
        try:
            while waiting or running:
                while waiting and len(running) < self.runner.window() and self._affords(waiting[0], until):
                    trial = waiting.popleft()
                    running[self._submit(trial, until)] = trial
                if not running or self.budget.late():
                    raise Interrupted
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
                        self.work.forget()
                        waiting.appendleft(trial)
                self.check_interrupt()
        except Interrupted:
            raise
        except KeyboardInterrupt:
            total = len(self.spec.trials())
            warnings.warn(f"{self.work.who}: interrupted; {self.result.finished} of {total} trials are finished.",
                          RuntimeWarning, stacklevel=5)
            raise Interrupted from None
        except Exception as error:
            raise SweepError(
                f"{self.work.who}: the trial of {self.spec.described(trial)} failed: {type(error).__name__}: "
                f"{str(error).rstrip('.')}. "
                f"{self.result.finished} of {len(self.spec.trials())} trials are finished, and in this error's `result`.",
                self.result) from error
        finally:
            for future in running:
                future.cancel()

    def _affords(self, trial: Trial, until: int) -> bool:
        return self.budget.take(trial, until, self._state_of(trial))

    def _state_of(self, trial: Trial) -> State | None:
        records = self.journal.records
        return self.states.get(records[trial]) if trial in records else None

    def _submit(self, trial: Trial, until: int) -> cf.Future[Any]:
        state = self._state_of(trial)
        keep = self.states.wanted(until, self.spec)
        return self.runner.submit(self.work.start(trial), self.spec, trial, until, state, keep)

    def _keep(self, record: Record, state: State | None) -> None:
        metric_of(self.work.who, self.spec.metric, record.curves)
        self.work.check(record, self.journal.records)
        self.budget.ran(record)
        if state is None:
            self.states.drop(record.trial)
        else:
            self.states.put(record.trial, state)
        self.journal.add(record)
        self.show(record, self.spec)


class Budget:
    """The epochs, or the seconds, that a sweep may still run for: never more, and less only by what fits no trial.

    A trial takes its epochs when it is submitted, and gives back those that it did not need, as one that diverges does.
    What a resumed sweep found in its file counts too, and so do epochs that trials share, in each of them: the sum over all
    trials of the result is what the budget bounds.
    """

    def __init__(self, budget: float | str | None) -> None:
        self.epochs = float(budget) if isinstance(budget, (int, float)) else float("inf")
        seconds = float("inf") if not isinstance(budget, str) else seconds_in(budget)
        self.deadline = time.monotonic() + seconds
        self.taken: dict[Trial, tuple[int, int]] = {}
        self.known: set[Trial] = set()  # whose epochs are counted

    def take(self, trial: Trial, until: int, state: State | None) -> bool:
        """Whether a trial may go on to that epoch."""
        before = state.record.epochs if state is not None else 0
        self.known.add(trial)
        if trial in self.taken:
            return True  # it runs again, since its result was lost
        if until - before > self.epochs:
            return False
        self.epochs -= until - before
        self.taken[trial] = before, until
        return True

    def ran(self, record: Record) -> None:
        """Give back what a trial did not need."""
        _, until = self.taken.pop(record.trial, (0, record.epochs))
        self.epochs += until - record.epochs

    def found(self, record: Record) -> None:
        """Count a trial that ran before this sweep was resumed."""
        if record.trial not in self.known:
            self.known.add(record.trial)
            self.epochs -= record.epochs

    def share(self, epochs: int) -> bool:
        """Whether a trial may take so many epochs from another."""
        if epochs > self.epochs:
            return False
        self.epochs -= epochs
        return True

    def late(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self.deadline


def seconds_in(text: str) -> float:
    """Seconds in "90 s", "5 min" or "2 h".

    Raises
    ------
    ValueError
        If it is no such text.
    """
    for unit, factor in (("min", 60.0), ("s", 1.0), ("h", 3600.0)):
        if text.strip().endswith(unit):
            return float(text.strip()[:-len(unit)]) * factor
    raise ValueError(text)
