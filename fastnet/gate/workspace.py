"""Workspaces: folders that hold the checkouts and environments of one comparison.

A workspace belongs to one process, which holds a lock on a file in it. The operating system releases the lock when the
process ends in any way, and another comparison can then use the workspace. On a file system without locks, every comparison
gets a temporary workspace.
"""
from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fastnet.gate import GateError
from fastnet.gate.repository import remove

_LOCK = "fastnet-gate.lock"
_PREFIX = "fastnet-gate-"


def home() -> Path:
    """Return the folder of the environments: in the user's cache, or a temporary one without a home directory."""
    import platformdirs

    given = os.environ.get("FASTNET_GATE_CACHE")
    try:
        place = Path(given or platformdirs.user_cache_path("fastnet-gate")).expanduser().absolute()
        place.mkdir(parents=True, exist_ok=True)
        if given or os.access(place, os.W_OK):
            return place
    except (OSError, RuntimeError, KeyError) as error:  # no home directory, or a file has that name
        if given:
            raise GateError(f"{given} cannot be made ({error}). Set FASTNET_GATE_CACHE to a folder that you can write.") \
                from error
    owner = os.getuid() if hasattr(os, "getuid") else "user"
    place = Path(tempfile.gettempdir()) / f"fastnet-gate-of-{owner}"
    place.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and place.stat().st_uid != owner:
        raise GateError(f"{place} belongs to another user. Set FASTNET_GATE_CACHE to a folder that you can write.")
    return place


@contextlib.contextmanager
def workspace(repository: Path, place: Path | None, recipe: str = "") -> Iterator[Path]:
    """Yield a folder that no other process uses: a temporary one, or the permanent one of this repository and recipe."""
    with contextlib.ExitStack() as stack:
        folder = None if place is None else _kept(stack, place, hashlib.sha256(
            f"{repository.resolve()}\n{recipe}".encode()).hexdigest()[:12])
        if folder is None:
            clear_abandoned(Path(tempfile.gettempdir()))
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                stack.enter_context(_locked(folder))
        try:
            yield folder
        finally:
            for tree in folder.glob("*/tree"):
                remove(tree)


def _kept(stack: contextlib.ExitStack, place: Path, key: str) -> Path | None:
    for number in range(1, 100):  # a second comparison at the same time gets another workspace
        folder = place / "workspaces" / f"{key}-{number}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(folder))
            return folder
        except BlockingIOError:
            continue
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EPERM):
                return None  # this file system has no locks
            raise GateError(f"{folder} cannot be used ({error}). Set FASTNET_GATE_CACHE to a folder that you can write.") \
                from error
    return None


def clear_abandoned(place: Path) -> None:
    """Delete the temporary workspaces of killed runs."""
    for folder in place.glob(f"{_PREFIX}*"):
        if (folder / _LOCK).exists():
            with contextlib.suppress(OSError), _locked(folder):  # a held lock means that the run is alive
                remove(folder)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; raise BlockingIOError if another process holds it, and OSError without locks."""
    with open(folder / _LOCK, "a+b") as file:
        _lock(file)
        yield


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error
else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
