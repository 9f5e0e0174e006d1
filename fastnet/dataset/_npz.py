"""Data of one's own in an .npz file, laid out like the course's subset."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnet import _hints
from fastnet.dataset import _data
from fastnet.dataset._data import Data

REQUIRED = ("x_train", "y_train", "x_test", "y_test")
MOST_WITHOUT_NAMES = 1000  # classes, where there are fewer images than that: more is a slip, and would fill the memory
_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
LAYOUT = (
    "Expected: x_train and x_test, uint8 (n, d); y_train and y_test, whole numbers (n,); "
    "and, if you like, names, a text for each class."
)


def from_npz(path: str | os.PathLike[str], dtype: npt.DTypeLike = np.float64) -> Data:
    """Load images and labels from an .npz file.

    Parameters
    ----------
    path : path-like
        A file with ``x_train`` and ``x_test``, uint8 of shape (n, d): one sample per row, 3072 values channel by channel
        as in CIFAR-100, 784 as in MNIST, or any other number; ``y_train`` and ``y_test``, whole numbers from 0 of shape
        (n,); and optionally ``names``, a string for each class.
    dtype : dtype-like
        float32 or float64.

    Returns
    -------
    Data
        As from :func:`cifar100`.
    """
    path = Path(path)
    type_ = _data.dtype("from_npz", dtype)
    try:
        file = open(path, "rb")
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file {path}, seen from {Path.cwd()}.") from None
    with file:
        try:
            arrays = _arrays(path, file)
        except _Refused as error:
            raise ValueError(str(error)) from None
        except Exception as error:  # zipfile, zlib and NumPy answer to damaged bytes with nearly every kind of error
            reason = "there is not enough memory for it" if isinstance(error, MemoryError) else " ".join(str(error).split())
            raise ValueError(f"{path} cannot be read as an .npz file without objects: {reason or type(error).__name__}. "
                             f"{LAYOUT}") from error
    names = _class_names(path, arrays)
    train, test = ((arrays[f"x_{part}"], arrays[f"y_{part}"].astype(np.int64)) for part in ("train", "test"))
    return _data.from_pixels(train, test, names, path.stem, type_)


class _Refused(ValueError):
    """The file is whole, and holds something else than expected."""


class _Header(NamedTuple):
    """What an array in the file will be; its numbers are not read yet."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def _arrays(path: Path, file: IO[bytes]) -> dict[str, np.ndarray]:
    """The arrays that are asked for, each read only once the headers of all are right."""
    if file.read(6) == np.lib.format.MAGIC_PREFIX:
        raise TypeError("it holds a single array")
    with zipfile.ZipFile(file) as content:
        there = [name.removesuffix(".npy") for name in content.namelist()]
        headers = {key: _header(content, key) for key in (*REQUIRED, "names") if key in there}
        missing = [key for key in REQUIRED if key not in there]
        if missing:
            raise _Refused(f"{path} has no {' and no '.join(missing)}, only {', '.join(there[:20]) or 'nothing'}. {LAYOUT}")
        for part in ("train", "test"):
            _check_part(path, part, headers[f"x_{part}"], headers[f"y_{part}"])
        widths = [headers[key].shape[1] for key in ("x_train", "x_test")]
        if widths[0] != widths[1]:
            raise _Refused(f"{path}: x_train has {widths[0]} values per sample, x_test has {widths[1]}. They must have "
                           "equally many.")
        if "names" in headers and (len(headers["names"].shape) != 1 or headers["names"].dtype.kind != "U"):
            raise _Refused(f"{path}: names must be a text for each class, got {headers['names'].dtype} of shape "
                           f"{headers['names'].shape}.")
        arrays = {}
        for key in headers:
            with content.open(f"{key}.npy") as member:
                arrays[key] = np.lib.format.read_array(member, allow_pickle=False)
                while member.read(1 << 20):  # to the end, where the checksum is compared
                    pass
        return arrays


def _header(content: zipfile.ZipFile, key: str) -> _Header:
    """What one array of the file is, from its first bytes."""
    info = content.getinfo(f"{key}.npy")
    with content.open(info) as member:
        version = np.lib.format.read_magic(member)
        if version not in _READERS:
            raise ValueError(f"{key} is in version {version} of NumPy's format")
        shape, _, dtype = _READERS[version](member)
        if dtype.hasobject:
            raise ValueError(f"{key} holds objects")
        header = _Header(shape, dtype)
        if min(shape, default=0) < 0 or member.tell() + header.size * dtype.itemsize != info.file_size:
            raise ValueError(f"{key} is said to be of shape {shape}, and has {info.file_size} bytes")
    return header


def _check_part(path: Path, part: str, x: _Header, y: _Header) -> None:
    n = x.shape[0] if x.shape else 0
    if x.dtype != np.uint8 or len(x.shape) != 2 or x.size == 0:
        hint = " Pixels are kept as bytes, 0 .. 255; they are scaled on loading." if x.dtype.kind == "f" else ""
        hint = f" Flatten each image: {_hints.flattened('x', x.shape)}." if len(x.shape) > 2 else hint
        raise _Refused(
            f"{path}: x_{part} must be uint8 of shape (n, d), got {x.dtype} of shape {x.shape}.{hint}"
        )
    if y.dtype.kind not in "iu" or y.shape != (n,):
        hint = ""
        if y.size == n and len(y.shape) > 1:
            hint = " Flatten them: y.ravel()."
        elif len(y.shape) == 2 and y.shape[0] == n:
            hint = " Make labels of one-hot rows: y.argmax(axis=1)."
        elif y.dtype.kind in "US":
            hint = " Number them: names, y = np.unique(y, return_inverse=True)."
        raise _Refused(
            f"{path}: y_{part} must be whole numbers of shape ({n},), one for each image, "
            f"got {y.dtype} of shape {y.shape}.{hint}"
        )


def _class_names(path: Path, arrays: dict[str, np.ndarray]) -> list[str]:
    """The names in the file, or made-up ones; every label must have one."""
    low, high = _range(arrays["y_train"], arrays["y_test"])
    names = arrays.get("names")
    n_classes = int(arrays["y_train"].max()) + 1 if names is None else len(names)
    if low < 0 or high >= n_classes or n_classes < 2:
        known = "y_train's largest label" if names is None else "names"
        raise ValueError(
            f"{path}: labels must be numbered from 0 and there must be two classes or more: {known} makes it "
            f"{n_classes}, but the labels go from {low} to {high}."
        )
    if names is None and n_classes > max(MOST_WITHOUT_NAMES, len(arrays["y_train"])):
        raise ValueError(
            f"{path}: labels must be numbered from 0 without gaps: y_train's largest label makes it {n_classes} classes for "
            f"{len(arrays['y_train'])} images. Number them: classes, y = np.unique(y, return_inverse=True)."
        )
    return [f"class {label}" for label in range(n_classes)] if names is None else names.tolist()


def _range(*labels: np.ndarray) -> tuple[int, int]:
    return min(int(y.min()) for y in labels), max(int(y.max()) for y in labels)
