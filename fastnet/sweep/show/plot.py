"""The picture of a sweep: losses against epoch, one curve per rate; accuracy or loss against the rate, with its interval."""
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnet.base import checks
from fastnet.base.figure import Picture
from fastnet.base.student import quantile
from fastnet.sweep.record import Record
from fastnet.sweep.show import tables
from fastnet.sweep.spec import Setting, in_words

if TYPE_CHECKING:
    from fastnet.sweep.result import SweepResult

_IN_LEGEND = 8  # more rates than this have a colour bar in place of a legend
_ROWS = 6  # of settings: the best ones
_RED = "#d55e00"  # vermilion, which stands out from the colour map for every kind of colour blindness
_METRICS = {"val_accuracy": ("validation accuracy", "#0072b2", "o"), "test_accuracy": ("test accuracy", "#e69f00", "s"),
            "loss": ("training loss", "black", "o"), "val_loss": ("validation loss", "#0072b2", "o"),
            "test_loss": ("test loss", "#e69f00", "s"),
            "best_val_loss": ("validation loss, best epoch", "#0072b2", "o"),
            "best_val_accuracy": ("validation accuracy, best epoch", "#0072b2", "o")}
_LEAST = 0.1  # the least height of the accuracy axis, so that a difference of one image in a hundred does not look large


def draw(result: SweepResult, metric: str | None = None) -> Picture:
    """A row of panels for each setting: training loss, validation loss if there is one, and the metric against the rate."""
    known = tables.metrics(result)
    shown = _metrics(result) if metric is None else [checks.choice("SweepResult.plot", "metric", metric, known)]
    records = [result.records[trial] for trial in result.spec.trials() if trial in result.records]
    if not records:
        figure = Picture(figsize=(6, 2))
        figure.text(0.5, 0.5, "No trial is finished yet.", ha="center", va="center")
        return figure
    settings = best_settings(result)
    curves = [kind for kind in ("loss", "val_loss") if any(record.curves.get(kind) for record in records)] or [known[0]]
    figure = Picture(figsize=(1 + 5 * (len(curves) + 1), 5 * len(settings)), layout="constrained")
    panels = figure.subplots(len(settings), len(curves) + 1, squeeze=False)
    for setting, row in zip(settings, panels):
        for axes, kind in zip(row, curves):
            _curves(figure, axes, result, setting, kind)
        _against_rate(row[-1], result, setting, shown)
        if result.spec.label(setting):
            row[0].set_title(result.spec.label(setting), loc="left", fontweight="bold")
    for column in panels.T:  # settings are compared by eye
        limits = np.array([axes.get_ylim() for axes in column])
        for axes in column:
            axes.set_ylim(limits[:, 0].min(), limits[:, 1].max())
    if len(settings) < len(result.spec.settings):
        figure.suptitle(f"The best {len(settings)} of {len(result.spec.settings)} settings", fontsize="medium")
    return figure


def _metrics(result: SweepResult) -> list[str]:
    rows, judge = result.rows(), result.suggestion()
    found = [m for m in ("val_accuracy", "test_accuracy") if any(not math.isnan(r.get(m, math.nan)) for r in rows)]
    return found or [tables.metrics(result)[0] if judge is None else judge.metric]


def style(metric: str) -> tuple[str, str, str]:
    """Label, colour and marker of a metric."""
    return _METRICS.get(metric, (in_words(metric), "#0072b2", "o"))


def best_settings(result: SweepResult) -> list[Setting]:
    """Those that are drawn, in the order of the sweep."""
    settings = list(result.spec.settings)
    if len(settings) <= _ROWS:
        return settings
    suggested = result.suggestion()
    metric = suggested.metric if suggested else "loss"
    sign = suggested._metric.sign if suggested else -1
    best = {setting: np.nanmax([-np.inf, *(sign * result._score(setting, lr, metric).mean for lr in result.lrs)])
            for setting in settings}
    kept = sorted(settings, key=lambda setting: -best[setting])[:_ROWS]
    return [setting for setting in settings if setting in kept]


def _records(result: SweepResult, setting: Setting, lr: float) -> list[Record]:
    return [result.records[trial] for repeat in result.spec.repeats()
            if (trial := result.spec.trial(setting, lr, *repeat)) in result.records]


def _curves(figure: Any, axes: Any, result: SweepResult, setting: Setting, kind: str) -> None:
    """Mean of the trials that did not diverge; of a rate at which all did, as far as it is finite, dashed."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, LogNorm

    lrs = sorted(result.lrs)
    useful = [lr for lr in lrs if any(record.status != "diverged" for record in _records(result, setting, lr))] or lrs
    norm = LogNorm(useful[0], useful[-1]) if len(useful) > 1 else LogNorm(useful[0] / 2, useful[0] * 2)
    colours = ListedColormap(colormaps["viridis"](np.linspace(0, 0.92, 256)))  # its last yellow is too pale on white
    highest, banded = [], False
    for lr in lrs:
        records = _records(result, setting, lr)
        converged = [_series(record, kind) for record in records if record.status != "diverged"]
        colour = colours(norm(lr))
        if converged:
            longest = max(map(len, converged))
            curves = np.array([curve for curve in converged if len(curve) == longest])
            epochs, mean = np.arange(1, longest + 1), curves.mean(0)
            highest.append(np.max(mean))
            stopped = longest < result.spec.epochs
            axes.plot(epochs, mean, color=colour, lw=1.5, label=_rate(lr) + (", stopped" if stopped else ""),
                      marker="." if longest < 3 else None)
            if stopped:
                axes.plot(epochs[-1], mean[-1], "|", color=colour, ms=10, mew=2)
            if len(curves) > 1 and len(lrs) <= _IN_LEGEND:
                axes.fill_between(epochs, curves.min(0), curves.max(0), color=colour, alpha=0.2, lw=0)
                banded = True
        elif records:
            seen = np.array(_series(records[0], kind))
            seen = np.where(np.isfinite(seen), seen, np.nan)
            if np.isfinite(seen).any():
                axes.plot(np.arange(1, len(seen) + 1), seen, color=_RED, ls="--", marker="x", label=f"{_rate(lr)}, diverged")
    if highest:
        axes.set_ylim(0, min(1.05 * max(highest), 2 * float(np.median(highest))))  # a rate that jumps may leave the panel
    axes.set(xlabel="epoch" + (" (bands: all seeds)" if banded else ""), ylabel=style(kind)[0])
    axes.set_xlim(0.5, result.spec.epochs + 0.5)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    if not axes.lines:
        axes.text(0.5, 0.5, "all diverged in their first epoch" if any(_records(result, setting, lr) for lr in lrs)
                  else "not run yet", transform=axes.transAxes, ha="center")
    elif len(lrs) <= _IN_LEGEND:
        _legend(axes, title="learning rate")
    elif kind == "loss":
        bar = figure.colorbar(ScalarMappable(norm, colours), ax=axes, label="learning rate", location="bottom", aspect=40)
        bar.ax.xaxis.set_major_formatter(lambda value, _: _rate(value))


def _series(record: Record, kind: str) -> list[float]:
    return record.curves.get(kind, [])


def _against_rate(axes: Any, result: SweepResult, setting: Setting, metrics: list[str]) -> None:
    """Mean, 95% interval and single trials at each rate; crosses where trials diverged, at the value they had then."""
    lrs = sorted(result.lrs)
    intervals = []
    for metric in metrics:
        label, colour, marker = style(metric)
        drawn, means, spread, points = [], [], [], 0
        for lr in lrs:
            values = [tables.value(record, metric) for record in _records(result, setting, lr) if record.status == "done"]
            if values and np.isfinite(values).all():
                points += len(values)
                drawn.append(lr)
                means.append(float(np.mean(values)))
                spread.append(_interval(values))
                axes.plot([lr] * len(values), values, ".", color=colour, ms=3, alpha=0.5)
        axes.errorbar(drawn, means, spread, color=colour, marker=marker, ms=5 if len(lrs) <= 20 else 3, lw=1.5, capsize=3,
                      label=label + (" (mean, 95% interval)" if any(spread) else " (mean)" if len(lrs) < points else ""))
        intervals += spread
        _diverged(axes, result, setting, metric, lrs)
    axes.set_xscale("log")
    axes.set_xlim(lrs[0] / 1.5, lrs[-1] * 1.5)
    axes.xaxis.set_major_formatter(lambda value, _: _rate(value))
    accuracy = all(metric.endswith("accuracy") for metric in metrics)
    _modest(axes, max(intervals, default=0.0), accuracy, _chance(result) if accuracy else None)
    suggested = result.suggestion()
    if suggested is not None and suggested.ahead and suggested.setting == setting:
        if len(suggested.rates) > 1:
            axes.axvspan(suggested.rates[0], suggested.rates[-1], color="grey", alpha=0.12, lw=0,
                         label="statistically tied")
        how = "" if suggested.metric == "val_accuracy" else f" by {style(suggested.metric)[0]}"
        axes.axvline(suggested.lr, color="grey", ls=":", label=f"suggested{how}: {_rate(suggested.lr)}")
    axes.set(xlabel="learning rate", ylabel="accuracy" if accuracy else style(metrics[0])[0])
    axes.grid(alpha=0.3)
    _legend(axes)


def _diverged(axes: Any, result: SweepResult, setting: Setting, metric: str, lrs: list[float]) -> None:
    inside: list[tuple[float, float]] = []
    outside: list[tuple[float, float]] = []
    for lr in lrs:
        for record in _records(result, setting, lr):
            if record.status == "diverged":
                value = tables.value(record, metric)
                (inside if math.isfinite(value) else outside).append((lr, value))
    label = "diverged" if not any("diverged" in str(line.get_label()) for line in axes.lines) else None
    if inside:
        axes.plot(*zip(*inside), "x", ms=7, mew=2, color=_RED, zorder=3, label=label)
    elif outside:  # on the frame itself: inside, the cross would be read as a value
        axes.plot([lr for lr, _ in outside], [1] * len(outside), "x", ms=7, mew=2, color=_RED, zorder=3, clip_on=False,
                  transform=axes.get_xaxis_transform(), label=label)


def _modest(axes: Any, interval: float, accuracy: bool, chance: float | None) -> None:
    """Limits that show noise as noise: at least four intervals high; an accuracy's at least 0.1, and not beyond 0 and 1."""
    low, high = axes.get_ylim()
    least = max(4 * interval, _LEAST if accuracy else 0.0)
    if high - low < least:
        low, high = (low + high - least) / 2, (low + high + least) / 2
    if accuracy:
        if chance is not None and low < chance + 0.25:
            low = min(low, chance - 0.03)
            axes.axhline(chance, color="grey", lw=1, ls="--", label=f"chance: {chance:.2g}")
        low, high = max(low, 0.0), min(high, 1.0)
    axes.set_ylim(low, high)


def _chance(result: SweepResult) -> float | None:
    return dict(result.spec.guess).get("val_accuracy")


def _legend(axes: Any, title: str | None = None) -> None:
    """Below the panel, where no curve is."""
    axes.legend(title=title, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, frameon=False)


def _rate(lr: float) -> str:
    return f"{lr:.3g}" if 1e-4 <= lr < 1e5 else f"{lr:.2e}"


def _interval(values: list[float]) -> float:
    """Half the 95% confidence interval of the mean; 0 for two values, whose interval (t = 12.7) would say nothing."""
    n = len(values)
    return 0.0 if n < 3 else float(np.std(values, ddof=1)) / math.sqrt(n) * quantile(n - 1)
