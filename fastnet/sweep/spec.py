"""What a sweep was asked for, and the networks that its trials start from."""
from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastnet.layer import parameters
from fastnet.sequential import Sequential
from fastnet.training import FitOptions
from fastnet.training.eligibility import why_not_in_copies

CONSTANT = "constant"  # the schedule of a rate that stays
_global_random_state = threading.Lock()


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
    nesterov: bool = False

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
                          shuffle=self.shuffle, nesterov=self.nesterov and bool(setting.momentum))

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


class Builders:
    """The functions that build networks, watched: what they return is fresh, and decided by the seed."""

    def __init__(self, build: Any) -> None:
        builders = dict(build) if isinstance(build, Mapping) else {"": build}
        if not builders:
            raise ValueError("lr_sweep: build is an empty dict. Give at least one function that builds a network.")
        for name, function in builders.items():
            if not isinstance(name, str) or (isinstance(build, Mapping) and not name):
                raise TypeError(f"lr_sweep: the keys of build must be names, got {name!r}.")
            if isinstance(function, Sequential) or not callable(function):
                raise TypeError(f"lr_sweep: {_who(name)} must be a function that builds a network, got {function!r}. "
                                "Write: def build(rng): return Sequential(...).")
        self.functions: dict[str, Callable[[np.random.Generator], Any]] = builders
        self._seen: list[weakref.ref[Any]] = []

    @property
    def names(self) -> tuple[str, ...]:
        """Of the builders; an empty one if there is only one function."""
        return tuple(self.functions)

    def build(self, name: str, seed: int) -> Sequential:
        """A network with the weights of a seed.

        NumPy's global state is seeded for the call and put back, so that layers made without `rng` have these too.
        """
        with _global_random_state:
            before = np.random.get_state()
            np.random.seed(seed % 2**32)
            try:
                model = self.functions[name](np.random.default_rng(seed))
            finally:
                np.random.set_state(before)
        if not isinstance(model, Sequential):
            raise TypeError(f"lr_sweep: {_who(name)} must return a fastnet.Sequential, got {model!r}.")
        reason = why_not_in_copies(model)
        if reason is not None:
            raise TypeError(f"lr_sweep: {reason}.")
        self._refuse_known(name, model)
        return model

    def first(self, name: str, seed: int) -> Sequential:
        """As `build`, but the function is called twice, to see that it does not lead weights from trial to trial."""
        model, again = self.build(name, seed), self.build(name, seed)
        for layer, other in zip(model.layers, again.layers):
            for attribute in parameters(layer):
                if not np.array_equal(getattr(layer, attribute), getattr(other, attribute)):
                    raise ValueError(
                        f"lr_sweep: {_who(name)} gave two networks of different weights for the same seed, {seed}. "
                        "Draw them from its argument: FullLayer(3072, 500, rng=rng).")
        return model

    def _refuse_known(self, name: str, model: Sequential) -> None:
        parts = [model, *(layer for layer in model.layers if parameters(layer))]
        known = [part for part in (ref() for ref in self._seen) if part is not None]
        for part in parts:
            if any(part is other for other in known):
                what = "network" if part is model else f"layer {part!r}"
                raise ValueError(
                    f"lr_sweep: {_who(name)} returned the same {what} twice; what one trial learns would leak into the "
                    "next. Make new layers in every call.")
            try:
                self._seen.append(weakref.ref(part))
            except TypeError:  # a user's layer with __slots__
                continue


def _who(name: str) -> str:
    return f"build[{name!r}]" if name else "build"
