"""Compiled kernels, kept from one process to the next.

One folder for each state of the sources: its name holds a digest of every file of this package and the versions of Numba,
llvmlite, NumPy and Python, because Numba itself only notices an edit in the very file that a kernel stands in. The first
of these places that can be written and that nobody else can change is used: $FASTNET_CACHE_DIR, $NUMBA_CACHE_DIR, the
user's cache folder, the system's folder for temporary files. Where none can, kernels are compiled anew in every process.

One file for each compiled version of a function, a digest of the rest in its first bytes. What is in it is a pickle and
machine code: it would run any program that somebody else put there, and a damaged one would end the process. So the
folder is checked each time it is used, and a file whose digest does not match counts as missing. Numba's own cache has
neither check, and keeps an index file beside, which processes that start at once must take turns to write; here each file
is complete when it gets its name, so that nobody waits.
"""
import contextlib
import functools
import hashlib
import os
import pickle
import platform
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite
import numba
import numpy as np
import platformdirs
from fastnet.kernels._system import make_private_folder, trusted_folder
from numba.core import caching
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

_HERE = Path(__file__).parent
_DIGEST_BYTES = hashlib.sha256().digest_size

# --- where compiled code is kept ------------------------------------------------------------------------------------


def _digest() -> str:
    """Of everything that compiled kernels depend on, but for the CPU, which is in the name of each file."""
    versions = f"{numba.__version__} {llvmlite.__version__} {np.__version__} {platform.python_version()}"
    total = hashlib.sha256(versions.encode())
    for source in sorted(_HERE.glob("*.py")):
        total.update(source.name.encode() + b"\0" + source.read_bytes())
    return total.hexdigest()[:16]


DIGEST = _digest()


def _places() -> Iterator[tuple[str, Path]]:
    """Where the cache may stand, best first, each with the environment variable that names it."""
    for name in ("FASTNET_CACHE_DIR", "NUMBA_CACHE_DIR"):
        if os.environ.get(name):
            yield name, Path(os.environ[name])
    with contextlib.suppress(RuntimeError):  # no home
        yield "", Path(platformdirs.user_cache_dir("fastnet", appauthor=False))
    user = os.geteuid() if hasattr(os, "geteuid") else os.environ.get("USERNAME", "")
    yield "", Path(tempfile.gettempdir(), f"fastnet-{user}")


def _find_cache() -> Path | None:
    name = f"kernels-{DIGEST}"
    refused = []
    for variable, place in _places():
        try:
            folder = make_private_folder(place / name)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            refused.append(f"{variable or 'one place'}: {error}")
            continue
        if any(not reason.startswith("one place") for reason in refused):
            warnings.warn(f"fastnet: compiled kernels are kept in {folder}, since another place is of no use "
                          f"({'; '.join(refused)}).", RuntimeWarning, stacklevel=2)
        return folder
    warnings.warn("fastnet: no folder for compiled kernels can be written, so they are compiled anew in every process "
                  f"({'; '.join(refused)}). Set FASTNET_CACHE_DIR to a folder of yours that nobody else can write in.",
                  RuntimeWarning, stacklevel=2)
    return None


CACHE = _find_cache()


class CacheInfo(NamedTuple):
    """What `cache_info` reports."""

    folder: Path | None  # of this version; None if nothing is kept
    kernels: int  # compiled versions of functions in it
    size: int  # in bytes
    others: int  # folders of other versions beside it


def cache_info() -> CacheInfo:
    """Where compiled kernels are kept, and how much."""
    if CACHE is None:
        return CacheInfo(None, 0, 0, 0)
    sizes = [(file.suffix, file.stat().st_size) for file in CACHE.glob("*")]
    others = [folder for folder in CACHE.parent.glob("kernels-*") if folder != CACHE]
    return CacheInfo(CACHE, sum(suffix == ".nbc" for suffix, _ in sizes), sum(size for _, size in sizes), len(others))


def clear_cache() -> int:
    """Remove the compiled kernels of this and all other versions; returns how many folders went."""
    folders = [] if CACHE is None else list(CACHE.parent.glob("kernels-*"))
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    return len(folders)


# --- how it is kept -------------------------------------------------------------------------------------------------


@functools.cache
def _source_digest(file: str) -> str:
    """Of a file with kernels that is not in this package, as benchmarks and tests have; those here are in `_digest`."""
    path = Path(file)
    if path.parent == _HERE or not path.is_file():
        return ""
    return hashlib.sha256(path.read_bytes()).hexdigest()


_warned: set[str] = set()


def _warn_once(error: OSError) -> None:
    if not _warned:
        _warned.add("")
        warnings.warn(f"fastnet: compiled kernels cannot be kept ({error}), so that every start takes many seconds. Mend "
                      "this, or set FASTNET_CACHE_DIR to a folder of yours that nobody else can write in.",
                      RuntimeWarning, stacklevel=3)


class KernelCache(caching.FunctionCache):
    """Of one function: all that Numba asks of a cache, but for where and how files are kept.

    Parameters
    ----------
    function : callable
        As written, not yet compiled.
    folder : Path
        For its files. It is made when there is one to write.
    """

    def __init__(self, function: Callable, folder: Path) -> None:  # Numba's would choose a folder of its own
        self._py_func = function
        self._name = repr(function)
        self._cache_path = str(folder)
        self._stem = re.sub(r"[^\w.]", "", f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}")
        self.enable()

    def flush(self) -> None:
        """Forget what is kept of this function."""
        with contextlib.suppress(OSError):
            for file in trusted_folder(self._cache_path).glob(f"{self._stem}-*.nbc"):
                file.unlink()

    def _key(self, signature: Any, codegen: Any) -> tuple:
        return (*self._index_key(signature, codegen), _source_digest(self._py_func.__code__.co_filename))

    def _name_of(self, key: tuple) -> str:
        return f"{self._stem}-{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.nbc"

    def _load_overload(self, sig: Any, target_context: Any) -> Any:
        key = self._key(sig, target_context.codegen())
        try:
            content = (trusted_folder(self._cache_path) / self._name_of(key)).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _warn_once(error)
            return None
        digest, data = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(data).digest() != digest:
            return None
        kept_key, kept = pickle.loads(data)
        return CompileResult._rebuild(target_context, *kept) if kept_key == key else None

    def _save_overload(self, sig: Any, data: Any) -> None:
        if data.lifted or data.library.has_dynamic_globals:  # neither loops as objects nor addresses outlive the process
            return
        key = self._key(sig, data.codegen)
        pickled = dumps((key, data._reduce()))
        try:
            _write(make_private_folder(Path(self._cache_path)) / self._name_of(key),
                   hashlib.sha256(pickled).digest() + pickled)
        except OSError as error:  # a full disk costs time, not the result
            _warn_once(error)


def _write(file: Path, content: bytes) -> None:
    """Write a file that has its name only once it is complete."""
    handle, new = tempfile.mkstemp(dir=file.parent, prefix="new-")
    try:
        with open(handle, "wb") as target:
            target.write(content)
        os.replace(new, file)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(new)
        if not (os.name == "nt" and isinstance(error, PermissionError) and file.exists()):
            raise  # on Windows a file that another process reads right now cannot be replaced, nor need it be
