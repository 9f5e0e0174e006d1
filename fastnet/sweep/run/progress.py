"""One line on the error stream: trials done, diverged, best so far, time left."""
from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from fastnet.sweep.choice.metrics import metric_of, value_of
from fastnet.sweep.record import Record
from fastnet.sweep.spec import Spec


class Silent:
    """No progress line."""

    def total(self, trials: int) -> None:
        """Say how many trials there are."""

    def __call__(self, record: Record, spec: Spec) -> None:
        """Show a trial that ended, or came to a rung."""


class Line(Silent):
    """A line of tqdm; a trial counts once, however often it goes on."""

    def __init__(self, bar: Any) -> None:
        self.bar, self.records = bar, {}  # type: tuple[Any, dict[Any, Record]]

    def total(self, trials: int) -> None:
        self.bar.total = trials
        self.bar.refresh()

    def __call__(self, record: Record, spec: Spec) -> None:
        self.records[record.trial] = record
        records = list(self.records.values())
        diverged = sum(r.status == "diverged" for r in records)
        stopped = sum(r.status == "stopped" for r in records)
        parts = [f"{count} {word}" for count, word in ((diverged, "diverged"), (stopped, "stopped")) if count]
        best = max((r for r in records if r.status != "diverged"), key=lambda r: _score(r, spec), default=None)
        if best is not None:
            metric = metric_of("sweep", spec.metric, best.curves)
            what = metric.curve.removeprefix("val_").replace("_", " ")
            value = value_of(best, metric)
            number = f"{value:.3f}" if metric.accuracy else f"{value:.4g}"
            parts.append(f"best {what} {number} at {spec.described(best.trial)}")
        self.bar.set_postfix_str("; ".join(parts), refresh=False)
        self.bar.update(len(records) - self.bar.n)


@contextlib.contextmanager
def progress_line(shown: bool | None) -> Iterator[Silent]:
    """What to call with each trial that ended; `shown` None means on terminals and in notebooks."""
    if shown is None:
        shown = sys.stderr is not None and (sys.stderr.isatty() or in_notebook())
    if not shown or sys.stderr is None:  # as with pythonw
        yield Silent()
        return
    from tqdm import tqdm  # here, since importing fastnet must stay quick

    with tqdm(total=1, desc="sweep", unit="trial", file=sys.stderr, dynamic_ncols=True) as bar:
        yield Line(bar)


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this, whose error stream is no terminal, but is looked at."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


def _score(record: Record, spec: Spec) -> float:
    metric = metric_of("sweep", spec.metric, record.curves)
    return metric.sign * value_of(record, metric)
