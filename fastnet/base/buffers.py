"""Reuse of arrays: a layer's outputs, gradients and new weights, once no other object refers to them.

A step of the course's network allocates about 30 MB of arrays in float64. The system has to find these pages, clear them and
take them back in each step, which takes as long as the arithmetic of a small network. So a layer keeps the arrays that it
returned, and reads their reference counts: a view, a memoryview, a list, another thread and another library's tensor each
count as long as they live. The layer uses an array again if nothing else refers to it, and never writes into an array that
something refers to. It always allocates small arrays, which is faster than a search for a free one.

Where reference counts are not exact (PyPy, Python without its global lock), every array is new.
"""
from __future__ import annotations

import sys
import sysconfig
from typing import Any, ClassVar

import numpy as np
from numpy import empty, empty_like

from fastnet.base.attributes import FloatArray, Owned

_KEPT = 4  # arrays for one purpose: two that alternate, for two sizes of batches
SMALL = 8192  # elements
_FLOAT64, _FLOAT32 = np.dtype(np.float64), np.dtype(np.float32)

Buffers = dict[str, list[np.ndarray]]

FAST: set[type] = set()  # classes with fastnet's own attributes: a pass may use the instances' dictionaries, see `passes`


class Buffered(Owned):
    """The base class of fastnet's layers: buffers, and the default of each fact that a layer states about itself.

    Buffers are not part of a layer's state: they are neither copied nor pickled, and are not attributes.
    """

    __slots__ = ("_buffers",)
    _buffers: Buffers

    # For files and other libraries, see `fastnet.interop.architecture`: the constructor's arguments that make the layer
    # again, each an attribute of the same name; None if the layer cannot be described
    settings: ClassVar[tuple[str, ...] | None] = None
    added_settings: ClassVar[tuple[str, ...]] = ()  # those that files of earlier versions lack: the constructor's defaults

    # For compiled programs, see `fastnet.program.builder`
    takes: ClassVar[frozenset[str]] = frozenset({"rows"})  # kinds of values that `lower` accepts
    gives: ClassVar[str] = "rows"  # the kind that it returns
    keeps_layout: ClassVar[bool] = False  # whether its output has the memory layout of its input
    needs_images: ClassVar[bool] = False  # whether its input must be images
    needs_batch: ClassVar[bool] = False  # whether its passes need all samples of the mini-batch at once
    fuses_pool: Any = False  # whether its op can include a following pool of size 2
    fused_as: Any = None  # "relu" or "pool": the part of such an op that replaces this layer
    padding_read: Any = 0  # pixels that it reads beyond each side of an image; None: as many as its successor
    compares_classes: ClassVar[bool] = False  # whether this loss compares probabilities of classes

    def multiply_adds(self, shape: tuple[int, ...]) -> float:
        """Return the multiply-adds of a forward pass for a sample with an output of this shape; 0 if it has no product."""
        return 0.0

    def update_param(self, lr: float) -> None:
        """Do nothing: the layer has no parameters."""

    def update_params(self, lr: float) -> None:
        """Do what ``update_param`` does; the chapter uses both names."""
        self.update_param(lr)

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        layer = super().__new__(cls)
        layer._buffers = {}
        return layer

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        hooks = "__getattribute__", "__setattr__", "__delattr__"
        names = {name for base in cls.__mro__ for name, value in vars(base).items() if isinstance(value, FloatArray)}
        if all(getattr(cls, hook) is getattr(object, hook) for hook in hooks) and all(
                isinstance(getattr(cls, name), FloatArray) for name in names):
            FAST.add(cls)


def in_order(a: np.ndarray) -> np.ndarray:
    """Return ``a`` if it is C-contiguous, as element-wise kernels need it, otherwise a C-contiguous copy."""
    return a if a.flags.c_contiguous else a.copy()  # np.ascontiguousarray is 3 times slower for small arrays


def take(buffers: Buffers, purpose: str, shape: tuple[int, ...], dtype: np.dtype, size: int) -> np.ndarray:
    """Return a C-contiguous array of undefined content, with `size` elements, that no other object refers to."""
    if dtype is not _FLOAT64 and dtype is not _FLOAT32 and not dtype.isnative:
        raise ValueError(f"buffers have native types, got {dtype!r}")  # Numba mistakes some other arrays for native ones
    if size <= SMALL:
        return empty(shape, dtype)
    try:
        free = buffers[purpose]
        a = free.pop(0)  # the one returned first; once it is off the list, no other thread can find it
        usable = getrefcount(a) == _ALONE and a.shape == shape and a.dtype == dtype and a.flags.carray
        free.append(a)
        if usable:
            return a
    except (KeyError, IndexError):
        free = buffers.setdefault(purpose, [])
    return _search(free, shape, dtype)


def take_like(buffers: Buffers, purpose: str, a: np.ndarray) -> np.ndarray:
    """Do what `take` does, with the shape and dtype of `a`; for a matrix in Fortran order the result is in that order."""
    if a.size <= SMALL and a.ndim == 2 and a.dtype.isnative:
        return empty_like(a)
    flags = a.flags
    if flags.c_contiguous or a.ndim != 2 or not flags.f_contiguous:
        return take(buffers, purpose, a.shape, a.dtype, a.size)
    return take(buffers, purpose, a.shape[::-1], a.dtype, a.size).T


def _search(free: list[np.ndarray], shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Do what `take` does, but try all buffers."""
    for _ in range(len(free)):
        try:
            a = _first(free, shape, dtype)
        except IndexError:  # another thread was faster
            break
        if a is not None:
            return a
    a = np.empty(shape, dtype)
    if _COUNTED:
        free.append(a)
        if len(free) > _KEPT:
            del free[0]
    return a


def _first(free: list[np.ndarray], shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray | None:
    """Return the array returned first, if it is free, and move it to the end of the list.

    The function has no loop: from Python 3.14 on, the reference count of a local variable depends on how the function around
    it is compiled, and `_ALONE` is the count in straight-line code.
    """
    a = free.pop(0)
    usable = getrefcount(a) == _ALONE and a.shape == shape and a.dtype == dtype and a.flags.carray
    free.append(a)
    return a if usable else None


def _references_are_counted() -> bool:
    free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    return sys.implementation.name == "cpython" and hasattr(sys, "getrefcount") and not free_threaded


def _references_to_a_local() -> int:
    free = [np.empty(0)]
    a = free.pop()
    return getrefcount(a)


_COUNTED = _references_are_counted()
getrefcount = sys.getrefcount if _COUNTED else lambda a: -1
_ALONE = _references_to_a_local()
