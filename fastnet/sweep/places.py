"""Where trials run, and how the data get there."""
from __future__ import annotations

import concurrent.futures as cf
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from fastnet.sweep.shared import Shared, Start
from fastnet.sweep.spec import Spec, Trial
from fastnet.sweep.trial import Record, run_trial


class Here:
    """Threads of this process: everything is shared as it lies in memory.

    Parameters
    ----------
    workers : int
        How many models to train at once; each has its share of the cores.
    executor : ThreadPoolExecutor, optional
        Threads to use instead of own ones.
    """

    def __init__(self, workers: int, executor: cf.ThreadPoolExecutor | None = None) -> None:
        self.workers, self.executor = workers, executor
        self.stopped = threading.Event()

    @contextlib.contextmanager
    def holding(self, shared: Shared) -> Iterator[None]:
        """Have the data in place; trials that still run at the end stop after their epoch."""
        self.shared = shared
        with contextlib.ExitStack() as stack:
            if self.executor is None:
                self.pool: cf.Executor = stack.enter_context(cf.ThreadPoolExecutor(self.workers, "fastnet-sweep"))
            else:
                self.pool = self.executor
            stack.callback(self.stopped.set)  # before the pool waits for its threads
            yield

    def window(self) -> int:
        """How many trials to have submitted at once."""
        return self.workers + 1

    def placed(self, start: Start) -> Start:
        """What to pass to `submit` for a network."""
        return start

    def submit(self, start: Start, spec: Spec, trial: Trial) -> cf.Future[Record | None]:
        """Have a trial run."""
        return self.pool.submit(run_trial, self.shared, start, spec, trial, self.stopped.is_set)


def place_for(executor: Any) -> Any:
    """The place of an executor that the user gave."""
    if isinstance(executor, cf.ThreadPoolExecutor):
        return Here(executor._max_workers, executor)
    raise TypeError(executor)
