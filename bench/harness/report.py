"""bench/report.html: one page that needs no network, made from the runs stored under .benchmarks/.

``python -m bench.harness.report`` makes it again; ``python -m bench.run`` does so after every run.
"""
from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from bench.harness import table
from fastnet.sweep.show.charts import Chart

STYLE = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
HISTORY = ("fit", "sweep", "gemm", "gram", "step")  # kernels whose history the page draws
RUNS = 30  # the number of latest runs in it

COLOURS = 6  # --c0 ... --c5 in the page's style

Run = dict[str, Any]  # a file of pytest-benchmark's
Entry = Mapping[str, Any]  # one of its benchmarks


class Point(NamedTuple):
    """A dot with the text that a mouse pointer shows."""

    x: float
    y: float
    tip: str




def write(store: Path, file: Path) -> Path:
    """Make the page from all runs in a folder, and return its path."""
    runs = read(store)
    if not runs:
        raise FileNotFoundError(f"There is no stored run in {store}. Make one with python -m bench.run.")
    file.write_text(page(runs), encoding="utf-8")
    return file


def read(store: Path) -> list[Run]:
    """Read the stored full runs, oldest first."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in store.rglob("*.json") if file.stat().st_size]
    full = [run for run in found if run.get("benchmarks") and "limits" in run.get("machine_info", {})]
    return sorted(full, key=lambda run: run["datetime"])[-RUNS:]


def page(runs: Sequence[Run]) -> str:
    """Return the page about the latest run and its history."""
    latest = runs[-1]
    entries = latest["benchmarks"]
    sections = [
        ("Kernels and the machine's limits", "Each dot is a kernel: its arithmetic per byte that it moves, and its speed "
         "(higher is better). The lines are the limits of this machine, measured in the same session. Matrix products can "
         "reach the flat lines; kernels with little arithmetic can reach the sloping ones.", _roofline(latest)),
        ("Comparison with other libraries", "Time relative to fastnet for the same, verified work (lower is better). All "
         "libraries took turns in one process. Whiskers are 95 % intervals of the median.", _peers(entries)),
        ("Sweeps", "Seconds per learning rate of a sweep (lower is better), one chart per job. A sweep computes only once "
         "what its trials share.", _sweeps(entries)),
        ("History", "Median times of stored runs relative to the first run (lower is better). Each is divided by the time "
         "of a NumPy product in the same session, so that a slower machine does not look like slower code.",
         _history(runs)),
        ("All results", "A rate's share is relative to the machine's FMA peak or, if moving the data takes longer, to a "
         "copy of that size on all threads.", _results(entries)),
        ("The machine", "", _machine(latest)),
    ]
    body = "".join(f"<section><h2>{title}</h2>{f'<p>{text}</p>' if text else ''}{content}</section>"
                   for title, text, content in sections if content)
    machine = latest["machine_info"]["fingerprint"]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fastnet: benchmarks</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>fastnet: benchmarks</h1>
<p>{escape(latest["datetime"][:16].replace("T", " "))} UTC, {escape(machine["cpu"])}, {machine["threads"]} threads,
{escape(_commit(latest))}</p>
{_busy(latest)}{_tiles(latest)}
</header>
<main>{body}</main>
</body>
</html>
"""


def _busy(run: Run) -> str:
    """Return a warning if other programs disturbed the run; in older runs, a share above 1 shows it."""
    limits = run["machine_info"]["limits"]
    infos = [entry["extra_info"] for entry in run["benchmarks"]]
    beyond = any(info.get("share", 0) > 1.02 and table.does_all_operations(info) for info in infos)
    why = limits.get("busy") or ("a kernel was faster than the limit measured for it" if beyond else "")
    text = f"<strong>Busy machine</strong>: {escape(why)}. Do not quote the results of this run."
    return f'<p class="busy">{text}</p>' if why else ""


def _commit(run: Run) -> str:
    commit = run.get("commit_info") or {}
    return f"commit {str(commit.get('id'))[:10]}{' with changes' if commit.get('dirty') else ''}"


def _tiles(run: Run) -> str:
    """Return the main results."""
    tiles = []
    for entry in run["benchmarks"]:
        info = entry["extra_info"]
        if info.get("kernel") == "fit" and str(info.get("shape")).startswith("course:"):
            tiles.append((table.seconds(entry["stats"]["median"]), f"to train {info['shape']}, {info['dtype']}"))
            tiles += [(f"{other['ratio']:.1f}x", f"the time of fastnet: {name}") for name, other in info["against"].items()]
    products = [entry["extra_info"] for entry in run["benchmarks"]]
    products = [info for info in products
                if info.get("kernel") == "gemm" and info.get("share") and table.does_all_operations(info)]
    if products:
        best = max(products, key=lambda info: info["share"])
        tiles.append((f"{min(best['share'], 1):.0%}", f"of the FMA peak: {best['kernel']} {best['shape']}"))
    return '<div class="tiles">' + "".join(
        f"<div><strong>{escape(figure)}</strong><span>{escape(text)}</span></div>" for figure, text in tiles) + "</div>"


def _title(info: Mapping[str, Any]) -> str:
    facts = (info.get("kernel"), info.get("shape"), info.get("dtype"), info.get("layout"))
    return " ".join(str(fact) for fact in facts if fact)


def _roofline(run: Run) -> str:
    limits = run["machine_info"]["limits"]
    points: dict[str, list[Point]] = {"float32": [], "float64": []}
    for entry in run["benchmarks"]:
        info = entry["extra_info"]
        if info.get("flops") and info.get("bytes") and table.does_all_operations(info):
            tip = f"{_title(info)}: {info['gflops']:.1f} GFLOP/s, {table.share_of_peak(info)} of its limit"
            points[info["dtype"]].append(Point(info["flops"] / info["bytes"], info["gflops"], tip))
    every = [point for group in points.values() for point in group]
    roofs = {f"FMA {name}": peak / 1e9 for name, peak in limits["fma_peak"].items()}
    slopes = {name: rate / 1e9 for name, rate in limits["copy_bandwidth"].items()}
    if not every:
        return ""
    left, right = min(0.05, *(point.x for point in every)), 1.3 * max(1000, *(point.x for point in every))
    low, high = 0.8 * min(1, *(point.y for point in every)), 2 * max(*roofs.values(), *(point.y for point in every))
    chart = Chart((left, right), (low, high), "operations per byte", "GFLOP/s", log=True, log_y=True)
    top = max(roofs.values())
    for colour, roof in enumerate(roofs.values()):
        knee = max(left, roof / max(slopes.values()))
        chart.parts.append(chart.path((knee, right), (roof, roof), _stroke("roof", colour)))
    for colour, slope in enumerate(slopes.values(), start=len(roofs)):
        ends = max(left, low / slope), top / slope
        chart.parts.append(chart.path(ends, [slope * end for end in ends], _stroke("roof", colour)))
    for colour, group in enumerate(points.values()):
        chart.parts += _dots(chart, group, colour)
    names = [*(f"{name}, {roof:.0f} GFLOP/s" for name, roof in roofs.items()),
             *(f"{name}, {slope:.0f} GB/s" for name, slope in slopes.items())]
    parts = (chart.svg("Roofline: kernels under this machine's limits"), _legend(f"kernels, {name}" for name in points),
             _legend(names, of="limit"))
    return f'<figure class="wide">{"".join(parts)}</figure>'


def _stroke(kind: str, colour: int) -> str:
    return f'class="{kind}" stroke="{_colour(colour)}"'


def _colour(number: int) -> str:
    return f"var(--c{number % COLOURS})"


def _dots(chart: Chart, points: Iterable[Point], colour: int) -> list[str]:
    return [f'<circle cx="{x}" cy="{y}" r="5" class="dot" fill="{_colour(colour)}"><title>{escape(point.tip)}</title>'
            "</circle>"
            for point in points for x, y in [chart.at(point.x, point.y)]]


def _legend(names: Iterable[str], of: str = "dot") -> str:
    return '<p class="legend">' + "".join(f'<span><i class="{of}" style="--of: {_colour(number)}"></i>{escape(name)}</span>'
                                          for number, name in enumerate(names)) + "</p>"


def _curves(series: Mapping[str, Sequence[Point]], x_label: str, y_label: str, title: str) -> str:
    """Draw lines with dots, one colour each, with y from 0."""
    every = [point for points in series.values() for point in points]
    chart = Chart((min(point.x for point in every), max(point.x for point in every)),
                  (0, 1.1 * max(point.y for point in every)), x_label, y_label)
    for colour, points in enumerate(series.values()):
        chart.parts.append(chart.path([point.x for point in points], [point.y for point in points],
                                      _stroke("series", colour)))
        chart.parts += _dots(chart, points, colour)
    return chart.svg(title) + (_legend(series) if len(series) > 1 else "")


def _peers(entries: Iterable[Entry]) -> str:
    figures = []
    for entry in entries:
        info = entry["extra_info"]
        if info.get("kernel") not in ("fit", "gemm", "gram_matrix", "import") or not info.get("against"):
            continue
        figures.append(f"<figure><figcaption>{escape(_title(info))} <small>{table.seconds(entry['stats']['median'])}</small>"
                       f"</figcaption>{_bars(info['against'])}</figure>")
    return f'<div class="grid">{"".join(figures)}</div>' if figures else ""


def _bars(against: Mapping[str, Mapping[str, float]]) -> str:
    """Draw horizontal bars from 0, each with its interval; one that is very long leaves the figure."""
    full = max([1.0, *(min(other["high"], 3 * other["ratio"]) for other in against.values())])
    bars = [f'<strong>fastnet</strong><div><i class="ours" style="width: {100 / full:.1f}%"></i></div><span>1x</span>']
    for name, other in against.items():
        value, low, high = (other[what] for what in ("ratio", "low", "high"))
        whisker = f"left: {100 * low / full:.1f}%; width: {100 * (min(high, full) - low) / full:.1f}%"
        tip = f"{name}: {value:.3g}x, 95 % interval {low:.3g} to {high:.3g}"
        bars.append(f'<span>{escape(name)}</span><div title="{escape(tip)}"><i style="width: {100 * value / full:.1f}%"></i>'
                    f'<u style="{whisker}"></u></div>'
                    f"<span>{value:.3g}x</span>")
    return f'<div class="bars">{"".join(bars)}</div>'


def _sweeps(entries: Iterable[Entry]) -> str:
    jobs: dict[str, dict[str, list[Point]]] = {}
    for entry in entries:
        info = entry["extra_info"]
        if info.get("kernel") == "sweep":
            job = f"{info.get('shape', '').partition(' rates, ')[2] or info.get('shape', '')}, {info.get('dtype', '')}"
            rates = info["rates"]
            times = {"fastnet": entry["stats"]["median"],
                     **{name: other["seconds"] for name, other in info["against"].items()}}
            for name, seconds in times.items():
                label = {"fastnet": "fastnet sweep", "fits": "fastnet fits one by one"}.get(name, f"{name} one by one")
                tip = f"{label}, {rates} rates: {table.seconds(seconds / rates)} each"
                jobs.setdefault(job, {}).setdefault(label, []).append(Point(rates, seconds / rates, tip))
    figures = []
    for job, series in jobs.items():
        chart = _curves({name: sorted(points) for name, points in series.items()}, "rates in the sweep", "seconds per rate",
                        f"Sweeps of {job}")
        figures.append(f"<figure><figcaption>{escape(job)}</figcaption>{chart}</figure>")
    return f'<div class="grid">{"".join(figures)}</div>' if figures else ""


def _history(runs: Sequence[Run]) -> str:
    if len(runs) < 2:
        return "<p><em>Only one run is stored; the curves start with the second.</em></p>"
    series: dict[str, list[Point]] = {}
    for number, run in enumerate(runs, start=1):
        reference = run["machine_info"]["limits"]["reference_seconds"]
        for entry in run["benchmarks"]:
            info = entry["extra_info"]
            if info.get("kernel") in HISTORY and info.get("dtype") == "float32" and info.get("gflops"):
                title = _title(info)
                time = entry["stats"]["median"] / reference
                tip = f"{title}, {run['datetime'][:16]}: {table.seconds(entry['stats']['median'])}"
                series.setdefault(title, []).append(Point(number, time, tip))
    figures = []
    for title, points in series.items():
        first = points[0].y
        if len(points) > 1:
            scaled = [Point(point.x, point.y / first, point.tip) for point in points]
            chart = _curves({title: scaled}, "stored run", "first run = 1", f"History of {title}")
            figures.append(f"<figure><figcaption>{escape(title)}</figcaption>{chart}</figure>")
    return f'<div class="grid">{"".join(figures)}</div>' if figures else ""


def _results(entries: Sequence[Entry]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.HEAD)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row[:-1]) + f"<td>{_lines(row[-1])}</td></tr>"
                   for row in table.rows(entries))
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _lines(against: str) -> str:
    """Return each library on one line."""
    return "<br>".join(f"<span>{escape(one)}</span>" for one in against.replace("], ", "]\n").splitlines())


def _machine(run: Run) -> str:
    limits = run["machine_info"]["limits"]
    facts = dict(run["machine_info"]["fingerprint"])
    facts |= {f"FMA peak, {name}": f"{peak / 1e9:.0f} GFLOP/s" for name, peak in limits["fma_peak"].items()}
    facts |= {f"copy, {name}": f"{rate / 1e9:.0f} GB/s read and written"
              for name, rate in limits["copy_bandwidth"].items()}
    if limits.get("busy"):  # older runs do not have it
        facts["busy"] = f"{limits['busy']}: limits and speeds are lower than on a quiet machine"
    facts["reference product"] = table.seconds(limits["reference_seconds"])
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in facts.items())
    return f'<div class="scroll"><table class="facts"><tbody>{rows}</tbody></table></div>'


if __name__ == "__main__":
    folder = Path(__file__).parents[1]
    try:
        print(write(folder.parent / ".benchmarks", folder / "report.html"))
    except FileNotFoundError as error:
        sys.exit(str(error))
