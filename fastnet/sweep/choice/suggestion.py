"""Which rate to take, what that is based on, and how sure it is."""
from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from fastnet.base.student import quantile
from fastnet.sweep.choice.errors import Errors, as_normal, normal_quantile
from fastnet.sweep.choice.metrics import Metric, rounded_error, tolerance
from fastnet.sweep.choice.ranking import CONFIDENCE, best_of, error_of, instability, tied
from fastnet.sweep.choice.table import Candidate, Table
from fastnet.sweep.spec import Setting, rate_text

_FEASIBLE = 100_000  # trials a rate
_MEMORISED = 0.8  # times a constant prediction's training loss: below, the training data were learned


class Suggestion(float):
    """A learning rate, and what it is based on. As a number it is the rate.

    Attributes
    ----------
    setting : Setting
        Its other hyperparameters, which are also attributes of the suggestion: ``name``, ``batch_size`` ...
    metric : str
        What it was judged by.
    mean, error : float
        The metric at this rate, over the seeds and folds, and the standard error of that mean. It counts the held-out
        samples where the sweep knows which of them each trial got right. A trial's accuracy is its mean over the last 15% of
        the epochs.
    trials : int
        Over how many seeds and folds.
    samples : int
        How many held-out samples the errors count; 0 if they count seeds and folds alone.
    equals : tuple of Candidate
        What is statistically tied with the best, with 95% confidence, this one included.
    learned : bool
        False if no rate did better than a constant prediction, beyond chance: then the rate says nothing.
    otherwise : float
        How often as many other seeds would choose another rate, from 0 to 1; nan for a single trial.
    enough : bool
        Whether there were enough trials to tell: the rates in `equals` differ by no more than 0.01 in accuracy, or by 1% of
        a loss.
    needed : int or None
        About how many trials a rate would be enough; None if no feasible number is, or it can't be said from a single one.
    edge : str
        ``"smallest"`` or ``"largest"`` if it is at an edge of the rates, so that the best may lie beyond; else empty.
    """

    setting: Setting
    metric: str
    mean: float
    error: float
    trials: int
    samples: int
    equals: tuple[Candidate, ...]
    learned: bool
    enough: bool
    needed: int | None
    edge: str
    label: str
    _metric: Metric
    _table: Table
    _columns: np.ndarray

    @property
    def lr(self) -> float:
        return float(self)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and "setting" in self.__dict__:
            values = self.setting.asdict()
            return values[name] if name in values else getattr(self.setting, name)
        raise AttributeError(name)

    @functools.cached_property
    def otherwise(self) -> float:
        return instability(self._table, self._columns)

    @property
    def rates(self) -> tuple[float, ...]:
        """The rates of `equals` with the same other hyperparameters."""
        return tuple(sorted(candidate.lr for candidate in self.equals if candidate.setting == self.setting))

    def error_at(self, setting: Setting, lr: float) -> float | None:
        """The standard error of the mean of another candidate; None for one that cannot be chosen."""
        candidate = Candidate(setting, lr)
        known = candidate in self._table.candidates
        return error_of(self._table, self._table.candidates.index(candidate)) if known else None

    @property
    def ahead(self) -> bool:
        """Whether it is better than a constant prediction by its error at least, if not beyond chance."""
        lead = self._metric.sign * (self.mean - (self._table.guess or 0.0))
        return self.learned or lead > self.error > 0

    def explanation(self) -> str:
        """In a few sentences."""
        table = self._table
        shown = functools.partial(rate_text, lrs=table.lrs)
        error = f" +- {self.error:.2g}" if self.error else ""
        found = f"{self._metric.label} {self.mean:.4g}{error} over {_basis(table, self._columns, self.samples)}"
        if not self.learned:
            far = ", as far as the held-out samples tell" if self.ahead else ""
            return (f"No rate learned more than guessing{far}: {found} at best, at rate {shown(self.lr)}; always giving the "
                    f"same answer gets {table.guess:.4g}. {_why_nothing(table, self)}")
        lines = [f"{self.label + ', ' if self.label else ''}learning rate {shown(self.lr)}: {found}."]
        others = [shown(c.lr) for c in self.equals if c.setting == self.setting and c.lr != self.lr]
        elsewhere = len(self.equals) - len(others) - 1
        if others or elsewhere:
            more = f"{elsewhere} with other settings" if elsewhere else ""
            lines.append("Statistically tied with it: " + ", ".join([*others, *([more] if more else [])]) + ".")
        elif len(table.candidates) + table.diverged < 2:
            lines.append("There is no other rate to compare it with.")
        elif self.trials > 1 or self.samples:
            worse = "All others are worse, beyond chance" + (", or diverged." if table.diverged else ".")
            lines.append(worse if len(table.candidates) > 1 else "All others diverged.")
        if self.trials > 1 and not self.samples and self._metric.curve.startswith("val") and not table.folds:
            lines.append("Errors count seeds alone: other held-out samples may choose otherwise.")
        if not math.isnan(self.otherwise):
            lines.append(f"Other seeds would choose another rate in about {self.otherwise:.0%} of cases.")
        if not self.enough and len(table.candidates) > 1:
            lines.append(_advice(self))
        if self.edge:
            lines.append(f"It is the {self.edge} rate of the sweep: the best may lie beyond.")
        return " ".join(lines)

    def __repr__(self) -> str:
        return f"<Suggestion: {self.explanation()}>"


def suggestion_of(table: Table, who: str = "SweepResult.suggest") -> Suggestion:
    """The candidate with the best mean over the seeds and folds that all candidates have; of equal means the middle rate.

    All candidates have the same seeds and held-out samples, so that means are compared in pairs. Nothing is smoothed over
    neighbouring rates: the best one often stands next to the one at which training breaks down.
    """
    if not table.candidates:
        raise ValueError(f"{who}: " + (_all_diverged(table) if table.diverged else "no trial is finished yet."))
    columns = np.flatnonzero(table.common)
    best, metric = best_of(table, columns), table.metric
    equal, found = tied(table, columns)
    own = int(np.flatnonzero(np.flatnonzero(table.whole) == best)[0])
    cells = table.cells(np.array([best]), columns)
    chosen = Suggestion(table.candidates[best].lr)
    chosen.setting, chosen.metric, chosen._metric = table.candidates[best].setting, metric.name, metric
    chosen.label = table.label(chosen.setting)
    chosen.mean, chosen.trials = float(metric.sign * table.values[best, columns].mean()), len(columns)
    chosen.samples = cells.shape[2] if cells.shape[2] > 1 and not table.folds else 0
    chosen.error = rounded_error(chosen.mean, math.sqrt(found.of_mean[own]))
    equal[best] = True
    chosen.equals = tuple(candidate for candidate, yes in zip(table.candidates, equal) if yes)
    chosen._table, chosen._columns = table, columns
    chosen.learned = _learned(table, chosen, cells.shape)
    chosen.enough, chosen.needed = _enough(table, columns, equal[table.whole], found, chosen.mean)
    chosen.edge = _edge(table, chosen)
    return chosen


def _learned(table: Table, chosen: Suggestion, shape: tuple[int, ...]) -> bool:
    """Whether the best is better than a constant prediction, beyond the chance that the best of so many has."""
    if table.guess is None or not math.isfinite(table.guess):
        return True
    lead = table.metric.sign * (chosen.mean - table.guess)
    if lead <= 0 or not chosen.error:
        return lead > 0
    freedom = max(1.0, (chosen.samples or len(chosen._columns)) - 1.0)
    limit = normal_quantile(1 - (1 - CONFIDENCE) / len(table.candidates))
    return bool(as_normal(np.float64(lead / chosen.error), np.float64(freedom)) > limit)


def _why_nothing(table: Table, chosen: Suggestion) -> str:
    if chosen.ahead:
        return ("Give more held-out samples, or folds, to tell. If they do not help, check that each label stands with its "
                "own sample (that y was not shuffled).")
    row = table.candidates.index(Candidate(chosen.setting, chosen.lr))
    fitted = math.nan if table.fitted is None else table.fitted[row]
    if table.guessed_loss is not None and fitted < _MEMORISED * table.guessed_loss:
        return (f"The training loss did fall, to {fitted:.3g}: the training data were learned by heart. Check that each "
                "label stands with its own sample (that y was not shuffled), in the training and the held-out data alike, "
                "and give more held-out samples.")
    return ("Check that x is scaled to about 1 (pixels: x / 255 - 0.5), that each label stands with its own sample (that y "
            "was not shuffled), and try other rates or more epochs.")


def _all_diverged(table: Table) -> str:
    which = f", from {min(table.lrs):g} to {max(table.lrs):g}" if len(table.lrs) > 1 else f": {table.lrs[0]:g}"
    return (f"every rate diverged{which}. Sweep smaller rates; or, if "
            "values of x are large, as the 0 to 255 of pixels are, scale them to about 1: x / 255 - 0.5.")


def _enough(table: Table, columns: np.ndarray, equal: np.ndarray, found: Errors, mean: float) -> tuple[bool, int | None]:
    """Whether the tied candidates are equal to within what matters, and how many trials that takes: by the worst pair."""
    if len(columns) < 2 or len(table.candidates) + table.diverged < 2:
        return False, None
    if equal.sum() < 2:
        return True, len(columns)
    rows = np.flatnonzero(equal)
    pairs = np.array([(i, j) for at, i in enumerate(rows) for j in rows[at + 1:]]).T
    variance, samples = found.variance[tuple(pairs)], found.of_samples[tuple(pairs)]
    worst = int(np.argmax(variance))
    freedom, p = int(min(1000.0, found.freedom[tuple(pairs)][worst])), 1 - (1 - CONFIDENCE) / (len(rows) - 1)
    within = tolerance(table.metric, mean)
    if variance[worst] <= (within / quantile(freedom, 2 * p - 1)) ** 2:
        return True, len(columns)
    allowed = (within / normal_quantile(p)) ** 2  # with many seeds
    if samples[worst] >= allowed:
        return False, None
    needed = len(columns) * (variance[worst] - samples[worst]) / (allowed - samples[worst])
    return False, None if needed > _FEASIBLE else max(len(columns) + 1, math.ceil(needed))


def _advice(chosen: Suggestion) -> str:
    if chosen.trials < 2:
        return "One trial a rate cannot tell: give several seeds, or folds."
    if chosen.needed is None:
        return "That is not enough to tell, and more seeds would hardly be: give more held-out samples, or folds."
    return f"That is not enough to tell: about {chosen.needed} trials a rate would be."


def _edge(table: Table, chosen: Suggestion) -> str:
    """At which edge of the rates it is; none if there are further ones that were merely not run, or that diverged."""
    lrs = sorted(table.lrs)
    if len(lrs) < 2:
        return ""
    return "smallest" if chosen == lrs[0] else "largest" if chosen == lrs[-1] else ""


def _basis(table: Table, columns: np.ndarray, samples: int) -> str:
    seeds = {table.repeats[column][0] for column in columns}
    words = f"{len(seeds)} seed{'s' if len(seeds) != 1 else ''}"
    if table.folds:
        words += f" x {table.folds} folds"
    if table.epochs_averaged > 1:
        words += f" and the last {table.epochs_averaged} epochs"
    return words + (f", on these {samples} held-out samples" if samples else "")


def as_dict(chosen: Suggestion) -> dict[str, Any]:
    """A suggestion as JSON."""
    return {"lr": chosen.lr, **chosen.setting.asdict(), "metric": chosen.metric, "mean": chosen.mean, "error": chosen.error,
            "trials": chosen.trials, "samples": chosen.samples,
            "equals": [{**c.setting.asdict(), "lr": c.lr} for c in chosen.equals], "learned": chosen.learned,
            "otherwise": chosen.otherwise, "enough": chosen.enough, "needed": chosen.needed, "edge": chosen.edge,
            "explanation": chosen.explanation()}
