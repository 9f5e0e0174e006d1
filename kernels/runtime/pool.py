"""A small pool of threads for kernels that are compiled to run without the GIL.

All threads call a kernel as ``kernel(thread, threads, sync, scratch, *args)``. It does the share of `thread` of `threads`,
may wait for the other threads at `barrier`, and uses `scratch`, an address of memory that is private to the thread, for
packing. The result of a kernel must not depend on `threads`.

There are two functions to run a kernel. `run` takes any kernel from Python. Compiled code calls `run_compiled` with the
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
from fastnet.kernels.runtime.wait import GET_AFFINITY, GET_CPU, SET_AFFINITY, clock, wait_until, wake
from fastnet.kernels.simd import atomic_add, call_kernel, call_system, compare_exchange, load_int, store_int
from fastnet.kernels.system import available_cores

SCRATCH_BYTES = 1 << 20
_MOST = 1024  # threads

_LINE_BYTES = 128  # a cache line, of Apple's CPUs; 64 on others, many of which fetch them in pairs

# `sync`, int64, belongs to one call: a few values, each on its own cache line
_ARRIVED, _BOARD, _STATE, _COUNTER, _LEFT, SYNC_SIZE = 0, 16, 17, 32, 48, 64  # those after them: see `phases`
_ABORT = 1 << 30  # added to _ARRIVED, ends all waiting
_STARTED, _ENDED = 1, 2  # values of _STATE

# The shared state of the process, int64, called `board`; `wait` uses the indices 8 to 15 and 24 to 28
_SHARE, _WORKERS, LEAST = 0, 1, 2  # LEAST: the pool divides work of at least so many multiply-adds among threads
_PENALTY, ALONE = 6, 7  # nanoseconds; ALONE: the time until which short work is not divided, see `_judge`
_BUSY = 16
_FUNCTION, _JOB, _THREADS, _SYNC = 32, 33, 34, 35  # the workers' current call; function 0: a call from Python
_MASK, _MASK_BYTES = 112, 128  # a mask of CPUs
_WORKER, _WORKER_SIZE = 128, 16  # for each worker: calls so far, whether it sleeps, the CPU that it avoids, its id
_TICKET, _AVOIDS, _ID = 0, 2, 3
_OWN_SYNC = _WORKER + _MOST * _WORKER_SIZE  # for calls of compiled code

# A thread context, called `caller`: the values for yielding (see `phases`), a sync, memory for a command list, the address
# of the shared state, and then the scratch. Its address is that of the scratch.
_HEADER, PACE, JOB = 1280, -1408, -768
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
    ticket = atomic_add(sync + 8 * _ARRIVED, 1)
    if ticket >= _ABORT:
        return
    target = (ticket // threads + 1) * threads
    board = load_int(sync + 8 * _BOARD)
    if ticket + 1 == target:
        wake(board, sync + 8 * _ARRIVED)
    else:
        wait_until(board, sync + 8 * _ARRIVED, target)


@jit
def next_job_at(sync):
    """Do what `next_job` does, with the address of a sync."""
    return atomic_add(sync + 8 * _COUNTER, 1)


@jit_control
def run_compiled(caller, function, job, most, work):
    """Call ``function(thread, threads, sync, scratch, job)`` on all threads, or on fewer, and wait for them.

    Parameters
    ----------
    caller : int64
        The thread context of this Python thread, see `caller`.
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
    board = load_int(caller - 8)
    threads = min(most, load_int(board + 8 * _SHARE))
    if work < load_int(board + 8 * LEAST):
        threads = 1
    elif work < _SHORT:
        until = load_int(board + 8 * ALONE)
        if until > 0 and clock(board, caller + PACE) < until:
            threads = 1
    if threads > 1:
        if load_int(board + 8 * _WORKERS) < threads - 1:
            return False
        if compare_exchange(board + 8 * _BUSY, 0, 1):
            sync = board + 8 * _OWN_SYNC
            _clear(sync, board)
            phases.begin(board, sync, threads)
            before = clock(board, caller + PACE)
            _start(board, function, job, sync, threads)
            call_kernel(function, 0, threads, sync, caller, job)
            done = clock(board, caller + PACE)
            slept = _join(board, sync, threads - 1)
            _judge(board, threads, done - before, clock(board, caller + PACE) - done if slept else 0, done)
            return True
    _clear(caller - _HEADER, board)
    call_kernel(function, 0, 1, caller - _HEADER, caller, job)
    return True


@jit
def _clear(sync, board):
    for at in (_ARRIVED, _COUNTER, _LEFT):
        store_int(sync + 8 * at, 0)
    store_int(sync + 8 * _BOARD, board)


@jit
def _start(board, function, job, sync, threads):
    """Start the workers, which the calling thread has claimed."""
    store_int(board + 8 * _FUNCTION, function)
    store_int(board + 8 * _JOB, job)
    store_int(board + 8 * _THREADS, threads)
    store_int(board + 8 * _SYNC, sync)
    cpu = -1
    if load_int(board + 8 * GET_CPU) != 0:
        cpu = call_system(load_int(board + 8 * GET_CPU), 0, 0, 0, 0, 0)
    for number in range(threads - 1):
        worker = board + 8 * (_WORKER + number * _WORKER_SIZE)
        if cpu >= 0 and cpu != load_int(worker + 8 * _AVOIDS):
            _keep_off(board, worker, cpu)
        atomic_add(worker + 8 * _TICKET, 1)
        wake(board, worker + 8 * _TICKET)


@jit
def _keep_off(board, worker, cpu):
    """Keep a worker off the CPU of the calling thread.

    On a machine of two cores Linux may wake a worker on the calling thread's CPU and keep it there for 0.1 s while the other
    CPU is idle, after another library's threads (for instance those of a NumPy product) ran on that one. Products were then
    2 times slower.
    """
    mask = board + 8 * _MASK
    store_int(worker + 8 * _AVOIDS, cpu)
    if cpu >= 8 * _MASK_BYTES or call_system(load_int(board + 8 * GET_AFFINITY), 0, _MASK_BYTES, mask, 0, 0) != 0:
        return
    word = mask + 8 * (cpu // 64)
    store_int(word, load_int(word) & ~(1 << (cpu % 64)))
    for i in range(_MASK_BYTES // 8):
        if load_int(mask + 8 * i) != 0:  # other CPUs remain
            call_system(load_int(board + 8 * SET_AFFINITY), load_int(worker + 8 * _ID), _MASK_BYTES, mask, 0, 0)
            return


@jit
def _leave(board, sync, others):
    """Count this worker as done."""
    if atomic_add(sync + 8 * _LEFT, 1) + 1 == others:
        wake(board, sync + 8 * _LEFT)


@jit
def _join(board, sync, others):
    """Wait until all workers of this call are done, and release them."""
    slept = wait_until(board, sync + 8 * _LEFT, others)
    store_int(sync + 8 * _STATE, _ENDED)
    compare_exchange(board + 8 * _BUSY, 1, 0)
    return slept


@jit
def _judge(board, threads, part, waited, now):
    """Detect busy cores: after a call for which one thread would have been faster, do not divide short work for a while.

    A wait of 1 ms is negligible compared with a long product, but many times a short one. So the pool does not divide short
    work for the next 0.2 ms, and twice as long each time that the next attempt is late, too, up to 50 ms.

    Parameters
    ----------
    board, threads : int64
        The shared state, and the threads of the call.
    part, waited, now : int64
        The nanoseconds of the calling thread's work and of its wait for the others, and the time between the two.
    """
    penalty, until = load_int(board + 8 * _PENALTY), load_int(board + 8 * ALONE)
    if waited <= part * (threads - 1):
        if penalty > 0:
            store_int(board + 8 * _PENALTY, penalty // 2)
        return
    penalty = max(_FIRST_PENALTY, min(_MOST_PENALTY, 2 * penalty)) if now - until < _MOST_PENALTY else _FIRST_PENALTY
    store_int(board + 8 * _PENALTY, penalty)
    store_int(board + 8 * ALONE, now + waited + penalty)


@jit_control
def _serve(board, number, scratch, done):
    """Run calls from compiled code until one from Python comes; return the number of calls so far."""
    ticket = board + 8 * (_WORKER + number * _WORKER_SIZE + _TICKET)
    if number == 0:
        wait.calibrate(board, scratch + PACE)
    while True:
        done += 1
        if wait_until(board, ticket, done) and load_int(board + 8 * phases.CROWDED) > 0:
            phases.woken(board, scratch + PACE)
        function = load_int(board + 8 * _FUNCTION)
        if function == 0:
            return done
        sync, threads = load_int(board + 8 * _SYNC), load_int(board + 8 * _THREADS)
        call_kernel(function, number + 1, threads, sync, scratch, load_int(board + 8 * _JOB))
        _leave(board, sync, threads - 1)


@jit
def _start_python(board, sync, threads):
    """Claim the workers for a call from Python, and return whether they were free."""
    if not compare_exchange(board + 8 * _BUSY, 0, 1):
        return False
    store_int(sync + 8 * _STATE, _STARTED)
    _start(board, 0, 0, sync, threads)
    return True


@jit
def _abort(board, sync, others):
    """Release all threads of a call from their barriers and, if they have started, wait until they are done."""
    atomic_add(sync + 8 * _ARRIVED, _ABORT)
    wake(board, sync + 8 * _ARRIVED)
    if others >= 0 and load_int(sync + 8 * _STATE) == _STARTED:
        _join(board, sync, others)


# --- number of threads ------------------------------------------------------------------------------------------------


def _threads_at_start() -> int:
    text = os.environ.get("FASTNET_NUM_THREADS", "").strip()
    if not text:
        return available_cores()
    if not text.isdecimal() or not 1 <= int(text) <= _MOST:
        raise ValueError(f"FASTNET_NUM_THREADS is {text!r}: expected a whole number between 1 and {_MOST}.")
    return int(text)


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
    if not whole or not 1 <= operator.index(threads) <= _MOST:
        raise ValueError(f"set_num_threads got {threads!r}: expected a whole number between 1 and {_MOST}, or None.")
    _pool.limit, _pool.most = operator.index(threads), _MOST
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
            self.kernel(thread, self.threads, self.sync, caller(), *self.args)
        except BaseException:
            _abort(_board_address, _address(self.sync), -1)  # release the others from their barriers
            raise


class _Pool:
    """The process's workers. One call at a time uses them; calls at the same time run on the calling thread."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.most = _MOST  # fewer if the system cannot start more
        self.callers = 0
        self.workers: list[threading.Thread] = []
        self.lock = threading.Lock()  # held by a call from Python
        self.count = threading.Lock()
        self.call: _Call | None = None
        _board[_BUSY] = _board[_WORKERS] = 0
        _board[_WORKER:_OWN_SYNC] = 0
        self.share()

    def share(self) -> int:
        """Set and return the threads for one call: computations in `region` divide the cores among them."""
        share = min(self.most, max(1, self.limit // max(1, self.callers)))
        _board[_SHARE] = share
        return share

    def busy(self) -> bool:
        """Return whether a call uses the workers."""
        return self.lock.locked() or bool(_board[_BUSY])

    def start(self, workers: int) -> None:
        """Start threads until there are so many workers, or as many as the system allows."""
        if len(self.workers) >= workers:
            return
        with self.count:
            while len(self.workers) < workers:
                number = len(self.workers)
                _board[_WORKER + number * _WORKER_SIZE + _AVOIDS] = -1
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
                _board[_WORKERS] = len(self.workers)

    def _work(self, number: int, ready: threading.Event) -> None:
        """Run calls as long as the process lives."""
        scratch = caller()
        _keep(_local.buffer)
        _board[_WORKER + number * _WORKER_SIZE + _ID] = threading.get_native_id()
        ready.set()
        done = 0
        while True:
            done = _serve(_board_address, number, scratch, done)
            call = self.call
            assert call is not None
            sync, others = call.sync, call.threads - 1
            try:
                call.enter(number + 1)
            except BaseException as error:  # the calling thread raises it; this thread continues with the next call
                call.errors.append(error)
            del call  # the arrays must not live until the next call
            _leave(_board_address, _address(sync), others)


def _address(a: np.ndarray) -> int:
    return a.__array_interface__["data"][0]


def _aligned(size: int) -> tuple[np.ndarray, int]:
    """Allocate memory of so many bytes on a cache line's boundary; return the array that owns it, and its address."""
    buffer = np.zeros(size + _LINE_BYTES, np.uint8)
    return buffer, -(-_address(buffer) // _LINE_BYTES) * _LINE_BYTES


def _keep(buffer: np.ndarray) -> None:
    """Never free a buffer: a worker that sleeps while the interpreter ends reads it once more when it wakes."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(buffer))


_BOARD_SIZE = _OWN_SYNC + phases.sync_size(_MOST)
_board_buffer, _board_address = _aligned(8 * _BOARD_SIZE)
_board = np.frombuffer(_board_buffer, np.int64, _BOARD_SIZE, _board_address - _address(_board_buffer))
_keep(_board_buffer)
wait.set_up(_board)
_board[LEAST] = _LEAST_WORK
_local = threading.local()
_pool = _Pool(_threads_at_start())


def _after_fork() -> None:
    """Make a new pool with the same limit in a child made by fork, which has none of the threads."""
    global _pool
    _pool = _Pool(_pool.limit)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def caller() -> int:
    """Return the thread context of this Python thread, the address of its scratch on a cache line's boundary."""
    try:
        return _local.caller
    except AttributeError:
        _local.buffer, start = _aligned(SCRATCH_BYTES - PACE)
        _local.caller = start - PACE
        ctypes.c_int64.from_address(_local.caller - 8).value = _board_address
        return _local.caller


def start_workers() -> None:
    """Start as many threads as `run_compiled` may use."""
    _pool.start(_pool.share() - 1)


def least_work() -> int:
    """Return the multiply-adds from which the pool divides work among threads."""
    return int(_board[LEAST])


def run_at(function: int, record: np.ndarray, threads: int | None = None, work: int = UNLIMITED) -> None:
    """Call a `linking.thread_kernel`, by its address, with the address of a record; see `run_compiled`."""
    most = UNLIMITED if threads is None else threads
    while not run_compiled(caller(), function, _address(record), most, work):
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
    sync = np.zeros(SYNC_SIZE, np.int64)
    sync[_BOARD] = _board_address
    if count == 1 or pool.busy():
        kernel(0, 1, sync, caller(), *args)
        return
    with pool.lock:  # unlike with acquire(), Ctrl-C cannot separate this from the release
        _run_together(pool, _Call(kernel, count, sync, args, []))


def _run_together(pool: _Pool, call: _Call) -> None:
    pool.start(call.threads - 1)
    call = call._replace(threads=min(call.threads, pool.most))
    others, sync = call.threads - 1, _address(call.sync)
    pool.call = call
    try:
        if not _start_python(_board_address, sync, call.threads):
            call.kernel(0, 1, call.sync, caller(), *call.args)
            return
        call.enter(0)
        _join(_board_address, sync, others)
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
            _abort(_board_address, _address(sync), others)
            return
