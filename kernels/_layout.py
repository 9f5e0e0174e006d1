"""The one memory layout that the element-wise kernels are compiled for.

Numba compiles a kernel anew for every combination of layouts and of read-only arrays. A copy of the rare odd array costs
less than a second compiled version of each kernel, at compile time and in the cache.
"""
import numpy as np


def plain(a: np.ndarray) -> np.ndarray:
    """``a`` itself if it is C-contiguous, aligned and writable, otherwise a copy that is."""
    return a if a.flags.carray else np.array(a, order="C")


def flat(a: np.ndarray) -> np.ndarray:
    """One-dimensional view of the C-contiguous ``a``: what is written to it is written to ``a``."""
    if not a.flags.c_contiguous:  # reshape would copy, and the kernel's result would be lost without a word
        raise ValueError(f"a kernel writes to C-contiguous arrays only, got strides {a.strides} for shape {a.shape}")
    return a.reshape(-1)
