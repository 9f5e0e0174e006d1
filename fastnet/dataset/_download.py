"""Fetching CIFAR-100: resumed after a broken connection, verified before it is opened, three files taken out."""

from __future__ import annotations

import os
import tarfile
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fastnet.dataset import _files, _places

if TYPE_CHECKING:
    import requests
    from tqdm import tqdm

URL = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
SHA256 = "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7"
ARCHIVE = "cifar-100-python.tar.gz"
TIMEOUT = 30.0  # seconds without a byte
TRIES = 5  # in a row that brought nothing
WAIT = 2.0  # seconds, longer with each of them
PIECE = 1 << 16


class DownloadError(RuntimeError):
    """The archive could not be fetched, or is not the published one."""


def download(folder: Path, url: str | None = None, progress: bool = True) -> bool:
    """Put CIFAR-100's three files into a folder.

    Parameters
    ----------
    folder : Path
        Made if it is missing.
    url : str, optional
        Where the archive is; by default ``$FASTNET_CIFAR100_URL``, or its authors' site.
    progress : bool
        Show a progress bar, if the error stream is a terminal.

    Returns
    -------
    bool
        False if the verified files were there already.

    Raises
    ------
    DownloadError
        What was fetched so far is kept, and the next call goes on from there.
    """
    if all(_is_published(folder / member, member) for member in _places.MEMBERS):
        return False
    import pooch  # here, because it takes longer to import than all of the command line

    folder.mkdir(parents=True, exist_ok=True)
    url = url or os.environ.get("FASTNET_CIFAR100_URL") or URL
    pooch.get_logger().setLevel("ERROR")  # it announces each step; the caller and the progress bar say enough
    fetch = _Resuming(folder / f"{ARCHIVE}.part", progress)
    try:
        archive = Path(pooch.retrieve(url, f"sha256:{SHA256}", ARCHIVE, folder, downloader=fetch))
    except ValueError as error:  # pooch's word for a wrong digest
        raise DownloadError(
            f"What {url} sent is not CIFAR-100's archive: its sha256 is not {SHA256}. It was deleted unopened. "
            "Try again, or another address: FASTNET_CIFAR100_URL."
        ) from error
    _extract(archive, folder)
    archive.unlink()
    return True


class _Resuming:
    """A downloader for pooch that keeps what it has in ``part`` and asks for the rest."""

    def __init__(self, part: Path, progress: bool) -> None:
        self.part = part
        self.progress = progress

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        import requests
        import urllib3
        from tqdm import tqdm

        failures = 0
        with (
            tqdm(unit="B", unit_scale=True, desc=ARCHIVE, disable=None if self.progress else True) as bar,
            requests.Session() as session,
        ):
            while True:
                before = self._have()
                try:
                    self._ask_for_rest(session, url, bar)
                    break
                except (
                    ConnectionError,
                    requests.ConnectionError,
                    requests.Timeout,
                    urllib3.exceptions.HTTPError,
                ) as error:
                    failures = failures + 1 if self._have() == before else 0
                    if failures == TRIES:
                        raise DownloadError(self._gave_up(url, error)) from error
                    time.sleep(failures * WAIT)
                except requests.RequestException as error:  # no such page, no such kind of address
                    raise DownloadError(self._gave_up(url, error)) from error
        os.replace(self.part, output_file)  # where pooch compares the digest

    def _ask_for_rest(self, session: requests.Session, url: str, bar: tqdm) -> None:
        have = self._have()
        headers = {"Range": f"bytes={have}-"} if have else {}
        with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code == 416:  # nothing after what is there: complete, which the digest will judge
                return
            answer.raise_for_status()
            if answer.status_code != 206:
                have = 0  # all of it, as from a server that cannot resume
            rest = answer.headers.get("Content-Length")
            total = have + int(rest) if rest and rest.isascii() and rest.isdigit() else None
            bar.total, bar.n, bar.initial = total, have, have
            with open(self.part, "r+b" if have else "wb") as file:
                file.seek(have)
                # Bytes as sent: some servers call a .gz compressed content, which would be unpacked on the way.
                for piece in answer.raw.stream(PIECE, decode_content=False):
                    file.write(piece)
                    bar.update(len(piece))
        if total is not None and self._have() < total:
            raise ConnectionError(f"closed after {self._have()} of {total} bytes")

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _gave_up(self, url: str, error: Exception) -> str:
        have = self._have()
        kept = f" {have / 1e6:.1f} MB are in {self.part}; the same command goes on from there." if have else ""
        return f"Could not fetch {url}: {error}.{kept} Another address can be given in FASTNET_CIFAR100_URL."


def _extract(archive: Path, folder: Path) -> None:
    """Take the three files out by name. No path inside the archive decides where anything goes."""
    try:
        with tarfile.open(archive) as tar:
            for member in _places.MEMBERS:
                content = tar.extractfile(f"{_places.FOLDER}/{member}")
                if content is None:
                    raise DownloadError(f"{archive}: {member} is not a file.")
                with content:
                    _put(content, folder / member, member)
    except DownloadError:
        raise
    except Exception as error:  # a damaged archive can fail with nearly every kind of error
        reason = " ".join(str(error).split()) or type(error).__name__  # tarfile's own has a line for each compression
        raise DownloadError(f"{archive} could not be unpacked: {reason}.") from error


def _put(content: IO[bytes], target: Path, member: str) -> None:
    """Write a file whole and verified, or not at all."""
    handle, name = tempfile.mkstemp(prefix=f"{member}-", dir=target.parent)
    new = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            while piece := content.read(1 << 20):
                file.write(piece)
        if not _is_published(new, member):
            raise DownloadError(
                f"{member} in the archive is not the published one: its md5 is not {_files.MD5[member]}."
            )
        new.chmod(0o644)  # mkstemp's is for the owner alone
        os.replace(new, target)
    finally:
        new.unlink(missing_ok=True)


def _is_published(path: Path, member: str) -> bool:
    return path.is_file() and _files.digest(path, "md5") == _files.MD5[member]
