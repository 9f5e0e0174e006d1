"""What a fit leaves behind."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class EpochReport(NamedTuple):
    """The numbers of one epoch, as callbacks get them."""

    epoch: int  # from 0
    epochs: int
    lr: float
    loss: float
    val_loss: float | None
    val_accuracy: float | None
    seconds: float


class Evaluation(NamedTuple):
    """How well a network does on data with known labels."""

    loss: float
    accuracy: float


@dataclass
class History:
    """The record of the last ``fit``, kept as ``model.history``.

    Attributes
    ----------
    engine : str
        What trained: ``"layers"``, ``"fused"``, ``"gram"`` or ``"windows"``.
    why : str
        Why that engine; if it is ``"layers"`` because nothing else trains this network, what about it says so.
    losses, rates, seconds : list of float
        Mean mini-batch loss, learning rate and wall time of every epoch that was run.
    val_losses, val_accuracies : list of float
        Of the validation data after every epoch; empty without any.
    stopped : str
        Why training ended: ``"all epochs done"``, ``"diverged"``, ``"callback"`` or ``"early stop"``, with details.
    """

    engine: str = ""
    why: str = ""
    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    val_losses: list[float] = field(default_factory=list)
    val_accuracies: list[float] = field(default_factory=list)
    stopped: str = ""

    @property
    def epochs(self) -> int:
        """How many epochs were run."""
        return len(self.losses)

    def add(self, report: EpochReport) -> None:
        """Append one epoch."""
        self.losses.append(report.loss)
        self.rates.append(report.lr)
        self.seconds.append(report.seconds)
        if report.val_loss is not None and report.val_accuracy is not None:
            self.val_losses.append(report.val_loss)
            self.val_accuracies.append(report.val_accuracy)

    def plot(self) -> Any:
        """Draw loss and accuracy against the epoch: a Matplotlib figure, see :func:`fastnet.plots.curves`."""
        from fastnet import plots

        return plots.curves(self)

    def _repr_png_(self) -> bytes | None:
        """The picture that a notebook shows."""
        return self.plot().png() if self.losses else None

    def __repr__(self) -> str:
        last = f", last loss {self.losses[-1]:.4g}" if self.losses else ""
        return f"History(engine={self.engine!r}, {self.epochs} epochs{last}, stopped: {self.stopped})"
