"""CIFAR-100 as plain arrays, sorted by class, beside other things that can be made again.

The pickles take seconds to read and check in full. The arrays are mapped into memory, and a subset reads, and checks by
digest, its own classes only. An entry belongs to the very files it was made of: their place, size and time.
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

FORMAT = 1  # raised when the arrays or the index change their meaning


class Damaged(Exception):
    """The cache does not hold what was once written."""


@dataclass(frozen=True)
class CheckedImages(Images):
    """Images whose classes have digests, checked as they are read."""

    digests: list[str]

    def block(self, label: int) -> tuple[np.ndarray, np.ndarray]:
        pixels, rows = super().block(label)
        if _block_digest(pixels, rows) != self.digests[label]:
            raise Damaged(f"class {label}")
        return pixels, rows


def entry(folder: Path) -> Path | None:
    """Where the arrays made of the files in ``folder``, as they are now, belong; None if there is no place for them."""
    cache = _places.user_cache()
    if cache is None:
        return None
    stats = [(folder / member).stat() for member in _places.MEMBERS]
    state = [(stat.st_size, stat.st_mtime_ns) for stat in stats]
    return cache / "arrays" / f"{_short(str(folder.resolve()))}-{_short(json.dumps([FORMAT, state]))}"


def open_(place: Path) -> Cifar100:
    """Map the arrays of an entry; the pixels are checked later, class by class.

    Raises
    ------
    FileNotFoundError
        If there is no such entry.
    Damaged
        If it is not what was written.
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
    """Write an entry, whole or not at all, and drop what was made of older versions of the same files."""
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
    """Delete entries, as far as they can be."""
    for place in list(entries):
        shutil.rmtree(place, ignore_errors=True)


def _block_digest(pixels: np.ndarray, rows: np.ndarray) -> str:
    return _sha256(np.ascontiguousarray(pixels).data, np.ascontiguousarray(rows).data)


def _sha256(*pieces: bytes | memoryview) -> str:
    state = hashlib.sha256()
    for piece in pieces:
        state.update(piece)
    return state.hexdigest()


def _short(text: str) -> str:
    return _sha256(text.encode())[:16]
