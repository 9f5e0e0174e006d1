"""A hand-written training loop by its calls: the floor of each, and how far fastnet's layers and NumPy are from it.

    python -m bench.studies.loop_floors                  # all rows, float64 and float32
    python -m bench.studies.loop_floors course deep --dtype float32 --rounds 9

A step of a fully connected layer takes 6 n n_i n_o operations: forward, input gradient, weight gradient. Their floor is the
FMA peak measured in the same run; that of ``update_param`` is the rate of a copy that reads and writes as much as it must.
The last line of a row says what the whole step could gain over NumPy if fastnet were at the floor everywhere: no layer can
do better, since NumPy's own products run at the share of the peak that the table shows.
"""
from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.harness import machine
from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, SoftMaxLayer

ROWS = {"mnist32": ((784, 128, 10), 32), "mnist128": ((784, 128, 10), 128), "narrow": ((3072, 100, 5), 128),
        "course": ((3072, 500, 5), 128), "course1": ((3072, 500, 5), 1), "deep": ((3072, 1024, 512, 5), 128)}
TURN = 4e-3  # seconds of one timing, unless a single call takes longer
REST = 0.25  # seconds before a turn: a BLAS's threads spin that long after their last product

Call = Callable[[], Any]
Part = tuple[str, Call, Call, float]  # name, fastnet's call, NumPy's, seconds of the floor


def parts(widths: tuple[int, ...], n: int, dtype: np.dtype) -> list[Part]:
    """The calls of one step, in order, on the arrays that it would have."""
    rng = np.random.default_rng(0)
    peak, size = machine.fma_peak(dtype.name), dtype.itemsize
    found: list[Part] = []
    x = rng.standard_normal((n, widths[0])).astype(dtype)
    rate = dtype.type(0.01)
    for n_i, n_o in itertools.pairwise(widths):
        layer = FullLayer(n_i, n_o, dtype=dtype, rng=rng)
        dy = rng.standard_normal((n, n_o)).astype(dtype)
        found += full_parts(layer, x, dy, rate, 2 * n * n_i * n_o / peak,
                            3 * n_i * n_o * size / machine.copy_bandwidth(3 * n_i * n_o * size))
        z = x @ layer.W.T
        activation: Any = SoftMaxLayer() if n_o == widths[-1] else ReluLayer()
        x = activation.forward(z).copy()
        found += [element_part(activation, z, dy)]
    found += [loss_part(x, np.eye(widths[-1], dtype=dtype)[rng.integers(0, widths[-1], n)])]
    return found


def full_parts(layer: FullLayer, x: np.ndarray, dy: np.ndarray, rate: Any, product: float, copied: float) -> list[Part]:
    """Forward, backward and update of a fully connected layer."""
    W, b = layer.W, layer.b
    layer.forward(x)
    layer.backward(dy)
    dW, db = layer.W_grad, layer.b_grad

    def update() -> None:
        layer.__dict__.update(W=W, b=b)  # or the weights would wander off while this is timed
        layer.update_param(0.01)

    name = f"{layer.n_i}-{layer.n_o}"
    return [(f"{name} forward", lambda: layer.forward(x), lambda: x @ W.T + b, product),
            (f"{name} backward", lambda: layer.backward(dy), lambda: (dy.sum(axis=0, keepdims=True), dy.T @ x, dy @ W),
             2 * product),
            (f"{name} update", update, lambda: (W - rate * dW, b - rate * db), copied)]


def element_part(layer: Any, z: np.ndarray, dy: np.ndarray) -> Part:
    """An activation, forward and backward."""
    def ours() -> None:
        layer.forward(z)
        layer.backward(dy)

    def relu() -> Any:
        y = np.maximum(z, 0)
        return dy * (y > 0)

    def softmax() -> Any:
        e = np.exp(z - z.max(axis=1, keepdims=True))
        y = e / e.sum(axis=1, keepdims=True)
        return y * (dy - (dy * y).sum(axis=1, keepdims=True))

    return type(layer).__name__, ours, relu if isinstance(layer, ReluLayer) else softmax, 0.0


def loss_part(p: np.ndarray, t: np.ndarray) -> Part:
    """The loss, forward and backward."""
    loss = CrossEntropyLayer()

    def ours() -> None:
        loss.forward(p, t)
        loss.backward()

    return "CrossEntropyLayer", ours, lambda: (-np.sum(t * np.log(p)) / len(p), -t / p / len(p)), 0.0


def seconds(found: list[Part], rounds: int) -> np.ndarray:
    """Medians of a call of each part, fastnet's and NumPy's, in turns: shape (parts, 2)."""
    counts = [[_calls(call) for call in part[1:3]] for part in found]
    taken = np.empty((rounds, len(found), 2))
    for turn in taken:
        for which in (0, 1):  # a whole step of the one, then of the other: their threads do not meet
            time.sleep(REST)
            for i, part in enumerate(found):
                call, count = part[1 + which], counts[i][which]
                call()
                start = time.perf_counter()
                for _ in range(count):
                    call()
                turn[i, which] = (time.perf_counter() - start) / count
    return np.asarray(np.median(taken, axis=0))


def _calls(call: Call) -> int:
    call()
    start = time.perf_counter()
    call()
    return max(1, int(TURN / (time.perf_counter() - start)))


def table(name: str, dtype: np.dtype, rounds: int) -> None:
    """Print a row's calls, then what is possible at all."""
    widths, n = ROWS[name]
    found = parts(widths, n, dtype)
    taken = seconds(found, rounds)
    print(f"\n{name} {'-'.join(map(str, widths))}, batches of {n}, {dtype.name}; "
          f"FMA peak {machine.fma_peak(dtype.name) / 1e9:.0f} GFLOP/s, {machine.get_num_threads()} threads")
    print("| call | floor, us | fastnet, us | of the floor's speed | NumPy, us | of the floor's speed | NumPy / fastnet |\n"
          "| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for (part, _, _, floor), (ours, numpys) in zip(found, taken, strict=True):
        shares = (f"{floor / ours:.0%}", f"{floor / numpys:.0%}") if floor else ("", "")
        print(f"| {part} | {floor * 1e6:.0f} | {ours * 1e6:.1f} | {shares[0]} | {numpys * 1e6:.1f} | {shares[1]} | "
              f"{numpys / ours:.2f} |")
    floor, (ours, numpys) = sum(part[3] for part in found), taken.sum(axis=0)
    print(f"| all | {floor * 1e6:.0f} | {ours * 1e6:.0f} | {floor / ours:.0%} | {numpys * 1e6:.0f} | {floor / numpys:.0%} | "
          f"{numpys / ours:.2f} |\nat the floor in every call, NumPy / fastnet would be {numpys / floor:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help=f"some of {', '.join(ROWS)}")
    parser.add_argument("--dtype", default="float64,float32")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    for name in options.rows or ROWS:
        for dtype in options.dtype.split(","):
            table(name, np.dtype(dtype), options.rounds)


if __name__ == "__main__":
    main()
