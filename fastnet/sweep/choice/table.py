"""What can be chosen, and the table of what its trials gave."""
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fastnet.sweep.choice.metrics import Metric, averaged_epochs, settled
from fastnet.sweep.record import Record
from fastnet.sweep.spec import Setting, Spec, Trial


class Candidate(NamedTuple):
    """What can be chosen."""

    setting: Setting
    lr: float


@dataclass
class Table:
    """The values of all candidates without a diverged trial.

    Attributes
    ----------
    values : ndarray, shape (candidates, repeats)
        More is better; nan where a trial was not run to the end.
    repeats : list of (seed, fold)
    samples : dict
        The value of every held-out sample, by candidate and repeat, where it is known.
    spec : Spec, optional
        The arguments of the sweep, if fastnet ran it.
    whole_grid, cut_short : bool
        Whether trials are missing by accident, since no search left them out; and whether a budget may have ended it.
    """

    metric: Metric
    candidates: list[Candidate]
    values: np.ndarray
    repeats: list[tuple[int, int]]
    lrs: tuple[float, ...]
    samples: Mapping[tuple[int, int], np.ndarray] = field(default_factory=dict)
    folds: int = 0
    diverged: int = 0
    whole_grid: bool = True
    cut_short: bool = False
    epochs_averaged: int = 1
    guess: float | None = None  # what a constant prediction gets
    fitted: np.ndarray | None = None  # the mean training loss of each candidate
    guessed_loss: float | None = None  # a constant prediction's training loss
    spec: Spec | None = None
    whole: np.ndarray = field(init=False)  # candidates with all repeats
    common: np.ndarray = field(init=False)  # repeats that those have

    def __post_init__(self) -> None:
        ran = np.isfinite(self.values)
        counts = ran.sum(1)
        if not len(counts):
            self.whole, self.common = np.zeros(0, bool), np.zeros(0, bool)
            return
        if not self.whole_grid:  # the others were not promoted
            most = np.sort(counts)[-2:]  # where the budget ended the last group, it may hold one candidate
            self.whole = counts >= (most[0] if self.cut_short else most[-1])
            self.common = ran[self.whole].all(0)
        else:  # interrupted: what all have
            self.common = ran.all(0) if ran.all(0).any() else ran[counts == counts.max()].all(0)
            self.whole = ran[:, self.common].all(1)

    def label(self, setting: Setting) -> str:
        """What tells a setting from the others."""
        if self.spec is not None:
            return self.spec.label(setting)
        return ", ".join(f"{name} {value}" for name, value in setting)

    def cells(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Values by candidate, seed, and fold or held-out sample, shape (k, seeds, folds or samples or 1)."""
        seeds = list(dict.fromkeys(self.repeats[column][0] for column in columns))
        if self.folds:
            folds = list(dict.fromkeys(self.repeats[column][1] for column in columns))
            at = {self.repeats[column]: column for column in columns}
            seeds = [seed for seed in seeds if all((seed, fold) in at for fold in folds)]
            if seeds:
                order = [at[seed, fold] for seed in seeds for fold in folds]
                return self.values[rows][:, order].reshape(len(rows), len(seeds), len(folds))
        found = [[self.samples.get((row, column)) for column in columns] for row in rows]
        sizes = {None if one is None else len(one) for line in found for one in line}
        if len(sizes) == 1 and None not in sizes:
            return self.metric.sign * np.array(found, np.float32)
        return self.values[rows][:, columns][:, :, None]


def tabulate(spec: Spec, records: Mapping[Trial, Record], metric: Metric, settings: tuple[Setting, ...],
             repeats: list[tuple[int, int]] | None = None) -> Table:
    """The table of these settings, on all seeds and folds, or some."""
    repeats = spec.repeats() if repeats is None else repeats
    rows: list[list[float]] = []
    candidates, fitted, diverged = [], [], 0
    samples = {}
    for setting in settings:
        for lr in spec.lrs:
            of = [records.get(spec.trial(setting, lr, *repeat)) for repeat in repeats]
            lost = any(record is not None and record.status == "diverged" for record in of)
            done = [record if record is not None and record.status == "done" else None for record in of]
            row = [math.nan if record is None else metric.sign * settled(record, metric) for record in done]
            diverged += lost
            if lost or not any(map(math.isfinite, row)):
                continue
            for column, record in enumerate(done):
                if record is not None and not metric.best and metric.curve in record.samples:
                    samples[len(rows), column] = record.samples[metric.curve]
            losses = [record.losses[-1] for record in done if record is not None and record.losses]
            candidates.append(Candidate(setting, lr))
            rows.append(row)
            fitted.append(float(np.mean(losses)) if losses else math.nan)
    guess = dict(spec.guess)
    return Table(metric, candidates, np.array(rows, float).reshape(len(rows), len(repeats)), repeats, spec.lrs, samples,
                 spec.folds, diverged, spec.search == "grid", spec.budget is not None, averaged_epochs(metric, spec.epochs),
                 guess.get(metric.curve), np.array(fitted), guess.get("loss"), spec)
