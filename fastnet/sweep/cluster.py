"""Trials on a Dask cluster."""
from __future__ import annotations

import concurrent.futures as cf
import contextlib
import os
from collections.abc import Iterator
from typing import Any

from fastnet.kernels.threads import get_num_threads, set_num_threads
from fastnet.sweep.shared import Shared, Start
from fastnet.sweep.spec import Spec, Trial
from fastnet.sweep.trial import Record, run_trial

_PATIENCE = 60  # seconds to wait for a worker when there is none


class Cluster:
    """The workers of a Dask client; see `fastnet.sweep.places` for the methods.

    The data are scattered: they go to each worker once, and stay there for all of its trials. Each trial is a task, which
    Dask runs elsewhere if the worker dies.

    Parameters
    ----------
    executor : distributed.cfexecutor.ClientExecutor
        From ``client.get_executor()``.
    """

    def __init__(self, executor: Any) -> None:
        self.executor, self.client = executor, executor._client
        if not self.client.nthreads():
            raise RuntimeError("lr_sweep: the Dask cluster has no workers. Start some: dask worker tcp://SCHEDULER:8786.")

    @contextlib.contextmanager
    def holding(self, shared: Shared) -> Iterator[None]:
        self.data, self.shared = shared, self.placed(shared)
        try:
            yield
        finally:
            del self.shared  # the cluster forgets the data

    def window(self) -> int:
        return 2 * sum(self.client.nthreads().values()) + 2

    def placed(self, thing: Shared | Start) -> Any:
        self.client.wait_for_workers(1, timeout=_PATIENCE)
        return self.client.scatter(thing, broadcast=True, hash=False)

    def submit(self, start: Any, spec: Spec, trial: Trial) -> cf.Future:
        return self.executor.submit(_run_in_worker, self.shared, start, spec, trial, os.getpid())

    def recovered(self, error: Exception) -> bool:
        """Dask cancels what needs data of which the last copy is gone: all workers died, or the only one."""
        if not isinstance(error, cf.CancelledError):
            return False
        if self.shared.status in ("lost", "cancelled"):
            self.shared = self.placed(self.data)
        return True


def _run_in_worker(shared: Shared, start: Start, spec: Spec, trial: Trial, client: int) -> Record | None:
    """Run a trial on the cores that Dask gave to the worker."""
    from distributed import get_worker

    threads = get_worker().state.nthreads
    if os.getpid() != client and get_num_threads() != threads:
        set_num_threads(threads)
    return run_trial(shared, start, spec, trial)
