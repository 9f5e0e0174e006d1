"""What can be chosen, and the table of what its trials gave."""
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fastnet.sweep.choice.metrics import METRICS, settled
from fastnet.sweep.record import Record
from fastnet.sweep.spec import Setting, Spec, Trial


class Candidate(NamedTuple):
    """What can be chosen."""

    setting: Setting
    lr: float


@dataclass
class Table:
    """The values of all candidates without a diverged trial, nan where one was not run to the end."""

    spec: Spec
    metric: str
    candidates: list[Candidate]
    values: np.ndarray  # (candidates, repeats), more is better
    repeats: list[tuple[int, int]]
    diverged: int = 0
    whole: np.ndarray = field(init=False)  # candidates with all repeats
    common: np.ndarray = field(init=False)  # repeats that those have

    def __post_init__(self) -> None:
        ran = np.isfinite(self.values)
        counts = ran.sum(1)
        if not len(counts):
            self.whole, self.common = np.zeros(0, bool), np.zeros(0, bool)
            return
        if self.spec.search != "grid":  # the others were not promoted
            self.whole = counts == counts.max()
            self.common = ran[self.whole].all(0)
        else:  # interrupted: what all have
            self.common = ran.all(0) if ran.all(0).any() else ran[counts == counts.max()].all(0)
            self.whole = ran[:, self.common].all(1)


def tabulate(spec: Spec, records: Mapping[Trial, Record], metric: str, settings: tuple[Setting, ...],
             repeats: list[tuple[int, int]] | None = None) -> Table:
    """The table of these settings, on all seeds and folds, or some."""
    repeats, sign = spec.repeats() if repeats is None else repeats, METRICS[metric].sign
    candidates, rows, diverged = [], [], 0
    for setting in settings:
        for lr in spec.lrs:
            of = [records.get(spec.trial(setting, lr, *repeat)) for repeat in repeats]
            lost = any(record is not None and record.status == "diverged" for record in of)
            row = [sign * settled(record, metric) if record is not None and record.status == "done" else math.nan
                   for record in of]
            diverged += lost
            if not lost and any(map(math.isfinite, row)):
                candidates.append(Candidate(setting, lr))
                rows.append(row)
    return Table(spec, metric, candidates, np.array(rows, float).reshape(len(rows), len(repeats)), repeats, diverged)
