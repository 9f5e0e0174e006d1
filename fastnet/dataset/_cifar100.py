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
        Chooses the classes: those that ``np.random.seed(seed)`` and
        ``np.random.choice(np.arange(0, 100), n_classes, replace=replace)`` choose. NumPy's global state is left alone.
    n_classes : int
        2 to 100: 5 in this chapter, 3 in the next, 4 in 2018.
    dtype : dtype-like
        float32 or float64.
    root : path-like, optional
        Where to look first: the folder ``cifar-100-python``, or the one it lies in. Then ``$FASTNET_DATA``,
        ``./cifar-100-python``, ``../cifar-100-python``, and where ``fastnet data download``, torchvision and Keras put it.
    replace : bool
        Draw the classes with replacement, as in 2018: a class that is drawn twice is there once, so there may be fewer.
    images : bool
        Return pixels as (n, 3, 32, 32), channels first, as convolutions take them.

    Returns
    -------
    Data
        ``(x_train, y_train), (x_test, y_test)``: pixels (n, 3072), or (n, 3, 32, 32), within -0.5 .. 0.5, in the order of
        CIFAR's files; training labels one-hot, test labels integers, numbered in the order of CIFAR's labels. With
        ``class_names``.

    Raises
    ------
    FileNotFoundError
        If the files are in none of these places; the message lists them.
    ValueError
        If a file is cut off, damaged, or not CIFAR-100's.

    Warns
    -----
    UserWarning
        If a file has the right form but is not the published one.

    Notes
    -----
    The files are read without running the pickles they are. The first call keeps their content as plain arrays in the
    user's cache folder (184 MB), which later calls, of any seed, read in a fraction of a second.
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
    """The labels that a seed draws, ascending, each once."""
    stream = np.random.RandomState(seed)  # the one that np.random.seed(seed) starts
    chosen = np.unique(stream.choice(np.arange(0, 100), n_classes, replace=replace))
    if len(chosen) < 2:
        raise ValueError(
            f"cifar100: with replacement, seed {seed} draws class {chosen[0]} {n_classes} times, and one class is "
            "nothing to learn. Take another seed, or replace=False."
        )
    return chosen


def _subset(folder: Path, chosen: np.ndarray) -> tuple[Subset, Subset, Cifar100]:
    """Training and test images of the chosen classes: from the cache, or from the files, which fills it."""
    place = _cache.entry(folder)
    if place is not None:
        try:
            return _take(_cache.open_(place), folder, chosen)
        except (_cache.Damaged, OSError):
            pass  # not there, or not what it should be: made anew below
    cifar = _files.read(folder)
    if place is not None:
        try:
            _cache.write(place, cifar)
        except OSError:
            pass  # a full disk, a read-only home, another process that was first: the next load takes longer, no more
    return _take(cifar, folder, chosen)


def _take(cifar: Cifar100, folder: Path, chosen: np.ndarray) -> tuple[Subset, Subset, Cifar100]:
    subsets = cifar.images["train"].subset(chosen), cifar.images["test"].subset(chosen)
    if cifar.modified:
        warnings.warn(
            f"{' and '.join(cifar.modified)} in {folder} differ from the published CIFAR-100, though the form is right: "
            "results will not compare with others'. For the originals: fastnet data download.",
            stacklevel=4,
        )
    return (*subsets, cifar)
