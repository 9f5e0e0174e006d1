"""Every question to the operating system but those that kernels ask, which are in :mod:`fastnet.kernels.system`.

How much memory is free, what Ctrl-C does, which file another process has locked, what a terminal can show.
"""
from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fastnet.kernels.system import mac_number

# --- memory ---------------------------------------------------------------------------------------------------------

_UNKNOWN_MEMORY = 4e9  # bytes taken as free where no system that we know can be asked


def available_memory() -> float:
    """Bytes that this process can still use, within its control group."""
    if sys.platform == "darwin":
        found = _mac_memory()
    elif sys.platform == "win32":
        found = _windows_memory()
    else:
        found = _linux_memory()
    return max(0.0, min(found, default=_UNKNOWN_MEMORY))


def _linux_memory(meminfo: str = "/proc/meminfo", group: str = "/sys/fs/cgroup") -> list[float]:
    """What the machine has left, and what the control group allows (its second version, and its first)."""
    found = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        found.append(1024.0 * _number(meminfo, "MemAvailable:"))
    for limit, used, cached in ((f"{group}/memory.max", f"{group}/memory.current", "inactive_file"),
                                (f"{group}/memory/memory.limit_in_bytes", f"{group}/memory/memory.usage_in_bytes",
                                 "total_inactive_file")):
        with contextlib.suppress(OSError, ValueError, StopIteration):
            found.append(_number(limit) - _number(used) + _number(str(Path(limit).with_name("memory.stat")), cached))
            break
    return found


def _number(path: str, name: str = "") -> float:
    """A file's number, or the one that follows a name at the beginning of a line."""
    return next(float(line[len(name):].split()[0]) for line in Path(path).read_text().splitlines() if line.startswith(name))


def _mac_memory() -> list[float]:
    """Pages that are free or can be at once, as ``vm_stat`` counts them; half of the memory if it cannot be run."""
    with contextlib.suppress(OSError, subprocess.SubprocessError, AttributeError, KeyError):
        answer = subprocess.run(["/usr/bin/vm_stat"], capture_output=True, text=True, timeout=5, check=True).stdout
        return [_mac_pages(answer)]
    total = mac_number("hw.memsize")
    return [total / 2] if total else []


def _mac_pages(answer: str) -> float:
    counts = dict(re.findall(r"^Pages (free|inactive|speculative):\s+(\d+)\.", answer, re.MULTILINE))
    page = re.search(r"page size of (\d+) bytes", answer)
    assert page is not None, answer
    return int(page[1]) * float(sum(int(counts[kind]) for kind in ("free", "inactive", "speculative")))


class _MemoryStatus(ctypes.Structure):
    """Windows's MEMORYSTATUSEX."""

    _fields_ = (("length", ctypes.c_uint32), ("load", ctypes.c_uint32), ("total", ctypes.c_uint64),
                ("available", ctypes.c_uint64), ("total_commit", ctypes.c_uint64), ("available_commit", ctypes.c_uint64),
                ("total_virtual", ctypes.c_uint64), ("available_virtual", ctypes.c_uint64), ("extended", ctypes.c_uint64))


def _windows_memory() -> list[float]:
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    with contextlib.suppress(OSError, AttributeError):
        if ctypes.WinDLL("kernel32").GlobalMemoryStatusEx(ctypes.byref(status)):  # type: ignore[attr-defined, unused-ignore]
            return [float(min(status.available, status.available_commit))]
    return []


def peak_memory() -> float:
    """Bytes of memory that this process had at most until now; nan where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return _windows_peak_memory()
    unit = 1 if sys.platform == "darwin" else 1024
    return float(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _windows_peak_memory() -> float:
    counters = (ctypes.c_size_t * 10)()  # PROCESS_MEMORY_COUNTERS: two 32-bit numbers, the peak, and more
    with contextlib.suppress(OSError, AttributeError):
        kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined, unused-ignore]
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        process = ctypes.c_void_p(kernel.GetCurrentProcess())
        if kernel.K32GetProcessMemoryInfo(process, ctypes.byref(counters), ctypes.sizeof(counters)):
            return float(counters[1])
    return float("nan")


# --- Ctrl-C ---------------------------------------------------------------------------------------------------------


class Interrupt:
    """Ctrl-C, remembered until a call of this object: at a place where the caller's state is whole."""

    def __init__(self, handler: Callable[[int, Any], Any]) -> None:
        self.handler = handler  # of before; Python's own raises KeyboardInterrupt
        self.pressed = False
        self.waits = True

    def __call__(self) -> None:
        """Do now what Ctrl-C asked for, if it was pressed."""
        if self.pressed:
            self.pressed = False
            self.handler(signal.SIGINT, None)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """While the user's own code runs, nothing waits."""
        self()
        self.waits = False
        try:
            yield
        finally:
            self.waits = True

    def note(self, number: int, frame: Any) -> None:
        """The handler of the signal."""
        if self.waits:
            self.pressed = True
        else:
            self.handler(number, frame)


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Have Ctrl-C wait for calls of the object yielded, and for the end at the latest."""
    before = signal.getsignal(signal.SIGINT)
    interrupt = Interrupt(before if callable(before) else signal.default_int_handler)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield interrupt  # no signal comes here, or none that Python sees
        return
    signal.signal(signal.SIGINT, interrupt.note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
    interrupt()


# --- files ----------------------------------------------------------------------------------------------------------

_FAR_BYTE = 1 << 30  # Windows locks bytes, and then nobody can read them: one that no file of ours reaches


def lock_file(file: int) -> None:
    """Lock an open file for this process, until it is unlocked or closed.

    Raises
    ------
    OSError
        If another process has locked it: there is no waiting.
    """
    if os.name == "nt":
        import msvcrt

        os.lseek(file, _FAR_BYTE, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def unlock_file(file: int) -> None:
    """Unlock a file that `lock_file` locked, also for the processes made by fork that have it open."""
    if os.name == "nt":
        import msvcrt

        os.lseek(file, _FAR_BYTE, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_UN)


# --- terminals ------------------------------------------------------------------------------------------------------


def print_what_can_be_shown() -> None:
    """From now on what a terminal cannot show, such as a folder's name on one of plain ASCII, is shown as ``\\xe9``."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not where something else stands in for it
            stream.reconfigure(errors="backslashreplace")


_READER_LEFT = 128 + 13  # what a shell reports of a program that SIGPIPE ended


def until_reader_leaves(command: Callable[[], int]) -> int:
    """Run a command; end it without a traceback when nobody reads its output any more, as in ``fastnet doctor | head -1``.

    A broken pipe of anything else (a worker, a connection) is raised as it is.
    """
    try:
        try:
            return command()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        if not any(_has_no_reader(stream) for stream in (sys.stdout, sys.stderr)):
            raise
        return _READER_LEFT


def _has_no_reader(stream: Any) -> bool:
    """Whether a stream's pipe is broken; what its buffer holds then goes nowhere, also when Python flushes it at exit."""
    try:
        print(file=stream, flush=True)  # an empty line: only an attempt to write tells
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        return True
    return False
