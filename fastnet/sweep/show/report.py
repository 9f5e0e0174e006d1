"""The report of a sweep: one self-contained HTML page, to be looked at rather than read."""
from __future__ import annotations

import html
import math
import os
import platform
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnet._version import __version__
from fastnet.base.student import interval
from fastnet.sweep.choice.metrics import settled
from fastnet.sweep.choice.suggestion import Suggestion
from fastnet.sweep.record import Record
from fastnet.sweep.show import tables
from fastnet.sweep.show.charts import Chart, colour, heat
from fastnet.sweep.show.page import CSS, JS
from fastnet.sweep.show.plot import best_settings, style
from fastnet.sweep.spec import Setting, in_words, rate_text

if TYPE_CHECKING:
    from fastnet.sweep.result import SweepResult

_LEAST = 0.1  # of an accuracy axis


def write(result: SweepResult, path: str | os.PathLike[str], command: str = "", title: str = "Sweep") -> None:
    """Write the page.

    Parameters
    ----------
    result : SweepResult
    path : path
    command : str
        What made the sweep, to be shown.
    title : str
    """
    with open(path, "w", encoding="utf-8") as file:
        file.write(page(result, command, title))


def page(result: SweepResult, command: str, title: str) -> str:
    """The page's text."""
    suggestion, colours = result.suggestion(), _colours(result)
    answer = suggestion.explanation() if suggestion else "Nothing to suggest: no trial is finished, or all diverged."
    body = [f"<h1>{html.escape(title)}</h1>", f'<section class="answer">{html.escape(answer)}</section>', _facts(result)]
    if result.finished:
        body += [_panels(result, suggestion, colours), _heat_maps(result), _range_tests(result), _table(result)]
    body.append(_origin(result, command))
    return ("<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
            f"<title>{html.escape(title)}</title><style>{CSS}</style><main>{''.join(body)}</main><script>{JS}</script></html>")


def _facts(result: SweepResult) -> str:
    records = _all(result)
    total = len(result.spec.trials())
    count = {status: sum(record.status == status for record in records) for status in ("done", "diverged", "stopped")}
    facts = [(f"{len(result.lrs)}", "rates"), (f"{len(result.seeds)}", "seeds")]
    facts += [(str(result.spec.folds), "folds")] if result.spec.folds else []
    facts += [(str(len(values)), f"{in_words(field)} values") for field, values in result.axes.items()
              if field in dict(result.spec.params)]
    facts += [(str(count["done"]), f"of {total} trials run to the end"), (str(count["diverged"]), "diverged"),
              (str(count["stopped"]), "stopped early"), (str(total - len(records)), "not begun"),
              (f"{sum(record.epochs for record in records)}", "epochs trained"),
              (f"{result.cost:.0%}", "of the full grid's"),
              (f"{sum(record.seconds for record in records):.3g} s", "of training, all trials added")]
    return '<ul class="facts">' + "".join(f"<li><b>{value}</b> {what}</li>" for value, what in facts) + "</ul>"


def _panels(result: SweepResult, suggestion: Suggestion | None, colours: dict[float, str]) -> str:
    """Curves and metrics of each setting; one setting at a time."""
    settings = best_settings(result)
    first = suggestion.setting if suggestion is not None and suggestion.setting in settings else settings[0]
    limits = _limits(result, settings)
    parts = []
    for setting in settings:
        label = result.spec.label(setting)
        chips, charts = _chips(result, colours), _charts(result, setting, suggestion, limits, colours)
        parts.append(f'<div data-group data-choice="setting" data-value="{html.escape(label)}"'
                     f'{"" if setting == first else " hidden"}>{chips}<div class="cards">'
                     + "".join(f'<div class="card">{chart}</div>' for chart in charts)
                     + "</div></div>")
    select = ""
    if len(settings) > 1:
        options = "".join(f'<option{" selected" if setting == first else ""}>{html.escape(label)}</option>'
                          for setting in settings for label in [result.spec.label(setting)])
        select = f'<label>Setting <select id="setting">{options}</select></label>'
    note = ('<p class="note">Thin lines are single seeds, thick ones their mean. A curve that ends early was stopped, one '
            'with a cross diverged. Against the rate: points are single trials, bars 95% intervals of their mean, the band '
            "holds what is statistically tied with the best. Pick rates to see them alone.</p>")
    return f"<section><h2>Curves</h2>{select}{note}{''.join(parts)}</section>"


def _limits(result: SweepResult, settings: list[Setting]) -> dict[str, tuple[float, float]]:
    """The y-axes, common to all settings."""
    found = {}
    for kind in _names(result, curves=True):
        tops = [max(series) for record in _all(result) if record.status != "diverged" and record.trial.setting in settings
                and (series := record.curves.get(kind))]
        if tops:
            most = min(1.05 * max(tops), 2 * float(np.median(tops)))  # a rate that jumps may leave the panel
            found[f"curve of {kind}"] = (0.0, 1.0) if _accuracy(kind) else (min(0.0, *tops), most)
    for metric in _names(result):
        accuracy = _accuracy(metric)
        values = [value for record in _all(result) if record.trial.setting in settings
                  and (record.status == "done" or (accuracy and record.status == "diverged"))
                  and math.isfinite(value := tables.value(record, metric))]
        if values:
            low, high = min(values), max(values)
            pad = max((high - low) * 0.08, (_LEAST - (high - low)) / 2 if accuracy else 1e-3)
            found[metric] = (max(0.0, low - pad) if low >= 0 else low - pad,
                             min(1.0, high + pad) if accuracy else high + pad)
    return found


def _charts(result: SweepResult, setting: Setting, suggestion: Suggestion | None,
            limits: dict[str, tuple[float, float]], colours: dict[float, str]) -> list[str]:
    charts = [_curves(result, setting, kind, style(kind)[0], limits[f"curve of {kind}"], colours)
              for kind in _names(result, curves=True) if f"curve of {kind}" in limits]
    return charts + [_against_rate(result, setting, metric, suggestion, limits[metric], colours) for metric in _names(result)
                     if metric in limits]


def _names(result: SweepResult, curves: bool = False) -> list[str]:
    """What is shown against the epoch, or against the rate."""
    known = {name for record in result.records.values() for name in record.curves}
    first = ("loss", "val_loss", "val_accuracy") if curves else ("val_accuracy", "val_loss", "test_accuracy", "loss")
    there = known if curves else {*known, *(name for record in result.records.values() for name in record.final)}
    return [*(name for name in first if name in there), *sorted(there - {*first, "test_loss"})]


def _accuracy(name: str) -> bool:
    return name.endswith("accuracy")


def _curves(result: SweepResult, setting: Setting, kind: str, label: str, y: tuple[float, float],
            colours: dict[float, str]) -> str:
    chart = Chart((1, max(2, result.spec.epochs)), y, "epoch", label)
    for lr in sorted(result.lrs):
        records = _records(result, setting, lr)
        series = [record.curves.get(kind, []) for record in records]
        series = [one for one in series if one]
        if not series:
            continue
        lost = all(record.status == "diverged" for record in records)
        stroke = f'stroke="{"var(--bad)" if lost else colours[lr]}"'
        lines = [chart.path(range(1, len(one) + 1), one, f'class="one" {stroke}') for one in series]
        converged = [record.curves.get(kind, []) for record in records if record.status != "diverged"]
        if converged:
            longest = max(map(len, converged))
            mean = np.mean([one for one in converged if len(one) == longest], axis=0)
            lines.append(chart.path(range(1, longest + 1), mean, stroke))
        for record in records:
            last = record.curves[kind][-1] if record.curves.get(kind) else math.nan
            if record.status == "diverged":
                x, at = chart.at(record.epochs, min(last, y[1]) if math.isfinite(last) else y[1])
                lines.append(f'<text x="{x}" y="{at + 4}" text-anchor="middle" fill="var(--bad)">&#215;</text>')
        chart.parts.append(_curve(result, lr, lines))
    return chart.svg(f"{label} against epoch")


def _against_rate(result: SweepResult, setting: Setting, metric: str, suggestion: Suggestion | None,
                  y: tuple[float, float], colours: dict[float, str]) -> str:
    label = style(metric)[0]
    lrs = sorted(result.lrs)
    chart = Chart((lrs[0] / 1.3, lrs[-1] * 1.3), y, "learning rate", label, log=True)
    if suggestion is not None and suggestion.setting == setting:
        (left, top), (right, bottom) = (chart.at(suggestion.rates[0] / 1.04, y[1]),
                                        chart.at(suggestion.rates[-1] * 1.04, y[0]))
        x, _ = chart.at(suggestion.lr, y[0])
        chart.parts.append(
            f'<rect x="{left}" y="{top}" width="{right - left:.1f}" height="{bottom - top:.1f}" fill="var(--band)"/>'
            f'<line x1="{x}" x2="{x}" y1="{top}" y2="{bottom}" stroke="var(--accent)" stroke-dasharray="4 3"/>')
    means = []
    for lr in lrs:
        records = _records(result, setting, lr)
        values = [tables.value(record, metric) for record in records if record.status == "done"]
        marks = [f'<circle cx="{x}" cy="{at}" r="2.5" fill="{colours[lr]}" opacity=".6"/>'
                 for x, at in (chart.at(lr, value) for value in values if math.isfinite(value))]
        for record in records:
            value = tables.value(record, metric)
            if record.status == "diverged":
                x, at = chart.at(lr, value if math.isfinite(value) and value <= y[1] else y[1])
                marks.append(f'<text x="{x}" y="{at + 4}" text-anchor="middle" fill="var(--bad)">&#215;</text>')
        if values and np.isfinite(values).all():
            mean = float(np.mean(values))
            means.append((lr, mean))
            _, least, most = interval(values) if len(values) > 1 else (mean, mean, mean)
            (x, low), (_, high) = chart.at(lr, least), chart.at(lr, most)
            marks.append(f'<path d="M{x} {low} V{high} M{x - 4} {low} h8 M{x - 4} {high} h8" stroke="{colours[lr]}" '
                         f'stroke-width="1.5" fill="none"/><circle cx="{x}" cy="{chart.at(lr, mean)[1]}" r="4" '
                         f'fill="{colours[lr]}"/>')
        chart.parts.append(_curve(result, lr, marks))
    if means:
        rates, heights = zip(*means)
        chart.parts.append(chart.path(rates, heights, 'stroke="var(--soft)" fill="none" opacity=".6"'))
    return chart.svg(f"{label} against learning rate")


def _heat_maps(result: SweepResult) -> str:
    """Rate x anything: the metric, and how far each trial came."""
    suggestion = result.suggestion()
    metric = suggestion._metric if suggestion else result.judged_by(None)
    sign = metric.sign
    axes = [field for field in result.axes if field != "lr"]

    def value(records: list[Record]) -> tuple[float, str]:
        done = [settled(record, metric) for record in records if record.status == "done"]
        if done:
            return sign * float(np.mean(done)), f"{np.mean(done):.3g}"
        return math.nan, _fate(records)

    def epochs(records: list[Record]) -> tuple[float, str]:
        ran = [record.epochs for record in records]
        return (float(np.mean(ran)) if ran else math.nan), (f"{np.mean(ran):.3g} {_fate(records)}" if ran else "")

    parts = []
    for what, cell, least in ((metric.label, value, 0.03 if metric.accuracy else 0.0),
                              ("epochs trained: who was stopped or diverged when", epochs, float(result.spec.epochs))):
        parts.append(f"<h3>{what}</h3>")
        for axis in axes:
            parts.append(f'<div data-choice="axis" data-value="{axis}"{"" if axis == axes[0] else " hidden"}>'
                         + _heat_map(result, axis, cell, least) + "</div>")
    options = "".join(f'<option value="{axis}">{axis.replace("_", " ")}</option>' for axis in axes)
    return (f'<section><h2>Heat maps</h2><label>Learning rate against <select id="axis">{options}</select></label>'
            f"{''.join(parts)}</section>")


def _heat_map(result: SweepResult, axis: str, cell: Callable[[list[Record]], tuple[float, str]], least: float) -> str:
    found: dict[tuple[float, Any], list[Record]] = {}
    for record in _all(result):
        found.setdefault((record.trial.lr, record.trial.asdict()[axis]), []).append(record)
    rows = [(rate_text(lr, result.lrs), [cell(found.get((lr, value), [])) for value in result.axes[axis]])
            for lr in sorted(result.lrs)]
    return heat(rows, [str(value) for value in result.axes[axis]], f"rate \\ {axis.replace('_', ' ')}", least)


def _fate(records: list[Record]) -> str:
    words = []
    for status, css in (("diverged", "bad"), ("stopped", "stopped")):
        count = sum(record.status == status for record in records)
        if count:
            words.append(f'<span class="{css}">{status}{f" {count}x" if count > 1 else ""}</span>')
    return " ".join(words)


def _curve(result: SweepResult, lr: float, parts: list[str]) -> str:
    """What a chart shows of a rate, to be picked out by it."""
    return f'<g class="curve" data-lr="{lr:g}"><title>rate {rate_text(lr, result.lrs)}</title>{"".join(parts)}</g>'


def _range_tests(result: SweepResult) -> str:
    """Of lrs="auto": the loss of a growing rate."""
    if not result.range_test:
        return ""
    cards = []
    for name, test in result.range_test.items():
        top = 1.5 * float(np.nanmax(test.smooth[:max(2, len(test.smooth) // 2)]))
        chart = Chart((float(test.lrs[0]), float(test.lrs[-1])), (0.0, top), "learning rate", "loss of a mini-batch",
                      log=True)
        (left, _), (right, _) = chart.at(test.low, 0), chart.at(test.high, 0)
        chart.parts += [f'<rect x="{left}" y="0" width="{right - left:.1f}" height="400" fill="var(--band)"/>',
                        chart.path(test.lrs, test.losses, 'stroke="var(--soft)" fill="none" opacity=".5"'),
                        chart.path(test.lrs, test.smooth, 'stroke="var(--accent)" fill="none" stroke-width="2"')]
        cards.append(f'<div class="card">{f"<h3>{html.escape(name)}</h3>" if name else ""}{chart.svg("range test")}</div>')
    return ("<section><h2>Range test</h2><p class=note>One short run whose rate grows from step to step. The grid began in "
            f"the band.</p><div class=cards>{''.join(cards)}</div></section>")


def _table(result: SweepResult) -> str:
    lines = ["".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in line)
             for tag, line in zip(["th", *["td"] * (len(result.lrs) * len(result.spec.settings))], tables.grid(result))]
    table = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<section><h2>All rates</h2><div class=wide><table>{table}</table></div></section>"


def _origin(result: SweepResult, command: str) -> str:
    import numba

    spec = result.spec
    values = "".join(f"{in_words(name)} {', '.join(map(str, of))}, " for name, of in spec.params if of != ("",))
    asked = (f"epochs {spec.epochs}, {values}shuffle {spec.shuffle}, search {spec.search}, "
             f"seeds {', '.join(map(str, spec.seeds))}")
    engines = ", ".join(sorted(set(result.engines.values())))
    lines = [command or "lr_sweep(...)", asked, f"engines: {engines}",
             f"fastnet {__version__}, NumPy {np.__version__}, Numba {numba.__version__}, "
             f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"]
    return f"<section><h2>How it was made</h2><pre>{html.escape(chr(10).join(lines))}</pre></section>"


def _chips(result: SweepResult, colours: dict[float, str]) -> str:
    return '<div class="chips" role="group" aria-label="Learning rates">' + "".join(
        f'<button type="button" data-lr="{lr:g}" aria-pressed="false"><i style="background:{colours[lr]}"></i>'
        f"{rate_text(lr, result.lrs)}</button>" for lr in sorted(result.lrs)) + "</div>"


def _colours(result: SweepResult) -> dict[float, str]:
    """By rank, so that neighbours differ however the rates are spaced; rates that all diverged do not use colours up."""
    useful = {record.trial.lr for record in _all(result) if record.status != "diverged"}
    rank, ranks = 0, {}
    for lr in sorted(result.lrs):
        ranks[lr] = rank
        rank += lr in useful
    last = max(1, rank - 1)
    return {lr: colour(min(place / last, 1.0) if rank > 1 else 0.5) for lr, place in ranks.items()}


def _all(result: SweepResult) -> list[Record]:
    return [result.records[trial] for trial in result.spec.trials() if trial in result.records]


def _records(result: SweepResult, setting: Setting, lr: float) -> list[Record]:
    trials = [result.spec.trial(setting, lr, *repeat) for repeat in result.spec.repeats()]
    return [result.records[trial] for trial in trials if trial in result.records]
