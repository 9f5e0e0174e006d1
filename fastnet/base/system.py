"""All calls to the operating system except those for kernels, which are in :mod:`fastnet.kernels.system`.

The module covers free memory, Ctrl-C, locks on files, and the terminal.
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

_UNKNOWN_MEMORY = 4e9  # bytes that fastnet assumes on a system that does not state its free memory


def available_memory() -> float:
    """Return the bytes of memory that this process can still use, within its control group."""
    if sys.platform == "darwin":
        found = _mac_memory()
    elif sys.platform == "win32":
        found = _windows_memory()
    else:
        found = _linux_memory()
    return max(0.0, min(found, default=_UNKNOWN_MEMORY))


def _linux_memory(meminfo: str = "/proc/meminfo", group: str = "/sys/fs/cgroup") -> list[float]:
    """Return the free memory of the machine, and that of the control group (version 2 or 1)."""
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
    """Return a file's number, or the one that follows a name at the beginning of a line."""
    return next(float(line[len(name):].split()[0]) for line in Path(path).read_text().splitlines() if line.startswith(name))


def _mac_memory() -> list[float]:
    """Return the memory in pages that are free or can be freed at once, by ``vm_stat``; half of all memory without it."""
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
    """Return the largest number of bytes that this process has used so far; nan if the system does not state it."""
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
    """A Ctrl-C that is deferred until a call of this object, at a point where the caller's state is consistent."""

    def __init__(self, handler: Callable[[int, Any], Any]) -> None:
        self.handler = handler  # the previous one; Python's own raises KeyboardInterrupt
        self.pressed = False
        self.waits = True

    def __call__(self) -> None:
        """Call the previous handler now if Ctrl-C was pressed."""
        if self.pressed:
            self.pressed = False
            self.handler(signal.SIGINT, None)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Do not defer Ctrl-C while the user's code runs."""
        self()
        self.waits = False
        try:
            yield
        finally:
            self.waits = True

    def note(self, number: int, frame: Any) -> None:
        """Handle the signal."""
        if self.waits:
            self.pressed = True
        else:
            self.handler(number, frame)


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Defer Ctrl-C until a call of the yielded object, or until the end."""
    before = signal.getsignal(signal.SIGINT)
    interrupt = Interrupt(before if callable(before) else signal.default_int_handler)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield interrupt  # this thread gets no signals, or Python does not handle this one
        return
    signal.signal(signal.SIGINT, interrupt.note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
    interrupt()


# --- files ----------------------------------------------------------------------------------------------------------

_FAR_BYTE = 1 << 30  # Windows locks a byte, which then cannot be read: this one is beyond the end of fastnet's files


def lock_file(file: int) -> None:
    """Lock an open file for this process, until it is unlocked or closed.

    Raises
    ------
    OSError
        If another process has locked it; the function does not wait.
    """
    if os.name == "nt":
        import msvcrt

        os.lseek(file, _FAR_BYTE, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def unlock_file(file: int) -> None:
    """Unlock a file that `lock_file` locked, also for forked processes that have it open."""
    if os.name == "nt":
        import msvcrt

        os.lseek(file, _FAR_BYTE, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_UN)


# --- terminals ------------------------------------------------------------------------------------------------------


def print_what_can_be_shown() -> None:
    """Print characters that the terminal cannot show, for instance in a folder's name, as escapes such as ``\\xe9``."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a replaced stream may not have it
            stream.reconfigure(errors="backslashreplace")


_READER_LEFT = 128 + 13  # the exit code of a program that SIGPIPE ended, as a shell reports it


def until_reader_leaves(command: Callable[[], int]) -> int:
    """Run a command; end it without a traceback when the reader of its output has ended, as in ``fastnet doctor | head -1``.

    It passes on errors of other broken pipes (of a worker, of a connection).
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
    """Return whether a stream's pipe is broken; then discard its buffer, which Python would flush at exit."""
    try:
        print(file=stream, flush=True)  # an empty line, since only a write shows it
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        return True
    return False
