"""The arguments of a sweep, checked, and its trials."""
from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

CONSTANT = "constant"  # the schedule of a rate that stays


class Setting(tuple[tuple[str, Any], ...]):
    """Everything that is chosen for a trial but its learning rate, seed and fold: pairs of a name and a value.

    The values are attributes, too: ``Setting(momentum=0.9).momentum``.
    """

    __slots__ = ()

    def __new__(cls, pairs: Iterable[tuple[str, Any]] = (), **values: Any) -> Setting:
        return super().__new__(cls, (*map(tuple, pairs), *values.items()))  # type: ignore[arg-type]

    def __getattr__(self, field: str) -> Any:
        for name, value in self:
            if name == field:
                return value
        raise AttributeError(f"there is no hyperparameter {field!r}; there is {', '.join(name for name, _ in self)}.")

    def asdict(self) -> dict[str, Any]:
        """The values by name."""
        return dict(self)

    def __reduce__(self) -> Any:
        return Setting, (tuple(self),)

    def __repr__(self) -> str:
        return f"Setting({', '.join(f'{name}={value!r}' for name, value in self)})"


class Trial(NamedTuple):
    """One training run.

    `fold`, from 1, says which of `folds` parts of the data is held out; both are 0 without cross-validation.
    """

    setting: Setting
    lr: float
    seed: int
    fold: int = 0
    folds: int = 0

    def asdict(self) -> dict[str, Any]:
        """The hyperparameters by name, and the rest."""
        return {**self.setting.asdict(), "lr": self.lr, "seed": self.seed, "fold": self.fold, "folds": self.folds}


RESERVED = ("lr", "seed", "fold", "folds", "status", "epochs", "engine", "seconds")  # no names of hyperparameters


@dataclass(frozen=True)
class Spec:
    """Everything that decides the numbers of a sweep, but for the data and what trains.

    Attributes
    ----------
    params : tuple of (str, tuple)
        All hyperparameters but the rate: names, and the values that are combined with every rate.
    metric : (str, str), optional
        What to judge by, and whether ``"max"`` or ``"min"`` is best.
    guess : tuple of (str, float)
        What a constant prediction gets, by metric.
    budget : float or str, optional
        The epochs that may be run in all, or a time such as ``"90 s"``.
    engine, shuffle, schedules
        Of networks; `schedules` holds, by name, what the rate is multiplied by in each epoch.
    """

    lrs: tuple[float, ...]
    seeds: tuple[int, ...]
    epochs: int
    params: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    folds: int = 0
    diverged_above: float = 10.0
    search: str = "grid"
    metric: tuple[str, str] | None = None
    guess: tuple[tuple[str, float], ...] = ()
    budget: float | str | None = None
    engine: str = "auto"
    shuffle: bool = False
    schedules: tuple[tuple[str, tuple[float, ...]], ...] = ((CONSTANT, ()),)

    @property
    def names(self) -> tuple[str, ...]:
        """The networks' names; an empty one if there is just one."""
        return dict(self.params).get("name", ("",))

    @functools.cached_property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """What the trials differ in, and the values: the axes of a result's arrays."""
        return {**{field: values for field, values in self.params if len(values) > 1 or (field == "name" and values[0])},
                "lr": self.lrs, "seed": self.seeds, **({"fold": tuple(range(1, self.folds + 1))} if self.folds else {})}

    @functools.cached_property
    def settings(self) -> tuple[Setting, ...]:
        """All of them, in the order of the sweep."""
        names = [name for name, _ in self.params]
        return tuple(Setting(zip(names, values)) for values in itertools.product(*(values for _, values in self.params)))

    def label(self, setting: Setting) -> str:
        """What tells a setting from the others of the sweep; empty if there is only one."""
        return ", ".join(str(value) if field == "name" else f"{in_words(field)} {value}"
                         for field, value in setting if field in self.axes)

    def described(self, trial: Trial) -> str:
        """What tells a trial from the others of the sweep."""
        folds = [f"fold {trial.fold} of {trial.folds}"] if trial.folds else []
        parts = [f"rate {trial.lr:g}", f"seed {trial.seed}", *folds]
        named = dict(trial.setting).get("name")
        more = [f"{in_words(field)} {value}" for field, value in trial.setting if field in self.axes and field != "name"]
        return ", ".join([*([repr(named)] if named else []), *parts, *more])

    def trial(self, setting: Setting, lr: float, seed: int, fold: int = 0) -> Trial:
        """The trial of a setting."""
        return Trial(setting, lr, seed, fold, self.folds)

    def repeats(self) -> list[tuple[int, int]]:
        """(seed, fold) of all trials of one setting and rate."""
        return [(seed, fold) for seed in self.seeds for fold in (range(1, self.folds + 1) if self.folds else (0,))]

    def trials(self) -> list[Trial]:
        """All trials; those that start from the same weights and train on the same samples stand together."""
        return [self.trial(setting, lr, seed, fold) for seed, fold in self.repeats() for setting in self.settings
                for lr in self.lrs]

    def rate(self, trial: Trial, epoch: int) -> float:
        """The learning rate of an epoch, from 0."""
        factors = dict(self.schedules)[trial.setting.schedule]
        return trial.lr * factors[epoch] if factors else trial.lr


def rate_text(lr: float, lrs: Iterable[float], digits: int = 3) -> str:
    """A rate with so many digits, or as many as it takes to tell it from the others."""
    lrs = list(lrs)
    digits = next((d for d in range(digits, 17) if len({f"{other:.{d}g}" for other in lrs}) == len(set(lrs))), 17)
    return f"{lr:.{digits}g}" if lr < 10**digits else f"{lr:g}"


def in_words(field: str) -> str:
    """A hyperparameter's name in a sentence."""
    return field.replace("_", " ")
