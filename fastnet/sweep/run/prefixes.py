"""Schedules with equal beginnings: their trials train these once.

A trial can continue from a state that another trial saved; it has the bits of a trial that ran without interruption.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import takewhile
from typing import NamedTuple

from fastnet.sweep.spec import Setting, Spec, Trial


class Fork(NamedTuple):
    """Up to `epoch`, the followers do what the leader does."""

    epoch: int
    leader: Trial
    followers: tuple[Trial, ...]


def blocks(spec: Spec, trials: list[Trial], size: int) -> list[list[Trial]]:
    """Trials of the same seeds and folds, at least so many: an interrupted sweep has finished those of the first ones.

    Without schedules, nothing is shared, and all trials are one block.
    """
    found: list[list[Trial]] = [[]]
    for trial in trials:
        before = found[-1][-1] if found[-1] else trial
        if len(spec.schedules) > 1 and len(found[-1]) >= size and before[2:] != trial[2:]:
            found.append([])
        found[-1].append(trial)
    return found


def forks(spec: Spec, trials: Iterable[Trial], at: Mapping[Trial, int], until: int,
          engines: Mapping[Setting, str]) -> list[Fork]:
    """What these trials can share on their way to an epoch, in the order of the epochs.

    Parameters
    ----------
    at : dict
        At which epoch the trials stand; those at different ones share nothing.
    until : int
        The state after the last epoch of all is not kept: what is shared ends one epoch before.
    """
    if len(spec.schedules) < 2:
        return []
    groups: dict[object, list[Trial]] = {}
    for trial in trials:
        others = tuple(pair for pair in trial.setting if pair[0] != "schedule")
        groups.setdefault((others, trial[1:], at[trial], engines.get(trial.setting)), []).append(trial)
    factors = {name: values or (1.0,) * spec.epochs for name, values in spec.schedules}
    found = [fork for group in groups.values()
             for fork in _split(group, at[group[0]], min(until, spec.epochs - 1), factors)]
    return sorted(found, key=lambda fork: fork.epoch)


def _split(group: list[Trial], start: int, until: int, factors: Mapping[str, tuple[float, ...]]) -> list[Fork]:
    """The forks of trials that are alike up to `start`."""
    if len(group) < 2 or start >= until:
        return []
    of = [factors[trial.setting.schedule] for trial in group]
    alike = sum(1 for _ in takewhile(lambda epoch: len({values[epoch] for values in of}) == 1, range(start, until)))
    found = [Fork(start + alike, group[0], tuple(group[1:]))] if alike else []
    branches: dict[float, list[Trial]] = {}
    if start + alike < until:
        for trial, values in zip(group, of):
            branches.setdefault(values[start + alike], []).append(trial)
    return found + [fork for branch in branches.values() for fork in _split(branch, start + alike, until, factors)]
