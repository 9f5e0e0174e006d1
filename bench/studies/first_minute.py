"""What the first use costs in CPU seconds, beside another revision: nothing is compiled yet, or everything is.

    git worktree add --detach ../before 13dc4a6
    python -m bench.studies.first_minute --before ../before [--turns 3]

Each job runs in a process of its own, the two revisions one after the other in each turn, with an empty cache for `first`
and a filled one for `warm`. CPU seconds are of the process and its children. The last column is the median of the turns'
ratios: smaller is better.
"""
from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SETTING = """
import numpy as np, fastnet
from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer, one_hot
rng = np.random.default_rng(0)

def train(n_i, hidden, dtype, n):
    model = Sequential((FullLayer(n_i, hidden, dtype, rng), ReluLayer(), FullLayer(hidden, 5, dtype, rng), SoftMaxLayer()),
                       CrossEntropyLayer())
    model.fit(rng.random((n, n_i), dtype), one_hot(np.arange(n) % 5, 5, dtype), 2, 0.1, progress=False)
"""
JOBS = {
    "course, float32": "train(3072, 500, np.float32, 2500)",
    "course, float64": "train(3072, 500, np.float64, 2500)",
    "small": "train(20, 16, np.float64, 100)",
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


def cpu_seconds(tree: Path, cache: Path, job: str) -> float:
    """CPU seconds of one job in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", SETTING + JOBS[job]], check=True, capture_output=True, cwd=tree,
                   env={**os.environ, "PYTHONPATH": str(tree), "FASTNET_CACHE_DIR": str(cache)})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, metavar="FOLDER", help="a checkout of the other revision")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--job", choices=list(JOBS), action="append", help="only this one; may be given several times")
    options = parser.parse_args()
    trees = {"before": options.before.resolve(), "now": ROOT}
    print(f"{'':24s}{'before':>10s}{'now':>10s}{'ratio':>8s}")
    for job in options.job or JOBS:
        times: dict[str, dict[str, list[float]]] = {kind: {side: [] for side in trees} for kind in ("first", "warm")}
        for _ in range(options.turns):
            for side, tree in trees.items():
                with tempfile.TemporaryDirectory() as cache:
                    for kind in times:
                        times[kind][side].append(cpu_seconds(tree, Path(cache), job))
        for kind, sides in times.items():
            ratio = statistics.median(now / before for before, now in zip(sides["before"], sides["now"], strict=True))
            medians = [statistics.median(sides[side]) for side in trees]
            print(f"{job + ', ' + kind:24s}{medians[0]:9.2f}s{medians[1]:9.2f}s{ratio:8.2f}", flush=True)


if __name__ == "__main__":
    main()
