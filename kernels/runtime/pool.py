"""A small pool of threads for kernels that are compiled to run without the GIL.

A kernel is entered by every thread at once as ``kernel(thread, threads, sync, scratch, *args)``: it takes the range of
the work that belongs to `thread` of `threads`, may meet the others at `barrier`, and has `scratch` (an address, private
to the thread) for packing. What a kernel computes must not depend on `threads`.

There are two ways in. `run` takes any kernel from Python. `run_compiled` is called by compiled code, and takes a kernel
by its address and a record of its arguments: waking a worker then needs neither Python nor its lock, and while calls
follow each other closely a worker is at work within a microsecond. A worker waits in compiled code, see `_waiting`: it
spins for less than a tenth of a millisecond, then it sleeps.

Numba's own parallel layer was measured beside this and not kept: see kernels/README.md.
"""
import contextlib
import ctypes
import operator
import os
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.runtime import phases, wait
from fastnet.kernels.runtime.wait import GET_AFFINITY, GET_CPU, SET_AFFINITY, clock, wait_until, wake
from fastnet.kernels.simd import atomic_add, call_kernel, call_system, compare_exchange, load_int, store_int
from fastnet.kernels.system import available_cores

SCRATCH_BYTES = 1 << 20
_MOST = 1024  # threads

_LINE_BYTES = 128  # a cache line, of Apple's CPUs; 64 on others, many of which fetch them in pairs

# `sync`, int64, belongs to one call: a few values, each on a cache line of its own
_ARRIVED, _BOARD, _STATE, _COUNTER, _LEFT, SYNC_SIZE = 0, 16, 17, 32, 48, 64  # and behind them, see `pieces`
_ABORT = 1 << 30  # added to _ARRIVED and to `phases.PHASE`, ends all waiting
_STARTED, _ENDED = 1, 2  # values of _STATE

# The board, int64, belongs to the process, and places 8 to 15 to `_waiting`
_SHARE, _WORKERS, LEAST = 0, 1, 2  # LEAST: multiply-adds from which a job is divided among threads
_PENALTY, ALONE = 6, 7  # nanoseconds; ALONE: until when short jobs are not divided, as one was held up; see `_judge`
_BUSY = 16
_FUNCTION, _JOB, _THREADS, _SYNC = 32, 33, 34, 35  # of the call that the workers are in; function 0: Python knows it
_MASK, _MASK_BYTES = 112, 128  # of CPUs
_WORKER, _WORKER_SIZE = 128, 16  # each worker's: calls so far, whether it sleeps, the CPU it stays off, its id
_TICKET, _AVOIDS, _ID = 0, 2, 3
_OWN_SYNC = _WORKER + _MOST * _WORKER_SIZE  # for calls of compiled code

# A caller's block: its pace (see `pieces`), a sync of its own, memory for a job, the address of the board, and then the
# scratch. It is known by the address of the scratch.
_HEADER, PACE, JOB = 1280, -1408, -768
_LEAST_WORK = 1 << 18
_FIRST_PENALTY, _MOST_PENALTY = 200_000, 50_000_000  # nanoseconds


# --- in compiled code: sync and board as addresses ------------------------------------------------------------------


@jit
def barrier(sync, threads):
    """Wait until all threads of this call have come here."""
    barrier_at(sync.ctypes.data, threads)


@jit
def next_job(sync):
    """The number of the next job that no thread has taken yet: 0, 1, 2, ..."""
    return next_job_at(sync.ctypes.data)


@jit
def barrier_at(sync, threads):
    """`barrier` of a kernel that was given the address of its sync."""
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
    """`next_job` of a kernel that was given the address of its sync."""
    return atomic_add(sync + 8 * _COUNTER, 1)


@jit
def run_compiled(caller, function, job, most):
    """Call ``function(thread, threads, sync, scratch, job)`` on all threads, at most on so many, and wait for them.

    Parameters
    ----------
    caller : int64
        What `caller` returned in this Python thread.
    function : int64
        That of a `linking.thread_kernel`.
    job : int64
        Address of what the kernel wants to know.
    most : int64
        Use at most so many threads, for work that is too small to be divided.

    Returns
    -------
    bool
        False if nothing was done, since some threads do not exist yet: call `start_workers` from Python.
    """
    board = load_int(caller - 8)
    threads = min(most, load_int(board + 8 * _SHARE))
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
    """Set the workers to work; the caller has claimed them."""
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
    """Keep a worker off the CPU that the caller runs on.

    On a machine of two cores Linux may wake a worker on its caller's CPU and keep it there for a tenth of a second while
    the other CPU idles, once another library's threads (a NumPy product is enough) have been on that one: products took
    twice as long.
    """
    mask = board + 8 * _MASK
    store_int(worker + 8 * _AVOIDS, cpu)
    if cpu >= 8 * _MASK_BYTES or call_system(load_int(board + 8 * GET_AFFINITY), 0, _MASK_BYTES, mask, 0, 0) != 0:
        return
    word = mask + 8 * (cpu // 64)
    store_int(word, load_int(word) & ~(1 << (cpu % 64)))
    for i in range(_MASK_BYTES // 8):
        if load_int(mask + 8 * i) != 0:  # there are others
            call_system(load_int(board + 8 * SET_AFFINITY), load_int(worker + 8 * _ID), _MASK_BYTES, mask, 0, 0)
            return


@jit
def _leave(board, sync, others):
    """Say that this worker has done its part."""
    if atomic_add(sync + 8 * _LEFT, 1) + 1 == others:
        wake(board, sync + 8 * _LEFT)


@jit
def _join(board, sync, others):
    """Wait until all workers of this call have left, and set them free."""
    slept = wait_until(board, sync + 8 * _LEFT, others)
    store_int(sync + 8 * _STATE, _ENDED)
    compare_exchange(board + 8 * _BUSY, 1, 0)
    return slept


@jit
def _judge(board, threads, part, waited, now):
    """Learn from a call: where its caller waited so long that it had better done all of it alone, others keep a core busy.

    A wait of a millisecond is nothing beside a long product, and many times a short one. So the short jobs of the next
    0.2 ms are not divided, and for twice as long whenever the next try is late too, up to 50 ms.

    Parameters
    ----------
    board, threads : int64
        Of the call.
    part, waited, now : int64
        Nanoseconds that the caller worked at its part, and then waited for the others; and the time between the two.
    """
    penalty, until = load_int(board + 8 * _PENALTY), load_int(board + 8 * ALONE)
    if waited <= part * (threads - 1):
        if penalty > 0:
            store_int(board + 8 * _PENALTY, penalty // 2)
        return
    penalty = max(_FIRST_PENALTY, min(_MOST_PENALTY, 2 * penalty)) if now - until < _MOST_PENALTY else _FIRST_PENALTY
    store_int(board + 8 * _PENALTY, penalty)
    store_int(board + 8 * ALONE, now + waited + penalty)


@jit
def _serve(board, number, scratch, done):
    """Take part in calls of compiled code, until one comes that only Python can enter; returns how many there were."""
    ticket = board + 8 * (_WORKER + number * _WORKER_SIZE + _TICKET)
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
    """Claim the workers and send them to Python for their call; whether they were free."""
    if not compare_exchange(board + 8 * _BUSY, 0, 1):
        return False
    store_int(sync + 8 * _STATE, _STARTED)
    _start(board, 0, 0, sync, threads)
    return True


@jit
def _abort(board, sync, others):
    """Let all threads of a call out of their barriers, and wait until they have left if they ever started."""
    for at in (_ARRIVED, phases.PHASE):
        atomic_add(sync + 8 * at, _ABORT)
        wake(board, sync + 8 * at)
    if others >= 0 and load_int(sync + 8 * _STATE) == _STARTED:
        _join(board, sync, others)


# --- how many ---------------------------------------------------------------------------------------------------------


def _threads_at_start() -> int:
    text = os.environ.get("FASTNET_NUM_THREADS", "").strip()
    if not text:
        return available_cores()
    if not text.isdecimal() or not 1 <= int(text) <= _MOST:
        raise ValueError(f"FASTNET_NUM_THREADS is {text!r}: expected a whole number between 1 and {_MOST}.")
    return int(text)


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
    """A long computation of one caller: while several run at once, each gets its share of the threads."""
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
    """A kernel on its way through several threads."""

    kernel: Callable
    threads: int
    sync: np.ndarray
    args: tuple
    errors: list[BaseException]

    def enter(self, thread: int) -> None:
        """Do one thread's part."""
        try:
            self.kernel(thread, self.threads, self.sync, caller(), *self.args)
        except BaseException:
            _abort(_board_address, _address(self.sync), -1)  # let the others out of their barriers
            raise


class _Pool:
    """The process's workers; one call at a time has them, others meanwhile run on their own thread."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.most = _MOST  # fewer once the system has no more
        self.callers = 0
        self.workers: list[threading.Thread] = []
        self.lock = threading.Lock()  # of a call from Python
        self.count = threading.Lock()
        self.call: _Call | None = None
        _board[_BUSY] = _board[_WORKERS] = 0
        _board[_WORKER:_OWN_SYNC] = 0
        self.share()

    def share(self) -> int:
        """Threads for one call: callers inside `region` divide the cores among them."""
        share = min(self.most, max(1, self.limit // max(1, self.callers)))
        _board[_SHARE] = share
        return share

    def busy(self) -> bool:
        """Whether a call has the workers."""
        return self.lock.locked() or bool(_board[_BUSY])

    def start(self, workers: int) -> None:
        """Have at least so many workers, or those that the system lets us have."""
        if len(self.workers) >= workers:
            return
        with self.count:
            if not self.workers:
                wait.calibrate(_board)
            while len(self.workers) < workers:
                number = len(self.workers)
                _board[_WORKER + number * _WORKER_SIZE + _AVOIDS] = -1
                ready = threading.Event()
                thread = threading.Thread(target=self._work, args=(number, ready), daemon=True, name="fastnet-kernel")
                try:
                    thread.start()
                except RuntimeError:  # no more threads to be had: those there are do the work
                    self.most = number + 1
                    self.share()
                    return
                ready.wait()
                self.workers.append(thread)
                _board[_WORKERS] = len(self.workers)

    def _work(self, number: int, ready: threading.Event) -> None:
        """What a worker does as long as the process lives."""
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
            except BaseException as error:  # the caller raises it; this thread goes on to the next call
                call.errors.append(error)
            del call  # the arrays are not to live until the next call
            _leave(_board_address, _address(sync), others)


def _address(a: np.ndarray) -> int:
    return a.__array_interface__["data"][0]


def _aligned(size: int) -> tuple[np.ndarray, int]:
    """Memory of so many bytes on a cache line's boundary: what keeps it, and its address."""
    buffer = np.zeros(size + _LINE_BYTES, np.uint8)
    return buffer, -(-_address(buffer) // _LINE_BYTES) * _LINE_BYTES


def _keep(buffer: np.ndarray) -> None:
    """Never free it: a worker that naps while the interpreter ends looks at it once more when it wakes."""
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
    """A child made by fork has none of the threads: start anew, with the same limit."""
    global _pool
    _pool = _Pool(_pool.limit)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def caller() -> int:
    """Address of this Python thread's own scratch, on a cache line's boundary: what `run_compiled` wants to know."""
    try:
        return _local.caller
    except AttributeError:
        _local.buffer, start = _aligned(SCRATCH_BYTES - PACE)
        _local.caller = start - PACE
        ctypes.c_int64.from_address(_local.caller - 8).value = _board_address
        return _local.caller


def start_workers() -> None:
    """Have as many threads as `run_compiled` may ask for."""
    _pool.start(_pool.share() - 1)


def least_work() -> int:
    """Multiply-adds from which work is divided among threads."""
    return int(_board[LEAST])


def run(kernel: Callable, *args, threads: int | None = None) -> None:
    """Call ``kernel(thread, threads, sync, scratch, *args)`` on all threads and wait for them.

    Parameters
    ----------
    kernel : callable
        Compiled with ``nogil``; must compute the same for any number of threads.
    *args
        The same for every thread.
    threads : int, optional
        Use at most so many, for work that is too small to be divided.
    """
    pool = _pool
    count = pool.share() if threads is None else min(threads, pool.share())
    sync = np.zeros(phases.sync_size(count), np.int64)
    sync[_BOARD], sync[phases.PHASE] = _board_address, _board[phases.CROWDED] > 0
    if count == 1 or pool.busy():
        kernel(0, 1, sync, caller(), *args)
        return
    with pool.lock:  # unlike acquire(), this cannot be torn apart by Ctrl-C
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
    """End a call early: wait for its workers, however often Ctrl-C is pressed, since they still use its arrays."""
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            _abort(_board_address, _address(sync), others)
            return
