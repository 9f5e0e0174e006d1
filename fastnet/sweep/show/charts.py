"""Charts of the reports of sweeps and benchmarks, as SVG, and heat maps."""
from __future__ import annotations

import html
import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

_WIDTH, _HEIGHT = 560, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 12, 44


@dataclass
class Chart:
    """A panel with axes; what is drawn in it is clipped to it.

    `x` and `y` are the ranges, `log` and `log_y` say that x and y are logarithmic.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    x_label: str
    y_label: str
    log: bool = False
    log_y: bool = False
    parts: list[str] = field(default_factory=list)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The place of a point."""
        across, up = _part(x, *self.x, self.log), _part(y, *self.y, self.log_y)
        return (round(_LEFT + across * (_WIDTH - _LEFT - _RIGHT), 1),
                round(_HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM), 1))

    def path(self, xs: Iterable[float], ys: Iterable[float], attributes: str = "") -> str:
        """A line through the finite points; a single one is a short dash."""
        points = [self.at(x, y) for x, y in zip(xs, ys) if math.isfinite(y)]
        if len(points) == 1:
            points.append((points[0][0] + 4, points[0][1]))
        return f'<path {attributes} d="M{" L".join(f"{x} {y}" for x, y in points)}"/>' if points else ""

    def svg(self, label: str) -> str:
        """The chart."""
        marks = []
        for value in _log_ticks(*self.y) if self.log_y else _ticks(*self.y):
            _, at = self.at(self.x[0], value)
            marks.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>'
                         f'<text class="axis" x="{_LEFT - 6}" y="{at + 4}" text-anchor="end">{value:.3g}</text>')
        for value in _log_ticks(*self.x) if self.log else _ticks(*self.x, whole=True):
            at, _ = self.at(value, self.y[0])
            marks.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>'
                         f'<text class="axis" x="{at}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{value:.3g}</text>')
        middle = (_TOP + _HEIGHT - _BOTTOM) / 2
        name = f"c{zlib.crc32(repr((label, self.x, self.y)).encode())}"
        return (f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(label)}">{"".join(marks)}'
                f'<clipPath id="{name}"><rect x="{_LEFT - 6}" y="{_TOP - 6}" width="{_WIDTH - _LEFT - _RIGHT + 12}" '
                f'height="{_HEIGHT - _TOP - _BOTTOM + 12}"/></clipPath><g clip-path="url(#{name})">{"".join(self.parts)}</g>'
                f'<text class="axis" x="{(_LEFT + _WIDTH) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">'
                f"{html.escape(self.x_label)}</text>"
                f'<text class="axis" transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">'
                f"{html.escape(self.y_label)}</text></svg>")


def _part(value: float, low: float, high: float, log: bool) -> float:
    """How far a number is from the lower end of an axis, as a part of its length."""
    if log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return (value - low) / ((high - low) or 1)


def colour(part: float) -> str:
    """From dark blue to yellow, seen on light and on dark ground, and in every kind of colour blindness."""
    stops = [(70, 60, 150), (40, 115, 175), (20, 160, 150), (95, 185, 80), (225, 190, 30)]
    at = min(max(part, 0.0), 1.0) * (len(stops) - 1)
    i = min(int(at), len(stops) - 2)
    return "#" + "".join(f"{round(a + (b - a) * (at - i)):02x}" for a, b in zip(stops[i], stops[i + 1]))


def heat(rows: list[tuple[str, list[tuple[float, str]]]], columns: list[str], corner: str, least: float = 0.0) -> str:
    """A table whose cells are coloured by their values; a cell is (value, text), nan for one without a colour.

    `least` is the range of values that takes all colours at least, so that noise does not look like a difference.
    """
    values = np.array([value for _, cells in rows for value, _ in cells if math.isfinite(value)])
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    low, span = low - max(0.0, least - (high - low)) / 2, max(high - low, least) or 1.0
    lines = ["<tr>" + "".join(f"<th>{html.escape(name)}</th>" for name in (corner, *columns)) + "</tr>"]
    for name, cells in rows:
        line = [f"<th>{html.escape(name)}</th>"]
        for value, text in cells:
            part = (value - low) / span
            style = (f' style="background:{colour(part)};color:{"#000" if part > 0.6 else "#fff"}"'
                     if math.isfinite(value) else "")
            line.append(f'<td class="heat"{style}>{text}</td>')
        lines.append(f"<tr>{''.join(line)}</tr>")
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Four to eight round numbers."""
    if not high > low:
        return [low]
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 8)
    step = max(1.0, step) if whole else step
    return [round(step * k, 12) for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5)):
        found = [digit * 10.0**decade for decade in decades for digit in digits if low <= digit * 10.0**decade <= high]
        if len(found) >= 3:
            break
    return found[::math.ceil(len(found) / 8)]
