"""The user's own data in an .npz file, with the arrays of the course's subset."""

from __future__ import annotations

import contextlib
import io
import math
import os
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fastnet.base import hints, system
from fastnet.dataset import _data
from fastnet.dataset._data import Data

LAYOUT = (
    "Expected: x_train and x_test, uint8 (n, d); y_train and y_test, whole numbers (n,); "
    "and, optionally, names, one string per class."
)
_KEYS = ("x_train", "y_train", "x_test", "y_test", "names")
_MOST_CLASSES = 1 << 16  # no data set of images has more: larger labels are not class numbers
_MOST_COMPRESSED = 1040  # the largest compression ratio of zlib
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def from_npz(path: str | os.PathLike[str], dtype: npt.DTypeLike = np.float64) -> Data:
    """Load images and labels from an .npz file.

    Parameters
    ----------
    path : path-like
        An .npz file with these arrays; fastnet does not read others:

        - ``x_train`` and ``x_test``, uint8 of shape (n, d): one sample per row, with 3072 values channel by channel as in
          CIFAR-100, 784 values as in MNIST, or any other number;
        - ``y_train`` and ``y_test``, whole numbers from 0 of shape (n,);
        - optionally ``names``, one string per class.
    dtype : dtype-like
        float32 or float64.

    Returns
    -------
    Data
        The same structure that :func:`cifar100` returns.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, or its arrays do not have these shapes and types; the message says what it holds.
    """
    path = Path(path)
    type_ = _data.dtype("from_npz", dtype)
    arrays = _read(path)
    for part in ("train", "test"):
        _check_part(path, part, arrays[f"x_{part}"], arrays[f"y_{part}"])
    if arrays["x_train"].shape[1] != arrays["x_test"].shape[1]:
        raise ValueError(f"{path}: x_train has {arrays['x_train'].shape[1]} values per sample, x_test has "
                         f"{arrays['x_test'].shape[1]}. Both must have the same number.")
    names = _class_names(path, arrays)
    train, test = ((arrays[f"x_{part}"], arrays[f"y_{part}"].astype(np.int64)) for part in ("train", "test"))
    return _data.from_pixels(train, test, names, path.stem, type_)


def _read(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays named in `_KEYS`, after a check that the file can hold arrays of their sizes."""
    try:
        file = open(path, "rb")
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file {path} (the current folder is {Path.cwd()}).") from None
    with file:
        try:
            if file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
                raise TypeError("it holds a single array")
            with zipfile.ZipFile(file) as archive:
                if any(b"PK\1\2" in info.comment + info.extra for info in archive.infolist()):
                    raise ValueError("its list of members is damaged")  # since a wrong length in it hides members
                members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
                for key in members.keys() - set(_KEYS):  # not read, but opened, which detects a damaged name
                    with contextlib.suppress(NotImplementedError, RuntimeError):  # another compression, or encrypted
                        archive.open(members[key]).close()
                arrays = {key: _array(archive, members[key]) for key in _KEYS if key in members}
        except Exception as error:  # a damaged archive can fail with nearly every kind of error
            reason = f"{error}".removesuffix(".") or type(error).__name__
            raise ValueError(f"{path} cannot be read as an .npz file without objects: {reason}. {LAYOUT}") from error
    missing = [key for key in _KEYS if key not in arrays and key != "names"]
    if missing:
        raise ValueError(f"{path} has no {' and no '.join(missing)}, only {', '.join(members) or 'nothing'}. {LAYOUT}")
    return arrays


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """Read an array, after a check of its header against the sizes in the archive."""
    most = _MOST_COMPRESSED if info.compress_type == zipfile.ZIP_DEFLATED else math.inf
    if info.file_size > max(1, info.compress_size) * most:
        raise ValueError(f"{info.filename} is damaged: {info.compress_size} bytes cannot hold {info.file_size}")
    if info.file_size > system.available_memory():
        raise ValueError(f"{info.filename} needs {info.file_size / 1e9:.1f} GB of memory, more than is free")
    with archive.open(info) as member:
        start = io.BytesIO(member.read(1 << 16))  # longer than any header that NumPy reads
        header = _HEADERS.get(np.lib.format.read_magic(start))
        if header is None:
            raise ValueError(f"{info.filename} is not an array in a format that fastnet knows")
        shape, fortran, dtype = header(start)
        if dtype.hasobject:
            raise ValueError(f"{info.filename} holds objects")
        size = math.prod(shape)
        if start.tell() + size * dtype.itemsize != info.file_size or size > info.file_size or min(shape, default=0) < 0:
            raise ValueError(f"{info.filename} is damaged: its size is not that of an array of shape {shape}")
        content = start.getvalue() + member.read()  # to the end, where zipfile compares the checksum
    return np.ndarray(shape, dtype, content, start.tell(), order="F" if fortran else "C")


def _check_part(path: Path, part: str, x: np.ndarray, y: np.ndarray) -> None:
    if x.dtype != np.uint8 or x.ndim != 2 or x.size == 0:
        hint = " Store pixels as bytes, 0 .. 255; fastnet scales them." if x.dtype.kind == "f" else ""
        hint = f" Flatten each image: {hints.flattened('x', x.shape)}." if x.ndim > 2 else hint
        raise ValueError(
            f"{path}: x_{part} must be uint8 of shape (n, d), got {x.dtype} of shape {x.shape}.{hint}"
        )
    if y.dtype.kind not in "iu" or y.shape != (len(x),):
        hint = ""
        if y.size == len(x) and y.ndim > 1:
            hint = " Flatten them: y.ravel()."
        elif y.ndim == 2 and len(y) == len(x):
            hint = " Convert one-hot rows to labels: y.argmax(axis=1)."
        elif y.dtype.kind in "US":
            hint = " Number them: names, y = np.unique(y, return_inverse=True)."
        raise ValueError(
            f"{path}: y_{part} must be whole numbers of shape ({len(x)},), one per image, "
            f"got {y.dtype} of shape {y.shape}.{hint}"
        )


def _class_names(path: Path, arrays: dict[str, np.ndarray]) -> list[str]:
    """Return the names in the file, or generated ones, after a check that every label has one."""
    low, high = _range(arrays["y_train"], arrays["y_test"])
    n_classes = int(arrays["y_train"].max()) + 1
    if high >= _MOST_CLASSES:
        raise ValueError(f"{path}: labels must be class numbers that start at 0, got {high}. Number them: "
                         "names, y = np.unique(y, return_inverse=True).")
    names = arrays.get("names", np.array([f"class {label}" for label in range(n_classes)]))
    if names.ndim != 1 or names.dtype.kind != "U":
        raise ValueError(f"{path}: names must be one string per class, got {names.dtype} of shape {names.shape}.")
    if low < 0 or high >= len(names) or len(names) < 2:
        known = "names" if "names" in arrays else "y_train's largest label"
        raise ValueError(
            f"{path}: labels must be numbered from 0, with at least two classes. By {known} there are {len(names)} classes, "
            f"but the labels go from {low} to {high}."
        )
    if len(arrays["y_train"]) * len(names) * 8 > system.available_memory():
        raise ValueError(f"{path}: one-hot rows of {len(arrays['y_train'])} images and {len(names)} classes need more "
                         "memory than is free. Number only the classes that occur: "
                         "names, y = np.unique(y, return_inverse=True).")
    return names.tolist()


def _range(*labels: np.ndarray) -> tuple[int, int]:
    return min(int(y.min()) for y in labels), max(int(y.max()) for y in labels)
