"""Which rate to take, what that is based on, and how sure it is."""
from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from fastnet.sweep.choice.candidates import Candidate, Table
from fastnet.sweep.choice.metrics import METRICS, averaged_epochs, tolerance
from fastnet.sweep.choice.ranking import CONFIDENCE, also_close, groups, pick, redrawn
from fastnet.sweep.choice.statistics import paired_errors, upper_quantile
from fastnet.sweep.spec import Setting


class Suggestion(float):
    """A learning rate, and what it is based on. As a number it is the rate.

    Attributes
    ----------
    setting : Setting
        Its network, batch size, momentum, weight decay and schedule: also as attributes of their own, ``name`` ...
    metric : str
        What it was judged by.
    mean, error : float
        Of the metric at this rate, over the seeds and folds; `error` is the standard error of the mean. The validation
        accuracy of a trial is its mean over the last 15% of the epochs.
    trials : int
        Over how many seeds and folds.
    equals : tuple of Candidate
        What can't be told apart from the best, with 95% confidence, this one included.
    otherwise : float
        How often another draw of seeds and folds would choose another rate, from 0 to 1; nan for a single trial.
    enough : bool
        Whether there were enough trials to tell: the rates in `equals` differ by no more than 0.01 in accuracy, or by 1% of
        a loss.
    needed : int or None
        About how many trials a rate would be enough; None if that can't be said from a single one.
    edge : str
        ``"smallest"`` or ``"largest"`` if it is at an edge of the rates, so that the best may lie beyond; else empty.
    """

    setting: Setting
    metric: str
    mean: float
    error: float
    trials: int
    equals: tuple[Candidate, ...]
    enough: bool
    needed: int | None
    edge: str
    label: str
    _what: str
    _table: Table
    _columns: np.ndarray

    @property
    def lr(self) -> float:
        return float(self)

    @property
    def name(self) -> str:
        return self.setting.name

    @property
    def batch_size(self) -> int:
        return self.setting.batch_size

    @property
    def momentum(self) -> float:
        return self.setting.momentum

    @property
    def weight_decay(self) -> float:
        return self.setting.weight_decay

    @property
    def schedule(self) -> str:
        return self.setting.schedule

    @property
    def optimizer(self) -> str:
        return self.setting.optimizer

    @functools.cached_property
    def otherwise(self) -> float:
        picks = [pick(self._table, drawn)[0] for drawn in redrawn(self._table, self._columns)]
        mine = self._table.candidates.index(Candidate(self.setting, float(self)))
        return sum(pick != mine for pick in picks) / len(picks) if picks else math.nan

    @property
    def rates(self) -> tuple[float, ...]:
        """The rates of `equals` with the same other hyperparameters."""
        return tuple(sorted(candidate.lr for candidate in self.equals if candidate.setting == self.setting))

    def explanation(self) -> str:
        """In a few sentences."""
        error = f" +- {self.error:.2g}" if self.trials > 1 else ""
        lines = [f"{self.label + ', ' if self.label else ''}learning rate {self.lr:.3g}: {METRICS[self.metric].label} "
                 f"{self.mean:.4g}{error} over {self._what}."]
        others = [f"{c.lr:.3g}" for c in self.equals if c.setting == self.setting and c.lr != self.lr]
        elsewhere = len(self.equals) - len(others) - 1
        if others or elsewhere:
            more = f"{elsewhere} with other settings" if elsewhere else ""
            lines.append("Not to be told apart from it: " + ", ".join([*others, *([more] if more else [])]) + ".")
        elif self.trials > 1:
            lines.append("All others are worse, beyond chance.")
        if not math.isnan(self.otherwise):
            lines.append(f"Another draw would choose otherwise in {self.otherwise:.0%} of cases.")
        if not self.enough:
            lines.append("Not enough trials to tell" + (f"; about {self.needed} a rate would be." if self.needed
                                                        else ": give several seeds, or folds."))
        if self.edge:
            lines.append(f"It is the {self.edge} rate of the sweep: the best may lie beyond.")
        return " ".join(lines)

    def __repr__(self) -> str:
        return f"<Suggestion: {self.explanation()}>"


def choose(table: Table) -> Suggestion:
    """The rate to take: among those that can't be told apart from the best, the one whose neighbourhood is best.

    1. Candidates are compared in pairs, by seed and fold: see `statistics.not_worse`.
    2. Their means are smoothed along the logarithm of the rate, settings apart, since noise does not and the metric does
       carry over to a rate's neighbours; a rate whose trials scatter more than usual pays for it.
    3. The highest smoothed mean among the candidates of 1 is taken. How often a bootstrap over seeds and folds does
       otherwise is counted.
    """
    if not table.candidates:
        raise ValueError("SweepResult.suggest: " + (_all_diverged(table) if table.diverged
                                                    else "no trial is finished yet."))
    columns = np.flatnonzero(table.common)
    best, equal = pick(table, columns)
    sign = METRICS[table.metric].sign
    mine = table.values[best, columns]
    chosen = Suggestion(table.candidates[best].lr)
    chosen.setting, chosen.metric = table.candidates[best].setting, table.metric
    chosen.label = table.spec.label(chosen.setting)
    chosen.mean, chosen.trials = float(sign * mine.mean()), len(columns)
    chosen.error = float(mine.std(ddof=1) / math.sqrt(len(mine))) if len(mine) > 1 else 0.0
    equal = equal | also_close(table, columns, equal)
    chosen.equals = tuple(candidate for candidate, yes in zip(table.candidates, equal) if yes)
    chosen._what = _what(table, columns)
    chosen._table, chosen._columns = table, columns
    chosen.enough, chosen.needed = _enough(table, columns, equal & table.whole, chosen.mean)
    chosen.edge = _edge(table, chosen)
    return chosen


def _all_diverged(table: Table) -> str:
    return (f"every rate diverged, from {min(table.spec.lrs):g} to {max(table.spec.lrs):g}. Sweep smaller rates; or, if "
            "values of x are large, as the 0 to 255 of pixels are, scale them to about 1: x / 255 - 0.5.")


def _enough(table: Table, columns: np.ndarray, equal: np.ndarray, mean: float) -> tuple[bool, int | None]:
    """Whether the candidates that can't be told apart are equal to within what matters, and how many trials it takes."""
    if len(columns) < 2:
        return False, None
    if equal.sum() == 1:
        return True, len(columns)
    within = tolerance(table.metric, mean)
    errors, df = paired_errors(table.values[equal][:, columns], groups(table, columns))
    k = int(table.whole.sum())
    worst = float(np.median(errors[np.triu_indices(len(errors), 1)])) * upper_quantile(
        1 - (1 - CONFIDENCE) / max(1, k - 1), df)
    return worst <= within, max(len(columns), math.ceil(len(columns) * (worst / within) ** 2))


def _edge(table: Table, chosen: Suggestion) -> str:
    """At which edge of the rates it is; none if there are further ones that were merely not run, or that diverged."""
    lrs = sorted(table.spec.lrs)
    tried = table.spec.lrs
    if len(tried) < 2:
        return ""
    return "smallest" if chosen == lrs[0] else "largest" if chosen == lrs[-1] else ""


def _what(table: Table, columns: np.ndarray) -> str:
    seeds = {table.repeats[column][0] for column in columns}
    words = f"{len(seeds)} seed{'s' if len(seeds) != 1 else ''}"
    if table.spec.folds:
        words += f" x {table.spec.folds} folds"
    epochs = averaged_epochs(table.metric, table.spec.epochs)
    return f"{words} and the last {epochs} epochs" if epochs > 1 else words


def as_dict(chosen: Suggestion) -> dict[str, Any]:
    """A suggestion as JSON."""
    return {"lr": chosen.lr, **chosen.setting._asdict(), "metric": chosen.metric, "mean": chosen.mean, "error": chosen.error,
            "trials": chosen.trials, "equals": [[*c.setting, c.lr] for c in chosen.equals], "otherwise": chosen.otherwise,
            "enough": chosen.enough, "needed": chosen.needed, "edge": chosen.edge, "explanation": chosen.explanation()}
