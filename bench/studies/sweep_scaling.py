"""What a trial of a sweep costs when there are more of them: the Gram matrix is made once for all.

    python -m bench.studies.sweep_scaling                                    # table, and docs/img/sweep_scaling.png
    python -m bench.studies.sweep_scaling --epochs 20 --rates 1,4,16 --out sweep_scaling.png

The course network (3072-500-5) on 2500 samples, float32, batch 128. Sweeps of all sizes and single fits take turns, so
that a drifting machine touches all of them alike; a row shows medians. The peak resident memory is that of a fresh
process which runs the largest sweep alone.
"""
from __future__ import annotations

import argparse
import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np
from fastnet.kernels.runtime.pool import get_num_threads

from bench.harness import peers
from fastnet.base import system
from fastnet.sweep import lr_sweep
from fastnet.training.first import gram_matrix

N, WIDTHS, BATCH = 2500, (3072, 500, 5), 128


def measure(counts: list[int], epochs: int, rounds: int) -> tuple[dict[int, float], dict[str, float]]:
    """Seconds for a trial in sweeps of so many rates; seconds of a fit by each peer, and of one Gram matrix."""
    x, t, weights = peers.workload(N, WIDTHS, np.float32)
    fits = peers.installed("torch")
    fits["fastnet"] = peers.fastnet_fit
    work: dict[Any, Any] = {count: lambda count=count: sweep(count, epochs, x, t, weights) for count in counts}
    work |= {name: lambda fit=fit: fit(x, t, weights, epochs, 0.1, BATCH) for name, fit in fits.items()}
    work["G"] = lambda: gram_matrix(x)
    times: dict[Any, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, run in work.items():
            start = time.perf_counter()
            run()
            if number:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    medians = {name: float(np.median(taken)) for name, taken in times.items()}
    return {count: medians.pop(count) / count for count in counts}, medians


def sweep(count: int, epochs: int, x: np.ndarray, t: np.ndarray, weights: peers.Weights) -> None:
    """A sweep of so many rates, none of which diverges."""
    def build(rng: np.random.Generator) -> Any:
        return peers.fastnet_model(weights)

    result = lr_sweep(build, x, t, np.geomspace(1e-3, 0.3, count), epochs, BATCH, seeds=1, engine="gram", progress=False)
    assert (result.status == "done").all()


def peak_memory(count: int, epochs: int) -> float:
    """Bytes resident at the peak of a sweep, in its own process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_sweep_alone, (count, epochs))


def _sweep_alone(count: int, epochs: int) -> float:
    sweep(count, epochs, *peers.workload(N, WIDTHS, np.float32))
    return system.peak_memory()


def draw(trials: dict[int, float], others: dict[str, float], epochs: int, path: Path) -> None:
    """Time for a trial against the number of trials."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    counts = list(trials)
    axes.plot(counts, [1e3 * seconds for seconds in trials.values()], "o-", color="#0072b2", label="a trial of a sweep")
    axes.plot(counts, [1e3 * others["G"] / count for count in counts], "s--", color="#e69f00",
              label=r"of it, its share of $G = XX^T$")
    for name, colour in (("fastnet", "#009e73"), ("torch", "#d55e00")):
        if name in others:
            axes.axhline(1e3 * others[name], color=colour, ls=":", label=f"a single fit by {name}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set_ylim(0)
    axes.set(xlabel="trials in the sweep", ylabel=f"ms a trial of {epochs} epochs",
             title=f"{N} x {'-'.join(map(str, WIDTHS))}, batch {BATCH}, float32, {get_num_threads()} cores")
    axes.grid(alpha=0.3)
    axes.legend(loc="center right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rates", default="1,2,4,8,16,32,64", help="sizes of sweeps (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("docs/img/sweep_scaling.png"), help="(default: %(default)s)")
    options = parser.parse_args()
    trials, others = measure([int(count) for count in options.rates.split(",")], options.epochs, options.rounds)
    print("rates   ms a trial   of it G   " + "   ".join(f"{name} fit / trial" for name in others if name != "G"))
    for count, seconds in trials.items():
        ratios = "   ".join(f"{other / seconds:{len(name) + 12}.2f}" for name, other in others.items() if name != "G")
        print(f"{count:5d}   {1e3 * seconds:10.1f}   {1e3 * others['G'] / count:7.1f}   {ratios}")
    print(f"G alone {1e3 * others['G']:.0f} ms; single fits: "
          + ", ".join(f"{name} {1e3 * seconds:.0f} ms" for name, seconds in others.items() if name != "G"))
    print(f"peak resident memory of {max(trials)} rates: {peak_memory(max(trials), options.epochs) / 1e6:.0f} MB")
    draw(trials, others, options.epochs, options.out)


if __name__ == "__main__":
    main()
