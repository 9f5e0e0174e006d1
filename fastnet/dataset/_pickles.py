"""Reading CIFAR-100's pickles without running them.

A pickle is a program: loading one calls whatever it names. The three names in CIFAR's files are admitted, and even those
lead to the stand-ins below, so that nothing of NumPy or of anything else is called, whatever the file says. Python's reader
also believes every length and every place in its memory that a file names, before it looks whether they can be: `_check`
does that first.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np


class _Dtype:
    """Stands for ``numpy.dtype``; the bytes of CIFAR's images are the only dtype there is."""

    def __init__(self, code: Any, *_: Any) -> None:
        if code not in ("u1", b"u1"):
            given = repr(code) if isinstance(code, (str, bytes)) else type(code).__name__
            raise pickle.UnpicklingError(f"it holds an array of dtype {given}, CIFAR-100's are uint8")

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


def load(path: Path, is_published: bool = False) -> dict[str, Any]:
    """Read a file of CIFAR-100: a dict with str keys; arrays are read-only.

    Parameters
    ----------
    path : Path
    is_published : bool
        The file's digest is that of the published one, so that its lengths need no check.

    Raises
    ------
    ValueError
        If the file is cut off, damaged, or not one of CIFAR-100's.
    """
    content = path.read_bytes()
    try:
        if not is_published:
            _check(content)
        # Python 2's strings as bytes: pixels need no detour through text.
        value = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can fail with nearly every kind of error
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path} is cut off, damaged, or not a file of CIFAR-100: {reason}.") from error
    if type(value) is not dict:
        raise ValueError(f"{path} is not a file of CIFAR-100: it holds a {type(value).__name__}, not a dict.")
    return {_text(key): entry.array if isinstance(entry, _Array) else entry for key, entry in value.items()}


_MOST_TUPLES = 1000  # CIFAR-100's files hold a few; the hash of a tuple in a tuple in a tuple ... overflows the stack


def _check(content: bytes) -> None:
    """Compare all lengths with the bytes that follow, and all places in the reader's memory with how many there are."""
    argument: Any
    tuples = 0
    for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > number:
            raise pickle.UnpicklingError(f"it remembers its object {number} at place {argument}")
        tuples += opcode.name.startswith(("TUPLE", "FROZENSET"))
        if tuples > _MOST_TUPLES:
            raise pickle.UnpicklingError(f"it holds more than {_MOST_TUPLES} tuples")
        if opcode.name == "FRAME" and argument > len(content):
            raise pickle.UnpicklingError(f"it has a frame of {argument} bytes")


def _text(value: Any) -> str:
    """A key as text; keys of other kinds, which CIFAR-100 does not have, by their kind alone."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else type(value).__name__
