"""How far the rate that a sweep suggests can be believed, and what halving and its price do to it.

    python -m bench.studies.sweep_choice                                   # synthetic images, 30 seeds
    python -m bench.studies.sweep_choice --data photographs.npz --seeds 45 --journal curves.jsonl

Every rate is trained with many seeds once (and kept in the journal); then small sweeps are drawn from those curves, as
trials of a sweep are the same bits whichever sweep they belong to. Three tables:

agreement   three disjoint sets of seeds choose a rate each: how often do the rates' mean test accuracies, over all seeds,
            differ by less than 0.005; beside the bare best mean; and how often do two of them choose the same rate: more
            than that no search can be asked for
coverage    curves with a known best rate and noise of the size seen here: how often is it among those that can't be told
            apart from the suggested one
halving     how often it chooses the same rate as the full grid; one that is tied with it, no more than one standard error of
            the paired difference below; one that the full grid can't tell from its own choice; one whose mean test accuracy
            is not 0.005 worse; and at what part of its epochs

The 405 trials of the second line take some two minutes on two idle cores, the tables half a minute. Trials go on from the
journal, so that it may be stopped.
"""
from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer
from fastnet.dataset import load
from fastnet.sweep import SweepResult, lr_sweep
from fastnet.sweep.choice.candidates import Candidate, Table
from fastnet.sweep.choice.suggestion import choose
from fastnet.sweep.record import Record
from fastnet.sweep.run.search import SEARCHES
from fastnet.sweep.spec import Spec, Trial

ENOUGH = 0.005  # of a mean test accuracy


class Replay:
    """A session of a search that trains nothing: it reads curves of trials that were run before.

    Parameters
    ----------
    whole : SweepResult
        All rates, with many seeds.
    seeds : sequence of int
        The seeds of this sweep.
    search : str
    metric : str
    """

    def __init__(self, whole: SweepResult, seeds: Iterable[int], search: str, metric: str) -> None:
        self.whole = whole
        self.result = SweepResult(replace(whole.spec, seeds=tuple(seeds), search=search, metric=metric), {}, {})
        self.journal = self.result  # it has records

    @property
    def spec(self) -> Spec:
        """What the sweep was asked for."""
        return self.result.spec

    def run(self, trials: Iterable[Trial], until: int) -> None:
        """Read the epochs of these trials."""
        for trial in trials:
            record = self.whole.records[trial]
            lost = record.status == "diverged" and record.epochs <= until
            self.result.records[trial] = Record(  # type: ignore[index]
                trial, "diverged" if lost else "done" if until >= self.spec.epochs else "stopped", record.engine,
                record.losses[:until], record.val_losses[:until], record.val_accuracies[:until], record.test)

    def search(self) -> tuple[float, set[float], int]:
        """The rate that is suggested, those that can't be told from it, and the epochs it took."""
        SEARCHES[self.spec.search](self)
        found = choose(self.result.table())
        return float(found), set(found.rates), int(self.result.epochs_run.sum())


def main() -> None:
    """Train what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", default="synthetic", help="as for fastnet sweep (default: %(default)s)")
    parser.add_argument("--hidden", type=int, default=500, help="(default: %(default)s)")
    parser.add_argument("--lrs", default="0.02:0.5:log9", help="(default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=30, help="(default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=20, help="(default: %(default)s)")
    parser.add_argument("--draws", type=int, default=100, help="(default: %(default)s)")
    parser.add_argument("--journal", help="keep the curves in this file, and read them from it")
    options = parser.parse_args()
    whole = curves(options)
    print(whole)
    rng = np.random.default_rng(0)
    for metric in ("val_accuracy", "val_loss"):
        print(f"\njudged by {metric}")
        agreement(whole, metric, options.draws, rng)
        for size in (3, 5, 10):
            if size <= len(whole.seeds) // 2:
                halving(whole, metric, size, options.draws, rng)
    print()
    coverage(whole, options.draws, rng)


def curves(options: argparse.Namespace) -> SweepResult:
    """All rates with all seeds; a fifth of the training data, drawn at random, is held out."""
    data = load(options.data, 0, "float32")
    (x, t), test = data
    order = np.random.default_rng(1000).permutation(len(x))
    held, train = order[:len(x) // 5], order[len(x) // 5:]

    def build(rng: np.random.Generator) -> Sequential:
        return Sequential((FullLayer(x.shape[1], options.hidden, np.float32, rng), ReluLayer(),
                           FullLayer(options.hidden, t.shape[1], np.float32, rng), SoftMaxLayer()), loss=CrossEntropyLayer())

    return lr_sweep(build, x[train], t[train], options.lrs, options.epochs, 128, options.seeds, (x[held], t[held]), test,
                    resume=options.journal)


def agreement(whole: SweepResult, metric: str, draws: int, rng: np.random.Generator) -> None:
    """Three disjoint sets of seeds, and what they choose."""
    test = dict(zip(whole.lrs, np.nanmean(whole.accuracies, axis=1)))
    sign = 1 if metric == "val_accuracy" else -1
    values = sign * (whole.val_accuracies if metric == "val_accuracy" else whole.val_losses)[:, :, -1]
    for size in (3, 5):
        if 3 * size > len(whole.seeds):
            continue
        spreads, bare, same = [], [], []
        for _ in range(draws):
            sets = rng.permutation(len(whole.seeds))[:3 * size].reshape(3, size)
            chosen = [Replay(whole, seeds, "grid", metric).search()[0] for seeds in sets]
            spreads.append(np.ptp([test[lr] for lr in chosen]))
            same.append(chosen[0] == chosen[1])
            bare.append(np.ptp([test[whole.lrs[int(np.nanargmax(values[:, seeds].mean(1)))]] for seeds in sets]))
        print(f"agreement, three sets of {size} seeds: within {ENOUGH} in {np.mean(np.array(spreads) < ENOUGH):.0%} of "
              f"{draws} draws; the bare best mean in {np.mean(np.array(bare) < ENOUGH):.0%}; two sets choose the same rate "
              f"in {np.mean(same):.0%}")


def halving(whole: SweepResult, metric: str, size: int, draws: int, rng: np.random.Generator) -> None:
    """Halving beside the full grid, on the same seeds."""
    test = dict(zip(whole.lrs, np.nanmean(whole.accuracies, axis=1)))
    same, tied, equal, close, cost = [], [], [], [], []
    sign = 1 if metric == "val_accuracy" else -1
    values = sign * (whole.val_accuracies if metric == "val_accuracy" else whole.val_losses)[:, :, -1]
    for _ in range(draws):
        seeds = rng.permutation(len(whole.seeds))[:size].tolist()
        (full, rates, epochs), (halved, _, fewer) = (Replay(whole, seeds, search, metric).search()
                                                     for search in ("grid", "halving"))
        same.append(full == halved)
        behind = (values[whole.lrs.index(full)] - values[whole.lrs.index(halved)])[seeds]
        tied.append(behind.mean() <= behind.std(ddof=1) / np.sqrt(size))
        equal.append(halved in rates)
        close.append(test[halved] > test[full] - ENOUGH)
        cost.append(fewer / epochs)
    print(f"halving, {size} seeds: the same rate {np.mean(same):.0%}; the same or tied within one standard error "
          f"{np.mean(tied):.0%}; one the full grid can't tell from its own {np.mean(equal):.0%}; test accuracy not {ENOUGH} "
          f"worse {np.mean(close):.0%}; epochs {np.mean(cost):.0%} (at most {np.max(cost):.0%})")


def coverage(whole: SweepResult, draws: int, rng: np.random.Generator) -> None:
    """Curves whose best rate is known."""
    lrs = np.geomspace(0.02, 0.5, 9)
    at = np.log(lrs)
    for seeds in (3, 5, 10):
        for scatter in (1, 3):
            inside = np.zeros(draws, bool)
            regret = np.zeros(draws)
            for draw in range(draws):
                means = 0.7 - rng.choice([0.02, 0.1]) * (at - rng.uniform(at[1], at[-2])) ** 2
                noise = 0.01 * np.linspace(1, scatter, len(lrs))[:, None]
                values = means[:, None] + rng.normal(size=(1, seeds)) * 0.01 + rng.normal(size=(len(lrs), seeds)) * noise
                spec = replace(whole.spec, lrs=tuple(map(float, lrs)), seeds=tuple(range(seeds)))
                table = Table(spec, "val_accuracy", [Candidate(spec.settings[0], lr) for lr in spec.lrs], values,
                              spec.repeats())
                found = choose(table)
                inside[draw] = lrs[means.argmax()] in found.rates
                regret[draw] = means.max() - means[spec.lrs.index(float(found))]
            print(f"coverage, {seeds} seeds, the largest rate scatters {scatter} times as much: the best is in the set in "
                  f"{inside.mean():.0%}; the choice is {regret.mean():.4f} worse than it")


if __name__ == "__main__":
    main()
