"""The most that a machine can do: the micro-kernel on operands that never leave the L1 cache, and a plain copy.

No twin in ``naive.py``: what these compute is of no use, and only their speed is looked at.
"""
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.simd import MR, NV, VECTOR_BYTES, copy_vector, lanes, micro_kernel, store

PANEL_K = 128  # panels of this length and one tile's size stay in the L1 cache
_PANEL_B, _PANEL_C = 1 << 15, 1 << 17  # where they lie in a thread's scratch, in bytes


@jit
def fma_peak(thread, threads, sync, scratch, repeats, zero):
    """2 MR NV LANES PANEL_K multiplications and additions, `repeats` times on every thread.

    The type of `zero` is that of the elements. Overwrites `scratch`, with ones where it is read.
    """
    width = lanes(zero)
    panel_b, c = scratch + _PANEL_B, scratch + _PANEL_C
    for byte in range(0, _PANEL_C, VECTOR_BYTES // width):
        store(scratch + byte, zero + 1)
    for _ in range(repeats):
        micro_kernel(MR, NV, scratch, PANEL_K, 1, panel_b, width, (PANEL_K + 1) * width, c, NV * width, width, width,
                     PANEL_K, zero + 1, zero, 0, 0)


@jit
def copy(thread, threads, sync, scratch, to, source, vectors, repeats, zero):
    """Copy `vectors` vectors from one address to another, each thread its range of them, `repeats` times."""
    for _ in range(repeats):
        for vector in range(vectors * thread // threads, vectors * (thread + 1) // threads):
            copy_vector(to + vector * VECTOR_BYTES, source + vector * VECTOR_BYTES, zero)
