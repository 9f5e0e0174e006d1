"""Training jobs in this checkout beside another revision, in turns: what is faster now?

    git worktree add --detach ../before 13dc4a6
    python -m bench.studies.revisions --before ../before                  # all jobs
    python -m bench.studies.revisions --before ../before --threads 1 --turns 15 course "by hand: course"

Each revision has a process of its own, which trains when it is told to; the two take turns, and who goes first alternates.
Printed are the medians of the CPU seconds of a turn, and of the ratios before / now with their quartiles, in CPU time and by
the clock: more than 1 is faster now. On a busy machine, CPU time with one thread says most.
"""
from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]

# name: kind, samples, widths (of images: shape, channels and classes), batch size, epochs, dtype
COURSE, DEEP = (3072, 500, 5), (3072, 1024, 512, 5)
JOBS = {
    "course": ("fit", 2500, COURSE, 128, 20, "float32"),
    "course64": ("fit", 2500, COURSE, 128, 20, "float64"),
    "deep": ("fit", 2500, DEEP, 128, 10, "float32"),
    "large": ("fit", 20_000, (3072, 500, 100), 128, 2, "float32"),
    "batch8": ("fit", 2500, COURSE, 8, 1, "float32"),
    "small": ("fit", 10_000, (784, 128, 10), 32, 1, "float32"),
    "by hand: course": ("loop", 2500, COURSE, 128, 1, "float32"),
    "by hand: deep": ("loop", 2500, DEEP, 128, 1, "float32"),
    "by hand: narrow": ("loop", 2500, (3072, 100, 5), 128, 2, "float32"),
    "by hand: mnist128": ("loop", 10_000, (784, 128, 10), 128, 2, "float32"),
    "cifar": ("images", 640, ((3, 32, 32), (16, 32), 5), 128, 2, "float32"),
    "faces": ("images", 640, ((1, 48, 48), (16, 32), 7), 128, 1, "float32"),
    "wide": ("images", 256, ((3, 32, 32), (32, 64, 128), 5), 128, 1, "float32"),
}

CHILD = '''
import copy, json, sys, time
import numpy as np
import fastnet as f
from fastnet.conv import ConvLayer
from fastnet.flatten import FlattenLayer
from fastnet.maxpool import MaxPoolLayer

def fully_connected(widths, dtype):
    layers = []
    for n_i, n_o in zip(widths, widths[1:]):
        layers += [f.FullLayer(n_i, n_o, dtype, rng=len(layers)), f.ReluLayer()]
    return [*layers[:-1], f.SoftMaxLayer()]

def of_images(shape, channels, classes, dtype):
    layers, inputs, side = [], shape[0], shape[1]
    for outputs in channels:
        layers += [ConvLayer(inputs, outputs, 3, dtype, rng=len(layers)), f.ReluLayer(), MaxPoolLayer(2)]
        inputs, side = outputs, side // 2
    return [*layers, FlattenLayer(), f.FullLayer(inputs * side * side, classes, dtype, rng=0), f.SoftMaxLayer()]

def prepared(kind, n, widths, batch, epochs, dtype):
    rng, dtype = np.random.default_rng(0), np.dtype(dtype)
    shape, classes = (tuple(widths[0]), widths[2]) if kind == "images" else ((widths[0],), widths[-1])
    x = (rng.integers(0, 256, (n, *shape)) / 255 - 0.5).astype(dtype)
    t = np.eye(classes, dtype=dtype)[rng.integers(0, classes, n)]
    layers = of_images(shape, widths[1], classes, dtype) if kind == "images" else fully_connected(widths, dtype)

    def fit():
        model = f.Sequential(tuple(copy.deepcopy(layers)), f.CrossEntropyLayer())
        return model.fit(x, t, epochs, 0.05, batch, progress=False)[-1]

    def loop():
        own, loss = copy.deepcopy(layers), f.CrossEntropyLayer()
        for _ in range(epochs):
            for i in range(0, n, batch):
                y = x[i:i + batch]
                for layer in own:
                    y = layer.forward(y)
                last = loss.forward(y, t[i:i + batch])
                grad = loss.backward()
                for layer in reversed(own):
                    grad = layer.backward(grad)
                for layer in own:
                    if hasattr(layer, "update_param"):
                        layer.update_param(0.05)
        return last

    return loop if kind == "loop" else fit

known = {}
for line in sys.stdin:
    if line not in known:
        known[line] = prepared(*json.loads(line))
        known[line]()
    clock, cpu = time.perf_counter(), time.process_time()
    loss = known[line]()
    print(json.dumps([time.process_time() - cpu, time.perf_counter() - clock, float(loss)]), flush=True)
'''


@contextlib.contextmanager
def started(tree: Path, threads: int | None) -> Iterator[subprocess.Popen[str]]:
    """A process of the revision in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(tree)} | ({"FASTNET_NUM_THREADS": str(threads)} if threads else {})
    with subprocess.Popen([sys.executable, "-c", CHILD], cwd=tree, env=environment, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def turn(child: subprocess.Popen[str], job: tuple) -> list[float]:
    """CPU seconds, seconds by the clock and the last loss of a job."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(json.dumps(job) + "\n")
    child.stdin.flush()
    return json.loads(child.stdout.readline())


def row(name: str, times: np.ndarray) -> str:
    """One job's line; `times` are of (turn, before or now, CPU or clock or loss)."""
    ratios = times[:, 0] / times[:, 1]
    low, middle, high = np.percentile(ratios[:, 0], (25, 50, 75))
    before, now = np.median(times[:, :, 0], axis=0)
    return (f"| {name} | {before:.3f} s | {now:.3f} s | {middle:.2f} ({low:.2f} to {high:.2f}) | "
            f"{np.median(ratios[:, 1]):.2f} | {abs(ratios[0, 2] - 1):.0e} |")


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"of {', '.join(JOBS)} (default: all)")
    parser.add_argument("--before", type=Path, required=True, metavar="FOLDER", help="a checkout of the other revision")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--threads", type=int, help="of each process (default: the cores)")
    options = parser.parse_args(argv)
    if unknown := set(options.jobs) - set(JOBS):
        parser.error(f"unknown job {sorted(unknown)[0]!r}: choose from {', '.join(JOBS)}")
    print("| job | before | now | before / now | by the clock | losses differ by |\n|" + " --- |" * 6)
    with started(options.before.resolve(), options.threads) as before, started(ROOT, options.threads) as now:
        for name in options.jobs or JOBS:
            times = []
            for number in range(options.turns):
                found = {child: turn(child, JOBS[name]) for child in ((before, now), (now, before))[number % 2]}
                times.append([found[before], found[now]])
            print(row(name, np.array(times)), flush=True)


if __name__ == "__main__":
    main()
