"""A small pool of threads for kernels that are compiled to run without the GIL.

All threads call a kernel as ``kernel(thread, threads, sync, scratch, *args)``. It does the share of `thread` of `threads`,
may wait for the other threads at `barrier`, and uses `scratch`, an address of memory that is private to the thread, for
packing. The result of a kernel must not depend on `threads`.

There are three functions to run a kernel. `run` takes any kernel from Python, which every thread then enters; `team.run`
takes a compiled kernel from Python, and only the calling thread enters Python. Compiled code calls `run_compiled` with the
address of a kernel and a record of its arguments: to wake a worker it needs neither Python nor the GIL, and if calls follow
each other closely, a worker starts within a microsecond. A worker waits in compiled code, see `wait`: it spins for less than
0.1 ms, and then sleeps.

Numba's parallel layer was compared with this pool and rejected: see kernels/README.md.
"""
import contextlib
import ctypes
import operator
import os
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from fastnet.kernels.codegen.jit import jit, jit_control
from fastnet.kernels.runtime import phases, wait
from fastnet.kernels.runtime.cores import keep_off, threads_at_start
from fastnet.kernels.runtime.state import (
    LINE,
    MOST_THREADS,
    SHARED,
    SHARED_RECORD,
    SYNC,
    SYNC_RECORD,
    THREAD_CONTEXT,
    THREAD_CONTEXT_RECORD,
    WORKER,
    WORKER_RECORD,
)
from fastnet.kernels.runtime.wait import clock, wait_until, wake
from fastnet.kernels.simd import atomic_add, call_kernel, call_system, compare_exchange, load_int, store_int
from fastnet.kernels.system import available_cores

SCRATCH_BYTES = 1 << 20
ABORT = 1 << 30  # added to SYNC.arrived, ends all waiting
STARTED, ENDED = 1, 2  # values of SYNC.state
_WORKER_BYTES = WORKER_RECORD.itemsize
_OWN_SYNC = SHARED_RECORD.itemsize  # for calls of compiled code
_LEAST_WORK = 1 << 18
_SHORT = 1 << 26  # multiply-adds that take few milliseconds: no longer than a worker may wait for its core
UNLIMITED = 1 << 62  # as `most` or `work` of `run_compiled`: all threads
_FIRST_PENALTY, _MOST_PENALTY = 200_000, 50_000_000  # nanoseconds


# --- in compiled code: sync and shared state as addresses -----------------------------------------------------------


@jit
def barrier(sync, threads):
    """Wait until all threads of this call have arrived."""
    barrier_at(sync.ctypes.data, threads)


@jit
def next_job(sync):
    """Return the number of the next chunk that no thread has taken: 0, 1, 2, ..."""
    return next_job_at(sync.ctypes.data)


@jit
def barrier_at(sync, threads):
    """Do what `barrier` does, with the address of a sync."""
    if threads == 1:
        return
    ticket = atomic_add(sync + SYNC.arrived, 1)
    if ticket >= ABORT:
        return
    target = (ticket // threads + 1) * threads
    shared = load_int(sync + SYNC.shared)
    if ticket + 1 == target:
        wake(shared, sync + SYNC.arrived)
    else:
        wait_until(shared, sync + SYNC.arrived, target)


@jit
def next_job_at(sync):
    """Do what `next_job` does, with the address of a sync."""
    return atomic_add(sync + SYNC.counter, 1)


@jit_control
def run_compiled(context, function, job, most, work):
    """Call ``function(thread, threads, sync, scratch, job)`` on all threads, or on fewer, and wait for them.

    Parameters
    ----------
    context : int64
        The thread context of this Python thread, see `thread_context`.
    function : int64
        The address of a `linking.thread_kernel`.
    job : int64
        The address of the kernel's arguments.
    most : int64
        The largest number of threads.
    work : int64
        The number of multiply-adds. Work that is too small to be divided runs on the calling thread, and so does short work
        while other threads keep the cores busy.

    Returns
    -------
    bool
        False if the function did nothing because some threads do not exist yet: call `start_workers` from Python.
    """
    shared = load_int(context + THREAD_CONTEXT.shared)
    threads = min(most, load_int(shared + SHARED.share))
    if work < load_int(shared + SHARED.least_work):
        threads = 1
    elif work < _SHORT:
        until = load_int(shared + SHARED.alone_until)
        if until > 0 and clock(shared, context + THREAD_CONTEXT.pace) < until:
            threads = 1
    if threads > 1:
        if load_int(shared + SHARED.workers) < threads - 1:
            return False
        if compare_exchange(shared + SHARED.busy, 0, 1):
            sync = shared + _OWN_SYNC
            _clear(sync, shared)
            phases.begin(shared, sync, threads)
            before = clock(shared, context + THREAD_CONTEXT.pace)
            _start(shared, function, job, sync, threads)
            call_kernel(function, 0, threads, sync, context, job)
            done = clock(shared, context + THREAD_CONTEXT.pace)
            slept = _join(shared, sync, threads - 1)
            _judge(shared, threads, done - before, clock(shared, context + THREAD_CONTEXT.pace) - done if slept else 0, done)
            return True
    _clear(context + THREAD_CONTEXT.sync, shared)
    call_kernel(function, 0, 1, context + THREAD_CONTEXT.sync, context, job)
    return True


@jit
def _clear(sync, shared):
    for offset in (SYNC.arrived, SYNC.counter, SYNC.left):
        store_int(sync + offset, 0)
    store_int(sync + SYNC.shared, shared)


@jit
def _start(shared, function, job, sync, threads):
    """Start the workers, which the calling thread has claimed."""
    store_int(shared + SHARED.function, function)
    store_int(shared + SHARED.job, job)
    store_int(shared + SHARED.threads, threads)
    store_int(shared + SHARED.sync, sync)
    cpu = -1
    if load_int(shared + SHARED.get_cpu) != 0:
        cpu = call_system(load_int(shared + SHARED.get_cpu), 0, 0, 0, 0, 0)
    for number in range(threads - 1):
        worker = shared + SHARED.worker + number * _WORKER_BYTES
        if cpu >= 0 and cpu != load_int(worker + WORKER.avoids):
            keep_off(shared, worker, cpu)
        atomic_add(worker + WORKER.calls, 1)
        wake(shared, worker + WORKER.calls)


@jit
def _leave(shared, sync, others):
    """Count this worker as done."""
    if atomic_add(sync + SYNC.left, 1) + 1 == others:
        wake(shared, sync + SYNC.left)


@jit
def _join(shared, sync, others):
    """Wait until all workers of this call are done, and release them."""
    slept = wait_until(shared, sync + SYNC.left, others)
    store_int(sync + SYNC.state, ENDED)
    compare_exchange(shared + SHARED.busy, 1, 0)
    return slept


@jit
def _judge(shared, threads, part, waited, now):
    """Detect busy cores: after a call for which one thread would have been faster, do not divide short work for a while.

    A wait of 1 ms is negligible compared with a long product, but many times a short one. So the pool does not divide short
    work for the next 0.2 ms, and twice as long each time that the next attempt is late, too, up to 50 ms.

    Parameters
    ----------
    shared, threads : int64
        The shared state, and the threads of the call.
    part, waited, now : int64
        The nanoseconds of the calling thread's work and of its wait for the others, and the time between the two.
    """
    penalty, until = load_int(shared + SHARED.penalty), load_int(shared + SHARED.alone_until)
    if waited <= part * (threads - 1):
        if penalty > 0:
            store_int(shared + SHARED.penalty, penalty // 2)
        return
    penalty = max(_FIRST_PENALTY, min(_MOST_PENALTY, 2 * penalty)) if now - until < _MOST_PENALTY else _FIRST_PENALTY
    store_int(shared + SHARED.penalty, penalty)
    store_int(shared + SHARED.alone_until, now + waited + penalty)


@jit_control
def _serve(shared, number, scratch, done):
    """Run calls from compiled code until one from Python comes; return the number of calls so far."""
    ticket = shared + SHARED.worker + number * _WORKER_BYTES + WORKER.calls
    if number == 0 and done == 0:
        wait.calibrate(shared, scratch + THREAD_CONTEXT.pace)
    while True:
        done += 1
        if wait_until(shared, ticket, done) and load_int(shared + SHARED.crowded_until) > 0:
            phases.woken(shared, scratch + THREAD_CONTEXT.pace)
        function = load_int(shared + SHARED.function)
        if function == 0:
            return done
        sync, threads = load_int(shared + SHARED.sync), load_int(shared + SHARED.threads)
        call_kernel(function, number + 1, threads, sync, scratch, load_int(shared + SHARED.job))
        _leave(shared, sync, threads - 1)


@jit
def _start_python(shared, sync, threads):
    """Claim the workers for a call from Python, and return whether they were free."""
    if not compare_exchange(shared + SHARED.busy, 0, 1):
        return False
    store_int(sync + SYNC.state, STARTED)
    _start(shared, 0, 0, sync, threads)
    return True


@jit
def _abort(shared, sync, others):
    """Release all threads of a call from their barriers and, if they have started, wait until they are done."""
    atomic_add(sync + SYNC.arrived, ABORT)
    wake(shared, sync + SYNC.arrived)
    if others >= 0 and load_int(sync + SYNC.state) == STARTED:
        _join(shared, sync, others)


# --- number of threads ------------------------------------------------------------------------------------------------


def get_num_threads() -> int:
    """Return the largest number of threads that kernels use."""
    return _pool.limit


def set_num_threads(threads: int | None) -> None:
    """Set the largest number of threads that kernels use.

    Parameters
    ----------
    threads : int or None
        At least 1; None means the number of cores that the process may use. Results are the same bits for any number.

    Raises
    ------
    ValueError
        If `threads` is not a whole number between 1 and 1024.
    """
    if threads is None:
        threads = available_cores()
    whole = hasattr(threads, "__index__") and not isinstance(threads, bool)
    if not whole or not 1 <= operator.index(threads) <= MOST_THREADS:
        raise ValueError(f"set_num_threads got {threads!r}: expected a whole number between 1 and {MOST_THREADS}, or None.")
    _pool.limit, _pool.most = operator.index(threads), MOST_THREADS
    _pool.share()


@contextlib.contextmanager
def region() -> Iterator[None]:
    """Mark a long computation: while several run at the same time, each gets its share of the threads."""
    pool = _pool
    with pool.count:
        pool.callers += 1
        pool.share()
    try:
        yield
    finally:
        with pool.count:
            pool.callers -= 1
            pool.share()


# --- from Python ------------------------------------------------------------------------------------------------------


class _Call(NamedTuple):
    """A call of a kernel on several threads."""

    kernel: Callable
    threads: int
    sync: np.ndarray
    args: tuple
    errors: list[BaseException]

    def enter(self, thread: int) -> None:
        """Do the share of one thread."""
        try:
            self.kernel(thread, self.threads, self.sync, thread_context(), *self.args)
        except BaseException:
            _abort(_shared_address, _address(self.sync), -1)  # release the others from their barriers
            raise


class _Pool:
    """The process's workers. One call at a time uses them; calls at the same time run on the calling thread."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.most = MOST_THREADS  # fewer if the system cannot start more
        self.callers = 0
        self.workers: list[threading.Thread] = []
        self.lock = threading.Lock()  # held by a call from Python
        self.count = threading.Lock()
        self.call: _Call | None = None
        _shared["busy"] = _shared["workers"] = 0
        _shared["worker"] = np.zeros((), WORKER_RECORD)
        self.share()

    def share(self) -> int:
        """Set and return the threads for one call: computations in `region` divide the cores among them."""
        share = min(self.most, max(1, self.limit // max(1, self.callers)))
        _shared["share"] = share
        return share

    def busy(self) -> bool:
        """Return whether a call uses the workers."""
        return self.lock.locked() or bool(_shared["busy"])

    def start(self, workers: int) -> None:
        """Start threads until there are so many workers, or as many as the system allows."""
        if len(self.workers) >= workers:
            return
        with self.count:
            while len(self.workers) < workers:
                number = len(self.workers)
                _shared["worker"][number]["avoids"] = -1
                ready = threading.Event()
                thread = threading.Thread(target=self._work, args=(number, ready), daemon=True, name="fastnet-kernel")
                try:
                    thread.start()
                except RuntimeError:  # the system starts no more threads: the existing ones do the work
                    self.most = number + 1
                    self.share()
                    return
                ready.wait()
                self.workers.append(thread)
                _shared["workers"] = len(self.workers)

    def _work(self, number: int, ready: threading.Event) -> None:
        """Run calls as long as the process lives."""
        scratch = thread_context()
        _keep(_local.buffer)
        _shared["worker"][number]["id"] = threading.get_native_id()
        ready.set()
        done = 0
        while True:
            done = _serve(_shared_address, number, scratch, done)
            call = self.call
            assert call is not None
            sync, others = call.sync, call.threads - 1
            try:
                call.enter(number + 1)
            except BaseException as error:  # the calling thread raises it; this thread continues with the next call
                call.errors.append(error)
            del call  # the arrays must not live until the next call
            _leave(_shared_address, _address(sync), others)


def _address(a: np.ndarray) -> int:
    return a.__array_interface__["data"][0]


def _aligned(size: int) -> tuple[np.ndarray, int]:
    """Allocate memory of so many bytes on a cache line's boundary; return the array that owns it, and its address."""
    buffer = np.zeros(size + LINE, np.uint8)
    return buffer, -(-_address(buffer) // LINE) * LINE


def _keep(buffer: np.ndarray) -> None:
    """Never free a buffer: a worker that sleeps while the interpreter ends reads it once more when it wakes."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(buffer))


_shared_buffer, _shared_address = _aligned(_OWN_SYNC + phases.sync_bytes(MOST_THREADS))
_shared = np.frombuffer(_shared_buffer, SHARED_RECORD, 1, _shared_address - _address(_shared_buffer)).reshape(())
_keep(_shared_buffer)
wait.set_up(_shared)
_shared["least_work"] = _LEAST_WORK
_local = threading.local()
_pool = _Pool(threads_at_start())


def _after_fork() -> None:
    """Make a new pool with the same limit in a child made by fork, which has none of the threads."""
    global _pool
    _pool = _Pool(_pool.limit)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def thread_context() -> int:
    """Return the thread context of this Python thread, the address of its scratch on a cache line's boundary."""
    try:
        return _local.context
    except AttributeError:
        _local.buffer, start = _aligned(THREAD_CONTEXT_RECORD.itemsize + SCRATCH_BYTES)
        _local.context = start + THREAD_CONTEXT_RECORD.itemsize
        ctypes.c_int64.from_address(_local.context + THREAD_CONTEXT.shared).value = _shared_address
        return _local.context


def start_workers() -> None:
    """Start as many threads as `run_compiled` may use."""
    _pool.start(_pool.share() - 1)


def least_work() -> int:
    """Return the multiply-adds from which the pool divides work among threads."""
    return int(_shared["least_work"])


def run_at(function: int, job: int, threads: int | None = None, work: int = UNLIMITED) -> None:
    """Call a `linking.thread_kernel`, by its address, with the address of its arguments; see `run_compiled`."""
    most = UNLIMITED if threads is None else threads
    while not run_compiled(thread_context(), function, job, most, work):
        start_workers()


def run(kernel: Callable, *args, threads: int | None = None) -> None:
    """Call ``kernel(thread, threads, sync, scratch, *args)`` on all threads and wait for them.

    Parameters
    ----------
    kernel : callable
        A kernel compiled with ``nogil``, whose result does not depend on the number of threads.
    *args
        The kernel's arguments, the same for every thread.
    threads : int, optional
        The largest number of threads, for work that is too small for all.
    """
    pool = _pool
    count = pool.share() if threads is None else min(threads, pool.share())
    sync = np.zeros(SYNC_RECORD.itemsize // 8, np.int64)
    sync[SYNC.shared // 8] = _shared_address
    if count == 1 or pool.busy():
        kernel(0, 1, sync, thread_context(), *args)
        return
    with pool.lock:  # unlike with acquire(), Ctrl-C cannot separate this from the release
        _run_together(pool, _Call(kernel, count, sync, args, []))


def _run_together(pool: _Pool, call: _Call) -> None:
    pool.start(call.threads - 1)
    call = call._replace(threads=min(call.threads, pool.most))
    others, sync = call.threads - 1, _address(call.sync)
    pool.call = call
    try:
        if not _start_python(_shared_address, sync, call.threads):
            call.kernel(0, 1, call.sync, thread_context(), *call.args)
            return
        call.enter(0)
        _join(_shared_address, sync, others)
    except BaseException:
        _end(call.sync, others)
        raise
    finally:
        pool.call = None
    if call.errors:
        raise call.errors[0]


def _end(sync: np.ndarray, others: int) -> None:
    """End a call early, and wait for its workers, which still use its arrays, even if Ctrl-C is pressed again."""
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            _abort(_shared_address, _address(sync), others)
            return
