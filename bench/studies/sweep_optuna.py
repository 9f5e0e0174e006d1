"""Time to a good learning rate: a sweep with halving, beside Optuna (TPE, median pruner) that trains PyTorch models.

    pip install optuna torch
    python -m bench.studies.sweep_optuna --keep optuna          # 10 rounds of 200 epochs

Both may train the same number of epochs; whoever has spent them stops, and what comes later does not count. At every
moment, each has a best rate so far: the suggestion among the trials that were finished, or the rate of the study's best
trial. A rate is good if its mean test accuracy, over the seeds of a reference sweep on a fine grid, is within 0.01 of the
best one's. What counts is the time from which on the best rate so far was good until the end: on the clock, and in seconds
of the processor, which a busy machine changes less. Who is not good in the end has taken longer than all of its time: a
ratio of that is a lower bound. The network is the course's.

Ten rounds take some five minutes on two idle cores. With --keep, rounds and the reference sweep are kept in a folder, and
the same command goes on from there.
"""
from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer
from fastnet.dataset import load
from fastnet.sweep import lr_sweep
from fastnet.sweep.run.session import Session

LRS, BATCH, EPOCHS, HIDDEN = (1e-3, 10.0), 128, 20, 500
GOOD = 0.01


Moment = tuple[float, float, float]  # seconds on the clock, of the processor, and the best rate then
Times = tuple[list[float], list[float]]  # on both clocks: from when the best rate was good; when the epochs were spent


class Spent(Exception):
    """The budget of epochs is."""


class Workload:
    """The data, split; the networks; and how good each rate is."""

    def __init__(self, source: str, seeds: int, journal: Path | None) -> None:
        (x, t), (self.x_test, self.labels) = load(source, 0, "float32")
        order = np.random.default_rng(1000).permutation(len(x))
        held, train = order[:len(x) // 5], order[len(x) // 5:]
        self.x, self.t, self.x_val, self.t_val = x[train], t[train], x[held], t[held]
        reference = lr_sweep(self.build, self.x, self.t, "1e-3:3:log22", EPOCHS, BATCH, range(100, 100 + seeds),
                             (self.x_val, self.t_val), (self.x_test, self.labels), resume=journal)
        done = (reference.status == "done").all(1)
        self.log_lrs = np.log(np.array(reference.lrs)[done])
        self.accuracies = reference.accuracies[done].mean(1)

    def build(self, rng: np.random.Generator) -> Sequential:
        """The course's network."""
        return Sequential((FullLayer(self.x.shape[1], HIDDEN, np.float32, rng), ReluLayer(),
                           FullLayer(HIDDEN, self.t.shape[1], np.float32, rng), SoftMaxLayer()), loss=CrossEntropyLayer())

    def good(self, lr: float) -> bool:
        """Whether the rate's mean test accuracy is within 0.01 of the best one's."""
        if not np.exp(self.log_lrs[0]) / 1.01 <= lr <= np.exp(self.log_lrs[-1]) * 1.01:
            return False
        return bool(np.interp(np.log(lr), self.log_lrs, self.accuracies) >= self.accuracies.max() - GOOD)


class Watch:
    """The best rates so far, and when they were."""

    def __init__(self) -> None:
        self.moments: list[Moment] = []
        self.began = time.perf_counter(), time.process_time()

    def note(self, lr: float) -> None:
        """From now on it is this one."""
        self.moments.append((time.perf_counter() - self.began[0], time.process_time() - self.began[1], lr))

    def times(self, work: Workload) -> Times:
        """From when on all best rates so far were good, and how long it has been."""
        since = [float("inf")] * 2
        for *at, lr in reversed(self.moments):
            if not work.good(lr):
                break
            since = at
        return since, [time.perf_counter() - self.began[0], time.process_time() - self.began[1]]


def with_fastnet(work: Workload, number: int, budget: int) -> tuple[Times, int]:
    """A sweep of 13 rates with halving; its times, and the epochs of the trials that counted."""
    watch, spent = Watch(), 0
    keep = Session._keep

    def watched(session: Session, record: Any, state: Any) -> None:
        nonlocal spent
        keep(session, record, state)
        so_far = sum(r.epochs for r in session.journal.records.values())
        if so_far > budget:
            raise KeyboardInterrupt
        spent = so_far
        found = session.result.suggestion()
        if found is not None:
            watch.note(float(found))

    Session._keep = watched  # type: ignore[method-assign]
    try:
        lr_sweep(
            work.build, work.x, work.t, "1e-3:10:log13", EPOCHS, BATCH, [number * 5 + k for k in range(5)],
            (work.x_val, work.t_val), search="halving", progress=False)
    finally:
        Session._keep = keep  # type: ignore[method-assign]
    return watch.times(work), spent


def with_optuna(work: Workload, number: int, budget: int) -> tuple[Times, int]:
    """TPE over the same range of rates, with the median pruner; every trial has weights of its own."""
    import optuna
    import torch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    x, labels = torch.from_numpy(work.x), torch.from_numpy(work.t.argmax(1))
    x_val, labels_val = torch.from_numpy(work.x_val), torch.from_numpy(work.t_val.argmax(1))
    spent = 0

    def objective(trial: optuna.Trial) -> float:
        nonlocal spent
        lr = trial.suggest_float("lr", *LRS, log=True)
        torch.manual_seed(1000 * number + trial.number)
        model = torch.nn.Sequential(torch.nn.Linear(x.shape[1], HIDDEN), torch.nn.ReLU(),
                                    torch.nn.Linear(HIDDEN, work.t.shape[1]))
        with torch.no_grad():
            for layer in (model[0], model[2]):
                torch.nn.init.xavier_normal_(layer.weight)
                layer.bias.zero_()
        optimizer = torch.optim.SGD(model.parameters(), lr)
        accuracy = 0.0
        for epoch in range(EPOCHS):
            if spent >= budget:
                raise Spent
            spent += 1
            for first in range(0, len(x), BATCH):
                loss = torch.nn.functional.cross_entropy(model(x[first:first + BATCH]), labels[first:first + BATCH])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                accuracy = float((model(x_val).argmax(1) == labels_val).float().mean())
            trial.report(accuracy, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return accuracy

    watch = Watch()

    def note(study: optuna.Study, trial: Any) -> None:
        if study.best_trials:
            watch.note(study.best_params["lr"])

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=number),
                                pruner=optuna.pruners.MedianPruner())
    try:
        study.optimize(objective, n_trials=budget, callbacks=[note])
    except Spent:
        pass
    return watch.times(work), spent


def main() -> None:
    """Measure in turns, and print each round and the medians."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", default="synthetic", help="as for fastnet sweep (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="(default: %(default)s)")
    parser.add_argument("--budget", type=int, default=200, help="epochs for each (default: %(default)s)")
    parser.add_argument("--reference", type=int, default=3, help="seeds of the reference sweep (default: %(default)s)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep what is measured here, and go on from it")
    options = parser.parse_args()
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    kept = options.keep / f"rounds-{options.budget}.jsonl" if options.keep else None
    done = [json.loads(line) for line in kept.read_text().splitlines()] if kept and kept.exists() else []
    work = Workload(options.data, options.reference, options.keep / "reference.jsonl" if options.keep else None)
    with_fastnet(work, 10_000, 40)  # compiled code, and PyTorch, are loaded
    with_optuna(work, 10_000, 2)
    times = np.empty((options.rounds, 2, 2, 2))  # of each round, by whom; good, and spent; on which clock
    for number in range(options.rounds):
        if number < len(done):
            times[number], epochs = done[number]
        else:
            (times[number, 0], ours), (times[number, 1], theirs) = (
                with_fastnet(work, number, options.budget), with_optuna(work, number, options.budget))
            epochs = [ours, theirs]
            if kept:
                with kept.open("a") as file:
                    file.write(json.dumps([times[number].tolist(), epochs]) + "\n")
        print(f"round {number}: " + "; ".join(
            f"{name} good from {good[0]:.2f} s ({good[1]:.2f} of the processor), {trained} epochs in {spent[0]:.2f} s"
            for name, (good, spent), trained in zip(("fastnet", "Optuna"), times[number], epochs, strict=True)), flush=True)
    for clock, name in enumerate(("on the clock", "of the processor")):
        ours, (theirs, spent) = times[:, 0, 0, clock], (times[:, 1, 0, clock], times[:, 1, 1, clock])
        ratios = np.minimum(theirs, spent) / ours
        print(f"{name}: good from, median of {options.rounds}: fastnet {np.median(ours):.2f} s, "
              f"Optuna {np.median(theirs):.2f} s; Optuna took {np.median(ratios):.1f} times as long or longer "
              f"({ratios.min():.1f} to {ratios.max():.1f})")
    never = np.isinf(times[:, :, 0, 0]).sum(0)
    print(f"not good when the epochs were spent: fastnet {never[0]}, Optuna {never[1]} of {options.rounds}")


if __name__ == "__main__":
    main()
