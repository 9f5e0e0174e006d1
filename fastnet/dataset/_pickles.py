"""Reading CIFAR-100's pickles without running them.

A pickle is a program: loading one calls whatever it names. The three names in CIFAR's files are admitted, and even those
lead to the stand-ins below, so that nothing of NumPy or of anything else is called, whatever the file says.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, ClassVar

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


class _Bounded:
    """A file that is never asked for more than it has: memory would be taken for a length that is damaged."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.size = file, os.fstat(file.fileno()).st_size
        self.readline = file.readline

    def read(self, n: int) -> bytes:
        return self.file.read(min(n, self.size))


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined, misc]
    """Python's own unpickler: its twin in C takes memory for whatever index or length a damaged byte names."""

    dispatch: ClassVar[dict[int, Any]] = {
        code: load for code, load in pickle._Unpickler.dispatch.items()  # type: ignore[attr-defined]
        if bytes([code]) not in (pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER, pickle.EMPTY_SET,
                                 pickle.ADDITEMS, pickle.FROZENSET)}  # which ask for memory first, or hash what they hold

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which CIFAR-100's files never do") from None


def _with_text_keys(load_items: Callable[[_Unpickler], None]) -> Callable[[_Unpickler], None]:
    """An opcode that fills a dict, for texts alone: the hash of a tuple in a tuple in a tuple ... overflows the stack."""

    def checked(self: _Unpickler) -> None:
        keys = self.stack[-2:-1] if load_items is pickle._Unpickler.load_setitem else self.stack[::2]  # type: ignore
        if not all(isinstance(key, (bytes, str)) for key in keys):
            raise pickle.UnpicklingError("it holds a dict with other keys than texts")
        load_items(self)

    return checked


for _code in (pickle.SETITEM[0], pickle.SETITEMS[0], pickle.DICT[0]):
    _Unpickler.dispatch[_code] = _with_text_keys(_Unpickler.dispatch[_code])


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
            content = _Unpickler(_Bounded(file), encoding="bytes").load()
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
