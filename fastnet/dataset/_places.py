"""The folders in which fastnet searches for CIFAR-100, and those in which it stores files."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from fastnet.kernels.system import user_cache

FOLDER = "cifar-100-python"
MEMBERS = ("train", "test", "meta")


def find(root: str | os.PathLike[str] | None = None) -> Path:
    """Return the first folder that holds CIFAR-100's three files.

    Raises
    ------
    FileNotFoundError
        If no folder has all files. The message lists the folders and says what to do.
    """
    looked = []
    for place, why in places(root):
        missing = [member for member in MEMBERS if not (place / member).is_file()]
        if not missing:
            return place
        only = f": no {' and no '.join(missing)} in it" if len(missing) < len(MEMBERS) else ""
        looked.append(f"  {place}  ({why}{only})")
    raise FileNotFoundError(
        "CIFAR-100 was not found. fastnet looked for its files train, test and meta in\n"
        + "\n".join(looked)
        + f"\nTo get it, run: {download_command()}\n"
        "If you have it, set FASTNET_DATA to its folder, or pass root=. For a first try without it: "
        "fastnet.dataset.synthetic(seed), or --data synthetic."
    )


def places(root: str | os.PathLike[str] | None = None) -> Iterator[tuple[Path, str]]:
    """Yield every folder that may hold CIFAR-100 once, with the reason to look there."""
    seen = set()
    for place, why in _candidates(root):
        place = Path(os.path.abspath(os.path.expanduser(place)))
        if place not in seen:
            seen.add(place)
            yield place, why


def _candidates(root: str | os.PathLike[str] | None) -> Iterator[tuple[Path, str]]:
    for given, why in ((root, "root"), (os.environ.get("FASTNET_DATA"), "$FASTNET_DATA")):
        if given:
            yield Path(given), why
            yield Path(given) / FOLDER, why
    yield Path(FOLDER), "the current folder, as in the course"
    yield Path("..") / FOLDER, "one folder up"
    cache = user_cache()
    if cache:
        yield cache / FOLDER, "fastnet data download"
    yield Path("data") / FOLDER, "torchvision"
    home = _home()
    if home:
        yield home / "data" / FOLDER, "torchvision"
        yield home / ".cache" / "torch" / FOLDER, "torchvision"
        keras = Path(os.environ.get("KERAS_HOME") or home / ".keras") / "datasets"
        yield keras / FOLDER, "Keras"
        yield keras / f"{FOLDER}-target" / FOLDER, "Keras 3"


def download_folder() -> Path:
    """Return the default folder of ``fastnet data download``: $FASTNET_DATA, or the user's cache."""
    given = os.environ.get("FASTNET_DATA")
    if given:
        try:
            folder = Path(given).expanduser()
        except RuntimeError:
            raise FileNotFoundError(f"FASTNET_DATA is {given}, but that home directory does not exist. Name a folder: "
                                    "--to FOLDER.") from None
        return folder if folder.name == FOLDER else folder / FOLDER
    cache = user_cache()
    if cache is None:
        raise FileNotFoundError("There is no home directory to store CIFAR-100 in. Name a folder: --to FOLDER.")
    return cache / FOLDER


def download_command() -> str:
    """Return ``fastnet data download``, with the command's path if the shell does not find it."""
    command = Path(sys.executable).with_name("fastnet")
    if shutil.which("fastnet") or not command.exists():
        return "fastnet data download"
    here = Path.cwd()
    return f"{command.relative_to(here) if command.is_relative_to(here) else command} data download"


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # no home directory, as for some services and containers
        return None
