"""Every layer beside NumPy's expressions for it, over sizes from 1 to 4096, dtypes and layouts: is it ever slower?

    python -m bench.studies.layer_sizes                              # prints a table
    python -m bench.studies.layer_sizes --picture docs/img/layer_sizes.svg
    python -m bench.studies.layer_sizes --most 512 --only relu

In pieces, for a machine that is quiet for a few minutes at a time only; then one picture of all:

    python -m bench.studies.layer_sizes --sizes 1,2,4,8 --save small.csv
    python -m bench.studies.layer_sizes --sizes 2048,4096 --layouts C --save large.csv
    python -m bench.studies.layer_sizes --merge small.csv large.csv --picture docs/img/layer_sizes.svg

The ratio is NumPy's time / fastnet's; both compute the same, in the same dtype, from the same arrays. Each number is the
best of many short turns, which alternate; where files that are merged hold the same comparison, of all their turns.
"""
from __future__ import annotations

import argparse
import csv
import time
import timeit
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, SoftMaxLayer

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
BATCH = 32
TURN = 2e-3  # seconds of a turn, unless a single call takes longer
REST = 0.2  # seconds before a turn of fastnet's: a BLAS's threads spin that long after their last product
DIVIDED = 32  # size from which a BLAS may divide a product among threads
LAYOUTS = ("C", "F", "strided")

Call = Callable[[], Any]


class Row(NamedTuple):
    """One comparison."""

    name: str
    dtype: str
    layout: str
    size: int
    ratio: float  # NumPy's time / fastnet's
    seconds: float  # of a call of fastnet's


def laid_out(a: np.ndarray, layout: str) -> np.ndarray:
    """The numbers of `a` in another memory layout."""
    if layout == "F":
        return np.asfortranarray(a)
    if layout == "strided":
        base = np.zeros((2 * a.shape[0], 2 * a.shape[1]), a.dtype)
        base[::2, ::2] = a
        return base[::2, ::2]
    return a


def pairs(n: int, width: int, dtype: type, layout: str, rng: np.random.Generator) -> Iterator[tuple[str, Call, Call]]:
    """What is compared, for a batch of n rows of `width` numbers: a name, fastnet's call and NumPy's."""
    def make(*shape: int) -> np.ndarray:
        return laid_out(rng.standard_normal(shape).astype(dtype), layout)

    full, x, dy = FullLayer(width, width, dtype=dtype, rng=0), make(n, width), make(n, width)
    W, b = full.W, full.b
    yield "full forward", lambda: full.forward(x), lambda: x @ W.T + b
    full.forward(x)
    yield "full backward", lambda: full.backward(dy), lambda: (dy @ W, dy.T @ x, dy.sum(axis=0, keepdims=True))
    full.backward(dy)
    dW, db = full.W_grad, full.b_grad

    def numpy_update() -> Any:
        return W - dtype(0.0) * dW, b - dtype(0.0) * db

    yield "full update", lambda: full.update_param(0.0), numpy_update
    relu = ReluLayer()
    yield "relu forward", lambda: relu.forward(x), lambda: np.maximum(x, 0)
    y = relu.forward(x)
    yield "relu backward", lambda: relu.backward(dy), lambda: dy * (y > 0)
    softmax = SoftMaxLayer()

    def numpy_softmax() -> np.ndarray:
        e = np.exp(x - x.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    yield "softmax forward", lambda: softmax.forward(x), numpy_softmax
    p = softmax.forward(x)
    yield "softmax backward", lambda: softmax.backward(dy), lambda: p * (dy - (dy * p).sum(axis=1, keepdims=True))
    if width > 1:
        loss, t = CrossEntropyLayer(), laid_out(np.eye(width, dtype=dtype)[np.arange(n) % width], layout)
        q = laid_out(np.maximum(p, dtype(1e-30)), layout)
        yield "cross-entropy forward", lambda: loss.forward(q, t), lambda: -np.sum(t * np.log(q)) / len(q)
        loss.forward(q, t)
        yield "cross-entropy backward", loss.backward, lambda: -t / q / len(q)


def best(calls: tuple[Call, Call], turns: int, rest: bool = False) -> list[float]:
    """Seconds of a call of each, in turns; with `rest`, none of a BLAS's threads is in the way."""
    counts = []
    for call in calls:
        call()
        counts.append(max(1, int(TURN / max(1e-9, min(timeit.repeat(call, number=1, repeat=3))))))
    times = [float("inf")] * 2
    for _ in range(turns):
        if rest:
            time.sleep(REST)
        for i, call in enumerate(calls):
            call()  # threads are awake, and the arrays in the cache, as in a loop
            start = time.perf_counter()
            for _ in range(counts[i]):
                call()
            times[i] = min(times[i], (time.perf_counter() - start) / counts[i])
    return times


def measure(sizes: Iterable[int], only: str, turns: int, layouts: tuple[str, ...]) -> list[Row]:
    """Time every comparison, and print it."""
    rows = []
    for size in sizes:
        for dtype in (np.float64, np.float32):
            for layout in layouts:
                for name, ours, theirs in pairs(BATCH, size, dtype, layout, np.random.default_rng(size)):
                    if only in name:
                        with np.errstate(all="ignore"):
                            mine, numpys = best((ours, theirs), turns, rest=name.startswith("full") and size >= DIVIDED)
                        rows.append(Row(name, dtype.__name__, layout, size, numpys / mine, mine))
                        print(f"{name:24s} {dtype.__name__} {layout:8s} {size:5d}  {numpys / mine:7.2f}  "
                              f"{mine * 1e6:10.2f} us", flush=True)
    return rows


def save(rows: list[Row], path: str) -> None:
    """Write rows for a later ``--merge``."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def merge(paths: Iterable[str]) -> list[Row]:
    """Rows of several files; of the same comparison, the best times of each side count."""
    found: dict[tuple[str, str, str, int], tuple[float, float]] = {}
    for path in paths:
        for name, dtype, layout, size, ratio, seconds in csv.reader(Path(path).read_text(encoding="utf-8").splitlines()):
            key, mine = (name, dtype, layout, int(size)), float(seconds)
            best_of_mine, best_of_numpys = found.get(key, (mine, float(ratio) * mine))
            found[key] = min(best_of_mine, mine), min(best_of_numpys, float(ratio) * mine)
    rows = [Row(*key, numpys / mine, mine) for key, (mine, numpys) in found.items()]
    return sorted(rows, key=lambda row: row.size)


def picture(rows: list[Row], path: str) -> None:
    """Ratios over sizes, a panel a method, a line for each dtype and layout."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullLocator

    names = list(dict.fromkeys(row[0] for row in rows))
    figure, axes = plt.subplots(3, 3, figsize=(11, 8.5), sharex=True, squeeze=False, layout="constrained")
    for axis, name in zip(axes.flat, names, strict=False):
        for dtype, colour in (("float64", "tab:blue"), ("float32", "tab:orange")):
            for layout, style in zip(LAYOUTS, ("-", "--", ":"), strict=True):
                found = [(size, ratio) for n, d, lay, size, ratio, _ in rows if (n, d, lay) == (name, dtype, layout)]
                if found:
                    axis.plot(*zip(*found, strict=True), style, color=colour, label=f"{dtype}, {layout}")
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set(xscale="log", yscale="log", title=name)
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_major_formatter("{x:g}")
    axes[0, 0].legend(fontsize=7)
    figure.supxlabel(f"inputs and outputs of the layer; batches of {BATCH}")
    figure.supylabel("NumPy's time / fastnet's")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=4096, help="largest size")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--only", default="", help="comparisons whose name contains a text")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--layouts", default=",".join(LAYOUTS))
    parser.add_argument("--save", metavar="FILE", help="where to write the rows, for --merge")
    parser.add_argument("--merge", nargs="+", metavar="FILE", help="measure nothing, take the rows of these files")
    parser.add_argument("--picture", help="where to draw the ratios")
    options = parser.parse_args()
    if options.merge:
        rows = merge(options.merge)
    else:
        sizes = [size for size in map(int, options.sizes.split(",")) if size <= options.most]
        rows = measure(sizes, options.only, options.turns, tuple(options.layouts.split(",")))
    if options.save:
        save(rows, options.save)
    slower = [row for row in rows if row.ratio < 1]
    print(f"{len(rows)} comparisons, {len(slower)} of them slower than NumPy" + "".join(
        f"\n  {row.name} {row.dtype} {row.layout} {row.size}: {row.ratio:.2f}" for row in slower))
    if options.picture:
        picture(rows, options.picture)


if __name__ == "__main__":
    main()
