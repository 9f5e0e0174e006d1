"""Work stealing: phases divided into chunks that threads claim, and yielding on an oversubscribed machine.

A *phase* is the work between two barriers. It is divided into chunks, whose number is fixed
for the phase, and any thread may claim any chunk. The result depends neither on which thread that is nor on the number of
chunks. A phase ends when its chunks are done, not when all threads have arrived: a thread that the system has preempted
without a chunk delays no other thread. The others do its share, and when it runs again it continues at the current phase.

On a quiet machine there is one chunk per thread, and each thread claims its own, whose data are in its cache. If threads
had to wait, twice in succession, so long that others must have lost their cores, the machine is *oversubscribed*
(`crowded_until`) for the next 30 ms, and longer if that continues. Then chunks are a quarter as large, and a thread yields
its core between two chunks after a few milliseconds of work. Otherwise the system would preempt it within a chunk, for
which all other threads would wait.

`sync` is the address of a call's `state.SYNC_RECORD`, with the fields of `PHASES` and a line for each chunk behind it.
"""
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.runtime.state import CLAIM_BYTES, CLAIMS, PACE, PHASES, SHARED
from fastnet.kernels.runtime.wait import clock, nap, thread_time, wait_until, wake
from fastnet.kernels.simd import atomic_add, atomic_load, compare_exchange, load_int, pause, store_int

SMALL = 4  # small chunks per large chunk

_LATE = 700_000  # nanoseconds of waiting that show that another thread has lost its core
_SOON = 50_000_000  # two such waits within this time show that the machine is oversubscribed
_CROWDED_FOR = 30_000_000
_LEAST_STRIDE, _USUAL_STRIDE, _MOST_STRIDE = 500_000, 3_000_000, 12_000_000  # Linux takes a core away after 4 ms or less
_TAKEN = 200_000  # nanoseconds by which a thread returns late from yielding if another thread had the core


def sync_bytes(threads: int) -> int:
    """Return the size of the `sync` of a call."""
    return CLAIMS + CLAIM_BYTES * SMALL * threads


@jit
def begin(shared, sync, threads):
    """Reset a used sync for a call, before any thread enters it."""
    store_int(sync + PHASES.phase, 1 if load_int(shared + SHARED.crowded_until) > 0 else 0)
    store_int(sync + PHASES.done, 0)
    for chunk in range(SMALL * threads):
        store_int(sync + CLAIMS + CLAIM_BYTES * chunk, 0)


@jit
def chunks_in(phase, threads):
    """Return the number of chunks of a phase."""
    return threads * SMALL if phase & 1 else threads


@jit
def claim_own(sync, thread, phase):
    """Claim the own chunk of a thread in a phase of large chunks; return whether it was free."""
    return _claim(sync, thread, (phase >> 1) + 1)


@jit
def claim_any(sync, thread, threads, phase):
    """Claim a free chunk: one of the thread's own first, then from the end. Return its number, or -1."""
    chunks, number = chunks_in(phase, threads), (phase >> 1) + 1
    each = chunks // threads
    for chunk in range(thread * each, (thread + 1) * each):
        if _claim(sync, chunk, number):
            return chunk
    for chunk in range(chunks - 1, -1, -1):
        if _claim(sync, chunk, number):
            return chunk
    return -1


@jit
def _claim(sync, chunk, number):
    at = sync + CLAIMS + CLAIM_BYTES * chunk
    before = atomic_load(at)
    return before < number and compare_exchange(at, before, number)


@jit
def finish(shared, sync, threads, phase):
    """Count a chunk as done; after the last one of a phase, start the next phase."""
    if atomic_add(sync + PHASES.done, 1) + 1 < chunks_in(phase, threads):
        return
    store_int(sync + PHASES.done, 0)
    small = 1 if load_int(shared + SHARED.crowded_until) > 0 else 0
    atomic_add(sync + PHASES.phase, 2 - (phase & 1) + small)
    wake(shared, sync + PHASES.phase)


@jit
def next_begins_soon(shared, sync, phase):
    """Spin for a moment, and return whether the next phase has started."""
    target = (phase | 1) + 1
    for _ in range(load_int(shared + SHARED.spins) // 4):
        if atomic_load(sync + PHASES.phase) >= target:
            return True
        pause()
    return False


@jit
def wait_for_next(shared, sync, phase, pace):
    """Wait for the next phase, and detect an oversubscribed machine by the time that this takes."""
    target = (phase | 1) + 1
    before = clock(shared, pace)
    if not wait_until(shared, sync + PHASES.phase, target):
        return
    now = clock(shared, pace)
    if now - before > _LATE:
        if now - load_int(shared + SHARED.last_late) < _SOON:
            store_int(shared + SHARED.crowded_until, now + _CROWDED_FOR)
        store_int(shared + SHARED.last_late, now)
    if load_int(shared + SHARED.crowded_until) > 0:
        woken(shared, pace)


@jit
def woken(shared, pace):
    """Record that the thread has just slept, on an oversubscribed machine, and has its core again."""
    now = clock(shared, pace)
    store_int(pace + PACE.started, now)
    store_int(pace + PACE.idle, now - thread_time(shared, pace))


@jit
def yield_core(shared, pace):
    """Yield the core between two chunks on an oversubscribed machine, if it is time to.

    The longer a thread works without yielding, the likelier the system preempts it within a chunk. After that it yields
    sooner. If it got the core back at once, no other thread wanted it, and it yields later the next time.
    """
    now = clock(shared, pace)
    if now > load_int(shared + SHARED.crowded_until):
        store_int(shared + SHARED.crowded_until, 0)
        return
    idle = now - thread_time(shared, pace)
    stride = max(_LEAST_STRIDE, load_int(pace + PACE.stride))
    if idle - load_int(pace + PACE.idle) > _TAKEN:  # it lost its core, and has it again
        store_int(shared + SHARED.crowded_until, now + _CROWDED_FOR)
        store_int(pace + PACE.stride, max(_LEAST_STRIDE, min(_USUAL_STRIDE, stride) * 3 // 4))
        store_int(pace + PACE.started, now)
    elif now - load_int(pace + PACE.started) > stride:
        nap(shared)
        back = clock(shared, pace)
        store_int(pace + PACE.started, back)
        if back - now > _TAKEN:
            store_int(shared + SHARED.crowded_until, back + _CROWDED_FOR)
            store_int(pace + PACE.stride, min(_USUAL_STRIDE, stride * 9 // 8))
        else:
            store_int(pace + PACE.stride, min(_MOST_STRIDE, 2 * stride))
        idle = back - thread_time(shared, pace)
    store_int(pace + PACE.idle, idle)
