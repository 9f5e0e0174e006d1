"""Training jobs in this checkout beside another revision and beside other libraries, in turns: what is faster now?

    git worktree add --detach ../before 13dc4a6
    python -m bench.studies.revisions --before ../before                  # all jobs
    python -m bench.studies.revisions --before ../before --threads 1 --turns 15 course "by hand: course"
    python -m bench.studies.revisions --before ../before --peers ../peers/bin/python

Each revision and each library has a process of its own, which works when it is told to; they take turns, and who goes
first alternates. ``--peers`` names the Python of an environment with NumPy, PyTorch and JAX, or some of them. Printed are
medians of paired turns: the CPU seconds, the ratios before / now with their quartiles, and the time of the fastest library
/ ours, each in CPU time and by the clock. More than 1 is faster now. On a busy machine, CPU time with one thread says most.
"""
from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import image_peers, peers

ROOT = Path(__file__).resolve().parents[2]

REST = 0.3  # seconds after a library's turn: its threads spin for that long

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
    "forward: course": ("forward", 128, COURSE[:2], 128, 60, "float32"),
    "backward: course": ("backward", 128, COURSE[:2], 128, 30, "float32"),
    "backward: behind ReLU": ("behind ReLU", 128, COURSE[:2], 128, 30, "float32"),
    "cifar": ("images", 640, ((3, 32, 32), (16, 32), 5), 128, 2, "float32"),
    "faces": ("images", 640, ((1, 48, 48), (16, 32), 7), 128, 1, "float32"),
    "wide": ("images", 256, ((3, 32, 32), (32, 64, 128), 5), 128, 1, "float32"),
}

PEERS = {"fit": ("numpy", "torch", "jax"), "loop": ("numpy",), "forward": ("numpy", "torch"), "backward": ("numpy", "torch"),
         "behind ReLU": ("numpy", "torch"),
         "images": ("torch", "channels_last", "jax")}
RATE = 0.05

_LOOP = '''
import json, sys, time
known = {}
for line in sys.stdin:
    name, file, job = json.loads(line)
    if line not in known:
        with np.load(file) as data:
            x, t, *arrays = data.values()
        known[line] = prepared(name, x, t, list(zip(arrays[::2], arrays[1::2])), *job)
        known[line]()
    clock, cpu = time.perf_counter(), time.process_time()
    result = known[line]()
    print(json.dumps([time.process_time() - cpu, time.perf_counter() - clock, float(result)]), flush=True)
'''

REVISION = '''
import copy
import numpy as np
import fastnet as f
from fastnet.conv import ConvLayer
from fastnet.flatten import FlattenLayer
from fastnet.maxpool import MaxPoolLayer

def network(weights):
    layers = []
    for W, b in weights:
        if W.ndim == 4:
            layers += [ConvLayer(W.shape[1], W.shape[0], 3, W.dtype), f.ReluLayer(), MaxPoolLayer(2)]
        else:
            layers += [FlattenLayer()] if weights[0][0].ndim == 4 else []
            layers += [f.FullLayer(W.shape[1], W.shape[0], W.dtype), f.ReluLayer()]
    for layer, (W, b) in zip([layer for layer in layers if hasattr(layer, "W")], weights):
        layer.W, layer.b = W, b.reshape(1, -1)
    return [*layers[:-1], f.SoftMaxLayer()]

def prepared(name, x, t, weights, kind, n, widths, batch, epochs, dtype):
    layers = network(weights)

    def fit():
        model = f.Sequential(tuple(copy.deepcopy(layers)), f.CrossEntropyLayer())
        return model.fit(x, t, epochs, RATE, batch, progress=False)[-1]

    def loop():
        own, loss = copy.deepcopy(layers), f.CrossEntropyLayer()
        for _ in range(epochs):
            losses = []
            for i in range(0, n, batch):
                y = x[i:i + batch]
                for layer in own:
                    y = layer.forward(y)
                losses.append(loss.forward(y, t[i:i + batch]))
                grad = loss.backward()
                for layer in reversed(own):
                    grad = layer.backward(grad)
                for layer in own:
                    if hasattr(layer, "update_param"):
                        layer.update_param(RATE)
        return np.mean(losses)

    def forward():
        for _ in range(epochs):
            y = layers[0].forward(x)
        return abs(y).sum()

    def backward():
        layers[0].forward(x)
        for _ in range(epochs):
            dx = layers[0].backward(t)
        return abs(dx).sum() + abs(layers[0].W_grad).sum()

    return {"fit": fit, "images": fit, "loop": loop, "forward": forward}.get(kind, backward)
'''.replace("RATE", str(RATE)) + _LOOP

PEER = '''
import numpy as np
from bench.harness import image_peers, peers

def prepared(name, x, t, weights, kind, n, widths, batch, epochs, dtype):
    if kind in ("fit", "loop", "images"):
        fits = image_peers.installed(name) if kind == "images" else {name: peers.FITS[name]}
        return lambda: fits[name](x, t, weights, epochs, RATE, batch)[-1]
    (W, b), = weights
    if name == "torch":
        import torch
        x, t, W, b = map(torch.from_numpy, (x, t, W, b))

    def forward():
        for _ in range(epochs):
            y = x @ W.T + b if name == "numpy" else torch.nn.functional.linear(x, W, b)
        return abs(y).sum()

    def backward():
        for _ in range(epochs):
            dx, dW, db = t @ W, t.T @ x, t.sum(0)
        return abs(dx).sum() + abs(dW).sum()

    return forward if kind == "forward" else backward
'''.replace("RATE", str(RATE)) + _LOOP


@contextlib.contextmanager
def started(python: str, program: str, tree: Path, threads: int | None) -> Iterator[subprocess.Popen[str]]:
    """A process of a revision in a folder, or of a library."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
    environment["PYTHONPATH"] = str(tree)
    if threads:
        environment |= dict.fromkeys(("FASTNET_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
                                     str(threads))
    if threads == 1:
        environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    with subprocess.Popen([python, "-c", program], cwd=tree, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def installed(python: str) -> list[str]:
    """Names of the libraries that an environment has, of those in `PEERS`."""
    names = {"numpy": "numpy", "torch": "torch", "channels_last": "torch", "jax": "jax"}
    code = f"from importlib.util import find_spec as f; print(*(n for n, m in {names}.items() if f(m)))"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.split()


def save_data(job: tuple[Any, ...], file: Path) -> None:
    """Write the samples, the targets and the initial weights of a job."""
    kind, n, widths, _, _, dtype = job
    if kind == "images":
        x, t, weights = image_peers.workload(image_peers.Network(*widths), n, dtype)
    else:
        x, t, weights = peers.workload(n, widths, np.dtype(dtype).type)
        if kind in ("backward", "behind ReLU"):  # t is the gradient of the output
            t = np.random.default_rng(0).standard_normal(t.shape).astype(dtype)
            t *= t > 0 if kind == "behind ReLU" else 1
    np.savez(file, x, t, *(array for pair in weights for array in pair))


def turn(child: subprocess.Popen[str], name: str, file: Path, job: tuple[Any, ...]) -> list[float]:
    """CPU seconds, seconds by the clock and the last loss (or another number that all must agree on) of a job."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(json.dumps((name, str(file), job)) + "\n")
    child.stdin.flush()
    return json.loads(child.stdout.readline())


def row(name: str, times: dict[str, np.ndarray]) -> str:
    """One job's line; `times` are of (turn, CPU or clock or loss) for each process."""
    before, now = times.pop("before"), times.pop("now")
    low, middle, high = np.percentile(before[:, 0] / now[:, 0], (25, 50, 75))
    cells = [name, *(f"{np.median(one[:, 0]):.3f} s" for one in (before, now)), f"{middle:.2f} ({low:.2f} to {high:.2f})",
             f"{np.median(before[:, 1] / now[:, 1]):.2f}", f"{abs(before[0, 2] / now[0, 2] - 1):.0e}"]
    for column in (0, 1) if times else ():
        ratio, peer = min((float(np.median(one[:, column] / now[:, column])), peer) for peer, one in times.items())
        cells.append(f"{ratio:.2f} ({peer})")
    cells += [f"{max(abs(one[0, 2] / now[0, 2] - 1) for one in times.values()):.0e}"] if times else []
    return f"| {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"of {', '.join(JOBS)} (default: all)")
    parser.add_argument("--before", type=Path, required=True, metavar="FOLDER", help="a checkout of the other revision")
    parser.add_argument("--peers", metavar="PYTHON", help="the Python of an environment with other libraries")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--threads", type=int, help="of each process (default: the cores)")
    options = parser.parse_args(argv)
    if unknown := set(options.jobs) - set(JOBS):
        parser.error(f"unknown job {sorted(unknown)[0]!r}: choose from {', '.join(JOBS)}")
    head = ["job", "before", "now", "before / now", "by the clock", "losses differ by"]
    head += ["fastest library / now", "by the clock", "losses differ by"] if options.peers else []
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        children = {name: stack.enter_context(started(sys.executable, REVISION, tree, options.threads))
                    for name, tree in (("before", options.before.resolve()), ("now", ROOT))}
        others = installed(options.peers) if options.peers else []
        children |= {name: stack.enter_context(started(options.peers, PEER, ROOT, options.threads)) for name in others}
        for name in options.jobs or JOBS:
            job, file = JOBS[name], folder / f"{len(list(folder.iterdir()))}.npz"
            save_data(job, file)
            contestants = ["before", "now", *(peer for peer in PEERS[job[0]] if peer in others)]
            times: dict[str, list[list[float]]] = {contestant: [] for contestant in contestants}
            for number in range(options.turns):
                for contestant in contestants[::(-1) ** number]:
                    times[contestant].append(turn(children[contestant], contestant, file, job))
                    time.sleep(REST if contestant in others else 0)
            print(row(name, {contestant: np.array(found) for contestant, found in times.items()}), flush=True)


if __name__ == "__main__":
    main()
