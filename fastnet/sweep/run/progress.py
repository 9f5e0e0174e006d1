"""Progress on the error stream: trials done, diverged, best so far, time left."""
from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from fastnet.sweep.choice.metrics import metric_of, value_of
from fastnet.sweep.record import Record
from fastnet.sweep.spec import Spec

_EVERY = 30.0  # seconds between two lines where no bar can be drawn


class Silent:
    """No progress."""

    def total(self, trials: int) -> None:
        """Set the number of trials."""

    def __call__(self, record: Record, spec: Spec) -> None:
        """Show a trial that ended, or came to a rung."""


class Log:
    """Replaces tqdm's bar where no bar can be drawn, as in a file: a line every half a minute, and at the end."""

    def __init__(self) -> None:
        self.n, self.total, self.text, self.shown = 0, 1, "", time.monotonic()

    def refresh(self) -> None:
        """Do nothing: the next line shows the new total."""

    def set_postfix_str(self, text: str, refresh: bool) -> None:
        """Set the text of the next line."""
        self.text = text

    def update(self, more: int) -> None:
        """Count trials, and print a line if the last one is half a minute old."""
        self.n += more
        if time.monotonic() - self.shown >= _EVERY:
            self.show()

    def show(self) -> None:
        """Print the line."""
        self.shown = time.monotonic()
        print(f"sweep: {self.n}/{self.total} trials; {self.text}", file=sys.stderr, flush=True)


class Line(Silent):
    """A line of progress; a trial counts once, however often it continues."""

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
    """Yield a function to call with each trial that ended.

    It draws a bar on terminals and in notebooks. Elsewhere it prints a line now and then if `shown` is true, and nothing if
    it is None.
    """
    if sys.stderr is None or shown is False:  # there is no error stream with pythonw
        yield Silent()
        return
    if not (sys.stderr.isatty() or in_notebook()):
        if shown:
            log = Log()
            yield Line(log)
            log.show()
        else:
            yield Silent()
        return
    from tqdm import tqdm  # here, since importing fastnet must stay quick

    with tqdm(total=1, desc="sweep", unit="trial", file=sys.stderr, dynamic_ncols=True) as bar:
        yield Line(bar)


def in_notebook() -> bool:
    """Return whether a Jupyter kernel runs this code, whose error stream is not a terminal, but visible."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


def _score(record: Record, spec: Spec) -> float:
    metric = metric_of("sweep", spec.metric, record.curves)
    return metric.sign * value_of(record, metric)
