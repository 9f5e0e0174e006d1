"""The tables of a sweep: text, HTML, CSV, JSON, pandas."""
from __future__ import annotations

import base64
import csv
import html
import io
import itertools
import json
import math
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnet.sweep.choice.metrics import Metric, rounded_error, settled
from fastnet.sweep.choice.suggestion import Suggestion, as_dict
from fastnet.sweep.record import Record
from fastnet.sweep.spec import Setting, in_words, rate_text

if TYPE_CHECKING:
    from fastnet.sweep.result import SweepResult

_USUAL = ("loss", "val_loss", "val_accuracy", "test_loss", "test_accuracy")
_NOT_IN_TEXT = ("val_loss", "test_loss")


def metrics(result: SweepResult) -> tuple[str, ...]:
    """What there is to show of a trial: curves, what is only reported, and curves in their best epoch."""
    curves = list(dict.fromkeys(name for record in result.records.values() for name in record.curves))
    final = list(dict.fromkeys(name for record in result.records.values() for name in record.final))
    there = [*curves, *final]
    usual = _USUAL if set(there) <= set(_USUAL) else [name for name in _USUAL if name in there]
    return (*usual, *(name for name in there if name not in _USUAL), *(f"best_{name}" for name in usual if name in (
        "val_loss", "val_accuracy")), *(f"best_{name}" for name in curves if name not in _USUAL))


def value(record: Record, metric: str) -> float:
    """What a trial gave: the last value of a curve, or its best; nan without such data."""
    if metric in record.final:
        return record.final[metric]
    if metric in record.curves:
        return record.curves[metric][-1] if record.curves[metric] else math.nan
    curve = record.curves.get(metric.removeprefix("best_"), [])
    if not curve or not metric.startswith("best_"):
        return math.nan
    return min(curve) if "loss" in metric or "error" in metric else max(curve)


def rows(result: SweepResult) -> list[dict[str, Any]]:
    """A dict for each finished trial."""
    names = _numbers(result)
    return [_row(result.records[trial], names) for trial in result.spec.trials() if trial in result.records]


def columns(result: SweepResult) -> list[str]:
    """Of the tables: only what can differ."""
    fields = [name for name, _ in result.spec.params]
    names = [*(["name"] if "name" in fields else []), "lr", "seed", "fold", *(name for name in fields if name != "name")]
    shown = [column for column in names if column in result.axes]
    return [*shown, "status", "epochs", *_numbers(result), "engine", "seconds"]


def _numbers(result: SweepResult) -> list[str]:
    return [name for name in metrics(result) if not name.startswith("best_")]


def to_csv(result: SweepResult, path: str | os.PathLike[str]) -> None:
    """Write one line for each finished trial."""
    names = columns(result)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows({column: row[column] for column in names} for row in rows(result))


def to_json(result: SweepResult, path: str | os.PathLike[str]) -> None:
    """Write everything; null means nan or inf."""
    suggestion = result.suggestion()
    names = _numbers(result)
    trials = [_row(record, names) | {"losses": record.losses, "val_losses": record.val_losses,
                                     "val_accuracies": record.val_accuracies, "curves": dict(record.curves)}
              for trial in result.spec.trials() if (record := result.records.get(trial)) is not None]
    found = {"spec": asdict(result.spec), "engines": result.engines,
             "suggestion": None if suggestion is None else as_dict(suggestion), "trials": trials}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(finite(found), file, indent=1, allow_nan=False)
        file.write("\n")


def to_pandas(result: SweepResult) -> Any:
    """A DataFrame."""
    try:
        import pandas as pd
    except ImportError:
        raise ImportError('SweepResult.to_pandas needs pandas: pip install "fastnet-kernels[pandas]".') from None
    return pd.DataFrame(rows(result), columns=columns(result))


def headline(result: SweepResult) -> str:
    """How large the sweep is, and what became of it."""
    spec = result.spec
    total = len(spec.trials())
    records = [result.records[trial] for trial in spec.trials() if trial in result.records]
    parts = [_counted(len(spec.lrs), "rate"), _counted(len(spec.seeds), "seed"),
             *([f"{spec.folds} folds"] if spec.folds else []),
             *(f"{len(values)} {_PLURAL.get(field, f'values of {field}')}" for field, values in spec.axes.items()
               if field in dict(spec.params))]
    states = [f"{len(records)} of {total} trials finished"] if len(records) < total and spec.search == "grid" else []
    states.append(f"{sum(record.status == 'diverged' for record in records)} diverged")
    if spec.budget is not None:
        states.append(f"{sum(record.epochs for record in records)} epochs, with a budget of "
                      + (spec.budget if isinstance(spec.budget, str) else f"{spec.budget:g}"))
    if spec.search != "grid":
        stopped = total - sum(record.status in ("done", "diverged") for record in records)
        states.append(f"{stopped} stopped early or not begun, {result.cost:.0%} of the epochs of the full grid")
    return f"SweepResult: {' x '.join(parts)}, {spec.epochs} epochs; " + ", ".join(states)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


_PLURAL = {"name": "networks", "batch_size": "batch sizes", "momentum": "momenta", "weight_decay": "weight decays",
           "schedule": "schedules", "optimizer": "optimizers"}


def grid(result: SweepResult) -> list[list[str]]:
    """A table with a row for each setting and rate, the first row its header."""
    records = result.records.values()
    names = [m for m in _numbers(result) if any(not math.isnan(value(record, m)) for record in records)]
    fields = [field for field in result.axes if field in dict(result.spec.params)]
    suggested = result.suggestion()
    judge = None if suggested is None else suggested._metric
    names = [m for m in names if m not in _NOT_IN_TEXT and (judge is None or m != judge.name)]
    of_training = 1 if "loss" in names else 0
    equal = set() if suggested is None or not suggested.ahead else set(suggested.equals)
    heads = ["network" if field == "name" else in_words(field) for field in fields]
    lines = [[*heads, "rate", *names, "trials", "diverged", ""]]
    if judge is not None:
        lines[0].insert(len(fields) + 1 + of_training, _judged(judge, suggested))
    repeats = len(result.spec.repeats())
    for setting in result.spec.settings:
        for lr in sorted(result.lrs):
            if _not_looked_at(result, setting, lr):
                continue
            of = [record for repeat in result.spec.repeats()
                  if (record := result.records.get(result.spec.trial(setting, lr, *repeat))) is not None]
            done, lost = [record for record in of if record.status == "done"], sum(r.status == "diverged" for r in of)
            shown = [_text([value(record, name) for record in done]) for name in names]
            if judge is not None:
                error = None if suggested is None else suggested.error_at(setting, lr)
                shown.insert(of_training, _text([settled(record, judge) for record in done], error))
            chosen = suggested is not None and suggested.ahead and (suggested.setting, suggested.lr) == (setting, lr)
            lines.append([*(str(setting.asdict()[field]) for field in fields), rate_text(lr, result.lrs, 4),
                          *shown, str(len(done)), f"{lost} of {repeats}" if lost else "",
                          "<- suggested" if chosen else "= tied" if (setting, lr) in equal else ""])
    return lines


def _judged(metric: Metric, suggested: Suggestion | None) -> str:
    """The name of the column that the suggestion was made from."""
    epochs = 1 if suggested is None else suggested._table.epochs_averaged
    return metric.name + (f", last {epochs} epochs" if epochs > 1 else "")


def _not_looked_at(result: SweepResult, setting: Setting, lr: float) -> bool:
    """Whether a search never looked at this rate with this setting."""
    return result.spec.search == "auto" and not any(
        result.spec.trial(setting, lr, *repeat) in result.records for repeat in result.spec.repeats())


def text(result: SweepResult) -> str:
    """Headline, table and suggestion."""
    lines = grid(result)
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join([
        headline(result),
        *("  ".join(cell.rjust(w) if i < len(line) - 1 else cell for i, (cell, w) in enumerate(zip(line, widths))).rstrip()
          for line in lines),
        result.conclusion()])


def notebook(result: SweepResult) -> str:
    """HTML with the picture in it."""
    lines = ["".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in line)
             for tag, line in zip(itertools.chain(["th"], itertools.repeat("td")), grid(result))]
    image = io.BytesIO()
    result.plot().savefig(image, dpi=80, format="png")
    return (f"<p>{html.escape(headline(result))}</p>"
            + f"<p>{html.escape(result.conclusion())}</p>"
            + f'<img alt="The sweep" src="data:image/png;base64,{base64.b64encode(image.getvalue()).decode()}">'
            + f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>")


def finite(value: Any) -> Any:
    """For JSON: None for what is nan or infinite."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _row(record: Record, names: list[str]) -> dict[str, Any]:
    return {**record.trial.asdict(), "status": record.status, "epochs": record.epochs,
            **{name: value(record, name) for name in names}, "engine": record.engine, "seconds": record.seconds}


def _text(values: list[float], error: float | None = None) -> str:
    """The mean, and its standard error: over seeds and folds, if none is given."""
    if not values or math.isnan(np.mean(values)):
        return "-"
    mean = float(np.mean(values))
    if error is None and len(values) > 1:
        error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return f"{mean:.4g}" + (f" +- {rounded_error(mean, error):.2g}" if error is not None and (
        error or len(values) > 1) else "")
