"""What a sweep found."""
from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fastnet.base import checks
from fastnet.sequential import Sequential
from fastnet.sweep.choice.metrics import DEFAULTS, Metric, metric_of
from fastnet.sweep.choice.suggestion import Suggestion, suggestion_of
from fastnet.sweep.choice.table import Table, tabulate
from fastnet.sweep.record import Record
from fastnet.sweep.show import tables
from fastnet.sweep.show.arrays import Arrays
from fastnet.sweep.spec import Setting, Spec, Trial, in_words
from fastnet.sweep.store import journal


class Score(NamedTuple):
    """A number of one network and rate over the seeds that converged, and how far it may be off."""

    mean: float
    error: float  # standard error of the mean; 0 for a single seed
    seeds: int
    diverged: int


class SweepResult(Arrays):
    """The trials of a sweep, as arrays, tables and a picture.

    Arrays have an axis for the rates and one for the seeds, in the order they were asked for; with cross-validation a third
    one for the folds; and in front of them one each for the networks, batch sizes, momenta, weight decays, schedules and
    optimizers of which there were several: `axes` says which, in that order. Numbers of trials that have not been run are
    nan.

    Attributes
    ----------
    axes : dict
        The axes of the arrays below: names, and the values along each.
    lrs, seeds, names : tuple
        Learning rates, seeds, and the names of the builders: a single empty one if there was just a function.
    losses : ndarray, shape (..., n_lr, n_seeds, epochs)
        Mean of the batches' losses in each epoch; nan after a trial diverged or was stopped.
    val_losses, val_accuracies : ndarray, shape (..., n_lr, n_seeds, epochs)
        Of the validation data, or of the samples that the fold holds out, after each epoch.
    accuracies, test_losses : ndarray, shape (..., n_lr, n_seeds)
        Of the test data, with the weights at the end of each trial, diverged and stopped ones included.
    status : ndarray of str, shape (..., n_lr, n_seeds)
        ``"done"``, ``"diverged"``, ``"stopped"`` (by the search) or ``"missing"``.
    diverged_in : ndarray of int, shape (..., n_lr, n_seeds)
        The epoch, from 1, in which a trial diverged; 0 if it did not.
    epochs_run : ndarray of int, shape (..., n_lr, n_seeds)
        How many epochs each trial was trained for.
    seconds : ndarray, shape (..., n_lr, n_seeds)
        Time of each trial on the cores it had.
    engines : dict
        What trained each setting; by network if nothing else differs.
    """

    def __init__(self, spec: Spec, records: Mapping[Trial, Record], engines: Mapping[Setting, str],
                 train: Callable[[Spec, Trial, str, int | None], Sequential] | None = None, range_test: Any = None) -> None:
        self.spec, self.settings_engines = spec, dict(engines)
        self.records = records
        self.range_test = range_test  # of lrs="auto"
        self._train = train  # a network as in a trial, by an engine, on all data but those of a fold, if one is named
        self._suggested: dict[Any, Suggestion] = {}

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SweepResult:
        """A sweep from the file that `lr_sweep` was given as `resume`, without its data or networks.

        All but :meth:`best_model` works. If several calls used the file, the result is the grid of the last one.
        """
        spec, engines, records = journal.read(path)
        return cls(spec, records, engines)

    # --- judgement ----------------------------------------------------------------------------------------------------

    def setting(self, **wanted: Any) -> Setting:
        """The setting with these values: ``name``, ``batch_size``, ``momentum``, ``weight_decay``, ``schedule``,
        ``optimizer``.

        Raises
        ------
        ValueError
            If there is none, or several; the message lists what there is.
        """
        return self._setting("SweepResult.setting", wanted)

    def _setting(self, who: str, wanted: dict[str, Any]) -> Setting:
        for field, value in wanted.items():
            checks.choice(who, "hyperparameter", field, self._fields)
            there = [setting.asdict()[field] for setting in self.spec.settings]
            if value not in there:
                raise ValueError(f"{who}: there is no {in_words(field)} {value!r}. There is: {listed(there)}.")
        found = [setting for setting in self.spec.settings
                 if all(setting.asdict()[field] == value for field, value in wanted.items())]
        if len(found) > 1:
            open_ = [field for field in self.axes if field in self._fields and field not in wanted]
            raise ValueError(f"{who}: say which one: " + "; ".join(
                f"{field}={listed(self.axes[field], ' or ')}" for field in open_) + ".")
        return found[0]

    def rate(self, lr: float) -> float:
        """The rate of the sweep that is the given one to 6 digits."""
        return self._rate("SweepResult.rate", lr)

    def _rate(self, who: str, lr: float) -> float:
        lr = checks.rate(who, lr)
        found = [rate for rate in self.lrs if f"{rate:.6g}" == f"{lr:.6g}"]
        if not found:
            raise ValueError(f"{who}: there is no rate {lr:g}. Rates: {listed(f'{rate:.6g}' for rate in self.lrs)}.")
        return found[0]

    def score(self, lr: float, metric: str = "val_accuracy", name: str | None = None, **wanted: Any) -> Score:
        """Mean of a metric, over the seeds and folds of a rate that converged.

        Parameters
        ----------
        lr : float
            One of the rates, to 6 digits.
        metric : str
            After the last epoch: ``"loss"``, ``"val_loss"``, ``"val_accuracy"``, ``"test_loss"``, ``"test_accuracy"``; or in
            the best epoch, ``"best_val_loss"``, ``"best_val_accuracy"``.
        name : str, optional
            Of the builder, if there are several.
        **wanted
            ``batch_size``, ``momentum``, ``weight_decay``, ``schedule``, ``optimizer``, where there are several.

        Returns
        -------
        Score
            A named tuple (mean, error, seeds, diverged); the mean is nan if no seed converged.

        Raises
        ------
        ValueError
            If there is no such rate or setting, or several.
        """
        who = "SweepResult.score"
        checks.choice(who, "metric", metric, tables.metrics(self))
        setting = self._setting(who, {**({} if name is None else {"name": name}), **wanted})
        return self._score(setting, self._rate(who, lr), metric)

    def _score(self, setting: Setting, lr: float, metric: str) -> Score:
        records = [record for repeat in self.spec.repeats()
                   if (record := self.records.get(self.spec.trial(setting, lr, *repeat))) is not None]
        values = np.array([tables.value(record, metric) for record in records if record.status == "done"], dtype=float)
        diverged = sum(record.status == "diverged" for record in records)
        if not len(values):
            return Score(math.nan, math.nan, 0, diverged)
        error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else 0.0
        return Score(float(values.mean()), float(error), len(values), diverged)

    def suggest(self, metric: str | None = None, **wanted: Any) -> Suggestion:
        """The rate to take, and how sure that is.

        It is the rate with the best mean over the seeds and folds; of equal means the middle one. A rate with a trial that
        diverged is never suggested. docs/sweeps.md explains how sure that is.

        Parameters
        ----------
        metric : str or (str, str), optional
            ``"val_accuracy"``, ``"val_loss"``, ``"best_val_accuracy"``, ``"best_val_loss"`` or ``"loss"``, or any curve,
            with ``"max"`` or ``"min"`` where its name does not say what is best. By default what the sweep was given, or the
            validation accuracy, each trial's mean over the last 15% of its epochs; without validation data the training
            loss, with a warning.
        **wanted
            ``name``, ``batch_size``, ``momentum``, ``weight_decay``, ``schedule``, ``optimizer``: look only among
            these.

        Returns
        -------
        Suggestion
            A float, the rate, with ``name``, ``batch_size``, ``momentum``, ``weight_decay``, ``schedule`` and
            ``optimizer``; ``equals``, what is statistically tied with it; ``learned``, whether any rate did better than a
            constant prediction; ``otherwise``, how often other seeds would choose another rate; ``enough`` and ``needed``,
            whether there were enough trials to tell, and how many would be.

        Raises
        ------
        ValueError
            If all rates diverged, or no trial is finished.

        Warns
        -----
        UserWarning
            If no rate learned more than guessing; if there are no validation data; or if the rate is the smallest or the
            largest of the sweep: the best may lie beyond.
        """
        found = self._suggestion(metric, wanted)
        if not found.learned:
            warnings.warn(f"SweepResult.suggest: {found.explanation()}", UserWarning, stacklevel=2)
        if found.metric == "loss" and metric is None and self.metric is None:
            warnings.warn("SweepResult.suggest: the sweep had no validation data, so this judges by the training loss, "
                          "which favours networks that learn their data by heart. Give lr_sweep validation=(x, y) or "
                          "folds=5.", UserWarning, stacklevel=2)
        if found.edge and found.ahead:
            further = "larger" if found.edge == "largest" else "smaller"
            warnings.warn(f"SweepResult.suggest: {found.lr:g} is the {found.edge} rate of the sweep; the best may lie "
                          f'beyond. Add {further} rates, or give lrs="auto".', UserWarning, stacklevel=2)
        return found

    def suggestion(self, metric: str | None = None) -> Suggestion | None:
        """What `suggest` would say, without warnings; None if there is nothing to say."""
        try:
            return self._suggestion(metric, {})
        except ValueError:
            return None

    def conclusion(self) -> str:
        """What `suggest` would say, in words, or why it would say nothing."""
        try:
            return self._suggestion(None, {}).explanation()
        except ValueError as error:
            reason = str(error).partition(": ")[2]
            return reason[:1].upper() + reason[1:]

    def table(self, metric: str | None = None, repeats: list[tuple[int, int]] | None = None, **wanted: Any) -> Table:
        """What `suggest` compares, on all seeds and folds or some."""
        settings = tuple(setting for setting in self.spec.settings
                         if all(setting.asdict()[field] == value for field, value in wanted.items()))
        return tabulate(self.spec, self.records, self.judged_by(metric), settings, repeats)

    def judged_by(self, metric: Any) -> Metric:
        """The metric of that name; by default the one that the sweep was given."""
        curves = dict.fromkeys(name for record in self.records.values() for name in record.curves)
        asked = self.spec.metric if metric is None else metric
        if isinstance(metric, str) and self.spec.metric is not None and self.spec.metric[0] == metric:
            asked = self.spec.metric
        return metric_of("SweepResult.suggest", asked, curves or DEFAULTS)

    def _suggestion(self, metric: str | None, wanted: dict[str, Any]) -> Suggestion:
        for field, value in wanted.items():
            checks.choice("SweepResult.suggest", "hyperparameter", field, self._fields)
            there = list(dict.fromkeys(setting.asdict()[field] for setting in self.spec.settings))
            if value not in there:
                raise ValueError(f"SweepResult.suggest: there is no {in_words(field)} {value!r}. There is: {listed(there)}.")
        key = metric, tuple(wanted.items()), self.spec, sum(record.epochs for record in self.records.values())
        if key not in self._suggested:
            self._suggested[key] = suggestion_of(self.table(metric, **wanted))
        return self._suggested[key]

    @property
    def _fields(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.spec.params)

    def best_model(self, lr: float | None = None, seed: int | None = None, name: str | None = None,
                   fold: int | None = None, **wanted: Any) -> Sequential:
        """Train a network of the sweep again, which gives the same bits, and return it.

        Parameters
        ----------
        lr : float, optional
            By default what `suggest` says; what it returned brings its other hyperparameters with it.
        seed : int, optional
            By default the best of that rate.
        name : str, optional
            Of the builder, if there are several.
        fold : int, optional
            After cross-validation: train on all but this fold, from 1, as the sweep did. By default on all data.
        **wanted
            ``batch_size``, ``momentum``, ``weight_decay``, ``schedule``, ``optimizer``, where there are several.

        Returns
        -------
        Sequential
        """
        from fastnet.sweep.best import best_model

        return best_model(self, lr, seed, fold, wanted if name is None else {"name": name, **wanted})

    # --- tables and pictures ------------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        """A dict for each finished trial, in the order of the sweep."""
        return tables.rows(self)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one line for each finished trial."""
        tables.to_csv(self, path)

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write everything, the losses of all epochs too; null means nan or inf."""
        tables.to_json(self, path)

    def to_pandas(self) -> Any:
        """A DataFrame with one row for each finished trial; needs pandas."""
        return tables.to_pandas(self)

    def plot(self, metric: str | None = None) -> Any:
        """Draw the sweep: loss against epoch, one curve per rate, and a metric against the rate.

        Parameters
        ----------
        metric : str, optional
            As for `score`. By default the accuracies there are, or the loss.

        Returns
        -------
        matplotlib.figure.Figure
            It shows itself in a notebook.
        """
        from fastnet.sweep.show.plot import draw

        return draw(self, metric)

    def save_plot(self, path: str | os.PathLike[str], metric: str | None = None) -> None:
        """Write the picture of `plot` to a file: .png, .pdf or .svg."""
        self.plot(metric).savefig(path, dpi=150)

    def save_report(self, path: str | os.PathLike[str], command: str = "", title: str = "Sweep") -> None:
        """Write one self-contained HTML page: curves to pick out, intervals, who was stopped or diverged, cost, versions."""
        from fastnet.sweep.show.report import write

        write(self, path, command, title)

    def __repr__(self) -> str:
        return tables.text(self)

    def _repr_html_(self) -> str:
        return tables.notebook(self)


def listed(values: Any, by: str = ", ") -> str:
    return by.join(dict.fromkeys(value if isinstance(value, str) and "'" in repr(value) and _number(value) else repr(value)
                                 for value in values))


def _number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
