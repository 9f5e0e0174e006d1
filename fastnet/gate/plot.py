"""The curves of a range, and of a record, as pictures."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastnet.gate.history import Curve
    from fastnet.gate.record import Series

_COLUMNS = 2


def draw(curves: Sequence[Curve], file: Path) -> None:
    """One panel per benchmark: per cent since the oldest revision, its interval, the limit, and steps in red."""
    def panel(axes: Any, curve: Curve) -> None:
        middle = [100 * (point.estimate.ratio - 1) for point in curve.points]
        low = [m - 100 * (max(point.estimate.low, 0.01) - 1) for m, point in zip(middle, curve.points)]
        high = [100 * (min(point.estimate.high, 100.0) - 1) - m for m, point in zip(middle, curve.points)]
        axes.axhline(100 * curve.limit, color="C3", linewidth=0.8, linestyle=":")
        axes.errorbar(range(len(middle)), middle, yerr=[low, high], marker="o", capsize=3)
        axes.plot(curve.steps, [middle[step] for step in curve.steps], "o", color="C3", markersize=9)
        _label(axes, curve.name, [point.commit for point in curve.points])

    _panels([curve for curve in curves if curve.points], panel, file)


def draw_record(series: Sequence[Series], file: Path) -> None:
    """One panel per benchmark: per cent since the first commit of the record, and change points in red."""
    def panel(axes: Any, one: Series) -> None:
        levels = [100 * (level - 1) for level in one.levels]
        axes.plot(levels, marker="o", markersize=3, linewidth=0.8)
        for change in one.changes:
            axes.axvline(change - 0.5, color="C3", linewidth=1)
        _label(axes, one.name, one.commits)

    _panels(series, panel, file)


def _panels(shown: Sequence[Any], panel: Callable[[Any, Any], None], file: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(shown) // _COLUMNS) or 1
    figure = Figure(figsize=(5.5 * _COLUMNS, 2.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for number, one in enumerate(shown, start=1):
        axes = figure.add_subplot(rows, _COLUMNS, number)
        axes.axhline(0, color="0.7", linewidth=0.8)
        panel(axes, one)
        axes.set_ylabel("slower by, %")
    figure.savefig(file, dpi=120)


def _label(axes: Any, name: str, commits: Sequence[str]) -> None:
    every = -(-len(commits) // 12) or 1
    axes.set_xticks(range(0, len(commits), every), [commit[:7] for commit in commits[::every]], rotation=45, ha="right",
                    fontsize=8)
    axes.set_title(name.rpartition("/")[2], fontsize=9)
