"""Where trials run, and how the data get there.

An executor of this module has ``holding(shared)``, a context in which trials can be submitted; ``window()``, how many to
have submitted at once; ``put(start)``, which brings a network to where it is needed and returns what ``submit`` takes for
it; ``submit(start, spec, trial, until, state, keep)``, which returns a future; and ``recovered(error)``: whether a trial
failed only because workers died with what they held, and the data are there again, but for the networks.
"""
from __future__ import annotations

import concurrent.futures as cf
import contextlib
import functools
import mmap
import os
import pickle
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastnet.kernels.runtime.pool import get_num_threads, set_num_threads
from fastnet.sweep.record import Record, State
from fastnet.sweep.run.shared import Start
from fastnet.sweep.run.trial import Trials
from fastnet.sweep.spec import Spec, Trial

Future = cf.Future  # of what `Trials.run` returns


class LocalThreads:
    """Threads of this process: everything is shared as it lies in memory.

    Parameters
    ----------
    workers : int
        How many models to train at once; they share the cores.
    executor : ThreadPoolExecutor, optional
        Threads to use instead of own ones.
    """

    def __init__(self, workers: int, executor: cf.ThreadPoolExecutor | None = None) -> None:
        self.workers, self.executor = workers, executor
        self.stopped = threading.Event()

    @contextlib.contextmanager
    def holding(self, shared: Trials) -> Iterator[None]:
        """Trials that still run at the end stop at their next epoch."""
        self.shared = shared
        with contextlib.ExitStack() as stack:
            self.pool = self.executor or stack.enter_context(cf.ThreadPoolExecutor(self.workers, "fastnet-sweep"))
            stack.callback(self.stopped.set)  # before the pool waits for its threads
            yield

    def window(self) -> int:
        return self.workers + 1

    def put(self, start: Start) -> Start:
        return start

    def submit(self, start: Start, spec: Spec, trial: Trial, until: int, state: State | None, keep: bool) -> Future:
        return self.pool.submit(self.shared.run, start, spec, trial, until, state, keep, self.stopped.is_set)

    def recovered(self, error: Exception) -> bool:
        return False


class Processes:
    """An executor of processes that see the same files: they map the data into their memory, where it is there once.

    Parameters
    ----------
    executor : concurrent.futures.Executor
    """

    def __init__(self, executor: cf.Executor) -> None:
        self.executor = executor
        workers = getattr(executor, "_max_workers", None)  # no public name, but all that CPython has have it
        self.workers = workers or os.cpu_count() or 1
        self.threads = max(1, get_num_threads() // self.workers)

    @contextlib.contextmanager
    def holding(self, shared: Trials) -> Iterator[None]:
        with tempfile.TemporaryDirectory(prefix="fastnet-sweep-", ignore_cleanup_errors=True) as folder:
            self.folder, self.written = Path(folder), 0
            self.shared = self.put(shared)
            yield

    def window(self) -> int:
        return 2 * self.workers

    def put(self, thing: Trials | Start) -> Path:
        self.written += 1
        path = self.folder / str(self.written)
        write_mapped(path, thing)
        return path

    def submit(self, start: Path | None, spec: Spec, trial: Trial, until: int, state: State | None, keep: bool) -> Future:
        return self.executor.submit(_run_mapped, self.shared, start, self.threads, spec, trial, until, state, keep)

    def recovered(self, error: Exception) -> bool:
        return False


def executor_for(executor: Any, who: str) -> Any:
    """What runs trials on an executor that the user gave."""
    if isinstance(executor, cf.ThreadPoolExecutor):
        return LocalThreads(executor._max_workers, executor)
    if type(executor).__module__.startswith("distributed."):
        executor = executor.get_executor() if hasattr(executor, "get_executor") else executor  # a Client itself
        from fastnet.sweep.run.cluster import Cluster

        return Cluster(executor, who)
    if not callable(getattr(executor, "submit", None)):
        raise TypeError(f"{who}: executor must be a concurrent.futures.Executor, got {executor!r}. For a Dask cluster, "
                        "give the Client, or client.get_executor().")
    return Processes(executor)


def write_mapped(path: Path, thing: Any) -> None:
    """Pickle something, with its arrays in a second file, for `read_mapped`."""
    arrays: list[pickle.PickleBuffer] = []
    try:
        pickled = pickle.dumps(thing, protocol=5, buffer_callback=arrays.append)
    except Exception as error:  # its kind and its words depend on Python's version
        raise pickle.PicklingError(str(error)) from error
    extents = []
    with open(path.with_suffix(".arrays"), "wb") as file:
        for array in arrays:
            file.write(bytes(-file.tell() % 64))  # on a cache line's boundary
            raw = array.raw()
            extents.append((file.tell(), raw.nbytes))
            file.write(raw)
        file.write(b"\0")  # an empty file could not be mapped
    path.write_bytes(pickle.dumps((pickled, extents)))


def read_mapped(path: Path) -> Any:
    """What `write_mapped` wrote; its arrays are read-only, and shared with all other processes that read it."""
    pickled, extents = pickle.loads(path.read_bytes())
    with open(path.with_suffix(".arrays"), "rb") as file:
        memory = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return pickle.loads(pickled, buffers=[memory[at:at + size] for at, size in extents])


_shared = functools.lru_cache(maxsize=1)(read_mapped)  # in a worker: of the current sweep
_start = functools.lru_cache(maxsize=2)(read_mapped)


def _run_mapped(shared: Path, start: Path | None, threads: int, *rest: Any) -> tuple[Record, State | None] | None:
    """Run a trial in a worker process."""
    try:
        data, network = _shared(shared), None if start is None else _start(start)
    except FileNotFoundError:
        raise RuntimeError(f"a worker does not see the folder {shared.parent}. Workers must run on this machine, or share "
                           "its folder for temporary files (set TMPDIR); else use Dask") from None
    set_num_threads(threads)
    return data.run(network, *rest)
