"""Work that several threads share in pieces: phases, claims, and how a thread gives way on a machine that others keep busy.

A *phase* is what lies between two places where all threads must meet. It is cut into pieces, a fixed number of them while it
lasts, and a piece is done by whoever claims it; what is computed does not depend on who that is, nor on the number. A phase
is over when its pieces are done, not when all threads have come: a thread that the system has put aside without a piece in
its hands keeps nobody waiting. The others do its share, and once it is back it goes on wherever they are by then.

On a quiet machine there is a piece for each thread, and each takes its own, whose data are in its cache. Where threads have
waited so long that others must have lost their cores, twice in a row, the machine is *crowded* for the next 30 ms, and as
long as it goes on: pieces are a quarter as large, and after some milliseconds of work a thread rests for a moment, between
two pieces. Others get the core then, as fairness demands, rather than by force in the middle of a piece for which all others
would have to wait.

`sync` here is the address of a call's int64 values: PHASE holds twice the number of the phase, and 1 more if its pieces are
small; the line of piece i holds the number after that of the last phase in which it was claimed.
"""
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.runtime.wait import SPINS, clock, nap, thread_time, wait_until, wake
from fastnet.kernels.simd import atomic_add, atomic_load, compare_exchange, load_int, pause, store_int

# On the board, in nanoseconds: until when the machine is taken to be crowded, or 0; and when a thread was last waited for so
# long that it must have lost its core
CROWDED, _LAST_LATE = 3, 29
PHASE, _DONE, _CLAIMS, _LINE = 64, 66, 80, 16  # places in `sync`; the one behind PHASE counts who sleeps
SMALL = 4  # small pieces for each of a phase's pieces

# A thread's own, int64: two for the clock, since when it has had its core, after how long it rests, and for how long it has
# not been at work so far
_START, _STRIDE, _IDLE = 2, 3, 4
_LATE = 700_000  # nanoseconds of waiting that say that another thread has lost its core
_SOON = 50_000_000  # a second time so late within this says that it was no accident
_CROWDED_FOR = 30_000_000
_LEAST_STRIDE, _USUAL_STRIDE, _MOST_STRIDE = 500_000, 3_000_000, 12_000_000  # Linux takes a core away after 4 ms or less
_TAKEN = 200_000  # a rest of which this much comes back late: another had the core


def sync_size(threads: int) -> int:
    """Places in the `sync` of a call that works in pieces."""
    return _CLAIMS + _LINE * SMALL * threads


@jit
def begin(board, sync, threads):
    """Prepare a sync that was used before for a call, before any thread enters it."""
    store_int(sync + 8 * PHASE, 1 if load_int(board + 8 * CROWDED) > 0 else 0)
    store_int(sync + 8 * _DONE, 0)
    for piece in range(SMALL * threads):
        store_int(sync + 8 * (_CLAIMS + _LINE * piece), 0)


@jit
def pieces_in(phase, threads):
    """Into how many pieces a phase is cut."""
    return threads * SMALL if phase & 1 else threads


@jit
def claim_own(sync, thread, phase):
    """Claim the piece of a thread, of a phase of large pieces; whether nobody has had it."""
    return _claim(sync, thread, (phase >> 1) + 1)


@jit
def claim_any(sync, thread, threads, phase):
    """Claim a piece that nobody has: the thread's own first, then from the end. Returns its number, or -1."""
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
    """Say that a piece is done; if it was the phase's last, the next phase begins."""
    if atomic_add(sync + 8 * _DONE, 1) + 1 < pieces_in(phase, threads):
        return
    store_int(sync + 8 * _DONE, 0)
    small = 1 if load_int(board + 8 * CROWDED) > 0 else 0
    atomic_add(sync + 8 * PHASE, 2 - (phase & 1) + small)
    wake(board, sync + 8 * PHASE)


@jit
def next_begins_soon(board, sync, phase):
    """Look for a moment whether the next phase begins."""
    target = (phase | 1) + 1
    for _ in range(load_int(board + 8 * SPINS) // 4):
        if atomic_load(sync + 8 * PHASE) >= target:
            return True
        pause()
    return False


@jit
def wait_for_next(board, sync, phase, pace):
    """Wait for the next phase, and notice how long that takes."""
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
    """Note that the thread has just slept, on a crowded machine: it has its core anew."""
    now = clock(board, pace)
    store_int(pace + 8 * _START, now)
    store_int(pace + 8 * _IDLE, now - thread_time(board, pace))


@jit
def give_way(board, pace):
    """Between two pieces on a crowded machine: rest, if it is time to.

    The longer a thread works without a rest, the likelier it is to lose its core in the middle of a piece. If it did, it
    rests sooner from now on; if a rest was short, nobody wants the core, and the next one is later.
    """
    now = clock(board, pace)
    if now > load_int(board + 8 * CROWDED):
        store_int(board + 8 * CROWDED, 0)
        return
    idle = now - thread_time(board, pace)
    stride = max(_LEAST_STRIDE, load_int(pace + 8 * _STRIDE))
    if idle - load_int(pace + 8 * _IDLE) > _TAKEN:  # it lost its core, and has it anew
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
