"""What a trial gave, and where it stands if it is to go on."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastnet.sweep.spec import Trial


@dataclass(frozen=True)
class Record:
    """What a trial gave.

    Attributes
    ----------
    status : str
        ``"done"``, ``"diverged"``, or ``"stopped"`` by the search.
    engine : str
        What trained it.
    curves : dict
        A list of numbers by name, one for each epoch that was run. A diverged trial ends with the epoch in which it
        diverged, a stopped one with that after which it was not promoted.
    final : dict
        What is only reported, measured at the end.
    samples : dict
        By the name of a curve: its value for every held-out sample, the mean of the epochs that count.
    ended : bool
        Whether the training function ended before all epochs, so that there are no more.
    """

    trial: Trial
    status: str
    engine: str
    curves: Mapping[str, list[float]]
    final: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    samples: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False)
    ended: bool = False

    @property
    def epochs(self) -> int:
        """How many were run."""
        return max(map(len, self.curves.values()), default=0)

    @property
    def losses(self) -> list[float]:
        return self.curves.get("loss", [])

    @property
    def val_losses(self) -> list[float]:
        return self.curves.get("val_loss", [])

    @property
    def val_accuracies(self) -> list[float]:
        return self.curves.get("val_accuracy", [])


@dataclass(frozen=True)
class State:
    """Where a trial stands after some epochs: with it, it goes on as if it had never stopped."""

    engine: Any  # what its engine's `save` returned, or a function that is suspended
    rng: dict[str, Any] | None  # of the generator that shuffles
    limit: float  # the loss above which it has diverged
    record: Record
    recent: tuple[np.ndarray, ...] = ()  # which held-out samples were right in the last epochs
    random: dict[str, Any] | None = None  # of the global generators, where layers may draw from them
