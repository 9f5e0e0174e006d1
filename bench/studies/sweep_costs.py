"""What the kinds of a sweep cost, compared with the plain one: cross-validation, several seeds, halving.

    python -m bench.studies.sweep_costs --rounds 2

The course network (3072-500-5) on 2500 samples, float32, batch 128, 20 epochs. All take turns; a row shows the
medians of the ratios to the plain sweep of the same round, on the clock and in seconds of the processor, which a busy
machine changes less. A round takes a minute or two on two idle cores.
"""
from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from bench.harness import peers
from fastnet.sweep import SweepResult, lr_sweep

N, WIDTHS, BATCH = 2500, (3072, 500, 5), 128


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rates", type=int, default=16, help="(default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=20, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="of the first three sweeps (default: %(default)s)")
    options = parser.parse_args()
    x, t, weights = peers.workload(N, WIDTHS, np.float32)
    held = N // 5

    def sweep(seeds: int = options.seeds, validation: bool = True, epochs: int = options.epochs, **more: Any) -> SweepResult:
        def build(rng: np.random.Generator) -> object:
            model = peers.fastnet_model(weights)
            model.layers[0].W = model.layers[0].W + rng.normal(size=model.layers[0].W.shape).astype(np.float32) * 1e-3
            return model

        start = held if validation else 0
        return lr_sweep(build, x[start:], t[start:], np.geomspace(1e-3, 0.3, options.rates), epochs, BATCH, seeds,
                        (x[:held], t[:held]) if validation else None, progress=False, **more)

    work = {
        "plain, on all data": lambda: sweep(validation=False),
        "plain, a fifth held out": sweep,
        "5-fold cross-validation": lambda: sweep(validation=False, folds=5),
        "5 seeds, a fifth held out": lambda: sweep(5),
        "5 seeds, halving": lambda: sweep(5, search="halving"),
    }
    times = np.empty((options.rounds, len(work), 2))
    for warm in ({"folds": 5, "validation": False}, {"search": "halving"}):  # what is compiled, and the threads, are there
        sweep(epochs=2, **warm)
    for number in range(options.rounds):
        for place, (name, run) in enumerate(work.items()):
            began = time.perf_counter(), time.process_time()
            run()
            times[number, place] = time.perf_counter() - began[0], time.process_time() - began[1]
            print(f"round {number}: {name}: {times[number, place, 0]:.2f} s", flush=True)
    ratios = np.median(times / times[:, :1], axis=0)
    print(f"{options.rates} rates, {options.epochs} epochs: seconds, and as many times as the plain sweep on all data")
    for name, seconds, (clock, processor) in zip(work, np.median(times[:, :, 0], axis=0), ratios):
        print(f"{name:28s} {seconds:7.2f} s {clock:6.2f} on the clock {processor:6.2f} of the processor", flush=True)


if __name__ == "__main__":
    main()
