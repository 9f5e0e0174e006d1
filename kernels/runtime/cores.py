"""Cores: how many threads a process starts with, and which CPUs the system may run a worker on."""
import os

from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.runtime.state import MASK_BYTES, MOST_THREADS, SHARED, WORKER
from fastnet.kernels.simd import call_system, load_int, store_int
from fastnet.kernels.system import available_cores


def threads_at_start() -> int:
    """Return the number of threads that the environment sets, or else that of the cores."""
    text = os.environ.get("FASTNET_NUM_THREADS", "").strip()
    if not text:
        return available_cores()
    if not text.isdecimal() or not 1 <= int(text) <= MOST_THREADS:
        raise ValueError(f"FASTNET_NUM_THREADS is {text!r}: expected a whole number between 1 and {MOST_THREADS}.")
    return int(text)


@jit
def keep_off(shared, worker, cpu):
    """Keep a worker off the CPU of the calling thread.

    On a machine of two cores Linux may wake a worker on the calling thread's CPU and keep it there for 0.1 s while the other
    CPU is idle, after another library's threads (for instance those of a NumPy product) ran on that one. Products were then
    2 times slower.
    """
    mask = shared + SHARED.mask
    store_int(worker + WORKER.avoids, cpu)
    if cpu >= 8 * MASK_BYTES or call_system(load_int(shared + SHARED.get_affinity), 0, MASK_BYTES, mask, 0, 0) != 0:
        return
    word = mask + 8 * (cpu // 64)
    store_int(word, load_int(word) & ~(1 << (cpu % 64)))
    for i in range(MASK_BYTES // 8):
        if load_int(mask + 8 * i) != 0:  # other CPUs remain
            call_system(load_int(shared + SHARED.set_affinity), load_int(worker + WORKER.id), MASK_BYTES, mask, 0, 0)
            return
