"""What leaving out zeros gains: products of which one factor has zeros, with and without `sparse_kernel`, in turns.

    python -m bench.studies.zeros              # in float32, on one thread
    python -m bench.studies.zeros --dtype float64 --turns 21

Printed is the plain product's time divided by the other one's, for several shares of zeros: more than 1 is faster. Both give
the same bits, which is verified first. Below a third of zeros, fastnet takes the plain product in any case.
"""
from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
from fastnet.kernels.gemm import matmul
from fastnet.kernels.gemm.sparse import sparse_kernel
from fastnet.kernels.runtime import pool
from numba import from_dtype

ZEROS = (0.0, 0.3, 0.5, 0.7, 0.9)
# name: rows, columns and k; whether A has the zeros; whether A and B lie transposed
PRODUCTS = {
    "G D, 2500-500": (128, 500, 2500, False, False, False),
    "dy.T x, 3072-500": (500, 3072, 128, True, True, False),
    "dy W, 3072-500": (128, 3072, 500, True, False, False),
    "x W.T, 1024-512": (128, 512, 1024, True, False, True),
    "dy.T x, 784-128": (128, 784, 128, True, True, False),
    "dy W, 784-128": (128, 784, 128, True, False, False),
    "x.T dy, 3072-500": (3072, 500, 128, False, True, False),
}


def race(m: int, n: int, k: int, a_has_zeros: bool, a_turned: bool, b_turned: bool, zeros: float, dtype: np.dtype,
         turns: int) -> float:
    """The plain product's time divided by that without zeros: the median of paired turns."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n)))
    sparse = a if a_has_zeros else b
    sparse[rng.random(sparse.shape) < zeros] = 0
    a, b = np.asarray(a, order="F" if a_turned else "C"), np.asarray(b, order="F" if b_turned else "C")
    place, address = sparse_kernel.place(from_dtype(dtype)), sparse_kernel.address(dtype)
    results = np.empty((2, m, n), dtype)

    def product(kind: int) -> Callable[[], None]:
        def run() -> None:
            place[:] = address * kind, 0
            matmul(results[kind], a, b)
        return run

    for kind in (0, 1):
        product(kind)()
    assert np.array_equal(*results)
    repeats, ratios = max(1, round(2e8 / (m * n * k))), []
    for turn in range(turns):
        taken = [0.0, 0.0]
        for kind in (0, 1)[::(-1) ** turn]:
            started = time.process_time()
            for _ in range(repeats):
                product(kind)()
            taken[kind] = time.process_time() - started
        ratios.append(taken[0] / taken[1])
    place[0] = address
    return float(np.median(ratios))


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--turns", type=int, default=11)
    options = parser.parse_args(argv)
    if options.turns < 1:
        parser.error(f"--turns is {options.turns}: the median needs at least one")
    pool.set_num_threads(1)
    head = [options.dtype, *(f"{zeros:.0%} zeros" for zeros in ZEROS)]
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for name, (*sizes, a_has_zeros, a_turned, b_turned) in PRODUCTS.items():
        ratios = [race(*sizes, a_has_zeros, a_turned, b_turned, zeros, np.dtype(options.dtype), options.turns)
                  for zeros in ZEROS]
        print(f"| {name} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |", flush=True)


if __name__ == "__main__":
    main()
