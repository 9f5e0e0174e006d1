"""How far training of networks of images is from what the multipliers allow, and which op takes what.

    python -m bench.studies.image_floors            # the jobs of bench_images.py, on one thread
    python -m bench.studies.image_floors cifar wide

The floor counts the operations that are left: all of the way forward, or Winograd's products where they are used, and a
quarter of the way back, as of each 2 x 2 window one pixel has a gradient (ReLU removes some of those, too, which is not
counted). It is at the FMA peak of one core, measured in this session, by the clock: quote it from a quiet machine. Times are
CPU times of one thread, the least of many, so that a busy machine shows less.
"""
from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from fastnet.kernels.records import CALL, CONTEXT, OP, SAMPLES, call_at
from fastnet.kernels.runtime import pool
from numba import njit

from bench.bench_images import JOBS, RATE
from bench.harness import image_peers as peers
from bench.harness import machine
from fastnet.training.engine import Engine

ROUNDS = 15
_REPEATS = 20  # calls of an op in one timing


@njit
def _repeat(times: int, kernel: int, op: int, context: int, samples: int, one: float) -> None:
    for _ in range(times):
        call_at(kernel, op, context, 0, samples, one)


def least(function: Any, *arguments: Any, rounds: int = ROUNDS) -> float:
    """Least CPU time of this thread."""
    function(*arguments)
    taken = []
    for _ in range(rounds):
        started = time.thread_time()
        function(*arguments)
        taken.append(time.thread_time() - started)
    return min(taken)


def engine_of(job: Any, n: int) -> tuple[Engine, np.ndarray]:
    """The compiled engine, ready to train on n images."""
    x, t, weights = peers.workload(job.network, n, job.dtype)
    return Engine(peers.fastnet_model(weights), x, t, job.batch_size), x


def of_ops(engine: Engine, x: np.ndarray) -> list[tuple[str, float]]:
    """Microseconds an image of each op that is called by address, on the images of one block, again and again."""
    commands, ops = engine.commands(), engine.program.net.ops(source_columns=engine.form.columns)
    scratch = np.zeros(pool.SCRATCH_BYTES + 64, np.uint8)
    context = np.zeros(1, CONTEXT)
    context["parts"], context["n"], context["lr"] = 1, engine.batch_size, RATE
    context["scratch"] = -(-scratch.ctypes.data // 64) * 64
    context["batch"], context["batch_row"] = x.ctypes.data, x[0].size
    found = []
    for number, op in enumerate(ops):
        if op.kind == CALL:
            samples = int(commands["block"].max()) if op.split == SAMPLES else engine.batch_size
            at = commands.ctypes.data + number * OP.itemsize
            seconds = least(_repeat, _REPEATS, int(commands[number]["kernel"]), at, context.ctypes.data, samples,
                            engine.dtype.type(1)) / _REPEATS
            found.append((op.record["kernel"].name.partition(":")[2], 1e6 * seconds / samples))
    return found


def main(names: list[str]) -> None:
    pool.set_num_threads(1)
    for job in JOBS:
        if names and job.name not in names:
            continue
        n = max(2 * job.batch_size, 64)
        engine, x = engine_of(job, n)
        taken = 1e6 * least(engine.epoch, RATE, None, n) / n
        peak = machine.fma_peak(np.dtype(job.dtype).name)
        dense, left = job.network.operations(), job.network.operations(sparse=True, winograd=job.dtype == np.float32)
        print(f"{job}: {taken:.1f} us an image; {dense / taken / 1e3:.0f} GFLOP/s of the dense network, "
              f"{1e8 * dense / taken / peak:.0f}% of the peak of {peak / 1e9:.0f}; the floor, {left / 1e6:.2f} of "
              f"{dense / 1e6:.2f} MFLOP, is {1e8 * left / peak / taken:.0f}% of the time")
        for name, of_op in of_ops(engine, x):
            print(f"    {name:24s} {of_op:6.2f} us an image")


if __name__ == "__main__":
    main(sys.argv[1:])
