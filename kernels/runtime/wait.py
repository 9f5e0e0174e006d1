"""Waiting for another thread in compiled code: a thread spins for a moment, and then sleeps in the operating system.

A thread that waits for a number in memory to grow spins for less than 100 us, about the time of a wait among running
threads, and continues within a microsecond. Then it sleeps until the thread that changes the number wakes it, so that a
waiting thread uses no processor time on a busy machine, and an idle thread uses none at all.

It sleeps by futex on Linux, and by its counterparts on macOS and Windows. On other systems it sleeps for a fraction of a
millisecond at a time.
"""
import ctypes
import os
import platform
import sys
import time

import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.simd import address_of_copy, atomic_add, atomic_load, call_system, load_int, pause, store_int

# Indices in `board`, the shared state (int64), an array that lives as long as the process: how to sleep, how long to spin
KIND, WAIT, WAKE, NUMBER, SPINS = 8, 9, 10, 11, 12
GET_CPU, GET_AFFINITY, SET_AFFINITY = 13, 14, 15
CLOCK, CLOCK_ID, CLOCK_TICK, THREAD_ID, REST = 24, 25, 26, 27, 28  # see `clock`, `thread_time` and `nap`
NAP, FUTEX, ULOCK, ON_ADDRESS = 0, 1, 2, 3  # values of KIND

_SPIN_TIME = 80_000  # nanoseconds: about the time of putting a thread to sleep and waking it
_SPINS = 2000  # until `calibrate` has measured, and where there is no clock
_NAP_MICROSECONDS = 200
_LOW_BITS = 0xFFFFFFFF
_FUTEX_NUMBER = {"x86_64": 202, "amd64": 202, "aarch64": 98, "arm64": 98, "riscv64": 98, "loongarch64": 98, "ppc64le": 221}


@jit
def wait_until(board, word, target):
    """Wait until the int64 at address `word` is at least `target`; the next int64 counts the sleeping threads.

    Returns whether the thread slept.
    """
    spins, slept = load_int(board + 8 * SPINS), False
    while atomic_load(word) < target:
        if spins > 0:
            spins -= 1
            pause()
        else:
            slept = True
            atomic_add(word + 8, 1)
            seen = atomic_load(word)  # again, now that the thread that changes it sees the count
            if seen < target:
                _sleep(board, word, seen)
            atomic_add(word + 8, -1)
    return slept


@jit
def wake(board, word):
    """Wake all threads that sleep until the number at `word` grows; it has already grown."""
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
    """Sleep at most as long as the low half of the number at `word` equals that of `seen`."""
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
    """Return a monotonic time in nanoseconds, always 0 without such a clock. It overwrites the 16 bytes at `room`."""
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
    """Return the CPU time of the calling thread in nanoseconds, always 0 if the system does not count it."""
    number = load_int(board + 8 * THREAD_ID)
    if number == 0:
        return 0
    call_system(load_int(board + 8 * CLOCK), number, room, 0, 0, 0)
    return load_int(room) * 1_000_000_000 + load_int(room + 8)


@jit
def nap(board):
    """Yield the core: sleep for the shortest time, about 50 us on Linux, or longer if other threads want the core."""
    function = load_int(board + 8 * REST)
    if function != 0:
        call_system(function, 1, 0, 0, 0, 0)


@jit
def calibrate(board, room):
    """Measure how many pause instructions take `_SPIN_TIME`: one takes 5 ns on some CPUs, 50 ns on others."""
    best = 1 << 40
    for _ in range(3):
        start = clock(board, room)
        for _ in range(1000):
            pause()
        best = min(best, clock(board, room) - start)
    if best > 0:
        store_int(board + 8 * SPINS, _SPIN_TIME * 1000 // best)


def set_up(board: np.ndarray) -> None:
    """Write this system's functions for sleeping, waking, the time and affinity into the shared state."""
    board[KIND], board[WAIT], board[WAKE], board[NUMBER] = _sleeping()
    board[CLOCK:REST + 1] = _telling_time()
    board[SPINS] = _SPINS
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        found = [getattr(library, name, None) for name in ("sched_getcpu", "sched_getaffinity", "sched_setaffinity")]
        if all(found):
            board[GET_CPU:SET_AFFINITY + 1] = [_address(function) for function in found]


def _sleeping() -> tuple[int, int, int, int]:
    """Return KIND, WAIT, WAKE and NUMBER of this system."""
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
    """Return CLOCK to REST of this system; zeros if they are unknown."""
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
