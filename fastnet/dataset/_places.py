"""Where data may lie on this computer, and where fastnet keeps its own."""

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
        With every place that was looked at, and what to do.
    """
    looked = []
    for place, why in places(root):
        missing = [member for member in MEMBERS if not (place / member).is_file()]
        if not missing:
            return place
        only = f": no {' and no '.join(missing)} in it" if len(missing) < len(MEMBERS) else ""
        looked.append(f"  {place}  ({why}{only})")
    raise FileNotFoundError(
        "CIFAR-100 was not found. Looked for its files train, test and meta in\n"
        + "\n".join(looked)
        + f"\nTo get it, run: {download_command()}\n"
        "If you have it, set FASTNET_DATA to its folder, or pass root=. For a first try without it: "
        "fastnet.dataset.synthetic(seed), or --data synthetic."
    )


def places(root: str | os.PathLike[str] | None = None) -> Iterator[tuple[Path, str]]:
    """Every folder that may hold CIFAR-100, with the reason to look there; each once."""
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
    yield Path(FOLDER), "beside the script, as in the course"
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
    """Where ``fastnet data download`` puts CIFAR-100 if it is not told: $FASTNET_DATA, or the user's cache."""
    given = os.environ.get("FASTNET_DATA")
    if given:
        try:
            folder = Path(given).expanduser()
        except RuntimeError:
            raise FileNotFoundError(f"FASTNET_DATA is {given}, and there is no such home directory. Name a folder: "
                                    "--to FOLDER.") from None
        return folder if folder.name == FOLDER else folder / FOLDER
    cache = user_cache()
    if cache is None:
        raise FileNotFoundError("There is no home directory to put CIFAR-100 in. Name a folder: --to FOLDER.")
    return cache / FOLDER


def download_command() -> str:
    """``fastnet data download``, with fastnet's path where a shell would not find it: an environment not activated."""
    beside = Path(sys.executable).with_name("fastnet")
    if shutil.which("fastnet") or not beside.exists():
        return "fastnet data download"
    here = Path.cwd()
    return f"{beside.relative_to(here) if beside.is_relative_to(here) else beside} data download"


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # no home directory, as for some services and containers
        return None
