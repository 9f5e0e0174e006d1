"""What a fit costs on a machine that others keep busy: time beside N spinning processes, as a multiple of the time alone.

    python -m bench.studies.busy_machine                    # 0 to 3 spinners, the course's network
    python -m bench.studies.busy_machine --spinners 2 --threads 1

A fair share of two cores is 1.5, 2.0 and 2.5 times the time alone, for two threads beside one, two and three spinners.
"""
from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

import numpy as np

from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer, one_hot, set_num_threads

EPOCHS = 4


def fit(x: np.ndarray, t: np.ndarray) -> float:
    """Seconds of a fit."""
    model = Sequential((FullLayer(3072, 500, dtype=np.float32, rng=0), ReluLayer(),
                        FullLayer(500, 5, dtype=np.float32, rng=1), SoftMaxLayer()), CrossEntropyLayer())
    start = time.perf_counter()
    model.fit(x, t, epochs=EPOCHS, lr=0.01, engine="fused", progress=False)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spinners", type=int, default=3, help="at most so many")
    parser.add_argument("--threads", type=int, help="of fastnet; by default as many as there are cores")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2500, 3072)).astype(np.float32)
    t = one_hot(rng.integers(0, 5, 2500), 5, dtype=np.float32)
    fit(x, t)
    alone = 0.0
    for count in range(options.spinners + 1):
        spinners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
        try:
            time.sleep(0.5)
            seconds = statistics.median(fit(x, t) for _ in range(options.rounds))
        finally:
            for spinner in spinners:
                spinner.kill()
                spinner.wait()
        alone = alone or seconds
        print(f"{count} spinners: {seconds:6.3f} s, {seconds / alone:5.2f} times that alone", flush=True)


if __name__ == "__main__":
    main()
