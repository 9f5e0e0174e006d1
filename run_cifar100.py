"""The chapter's experiment: the course network on five classes of CIFAR-100, at four learning rates.

Writes results/acc_lr.png (average training loss against epoch) and results/acc_results.csv (test accuracies).

Learning rate 10: the network does not learn. The first steps throw the weights so far that the softmax gives the true
class of some image a probability of 0; the loss is inf within the first epoch, and what is left predicts one class for
every image, which is right for one in five. (Measured, on the synthetic images and on photographs: the loss of epoch 1
is inf, the test accuracy 0.2000.) Rate 0.01 learns steadily but slowly; 0.1 and 0.3 reach a low loss in 20 epochs.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer
from fastnet.dataset import SOURCES, load
from fastnet.sweep import lr_sweep

SEED = 0  # chooses the classes (your student number) and the weights
LEARNING_RATES = "0.01, 0.1, 0.3, 10"
EPOCHS = 20
HIDDEN = 500
BATCH_SIZE = 128


def main(argv: list[str] | None = None) -> int:
    settings = arguments(argv)
    try:
        run(settings)
    except (OSError, ValueError, TypeError) as error:  # what a setting asks for cannot be had
        print(f"run_cifar100: {error}", file=sys.stderr)
        return 1
    return 0


def run(settings: argparse.Namespace) -> None:
    data = load(settings.data, settings.seed, settings.dtype)
    (x_train, y_train), (x_test, y_test) = data

    def build(rng: np.random.Generator) -> Sequential:
        return Sequential(layers=(FullLayer(x_train.shape[1], HIDDEN, settings.dtype, rng), ReluLayer(),
                                  FullLayer(HIDDEN, y_train.shape[1], settings.dtype, rng), SoftMaxLayer()),
                          loss=CrossEntropyLayer())

    result = lr_sweep(build, x_train, y_train, settings.lrs, settings.epochs, BATCH_SIZE, seeds=[settings.seed],
                      test=(x_test, y_test))

    settings.out.mkdir(parents=True, exist_ok=True)
    figure = result.plot("test_accuracy")
    figure.suptitle(f"{x_train.shape[1]}-{HIDDEN}-{y_train.shape[1]} network on {data.name}, batch size {BATCH_SIZE}")
    figure.savefig(settings.out / "acc_lr.png", dpi=150)
    with open(settings.out / "acc_results.csv", "w", encoding="ascii") as file:
        for lr, (accuracy,) in zip(result.lrs, result.accuracies):
            file.write(f"{lr:g},{accuracy:.4f}\n")

    print(f"{data.name}: {len(x_train)} training images, {len(x_test)} test images of {', '.join(data.class_names)}\n")
    print("learning rate   loss of the last epoch   test accuracy")
    for lr, (losses,), (accuracy,), (epoch,) in zip(result.lrs, result.losses, result.accuracies, result.diverged_in):
        last = f"diverged in epoch {epoch}" if epoch else f"{losses[-1]:.4f}"
        print(f"{lr:<13g}   {last:<22s}   {accuracy:.4f}")
    print(f"\nPlot and table: {settings.out / 'acc_lr.png'}, {settings.out / 'acc_results.csv'}")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the course network at several learning rates.")
    parser.add_argument("--data", default="auto", metavar=SOURCES, help="what to train on (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="chooses classes and weights (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="(default: %(default)s)")
    parser.add_argument("--lrs", default=LEARNING_RATES, help="rates, or a grid as 1e-3:1:log7 (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for plot and table (default: %(default)s)")
    parser.add_argument("--dtype", default="float32", help="float32 or float64 (default: %(default)s)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
