"""A better network than the course's, made of the same layers, and a fair comparison of both.

The script takes these steps, each on top of the previous ones:

1. width and depth: it chooses the hidden layers with the best accuracy on 500 images held out of the training set;
2. a falling learning rate: the rate falls from twice the course's to 0, with the images in a new order each epoch;
3. mirrored images: it also trains on every image flipped left to right, and predicts the mean over an image and its mirror
   image;
4. an ensemble: it predicts the mean of the probabilities of a few such networks with different initial weights.

Step 1 uses no test images, and the settings of steps 2 to 4 were chosen on held-out training images, too; the script uses
the test images once, at the end. It repeats all steps for several seeds, and reports the difference from the course's
network with the same seed: the mean and its 95% interval (Student's t). This interval covers the choice of seeds, not
that of the test images: on 500 other images of the same classes both accuracies could be about 0.02 higher or lower.

The script writes results/better_cifar.csv (one line per seed) and results/better_cifar.png. It takes several minutes.
"""
from __future__ import annotations

import argparse
import csv
import statistics
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer
from fastnet.base.student import interval
from fastnet.dataset import SOURCES, load
from fastnet.plots import image_shape
from run_cifar100 import hidden_layers

COURSE = (500,)  # hidden layers
CANDIDATES = ((500,), (1000,), (500, 100), (1000, 100))
SEEDS = 10
CHOICE_SEEDS = 3
MEMBERS = 3  # networks in the ensemble
LEARNING_RATE = 0.1
EPOCHS = 20
MIRRORED_EPOCHS = 15  # of twice as many images
STEPS = ("course", "size", "falling rate", "mirrored", "ensemble")


def network(hidden: tuple[int, ...], n_i: int, n_o: int, rng: np.random.Generator) -> Sequential:
    """Build a network of FullLayer and ReluLayer in turn, float32."""
    sizes = (n_i, *hidden, n_o)
    layers = [layer for a, b in pairwise(sizes) for layer in (FullLayer(a, b, np.float32, rng), ReluLayer())]
    return Sequential((*layers[:-1], SoftMaxLayer()), CrossEntropyLayer())


def mirrored(x: np.ndarray) -> np.ndarray:
    """Flip every image left to right; rows are square images of three channels or one, channel by channel."""
    channels, rows, columns = image_shape("better_cifar", x.shape[1])
    return np.ascontiguousarray(x.reshape(-1, channels, rows, columns)[..., ::-1]).reshape(len(x), -1)


def plain(hidden: tuple[int, ...], x: np.ndarray, y: np.ndarray, seed: int, epochs: int, batch_size: int) -> Sequential:
    """Train a network as the course does."""
    model = network(hidden, x.shape[1], y.shape[1], np.random.default_rng(seed))
    model.fit(x, y, epochs, LEARNING_RATE, batch_size, progress=False)
    return model


def falling(hidden: tuple[int, ...], x: np.ndarray, y: np.ndarray, seed: int, epochs: int, batch_size: int) -> Sequential:
    """Train a network at a rate that falls to 0, on images in a new order each epoch."""
    rng = np.random.default_rng(seed)
    model = network(hidden, x.shape[1], y.shape[1], rng)
    model.fit(x, y, epochs, lambda epoch: 2 * LEARNING_RATE * (1 - epoch / epochs), batch_size, shuffle=True, rng=rng,
              progress=False)
    return model


def choose(x: np.ndarray, y: np.ndarray, epochs: int, batch_size: int) -> tuple[int, ...]:
    """Choose the hidden layers with the best mean accuracy on the last fifth of the training images."""
    cut = len(x) * 4 // 5
    scores = {}
    for hidden in tqdm(CANDIDATES, desc="choosing the size", unit="network", disable=None):
        scores[hidden] = statistics.fmean(
            plain(hidden, x[:cut], y[:cut], seed, epochs, batch_size).evaluate(x[cut:], y[cut:]).accuracy
            for seed in range(1000, 1000 + CHOICE_SEEDS))
    print(f"Accuracy on {len(x) - cut} images held back from training, mean of {CHOICE_SEEDS} seeds:")
    for hidden, score in scores.items():
        print(f"  hidden layers {'-'.join(map(str, hidden)):10s} {score:.4f}")
    bigger = [hidden for hidden in CANDIDATES if hidden != COURSE]
    return max(bigger, key=scores.__getitem__)


def accuracies(data, hidden: tuple[int, ...], seed: int, epochs: int, batch_size: int) -> list[float]:
    """Compute the test accuracy after each step, for one seed."""
    mirrored_epochs = max(1, round(epochs * MIRRORED_EPOCHS / EPOCHS))
    (x, y), (x_test, y_test) = data

    def score(p: np.ndarray) -> float:
        return float(np.mean(p.argmax(1) == y_test))

    both, twice = np.concatenate([x, mirrored(x)]), np.concatenate([y, y])
    members = [falling(hidden, both, twice, 100 * seed + number, mirrored_epochs, batch_size) for number in range(MEMBERS)]
    flipped = mirrored(x_test)
    p = [model.predict_proba(x_test) + model.predict_proba(flipped) for model in members]
    return [score(plain(COURSE, x, y, seed, epochs, batch_size).predict_proba(x_test)),
            score(plain(hidden, x, y, seed, epochs, batch_size).predict_proba(x_test)),
            score(falling(hidden, x, y, seed, epochs, batch_size).predict_proba(x_test)),
            score(p[0]), score(np.sum(p, axis=0))]


def draw(scores: np.ndarray, name: str, hidden: tuple[int, ...]) -> Figure:
    """Draw a line of points for each seed, and mean and interval of every step."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(STEPS))
    for row in scores:
        axes.plot(places, row, color="0.8", linewidth=1, marker=".", zorder=1)
    for place, column in zip(places, scores.T):
        mean, low, high = interval(column)
        axes.errorbar(place, mean, [[mean - low], [high - mean]], fmt="o", color="#0072b2", capsize=5, zorder=2)
        axes.annotate(f"{mean:.3f}", (place, mean), xytext=(9, 0), textcoords="offset points", va="center")
    labels = ("course network\n500", f"size\n{'-'.join(map(str, hidden))}", "+ falling\nrate",
              "+ mirrored\nimages", f"+ ensemble\nof {MEMBERS}")
    axes.set_xticks(places, labels)
    axes.set_ylabel("test accuracy")
    axes.set_title(f"{name}, {len(scores)} seeds; mean and 95% interval")
    axes.grid(axis="y", alpha=0.3)
    axes.margins(x=0.12)
    return figure


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Train a network that is better than the course's, and measure the difference. It takes minutes.")
    parser.add_argument("--data", default="auto", metavar=SOURCES, help="training data (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed that draws the classes (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="repetitions, at least 2 (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="epochs of the course network (default: %(default)s)")
    parser.add_argument("--classes", type=int, default=5, help="number of classes (default: %(default)s)")
    parser.add_argument("--hidden", metavar="WIDTHS",
                        help="hidden layers of the better network, such as 1000,100 (default: chosen on held-out images)")
    parser.add_argument("--batch-size", type=int, default=128, help="samples per step (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for table and plot (default: %(default)s)")
    settings = parser.parse_args(argv)
    try:
        if settings.seeds < 2:
            raise ValueError(f"--seeds is {settings.seeds}: an interval needs at least 2 repetitions, preferably 10.")
        run(settings)
    except (OSError, ValueError, TypeError) as error:  # no data, or settings that do not fit
        print(f"better_cifar: {error}", file=sys.stderr)
        return 1
    return 0


def run(settings: argparse.Namespace) -> None:
    data = load(settings.data, settings.seed, np.float32, settings.classes)
    (x, y), (x_test, _) = data
    mirrored(x[:1])  # raises an error now, not after the training, if these are not images
    hidden = hidden_layers(settings.hidden) if settings.hidden else choose(x, y, settings.epochs, settings.batch_size)
    scores = np.array([accuracies(data, hidden, seed, settings.epochs, settings.batch_size)
                       for seed in tqdm(range(settings.seeds), desc="course and better network", unit="seed", disable=None)])

    settings.out.mkdir(parents=True, exist_ok=True)
    with open(settings.out / "better_cifar.csv", "w", newline="", encoding="ascii") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("seed", *STEPS))
        writer.writerows([seed, *(f"{value:.4f}" for value in row)] for seed, row in enumerate(scores))
    draw(scores, data.name, hidden).savefig(settings.out / "better_cifar.png", dpi=150)

    print(f"\n{data.name}: test accuracy on {len(x_test)} images, {settings.seeds} seeds")
    print(f"{'step':22s}  {'mean':6s}     gain of the step, 95% interval")
    for place, (step, mean) in enumerate(zip(STEPS, scores.mean(0))):
        gain, low, high = interval(scores[:, place] - scores[:, max(place - 1, 0)])
        print(f"{step:22s}  {mean:.4f}" + (f"     {gain:+.4f} [{low:+.4f}, {high:+.4f}]" if place else ""))
    mean, low, high = interval(scores[:, -1] - scores[:, 0])
    print(f"\nCourse network {scores[:, 0].mean():.4f}, better network {scores[:, -1].mean():.4f}: "
          f"difference {mean:+.4f}, 95% interval [{low:+.4f}, {high:+.4f}]")
    print(f"Table and plot: {settings.out / 'better_cifar.csv'}, {settings.out / 'better_cifar.png'}")


if __name__ == "__main__":
    sys.exit(main())
