"""A cache of CIFAR-100 as plain arrays, sorted by class, in the user's cache folder.

Reading and checking the pickles takes seconds. fastnet maps the arrays into memory instead; a subset reads and verifies
only its classes. An entry is valid for the files from which it was made: their folder, sizes and times.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastnet.dataset import _files, _places
from fastnet.dataset._files import Cifar100, Images

FORMAT = 1  # increased when the arrays or the index change their meaning


class Damaged(Exception):
    """The cache's content differs from what fastnet wrote."""


@dataclass(frozen=True)
class CheckedImages(Images):
    """Images with a digest per class, which is verified when the class is read."""

    digests: list[str]

    def block(self, label: int) -> tuple[np.ndarray, np.ndarray]:
        pixels, rows = super().block(label)
        if _block_digest(pixels, rows) != self.digests[label]:
            raise Damaged(f"class {label}")
        return pixels, rows


def entry(folder: Path) -> Path | None:
    """Return the path of the entry for the current files in ``folder``; None without a cache folder."""
    cache = _places.user_cache()
    if cache is None:
        return None
    stats = [(folder / member).stat() for member in _places.MEMBERS]
    state = [(stat.st_size, stat.st_mtime_ns) for stat in stats]
    return cache / "arrays" / f"{_short(str(folder.resolve()))}-{_short(json.dumps([FORMAT, state]))}"


def open_(place: Path) -> Cifar100:
    """Map the arrays of an entry into memory; the pixels are verified later, class by class.

    Raises
    ------
    FileNotFoundError
        If there is no such entry.
    Damaged
        If its content differs from what fastnet wrote.
    """
    text = (place / "index.json").read_bytes()
    try:
        sealed = json.loads(text)
        index = json.loads(sealed["index"])
        if _sha256(sealed["index"].encode()) != sealed["sha256"]:
            raise Damaged("index")
        images: dict[str, Images] = {
            part: CheckedImages(
                np.load(place / f"{part}_pixels.npy", mmap_mode="r", allow_pickle=False),
                np.load(place / f"{part}_rows.npy", allow_pickle=False),
                np.array(index[part]["first"]),
                index[part]["digests"],
            )
            for part in _files.N_IMAGES
        }
    except (ValueError, KeyError, TypeError, EOFError, OSError) as error:
        raise Damaged(str(error)) from error
    return Cifar100(images, index["class_names"], index["modified"])


def write(place: Path, cifar: Cifar100) -> None:
    """Write a complete entry, and delete those of older versions of the same files."""
    place.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix="new-", dir=place.parent))
    try:
        index: dict = {"class_names": list(cifar.class_names), "modified": list(cifar.modified)}
        for part, images in cifar.images.items():
            np.save(new / f"{part}_pixels.npy", images.pixels)
            np.save(new / f"{part}_rows.npy", images.rows)
            digests = [_block_digest(*images.block(label)) for label in range(_files.N_CLASSES)]
            index[part] = {"first": images.first.tolist(), "digests": digests}
        text = json.dumps(index)
        (new / "index.json").write_text(json.dumps({"index": text, "sha256": _sha256(text.encode())}))
        older = place.parent.glob(place.name.partition("-")[0] + "-*")
        remove(older)
        os.rename(new, place)
    except BaseException:
        remove([new])
        raise


def remove(entries: Iterable[Path]) -> None:
    """Delete entries, and ignore errors."""
    for place in list(entries):
        shutil.rmtree(place, ignore_errors=True)


def _block_digest(pixels: np.ndarray, rows: np.ndarray) -> str:
    return _sha256(np.ascontiguousarray(pixels).data, np.ascontiguousarray(rows).data)


def _sha256(*parts: bytes | memoryview) -> str:
    state = hashlib.sha256()
    for part in parts:
        state.update(part)
    return state.hexdigest()


def _short(text: str) -> str:
    return _sha256(text.encode())[:16]
