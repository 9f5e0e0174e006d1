"""The course's subset of CIFAR-100."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fastnet.dataset import _cache, _data, _files, _places
from fastnet.dataset._data import Data
from fastnet.dataset._files import Cifar100

Subset = tuple[np.ndarray, np.ndarray]


def cifar100(
    seed: int, n_classes: int = 5, dtype: npt.DTypeLike = np.float64, root: str | os.PathLike[str] | None = None, *,
    replace: bool = False, images: bool = False,
) -> Data:
    """Load some classes of CIFAR-100, chosen by a seed as in the course.

    Parameters
    ----------
    seed : int
        The seed that chooses the classes, as ``np.random.seed(seed)`` and
        ``np.random.choice(np.arange(0, 100), n_classes, replace=replace)`` do. NumPy's global state does not change.
    n_classes : int
        The number of classes, 2 to 100. The course uses 5 in this chapter, 3 in the next, and used 4 in 2018.
    dtype : dtype-like
        float32 or float64.
    root : path-like, optional
        The folder in which fastnet looks first: ``cifar-100-python``, or the one that contains it. Then it looks in
        ``$FASTNET_DATA``, ``./cifar-100-python``, ``../cifar-100-python``, and in the folders of ``fastnet data download``,
        torchvision and Keras.
    replace : bool
        Draw the classes with replacement, as in 2018. A class that is drawn twice counts once, so that there may be fewer.
    images : bool
        Return pixels as (n, 3, 32, 32), channels first, as convolutions take them.

    Returns
    -------
    Data
        ``(x_train, y_train), (x_test, y_test)``: pixels (n, 3072), or (n, 3, 32, 32), within -0.5 .. 0.5, in the order of
        CIFAR's files; one-hot training labels; integer test labels. The labels have the order of CIFAR's labels, and the
        attribute ``class_names`` names them.

    Raises
    ------
    FileNotFoundError
        If none of these folders has the files; the message lists the folders.
    ValueError
        If a file is truncated, damaged, or not CIFAR-100's.

    Warns
    -----
    UserWarning
        If a file has the right form but differs from the published one.

    Notes
    -----
    The files are pickles; fastnet reads them without running code from them. The first call takes a few seconds and stores
    their content as plain arrays in the user's cache folder (184 MB). Later calls, with any seed, read these in a fraction
    of a second.
    """
    seed = _data.seed("cifar100", seed)
    n_classes = _data.n_classes("cifar100", n_classes)
    type_ = _data.dtype("cifar100", dtype)
    chosen = _chosen(seed, n_classes, replace)
    train, test, cifar = _subset(_places.find(root), chosen)
    names = [cifar.class_names[label] for label in chosen]
    title = "Not the published CIFAR-100" if cifar.modified else "CIFAR-100"
    data = _data.from_pixels(train, test, names, f"{title}, {len(chosen)} classes (seed {seed})", type_)
    return data.as_images() if images else data


def _chosen(seed: int, n_classes: int, replace: bool) -> np.ndarray:
    """Draw the labels for a seed, and return them ascending, each once."""
    stream = np.random.RandomState(seed)  # the one that np.random.seed(seed) starts
    chosen = np.unique(stream.choice(np.arange(0, 100), n_classes, replace=replace))
    if len(chosen) < 2:
        raise ValueError(
            f"cifar100: with replacement, seed {seed} draws class {chosen[0]} {n_classes} times, but training needs at "
            "least two classes. Use another seed, or replace=False."
        )
    return chosen


def _subset(folder: Path, chosen: np.ndarray) -> tuple[Subset, Subset, Cifar100]:
    """Read training and test images of the chosen classes from the cache, or from the files, and then fill the cache."""
    place = _cache.entry(folder)
    if place is not None:
        try:
            return _take(_cache.open_(place), folder, chosen)
        except (_cache.Damaged, OSError):
            pass  # missing or damaged: the code below makes it again
    cifar = _files.read(folder)
    if place is not None:
        try:
            _cache.write(place, cifar)
        except OSError:
            pass  # a full disk, a read-only home, or another process was first: only the next load takes longer
    return _take(cifar, folder, chosen)


def _take(cifar: Cifar100, folder: Path, chosen: np.ndarray) -> tuple[Subset, Subset, Cifar100]:
    subsets = cifar.images["train"].subset(chosen), cifar.images["test"].subset(chosen)
    if cifar.modified:
        warnings.warn(
            f"{' and '.join(cifar.modified)} in {folder}: the form is that of CIFAR-100, but the content differs from the "
            "published files. Results are not comparable with those of others. To get the originals: fastnet data download.",
            stacklevel=4,
        )
    return (*subsets, cifar)
