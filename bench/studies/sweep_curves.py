"""Curves of many seeds on data sets of different kinds, from which `sweep_choice` draws small sweeps.

    pip install scikit-learn mlxtend
    python -m bench.studies.sweep_curves --out curves                # all data sets, 13 rates x 240 seeds each

The trainer is plain NumPy and shares no code with fastnet: all networks of a chunk are trained at once, by batched matrix
products. Each data set is split into training samples and a pool of other samples. The file of a data set keeps which of the
pool each network got right after its last epochs, so that held-out sets of any size can be drawn as well as seeds. Those
of ``TUNE`` may decide how fastnet chooses; those of ``REPORT`` only report.
"""
from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

LRS = tuple(float(f"{lr:.3g}") for lr in np.geomspace(0.002, 8.192, 13))
EPOCHS, RUNG, LAST = 20, 6, 3  # the pool's samples are looked at after the rung, and averaged over the last epochs
DIVERGED_ABOVE = 10.0


class Data(NamedTuple):
    """Training samples, a pool of others, hidden widths and the batch size."""

    x: np.ndarray
    labels: np.ndarray
    pool: np.ndarray
    pool_labels: np.ndarray
    hidden: tuple[int, ...] = (32,)
    batch: int = 32


def split(x: np.ndarray, labels: np.ndarray, n: int, pool: int, **more: object) -> Data:
    """Shuffled and standardised by the training samples."""
    order = np.random.default_rng(7).permutation(len(x))[:n + pool]
    x, labels = x[order].astype(float), labels[order]
    x = (x - x[:n].mean(0)) / (x[:n].std(0) + 1e-6 * np.abs(x).max())
    return Data(x[:n].astype(np.float32), labels[:n], x[n:].astype(np.float32), labels[n:], **more)  # type: ignore[arg-type]


def digits() -> Data:
    """8 x 8 images of digits."""
    from sklearn.datasets import load_digits

    return split(*load_digits(return_X_y=True), 500, 1297)


def breast_cancer() -> Data:
    """30 features, two classes."""
    from sklearn.datasets import load_breast_cancer

    return split(*load_breast_cancer(return_X_y=True), 200, 369, hidden=(16,), batch=16)


def wine() -> Data:
    """13 features, three classes, few samples."""
    from sklearn.datasets import load_wine

    return split(*load_wine(return_X_y=True), 70, 108, hidden=(16,), batch=10)


def diabetes() -> Data:
    """A regression's targets in three classes of equal size: little can be learned."""
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    return split(x, np.digitize(y, np.quantile(y, [1 / 3, 2 / 3])), 200, 242, hidden=(16,), batch=16)


def label_noise() -> Data:
    """Ten informative features of 20, three classes, a tenth of the labels drawn at random."""
    from sklearn.datasets import make_classification

    return split(*make_classification(1800, 20, n_informative=10, n_classes=3, flip_y=0.1, random_state=1), 400, 1400)


def much_label_noise() -> Data:
    """Ten informative features of 60, five classes, a third of the labels drawn at random."""
    from sklearn.datasets import make_classification

    return split(*make_classification(1800, 60, n_informative=10, n_classes=5, flip_y=0.33, random_state=2), 400, 1400,
                 hidden=(32, 16))


def moons() -> Data:
    """Two interleaved half circles, with noise; two hidden layers."""
    from sklearn.datasets import make_moons

    return split(*make_moons(1300, noise=0.25, random_state=3), 200, 1100, hidden=(16, 16), batch=16)


def mnist() -> Data:
    """A subset of 28 x 28 images of digits, which comes with mlxtend."""
    from mlxtend.data import mnist_data

    x, labels = mnist_data()
    return split(x, labels, 500, 1500)


def gratings() -> Data:
    """Images made here: 12 x 12 stripes in eight directions, of any phase, in noise."""
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 8, 1900)
    at = np.arange(12.0)
    angle = labels * np.pi / 8
    phase = np.cos(angle)[:, None, None] * at[:, None] + np.sin(angle)[:, None, None] * at
    x = np.sin(1.1 * phase + rng.uniform(0, 2 * np.pi, 1900)[:, None, None]) + rng.normal(0, 1.0, (1900, 12, 12))
    return split(x.reshape(1900, 144), labels, 600, 1300, hidden=(48,))


def coloured_images() -> Data:
    """fastnet's own synthetic images, at a quarter of their resolution."""
    from fastnet.dataset import synthetic

    (x, t), (x_test, labels) = synthetic(seed=0, n_train=600, n_test=1200, dtype=np.float32)
    x = np.concatenate([x, x_test]).reshape(-1, 3, 8, 4, 8, 4).mean((3, 5)).reshape(-1, 192)
    return split(x, np.concatenate([t.argmax(1), labels]), 500, 1300)


TUNE: dict[str, Callable[[], Data]] = {f.__name__: f for f in (digits, breast_cancer, label_noise, gratings, moons)}
REPORT: dict[str, Callable[[], Data]] = {f.__name__: f for f in (mnist, wine, diabetes, much_label_noise, coloured_images)}


def train(data: Data, lrs: tuple[float, ...], seeds: range, epochs: int = EPOCHS) -> dict[str, np.ndarray]:
    """Networks of all rates and seeds, trained at once: rate after rate of each seed.

    Returns
    -------
    dict of ndarray
        ``losses`` (rates, seeds, epochs); ``diverged`` (rates, seeds), the epoch or 0; ``right`` and ``right_at_rung``
        (rates, seeds, pool), in how many of the last epochs, and whether at the rung; ``pool_loss`` (rates, seeds, pool).
    """
    shape, classes = (len(seeds), len(lrs)), int(data.labels.max()) + 1
    many = len(seeds) * len(lrs)
    widths = (data.x.shape[1], *data.hidden, classes)
    W, b = [], []
    for n_i, n_o in pairwise(widths):
        W.append(np.empty((many, n_i, n_o), np.float32))
        b.append(np.zeros((many, 1, n_o), np.float32))
    for k, seed in enumerate(seeds):
        rng = np.random.default_rng(seed)
        for of, (n_i, n_o) in zip(W, pairwise(widths)):
            of[k * len(lrs):(k + 1) * len(lrs)] = rng.normal(0, np.sqrt(2 / (n_i + n_o)), (n_i, n_o))
    lr = np.tile(np.array(lrs, np.float32), len(seeds))[:, None, None]
    targets = np.eye(classes, dtype=np.float32)[data.labels]
    alive, limit = np.ones(many, bool), np.full(many, np.inf)
    found = {"losses": np.full((many, epochs), np.nan), "diverged": np.zeros(many, int)}
    found |= {name: np.zeros((many, len(data.pool)), np.uint8) for name in ("right", "right_at_rung")}
    for epoch in range(epochs):
        total, steps = np.zeros(many), 0
        for start in range(0, len(data.x), data.batch):
            kept = _forward(data.x[start:start + data.batch], W, b)
            t = targets[start:start + data.batch]
            loss = -np.log(np.maximum((kept[-1] * t).sum(2), 0)).mean(1)
            if not epoch and not start:
                limit = DIVERGED_ABOVE * loss
            total, steps = total + loss, steps + 1
            grad = (kept[-1] - t) / np.float32(len(t))
            for i in range(len(W) - 1, -1, -1):
                dW = np.matmul(kept[i].swapaxes(-1, -2), grad)
                db = grad.sum(1, keepdims=True)
                if i:
                    grad = np.matmul(grad, W[i].swapaxes(1, 2)) * (kept[i] > 0)
                W[i] -= lr * dW
                b[i] -= lr * db
        mean = total / steps
        found["losses"][alive, epoch] = mean[alive]
        lost = alive & ~(np.isfinite(mean) & (mean <= limit))
        found["diverged"][lost] = epoch + 1
        alive &= ~lost
        if epoch + 1 == RUNG or epoch >= epochs - LAST:
            y = _forward(data.pool, W, b)[-1]
            right = y.argmax(2) == data.pool_labels
            if epoch + 1 == RUNG:
                found["right_at_rung"] += right
            if epoch >= epochs - LAST:
                found["right"] += right
    of_truth = np.take_along_axis(y, data.pool_labels[None, :, None].repeat(many, 0), 2)[:, :, 0]
    found["pool_loss"] = np.minimum(-np.log(np.maximum(of_truth, 1e-38)), 60).astype(np.float16)
    return {name: np.moveaxis(value.reshape(*shape, *value.shape[1:]), 1, 0) for name, value in found.items()}


def _forward(x: np.ndarray, W: list[np.ndarray], b: list[np.ndarray]) -> list[np.ndarray]:
    """The input of every layer, and the class probabilities; the first product is one for all networks."""
    many, n_i, n_o = W[0].shape
    kept: list[np.ndarray] = [x]
    y = (x @ W[0].transpose(1, 0, 2).reshape(n_i, many * n_o)).reshape(len(x), many, n_o).transpose(1, 0, 2) + b[0]
    for weights, bias in zip(W[1:], b[1:]):
        kept.append(np.maximum(y, 0))
        y = np.matmul(kept[-1], weights) + bias
    y = np.exp(y - y.max(2, keepdims=True))
    return [*kept, y / y.sum(2, keepdims=True)]


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="a folder for a file of each data set")
    parser.add_argument("--seeds", type=int, default=240, help="(default: %(default)s)")
    parser.add_argument("--chunk", type=int, default=20, help="seeds trained at once (default: %(default)s)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, make in (TUNE | REPORT).items():
        path = options.out / f"{name}.npz"
        if path.exists():
            continue
        data, began = make(), time.perf_counter()
        with np.errstate(all="ignore"):
            chunks = [train(data, LRS, range(first, min(first + options.chunk, options.seeds)))
                      for first in range(0, options.seeds, options.chunk)]
        whole = {key: np.concatenate([chunk[key] for chunk in chunks], axis=1) for key in chunks[0]}
        np.savez_compressed(path, lrs=np.array(LRS), pool_labels=data.pool_labels, **whole)
        accuracy = np.where(whole["diverged"].any(1), np.nan, whole["right"].mean((1, 2)) / LAST)
        print(f"{name:18s} {time.perf_counter() - began:5.0f} s  " + " ".join(f"{a:.3f}" for a in accuracy), flush=True)


if __name__ == "__main__":
    main()
