"""The curves of a range as a picture."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastnet.gate.history import Curve

_COLUMNS = 2


def draw(curves: Sequence[Curve], file: Path) -> None:
    """One panel per benchmark: per cent since the oldest revision, its 95 % interval, the limit, and steps in red."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [curve for curve in curves if curve.points]
    rows = -(-len(shown) // _COLUMNS) or 1
    figure = Figure(figsize=(5.5 * _COLUMNS, 2.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for number, curve in enumerate(shown, start=1):
        axes = figure.add_subplot(rows, _COLUMNS, number)
        middle = [100 * (point.estimate.ratio - 1) for point in curve.points]
        low = [m - 100 * (point.estimate.low - 1) for m, point in zip(middle, curve.points)]
        high = [100 * (point.estimate.high - 1) - m for m, point in zip(middle, curve.points)]
        axes.axhline(0, color="0.7", linewidth=0.8)
        axes.axhline(100 * curve.limit, color="C3", linewidth=0.8, linestyle=":")
        axes.errorbar(range(len(middle)), middle, yerr=[low, high], marker="o", capsize=3)
        axes.plot(curve.steps, [middle[step] for step in curve.steps], "o", color="C3", markersize=9)
        names = [point.commit[:7] for point in curve.points]
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
        axes.set_title(curve.name.rpartition("/")[2], fontsize=9)
        axes.set_ylabel("slower by, %")
    figure.savefig(file, dpi=120)
