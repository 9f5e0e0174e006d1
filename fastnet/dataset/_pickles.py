"""Reading CIFAR-100's pickles without running them.

A pickle is a program: loading one calls whatever it names. The three names in CIFAR's files are admitted, and even those
lead to the stand-ins below, so that nothing of NumPy or of anything else is called, whatever the file says.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np


class _Dtype:
    """Stands for ``numpy.dtype``; the bytes of CIFAR's images are the only dtype there is."""

    def __init__(self, code: Any, *_: Any) -> None:
        if code not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"it holds an array of dtype {code!r}, CIFAR-100's are uint8")

    def __setstate__(self, state: Any) -> None:
        pass  # byte order and alignment, which mean nothing for single bytes


class _Array:
    """Stands for ``numpy.ndarray``: takes the state of a pickled array."""

    array: np.ndarray

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("it holds an array without a dtype")
        self.array = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: Any) -> _Array:
    """Stands for NumPy's function of that name, which makes an empty array to be filled by its state."""
    return _Array()


ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # its name since NumPy 2, in files written anew
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which CIFAR-100's files never do") from None


def load(path: Path) -> dict[str, Any]:
    """Read a file of CIFAR-100: a dict with str keys; arrays are read-only.

    Raises
    ------
    ValueError
        If the file is cut off, damaged, or not one of CIFAR-100's.
    """
    try:
        with open(path, "rb") as file:
            # Python 2's strings as bytes: pixels need no detour through text.
            content = _Unpickler(file, encoding="bytes").load()
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a damaged pickle can fail with nearly every kind of error
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path} is cut off, damaged, or not a file of CIFAR-100: {reason}.") from error
    if type(content) is not dict:
        raise ValueError(f"{path} is not a file of CIFAR-100: it holds a {type(content).__name__}, not a dict.")
    return {_text(key): value.array if isinstance(value, _Array) else value for key, value in content.items()}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
