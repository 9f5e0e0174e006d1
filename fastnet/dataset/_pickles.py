"""A safe reader of CIFAR-100's pickles.

A pickle is a program: Python's reader imports and calls every name in it. This reader admits only the names in CIFAR's
files, and replaces each by a stand-in below, so that a file can call no code of NumPy or of other packages. Python's reader
also trusts all lengths and memo indices in a file; `_check` compares them with the file's size first.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np


class _Dtype:
    """A stand-in for ``numpy.dtype`` that accepts only uint8, the type of CIFAR's images."""

    def __init__(self, code: Any, *_: Any) -> None:
        if code not in ("u1", b"u1"):
            given = repr(code) if isinstance(code, (str, bytes)) else type(code).__name__
            raise pickle.UnpicklingError(f"it holds an array of dtype {given}, CIFAR-100's are uint8")

    def __setstate__(self, state: Any) -> None:
        pass  # byte order and alignment, which have no effect on single bytes


class _Array:
    """A stand-in for ``numpy.ndarray`` that takes the state of a pickled array."""

    array: np.ndarray

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("it holds an array without a dtype")
        self.array = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: Any) -> _Array:
    """Replace NumPy's function of that name, which makes an empty array that its state fills."""
    return _Array()


ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # its name since NumPy 2, in files that were written again
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which CIFAR-100's files never do") from None


def load(path: Path, is_published: bool = False) -> dict[str, Any]:
    """Read a file of CIFAR-100 into a dict with str keys; its arrays are read-only.

    Parameters
    ----------
    path : Path
    is_published : bool
        Whether the file has the published digest, so that its lengths need no check.

    Raises
    ------
    ValueError
        If the file is truncated, damaged, or not one of CIFAR-100's.
    """
    content = path.read_bytes()
    try:
        if not is_published:
            _check(content)
        # "bytes" keeps Python 2's strings as bytes, without a conversion of the pixels to text.
        value = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can fail with nearly every kind of error
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path} is truncated, damaged, or not a file of CIFAR-100: {reason}.") from error
    if type(value) is not dict:
        raise ValueError(f"{path} is not a file of CIFAR-100: it holds a {type(value).__name__}, not a dict.")
    return {_text(key): entry.array if isinstance(entry, _Array) else entry for key, entry in value.items()}


_MOST_TUPLES = 1000  # CIFAR-100's files have a few; hashing deeply nested tuples overflows the stack


def _check(content: bytes) -> None:
    """Compare all lengths with the bytes that follow, and all memo indices with the number of objects."""
    argument: Any
    tuples = 0
    for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > number:
            raise pickle.UnpicklingError(f"it stores its object {number} at memo index {argument}")
        tuples += opcode.name.startswith(("TUPLE", "FROZENSET"))
        if tuples > _MOST_TUPLES:
            raise pickle.UnpicklingError(f"it holds more than {_MOST_TUPLES} tuples")
        if opcode.name == "FRAME" and argument > len(content):
            raise pickle.UnpicklingError(f"it has a frame of {argument} bytes")


def _text(value: Any) -> str:
    """Return a key as text; for a key of another type, which CIFAR-100 does not have, the name of its type."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else type(value).__name__
