"""`choose`: judges finished studies, of fastnet or of other tools."""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fastnet.sweep.choice.metrics import DEFAULTS, Metric, metric_of
from fastnet.sweep.choice.suggestion import Suggestion, suggestion_of
from fastnet.sweep.choice.table import Candidate, Table
from fastnet.sweep.grid import checked_rates
from fastnet.sweep.spec import Setting

_WHO = "choose"
_RATES = ("lr", "learning_rate", "learning_rate_init")
_LOST = ("diverged", "fail", "failed")  # in a column "status"


def choose(table: Any, metric: str | tuple[str, str] | None = None, *, lr: str | None = None, seed: str = "seed",
           fold: str = "fold", params: Sequence[str] = (), guess: float | None = None) -> Suggestion:
    """Which rate to take, by the trials of a finished study, and how sure that is.

    Parameters
    ----------
    table : DataFrame of pandas, list of dict, dict of columns, Study of Optuna, or SweepResult
        A row is a trial: its rate, its seed, and what it gave. Of a study of Optuna, parameters and user attributes are the
        columns, and pruned or failed trials are left out.
    metric : str or (str, str), optional
        The column to judge by, with ``"max"`` or ``"min"`` where its name does not say what is best. By default
        ``"val_accuracy"``, ``"val_loss"`` or ``"loss"``; of a study of Optuna its value and direction. A cell may hold an
        array, a value for each held-out sample: errors then count the samples, too.
    lr, seed, fold : str
        The columns of the rate, the seed and the fold. The rate's is ``lr``, ``learning_rate`` or ``learning_rate_init`` by
        default. Without a column of seeds, or where no seed ran with all rates, the trials of a rate are numbered.
    params : sequence of str
        Columns of other hyperparameters; of a study of Optuna, by default all its parameters.
    guess : float, optional
        What a constant prediction gets of the metric.

    Returns
    -------
    Suggestion
        As :meth:`SweepResult.suggest` returns it. A rate with a value that is not finite, or with ``"diverged"`` in a column
        ``status``, is never suggested.

    Examples
    --------
    >>> rows = [{"lr": lr, "seed": seed, "val_loss": abs(lr - 0.1) + 0.01 * seed}
    ...         for lr in (0.03, 0.1, 0.3) for seed in (0, 1)]
    >>> float(choose(rows))
    0.1
    """
    if hasattr(table, "suggestion") and hasattr(table, "spec"):
        return table.suggest(metric)  # type: ignore[no-any-return]
    if hasattr(table, "trials") and hasattr(table, "direction"):
        table, metric, of_study = _of_optuna(table, metric)
        params = params or [name for name in of_study if name not in ((lr,) if lr else _RATES) and name != seed]
    rows = _rows(table)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lr = next((name for name in _RATES if name in columns), "lr") if lr is None else lr
    others = [name for name in columns if isinstance(name, str) and name not in (lr, seed, fold, "status", *params)]
    for name in (lr, *params):
        if name not in columns:
            raise ValueError(f"{_WHO}: there is no column {name!r}. There is: {', '.join(map(repr, columns))}. Give lr=, or "
                             "params=, the names of your columns.")
    if metric is None and not set(DEFAULTS) & set(others):
        raise ValueError(f"{_WHO}: there is no column val_accuracy, val_loss or loss. Say what to judge by, metric=(name, "
                         f"'max' or 'min'). There is: {', '.join(map(repr, others))}.")
    asked = metric[0] if isinstance(metric, (tuple, list)) and metric else metric
    if isinstance(asked, str) and asked not in others:
        raise ValueError(f"{_WHO}: there is no column {asked!r}. There is: {', '.join(map(repr, others))}.")
    judge = metric_of(_WHO, metric, others)
    table = _tabulated(rows, judge, lr, seed if seed in columns else None, fold if fold in columns else None, tuple(params),
                       guess)
    if len(table.candidates) and not np.isfinite(table.values).all(0).any():  # no seed in common: trials are counted
        table = _tabulated(rows, judge, lr, None, None, tuple(params), guess)
    return suggestion_of(table, _WHO)


def _of_optuna(study: Any, metric: Any) -> tuple[list[dict[str, Any]], Any, list[str]]:
    """The finished trials of a study, what to judge by, and its parameters."""
    done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    if metric is None:
        metric = ("value", "max" if study.direction.name == "MAXIMIZE" else "min")
    rows = [{"value": trial.value, **trial.user_attrs, **trial.params} for trial in done]
    return rows, metric, list(dict.fromkeys(name for trial in done for name in trial.params))


def _rows(table: Any) -> list[dict[str, Any]]:
    if hasattr(table, "to_dict") and hasattr(table, "columns"):
        if any(name is not None for name in table.index.names):  # as groupby leaves it
            table = table.reset_index()
        rows = table.to_dict("records")
    elif isinstance(table, Mapping):
        lengths = {len(column) for column in table.values()}
        if len(lengths) != 1:
            raise ValueError(f"{_WHO}: the columns have different lengths, {sorted(lengths)}.")
        rows = [dict(zip(table, values)) for values in zip(*table.values())]
    elif isinstance(table, Iterable) and not isinstance(table, (str, bytes)):
        rows = list(table)
    else:
        rows = [None]
    if not all(isinstance(row, Mapping) for row in rows):
        raise TypeError(f"{_WHO}: table must be a DataFrame, a list of dicts or a dict of columns, got "
                        f"{type(table).__name__}.")
    if any(str(name).startswith("params_") for row in rows[:1] for name in row):  # a table that Optuna made
        rows = [{str(name).removeprefix("params_").removeprefix("user_attrs_"): value for name, value in row.items()}
                for row in rows if row.get("state", "COMPLETE") == "COMPLETE"]
    if not rows:
        raise ValueError(f"{_WHO}: the table has no finished trial.")
    return [dict(row) for row in rows]


def _tabulated(rows: list[dict[str, Any]], metric: Metric, lr: str, seed: str | None, fold: str | None,
               params: tuple[str, ...], guess: float | None) -> Table:
    found: dict[Candidate, dict[tuple[Any, Any], Any]] = {}
    lost: set[Candidate] = set()
    for row in rows:
        try:
            candidate = Candidate(Setting((name, row.get(name)) for name in params), checked_rates([row[lr]], _WHO)[0])
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{_WHO}: the row {row!r} has no rate above 0 in its column {lr!r}.") from None
        of = found.setdefault(candidate, {})
        repeat = (len(of) if seed is None else row.get(seed), None if fold is None else row.get(fold))
        if repeat in of:
            raise ValueError(f"{_WHO}: there are two rows for rate {candidate.lr:g}, seed {repeat[0]}"
                             f"{'' if fold is None else f', fold {repeat[1]}'}. Name the columns in which they differ: "
                             "params=[...].")
        try:
            value = np.asarray(math.nan if row.get(metric.curve) is None else row[metric.curve], float)
        except (TypeError, ValueError):  # a text, or the missing value of pandas
            raise ValueError(f"{_WHO}: the row {row!r} has no number in its column {metric.curve!r}. Leave out "
                             "unfinished trials.") from None
        if not np.isfinite(value).all() or str(row.get("status", "")).lower() in _LOST:
            lost.add(candidate)
        of[repeat] = value
    repeats = sorted(dict.fromkeys(repeat for of in found.values() for repeat in of), key=str)
    candidates = sorted((candidate for candidate in found if candidate not in lost), key=lambda one: (str(one[0]), one[1]))
    values = np.array([[metric.sign * float(of[repeat].mean()) if repeat in of else math.nan for repeat in repeats]
                       for of in map(found.__getitem__, candidates)]).reshape(len(candidates), len(repeats))
    samples = {(i, j): found[candidate][repeat] for i, candidate in enumerate(candidates) for j, repeat in enumerate(repeats)
               if repeat in found[candidate] and found[candidate][repeat].size > 1}
    repeats, values = _independent(repeats, values)
    return Table(metric, candidates, values, repeats, tuple(sorted({candidate.lr for candidate in found})), samples,
                 0 if fold is None else len({repeat[1] for repeat in repeats}), len(lost), guess=guess)


def _independent(repeats: list[tuple[Any, Any]], values: np.ndarray) -> tuple[list[tuple[Any, Any]], np.ndarray]:
    """One repeat where all gave the same numbers: seeds that were ignored say nothing about chance."""
    if len(values) > 1 and len(repeats) > 1 and (values == values[:, :1]).all() and len(set(values[:, 0])) > 1:
        return repeats[:1], values[:, :1]
    return repeats, values
