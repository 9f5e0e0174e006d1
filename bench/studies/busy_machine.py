"""What work costs on a machine that others keep busy: its time beside spinning processes, as a multiple of the time alone.

    python -m bench.studies.busy_machine                              # six jobs, 1 to 3 spinners
    python -m bench.studies.busy_machine --jobs course jax --rounds 9

A spinner is a process that does nothing but keep a core busy. Where the system is fair, two threads beside k spinners on two
cores get 4 / (2 + k) cores: work that uses all of them takes 1.5, 2 and 2.5 times as long for k = 1, 2 and 3. (Beside a
single spinner the system may leave one thread a core of its own and let the other share: then 1.33 times is to be had.) The
last column is what one thread alone takes on the quiet machine.

The numbers of spinners take turns, and each row divides medians, so that what drifts in the machine drifts in all of them.
"""
from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

from bench.harness import image_peers, peers
from fastnet import get_num_threads, set_num_threads
from fastnet.sweep import lr_sweep

COURSE = (3072, 500, 5)
RATE = 0.1
SETTLING = 0.1  # seconds until the spinners spin, and for the system to place them


def course(n: int = 2500, widths: tuple[int, ...] = COURSE, batch_size: int = 128, epochs: int = 6,
           fit: Callable = peers.fastnet_fit, **options: str) -> Callable[[], object]:
    """Training of a fully connected network."""
    x, t, weights = peers.workload(n, widths, np.float32)
    return lambda: fit(x, t, weights, epochs, RATE, batch_size, **options)


def images() -> Callable[[], object]:
    """Training of a network with two convolutions on images of CIFAR's shape."""
    network = image_peers.Network((3, 32, 32), (16, 32))
    x, t, weights = image_peers.workload(network, 1000, np.float32)
    return lambda: image_peers.fastnet_fit(x, t, weights, 1, RATE, 128)


def sweep() -> Callable[[], object]:
    """Four learning rates at once."""
    x, t, weights = peers.workload(2500, COURSE, np.float32)
    return lambda: lr_sweep(lambda rng: peers.fastnet_model(weights), x, t, lrs=[0.01, 0.03, 0.1, 0.3], epochs=2, seeds=1,
                            progress=False)


def predict() -> Callable[[], object]:
    """The labels of some thousand samples."""
    x, _, weights = peers.workload(10_000, COURSE, np.float32)
    model = peers.fastnet_model(weights)
    return lambda: [model.predict(x) for _ in range(3)]


JOBS: dict[str, Callable[[], Callable[[], object]]] = {
    "course": course,
    "course, plain": lambda: course(epochs=3, engine="fused"),
    "batch 8": lambda: course(n=1250, batch_size=8, epochs=2),
    "deep": lambda: course(widths=(3072, 1024, 512, 5), epochs=2),
    "cifar": images,
    "sweep": sweep,
    "predict": predict,
    "jax": lambda: course(epochs=3, fit=peers.jax_fit),
}
DEFAULT = ("course", "course, plain", "batch 8", "deep", "cifar", "sweep")


@contextlib.contextmanager
def spinning(count: int) -> Iterator[None]:
    """So many processes that keep a core busy each."""
    spinners = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(SETTLING)
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
        for spinner in spinners:
            spinner.wait()


def seconds(job: Callable[[], object], spinners: int = 0) -> float:
    """One run of a job beside some spinners."""
    with spinning(spinners):
        start = time.perf_counter()
        job()
        return time.perf_counter() - start


def row(name: str, spinners: int, rounds: int) -> str:
    """A job's line of the table."""
    job = JOBS[name]()
    job()
    times: list[list[float]] = [[] for _ in range(spinners + 1)]
    single, threads = [], get_num_threads()
    for _ in range(rounds):
        for count, kept in enumerate(times):
            kept.append(seconds(job, count))
        set_num_threads(1)
        single.append(seconds(job))
        set_num_threads(threads)
    alone, *beside, one = (statistics.median(kept) for kept in (*times, single))
    return " ".join((f"{name:15s} {alone * 1e3:7.0f} ms", *(f"{value / alone:10.2f}" for value in beside),
                     f"{one / alone:10.2f}" if name != "jax" else ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=DEFAULT)
    parser.add_argument("--spinners", type=int, default=3, help="at most so many")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{get_num_threads()} threads on {os.cpu_count()} cores; time as a multiple of that alone", flush=True)
    print(" ".join((f"{'job':15s} {'alone':>10s}", *(f"{k} spinner{'s' * (k > 1)}".rjust(10)
                                                    for k in range(1, options.spinners + 1)), "one thread")))
    for name in options.jobs:
        print(row(name, options.spinners, options.rounds), flush=True)


if __name__ == "__main__":
    main()
