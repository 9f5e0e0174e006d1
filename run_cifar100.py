"""The chapter's experiment: the course network on five classes of CIFAR-100, at four learning rates.

``--network conv`` runs the next chapter's experiment: a small convolutional network on three classes, 15 epochs at rate 0.1.

The script writes results/acc_lr.png (average training loss against epoch) and results/acc_results.csv (test accuracies).

At learning rate 10 the network does not learn. The first steps make the weights so large that the softmax gives the true
class of some image a probability of 0, and the loss is inf within the first epoch. The network then predicts one class for
every image, which is right for one image in five. (Measured on the synthetic images and on photographs: the loss of epoch
1 is inf, the test accuracy 0.2000.) Rate 0.01 learns steadily but slowly; 0.1 and 0.3 reach a low loss in 20 epochs.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from fastnet import (
    ConvLayer,
    CrossEntropyLayer,
    FlattenLayer,
    FullLayer,
    MaxPoolLayer,
    ReluLayer,
    Sequential,
    SoftMaxLayer,
)
from fastnet.dataset import SOURCES, load
from fastnet.sweep import SweepResult, lr_sweep

SEED = 0  # chooses the classes (your student number) and the weights
HIDDEN = "500"
CHANNELS = 16, 32  # of the next chapter's convolutions
DEFAULTS = {"full": {"lrs": "0.01, 0.1, 0.3, 10", "epochs": 20, "classes": 5},
            "conv": {"lrs": "0.1", "epochs": 15, "classes": 3}}
BATCH_SIZE = 128
RED = "#d55e00"


def main(argv: list[str] | None = None) -> int:
    settings = arguments(argv)
    try:
        run(settings)
    except (OSError, ValueError, TypeError) as error:  # no data, or settings that do not fit
        print(f"run_cifar100: {error}", file=sys.stderr)
        return 1
    return 0


def run(settings: argparse.Namespace) -> None:
    data = load(settings.data, settings.seed, settings.dtype, settings.classes)
    data = data.as_images() if settings.network == "conv" else data
    (x_train, y_train), (x_test, y_test) = data
    build, what = network(settings, x_train.shape[1:], y_train.shape[1])
    result = lr_sweep(build, x_train, y_train, settings.lrs, settings.epochs, settings.batch_size, seeds=[settings.seed],
                      test=(x_test, y_test))

    settings.out.mkdir(parents=True, exist_ok=True)
    title = f"{what} network on {data.name}, batch size {settings.batch_size}"
    draw(result, title, chance=1 / y_train.shape[1]).savefig(settings.out / "acc_lr.png", dpi=150)
    with open(settings.out / "acc_results.csv", "w", encoding="ascii") as file:
        for lr, (accuracy,) in zip(result.lrs, result.accuracies):
            file.write(f"{lr:g},{accuracy:.4f}\n")

    print(f"{data.name}: {len(x_train)} training images, {len(x_test)} test images of {', '.join(data.class_names)}\n")
    print("learning rate   loss of the last epoch   test accuracy")
    for lr, (losses,), (accuracy,), (epoch,) in zip(result.lrs, result.losses, result.accuracies, result.diverged_in):
        last = f"diverged in epoch {epoch}" if epoch else f"{losses[-1]:.4f}"
        print(f"{lr:<13g}   {last:<22s}   {accuracy:.4f}")
    print(f"\nPlot and table: {settings.out / 'acc_lr.png'}, {settings.out / 'acc_results.csv'}")


def network(settings: argparse.Namespace, shape: tuple[int, ...], n_classes: int) -> tuple[Callable[..., Sequential], str]:
    """Return a function that builds the network for samples of a shape, and a name for it."""
    dtype = settings.dtype
    if settings.network == "conv":
        c, r, k = shape
        features = CHANNELS[1] * (r // 4) * (k // 4)

        def build_conv(rng: np.random.Generator) -> Sequential:
            return Sequential(layers=(ConvLayer(c, CHANNELS[0], 3, dtype, rng), ReluLayer(), MaxPoolLayer(2),
                                      ConvLayer(*CHANNELS, 3, dtype, rng), ReluLayer(), MaxPoolLayer(2), FlattenLayer(),
                                      FullLayer(features, n_classes, dtype, rng), SoftMaxLayer()), loss=CrossEntropyLayer())

        return build_conv, f"convolutional {c}-{CHANNELS[0]}-{CHANNELS[1]}-{n_classes}"
    sizes = (*shape, *hidden_layers(settings.hidden), n_classes)

    def build(rng: np.random.Generator) -> Sequential:
        layers = [layer for n_i, n_o in pairwise(sizes) for layer in (FullLayer(n_i, n_o, dtype, rng), ReluLayer())]
        return Sequential(layers=(*layers[:-1], SoftMaxLayer()), loss=CrossEntropyLayer())

    return build, "-".join(map(str, sizes))


def draw(result: SweepResult, title: str, chance: float) -> Figure:
    """Draw training loss against epoch, a curve for each rate; and test accuracy against rate, with chance."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    epochs = np.arange(1, result.losses.shape[2] + 1)
    first = []
    colours = iter(colormaps["viridis"](np.linspace(0, 0.85, max(2, int(np.sum(result.diverged_in == 0))))))
    for lr, (losses,), (epoch,) in zip(result.lrs, result.losses, result.diverged_in):
        seen = np.where(np.isfinite(losses), losses, np.nan)
        if not epoch:
            left.plot(epochs, seen, color=next(colours), lw=2, label=f"{lr:g}", marker="o" if len(epochs) < 3 else None)
            first.append(losses[0])
            continue
        label = f"{lr:g} (diverged in epoch {epoch})"
        if np.isfinite(seen).any():
            left.plot(epochs, seen, "x--", color=RED, label=label)
        else:  # no finite loss: a cross on the upper frame, where a value would leave the panel
            left.plot(epoch, 1, "x", color=RED, ms=9, mew=2, clip_on=False, zorder=3, label=label,
                      transform=left.get_xaxis_transform())
    left.set(xlabel="epoch", ylabel="average training loss", xlim=(0.5, len(epochs) + 0.5))
    if first:
        left.set_ylim(0, 1.08 * max(first))
    left.xaxis.get_major_locator().set_params(integer=True)

    lrs, accuracies = np.array(result.lrs), result.accuracies[:, 0]
    diverged = result.diverged_in[:, 0] > 0
    order = np.argsort(lrs)
    converged = order[~diverged[order]]
    right.plot(lrs[converged], accuracies[converged], "o-", color="0.25", label="converged")
    if diverged.any():
        right.plot(lrs[diverged], accuracies[diverged], "x", color=RED, ms=9, mew=2, label="diverged")
    right.axhline(chance, color="0.5", ls=":", label=f"chance ({chance:.3g})")
    right.set_xscale("log")
    right.margins(x=0.08)
    right.set(xlabel="learning rate", ylabel="test accuracy", ylim=(0, 1))
    if len(lrs) <= 8:
        right.set_xticks(lrs, [f"{lr:g}" for lr in lrs])
    right.minorticks_off()
    for axes, heading in ((left, "learning rate"), (right, None)):  # below the panel, where no curve is
        axes.legend(title=heading, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=4, frameon=False)
        axes.grid(alpha=0.3)
    return figure


def hidden_layers(text: str) -> tuple[int, ...]:
    """Read numbers of hidden units from "500" or "1024,512"; "0" means no hidden layer."""
    try:
        widths = tuple(int(width) for width in text.split(",") if int(width) != 0)
    except ValueError:
        widths = (-1,)
    if min(widths, default=1) < 1:
        raise ValueError(f"--hidden is {text!r}: give numbers of hidden units, such as 500 or 1024,512.")
    return widths


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the course network at several learning rates.")
    parser.add_argument("--data", default="auto", metavar=SOURCES, help="training data (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="seed of classes and weights (default: %(default)s)")
    parser.add_argument("--network", choices=DEFAULTS, default="full",
                        help="full: the chapter's network; conv: the next chapter's (default: full)")
    parser.add_argument("--classes", type=int, help="number of classes (default: 5; conv: 3)")
    parser.add_argument("--hidden", default=HIDDEN, help="hidden units; 1024,512 makes two layers (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE, help="samples per step (default: %(default)s)")
    parser.add_argument("--epochs", type=int, help="passes through the data (default: 20; conv: 15)")
    parser.add_argument("--lrs",
                        help="learning rates, or a grid such as 1e-3:1:log7 (default: 0.01, 0.1, 0.3, 10; conv: 0.1)")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for plot and table (default: %(default)s)")
    parser.add_argument("--dtype", default="float32", help="float32 or float64 (default: %(default)s)")
    settings = parser.parse_args(argv)
    for name, value in DEFAULTS[settings.network].items():
        if getattr(settings, name) is None:
            setattr(settings, name, value)
    return settings


if __name__ == "__main__":
    sys.exit(main())
