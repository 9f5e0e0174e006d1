"""Trials on a Dask cluster."""
from __future__ import annotations

import asyncio
import concurrent.futures as cf
import contextlib
import functools
import os
import time
from collections.abc import Iterator
from typing import Any

from fastnet.kernels.runtime.pool import get_num_threads, set_num_threads
from fastnet.sweep.record import Record, State
from fastnet.sweep.run.shared import Start
from fastnet.sweep.run.trial import Trials
from fastnet.sweep.spec import Spec, Trial

PATIENCE = 60.0  # seconds to wait for a worker when there is none, in all


class LostError(RuntimeError):
    """Dask gave a task up because data that it needed, or that it had made, died with a worker."""


class Cluster:
    """The workers of a Dask client; see `fastnet.sweep.run.executors` for the methods.

    The data are scattered: they go to each worker once, and stay there for all of its trials. Each trial is a task, which
    Dask runs elsewhere if the worker dies.

    Parameters
    ----------
    executor : distributed.cfexecutor.ClientExecutor
        From ``client.get_executor()``. Tasks are submitted to its client, with its options, and not through it: its own
        futures stay pending for ever when Dask cancels a task whose result was lost before it was fetched.
    """

    def __init__(self, executor: Any, who: str) -> None:
        self.who = who
        self.client = executor._client
        self.options = {"pure": False, **executor._kwargs}
        self.tasks: dict[cf.Future, Any] = {}
        if not self.client.nthreads():
            raise RuntimeError(f"{who}: the Dask cluster has no workers. Start some: dask worker tcp://SCHEDULER:8786.")

    @contextlib.contextmanager
    def holding(self, shared: Trials) -> Iterator[None]:
        self.data, self.shared = shared, self.put(shared)
        try:
            yield
        finally:
            del self.shared  # the cluster forgets the data

    def window(self) -> int:
        return 2 * sum(self.client.nthreads().values()) + 2

    def put(self, thing: Trials | Start) -> Any:
        """Scatter to all workers; when they die meanwhile, again, until `PATIENCE` is over."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._wait_for_a_worker(deadline)
                left = max(1.0, deadline - time.monotonic())
                return self.client.scatter(thing, broadcast=True, hash=False, timeout=left)
            except Exception as error:  # what a worker's death looks like differs between versions of Dask
                if time.monotonic() > deadline or not _from_a_death(error):
                    raise
                time.sleep(0.1)

    def _wait_for_a_worker(self, deadline: float) -> None:
        """`Client.wait_for_workers` trusts a copy of the scheduler's list that may be old; this asks the scheduler."""
        while not self.client.nthreads():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.who}: the Dask cluster has had no worker for {PATIENCE:g} s. Start some, and "
                                   "resume the sweep.")
            time.sleep(0.1)

    def submit(self, start: Any, spec: Spec, trial: Trial, until: int, state: State | None, keep: bool) -> cf.Future:
        """A future of ours that ends whenever Dask's does: with its result, its error, or `LostError`."""
        ours: cf.Future = cf.Future()
        task = self.client.submit(_run_in_worker, self.shared, start, os.getpid(), spec, trial, until, state,
                                  keep, **self.options)
        self.tasks[ours] = task  # Dask forgets a task when nothing refers to its future
        ours.add_done_callback(self._done)
        task.add_done_callback(functools.partial(_pass_on, ours))
        return ours

    def _done(self, ours: cf.Future) -> None:
        task = self.tasks.pop(ours)
        if ours.cancelled():
            task.cancel()

    def recovered(self, error: Exception) -> bool:
        """Dask cancels what needs data of which the last copy is gone: all workers died, or the only one."""
        if not isinstance(error, LostError):
            return False
        if self.shared.status != "finished":
            self.shared = self.put(self.data)
        return True


def _pass_on(ours: cf.Future, task: Any) -> None:
    result = None
    failure: BaseException | None = None
    try:
        result = task.result()
    except (cf.CancelledError, asyncio.CancelledError) as error:
        failure = LostError(str(error))
    except BaseException as error:
        failure = error
    if not ours.set_running_or_notify_cancel():
        return
    if failure is None:
        ours.set_result(result)
    else:
        ours.set_exception(failure)


def _from_a_death(error: Exception) -> bool:
    return isinstance(error, (OSError, TimeoutError, KeyError, RuntimeError, ValueError, cf.CancelledError))


def _run_in_worker(shared: Trials, start: Start, client: int, *rest: Any) -> tuple[Record, State | None] | None:
    """Run a trial on the cores that Dask gave to the worker."""
    from distributed import get_worker

    threads = get_worker().state.nthreads
    if os.getpid() != client and get_num_threads() != threads:
        set_num_threads(threads)
    return shared.run(start, *rest)
