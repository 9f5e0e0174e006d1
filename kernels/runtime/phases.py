"""Work stealing: phases divided into chunks that threads claim, and yielding on an oversubscribed machine.

A *phase* is the work between two barriers. It is divided into chunks ("pieces" in the names below), whose number is fixed
for the phase, and any thread may claim any chunk. The result depends neither on which thread that is nor on the number of
chunks. A phase ends when its chunks are done, not when all threads have arrived: a thread that the system has preempted
without a chunk delays no other thread. The others do its share, and when it runs again it continues at the current phase.

On a quiet machine there is one chunk per thread, and each thread claims its own, whose data are in its cache. If threads
had to wait, twice in succession, so long that others must have lost their cores, the machine is *oversubscribed*
(CROWDED) for the next 30 ms, and longer if that continues. Then chunks are a quarter as large, and a thread yields its
core between two chunks after a few milliseconds of work. Otherwise the system would preempt it within a chunk, for which
all other threads would wait.

`sync` is the address of a call's int64 values: PHASE holds twice the number of the phase, plus 1 if its chunks are small;
the line of chunk i holds one more than the number of the last phase in which it was claimed.
"""
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.runtime.wait import SPINS, clock, nap, thread_time, wait_until, wake
from fastnet.kernels.simd import atomic_add, atomic_load, compare_exchange, load_int, pause, store_int

# In the shared state, in nanoseconds: the time until which the machine counts as oversubscribed, or 0; and the last time at
# which a thread had to wait so long for another that this one must have lost its core
CROWDED, _LAST_LATE = 3, 29
PHASE, _DONE, _CLAIMS, _LINE = 64, 66, 80, 16  # indices in `sync`; the value after PHASE counts sleeping threads
SMALL = 4  # small chunks per large chunk

# Private to a thread, int64: two values for the clock, the time since which it has had its core, the time after which it
# yields, and its idle time so far
_START, _STRIDE, _IDLE = 2, 3, 4
_LATE = 700_000  # nanoseconds of waiting that show that another thread has lost its core
_SOON = 50_000_000  # two such waits within this time show that the machine is oversubscribed
_CROWDED_FOR = 30_000_000
_LEAST_STRIDE, _USUAL_STRIDE, _MOST_STRIDE = 500_000, 3_000_000, 12_000_000  # Linux takes a core away after 4 ms or less
_TAKEN = 200_000  # nanoseconds by which a thread returns late from yielding if another thread had the core


def sync_size(threads: int) -> int:
    """Return the number of values in the `sync` of a call."""
    return _CLAIMS + _LINE * SMALL * threads


@jit
def begin(board, sync, threads):
    """Reset a used sync for a call, before any thread enters it."""
    store_int(sync + 8 * PHASE, 1 if load_int(board + 8 * CROWDED) > 0 else 0)
    store_int(sync + 8 * _DONE, 0)
    for piece in range(SMALL * threads):
        store_int(sync + 8 * (_CLAIMS + _LINE * piece), 0)


@jit
def pieces_in(phase, threads):
    """Return the number of chunks of a phase."""
    return threads * SMALL if phase & 1 else threads


@jit
def claim_own(sync, thread, phase):
    """Claim the own chunk of a thread in a phase of large chunks; return whether it was free."""
    return _claim(sync, thread, (phase >> 1) + 1)


@jit
def claim_any(sync, thread, threads, phase):
    """Claim a free chunk: one of the thread's own first, then from the end. Return its number, or -1."""
    pieces, number = pieces_in(phase, threads), (phase >> 1) + 1
    each = pieces // threads
    for piece in range(thread * each, (thread + 1) * each):
        if _claim(sync, piece, number):
            return piece
    for piece in range(pieces - 1, -1, -1):
        if _claim(sync, piece, number):
            return piece
    return -1


@jit
def _claim(sync, piece, number):
    at = sync + 8 * (_CLAIMS + _LINE * piece)
    before = atomic_load(at)
    return before < number and compare_exchange(at, before, number)


@jit
def finish(board, sync, threads, phase):
    """Count a chunk as done; after the last one of a phase, start the next phase."""
    if atomic_add(sync + 8 * _DONE, 1) + 1 < pieces_in(phase, threads):
        return
    store_int(sync + 8 * _DONE, 0)
    small = 1 if load_int(board + 8 * CROWDED) > 0 else 0
    atomic_add(sync + 8 * PHASE, 2 - (phase & 1) + small)
    wake(board, sync + 8 * PHASE)


@jit
def next_begins_soon(board, sync, phase):
    """Spin for a moment, and return whether the next phase has started."""
    target = (phase | 1) + 1
    for _ in range(load_int(board + 8 * SPINS) // 4):
        if atomic_load(sync + 8 * PHASE) >= target:
            return True
        pause()
    return False


@jit
def wait_for_next(board, sync, phase, pace):
    """Wait for the next phase, and detect an oversubscribed machine by the time that this takes."""
    target = (phase | 1) + 1
    before = clock(board, pace)
    if not wait_until(board, sync + 8 * PHASE, target):
        return
    now = clock(board, pace)
    if now - before > _LATE:
        if now - load_int(board + 8 * _LAST_LATE) < _SOON:
            store_int(board + 8 * CROWDED, now + _CROWDED_FOR)
        store_int(board + 8 * _LAST_LATE, now)
    if load_int(board + 8 * CROWDED) > 0:
        woken(board, pace)


@jit
def woken(board, pace):
    """Record that the thread has just slept, on an oversubscribed machine, and has its core again."""
    now = clock(board, pace)
    store_int(pace + 8 * _START, now)
    store_int(pace + 8 * _IDLE, now - thread_time(board, pace))


@jit
def give_way(board, pace):
    """Yield the core between two chunks on an oversubscribed machine, if it is time to.

    The longer a thread works without yielding, the likelier the system preempts it within a chunk. After that it yields
    sooner. If it got the core back at once, no other thread wanted it, and it yields later the next time.
    """
    now = clock(board, pace)
    if now > load_int(board + 8 * CROWDED):
        store_int(board + 8 * CROWDED, 0)
        return
    idle = now - thread_time(board, pace)
    stride = max(_LEAST_STRIDE, load_int(pace + 8 * _STRIDE))
    if idle - load_int(pace + 8 * _IDLE) > _TAKEN:  # it lost its core, and has it again
        store_int(board + 8 * CROWDED, now + _CROWDED_FOR)
        store_int(pace + 8 * _STRIDE, max(_LEAST_STRIDE, min(_USUAL_STRIDE, stride) * 3 // 4))
        store_int(pace + 8 * _START, now)
    elif now - load_int(pace + 8 * _START) > stride:
        nap(board)
        back = clock(board, pace)
        store_int(pace + 8 * _START, back)
        if back - now > _TAKEN:
            store_int(board + 8 * CROWDED, back + _CROWDED_FOR)
            store_int(pace + 8 * _STRIDE, min(_USUAL_STRIDE, stride * 9 // 8))
        else:
            store_int(pace + 8 * _STRIDE, min(_MOST_STRIDE, 2 * stride))
        idle = back - thread_time(board, pace)
    store_int(pace + 8 * _IDLE, idle)
