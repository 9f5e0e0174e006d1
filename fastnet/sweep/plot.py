"""The picture of a sweep: loss against epoch, a curve a rate; accuracy or loss against the rate, with its interval."""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnet import _checks
from fastnet._student import quantile
from fastnet.sweep.result import Score, SweepResult

_IN_LEGEND = 8  # more rates than this are told apart by a colour bar
_RED = "#d55e00"  # vermilion, which stands out from the colour map for every kind of colour blindness
_METRICS = {"val_accuracy": ("validation accuracy", "#0072b2", "o"), "test_accuracy": ("test accuracy", "#e69f00", "s"),
            "loss": ("training loss", "black", "o"), "val_loss": ("validation loss", "#0072b2", "o"),
            "test_loss": ("test loss", "#e69f00", "s")}


def draw(result: SweepResult, metric: str | None = None) -> Any:
    """A matplotlib Figure with two panels for each network."""
    from matplotlib.figure import Figure  # without pyplot: no window, no state, any thread

    shown = _metrics(result) if metric is None else [_checks.choice("SweepResult.plot", "metric", metric, tuple(_METRICS))]
    figure = Figure(figsize=(11, 4.2 * len(result.names)), layout="constrained")
    panels = figure.subplots(len(result.names), 2, squeeze=False)
    for name, (left, right) in zip(result.names, panels):
        _curves(figure, left, result, name)
        _against_rate(right, result, name, shown)
        if name:
            left.set_title(name, loc="left", fontweight="bold")
    return figure


def _metrics(result: SweepResult) -> list[str]:
    rows = result.rows()
    return [m for m in ("val_accuracy", "test_accuracy") if any(not math.isnan(r[m]) for r in rows)] or ["loss"]


def _curves(figure: Any, axes: Any, result: SweepResult, name: str) -> None:
    """Mean loss of the seeds that converged; of a rate at which none did, as far as it is finite, dashed."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, LogNorm

    lrs = sorted(result.lrs)
    losses = result.losses if result.names == ("",) else result.losses[result.names.index(name)]
    status = result.status if result.names == ("",) else result.status[result.names.index(name)]
    drawn = [lr for lr in lrs if "done" in status[result.lrs.index(lr)]] or lrs
    norm = LogNorm(drawn[0], drawn[-1]) if len(drawn) > 1 else LogNorm(drawn[0] / 2, drawn[0] * 2)
    colours = ListedColormap(colormaps["viridis"](np.linspace(0, 0.92, 256)))  # its last yellow is too pale on white
    epochs = np.arange(1, result.spec.epochs + 1)
    highest = []
    for lr in lrs:
        row = result.lrs.index(lr)
        converged = status[row] == "done"
        curve = losses[row][converged if converged.any() else status[row] == "diverged"]
        if not curve.size:
            continue
        if converged.any():
            colour, mean = colours(norm(lr)), curve.mean(0)
            highest.append(mean.max())
            axes.plot(epochs, mean, color=colour, lw=1.5, label=f"{lr:g}", marker="." if len(epochs) < 3 else None)
            if len(curve) > 1 and len(lrs) <= _IN_LEGEND:
                axes.fill_between(epochs, curve.min(0), curve.max(0), color=colour, alpha=0.2, lw=0)
        else:
            seen = np.where(np.isfinite(curve[0]), curve[0], np.nan)
            axes.plot(epochs, seen, color=_RED, ls="--", marker="x", label=f"{lr:g}, diverged")
    if highest:
        axes.set_ylim(0, min(1.05 * max(highest), 2 * float(np.median(highest))))  # a rate that jumps may leave the panel
    axes.set(xlabel="epoch", ylabel="training loss")
    axes.xaxis.get_major_locator().set_params(integer=True)
    if not axes.lines:  # nothing has been run
        return
    if len(lrs) <= _IN_LEGEND:
        axes.legend(title="learning rate", fontsize="small")
    else:
        figure.colorbar(ScalarMappable(norm, colours), ax=axes, label="learning rate")


def _against_rate(axes: Any, result: SweepResult, name: str, metrics: list[str]) -> None:
    """Mean and 95% interval of the seeds that converged, at each rate; a cross below where a seed diverged."""
    lrs = sorted(result.lrs)
    for metric in metrics:
        label, colour, marker = _METRICS[metric]
        scores = [result.score(lr, metric, name) for lr in lrs]
        means = np.array([score.mean for score in scores])
        spread = np.array([_interval(score) for score in scores])
        axes.plot(lrs, means, color=colour, marker=marker, ms=5 if len(lrs) <= 20 else 3, lw=1.5, label=label)
        if len(result.seeds) > 1:
            axes.fill_between(lrs, means - spread, means + spread, color=colour, alpha=0.2, lw=0)
        drawn = np.isfinite(means)
        if drawn.any() and drawn.sum() < 3:  # too few for a band to be seen
            axes.errorbar(np.array(lrs)[drawn], means[drawn], spread[drawn], color=colour, ls="none", capsize=3)
    axes.set_xscale("log")
    accuracy = all(metric.endswith("accuracy") for metric in metrics)
    if accuracy:
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, 0), min(high, 1))
    suggested = result.suggestion()
    if suggested and suggested[0] == name:
        how = "" if any(not math.isnan(row["val_accuracy"]) for row in result.rows()) else " by training loss"
        axes.axvline(suggested[1], color="grey", ls=":", label=f"suggested{how}: {suggested[1]:g}")
    lost = [lr for lr in lrs if result.score(lr, "loss", name).diverged]
    if lost:
        # on the frame itself: inside, the cross would be read as a value
        axes.plot(lost, [0] * len(lost), "x", ms=8, zorder=3, color=_RED, mew=2, transform=axes.get_xaxis_transform(),
                  label="diverged" if len(result.seeds) == 1 else "some seed diverged", clip_on=False)
    axes.set(xlabel="learning rate", ylabel="accuracy" if accuracy else _METRICS[metrics[0]][0])
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _interval(score: Score) -> float:
    """Half the 95% confidence interval of the mean."""
    return score.error * quantile(score.seeds - 1) if score.seeds > 1 else 0.0
