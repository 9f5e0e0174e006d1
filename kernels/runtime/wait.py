"""How a thread waits for another one inside compiled code: it spins for a moment, then it sleeps in the kernel.

A thread that waits for a number in memory to grow looks at it for some tens of microseconds, which is how long a wait
among busy threads takes, and is woken within one. After that it asks the system to be put to sleep until somebody who
changed the number wakes it: on a machine whose cores are busy a waiting thread costs nothing, and comes back at once.
An idle thread uses no time at all.

The sleeping is Linux's futex, and on macOS and Windows what takes its place there. On other systems a thread naps for a
fraction of a millisecond at a time.
"""
import ctypes
import os
import platform
import sys
import time

import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.simd import address_of_copy, atomic_add, atomic_load, call_system, load_int, pause

# Places in `board` (int64), an array that lives as long as the process: who sleeps how, and for how long to spin
KIND, WAIT, WAKE, NUMBER, SPINS = 8, 9, 10, 11, 12
GET_CPU, GET_AFFINITY, SET_AFFINITY = 13, 14, 15
CLOCK, CLOCK_ID, CLOCK_TICK, THREAD_ID, REST = 24, 25, 26, 27, 28  # see `clock`, `thread_time` and `nap`
NAP, FUTEX, ULOCK, ON_ADDRESS = 0, 1, 2, 3  # values of KIND

SPIN_SECONDS = 80e-6  # about what it costs to put a thread to sleep and to wake it
_NAP_MICROSECONDS = 200
_LOW_BITS = 0xFFFFFFFF
_FUTEX_NUMBER = {"x86_64": 202, "amd64": 202, "aarch64": 98, "arm64": 98, "riscv64": 98, "loongarch64": 98, "ppc64le": 221}


@jit
def wait_until(board, word, target):
    """Wait until the int64 at address `word` is at least `target`; the one behind it counts who sleeps meanwhile.

    Returns whether the thread went to sleep.
    """
    spins, slept = load_int(board + 8 * SPINS), False
    while atomic_load(word) < target:
        if spins > 0:
            spins -= 1
            pause()
        else:
            slept = True
            atomic_add(word + 8, 1)
            seen = atomic_load(word)  # again, now that whoever changes it knows of us
            if seen < target:
                _sleep(board, word, seen)
            atomic_add(word + 8, -1)
    return slept


@jit
def wake(board, word):
    """Wake all that sleep until the number at `word` grows. It has grown before."""
    if atomic_load(word + 8) == 0:
        return
    kind, function = load_int(board + 8 * KIND), load_int(board + 8 * WAKE)
    if kind == FUTEX:
        call_system(function, load_int(board + 8 * NUMBER), word, 129, 0x7FFFFFFF, 0)  # FUTEX_WAKE | FUTEX_PRIVATE_FLAG
    elif kind == ULOCK:
        call_system(function, 0x1000101, word, 0, 0, 0)  # UL_COMPARE_AND_WAIT | ULF_WAKE_ALL | ULF_NO_ERRNO
    elif kind == ON_ADDRESS:
        call_system(function, word, 0, 0, 0, 0)


@jit
def _sleep(board, word, seen):
    """Sleep as long as the low half of the number at `word` is that of `seen`, or shorter."""
    kind, function = load_int(board + 8 * KIND), load_int(board + 8 * WAIT)
    if kind == FUTEX:
        call_system(function, load_int(board + 8 * NUMBER), word, 128, seen & _LOW_BITS, 0)  # FUTEX_WAIT, private
    elif kind == ULOCK:
        call_system(function, 0x1000001, word, seen & _LOW_BITS, 0, 0)  # UL_COMPARE_AND_WAIT | ULF_NO_ERRNO, no limit
    elif kind == ON_ADDRESS:
        call_system(function, word, address_of_copy(seen), 4, _LOW_BITS, 0)  # 4 bytes, for ever
    else:
        call_system(function, _NAP_MICROSECONDS, 0, 0, 0, 0)


@jit
def clock(board, room):
    """A time that only grows, in nanoseconds; 0 for ever where there is no such clock. Overwrites the 16 bytes at `room`."""
    function, number = load_int(board + 8 * CLOCK), load_int(board + 8 * CLOCK_ID)
    if function == 0:
        return 0
    if number < 0:
        call_system(function, room, 0, 0, 0, 0)
        return load_int(room) * load_int(board + 8 * CLOCK_TICK)
    call_system(function, number, room, 0, 0, 0)
    return load_int(room) * 1_000_000_000 + load_int(room + 8)


@jit
def thread_time(board, room):
    """How long the calling thread has been at work so far, in nanoseconds; 0 for ever where nobody counts that."""
    number = load_int(board + 8 * THREAD_ID)
    if number == 0:
        return 0
    call_system(load_int(board + 8 * CLOCK), number, room, 0, 0, 0)
    return load_int(room) * 1_000_000_000 + load_int(room + 8)


@jit
def nap(board):
    """Sleep for as short as the system can, some 50 microseconds on Linux; longer, if others want the core."""
    function = load_int(board + 8 * REST)
    if function != 0:
        call_system(function, 1, 0, 0, 0, 0)


@jit
def spin(times):
    """Pause so many times."""
    for _ in range(times):
        pause()


def set_up(board: np.ndarray) -> None:
    """Write into the board how threads of this system sleep, are woken, tell the time and are kept off a CPU."""
    board[KIND], board[WAIT], board[WAKE], board[NUMBER] = _sleeping()
    board[CLOCK:REST + 1] = _telling_time()
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        found = [getattr(library, name, None) for name in ("sched_getcpu", "sched_getaffinity", "sched_setaffinity")]
        if all(found):
            board[GET_CPU:SET_AFFINITY + 1] = [_address(function) for function in found]


def calibrate(board: np.ndarray) -> None:
    """Find out how many pauses `SPIN_SECONDS` are: on some CPUs one takes 5 ns, on others 50."""
    spin(1)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        spin(1000)
        best = min(best, time.perf_counter() - start)
    board[SPINS] = max(100, int(SPIN_SECONDS / best * 1000))


def _sleeping() -> tuple[int, int, int, int]:
    """What KIND, WAIT, WAKE and NUMBER are here."""
    number = _FUTEX_NUMBER.get(platform.machine().lower(), 0)
    if sys.byteorder == "little" and sys.maxsize > 2**32:
        if sys.platform == "linux" and number:
            syscall = _address(ctypes.CDLL(None).syscall)
            return FUTEX, syscall, syscall, number
        if sys.platform == "darwin":
            library = ctypes.CDLL(None)
            if hasattr(library, "__ulock_wait"):
                return ULOCK, _address(library.__ulock_wait), _address(library.__ulock_wake), 0
        if os.name == "nt":
            library = ctypes.WinDLL("api-ms-win-core-synch-l1-2-0")  # type: ignore[attr-defined, unused-ignore]
            return ON_ADDRESS, _address(library.WaitOnAddress), _address(library.WakeByAddressAll), 0
    return NAP, _address(ctypes.CDLL(None).usleep), 0, 0


def _telling_time() -> tuple[int, int, int, int, int]:
    """What CLOCK to REST are here; zeros if unknown."""
    if sys.maxsize <= 2**32:
        return 0, 0, 0, 0, 0
    if os.name == "nt":
        library, frequency = ctypes.WinDLL("kernel32"), ctypes.c_int64()  # type: ignore[attr-defined, unused-ignore]
        library.QueryPerformanceFrequency(ctypes.byref(frequency))
        ticks = max(1, 10**9 // max(1, frequency.value))
        return _address(library.QueryPerformanceCounter), -1, ticks, 0, _address(library.SwitchToThread)
    library = ctypes.CDLL(None)
    of_thread = getattr(time, "CLOCK_THREAD_CPUTIME_ID", 0)
    return _address(library.clock_gettime), time.CLOCK_MONOTONIC, 1, of_thread, _address(library.usleep)


def _address(function: object) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0  # type: ignore[arg-type]
