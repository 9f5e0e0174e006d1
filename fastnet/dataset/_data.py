"""What every loader returns, and the one way from pixels to network input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import DTypeLike, NDArray

if TYPE_CHECKING:
    from typing_extensions import Self

N_PIXELS = 3 * 32 * 32


class Data(tuple):
    """A data set: unpacks as ``(x_train, y_train), (x_test, y_test)``, as in the course.

    Attributes
    ----------
    class_names : tuple of str
        ``class_names[label]`` is the name of a class.
    name : str
        What to call the data in a plot or a table.
    """

    class_names: tuple[str, ...]
    name: str

    def __new__(cls, train: tuple, test: tuple, class_names: Sequence[str], name: str) -> Self:
        self = super().__new__(cls, (train, test))
        self.class_names = tuple(str(class_name) for class_name in class_names)
        self.name = name
        return self

    def __getnewargs__(self) -> tuple:
        return (*self, self.class_names, self.name)

    def __repr__(self) -> str:
        (x_train, _), (x_test, _) = self
        return (
            f"<Data {self.name!r}: {len(x_train)} training and {len(x_test)} test samples, "
            f"{x_train.dtype}, classes {', '.join(self.class_names)}>"
        )


def from_pixels(
    train: tuple[NDArray, NDArray],
    test: tuple[NDArray, NDArray],
    class_names: Sequence[str],
    name: str,
    dtype: DTypeLike,
) -> Data:
    """Turn bytes and integer labels into the course's arrays.

    Parameters
    ----------
    train, test : pair of arrays
        Pixels, uint8 of shape (n, 3072), and labels 0 .. len(class_names) - 1 of shape (n,).
    class_names : sequence of str
    name : str
    dtype : dtype-like
        float32 or float64, of the pixels and of the one-hot rows.

    Returns
    -------
    Data
        Pixels scaled to -0.5 .. 0.5, training labels one-hot, test labels integers.
    """
    dtype = check_dtype(dtype)
    # A table of the 256 possible values: the bits of `pixels / 255 - 0.5`, without a float64 copy of the set.
    scaled = (np.arange(256) / 255 - 0.5).astype(dtype)
    one_hot = np.eye(len(class_names), dtype=dtype)
    (x_train, y_train), (x_test, y_test) = train, test
    return Data(
        (scaled[x_train], one_hot[y_train]),
        (scaled[x_test], y_test.astype(np.int64)),
        class_names=class_names,
        name=name,
    )


def check_dtype(dtype: DTypeLike) -> np.dtype:
    """Return float32 or float64 as a ``np.dtype``; anything else is a TypeError."""
    try:
        known = np.dtype(dtype)
    except TypeError:
        known = None
    if known not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(f"dtype must be np.float32 or np.float64, got {dtype!r}")
    return known


def check_seed(seed: int) -> int:
    """Return a seed as a Python int; NumPy takes 0 .. 2**32 - 1."""
    if isinstance(seed, (bool, np.bool_)) or not isinstance(seed, (int, np.integer)):
        raise TypeError(f"seed must be an integer, got {seed!r} ({type(seed).__name__})")
    if not 0 <= seed < 2**32:
        raise ValueError(
            f"seed must be between 0 and {2**32 - 1}, as for np.random.seed, got {seed}; of a longer number, "
            "such as a student ID, take the last digits"
        )
    return int(seed)


def check_count(name: str, value: int, low: int, high: int | None = None) -> int:
    """Return a whole number within low .. high as a Python int."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {value!r} ({type(value).__name__})")
    if value < low or (high is not None and value > high):
        expected = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ValueError(f"{name} must be {expected}, got {value}")
    return int(value)
