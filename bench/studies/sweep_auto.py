"""What ``lrs="auto"`` finds, compared with a dense grid of a trainer that shares no code with fastnet.

    pip install scikit-learn mlxtend
    python -m bench.studies.sweep_auto

Every data set of `sweep_curves` is scaled by 0.01, 0.1, 10 and 255. fastnet chooses with five seeds on half of the pool, 600
samples at most. Then 21 rates, from a thirtieth to thirty times the chosen one, are trained in plain NumPy, with 24 seeds
each. The regret is how far the chosen rate's accuracy is below the best one's of which no seed diverged, on the samples that
fastnet has not seen. Twelve of the seeds say which rate is the best, and the other twelve by how much; then the other way
round; the study prints the mean of both. (The best mean of 21 is better than its rate by luck, and luck is not regretted.)

A line ends with what chance allows: the study draws five of the 24 seeds many times, takes the dense rate with the best mean
on the held-out samples that fastnet had, and prints its mean regret and how often that exceeds 0.005.
"""
from __future__ import annotations

import argparse
import warnings
from itertools import pairwise
from typing import Any

import numpy as np

from bench.studies.sweep_curves import EPOCHS, LAST, REPORT, TUNE, Data, train
from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer, one_hot
from fastnet.sweep import lr_sweep

HELD_OUT, SEEDS = 600, 24
CLOSE, DRAWS = 0.005, 1000


def builder(data: Data) -> Any:
    """The network that `train` trains."""
    widths = (data.x.shape[1], *data.hidden, int(data.labels.max()) + 1)

    def build(rng: np.random.Generator) -> Sequential:
        layers = [layer for n_i, n_o in pairwise(widths) for layer in (FullLayer(n_i, n_o, np.float32, rng), ReluLayer())]
        return Sequential((*layers[:-1], SoftMaxLayer()), loss=CrossEntropyLayer())

    return build


def regret(data: Data, scale: float) -> str:
    """One line of the table."""
    data = data._replace(x=data.x * np.float32(scale), pool=data.pool * np.float32(scale))
    count = min(HELD_OUT, len(data.pool) // 2)
    classes = int(data.labels.max()) + 1
    try:
        result = lr_sweep(builder(data), data.x, one_hot(data.labels, classes), "auto", EPOCHS, data.batch,
                          validation=(data.pool[:count], data.pool_labels[:count]), progress=False)
        found = result.suggest()
    except ValueError as error:
        return f"nothing: {error}"
    if not found.learned:
        return f"nothing learned: {found.explanation()[:60]}"
    lrs = tuple(float(lr) for lr in found * np.geomspace(1 / 30, 30, 21))
    with np.errstate(all="ignore"):
        dense = train(data, lrs, range(1000, 1000 + SEEDS))
    held_out, accuracies = (part.mean(2) / LAST for part in np.split(dense["right"], [count], axis=2))
    lost = (dense["diverged"] > 0).any(1) & (np.arange(21) != 10)
    held_out[lost] = accuracies[lost] = 0.0
    chance = by_chance(held_out, accuracies)
    halves = [accuracies[:, :SEEDS // 2].mean(1), accuracies[:, SEEDS // 2:].mean(1)]
    best = [int(half.argmax()) for half in halves]
    behind = np.mean([other[at] - other[10] for at, other in zip(best, halves[::-1])])
    error = np.std(accuracies[best[0]] - accuracies[10], ddof=1) / np.sqrt(SEEDS)
    return (f"rate {float(found):<9.3g} accuracy {accuracies[10].mean():.4f}, best at {lrs[best[0]]:<9.3g} and "
            f"{lrs[best[1]]:<9.3g} regret {behind:+.4f} +- {error:.4f}; {len(result.lrs)} rates, "
            f"{int(result.epochs_run.sum())} epochs; five seeds by chance {chance.mean():.4f}, above {CLOSE} in "
            f"{np.mean(chance > CLOSE):.0%}")


def by_chance(held_out: np.ndarray, accuracies: np.ndarray) -> np.ndarray:
    """The regret of the best mean of five seeds on the held-out samples; arrays have rates and seeds as axes."""
    rng = np.random.default_rng(0)
    mean = accuracies.mean(1)
    five = [rng.choice(SEEDS, 5, replace=False) for _ in range(DRAWS)]
    return mean.max() - np.array([mean[held_out[:, seeds].mean(1).argmax()] for seeds in five])


def main() -> None:
    """Print a line for each data set and scale."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--scales", default="0.01,0.1,10,255", help="(default: %(default)s)")
    parser.add_argument("--only", help="names, separated by commas")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for name, make in (TUNE | REPORT).items():
        if not options.only or name in options.only.split(","):
            data = make()
            for scale in map(float, options.scales.split(",")):
                print(f"{name:18} x {scale:<6g} {regret(data, scale)}", flush=True)


if __name__ == "__main__":
    main()
