"""From three loops to the machine's peak, one idea per step: ``python -m bench.studies.gemm_ladder``

Every step is verified and timed, all in turns; NumPy, PyTorch's MKL (where it is installed) and the FMA peak of the
same run stand beside them. Prints a table and writes a picture.
"""
import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.gemm import matmul, pack
from fastnet.kernels.gemm.blocking import KC, tile_loop
from fastnet.kernels.records import Mat
from fastnet.kernels.runtime.pool import get_num_threads, set_num_threads
from fastnet.kernels.simd import MR, VECTOR_BYTES, lanes

from bench.harness import machine
from bench.harness.peers import is_installed

ROUNDS = 9
_PAUSE = 0.02  # idle threads of a library fall asleep before the next one is timed
IDEAS = {
    "naive": "three loops",
    "blocked": "the middle ones over blocks that stay in the cache",
    "vectorised": "a tile of C in vector registers, written as an LLVM intrinsic",
    "packed": "operands copied into the order in which the tile reads them",
    "threaded": "each thread its own rectangle of C",
    "kept packed": "B packed once for many products",
}


@jit
def naive(c, a, b):
    """C = A B, each element on its own: B is read down its columns, a cache line for each number."""
    m, k = a.shape
    for i in range(m):
        for j in range(b.shape[1]):
            total = c.dtype.type(0)
            for p in range(k):
                total += a[i, p] * b[p, j]
            c[i, j] = total


@jit
def blocked(c, a, b):
    """Runs of k outside, rows of B inside: they are contiguous, and stay in the cache while rows of A go past."""
    m, k = a.shape
    c[:] = 0
    for start in range(0, k, 64):
        for i in range(m):
            for p in range(start, min(start + 64, k)):
                factor = a[i, p]
                for j in range(b.shape[1]):
                    c[i, j] += factor * b[p, j]


@jit
def vectorised(c_at, c_row, a_at, a_row, b_at, b_row, m, n, k, one, zero):
    """The micro-kernel straight on the operands, run by run of k; n is a whole number of vectors."""
    width = lanes(one)
    size = VECTOR_BYTES // width
    for p in range(0, k, KC):
        tile_loop(Mat(c_at, c_row, 1, width), Mat(a_at + p * size, a_row, 1, 0),
                  Mat(b_at + p * b_row * size, b_row, 1, width), m, n, min(KC, k - p), one, zero if p == 0 else one, 0, 0, 0)


def contenders(a: np.ndarray, b: np.ndarray) -> dict[str, Callable[[np.ndarray], object]]:
    """Every step, then the libraries; each writes A B into the array that it is given."""
    (m, k), n, number = a.shape, b.shape[1], a.dtype.type
    threads, packed = get_num_threads(), pack(b)

    def on_the_operands(c: np.ndarray) -> None:
        vectorised(c.ctypes.data, n, a.ctypes.data, k, b.ctypes.data, n, m, n, k, number(1), number(0))

    def on_one_thread(c: np.ndarray) -> None:
        set_num_threads(1)
        try:
            matmul(c, a, b)
        finally:
            set_num_threads(threads)

    steps: dict[str, Callable[[np.ndarray], object]] = {
        "naive": lambda c: naive(c, a, b), "blocked": lambda c: blocked(c, a, b), "vectorised": on_the_operands,
        "packed": on_one_thread, "threaded": lambda c: matmul(c, a, b), "kept packed": lambda c: matmul(c, a, packed),
        "NumPy": lambda c: np.matmul(a, b, out=c)}
    if is_installed("torch"):
        import torch
        steps["PyTorch"] = lambda c: torch.matmul(torch.from_numpy(a), torch.from_numpy(b), out=torch.from_numpy(c))
    return steps


def climb(m: int, n: int, k: int, dtype: str) -> tuple[dict[str, float], dict[str, float]]:
    """GFLOP/s of every contender (the median of rounds in which all take turns), and its error."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    steps = contenders(a, b)
    errors: dict[str, float] = {}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for name, step in steps.items():
        c = np.full((m, n), np.nan, dtype)
        step(c)
        errors[name] = float(np.max(np.abs(c - exact)) / np.max(np.abs(exact)))
        if not errors[name] < 100 * np.finfo(dtype).eps:
            raise AssertionError(f"{name} is wrong by {errors[name]:.2g} of the largest number: not timed.")
    for _ in range(ROUNDS):
        for name, step in steps.items():
            time.sleep(_PAUSE)
            step(c)
            started = time.perf_counter()
            step(c)
            seconds[name].append(time.perf_counter() - started)
    return {name: 2e-9 * m * n * k / float(np.median(times)) for name, times in seconds.items()}, errors


def draw(rates: dict[str, float], peak: float, title: str, file: Path) -> None:
    """Bars on a logarithmic scale, under the peak."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    figure, axes = plt.subplots(figsize=(8, 4.4), layout="constrained")
    colours = ["#0f766e" if name in IDEAS else "#c2410c" for name in rates]
    bars = axes.bar(list(rates), list(rates.values()), color=colours, width=0.65)
    axes.bar_label(bars, [f"{rate:.3g}" for rate in rates.values()], padding=2)
    axes.axhline(peak, color="#475569", linestyle="--", linewidth=1)
    axes.annotate(f"FMA peak {peak:.0f}", (0, peak), xytext=(-18, 4), textcoords="offset points", color="#475569")
    axes.set(title=title, ylabel="GFLOP/s", yscale="log", ylim=(min(rates.values()) / 2, peak * 2))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.gemm_ladder", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="128x512x3072", help="m x n x k, n a multiple of 16 (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--picture", type=Path, default=Path("gemm_ladder.png"), help="(default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        m, n, k = (int(size) for size in args.shape.split("x"))
    except ValueError:
        parser.error(f"--shape is {args.shape!r}: expected three whole numbers such as 128x512x3072.")
    if min(m, n, k) < 1 or n % 16:
        parser.error(f"--shape is {args.shape}: expected sizes above 0 and n a multiple of 16.")
    peak = machine.fma_peak(args.dtype) / 1e9
    rates, errors = climb(m, n, k, args.dtype)
    title = f"C = A B, {args.shape}, {args.dtype}, {get_num_threads()} threads, tile of {MR} rows"
    print(title)
    for name, rate in rates.items():
        print(f"{name:12} {rate:7.1f} GFLOP/s  {rate / peak:5.0%} of the peak  error {errors[name]:.0e}  "
              f"{IDEAS.get(name, '')}")
    print(f"{'FMA peak':12} {peak:7.1f} GFLOP/s")
    draw(rates, peak, title, args.picture)
    print(f"drawn in {args.picture}")


if __name__ == "__main__":
    main()
