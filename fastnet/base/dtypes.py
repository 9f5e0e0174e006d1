"""The float types that fastnet stores and computes in."""
from __future__ import annotations

import numpy as np
import numpy.typing as npt

SUPPORTED = (np.dtype(np.float32), np.dtype(np.float64))  # what the kernels are written for

default = np.dtype(np.float64)


def set_default_dtype(dtype: npt.DTypeLike) -> None:
    """Set the dtype of layers that you make without one, and of integers that fastnet converts to floats.

    Parameters
    ----------
    dtype : float32 or float64
        The initial default is float64, as in the course; float32 is about twice as fast.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> fastnet.set_default_dtype(np.float32)
    >>> fastnet.FullLayer(4, 3).W.dtype
    dtype('float32')
    >>> fastnet.set_default_dtype(np.float64)
    """
    global default
    if dtype is None:  # np.dtype(None) would be float64
        raise TypeError("set_default_dtype: dtype must be float32 or float64, got None.")
    default = supported("set_default_dtype", dtype)


def get_default_dtype() -> np.dtype:
    """Return the dtype of layers that you make without one."""
    return default


def supported(who: object, value: npt.DTypeLike | None) -> np.dtype:
    """Return ``value``, a dtype or None for the default dtype, as float32 or float64."""
    if value is None:
        return default
    try:
        given = np.dtype(value)
    except TypeError:
        raise TypeError(f"{who}: dtype must be float32 or float64, got {value!r}.") from None
    native = given.newbyteorder("=")
    if native not in SUPPORTED:
        raise TypeError(f"{who}: dtype must be float32 or float64, got {given}.")
    return native


def result_dtype(*arrays: np.ndarray) -> np.dtype:
    """The dtype to compute in for these arrays: the widest of their float types, as float32 or float64."""
    if arrays and (dtype := arrays[0].dtype) in SUPPORTED and all(a.dtype is dtype for a in arrays):
        return dtype
    floats = [a.dtype for a in arrays if a.dtype.kind == "f"]
    if not floats:
        return default
    return SUPPORTED[0] if np.result_type(*floats).itemsize <= 4 else SUPPORTED[1]
