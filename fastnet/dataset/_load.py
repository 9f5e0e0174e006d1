"""Loading of data by name, for scripts and commands."""

from __future__ import annotations

import os
import sys

import numpy as np
import numpy.typing as npt

from fastnet.dataset import _places
from fastnet.dataset._cifar100 import cifar100
from fastnet.dataset._data import Data
from fastnet.dataset._npz import from_npz
from fastnet.dataset._synthetic import synthetic

SOURCES = "auto|cifar100|synthetic|PATH.npz"  # for the help text of an option --data

BANNER = """\
{line}
  SYNTHETIC IMAGES: fastnet did not find CIFAR-100 on this computer.
  Training works as on photographs; the accuracies are not those of CIFAR-100.
  To get CIFAR-100 (169 MB): {command}
{line}"""


def load(
    source: str | os.PathLike[str], seed: int, dtype: npt.DTypeLike = np.float64, n_classes: int = 5
) -> Data:
    """Load data by name.

    Parameters
    ----------
    source : str or path-like
        ``"cifar100"``, ``"synthetic"``, the path of an .npz file (see :func:`from_npz`), or ``"auto"``. With ``"auto"``,
        fastnet loads CIFAR-100 if it finds it. Otherwise it makes synthetic images, and prints a banner to the error stream.
    seed : int
        The seed that chooses the classes of CIFAR-100, or the synthetic images. It has no effect on a file.
    dtype : dtype-like
        float32 or float64.
    n_classes : int
        The number of classes of CIFAR-100 or of synthetic images. It has no effect on a file.

    Returns
    -------
    Data
        ``(x_train, y_train), (x_test, y_test)``, with the attributes ``class_names``, and ``name`` for plots and tables.
    """
    if os.fspath(source) == "auto":
        source = _what_there_is()
    if source == "cifar100":
        return cifar100(seed, n_classes, dtype)
    if source == "synthetic":
        return synthetic(seed, n_classes, dtype=dtype)
    if os.path.splitext(source)[1] != ".npz":
        raise ValueError(f"load: data must be one of {SOURCES}, got {os.fspath(source)!r}.")
    return from_npz(source, dtype)


def _what_there_is() -> str:
    try:
        _places.find()
    except FileNotFoundError:
        print(BANNER.format(line="!" * 78, command=_places.download_command()), file=sys.stderr, flush=True)
        return "synthetic"
    return "cifar100"
