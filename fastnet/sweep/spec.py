"""What a sweep was asked for, and its trials."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from fastnet.training import FitOptions

CONSTANT = "constant"  # the schedule of a rate that stays


class Setting(NamedTuple):
    """Everything that is chosen for a trial but its learning rate, seed and fold."""

    name: str = ""
    batch_size: int = 128
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: str = CONSTANT
    optimizer: str = "sgd"


class Trial(NamedTuple):
    """One training run.

    `name` is the builder's, empty if there is only one; `fold`, from 1, says which of `folds` parts of the data is held
    out, and both are 0 without cross-validation.
    """

    name: str
    lr: float
    seed: int
    fold: int = 0
    folds: int = 0
    batch_size: int = 128
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: str = CONSTANT
    optimizer: str = "sgd"

    @property
    def setting(self) -> Setting:
        """What it has in common with the trials of other rates, seeds and folds."""
        return Setting(self.name, self.batch_size, self.momentum, self.weight_decay, self.schedule, self.optimizer)

    def __str__(self) -> str:
        parts = [f"rate {self.lr:g}, seed {self.seed}"] + ([f"fold {self.fold} of {self.folds}"] if self.folds else [])
        return ", ".join(([repr(self.name)] if self.name else []) + parts)


@dataclass(frozen=True)
class Spec:
    """Everything that decides the numbers of a sweep, but for the data and the networks.

    `schedules` holds, by name, what the rate is multiplied by in each epoch.
    """

    names: tuple[str, ...]
    lrs: tuple[float, ...]
    seeds: tuple[int, ...]
    epochs: int
    batch_sizes: tuple[int, ...] = (128,)
    engine: str = "auto"
    shuffle: bool = False
    momenta: tuple[float, ...] = (0.0,)
    weight_decays: tuple[float, ...] = (0.0,)
    schedules: tuple[tuple[str, tuple[float, ...]], ...] = ((CONSTANT, ()),)
    folds: int = 0
    diverged_above: float = 10.0
    search: str = "grid"
    metric: str | None = None  # what to judge by
    optimizers: tuple[str, ...] = ("sgd",)

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """What the trials differ in, and the values: the axes of a result's arrays."""
        several = {"name": self.names, "batch_size": self.batch_sizes, "momentum": self.momenta,
                   "weight_decay": self.weight_decays, "schedule": tuple(name for name, _ in self.schedules),
                   "optimizer": self.optimizers}
        return {**{field: values for field, values in several.items() if len(values) > 1 or (field == "name" and values[0])},
                "lr": self.lrs, "seed": self.seeds, **({"fold": tuple(range(1, self.folds + 1))} if self.folds else {})}

    @property
    def settings(self) -> tuple[Setting, ...]:
        """All of them, in the order of the sweep."""
        return tuple(Setting(name, batch, momentum, decay, schedule, optimizer)
                     for name in self.names for batch in self.batch_sizes for momentum in self.momenta
                     for decay in self.weight_decays for schedule, _ in self.schedules for optimizer in self.optimizers)

    def label(self, setting: Setting) -> str:
        """What tells a setting from the others of the sweep; empty if there is only one."""
        return ", ".join(str(value) if field == "name" else f"{field.replace('_', ' ')} {value}"
                         for field, value in setting._asdict().items() if field in self.axes)

    def described(self, trial: Trial) -> str:
        """What tells a trial from the others of the sweep."""
        more = [f"{field.replace('_', ' ')} {getattr(trial, field)}" for field in Setting._fields[1:] if field in self.axes]
        return ", ".join([str(trial), *more])

    def options(self, setting: Setting) -> FitOptions:
        """What the trials of a setting are asked for; each has its own rates and, if rows are shuffled, generator."""
        return FitOptions(self.epochs, lambda epoch: 0.0, setting.batch_size, engine=self.engine,
                          optimizer=setting.optimizer, momentum=setting.momentum, weight_decay=setting.weight_decay,
                          shuffle=self.shuffle)

    def trial(self, setting: Setting, lr: float, seed: int, fold: int = 0) -> Trial:
        """The trial of a setting."""
        return Trial(setting.name, lr, seed, fold, self.folds, *setting[1:])

    def repeats(self) -> list[tuple[int, int]]:
        """(seed, fold) of all trials of one setting and rate."""
        return [(seed, fold) for seed in self.seeds for fold in (range(1, self.folds + 1) if self.folds else (0,))]

    def trials(self) -> list[Trial]:
        """All trials; those that start from the same weights and train on the same samples stand together."""
        return [self.trial(setting, lr, seed, fold) for seed, fold in self.repeats() for setting in self.settings
                for lr in self.lrs]

    def rate(self, trial: Trial, epoch: int) -> float:
        """The learning rate of an epoch, from 0."""
        factors = dict(self.schedules)[trial.schedule]
        return trial.lr * factors[epoch] if factors else trial.lr
