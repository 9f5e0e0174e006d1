"""What a sweep found."""
from __future__ import annotations

import csv
import html
import json
import math
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fastnet import _checks
from fastnet.sequential import Sequential
from fastnet.sweep.spec import Builders, Spec, Trial
from fastnet.sweep.trial import Record

METRICS = ("loss", "val_loss", "val_accuracy", "test_loss", "test_accuracy")
_COLUMNS = ("name", "lr", "seed", "status", "epochs", *METRICS, "engine", "seconds")


class Score(NamedTuple):
    """A number of one network and rate over the seeds that converged, and how far it may be off."""

    mean: float
    error: float  # standard error of the mean; 0 for a single seed
    seeds: int
    diverged: int


class SweepResult:
    """The trials of a sweep, as arrays, tables and a picture.

    Arrays have an axis for the rates and one for the seeds, in the order they were asked for, and in front of them one
    for the networks if there were several builders. Numbers of trials that have not been run are nan.

    Attributes
    ----------
    lrs, seeds, names : tuple
        Learning rates, seeds, and the names of the builders: a single empty one if there was just a function.
    losses : ndarray, shape (n_lr, n_seeds, epochs)
        Mean of the batches' losses in each epoch; nan after a trial diverged.
    val_losses, val_accuracies : ndarray, shape (n_lr, n_seeds, epochs)
        Of the validation data, after each epoch.
    accuracies, test_losses : ndarray, shape (n_lr, n_seeds)
        Of the test data, with the weights at the end of each trial, diverged ones included.
    status : ndarray of str, shape (n_lr, n_seeds)
        ``"done"``, ``"diverged"`` or ``"missing"``.
    diverged_in : ndarray of int, shape (n_lr, n_seeds)
        The epoch, from 1, in which a trial diverged; 0 if it did not.
    seconds : ndarray, shape (n_lr, n_seeds)
        Time of each trial on the cores it had.
    engines : dict
        What trained each network.
    """

    def __init__(self, spec: Spec, records: Mapping[Trial, Record], engines: Mapping[str, str], builders: Builders,
                 data: tuple[Any, Any, Any, Any]) -> None:
        self.spec, self.engines = spec, dict(engines)
        self.records = records
        self._builders, self._data = builders, data

    # --- arrays -------------------------------------------------------------------------------------------------------

    @property
    def lrs(self) -> tuple[float, ...]:
        return self.spec.lrs

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.spec.seeds

    @property
    def names(self) -> tuple[str, ...]:
        return self.spec.names

    @property
    def losses(self) -> np.ndarray:
        return self._by_epoch(lambda record: record.losses)

    @property
    def val_losses(self) -> np.ndarray:
        return self._by_epoch(lambda record: record.val_losses)

    @property
    def val_accuracies(self) -> np.ndarray:
        return self._by_epoch(lambda record: record.val_accuracies)

    @property
    def accuracies(self) -> np.ndarray:
        return self._array(lambda record: record.test.accuracy if record.test else np.nan, np.nan)

    @property
    def test_losses(self) -> np.ndarray:
        return self._array(lambda record: record.test.loss if record.test else np.nan, np.nan)

    @property
    def status(self) -> np.ndarray:
        return self._array(lambda record: record.status, "missing")

    @property
    def diverged_in(self) -> np.ndarray:
        return self._array(lambda record: len(record.losses) if record.status == "diverged" else 0, 0)

    @property
    def seconds(self) -> np.ndarray:
        return self._array(lambda record: record.seconds, np.nan)

    @property
    def finished(self) -> int:
        """How many trials have been run."""
        return len(self.records)

    def _array(self, value: Callable[[Record], Any], missing: Any) -> np.ndarray:
        cells = [[[value(self.records[trial]) if (trial := Trial(name, lr, seed)) in self.records else missing
                   for seed in self.seeds] for lr in self.lrs] for name in self.names]
        array = np.array(cells)
        return array[0] if self.names == ("",) else array

    def _by_epoch(self, values: Callable[[Record], list[float]]) -> np.ndarray:
        empty = [np.nan] * self.spec.epochs
        return self._array(lambda record: (values(record) + empty)[:self.spec.epochs], empty)

    # --- judgement ----------------------------------------------------------------------------------------------------

    def score(self, lr: float, metric: str = "val_accuracy", name: str = "") -> Score:
        """Mean of a metric after the last epoch, over the seeds of a rate that converged.

        Parameters
        ----------
        lr : float
        metric : str
            A column of the table: ``"loss"``, ``"val_loss"``, ``"val_accuracy"``, ``"test_loss"``, ``"test_accuracy"``.
        name : str
            Of the builder, if there are several.

        Returns
        -------
        Score
            A named tuple (mean, error, seeds, diverged); the mean is nan if no seed converged.
        """
        _checks.choice("SweepResult.score", "metric", metric, METRICS)
        rows = [row for row in self.rows() if row["lr"] == lr and row["name"] == name]
        values = np.array([row[metric] for row in rows if row["status"] == "done"], dtype=float)
        diverged = sum(row["status"] == "diverged" for row in rows)
        if not len(values):
            return Score(math.nan, math.nan, 0, diverged)
        error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else 0.0
        return Score(float(values.mean()), float(error), len(values), diverged)

    def suggest(self) -> Any:
        """The largest rate whose mean over the seeds is within one standard error of the best.

        Judged by the accuracy on the validation data after the last epoch; without such data by the training loss, with
        a warning. A rate with a seed that diverged is never suggested.

        Returns
        -------
        float or (str, float)
            The rate; if there were several builders, the name of the best and its rate.

        Raises
        ------
        ValueError
            If all rates diverged, or no trial is finished.

        Warns
        -----
        UserWarning
            If there are no validation data, or the rate is the smallest or the largest of the sweep: the best may lie
            beyond.
        """
        if self._judged_by()[0] == "loss":
            warnings.warn("SweepResult.suggest: the sweep had no validation data, so this judges by the training loss, "
                          "which favours networks that learn their data by heart. Give lr_sweep validation=(x, y).",
                          UserWarning, stacklevel=2)
        name, lr = self._suggested(self.names)
        tried = sorted({row["lr"] for row in self.rows() if row["name"] == name})
        if lr in (tried[0], tried[-1]):
            side, further = ("largest", "larger") if lr == tried[-1] else ("smallest", "smaller")
            warnings.warn(f"SweepResult.suggest: {lr:g} is the {side} rate of the sweep; the best may lie beyond. Add "
                          f"{further} rates.", UserWarning, stacklevel=2)
        return lr if self.names == ("",) else (name, lr)

    def best_model(self, lr: float | None = None, seed: int | None = None, name: str | None = None) -> Sequential:
        """Train a network of the sweep again, which gives the same bits, and return it.

        Parameters
        ----------
        lr : float, optional
            By default what `suggest` says.
        seed : int, optional
            By default the best of that rate.
        name : str, optional
            Of the builder, if there are several.

        Returns
        -------
        Sequential
        """
        metric, sign = self._judged_by()
        if lr is None:
            name, lr = self._suggested(self.names if name is None else (name,))
        elif name is None:
            name = self.names[0]
        finished = [row for row in self.rows() if row["name"] == name and row["lr"] == lr and row["status"] == "done"]
        if seed is None and finished:
            seed = max(finished, key=lambda row: sign * row[metric])["seed"]
        if seed is None or Trial(name, lr, seed) not in self.records:
            raise ValueError(f"SweepResult.best_model: no trial of {Trial(name, lr, seed or 0)} is finished. Rates: "
                             f"{', '.join(f'{rate:g}' for rate in self.lrs)}; seeds: {list(self.seeds)}"
                             + (f"; names: {list(self.names)}." if self.names != ("",) else "."))
        x, t, validation, _ = self._data
        spec, model = self.spec, self._builders.build(name, seed)
        model.fit(x, t, spec.epochs, lr, spec.batch_size, engine=self.engines[name], validation=validation,
                  shuffle=spec.shuffle, rng=seed if spec.shuffle else None, momentum=spec.momentum,
                  weight_decay=spec.weight_decay, progress=False)
        return model

    def _judged_by(self) -> tuple[str, int]:
        """Name of a column, and 1 if more of it is better."""
        return ("loss", -1) if self._data[2] is None else ("val_accuracy", 1)

    def suggestion(self) -> tuple[str, float] | None:
        """What `suggest` would say, without warnings: the builder's name and the rate; None if there is nothing to say."""
        try:
            return self._suggested(self.names)
        except ValueError:
            return None

    def _suggested(self, names: tuple[str, ...]) -> tuple[str, float]:
        metric, sign = self._judged_by()
        scores = {(name, lr): self.score(lr, metric, name) for name in names for lr in self.lrs}
        whole = {key: score for key, score in scores.items() if score.seeds and not score.diverged}
        if not whole:
            raise ValueError("SweepResult.suggest: " + (
                "every rate diverged. Sweep smaller rates." if any(score.diverged for score in scores.values())
                else "no trial is finished yet."))
        best = max(whole, key=lambda key: sign * whole[key].mean)
        enough = sign * whole[best].mean - whole[best].error
        return max((key for key in whole if key[0] == best[0] and sign * whole[key].mean >= enough), key=lambda key: key[1])

    # --- tables -------------------------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        """A dict for each finished trial, in the order of the sweep."""
        return [_row(self.records[trial]) for trial in self.spec.trials() if trial in self.records]

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one line for each finished trial."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns())
            writer.writeheader()
            writer.writerows({column: row[column] for column in self._columns()} for row in self.rows())

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write everything, the losses of all epochs too; null stands for nan and inf."""
        found = {"spec": vars(self.spec), "engines": self.engines,
                 "trials": [row | {"losses": record.losses, "val_losses": record.val_losses,
                                   "val_accuracies": record.val_accuracies}
                            for row in self.rows() for record in [self.records[Trial(*list(row.values())[:3])]]]}
        with open(path, "w", encoding="utf-8") as file:
            json.dump(_finite(found), file, indent=1, allow_nan=False)
            file.write("\n")

    def to_pandas(self) -> Any:
        """A DataFrame with one row for each finished trial; needs pandas."""
        try:
            import pandas as pd
        except ImportError:
            raise ImportError('SweepResult.to_pandas needs pandas: pip install "fastnet[pandas]".') from None
        return pd.DataFrame(self.rows(), columns=self._columns())

    def plot(self, metric: str | None = None) -> Any:
        """Draw the sweep: loss against epoch, a curve a rate, and a metric against the rate.

        Parameters
        ----------
        metric : str, optional
            As for `score`. By default the accuracies there are, or the loss.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from fastnet.sweep.plot import draw

        return draw(self, metric)

    def save_plot(self, path: str | os.PathLike[str], metric: str | None = None) -> None:
        """Write the picture of `plot` to a file: .png, .pdf or .svg."""
        self.plot(metric).savefig(path, dpi=150)

    def _columns(self) -> list[str]:
        return [column for column in _COLUMNS if column != "name" or self.names != ("",)]

    def _summary(self) -> tuple[str, list[list[str]]]:
        """A headline, and a table with a row for each network and rate."""
        total = len(self.spec.trials())
        diverged = sum(record.status == "diverged" for record in self.records.values())
        head = (f"SweepResult: {len(self.lrs)} rates x {len(self.seeds)} seeds"
                + (f" x {len(self.names)} networks" if self.names != ("",) else "") + f", {self.spec.epochs} epochs; "
                + (f"{self.finished} of {total} trials finished, " if self.finished < total else "")
                + f"{diverged} diverged")
        metrics = [m for m in ("loss", "val_accuracy", "test_accuracy")
                   if any(not math.isnan(row[m]) for row in self.rows())]
        table = [[*(["network"] if self.names != ("",) else []), "rate", *metrics, "diverged", ""]]
        suggested = self.suggestion()
        for name in self.names:
            for lr in sorted(self.lrs):
                scores = [self.score(lr, metric, name) for metric in metrics]
                lost = self.score(lr, "loss", name).diverged
                table.append([*([name] if self.names != ("",) else []), f"{lr:g}", *map(_text, scores),
                              f"{lost} of {len(self.seeds)}" if lost else "",
                              "<- suggested" if (name, lr) == suggested else ""])
        return head, table

    def __repr__(self) -> str:
        head, table = self._summary()
        widths = [max(map(len, column)) for column in zip(*table)]
        return "\n".join([head, *("  ".join(cell.rjust(w) for cell, w in zip(line, widths)).rstrip() for line in table)])

    def _repr_html_(self) -> str:
        head, table = self._summary()
        lines = ["".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in line)
                 for tag, line in zip(["th"] + ["td"] * len(table), table)]
        return f"<p>{html.escape(head)}</p><table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _row(record: Record) -> dict[str, Any]:
    return {**record.trial._asdict(), "status": record.status, "epochs": len(record.losses), "loss": record.losses[-1],
            "val_loss": record.val_losses[-1] if record.val_losses else math.nan,
            "val_accuracy": record.val_accuracies[-1] if record.val_accuracies else math.nan,
            "test_loss": record.test.loss if record.test else math.nan,
            "test_accuracy": record.test.accuracy if record.test else math.nan,
            "engine": record.engine, "seconds": record.seconds}


def _text(score: Score) -> str:
    if math.isnan(score.mean):
        return "-"
    return f"{score.mean:.4g}" + (f" +- {score.error:.2g}" if score.seeds > 1 else "")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
