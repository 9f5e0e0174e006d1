"""A sweep with halving, compared with Optuna (TPE, median pruner) at equal epochs: both train the same fastnet networks.

    pip install optuna scikit-learn mlxtend
    python -m bench.studies.sweep_optuna

Each may train so many epochs, over rates from 0.001 to 10. The sweep takes 13 rates and five seeds and gets the number as
its budget. Optuna draws rates, each with its own seed, prunes the worse trials, and stops when the epochs are spent; its
answer is the rate of its best trial. The regret of an answer is how far its accuracy, over 24 seeds and on samples that
nobody has seen, is below the best rate's, by a dense grid of the NumPy trainer of `sweep_curves`. Lower is better.
"""
from __future__ import annotations

import argparse
import warnings
from typing import Any

import numpy as np

from bench.studies.sweep_auto import builder
from bench.studies.sweep_curves import EPOCHS, LAST, REPORT, TUNE, Data, train
from fastnet import one_hot
from fastnet.sweep import lr_sweep

DENSE, SEEDS, HELD_OUT = tuple(map(float, np.geomspace(1e-3, 10, 33))), 24, 300


class Workload:
    """A data set, and how good each rate is."""

    def __init__(self, data: Data) -> None:
        self.data, self.build = data, builder(data)
        self.t = one_hot(data.labels, int(data.labels.max()) + 1)
        held_out = min(HELD_OUT, len(data.pool) // 2)
        self.validation = data.pool[:held_out], data.pool_labels[:held_out]
        with np.errstate(all="ignore"):
            found = train(data._replace(pool=data.pool[held_out:], pool_labels=data.pool_labels[held_out:]), DENSE,
                          range(500, 500 + SEEDS))
        self.accuracies = found["right"].mean((1, 2)) / LAST

    def regret(self, lr: float) -> float:
        """How far below the best rate's the accuracy of this one is."""
        return float(self.accuracies.max() - np.interp(np.log(lr), np.log(DENSE), self.accuracies))

    def with_fastnet(self, number: int, budget: int) -> float:
        """What a sweep answers."""
        seeds = range(5 * number, 5 * number + 5)
        return float(lr_sweep(self.build, self.data.x, self.t, "1e-3:10:log13", EPOCHS, self.data.batch, seeds,
                              self.validation, search="halving", budget=budget, progress=False).suggest())

    def with_optuna(self, number: int, budget: int) -> float:
        """What Optuna answers."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        left = budget

        def objective(trial: Any) -> float:
            nonlocal left
            lr = trial.suggest_float("lr", 1e-3, 10, log=True)
            model, accuracy = self.build(np.random.default_rng(1000 * number + trial.number)), 0.0
            for epoch in range(EPOCHS):
                if not left:
                    trial.study.stop()
                    raise optuna.TrialPruned
                left -= 1
                loss = float(model.fit(self.data.x, self.t, 1, lr, self.data.batch, on_divergence="ignore")[-1])
                accuracy = model.score(*self.validation)
                trial.report(accuracy, epoch)
                if not np.isfinite(loss) or trial.should_prune():
                    raise optuna.TrialPruned
            return accuracy

        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=number),
                                    pruner=optuna.pruners.MedianPruner())
        study.optimize(objective)
        done = [trial for trial in study.trials if trial.value is not None]
        return float(study.best_params["lr"]) if done else 0.1


def main() -> None:
    """Print a line for each data set and budget."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=10, help="(default: %(default)s)")
    parser.add_argument("--budgets", default="200,500", help="epochs (default: %(default)s)")
    parser.add_argument("--only", default="digits,breast_cancer,label_noise,gratings,mnist,moons,diabetes",
                        help="data sets (default: %(default)s)")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{'':20}{'epochs':>8}{'sweep: mean, worst regret':>28}{'Optuna: mean, worst regret':>28}")
    for name in options.only.split(","):
        work = Workload((TUNE | REPORT)[name]())
        for budget in map(int, options.budgets.split(",")):
            regrets = [[work.regret(answer(number, budget)) for number in range(options.rounds)]
                       for answer in (work.with_fastnet, work.with_optuna)]
            print(f"{name:20}{budget:8}" + "".join(f"{np.mean(of):20.4f}{np.max(of):8.4f}" for of in regrets), flush=True)


if __name__ == "__main__":
    main()
