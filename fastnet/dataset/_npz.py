"""Data of one's own in an .npz file, laid out like the course's subset."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fastnet import _hints
from fastnet.dataset import _data
from fastnet.dataset._data import Data

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
    arrays = _read(path)
    missing = [key for key in ("x_train", "y_train", "x_test", "y_test") if key not in arrays]
    if missing:
        raise ValueError(f"{path} has no {' and no '.join(missing)}, only {', '.join(arrays) or 'nothing'}. {LAYOUT}")
    for part in ("train", "test"):
        _check_part(path, part, arrays[f"x_{part}"], arrays[f"y_{part}"])
    if arrays["x_train"].shape[1] != arrays["x_test"].shape[1]:
        raise ValueError(f"{path}: x_train has {arrays['x_train'].shape[1]} values per sample, x_test has "
                         f"{arrays['x_test'].shape[1]}. They must have equally many.")
    names = _class_names(path, arrays)
    train, test = ((arrays[f"x_{part}"], arrays[f"y_{part}"].astype(np.int64)) for part in ("train", "test"))
    return _data.from_pixels(train, test, names, path.stem, type_)


def _read(path: Path) -> dict[str, np.ndarray]:
    """Every array of the file."""
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            raise TypeError("it holds a single array")
        with content:
            return {key: content[key] for key in content.files}
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file {path}, seen from {Path.cwd()}.") from None
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as an .npz file without objects: {error}. {LAYOUT}") from error


def _check_part(path: Path, part: str, x: np.ndarray, y: np.ndarray) -> None:
    if x.dtype != np.uint8 or x.ndim != 2 or x.size == 0:
        hint = " Pixels are kept as bytes, 0 .. 255; they are scaled on loading." if x.dtype.kind == "f" else ""
        hint = f" Flatten each image: {_hints.flattened('x', x.shape)}." if x.ndim > 2 else hint
        raise ValueError(
            f"{path}: x_{part} must be uint8 of shape (n, d), got {x.dtype} of shape {x.shape}.{hint}"
        )
    if y.dtype.kind not in "iu" or y.shape != (len(x),):
        hint = ""
        if y.size == len(x) and y.ndim > 1:
            hint = " Flatten them: y.ravel()."
        elif y.ndim == 2 and len(y) == len(x):
            hint = " Make labels of one-hot rows: y.argmax(axis=1)."
        elif y.dtype.kind in "US":
            hint = " Number them: names, y = np.unique(y, return_inverse=True)."
        raise ValueError(
            f"{path}: y_{part} must be whole numbers of shape ({len(x)},), one for each image, "
            f"got {y.dtype} of shape {y.shape}.{hint}"
        )


def _class_names(path: Path, arrays: dict[str, np.ndarray]) -> list[str]:
    """The names in the file, or made-up ones; every label must have one."""
    low, high = _range(arrays["y_train"], arrays["y_test"])
    n_classes = int(arrays["y_train"].max()) + 1
    names = arrays.get("names", np.array([f"class {label}" for label in range(n_classes)]))
    if names.ndim != 1 or names.dtype.kind != "U":
        raise ValueError(f"{path}: names must be a text for each class, got {names.dtype} of shape {names.shape}.")
    if low < 0 or high >= len(names) or len(names) < 2:
        known = "names" if "names" in arrays else "y_train's largest label"
        raise ValueError(
            f"{path}: labels must be numbered from 0 and there must be two classes or more: {known} makes it "
            f"{len(names)}, but the labels go from {low} to {high}."
        )
    return names.tolist()


def _range(*labels: np.ndarray) -> tuple[int, int]:
    return min(int(y.min()) for y in labels), max(int(y.max()) for y in labels)
