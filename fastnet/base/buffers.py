"""Arrays that a layer uses again: its outputs, its gradients and its new weights, as soon as nobody else holds them.

A step of the course's network makes some thirty megabytes of arrays in float64, which the system has to find, to fill with
zeros and to take back each time; that takes as long as the arithmetic of a small network. So a layer keeps the arrays
that it has handed out, and counts who else refers to them: a view, a memoryview, a list, another thread or another
library's tensor does, as long as it lives. An array that only the layer refers to is handed out again. Whatever
somebody still holds is never written to. Small arrays are made anew each time: that is quicker than to look for one.

Where references are not counted exactly (PyPy, Python without its global lock) every array is a new one.
"""
from __future__ import annotations

import sys
import sysconfig
from typing import Any, ClassVar

import numpy as np
from numba.core.errors import NumbaError

from fastnet.base.attributes import FloatArray, Owned

_KEPT = 4  # arrays for one purpose: two in turn, for two sizes of batches
SMALL = 8192  # elements

Buffers = dict[str, list[np.ndarray]]

# What a call raises that a layer's short way does not know; the long way, with every check, then says what is wrong.
# Numba's own error is that of Numba 0.60 for a dtype it does not know, where newer ones raise TypeError.
UNUSUAL = (TypeError, ValueError, AttributeError, KeyError, IndexError, NumbaError)

PLAIN: set[type] = set()  # classes whose attributes are fastnet's own: the short way may go to their dictionary


class Buffered(Owned):
    """What fastnet's layers share: buffers, and what they answer about themselves where a layer has nothing to say.

    Buffers are no part of a layer's state: neither copied nor pickled nor among its attributes.
    """

    __slots__ = ("_buffers",)
    _buffers: Buffers

    # Of files and other libraries, see `fastnet.interop.architecture`: the constructor's arguments that make the layer
    # again, each an attribute of the same name; None: it cannot be described
    settings: ClassVar[tuple[str, ...] | None] = None
    added_settings: ClassVar[tuple[str, ...]] = ()  # those that files of earlier versions lack: the constructor's defaults

    # Of compiled programs, see `fastnet.program.builder`
    takes: ClassVar[frozenset[str]] = frozenset({"rows"})  # kinds of values that `lower` can be given
    gives: ClassVar[str] = "rows"  # the kind that it returns
    keeps_layout: ClassVar[bool] = False  # whether its output is laid out as its input
    needs_images: ClassVar[bool] = False  # whether its input must be images
    needs_batch: ClassVar[bool] = False  # whether its passes need all samples of the mini-batch at once
    fuses_pool: Any = False  # whether its op can do a pool of size 2 behind it, too
    fused_as: Any = None  # "relu" or "pool": what such an op does in its place
    padding_read: Any = 0  # pixels that it reads beyond each side of an image; None: as many as its successor
    compares_classes: ClassVar[bool] = False  # of a loss: whether it compares probabilities of classes

    def multiply_adds(self, shape: tuple[int, ...]) -> float:
        """How many a forward pass takes for a sample whose output is of this shape; 0 for what is no product."""
        return 0.0

    def update_param(self, lr: float) -> None:
        """Do nothing: the layer has no parameters."""

    def update_params(self, lr: float) -> None:
        """The chapter's other name of ``update_param``."""
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
            PLAIN.add(cls)


def in_order(a: np.ndarray) -> np.ndarray:
    """``a`` itself if it is C-contiguous, which is what element-wise kernels are compiled for, otherwise a copy that is."""
    return a if a.flags.c_contiguous else a.copy()  # in C order; np.ascontiguousarray takes three times as long for few


def take(buffers: Buffers, purpose: str, shape: tuple[int, ...], dtype: np.dtype, size: int) -> np.ndarray:
    """Return an array that nobody else holds, of undefined content; C-contiguous unless its last holder changed that.

    `size` is the number of its elements.
    """
    if not dtype.isnative:  # Numba takes some arrays of the other byte order for native ones
        raise ValueError(f"buffers are of native types, got {dtype!r}")
    if size <= SMALL:
        return np.empty(shape, dtype)
    try:
        free = buffers[purpose]
        a = free.pop(0)  # the one handed out first; out of the list, no other thread can find it
        usable = getrefcount(a) == _ALONE and a.shape == shape and a.dtype == dtype and a.flags.writeable
        free.append(a)
        if usable:
            return a
    except (KeyError, IndexError):
        free = buffers.setdefault(purpose, [])
    return _search(free, shape, dtype)


def take_like(buffers: Buffers, purpose: str, a: np.ndarray) -> np.ndarray:
    """`take` for what is computed of each element of `a`: a matrix that is in Fortran order alone gives another."""
    if a.size <= SMALL and a.ndim == 2 and a.dtype.isnative:
        return np.empty_like(a)
    flags = a.flags
    if flags.c_contiguous or a.ndim != 2 or not flags.f_contiguous:
        return take(buffers, purpose, a.shape, a.dtype, a.size)
    return take(buffers, purpose, a.shape[::-1], a.dtype, a.size).T


def _search(free: list[np.ndarray], shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """`take`, looking at all of them."""
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
    """Return the array handed out first, if it can be used; it goes to the end of the list.

    No loop here: from Python 3.14 on, whether a local variable that is passed counts as a reference of its own depends on
    how the function around it is compiled, and `_ALONE` is what straight code counts.
    """
    a = free.pop(0)
    usable = getrefcount(a) == _ALONE and a.shape == shape and a.dtype == dtype and a.flags.writeable
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
