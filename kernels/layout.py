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
from numba.extending import overload


def plain(a: np.ndarray) -> np.ndarray:
    """``a`` itself if it is C-contiguous, aligned and writable, otherwise a copy that is."""
    return a if a.flags.carray else np.array(a, order="C")


def flat(a: np.ndarray) -> np.ndarray:
    """One-dimensional view of the C-contiguous ``a``: what is written to it is written to ``a``."""
    if not a.flags.c_contiguous:  # reshape would copy, and the kernel's result would be lost without a word
        raise ValueError(f"a kernel writes to C-contiguous arrays only, got strides {a.strides} for shape {a.shape}")
    return a.reshape(-1)


# --- the same in a user's compiled code: what the kernels' overloads are made of ------------------------------------


def to_read(a: np.ndarray) -> np.ndarray:
    """`plain` in compiled code: the array itself if its type says that it is C-contiguous, otherwise a copy that is."""
    raise NotImplementedError("for compiled code only")


def to_write(a: np.ndarray) -> np.ndarray:
    """A C-contiguous array of the shape of `a` for a kernel's result: `a` itself where its type says that it is one."""
    raise NotImplementedError("for compiled code only")


def written(a: np.ndarray, result: np.ndarray) -> None:
    """Bring a result into `a`, unless `to_write` returned `a` itself."""
    raise NotImplementedError("for compiled code only")


@overload(to_read)
def _to_read(a):
    if contiguous(a):
        return lambda a: a
    return lambda a: a.copy()


@overload(to_write)
def _to_write(a):
    if contiguous(a):
        return lambda a: a
    return lambda a: np.empty(a.shape, a.dtype)


@overload(written)
def _written(a, result):
    def copied(a, result):
        a[...] = result

    return (lambda a, result: None) if contiguous(a) else copied


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


def contiguous(*arrays: Any) -> bool:
    """Whether these Numba types are aligned C-contiguous arrays, which a kernel can go through as one row of numbers."""
    return all(isinstance(a, types.Array) and a.layout == "C" and a.aligned for a in arrays)


def matrices(written: int, read: int) -> Callable[[Any], tuple]:
    """Signature for `for_dtypes`: so many C-contiguous matrices that are written, then some that are read."""

    def signature(t: Any) -> tuple:
        return (*[types.Array(t, 2, "C")] * written, *[types.Array(t, 2, "C", readonly=True)] * read)

    return signature
