"""A small pool of threads for kernels that are compiled to run without the GIL.

A kernel is entered by every thread at once as ``kernel(thread, threads, sync, scratch, *args)``: it takes the share of
the work that belongs to `thread` of `threads`, may meet the others at `barrier`, and has `scratch` (an address, private
to the thread) for packing. What a kernel computes must not depend on `threads`.

Numba's own parallel layer was measured beside this and not kept: see kernels/README.md.
"""
import contextlib
import ctypes
import operator
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from fastnet.kernels._jit import jit
from fastnet.kernels.simd import atomic_add, call_yield, pause

SCRATCH_BYTES = 1 << 20
_SPINS = 4000  # some 100 microseconds of waiting at a barrier before the core is offered to others

# `sync` is one int64 array a call: a few values, each on a cache line of its own
_ARRIVED, _ABORTED, _YIELD, _COUNTER, _LEFT, _SYNC_SIZE = 0, 8, 16, 24, 32, 40


@jit
def barrier(sync, threads):
    """Wait until all threads of this call have come here."""
    if threads == 1:
        return
    arrived = sync.ctypes.data
    ticket = atomic_add(arrived, 1)
    target = (ticket // threads + 1) * threads
    spins = 0
    while atomic_add(arrived, 0) < target and sync[_ABORTED] == 0:
        pause()
        spins += 1
        if spins > _SPINS:
            call_yield(sync[_YIELD])


@jit
def next_job(sync):
    """The number of the next job that no thread has taken yet: 0, 1, 2, ..."""
    return atomic_add(sync.ctypes.data + 8 * _COUNTER, 1)


def _system_yield() -> int:
    """Address of the system's function that gives up the rest of a time slice."""
    library = ctypes.windll.kernel32 if sys.platform == "win32" else ctypes.CDLL(None)
    function = library.SwitchToThread if sys.platform == "win32" else library.sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value


def _cgroup_cpus() -> float:
    """CPUs that the control group allows, infinity where there is no limit."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return float("inf") if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        quota = int(Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text())
        period = int(Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 else float("inf")
    return float("inf")


def available_cores() -> int:
    """Cores that this process may use: its affinity, hyper-threads counted once, within its control group."""
    if hasattr(os, "sched_getaffinity"):
        cpus = os.sched_getaffinity(0)
        siblings = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
        try:
            cores = len({Path(siblings.format(cpu)).read_text() for cpu in cpus})
        except OSError:
            cores = len(cpus)
    else:
        cores = os.cpu_count() or 1
    return max(1, min(cores, int(_cgroup_cpus() + 0.5) if _cgroup_cpus() != float("inf") else cores))


def _threads_at_start() -> int:
    text = os.environ.get("FASTNET_NUM_THREADS", "").strip()
    if not text:
        return available_cores()
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"FASTNET_NUM_THREADS is {text!r}: expected a whole number, 1 or more.")
    return int(text)


def _find_current_cpu() -> Callable[[], int] | None:
    """The system's function that tells which CPU the caller runs on; None where threads cannot be kept off one."""
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), "sched_getcpu", None)


_current_cpu = _find_current_cpu()


@jit
def _leave(sync):
    """Say that this thread has done its share."""
    atomic_add(sync.ctypes.data + 8 * _LEFT, 1)


@jit
def _join(sync, others):
    """Wait until all other threads of this call have left; they come to their ends at about the same time."""
    left = sync.ctypes.data + 8 * _LEFT
    spins = 0
    while atomic_add(left, 0) < others:
        pause()
        spins += 1
        if spins > _SPINS:
            call_yield(sync[_YIELD])


class _Call(NamedTuple):
    """A kernel on its way through several threads."""

    kernel: Callable
    threads: int
    sync: np.ndarray
    args: tuple
    errors: list[BaseException]

    def enter(self, thread: int) -> None:
        """Do one thread's share."""
        try:
            self.kernel(thread, self.threads, self.sync, _scratch(), *self.args)
        except BaseException:
            self.sync[_ABORTED] = 1  # let the others out of their barriers
            raise


class _Worker:
    """One thread that waits for a call and takes part in it."""

    def __init__(self) -> None:
        self.jobs: queue.SimpleQueue = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._work, daemon=True, name="fastnet-kernel")
        self.thread.start()
        self.avoids = -1

    def leave(self, cpu: int) -> None:
        """Stay off the CPU that the caller runs on.

        On a machine of two cores Linux may wake a worker on its caller's CPU and keep it there for a tenth of a second
        while the other CPU idles, once another library's threads (a NumPy product is enough) have been on that one:
        products took twice as long.
        """
        if cpu != self.avoids:
            others = os.sched_getaffinity(0) - {cpu}
            with contextlib.suppress(OSError):
                if others:
                    os.sched_setaffinity(self.thread.native_id, others)
            self.avoids = cpu

    def finish(self) -> None:
        """Wait until nothing is left to do, however often Ctrl-C is pressed meanwhile: calls still use their arrays."""
        while True:
            idle = threading.Event()
            self.jobs.put(idle)
            with contextlib.suppress(KeyboardInterrupt):
                idle.wait()
                return

    def _work(self) -> None:
        while True:
            job = self.jobs.get()
            if isinstance(job, threading.Event):
                job.set()
                continue
            thread, call = job
            try:
                call.enter(thread)
            except BaseException as error:  # the caller raises it; this thread goes on to the next call
                call.errors.append(error)
            finally:
                _leave(call.sync)
                del job, call  # the arrays are not to live until the next call


class _Pool:
    """The process's workers; one call at a time has them, others meanwhile run on their own thread."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.callers = 0
        self.workers: list[_Worker] = []
        self.busy = threading.Lock()
        self.count = threading.Lock()

    def share(self) -> int:
        """Threads for one call: callers inside `region` divide the cores among them."""
        return max(1, self.limit // max(1, self.callers))


_pool = _Pool(_threads_at_start())
_yield_address = _system_yield()
_local = threading.local()


def _after_fork() -> None:
    """A child made by fork has none of the threads: start anew, with the same limit."""
    global _pool
    _pool = _Pool(_pool.limit)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _scratch() -> int:
    """Address of this thread's own packing buffer, on a cache line's boundary."""
    if not hasattr(_local, "scratch"):
        _local.buffer = np.empty(SCRATCH_BYTES + 64, np.uint8)
        _local.scratch = -(-_local.buffer.ctypes.data // 64) * 64
    return _local.scratch


def get_num_threads() -> int:
    """Threads that kernels use at most."""
    return _pool.limit


def set_num_threads(threads: int | None) -> None:
    """Set how many threads kernels use at most.

    Parameters
    ----------
    threads : int or None
        1 or more; None for the cores that the process may use. Results are the same bits for any number.

    Raises
    ------
    ValueError
        If `threads` is not a whole number of at least 1.
    """
    if threads is None:
        threads = available_cores()
    whole = hasattr(threads, "__index__") and not isinstance(threads, bool)
    if not whole or operator.index(threads) < 1:
        raise ValueError(f"set_num_threads got {threads!r}: expected a whole number, 1 or more, or None.")
    _pool.limit = operator.index(threads)


@contextlib.contextmanager
def region() -> Iterator[None]:
    """A long computation of one caller: while several run at once, each gets its share of the threads."""
    pool = _pool
    with pool.count:
        pool.callers += 1
    try:
        yield
    finally:
        with pool.count:
            pool.callers -= 1


def run(kernel: Callable, *args, threads: int | None = None) -> None:
    """Call ``kernel(thread, threads, sync, scratch, *args)`` on all threads and wait for them.

    Parameters
    ----------
    kernel : callable
        Compiled with ``nogil``; must compute the same for any number of threads.
    *args
        The same for every thread.
    threads : int, optional
        Use at most so many, for work that is too small to share.
    """
    pool = _pool
    count = pool.share() if threads is None else min(threads, pool.share())
    sync = np.zeros(_SYNC_SIZE, np.int64)
    sync[_YIELD] = _yield_address
    if count == 1 or pool.busy.locked():
        kernel(0, 1, sync, _scratch(), *args)
        return
    with pool.busy:  # unlike acquire(), this cannot be torn apart by Ctrl-C
        _run_together(pool, _Call(kernel, count, sync, args, []))


def _run_together(pool: _Pool, call: _Call) -> None:
    others = call.threads - 1
    while len(pool.workers) < others:
        pool.workers.append(_Worker())
    workers = pool.workers[:others]
    cpu = -1 if _current_cpu is None else _current_cpu()
    try:
        for i, worker in enumerate(workers):
            if cpu >= 0:
                worker.leave(cpu)
            worker.jobs.put((i + 1, call))
        call.enter(0)
        _join(call.sync, others)
    except BaseException:
        call.sync[_ABORTED] = 1
        for worker in workers:
            worker.finish()
        raise
    if call.errors:
        raise call.errors[0]
