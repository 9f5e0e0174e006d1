"""Charts as inline SVG, coloured by the page's CSS variables so that they follow light and dark mode."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH, NARROW = 640, 400  # of a chart alone, and of one of several side by side
COLOURS = 6  # --c0 ... --c5 in the page's style


class Point(NamedTuple):
    """A dot with the text that a mouse pointer shows."""

    x: float
    y: float
    tip: str


class Bar(NamedTuple):
    """One peer: an estimate with its interval."""

    name: str
    value: float
    low: float
    high: float
    ours: bool = False


class _Axis:
    """Maps numbers to places between `start` and `stop`, linearly or by their logarithm."""

    def __init__(self, low: float, high: float, start: float, stop: float, log: bool) -> None:
        self.low, self.high, self.start, self.stop, self.log = low, high, start, stop, log

    def __call__(self, value: float) -> float:
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (self.stop - self.start) * (value - low) / (high - low or 1)

    def ticks(self) -> list[float]:
        if self.log:
            powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            return [10.0**power for power in powers]
        step = 10 ** math.floor(math.log10(self.high - self.low or 1))
        step = next(s for s in (step / 5, step / 2, step, 2 * step) if (self.high - self.low) / s <= 5)
        return [i * step for i in range(math.ceil(self.low / step), math.floor(self.high / step + 1e-9) + 1)]


def _svg(height: float, *parts: str, title: str, width: float = WIDTH) -> str:
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>'


def _line(x0: float, y0: float, x1: float, y1: float, kind: str, colour: int | None = None) -> str:
    style = "" if colour is None else f' style="stroke: {_colour(colour)}"'
    return f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" class="{kind}"{style}/>'


def _dot(x: float, y: float, colour: int, tip: str) -> str:
    return (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" class="dot" fill="{_colour(colour)}">'
            f"<title>{escape(tip)}</title></circle>")


def _colour(number: int) -> str:
    return f"var(--c{number % COLOURS})"


def _frame(x: _Axis, y: _Axis, x_label: str, y_label: str) -> list[str]:
    parts = []
    for tick in x.ticks():
        if not x.log and tick % 1:
            continue  # the numbers below lines are counts
        parts += [_line(x(tick), y.start, x(tick), y.stop, "grid"), _text(x(tick), y.start + 18, f"{tick:g}", "middle")]
    for tick in y.ticks():
        parts += [_line(x.start, y(tick), x.stop, y(tick), "grid"), _text(x.start - 8, y(tick) + 4, f"{tick:g}", "end")]
    return [*parts, _text((x.start + x.stop) / 2, y.start + 38, x_label, "middle", "label"),
            _text(x.start - 40, y.stop - 12, y_label, "start", "label")]


def _legend(names: Sequence[str], y: float, width: float = WIDTH, of_lines: bool = False) -> tuple[list[str], float]:
    """Return a legend of dots or lines in as many rows as it needs, and the height of the rows after the first."""
    letter = 9.0 if width <= NARROW else 7.5  # the page's narrow charts have larger letters
    parts, x, first = [], 30.0, y
    for colour, name in enumerate(names):
        if x > 30 and x + 16 + letter * len(name) > width:
            x, y = 30.0, y + 22
        mark = (_line(x - 16, y - 4, x + 6, y - 4, "roof", colour) if of_lines else
                f'<circle cx="{x:.1f}" cy="{y - 4:.1f}" r="5" fill="{_colour(colour)}"/>')
        parts += [mark, _text(x + 10, y, name)]
        x += (46 if of_lines else 30) + letter * len(name)
    return parts, y - first


def roofline(points: Mapping[str, Sequence[Point]], roofs: Mapping[str, float], slopes: Mapping[str, float]) -> str:
    """Draw kernels under the machine's limits, whose names are in the legend, where they cannot collide.

    Parameters
    ----------
    points : dict of sequences
        Operations per byte and GFLOP/s, by dtype.
    roofs, slopes : dict
        The limits in GFLOP/s, a roof for each dtype, and in GB/s, by name.
    """
    every = [point for group in points.values() for point in group]
    top = max([*roofs.values(), *(point.y for point in every)])
    intensities = [point.x for point in every]
    x = _Axis(min([0.05, *intensities]), max([1000, *intensities]) * 1.3, 64, 620, True)
    y = _Axis(min([1, *(point.y for point in every)]) * 0.8, top * 2, 350, 40, True)
    parts = _frame(x, y, "operations per byte", "GFLOP/s")
    for colour, roof in enumerate(roofs.values()):
        knee = max(x.low, roof / max(slopes.values()))
        parts.append(_line(x(knee), y(roof), x.stop, y(roof), "roof", colour))
    for colour, slope in enumerate(slopes.values(), start=len(roofs)):
        begin, end = max(x.low, y.low / slope), max(roofs.values()) / slope
        parts.append(_line(x(begin), y(begin * slope), x(end), y(end * slope), "roof", colour))
    for colour, group in enumerate(points.values()):
        parts += [_dot(x(point.x), y(point.y), colour, point.tip) for point in group]
    legend, more = _legend([f"kernels, {name}" for name in points], 412)
    limits = [*(f"{name} {roof:.0f} GFLOP/s" for name, roof in roofs.items()),
              *(f"{name} {slope:.0f} GB/s" for name, slope in slopes.items())]
    lines, more_lines = _legend(limits, 436 + more, of_lines=True)
    return _svg(446 + more + more_lines, *parts, *legend, *lines, title="Roofline: kernels under this machine's limits")


def bars(rows: Sequence[Bar], unit: str, title: str) -> str:
    """Draw horizontal bars from 0, each with its interval."""
    step = 30
    high = max(min(bar.high, 3 * bar.value) for bar in rows) * 1.02
    x = _Axis(0, high, max(96.0, 16 + 8.5 * max(len(bar.name) for bar in rows)), 320, False)
    parts = []
    for row, bar in enumerate(rows):
        y = 6 + row * step
        parts += [_text(x.start - 8, y + 16, bar.name, "end", "strong" if bar.ours else ""),
                  f'<rect x="{x.start}" y="{y}" width="{x(bar.value) - x.start:.1f}" height="22" rx="3" '
                  f'fill="{_colour(0 if bar.ours else 1)}"><title>{escape(bar.name)}: {bar.value:.3g}{unit}, '
                  f"95 % interval {bar.low:.3g} to {bar.high:.3g}</title></rect>"]
        right = min(bar.high, high)
        if bar.high > bar.low:
            parts += [_line(x(bar.low), y + 11, x(right), y + 11, "whisker")]
            parts += [_line(x(end), y + 6, x(end), y + 16, "whisker") for end in (bar.low, right)]
        parts.append(_text(max(x(right), x(bar.value)) + 8, y + 16, f"{bar.value:.3g}{unit}"))
    return _svg(12 + step * len(rows), *parts, title=title, width=NARROW)


def lines(series: Mapping[str, Sequence[Point]], x_label: str, y_label: str, title: str, *,
          width: float = WIDTH) -> str:
    """Draw lines with dots, one colour each, with y from 0."""
    every = [point for points in series.values() for point in points]
    right = max(point.x for point in every)
    top = max(point.y for point in every)
    x = _Axis(min(point.x for point in every), right, 64, width - 30, False)
    y = _Axis(0, top * 1.1, 260, 30, False)
    parts = _frame(x, y, x_label, y_label)
    for colour, points in enumerate(series.values()):
        path = " ".join(f"{x(point.x):.1f},{y(point.y):.1f}" for point in points)
        parts.append(f'<polyline points="{path}" class="series" stroke="{_colour(colour)}"/>')
        parts += [_dot(x(point.x), y(point.y), colour, point.tip) for point in points]
    legend, more = _legend(list(series), 322, width) if len(series) > 1 else ([], 0.0)
    return _svg(330 + more, *parts, *legend, title=title, width=width)
