"""CIFAR-100's files: checking them and reading them into plain arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastnet.dataset import _pickles
from fastnet.dataset._data import N_PIXELS

N_CLASSES = 100
N_IMAGES = {"train": 50_000, "test": 10_000}
MD5 = {
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}


@dataclass(frozen=True)
class Images:
    """Images sorted by class, so that each class is one block of the file."""

    pixels: np.ndarray  # uint8 (n, 3072)
    rows: np.ndarray  # int32 (n,): each image's row in CIFAR's file, ascending within a class
    first: np.ndarray  # int64 (101,): class c is at first[c] .. first[c + 1]

    def block(self, label: int) -> tuple[np.ndarray, np.ndarray]:
        """Return pixels and rows of one class."""
        here = slice(int(self.first[label]), int(self.first[label + 1]))
        return self.pixels[here], self.rows[here]

    def subset(self, labels: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixels of some classes in the order of CIFAR's file, and their labels renumbered from 0."""
        pixels, rows = zip(*(self.block(label) for label in labels), strict=True)
        order = np.argsort(np.concatenate(rows))
        renumbered = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
        return np.concatenate(pixels)[order], renumbered[order]


@dataclass(frozen=True)
class Cifar100:
    """The complete CIFAR-100."""

    images: dict[str, Images]  # "train", "test"
    class_names: Sequence[str]
    modified: Sequence[str]  # files that differ from the published ones


def read(folder: Path) -> Cifar100:
    """Read and check the three files.

    Raises
    ------
    ValueError
        If a file is truncated, damaged or not CIFAR-100's. A complete file that differs from the published one is listed
        in ``modified``.
    """
    modified = [member for member, md5 in MD5.items() if digest(folder / member, "md5") != md5]
    contents = {member: _pickles.load(folder / member, is_published=member not in modified)
                for member in (*N_IMAGES, "meta")}
    images = {part: _sorted(*_checked_images(folder / part, contents[part], n)) for part, n in N_IMAGES.items()}
    return Cifar100(images, _checked_names(folder / "meta", contents["meta"]), modified)


def digest(path: Path, algorithm: str) -> str:
    """Return the digest of a file in hexadecimal digits."""
    # CIFAR's authors publish md5, which some systems allow only if it is not used for security.
    state = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            state.update(chunk)
    return state.hexdigest()


def _checked_images(path: Path, content: dict[str, Any], n: int) -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = content.get("data"), content.get("fine_labels")
    if pixels is None or labels is None:
        hint = " CIFAR-10 has other files and classes." if "labels" in content else ""
        raise ValueError(
            f"{path} is not a file of CIFAR-100: expected 'data' and 'fine_labels', found {_keys(content)}.{hint}"
        )
    if not isinstance(pixels, np.ndarray) or pixels.shape != (n, N_PIXELS):
        raise ValueError(
            f"{path}: data must be uint8 of shape {(n, N_PIXELS)}, got {_kind(pixels)}. Download the file again."
        )
    if isinstance(labels, list) and all(type(label) is int and 0 <= label < 1 << 31 for label in labels):
        labels = np.array(labels, int)
    elif not isinstance(labels, np.ndarray):
        labels = np.empty(0, object)
    whole = labels.shape == (n,) and labels.dtype.kind in "iu"
    if not whole or labels.min() < 0 or labels.max() >= N_CLASSES:
        given = f"{labels.min()} to {labels.max()}" if whole else _kind(labels)
        raise ValueError(
            f"{path}: fine_labels must be {n} whole numbers between 0 and {N_CLASSES - 1}, got {given}. "
            "Download the file again."
        )
    return pixels, labels


def _sorted(pixels: np.ndarray, labels: np.ndarray) -> Images:
    rows = np.argsort(labels, kind="stable").astype(np.int32)
    first = np.searchsorted(labels[rows], np.arange(N_CLASSES + 1))
    return Images(pixels[rows], rows, first)


def _checked_names(path: Path, content: dict[str, Any]) -> list[str]:
    names = content.get("fine_label_names")
    if not isinstance(names, list) or len(names) != N_CLASSES or not all(isinstance(n, (bytes, str)) for n in names):
        raise ValueError(f"{path}: fine_label_names must be {N_CLASSES} names, got {_kind(names)}. Download the file again.")
    return [name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in names]


def _keys(content: dict[str, Any]) -> str:
    return ", ".join(sorted(repr(key) for key in content)) or "nothing"


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return f"{len(value)} entries" if isinstance(value, list) else type(value).__name__
