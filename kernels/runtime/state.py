"""The records that threads share, field by field; ``README.md`` says who writes each.

Compiled code adds a field's offset to a record's address, since atomic instructions need an address: `SHARED.busy`,
`PHASES.phase`, `WORKER.calls`, `PACE.started`, `THREAD_CONTEXT.job`. Fields that several threads write at the same time lie
on separate cache lines. The int64 after a number that threads wait for counts those that sleep (see `wait.wait_until`).
"""
import types

import numpy as np

LINE = 128  # bytes of a cache line of Apple's CPUs; 64 on others, many of which fetch them in pairs
MOST_THREADS = 1024
MASK_BYTES = 128


def _record(itemsize: int, fields: list[tuple[str, object, int]]) -> np.dtype:
    """A record of names, formats and offsets, which are counted in int64 numbers."""
    names, formats, offsets = zip(*fields, strict=True)
    return np.dtype({"names": names, "formats": formats, "offsets": [8 * at for at in offsets], "itemsize": itemsize})  # type: ignore[call-overload, unused-ignore]


def _offsets(record: np.dtype, base: int = 0) -> types.ModuleType:
    """The offsets of a record's fields in bytes; a module, as Numba takes its attributes for constants."""
    found = types.ModuleType("offsets")
    for name, (_, offset, *_) in (record.fields or {}).items():
        setattr(found, name, base + offset)
    return found


SYNC_RECORD = _record(4 * LINE, [
    ("arrived", "i8", 0),  # threads at barriers so far; an aborted call adds `pool.ABORT`
    ("shared", "i8", 16),  # address of the shared state
    ("state", "i8", 17),  # of a call from Python: 0, `pool.STARTED` or `pool.ENDED`
    ("counter", "i8", 32),  # jobs that threads have taken
    ("left", "i8", 48),  # workers that are done
])
# Those of a call whose phases are divided into chunks follow: see `phases`
PHASES_RECORD = _record(LINE, [
    ("phase", "i8", 0),  # twice the number of the phase, plus 1 if its chunks are small
    ("done", "i8", 2),  # chunks of the phase that are done
])
CLAIM_BYTES = LINE  # for each chunk: one more than the number of the last phase in which a thread claimed it

WORKER_RECORD = _record(LINE, [
    ("calls", "i8", 0),  # that it was started for
    ("avoids", "i8", 2),  # the CPU that it is kept off, or -1
    ("id", "i8", 3),  # the system's number of the thread
])

SHARED_RECORD = _record(LINE * (8 + MOST_THREADS), [
    ("share", "i8", 0),  # threads that a call may use
    ("workers", "i8", 1),  # that exist
    ("least_work", "i8", 2),  # multiply-adds from which work is divided among threads
    ("crowded_until", "i8", 3),  # the time until which the machine counts as oversubscribed, or 0
    ("penalty", "i8", 6),  # nanoseconds for which `alone_until` is extended next
    ("alone_until", "i8", 7),  # the time until which short work is not divided
    ("wait_kind", "i8", 8),  # how threads sleep: `wait.NAP`, `FUTEX`, `ULOCK` or `ON_ADDRESS`
    ("wait", "i8", 9),  # addresses of the system's functions for it
    ("wake", "i8", 10),
    ("futex", "i8", 11),  # number of the system call
    ("spins", "i8", 12),  # pause instructions before a thread sleeps
    ("get_cpu", "i8", 13),  # addresses of the system's functions, or 0
    ("get_affinity", "i8", 14),
    ("set_affinity", "i8", 15),
    ("busy", "i8", 16),  # 1 while a call uses the workers
    ("clock", "i8", 24),  # address of the system's function, or 0
    ("clock_id", "i8", 25),  # its clock; negative: it returns ticks
    ("clock_tick", "i8", 26),  # nanoseconds of a tick
    ("thread_clock", "i8", 27),  # the clock of a thread's CPU time, or 0
    ("rest", "i8", 28),  # address of the system's function for yielding, or 0
    ("last_late", "i8", 29),  # when a thread last waited so long that another must have lost its core
    ("function", "i8", 32),  # the workers' current call; 0: a call from Python
    ("job", "i8", 33),
    ("threads", "i8", 34),
    ("sync", "i8", 35),
    ("mask", ("i8", (MASK_BYTES // 8,)), 112),  # memory for a mask of CPUs
    ("worker", (WORKER_RECORD, (MOST_THREADS,)), 128),
])

PACE_RECORD = _record(LINE, [
    ("time", ("i8", (2,)), 0),  # memory for `wait.clock`
    ("started", "i8", 2),  # since when the thread has had its core
    ("stride", "i8", 3),  # nanoseconds after which it yields
    ("idle", "i8", 4),  # nanoseconds without its core so far
])

# A thread context: its address is that of the scratch, which lies behind it
THREAD_CONTEXT_RECORD = _record(11 * LINE, [
    ("pace", PACE_RECORD, 0),
    ("sync", SYNC_RECORD, 16),  # of calls on this thread alone
    ("job", ("i8", (95,)), 80),  # a command list, or other arguments of a kernel
    ("shared", "i8", 175),  # address of the shared state
])

SYNC, PHASES = _offsets(SYNC_RECORD), _offsets(PHASES_RECORD, SYNC_RECORD.itemsize)
CLAIMS = SYNC_RECORD.itemsize + PHASES_RECORD.itemsize  # offset of the first chunk's line
WORKER, SHARED, PACE = _offsets(WORKER_RECORD), _offsets(SHARED_RECORD), _offsets(PACE_RECORD)
THREAD_CONTEXT = _offsets(THREAD_CONTEXT_RECORD, -THREAD_CONTEXT_RECORD.itemsize)
