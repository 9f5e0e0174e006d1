"""What turns and shared addresses gain: the spread of the ratio of equal code. ``python -m bench.studies.turns``

Compares the small project of `bench.studies.gates`, in plain Python, with itself, alternately in rounds of three kinds: in
turns with the same addresses on all sides, in turns, and one process after the other. So all kinds see the same machine.
``--compiled`` takes the project of `bench.studies.power`, with NumPy and Numba. The tables are in
``fastnet/gate/README.md``.
"""
from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np

from bench.studies import gates, power
from fastnet.gate import addresses
from fastnet.gate.compare import Batch, measure
from fastnet.gate.environment import CURRENT, Recipe
from fastnet.gate.judge import STATISTICS
from fastnet.gate.prepare import SIDES, prepare
from fastnet.gate.runs import run

KINDS = {"turns, same addresses": (True, addresses.shared), "turns": (True, contextlib.nullcontext),
         "one after the other": (False, contextlib.nullcontext)}  # whether there are turns, and how processes start


def spread(ratios: np.ndarray) -> float:
    """A robust standard deviation about 1: 1.48 times the median absolute logarithm."""
    return float(1.4826 * np.median(np.abs(ratios)))


def to_table(batches: dict[str, Batch], seconds: dict[str, float]) -> str:
    """A row per benchmark and number of a process, and what a round took."""
    names = sorted(next(iter(batches.values()))["base"][0].times)
    lines = [f"| spread of the ratio of equal code | {' | '.join(KINDS)} |", "| --- |" + " ---: |" * len(KINDS)]
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
    parser.add_argument("--compiled", action="store_true", help="compare functions of NumPy and Numba")
    args = parser.parse_args(argv)
    rng = np.random.default_rng(0)
    batches: dict[str, Batch] = {kind: {side: [] for side in SIDES} for kind in KINDS}
    seconds = dict.fromkeys(KINDS, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "judged"
        (power if args.compiled else gates).make_project(project)
        revisions = {"base": "base", "head": "equal", "same": "base"}
        with prepare(project, revisions, ".", None, lambda text: None, Recipe(CURRENT)) as prepared:
            warm = [run(side, prepared.where, prepared.settings, 0) for side in prepared.sides.values()]
            for _ in range(args.rounds):
                for kind, (in_turns, started) in KINDS.items():
                    start = time.monotonic()
                    with mock.patch.object(addresses, "shared", started):
                        measure(prepared, warm[0].names, replace(prepared.settings, turns=in_turns), rng, batches[kind])
                    seconds[kind] += (time.monotonic() - start) / args.rounds
    print(to_table(batches, seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
