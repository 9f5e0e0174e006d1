"""The class `Data`, which every loader returns, and the conversion of pixels to network input."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet.base import checks, dtypes

SIDE = 32  # pixels, of an image's height and width
N_PIXELS = 3 * SIDE * SIDE


class Data(tuple):
    """A data set. It unpacks as ``(x_train, y_train), (x_test, y_test)``, as in the course.

    Attributes
    ----------
    class_names : tuple of str
        ``class_names[label]`` is the name of a class.
    name : str
        The name of the data in plots and tables.
    """

    class_names: tuple[str, ...]
    name: str

    def __new__(cls, train: tuple, test: tuple, class_names: Iterable[str], name: str) -> Any:
        self = super().__new__(cls, (train, test))
        self.class_names = tuple(str(class_name) for class_name in class_names)
        self.name = name
        return self

    def as_images(self) -> Any:
        """Return a view of the data with pixels as square images, (n, c, r, r), channels first, as convolutions take them.

        Rows of 3 r r values become images of three channels, (n, 3, 32, 32) for CIFAR-100; rows of r r values become images
        of one channel.

        Raises
        ------
        ValueError
            If the number of values per sample is neither of these.
        """
        (x_train, y_train), (x_test, y_test) = self
        shape = (-1, *image_shape(self.name, x_train.shape[1:]))
        return Data((x_train.reshape(shape), y_train), (x_test.reshape(shape), y_test), self.class_names, self.name)

    def __getnewargs__(self) -> tuple:  # for copies and pickles
        return (*self, self.class_names, self.name)

    def __repr__(self) -> str:
        (x_train, _), (x_test, _) = self
        return (
            f"<Data {self.name!r}: {len(x_train)} training and {len(x_test)} test samples, "
            f"{x_train.dtype}, classes {', '.join(self.class_names)}>"
        )


def image_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return channels, height and width of samples that are images, or rows of square images."""
    if len(shape) == 3:
        return shape
    for channels in (3, 1):
        side = math.isqrt(shape[0] // channels)
        if channels * side * side == shape[0]:
            return channels, side, side
    raise ValueError(f"{name}: rows of {shape[0]} values are not square images of 3 channels or of 1. "
                     "Reshape them with x.reshape(len(x), channels, height, width).")


def from_pixels(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    class_names: Iterable[str],
    name: str,
    dtype: np.dtype,
) -> Data:
    """Turn bytes and integer labels into the course's arrays.

    Parameters
    ----------
    train, test : pair of arrays
        Pixels, uint8 of shape (n, 3072), and labels 0 .. len(class_names) - 1 of shape (n,).
    class_names : iterable of str
    name : str
    dtype : float32 or float64
        The type of the pixels and of the one-hot rows.

    Returns
    -------
    Data
        Pixels scaled to -0.5 .. 0.5, one-hot training labels, integer test labels.
    """
    class_names = tuple(class_names)
    # A table of the 256 possible values gives the bits of `pixels / 255 - 0.5` without a float64 copy of the set.
    scaled = (np.arange(256) / 255 - 0.5).astype(dtype)
    (x_train, y_train), (x_test, y_test) = train, test
    one_hot = np.zeros((len(y_train), len(class_names)), dtype)
    one_hot[np.arange(len(y_train)), y_train] = 1
    return Data((scaled[x_train], one_hot), (scaled[x_test], y_test.astype(np.int64)), class_names, name)


def dtype(who: str, value: npt.DTypeLike) -> np.dtype:
    """Check a dtype, float32 or float64. None means float64, also if the default dtype of layers is float32."""
    return dtypes.supported(who, np.float64 if value is None else value)


def seed(who: str, value: Any) -> int:
    """Check a seed for NumPy: 0 .. 2**32 - 1."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{who}: seed must be a whole number, got {value!r} ({type(value).__name__}).")
    if not 0 <= value < 2**32:
        raise ValueError(
            f"{who}: seed must be between 0 and {2**32 - 1}, as for np.random.seed, got {value}. "
            "Use the last nine digits of a longer number, such as a student ID."
        )
    return int(value)


def n_classes(who: str, value: Any) -> int:
    """Check a number of classes: 2 to 100."""
    number = checks.whole_number(who, "n_classes", value, "The course uses 5.")
    if not 2 <= number <= 100:
        raise ValueError(f"{who}: n_classes must be between 2 and 100, got {number}. The course uses 5.")
    return number
