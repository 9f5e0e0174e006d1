"""What the first use costs, when nothing is compiled yet or everything is; on its own, or compared with another revision.

    python -m bench.studies.first_minute
    git worktree add --detach ../before 13dc4a6
    python -m bench.studies.first_minute --before ../before [--turns 3] [--wheel FILE --torch PYTHON]

Each job runs in a process of its own, the two revisions one after the other in each turn, with an empty cache for `first`
and a filled one for `warm`; `sweep` is the first sweep after the first fit. CPU seconds are of the process and its children;
of a clock, only two free cores give a figure worth reading. Ratios are medians over the turns: smaller is better.

With --wheel, a wheel that carries compiled kernels (`.github/scripts/compiled_wheel.py` makes it) is installed in a new
environment, and its first fit with an empty cache is compared with a warm start, and with `import torch` in the interpreter
that --torch names.
"""
from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

SETTING = """
import numpy as np, fastnet
from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer, one_hot
rng = np.random.default_rng(0)

def network(n_i, hidden, dtype, rng=rng):
    return Sequential((FullLayer(n_i, hidden, dtype, rng), ReluLayer(), FullLayer(hidden, 5, dtype, rng), SoftMaxLayer()),
                      CrossEntropyLayer())

def data(n_i, dtype, n):
    return rng.random((n, n_i), dtype), one_hot(np.arange(n) % 5, 5, dtype)

def train(n_i, hidden, dtype, n):
    network(n_i, hidden, dtype).fit(*data(n_i, dtype, n), 2, 0.1, progress=False)
"""
SMALL = "train(20, 16, np.float64, 100)"
JOBS = {
    "course, float32": "train(3072, 500, np.float32, 2500)",
    "course, float64": "train(3072, 500, np.float64, 2500)",
    "small": SMALL,
    "images": """
from fastnet.conv import ConvLayer
from fastnet.flatten import FlattenLayer
from fastnet.maxpool import MaxPoolLayer
model = Sequential((ConvLayer(3, 16, 3, np.float32, rng), ReluLayer(), MaxPoolLayer(2),
                    ConvLayer(16, 32, 3, np.float32, rng),
                    ReluLayer(), MaxPoolLayer(2), FlattenLayer(), FullLayer(2048, 5, np.float32, rng), SoftMaxLayer()),
                   CrossEntropyLayer())
model.fit(rng.random((64, 3, 32, 32), np.float32), one_hot(np.arange(64) % 5, 5, np.float32), 1, 0.1, progress=False)
""",
}
SWEEP = """
from fastnet.sweep import lr_sweep
lr_sweep(lambda rng: network(3072, 500, np.float32, rng), *data(3072, np.float32, 500), lrs="0.01:1:log3", epochs=2, seeds=1,
         progress=False)
"""
AT_MOST = {"first": 0.35, "sweep": 0.5, "warm": 1.0}  # of the other revision's CPU seconds
CLOCK_AT_MOST = 0.30  # of the other revision's first fit, with two free cores
WHEEL_AT_MOST = 1.2  # of a warm start, and of `import torch`


class Cost(NamedTuple):
    """Of one job in a process of its own."""

    cpu: float  # seconds, with its children
    clock: float


def cost(program: str, cache: Path, tree: Path | None = None, python: str | os.PathLike[str] = sys.executable) -> Cost:
    """Run a program with a cache and, unless the interpreter has fastnet installed, with a checkout of it."""
    environment = {**os.environ, "FASTNET_CACHE_DIR": str(cache)}
    environment.pop("PYTHONPATH", None)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installation has the bytecode of its modules
    if tree is not None:
        environment["PYTHONPATH"] = str(tree)
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([python, "-c", program], check=True, capture_output=True, cwd=tree or cache, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.perf_counter() - started)


def row(name: str, before: list[float], now: list[float], at_most: float) -> None:
    """Print medians and the median of the turns' ratios."""
    ratio = statistics.median(b / a for a, b in zip(before, now, strict=True))
    print(f"{name:30s}{statistics.median(before):9.2f}s{statistics.median(now):9.2f}s{ratio:8.2f}{at_most:9.2f}"
          f"  {'ok' if ratio <= at_most else 'MISSED'}", flush=True)


def compare(trees: dict[str, Path], job: str, turns: int) -> None:
    """The rows of one job: the seconds of one tree, or those of two with their ratio."""
    kinds = {"first": JOBS[job], "warm": JOBS[job]} | ({"sweep": SWEEP} if job == "course, float32" else {})
    costs: dict[str, dict[str, list[Cost]]] = {kind: {side: [] for side in trees} for kind in kinds}
    for tree in trees.values():
        with tempfile.TemporaryDirectory() as cache:
            cost("import fastnet.sweep, fastnet.conv", Path(cache), tree)  # which writes the bytecode
    for _ in range(turns):
        for side, tree in trees.items():
            with tempfile.TemporaryDirectory() as cache:
                for kind, program in kinds.items():
                    costs[kind][side].append(cost(SETTING + program, Path(cache), tree))
    if len(trees) == 1:
        for kind, sides in costs.items():
            seconds = statistics.median(each.cpu for each in sides["now"])
            print(f"{f'{job}, {kind}':30s}{'':10s}{seconds:9.2f}s", flush=True)
        return
    for kind, sides in costs.items():
        row(f"{job}, {kind}", *([each.cpu for each in sides[side]] for side in trees), AT_MOST[kind])
    row(f"{job}, first, by the clock", *([each.clock for each in costs["first"][side]] for side in trees), CLOCK_AT_MOST)


def has_torch(python: str) -> bool:
    """Whether an interpreter has PyTorch."""
    return subprocess.run([python, "-c", "import torch"], capture_output=True).returncode == 0


def compare_wheel(wheel: Path, turns: int, torch_python: str) -> None:
    """The rows of a wheel that carries compiled kernels: import, build and first fit of the small network, cache empty."""
    if not (with_torch := has_torch(torch_python)):
        print(f"without the row of import torch: {torch_python} has no PyTorch; --torch names another interpreter")
    with tempfile.TemporaryDirectory() as folder:
        venv.create(Path(folder, "environment"), with_pip=True)
        python = Path(folder, "environment", "Scripts/python.exe" if os.name == "nt" else "bin/python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", wheel], check=True)
        cost(SETTING + SMALL, Path(folder), ROOT)
        first, warm, torch = [], [], []
        for turn in range(turns):
            empty = Path(folder, f"empty-{turn}")
            empty.mkdir()
            first.append(cost(SETTING + SMALL, empty, python=python).cpu)
            warm.append(cost(SETTING + SMALL, Path(folder), ROOT).cpu)
            if with_torch:
                torch.append(cost("import torch", Path(folder), python=torch_python).cpu)
        row("wheel, beside a warm start", warm, first, WHEEL_AT_MOST)
        if with_torch:
            row("wheel, beside import torch", torch, first, WHEEL_AT_MOST)
    print(f"the wheel has {wheel.stat().st_size / 1e6:.1f} MB, of at most 20")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="a checkout of the other revision")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--job", choices=list(JOBS), action="append", help="only this one; may be given several times")
    parser.add_argument("--wheel", type=Path, metavar="FILE", help="a wheel that carries compiled kernels")
    parser.add_argument("--torch", default=sys.executable, metavar="PYTHON", help="an interpreter that has PyTorch")
    options = parser.parse_args()
    print(f"{'':30s}{'before':>10s}{'now':>10s}{'ratio':>8s}{'at most':>9s}")
    trees = ({} if options.before is None else {"before": options.before.resolve()}) | {"now": ROOT}
    for job in options.job or ([] if options.wheel else JOBS):
        compare(trees, job, options.turns)
    if options.wheel is not None:
        compare_wheel(options.wheel.resolve(), options.turns, options.torch)


if __name__ == "__main__":
    main()
