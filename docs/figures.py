"""Draw the figures of the documentation: ``python docs/figures.py`` writes them to docs/img/.

``steps.png`` and ``cost.png`` need only sizes. ``error.png`` and ``sweep.png`` train networks. At the end the program
prints how far training moves the weights. It takes about twenty seconds.
"""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer, one_hot
from fastnet.dataset import synthetic
from fastnet.sweep import lr_sweep

IMG = Path(__file__).parent / "img"
BLUE, ORANGE, GREEN, RED, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "0.6"
COURSE = {"n": 2500, "d": 3072, "h": 500}


def steps() -> Figure:
    """What one step of a mini-batch reads (shaded) and writes (hatched), plain and in Gram space; areas to scale."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    plain, gram = figure.subplots(1, 2)
    n, d, h, batch = 2.5, 3.072, 0.5, 0.128
    plain.set_title("plain: W is read twice and written once")
    _box(plain, 0, 0, d, n, "X  (n x d)", rows=[(1.2, batch, BLUE, "")])
    _box(plain, 0, -1.0, d, h, "W  (h x d)", rows=[(0, h, ORANGE, "///")])
    gram.set_title("Gram space: D is read once, one batch of it written")
    _box(gram, 0, 0, n, n, "G = X X$^T$  (n x n)", rows=[(1.2, batch, BLUE, "")])
    _box(gram, n + 0.35, 0, h, n, "D  (n x h)", rows=[(0, n, BLUE, ""), (1.2, batch, ORANGE, "///")])
    for axes in (plain, gram):
        axes.set(xlim=(-0.15, 3.6), ylim=(-1.4, 2.6), aspect="equal")
        axes.axis("off")
    handles = [Rectangle((0, 0), 1, 1, facecolor=BLUE, alpha=0.35, label="read in this step"),
               Rectangle((0, 0), 1, 1, facecolor=ORANGE, alpha=0.5, hatch="///", label="read and written in this step")]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _box(axes: Any, x: float, y: float, width: float, height: float, name: str, rows: list[tuple]) -> None:
    """A matrix, with the bands of rows that a step touches; heights count from the bottom."""
    for start, size, colour, hatch in rows:
        axes.add_patch(Rectangle((x, y + start), width, size, facecolor=colour, alpha=0.5 if hatch else 0.35, hatch=hatch))
    axes.add_patch(Rectangle((x, y), width, height, fill=False, lw=1.2))
    axes.text(x + width / 2, y - 0.08, name, ha="center", va="top")


def plain_cost(n: float, d: float, h: float, epochs: float) -> float:
    """Operations of the first layer's forward products and weight gradients."""
    return 4 * n * d * h * epochs


def gram_cost(n: float, d: float, h: float, epochs: float) -> float:
    """The same in Gram space: G, the first outputs, the epochs (half of the first is zeros), the weights at the end."""
    return n * n * d + 2 * n * d * h + 2 * n * n * h * (epochs - 0.5) + 2 * n * d * h


def cost() -> Figure:
    """Operations against epochs for the course network; the ratio against n / d."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = np.arange(1, 41)
    left.plot(epochs, plain_cost(epochs=epochs, **COURSE) / 1e9, color=GREY, label="plain: 4 n d h per epoch")
    left.plot(epochs, gram_cost(epochs=epochs, **COURSE) / 1e9, color=BLUE, label="Gram space: G, then 2 n² h per epoch")
    left.set(xlabel="epochs", ylabel="GFLOP, first layer", xlim=(0, 40), ylim=(0, None),
             title="the course's network: n = 2500, d = 3072, h = 500")
    left.legend(frameon=False)
    ratio = np.linspace(0.05, 3, 200)
    for count, colour in ((5, ORANGE), (20, BLUE), (100, GREEN)):
        d, h = COURSE["d"], COURSE["h"]
        saved = plain_cost(ratio * d, d, h, count) / gram_cost(ratio * d, d, h, count)
        right.plot(ratio, saved, color=colour, label=f"{count} epochs")
    right.axhline(1, color=GREY, lw=1)
    right.axvline(2, color=GREY, ls=":", lw=1)
    right.text(2.02, 6, "n = 2 d", color="0.4")
    right.set(xlabel="samples per feature, n / d", ylabel="operations, plain / Gram space", yscale="log", ylim=(0.4, 60),
              xlim=(0, 3), title="how much Gram space saves (d = 3072, h = 500)")
    right.set_yticks([0.5, 1, 2, 5, 10, 20, 50], ["0.5", "1", "2", "5", "10", "20", "50"])
    right.minorticks_off()
    right.legend(frameon=False)
    for axes in (left, right):
        axes.grid(alpha=0.25)
    return figure


def error(epochs: int = 200) -> Figure:
    """Relative deviation of float32 losses from a float64 run, for the plain engine and in Gram space."""
    rng = np.random.default_rng(0)
    n, d, h = 500, 800, 64
    labels = rng.integers(0, 5, n)
    x = (rng.normal(size=(5, d))[labels] * 0.05 + rng.normal(size=(n, d)) * 0.25).astype(np.float32)
    figure = Figure(figsize=(6.5, 3.8), layout="constrained")
    axes = figure.subplots()
    exact = _losses(np.float64, "fused", x, labels, h, epochs)
    for engine, colour, name in (("fused", GREY, "plain"), ("gram", BLUE, "Gram space")):
        deviation = np.abs(_losses(np.float32, engine, x, labels, h, epochs) / exact - 1)
        axes.semilogy(np.arange(1, epochs + 1), np.maximum(deviation, 1e-10), color=colour, lw=1, label=f"float32, {name}")
    axes.axhline(np.finfo(np.float32).eps, color=RED, ls=":", label="spacing of float32 numbers at 1")
    axes.set(xlabel="epoch", ylabel="relative deviation of the loss", ylim=(1e-9, 1e-3),
             title=f"n = {n}, d = {d}, h = {h}, batch 50, rate 0.05")
    axes.legend(frameon=False, ncols=3, fontsize="small")
    axes.grid(alpha=0.25)
    return figure


def _losses(dtype: type, engine: str, x: np.ndarray, labels: np.ndarray, h: int, epochs: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    layers = (FullLayer(x.shape[1], h, np.float32, rng), ReluLayer(), FullLayer(h, 5, np.float32, rng), SoftMaxLayer())
    model = Sequential(layers, loss=CrossEntropyLayer())
    for layer in model.layers[::2]:
        layer.W, layer.b = layer.W.astype(dtype), layer.b.astype(dtype)  # both start from the same numbers
    return model.fit(x.astype(dtype), one_hot(labels, 5), epochs, 0.05, 50, engine=engine, progress=False)


def sweep() -> Figure:
    """A sweep of nine rates with three seeds on the synthetic images."""
    (x, t), test = synthetic(0, dtype=np.float32)

    def build(rng: np.random.Generator) -> Sequential:
        layers = FullLayer(3072, 200, np.float32, rng), ReluLayer(), FullLayer(200, 5, np.float32, rng), SoftMaxLayer()
        return Sequential(layers, loss=CrossEntropyLayer())

    return lr_sweep(build, x[500:], t[500:], "0.01:1:log9", 12, seeds=3, validation=(x[:500], t[:500]), test=test,
                    progress=False).plot()


def movement(rate: float) -> float:
    """How far 20 epochs move the first weights of the course's network, in terms of their length."""
    (x, t), _ = synthetic(0, dtype=np.float32)
    layers = (FullLayer(3072, 500, np.float32, 0), ReluLayer(), FullLayer(500, 5, np.float32, 1), SoftMaxLayer())
    start = layers[0].W.copy()
    Sequential(layers, loss=CrossEntropyLayer()).fit(x, t, 20, rate, progress=False)
    return float(np.linalg.norm(layers[0].W - start) / np.linalg.norm(start))


def main() -> None:
    for draw in (steps, cost, error, sweep):
        draw().savefig(IMG / f"{draw.__name__}.png", dpi=130)
        print(IMG / f"{draw.__name__}.png")
    for rate in (0.01, 0.1, 0.3):
        print(f"rate {rate}: the first weights of the course's network move by {movement(rate):.2f} of their length")


if __name__ == "__main__":
    main()
