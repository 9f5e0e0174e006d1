"""What turns gain: the spread of the ratio of equal code with and without them. ``python -m bench.studies.turns``

Compares a small project with itself, rounds in turns and rounds one process after the other in alternation, so that both
kinds see the same machine. The table is in ``fastnet/gate/README.md``. It says most on a busy machine.
"""
from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.studies.power import make_project
from fastnet.gate.compare import Batch, measure
from fastnet.gate.environment import CURRENT, Recipe
from fastnet.gate.judge import STATISTICS
from fastnet.gate.prepare import SIDES, prepare
from fastnet.gate.runs import run

KINDS = {True: "in turns", False: "one after the other"}


def spread(ratios: np.ndarray) -> float:
    """A robust standard deviation about 1: 1.48 times the median absolute logarithm."""
    return float(1.4826 * np.median(np.abs(ratios)))


def to_table(batches: dict[bool, Batch], seconds: dict[bool, float]) -> str:
    """A row per benchmark and number of a process, and what a round took."""
    names = sorted(batches[True]["base"][0].times)
    lines = [f"| spread of the ratio of equal code | {' | '.join(KINDS.values())} |", "| --- | ---: | ---: |"]
    for name in names:
        for statistic in STATISTICS:
            cells = []
            for kind in KINDS:
                logs = {side: np.log([one.times[name][statistic] for one in runs]) for side, runs in batches[kind].items()}
                ratios = np.concatenate([logs["head"] - logs["base"], logs["same"] - logs["base"]])
                cells.append(f"{100 * spread(ratios):.1f} %")
            lines.append(f"| `{name.partition('test_')[2]}`, {statistic} | {' | '.join(cells)} |")
    lines.append(f"| seconds a round | {' | '.join(f'{seconds[kind]:.1f}' for kind in KINDS)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.turns", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=14, help="of each kind (default: %(default)s)")
    args = parser.parse_args(argv)
    rng = np.random.default_rng(0)
    batches: dict[bool, Batch] = {kind: {side: [] for side in SIDES} for kind in KINDS}
    seconds = dict.fromkeys(KINDS, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        make_project(Path(folder))
        revisions = {"base": "base", "head": "equal", "same": "base"}
        with prepare(Path(folder), revisions, ".", None, lambda text: None, Recipe(CURRENT)) as prepared:
            warm = [run(side, prepared.where, prepared.settings, 0) for side in prepared.sides.values()]
            for _ in range(args.rounds):
                for kind in KINDS:
                    start = time.monotonic()
                    measure(prepared, warm[0].names, replace(prepared.settings, turns=kind), rng, batches[kind])
                    seconds[kind] += (time.monotonic() - start) / args.rounds
    print(to_table(batches, seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
