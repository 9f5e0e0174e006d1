"""The one memory layout that the element-wise kernels are compiled for.

Numba compiles a kernel anew for every combination of layouts and of read-only arrays. A copy of the rare odd array costs
less than a second compiled version of each kernel, at compile time and in the cache.
"""
from collections.abc import Callable
from typing import Any

import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.simd import pointer_at
from numba import carray, from_dtype, types


def plain(a: np.ndarray) -> np.ndarray:
    """``a`` itself if it is C-contiguous, aligned and writable, otherwise a copy that is."""
    return a if a.flags.carray else np.array(a, order="C")


def flat(a: np.ndarray) -> np.ndarray:
    """One-dimensional view of the C-contiguous ``a``: what is written to it is written to ``a``."""
    if not a.flags.c_contiguous:  # reshape would copy, and the kernel's result would be lost without a word
        raise ValueError(f"a kernel writes to C-contiguous arrays only, got strides {a.strides} for shape {a.shape}")
    return a.reshape(-1)


def for_dtypes(signature: Callable[[Any], tuple]) -> Callable[[Callable], Any]:
    """Decorator: compile a function for the argument types that `signature` gives for a float type, and for no others.

    Called with other arguments it raises TypeError, as it does before `make_ready` has compiled it: Numba's dispatcher,
    which has to look at the types of all arguments anyway, so checks their dtype, layout and number of dimensions.
    """

    def decorate(function: Callable) -> Any:
        kernel = jit(function)
        kernel._can_compile = False
        kernel.signature_for = signature
        return kernel

    return decorate


def make_ready(entry: Any, dtype: np.dtype) -> None:
    """Compile a function of `for_dtypes` for a dtype, unless that has been done."""
    entry.prepare(entry.signature_for(from_dtype(dtype)))


def elements(written: int, read: int, constants: int = 0) -> Callable[[Any], tuple]:
    """Signature for `for_dtypes`: matrices of any layout that are written, then some that are read, then float64 numbers."""

    def signature(t: Any) -> tuple:
        return (*[types.Array(t, 2, "A")] * written, *[types.Array(t, 2, "A", readonly=True)] * read,
                *[types.float64] * constants)

    return signature


@jit
def by_rows(a):
    """Whether a matrix's elements follow each other row by row."""
    return (a.shape[0] == 1 or a.strides[0] == a.shape[1] * a.itemsize) and (a.shape[1] == 1 or a.strides[1] == a.itemsize)


@jit
def line(a):
    """The elements of a matrix row by row, as an array that shares its memory if they are `by_rows`, otherwise a copy."""
    if by_rows(a):
        return carray(pointer_at(a.ctypes.data, a.dtype.type(0)), (a.size,))
    return a.copy().reshape(-1)


def matrices(written: int, read: int) -> Callable[[Any], tuple]:
    """Signature for `for_dtypes`: so many C-contiguous matrices that are written, then some that are read."""

    def signature(t: Any) -> tuple:
        return (*[types.Array(t, 2, "C")] * written, *[types.Array(t, 2, "C", readonly=True)] * read)

    return signature
