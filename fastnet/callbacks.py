"""Callbacks for ``fit``: objects that fastnet calls with the report of every epoch."""
from __future__ import annotations

import csv
import os
from pathlib import Path

from fastnet.training.history import EpochReport

_COLUMNS = ("epoch", "lr", "loss", "val_loss", "val_accuracy", "seconds")


class CSVLogger:
    """Write a line into a CSV file at the end of every epoch, so that you can watch a run and keep its record after a crash.

    The columns are epoch (from 1), lr, loss, val_loss, val_accuracy (both empty without validation data) and seconds.

    Parameters
    ----------
    path : path-like
        The file. Every fit overwrites it.
    append : bool
        Append to an existing file instead.

    Examples
    --------
    >>> import numpy as np, fastnet, tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "log.csv")
    >>> model = fastnet.Sequential((fastnet.FullLayer(2, 2, rng=0), fastnet.SoftMaxLayer()), fastnet.CrossEntropyLayer())
    >>> _ = model.fit(np.eye(2), np.eye(2), epochs=3, lr=0.5, callbacks=fastnet.CSVLogger(path))
    >>> with open(path) as file:
    ...     print(file.readline(), end="")
    epoch,lr,loss,val_loss,val_accuracy,seconds
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = False) -> None:
        self.path = Path(path)
        self.append = append

    def __call__(self, report: EpochReport) -> None:
        """Write the line of one epoch, and the header before the first one."""
        new = report.epoch == 0 and not (self.append and self.path.exists() and self.path.stat().st_size > 0)
        with open(self.path, "w" if new else "a", newline="", encoding="ascii") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow(_COLUMNS)
            value = "" if report.val_loss is None else repr(float(report.val_loss))
            accuracy = "" if report.val_accuracy is None else repr(float(report.val_accuracy))
            writer.writerow((report.epoch + 1, repr(float(report.lr)), repr(float(report.loss)), value, accuracy,
                             f"{report.seconds:.6f}"))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}{', append=True' if self.append else ''})"
