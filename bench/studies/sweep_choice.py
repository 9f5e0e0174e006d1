"""How far the rate that a sweep suggests can be believed, on data sets of different kinds and on generated curves.

    python -m bench.studies.sweep_curves --out curves      # once: networks of many seeds
    python -m bench.studies.sweep_choice --curves curves

Small sweeps are drawn from the curves: seeds, and held-out samples from each data set's pool. What fastnet says of a small
sweep is compared with the means over all seeds and the whole pool. The columns:

regret     accuracy of the chosen rate below the best one's (or its loss above it); then that of the bare best mean (the
           first one where means are equal)
halving    its regret minus the full grid's on the same seeds, and the part of the epochs that it runs; then racing's
two seeds  the regret of the full grid with two of the five seeds, 40% of the epochs, minus that with all five
coverage   how often the best rate is in the reported set, for 3, 5, 20 and 80 seeds
otherwise  what a sweep says of how often other seeds choose another rate, and how often 20 times as many other seeds do,
           with the same held-out samples
within     how often three sweeps with other seeds and the same samples choose rates that differ by less than 0.005

The first five data sets decided how fastnet chooses; the others only report. Generated curves have a known best rate.
"""
from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from bench.studies.sweep_curves import EPOCHS, LAST, REPORT, TUNE
from fastnet.sweep.choice.metrics import Metric
from fastnet.sweep.choice.ranking import best_of
from fastnet.sweep.choice.suggestion import suggestion_of
from fastnet.sweep.choice.table import Candidate, Table
from fastnet.sweep.record import Record
from fastnet.sweep.result import SweepResult
from fastnet.sweep.run.search import SEARCHES
from fastnet.sweep.spec import Setting, Spec, Trial

SIZES = (3, 5, 20, 80)
CLOSE = 0.005  # of a mean accuracy
_LOST = 60.0  # the loss of networks that diverged, which is also the largest that is kept of others


class Curves:
    """All networks of a data set: what they got right, and their losses."""

    def __init__(self, found: dict[str, np.ndarray], metric: str) -> None:
        self.lrs = tuple(map(float, found["lrs"]))
        self.metric = metric
        self.losses, self.diverged = found["losses"], found["diverged"]
        self.right, self.at_rung, self.pool_loss = found["right"], found["right_at_rung"], found.get("pool_loss")
        if self.pool_loss is not None:
            self.pool_loss = np.nan_to_num(self.pool_loss, nan=_LOST)
        self.truth = self.right.mean((1, 2), dtype=np.float64) / LAST
        if metric == "val_loss" and self.pool_loss is not None:
            self.truth = -self.pool_loss.mean((1, 2), dtype=np.float64)
        self.seeds, self.pool = self.right.shape[1:]

    def whole(self, seeds: np.ndarray, samples: np.ndarray) -> SweepResult:
        """The sweep of these seeds, judged by these samples."""
        spec = Spec(self.lrs, tuple(map(int, seeds)), EPOCHS, metric=(self.metric, "max" if "acc" in self.metric else "min"))
        records = {}
        for i, lr in enumerate(self.lrs):
            for seed in spec.seeds:
                trial, lost = spec.trial(spec.settings[0], lr, seed), int(self.diverged[i, seed])
                right = self.right[i, seed, samples].astype(np.float32) / LAST
                accuracy = [float(self.at_rung[i, seed, samples].mean())] * (EPOCHS - LAST) + [float(right.mean())] * LAST
                curves = {"loss": self.losses[i, seed].tolist(), "val_accuracy": accuracy}
                kept = {"val_accuracy": right}
                if self.metric == "val_loss" and self.pool_loss is not None:
                    loss = self.pool_loss[i, seed, samples].astype(np.float32)
                    curves["val_loss"], kept = [float(loss.mean(dtype=np.float64))] * EPOCHS, {"val_loss": loss}
                records[trial] = Record(trial, "diverged" if lost else "done", "", {
                    name: curve[:lost or EPOCHS] for name, curve in curves.items()}, samples={} if lost else kept)
        return SweepResult(spec, records, {})

    def choices(self, seeds: np.ndarray, samples: np.ndarray, rng: np.random.Generator, count: int = 20) -> list[float]:
        """What sweeps of five of these seeds choose, on the same samples."""
        of = self.right if self.metric != "val_loss" or self.pool_loss is None else -self.pool_loss
        means = of[:, :, samples].mean(2, dtype=np.float64)
        found = []
        for _ in range(count):
            five = rng.choice(seeds, 5, replace=False)
            rows = np.flatnonzero(~self.diverged[:, five].any(1))
            candidates = [Candidate(Setting(), self.lrs[row]) for row in rows]
            table = Table(Metric(self.metric, 1), candidates, means[rows][:, five], [(i, 0) for i in range(5)], self.lrs)
            found.append(table.candidates[best_of(table, np.arange(5))].lr)
        return found

    def regret(self, lr: float) -> float:
        """How far below the best rate's the accuracy of this one is."""
        return float(self.truth.max() - self.truth[self.lrs.index(lr)])


class Replay:
    """A session of a search that trains nothing: it reads the trials of a sweep that was run."""

    def __init__(self, whole: SweepResult, search: str) -> None:
        self.whole, self.spec, self.metric = whole, whole.spec, whole.judged_by(None)
        spec = Spec(whole.lrs, whole.seeds, EPOCHS, search=search, metric=whole.spec.metric)
        self.result = SweepResult(spec, {}, {})
        self.journal = SimpleNamespace(records=self.result.records)

    def run(self, trials: Iterable[Trial], until: int) -> None:
        """Read the epochs of these trials."""
        for trial in trials:
            record = self.whole.records[trial]
            lost = record.status == "diverged" and record.epochs <= until
            whole = until >= EPOCHS and not lost
            self.journal.records[trial] = Record(
                trial, "diverged" if lost else "done" if whole else "stopped", "",
                {name: curve[:until] for name, curve in record.curves.items()}, samples=record.samples if whole else {})

    def search(self) -> tuple[float, float]:
        """The rate that the search suggests, and the part of the epochs that it ran."""
        SEARCHES[self.result.spec.search](self)
        epochs = [sum(record.epochs for record in of.records.values()) for of in (self.result, self.whole)]
        return float(suggestion_of(self.result.table())), epochs[0] / epochs[1]


def generated(kind: str, scatter: float, seed: int) -> dict[str, np.ndarray]:
    """Curves with a known best rate: 240 seeds, 1500 samples, nine rates; the noise grows with the rate if it is heavy."""
    rng, k = np.random.default_rng(seed), 9
    x = np.linspace(-1, 1, k)
    mean = {"cliff": 0.6 + 0.06 * (x + 1) - 0.3 * (x > 0.8), "plateau": 0.7 - 0.3 * np.maximum(0, -x),
            "monotone": 0.6 + 0.1 * x, "two peaks": 0.7 - 0.3 * np.minimum((x + 0.6) ** 2, (x - 0.5) ** 2) - 0.01 * (x > 0),
            "peak": 0.7 - 0.3 * (x - 0.3) ** 2}[kind]
    shape = (k, 240, 1500)
    latent = rng.normal(size=(1, 1, shape[2])) + np.cumsum(rng.normal(0, 0.12, (k, 1, shape[2])), axis=0)
    by_seed = (0.5 * rng.normal(size=(1, 240, 1)) + rng.normal(size=(k, 240, 1))) * (
        scatter * np.linspace(0.5, 2 if scatter > 0.1 else 1, k)[:, None, None])
    right = np.empty(shape, np.uint8)
    for i in range(k):  # the threshold that gives each rate its mean, over everything that is drawn
        value = latent[0 if latent.shape[0] == 1 else i] + by_seed[i] + 0.6 * rng.normal(size=shape[1:])
        right[i] = LAST * (value < np.quantile(value, mean[i]))
    losses = np.tile(2.0 - mean[:, None, None], (1, 240, EPOCHS))
    return {"lrs": np.geomspace(0.01, 2.56, k), "losses": losses, "diverged": np.zeros(shape[:2], int), "right": right,
            "right_at_rung": (right > 0).astype(np.uint8)}


def study(curves: Curves, samples: int, draws: int, rng: np.random.Generator) -> dict[str, float]:
    """The columns of one line."""
    found: dict[str, list[float]] = {}

    def note(**values: float) -> None:
        for name, value in values.items():
            found.setdefault(name, []).append(value)

    best = int(curves.truth.argmax())
    for _ in range(draws):
        held_out = rng.permutation(curves.pool)[:samples]
        seeds = rng.permutation(curves.seeds)[:15].reshape(3, 5)
        wholes = [curves.whole(five, held_out) for five in seeds]
        said = [suggestion_of(whole.table()) for whole in wholes]
        table = said[0]._table
        means = table.values.mean(1)
        bare = table.candidates[int(means.argmax())].lr
        regret = [curves.regret(float(one)) for one in said]
        for search in ("halving", "racing"):
            found_by, cost = Replay(wholes[0], search).search()
            note(**{search: curves.regret(found_by) - regret[0], f"{search}_cost": cost})
        two = suggestion_of(curves.whole(seeds[0, :2], held_out).table())
        note(two=curves.regret(float(two)) - regret[0])
        others = curves.choices(np.setdiff1d(np.arange(curves.seeds), seeds[0]), held_out, rng)
        note(regret=regret[0], bare=curves.regret(bare), said=said[0].otherwise,
             really=float(np.mean([said[0] != other for other in others])), within=float(np.ptp(regret) < CLOSE))
    for size in SIZES:
        for _ in range(draws if size < 80 else draws // 4):
            held_out, seeds = rng.permutation(curves.pool)[:samples], rng.permutation(curves.seeds)[:size]
            note(**{f"in{size}": float(curves.lrs[best] in suggestion_of(curves.whole(seeds, held_out).table()).rates)})
    return {name: float(np.mean(values)) for name, values in found.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--curves", type=Path, required=True, help="the folder of sweep_curves")
    parser.add_argument("--draws", type=int, default=200, help="(default: %(default)s)")
    parser.add_argument("--samples", type=int, default=200, help="held-out, at most half a pool (default: %(default)s)")
    parser.add_argument("--metric", default="val_accuracy", help="or val_loss (default: %(default)s)")
    parser.add_argument("--only", help="names, separated by commas")
    options = parser.parse_args()
    print(f"{options.samples} held-out samples at most, judged by {options.metric}; 5 seeds, {EPOCHS} epochs")
    print(f"{'':22}{'regret':>8}{'bare':>8}{'halving':>9}{'epochs':>8}{'racing':>9}{'epochs':>8}{'two seeds':>11}"
          f"{'in set: ' + ' '.join(map(str, SIZES)):>22}{'otherwise':>11}{'really':>8}{'within':>8}")
    lines: dict[str, list[dict[str, Any]]] = {}
    kinds = [(f"{kind} noise {scatter}", (kind, scatter)) for kind in ("cliff", "plateau", "monotone", "two peaks", "peak")
             for scatter in (0.05, 0.2)]
    for group, names in (("tuned on", list(TUNE)), ("reported", list(REPORT)), ("generated", [name for name, _ in kinds])):
        for number, name in enumerate(names):
            if options.only and name not in options.only.split(","):
                continue
            if group == "generated":
                found = generated(*kinds[number][1], seed=number)
            else:
                with np.load(options.curves / f"{name}.npz") as file:
                    found = {key: file[key] for key in file.files}
            curves = Curves(found, options.metric)
            rng = np.random.default_rng(0)
            line = study(curves, min(options.samples, curves.pool // 2), options.draws, rng)
            lines.setdefault(group, []).append(line)
            print(_text(name, line), flush=True)
        if lines.get(group):
            mean = {key: float(np.mean([line[key] for line in lines[group]])) for key in lines[group][0]}
            print(_text(f"mean, {group}", mean), flush=True)


def _text(name: str, line: dict[str, float]) -> str:
    coverage = " ".join(f"{line[f'in{size}']:.0%}" for size in SIZES)
    return (f"{name:22}{line['regret']:8.4f}{line['bare']:8.4f}{line['halving']:+9.4f}{line['halving_cost']:8.0%}"
            f"{line['racing']:+9.4f}{line['racing_cost']:8.0%}{line['two']:+11.4f}{coverage:>22}"
            f"{line['said']:11.0%}{line['really']:8.0%}{line['within']:8.0%}")


if __name__ == "__main__":
    main()
