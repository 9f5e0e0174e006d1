"""The download of CIFAR-100: it resumes after a broken connection, verifies the archive and unpacks three files."""

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
TRIES = 5  # consecutive attempts without a byte
WAIT = 2.0  # seconds, times the number of such attempts
CHUNK = 1 << 16


class DownloadError(RuntimeError):
    """The archive could not be downloaded, or is not the published one."""


def download(folder: Path, url: str | None = None, progress: bool = True) -> bool:
    """Download CIFAR-100's three files into a folder.

    Parameters
    ----------
    folder : Path
        The folder; it is made if it does not exist.
    url : str, optional
        The address of the archive. By default it is ``$FASTNET_CIFAR100_URL``, or the authors' site.
    progress : bool
        Show a progress bar, if the error stream is a terminal.

    Returns
    -------
    bool
        False if the folder already held the verified files.

    Raises
    ------
    DownloadError
        If the download fails. The next call resumes it.
    """
    if all(_is_published(folder / member, member) for member in _places.MEMBERS):
        return False
    import pooch  # here, because it takes longer to import than all of the command line

    folder.mkdir(parents=True, exist_ok=True)
    url = url or os.environ.get("FASTNET_CIFAR100_URL") or URL
    pooch.get_logger().setLevel("ERROR")  # it logs each step; the caller's message and the progress bar are enough
    fetch = _Resuming(folder / f"{ARCHIVE}.part", progress)
    try:
        archive = Path(pooch.retrieve(url, f"sha256:{SHA256}", ARCHIVE, folder, downloader=fetch))
    except ValueError as error:  # pooch's word for a wrong digest
        raise DownloadError(
            f"The file from {url} is not CIFAR-100's archive: its sha256 is not {SHA256}. fastnet deleted it unopened. "
            "Try again, or set FASTNET_CIFAR100_URL to another address."
        ) from error
    _extract(archive, folder)
    archive.unlink()
    return True


class _Resuming:
    """A downloader for pooch that keeps an incomplete file in ``part`` and requests the rest."""

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
            if answer.status_code == 416:  # there is no rest: the file is complete, which the digest will verify
                return
            answer.raise_for_status()
            if answer.status_code != 206:
                have = 0  # the server cannot resume, and sends the whole file
            rest = answer.headers.get("Content-Length")
            total = have + int(rest) if rest and rest.isascii() and rest.isdigit() else None
            bar.total, bar.n, bar.initial = total, have, have
            with open(self.part, "r+b" if have else "wb") as file:
                file.seek(have)
                # Some servers declare a .gz as compressed content, which would be decompressed here without this option.
                for chunk in answer.raw.stream(CHUNK, decode_content=False):
                    file.write(chunk)
                    bar.update(len(chunk))
        if total is not None and self._have() < total:
            raise ConnectionError(f"closed after {self._have()} of {total} bytes")

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _gave_up(self, url: str, error: Exception) -> str:
        have = self._have()
        kept = f" {have / 1e6:.1f} MB are in {self.part}; run the same command again to resume." if have else ""
        return f"Could not download {url}: {error}.{kept} You can set FASTNET_CIFAR100_URL to another address."


def _extract(archive: Path, folder: Path) -> None:
    """Unpack the three files by name. The paths inside the archive do not decide where they are written."""
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
        reason = " ".join(str(error).split()) or type(error).__name__  # tarfile's message has one line per compression
        raise DownloadError(f"{archive} could not be unpacked: {reason}.") from error


def _put(content: IO[bytes], target: Path, member: str) -> None:
    """Write and verify a file, and move it to its place only if it is complete."""
    handle, name = tempfile.mkstemp(prefix=f"{member}-", dir=target.parent)
    new = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            while chunk := content.read(1 << 20):
                file.write(chunk)
        if not _is_published(new, member):
            raise DownloadError(
                f"{member} in the archive is not the published one: its md5 is not {_files.MD5[member]}."
            )
        new.chmod(0o644)  # mkstemp makes files that only their owner can read
        os.replace(new, target)
    finally:
        new.unlink(missing_ok=True)


def _is_published(path: Path, member: str) -> bool:
    return path.is_file() and _files.digest(path, "md5") == _files.MD5[member]
