"""The results of a fit: the report of each epoch, and their record."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class EpochReport(NamedTuple):
    """The numbers of one epoch, which callbacks receive."""

    epoch: int  # from 0
    epochs: int
    lr: float
    loss: float
    val_loss: float | None
    val_accuracy: float | None
    seconds: float


class Evaluation(NamedTuple):
    """Loss and accuracy of a network on data with known labels."""

    loss: float
    accuracy: float


@dataclass
class History:
    """The record of the last ``fit``, kept as ``model.history``.

    Attributes
    ----------
    engine : str
        The engine that trained: ``"layers"``, ``"fused"``, ``"gram"``, ``"windows"`` or ``"mixed"``.
    why : str
        The reason for that engine. If no compiled engine supports the network, it names the part that is unsupported.
    losses, rates, seconds : list of float
        Mean mini-batch loss, learning rate and wall time of every epoch. The first time may include loading the kernels.
    val_losses, val_accuracies : list of float
        Loss and accuracy of the validation data after every epoch; empty without validation data.
    stopped : str
        The reason why training ended: ``"all epochs done"``, ``"diverged"``, ``"callback"`` or ``"early stop"``, with
        details.
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
        """The number of epochs so far."""
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
        """Return the picture for a notebook."""
        return self.plot().png() if self.losses else None

    def __repr__(self) -> str:
        last = f", last loss {self.losses[-1]:.4g}" if self.losses else ""
        return f"History(engine={self.engine!r}, {self.epochs} epochs{last}, stopped: {self.stopped})"
