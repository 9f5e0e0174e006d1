"""What one call of a benchmark needs: allocated bytes, the peak of the process, instructions. Stands alone, as the probe.

Each meter takes a function without arguments, calls it, and returns a number, or None where this machine cannot tell.
"""
import ctypes
import gc
import os
import platform
import struct
import sys
import tracemalloc
from pathlib import Path


def allocated(work):
    """Bytes: the peak of what one call had allocated through Python's allocators, NumPy's arrays included."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def process(work):
    """Bytes: the peak of the process's resident memory during one call. Only Linux can start that peak anew."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        work()
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    except (OSError, StopIteration):
        return None


def instructions(work, calls=5):
    """User-space instructions of one call on its thread, the fewest of a few: the kernel's counter, as `perf` reads it.

    None where there is no counter, or one that stands still, as some virtual machines have it.
    """
    counter = _open_counter()
    if counter is None:
        return None
    counts = []
    try:
        for _ in range(calls):
            before = struct.unpack("q", os.read(counter, 8))[0]
            work()
            counts.append(struct.unpack("q", os.read(counter, 8))[0] - before)
    finally:
        os.close(counter)
    return min(counts) or None


def _open_counter():
    """A file descriptor of perf_event_open(2): retired instructions of this thread, kernel and hypervisor left out."""
    number = {"x86_64": 298, "aarch64": 241}.get(platform.machine())
    if not sys.platform.startswith("linux") or number is None:
        return None
    attributes = ctypes.create_string_buffer(128)
    struct.pack_into("IIQQQQQ", attributes, 0, 0, 128, 1, 0, 0, 0, 1 << 5 | 1 << 6)  # hardware, size, instructions; flags
    this_thread, any_core, no_group, no_flags = map(ctypes.c_long, (0, -1, -1, 0))
    counter = ctypes.CDLL(None).syscall(ctypes.c_long(number), attributes, this_thread, any_core, no_group, no_flags)
    return counter if counter >= 0 else None


METERS = {"allocated": allocated, "process": process, "instructions": instructions}
