"""What a trial gave, and where it stands if it is to go on."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fastnet.sweep.spec import Trial
from fastnet.training import Evaluation


@dataclass(frozen=True)
class Record:
    """What a trial gave.

    `losses`, `val_losses` and `val_accuracies` hold a number for each epoch that was run; a diverged trial ends with
    the epoch in which it diverged, a stopped one with that after which it was not promoted.
    """

    trial: Trial
    status: str  # "done", "diverged" or "stopped"
    engine: str
    losses: list[float]
    val_losses: list[float] = field(default_factory=list)
    val_accuracies: list[float] = field(default_factory=list)
    test: Evaluation | None = None
    seconds: float = 0.0

    @property
    def epochs(self) -> int:
        """How many were run."""
        return len(self.losses)


@dataclass(frozen=True)
class State:
    """Where a trial stands after some epochs: with it, it goes on as if it had never stopped."""

    engine: Any  # what its engine's `save` returned
    rng: dict[str, Any] | None  # of the generator that shuffles
    limit: float  # the loss above which it has diverged
    record: Record
