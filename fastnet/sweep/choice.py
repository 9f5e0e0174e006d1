"""Which rate to take, what that is based on, and how sure it is."""
from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fastnet import _checks
from fastnet.sweep.spec import Setting, Spec, Trial
from fastnet.sweep.statistics import not_worse, paired_errors, smoothed, upper_quantile
from fastnet.sweep.trial import Record

CONFIDENCE = 0.95
_DRAWS = 300  # of the bootstrap
_SPREAD = 0.5  # of what a rate's spread exceeds the usual by is taken off its mean
_USUAL = 1.5  # times the median spread is still usual
_WITHIN = 0.01  # differences that do not matter: of an accuracy, or of a loss as a fraction of itself


class Metric(NamedTuple):
    """A number of a trial to judge it by."""

    label: str
    sign: int  # 1 if more is better
    validation: bool
    accuracy: bool


METRICS = {
    "val_accuracy": Metric("validation accuracy", 1, True, True),
    "val_loss": Metric("validation loss", -1, True, False),
    "best_val_accuracy": Metric("validation accuracy in its best epoch", 1, True, True),
    "best_val_loss": Metric("validation loss in its best epoch", -1, True, False),
    "loss": Metric("training loss", -1, False, False),
}


def check_metric(who: str, metric: str | None, validation: bool) -> str:
    """The name of the metric, by default the validation accuracy or, without validation data, the loss."""
    if metric is None:
        return "val_accuracy" if validation else "loss"
    _checks.choice(who, "metric", metric, tuple(METRICS))
    if METRICS[metric].validation and not validation:
        raise ValueError(f"{who}: metric={metric!r} needs validation data. Give lr_sweep validation=(x, y) or folds=5.")
    return metric


def value_of(record: Record, metric: str, epochs: int | None = None) -> float:
    """What a trial gave, after all or so many epochs; nan without such data."""
    values = {"loss": record.losses, "val_loss": record.val_losses, "val_accuracy": record.val_accuracies,
              "best_val_loss": record.val_losses, "best_val_accuracy": record.val_accuracies}[metric][:epochs]
    if not values:
        return math.nan
    if metric.startswith("best"):
        return max(values) if METRICS[metric].accuracy else min(values)
    return values[-1]


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
            row = [sign * value_of(record, metric) if record is not None and record.status == "done" else math.nan
                   for record in of]
            diverged += lost
            if not lost and any(map(math.isfinite, row)):
                candidates.append(Candidate(setting, lr))
                rows.append(row)
    return Table(spec, metric, candidates, np.array(rows, float).reshape(len(rows), len(repeats)), repeats, diverged)


class Suggestion(float):
    """A learning rate, and what it is based on. As a number it is the rate.

    Attributes
    ----------
    setting : Setting
        Its network, batch size, momentum, weight decay and schedule: also as attributes of their own, ``name`` ...
    metric : str
        What it was judged by.
    mean, error : float
        Of the metric at this rate, over the seeds and folds; `error` is the standard error of the mean.
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

    @functools.cached_property
    def otherwise(self) -> float:
        picks = [_pick(self._table, drawn)[0] for drawn in _redrawn(self._table, self._columns)]
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
        raise ValueError("SweepResult.suggest: " + ("every rate diverged. Sweep smaller rates." if table.diverged
                                                    else "no trial is finished yet."))
    columns = np.flatnonzero(table.common)
    best, equal = _pick(table, columns)
    sign = METRICS[table.metric].sign
    mine = table.values[best, columns]
    chosen = Suggestion(table.candidates[best].lr)
    chosen.setting, chosen.metric = table.candidates[best].setting, table.metric
    chosen.label = table.spec.label(chosen.setting)
    chosen.mean, chosen.trials = float(sign * mine.mean()), len(columns)
    chosen.error = float(mine.std(ddof=1) / math.sqrt(len(mine))) if len(mine) > 1 else 0.0
    equal = equal | _close(table, columns, equal)
    chosen.equals = tuple(candidate for candidate, yes in zip(table.candidates, equal) if yes)
    chosen._what = _what(table, columns)
    chosen._table, chosen._columns = table, columns
    chosen.enough, chosen.needed = _enough(table, columns, equal & table.whole, chosen.mean)
    chosen.edge = _edge(table, chosen)
    return chosen


def _close(table: Table, columns: np.ndarray, equal: np.ndarray) -> np.ndarray:
    """Candidates that a search ran on fewer repeats, not enough to tell them from the best.

    One repeat has no scatter of its own: that of the others is taken.
    """
    found = np.zeros(len(equal), bool)
    whole = table.values[table.whole][:, columns]
    if table.whole.all() or len(whole) < 2 or len(columns) < 2:
        return found
    errors, freedom = paired_errors(whole, _groups(table, columns))
    usual = float(np.median(errors[np.triu_indices(len(errors), 1)])) * math.sqrt(len(columns))
    bound = upper_quantile(1 - (1 - CONFIDENCE) / (len(equal) - 1), freedom)
    best = table.values[equal & table.whole].mean(0)  # nan where a repeat is not common
    for i in np.flatnonzero(~table.whole):
        ran = np.isfinite(table.values[i]) & np.isfinite(best)
        if ran.any():
            found[i] = (best - table.values[i])[ran].mean() <= bound * usual / math.sqrt(ran.sum())
    return found


def equal_to_best(table: Table) -> set[Candidate]:
    """Which candidates can't be told apart from the best."""
    _, equal = _pick(table, np.flatnonzero(table.common))
    return {candidate for candidate, yes in zip(table.candidates, equal) if yes}


def _pick(table: Table, columns: np.ndarray) -> tuple[int, np.ndarray]:
    """The index of the choice, and which can't be told apart from the best."""
    values = table.values[:, columns]
    whole = table.whole
    equal = np.zeros(len(values), bool)
    equal[whole] = not_worse(values[whole], CONFIDENCE, _groups(table, columns))
    level, error = _levels(values, whole)
    weights = np.isfinite(values).sum(1) / max(1, len(columns))
    score = neighbourhood(table.candidates, level, weights)
    if np.isnan(error).all():
        error[:] = _within(table.metric, float(np.nanmedian(values)))
    drawn = np.isfinite(error) & np.isfinite(score)
    if drawn.any():  # what neighbours do not explain, beyond noise, is the candidate's own
        misfit = max(0.0, float(np.mean((level - score)[drawn] ** 2) - np.mean(error[drawn] ** 2)))
        score[drawn] += (level - score)[drawn] * misfit / (misfit + error[drawn] ** 2 + 1e-300)
    score[whole] -= _instability(values[whole])
    score[~equal] = -np.inf
    return int(score.argmax()), equal


def _levels(values: np.ndarray, whole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means relative to the whole candidates' in the same repeats, and their standard errors; nan for one repeat."""
    relative = values - values[whole].mean(0)
    level, error = np.zeros(len(values)), np.full(len(values), np.nan)
    for i, row in enumerate(relative):
        ran = row[np.isfinite(row)]
        if len(ran):
            level[i] = ran.mean()
        if len(ran) > 1:
            error[i] = ran.std(ddof=1) / math.sqrt(len(ran))
    return level, error


def neighbourhood(candidates: list[Candidate], level: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The levels smoothed along the logarithm of the rate, each setting by itself; -inf without weight."""
    score = np.full(len(candidates), -np.inf)
    for setting in dict.fromkeys(candidate.setting for candidate in candidates):
        rows = [i for i, candidate in enumerate(candidates) if candidate.setting == setting and weights[i]]
        if rows:
            score[rows] = smoothed(np.log([candidates[i].lr for i in rows]), level[rows], weights[rows])
    return score


def _instability(values: np.ndarray) -> np.ndarray:
    """What rates pay whose trials scatter more than usual."""
    if values.shape[1] < 2:
        return np.zeros(len(values))
    variance = (values - np.median(values, axis=0)).var(1, ddof=1)  # the median: a wild one does not spoil the others
    usual = float(np.median(variance))
    df = values.shape[1] - 1
    spread = np.sqrt((df * variance + 4 * usual) / (df + 4))
    return _SPREAD * np.maximum(0, spread - _USUAL * math.sqrt(usual))


def _groups(table: Table, columns: np.ndarray) -> tuple[np.ndarray, ...]:
    if not table.spec.folds:
        return ()
    seeds, folds = np.array(table.repeats)[columns].T
    return tuple(group for group in (seeds, folds) if len(np.unique(group)) > 1)


def _redrawn(table: Table, columns: np.ndarray) -> list[np.ndarray]:
    """Columns of bootstrap samples: seeds and folds are drawn again, with replacement."""
    if len(columns) < 2:
        return []
    rng = np.random.default_rng(0)
    seeds, folds = np.array(table.repeats)[columns].T
    at = {repeat: column for repeat, column in zip(zip(seeds, folds), columns)}
    draws = []
    for _ in range(_DRAWS):
        drawn = [at[s, f] for s in rng.choice(np.unique(seeds), len(np.unique(seeds)))
                 for f in rng.choice(np.unique(folds), len(np.unique(folds))) if (s, f) in at]
        if drawn:
            draws.append(np.array(drawn))
    return draws


def _enough(table: Table, columns: np.ndarray, equal: np.ndarray, mean: float) -> tuple[bool, int | None]:
    """Whether the candidates that can't be told apart are equal to within what matters, and how many trials it takes."""
    if len(columns) < 2:
        return False, None
    if equal.sum() == 1:
        return True, len(columns)
    within = _within(table.metric, mean)
    errors, df = paired_errors(table.values[equal][:, columns], _groups(table, columns))
    k = int(table.whole.sum())
    worst = float(np.median(errors[np.triu_indices(len(errors), 1)])) * upper_quantile(
        1 - (1 - CONFIDENCE) / max(1, k - 1), df)
    return worst <= within, max(len(columns), math.ceil(len(columns) * (worst / within) ** 2))


def _within(metric: str, mean: float) -> float:
    """Which difference does not matter; with a single seed, also what is taken for noise."""
    return _WITHIN * (1.0 if METRICS[metric].accuracy else abs(mean) or 1.0)


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
    return f"{words} x {table.spec.folds} folds" if table.spec.folds else words


def as_dict(chosen: Suggestion) -> dict[str, Any]:
    """A suggestion as JSON."""
    return {"lr": chosen.lr, **chosen.setting._asdict(), "metric": chosen.metric, "mean": chosen.mean, "error": chosen.error,
            "trials": chosen.trials, "equals": [[*c.setting, c.lr] for c in chosen.equals], "otherwise": chosen.otherwise,
            "enough": chosen.enough, "needed": chosen.needed, "edge": chosen.edge, "explanation": chosen.explanation()}
