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

from fastnet.sweep.choice.metrics import METRICS as CHOSEN_BY
from fastnet.sweep.choice.metrics import value_of
from fastnet.sweep.choice.suggestion import as_dict
from fastnet.sweep.record import Record
from fastnet.sweep.spec import Setting

if TYPE_CHECKING:
    from fastnet.sweep.result import Score, SweepResult

METRICS = ("loss", "val_loss", "val_accuracy", "test_loss", "test_accuracy", "best_val_loss", "best_val_accuracy")
_COLUMNS = ("lr", "seed", "fold", "batch_size", "momentum", "weight_decay", "schedule", "optimizer", "status", "epochs",
            *METRICS[:5],
            "engine", "seconds")
_IN_TEXT = ("loss", "val_accuracy", "test_accuracy")


def value(record: Record, metric: str) -> float:
    """Of a trial; nan without such data."""
    if metric.startswith("test"):
        return math.nan if record.test is None else getattr(record.test, metric[len("test_"):])
    return value_of(record, metric)


def rows(result: SweepResult) -> list[dict[str, Any]]:
    """A dict for each finished trial."""
    return [_row(result.records[trial]) for trial in result.spec.trials() if trial in result.records]


def columns(result: SweepResult) -> list[str]:
    """Of the tables: only what can differ."""
    optional = set(Setting._fields) | {"fold"}
    return [column for column in ("name", *_COLUMNS) if column not in optional or column in result.axes]


def to_csv(result: SweepResult, path: str | os.PathLike[str]) -> None:
    """Write one line for each finished trial."""
    names = columns(result)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows({column: row[column] for column in names} for row in rows(result))


def to_json(result: SweepResult, path: str | os.PathLike[str]) -> None:
    """Write everything; null stands for nan and inf."""
    suggestion = result.suggestion()
    trials = [_row(record) | {"losses": record.losses, "val_losses": record.val_losses,
                              "val_accuracies": record.val_accuracies}
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
    parts = [f"{len(spec.lrs)} rates", f"{len(spec.seeds)} seeds", *([f"{spec.folds} folds"] if spec.folds else []),
             *(f"{len(values)} {_PLURAL[field]}" for field, values in spec.axes.items() if field in _PLURAL)]
    states = [f"{len(records)} of {total} trials finished"] if len(records) < total and spec.search == "grid" else []
    states.append(f"{sum(record.status == 'diverged' for record in records)} diverged")
    if spec.search != "grid":
        stopped = total - sum(record.status in ("done", "diverged") for record in records)
        states.append(f"{stopped} stopped early or not begun, {result.cost:.0%} of the epochs of the full grid")
    return f"SweepResult: {' x '.join(parts)}, {spec.epochs} epochs; " + ", ".join(states)


_PLURAL = {"name": "networks", "batch_size": "batch sizes", "momentum": "momenta", "weight_decay": "weight decays",
           "schedule": "schedules", "optimizer": "optimizers"}


def grid(result: SweepResult) -> list[list[str]]:
    """A table with a row for each setting and rate, the first row its header."""
    metrics = [m for m in _IN_TEXT if any(not math.isnan(value(record, m)) for record in result.records.values())]
    fields = [field for field in result.axes if field in Setting._fields]
    suggested = result.suggestion()
    if suggested is not None and suggested.metric not in metrics:
        metrics.insert(1 if CHOSEN_BY[suggested.metric].validation else 0, suggested.metric)
    equal = set() if suggested is None else set(suggested.equals)
    lines = [[*("network" if field == "name" else field.replace("_", " ") for field in fields), "rate", *metrics,
              "diverged", ""]]
    repeats = len(result.spec.repeats())
    for setting in result.spec.settings:
        for lr in sorted(result.lrs):
            if _not_looked_at(result, setting, lr):
                continue
            scores = [result._score(setting, lr, metric) for metric in metrics]
            lost = result._score(setting, lr, "loss").diverged
            chosen = suggested is not None and (suggested.setting, suggested.lr) == (setting, lr)
            lines.append([*(str(getattr(setting, field)) for field in fields), f"{lr:.4g}" if lr < 1e4 else f"{lr:g}",
                          *map(_text, scores), f"{lost} of {repeats}" if lost else "",
                          "<- suggested" if chosen else "= not told apart" if (setting, lr) in equal else ""])
    return lines


def _not_looked_at(result: SweepResult, setting: Setting, lr: float) -> bool:
    """Whether a search never looked at this rate with this setting."""
    return result.spec.search == "auto" and not any(
        result.spec.trial(setting, lr, *repeat) in result.records for repeat in result.spec.repeats())


def text(result: SweepResult) -> str:
    """Headline, table and suggestion."""
    lines = grid(result)
    widths = [max(map(len, column)) for column in zip(*lines)]
    suggested = result.suggestion()
    return "\n".join([
        headline(result),
        *("  ".join(cell.rjust(w) if i < len(line) - 1 else cell for i, (cell, w) in enumerate(zip(line, widths))).rstrip()
          for line in lines),
        *([] if suggested is None else [suggested.explanation()])])


def notebook(result: SweepResult) -> str:
    """HTML with the picture in it."""
    suggested = result.suggestion()
    lines = ["".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in line)
             for tag, line in zip(itertools.chain(["th"], itertools.repeat("td")), grid(result))]
    image = io.BytesIO()
    result.plot().savefig(image, dpi=80, format="png")
    return (f"<p>{html.escape(headline(result))}</p>"
            + ("" if suggested is None else f"<p>{html.escape(suggested.explanation())}</p>")
            + f'<img alt="The sweep" src="data:image/png;base64,{base64.b64encode(image.getvalue()).decode()}">'
            + f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>")


def finite(value: Any) -> Any:
    """For JSON: None for what is nan or infinite."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _row(record: Record) -> dict[str, Any]:
    return {**record.trial._asdict(), "status": record.status, "epochs": record.epochs,
            **{metric: value(record, metric) for metric in METRICS[:5]}, "engine": record.engine, "seconds": record.seconds}


def _text(score: Score) -> str:
    if math.isnan(score.mean):
        return "-"
    return f"{score.mean:.4g}" + (f" +- {score.error:.2g}" if score.seeds > 1 else "")
