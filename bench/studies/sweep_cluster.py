"""What a Dask cluster costs: a sweep on workers of one core each, compared with the same sweep on this machine's cores.

    python -m bench.studies.sweep_cluster
    python -m bench.studies.sweep_cluster --trials 64 --epochs 20 --rounds 3

The course network (3072-500-5) on 2500 samples, float32, batch 128. The losses must be the same bits.
"""
from __future__ import annotations

import argparse
import time
from concurrent.futures import Executor
from typing import Any

import numpy as np
from fastnet.kernels.runtime.pool import get_num_threads

from bench.harness import peers
from fastnet.sweep import SweepResult, lr_sweep

N, WIDTHS, BATCH = 2500, (3072, 500, 5), 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--trials", type=int, default=64, help="(default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=20, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    options = parser.parse_args()
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        parser.exit(2, "Dask is not installed: pip install 'fastnet-kernels[dask]'\n")
    x, t, weights = peers.workload(N, WIDTHS, np.float32)

    def build(rng: np.random.Generator) -> Any:
        return peers.fastnet_model(weights)

    def sweep(trials: int, executor: Executor | None) -> tuple[SweepResult, float]:
        started = time.perf_counter()
        result = lr_sweep(build, x, t, np.geomspace(1e-3, 0.3, trials), options.epochs, BATCH, seeds=1, engine="gram",
                          progress=False, executor=executor)
        return result, time.perf_counter() - started

    workers = get_num_threads()
    with LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        executor = client.get_executor()
        sweep(workers + 1, executor)  # the workers start, and load kernels
        ratios = []
        for _ in range(options.rounds):
            (here, local), (there, remote) = sweep(options.trials, None), sweep(options.trials, executor)
            assert np.array_equal(here.losses, there.losses), "the cluster's losses are not the local ones"
            ratios.append(local / remote)
            print(f"{options.trials} trials: here {local:.1f} s, on the cluster {remote:.1f} s", flush=True)
    print(f"{workers} workers of one core each run at {np.median(ratios):.0%} of the local rate "
          f"({min(ratios):.0%} to {max(ratios):.0%}); the losses are the same bits")


if __name__ == "__main__":
    main()
