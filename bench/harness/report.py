"""bench/report.html: one page that needs no network, made from the runs stored under .benchmarks/.

``python -m bench.harness.report`` makes it again; ``python -m bench.run`` does so after every run.
"""
from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from bench.harness import charts, table
from bench.harness.charts import Bar, Point

STYLE = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
HISTORY = ("fit", "sweep", "gemm", "gram", "step")  # kernels whose history the page draws
RUNS = 30  # the number of latest runs in it

Run = dict[str, Any]  # a file of pytest-benchmark's
Entry = Mapping[str, Any]  # one of its benchmarks


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
    chart = charts.roofline(points, {f"FMA {name}": peak / 1e9 for name, peak in limits["fma_peak"].items()},
                            {name: rate / 1e9 for name, rate in limits["copy_bandwidth"].items()})
    return f'<figure class="wide">{chart}</figure>' if any(points.values()) else ""


def _peers(entries: Iterable[Entry]) -> str:
    figures = []
    for entry in entries:
        info = entry["extra_info"]
        if info.get("kernel") not in ("fit", "gemm", "gram_matrix", "import") or not info.get("against"):
            continue
        rows = [Bar("fastnet", 1, 1, 1, ours=True)]
        rows += [Bar(name, other["ratio"], other["low"], other["high"]) for name, other in info["against"].items()]
        title = _title(info)
        chart = charts.bars(rows, "x", f"{title}: time relative to fastnet")
        figures.append(f"<figure><figcaption>{escape(title)} <small>{table.seconds(entry['stats']['median'])}</small>"
                       f"</figcaption>{chart}</figure>")
    return f'<div class="grid">{"".join(figures)}</div>' if figures else ""


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
        chart = charts.lines({name: sorted(points) for name, points in series.items()}, "rates in the sweep",
                             "seconds per rate", f"Sweeps of {job}", width=charts.NARROW)
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
            chart = charts.lines({title: scaled}, "stored run", "first run = 1", f"History of {title}",
                                 width=charts.NARROW)
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
