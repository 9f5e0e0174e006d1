"""Compiled kernels, kept from one process to the next.

One folder for each state of the code: its name holds a digest of every module of this package, as its loader gives
it (from files, from a zip, with or without sources), and the versions of fastnet, Numba, llvmlite, NumPy and Python. Numba
itself only notices an edit in the file of the kernel, and nothing in a zip. Where a loader gives
nothing, nothing is kept. What the installation itself carries (`carried`) is looked at first.

The folder is in the first of these places that can be written and that nobody else can change: $FASTNET_CACHE_DIR,
$NUMBA_CACHE_DIR, the user's cache folder, the system's folder for temporary files. Where none can, kernels are compiled
anew in every process.

One file for each compiled version of a function, a digest of the rest in its first bytes. The file's name depends on the
CPU and on all settings of Numba that may change what is compiled (`digest.settings`). It contains a pickle and
machine code: it would run any program that somebody else put there, and a damaged one would end the process. So the folder
is checked each time it is used, and a file whose digest does not match counts as missing. Numba's own cache has neither
check, and keeps an index file as well, which processes that start at once must take turns to write; here each file is
complete when it gets its name, so that nobody waits.
"""
import contextlib
import functools
import hashlib
import os
import pickle
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fastnet.kernels.codegen.carried import CARRIED, codegen
from fastnet.kernels.codegen.digest import DIGEST, KERNELS, settings
from fastnet.kernels.system import make_private_folder, trusted_folder, user_cache
from numba.core import caching
from numba.core.compiler import CompileResult
from numba.core.runtime import rtsys
from numba.core.serialize import dumps

_DIGEST_BYTES = hashlib.sha256().digest_size

# --- where compiled code is kept ------------------------------------------------------------------------------------

UNREADABLE = ("the code of its kernels cannot be read here, so that an update would go unnoticed. They are therefore "
              "compiled anew in every process, which takes many seconds. Install fastnet as files or as a zip.")


def _places() -> Iterator[tuple[str, Path]]:
    """Where the cache may be, best first, each with the environment variable that names it."""
    for name in ("FASTNET_CACHE_DIR", "NUMBA_CACHE_DIR"):
        if os.environ.get(name):
            yield name, Path(os.environ[name])
    if cache := user_cache():
        yield "", cache
    user = os.geteuid() if hasattr(os, "geteuid") else os.environ.get("USERNAME", "")
    yield "", Path(tempfile.gettempdir(), f"fastnet-{user}")


def _find_cache() -> Path | None:
    if DIGEST is None:
        warnings.warn(f"fastnet: {UNREADABLE}", RuntimeWarning, stacklevel=2)
        return None
    name = f"kernels-{DIGEST}"
    refused = []
    for variable, place in _places():
        try:
            folder = make_private_folder(place.expanduser() / name)
            tempfile.TemporaryFile(dir=folder).close()
        except (OSError, RuntimeError) as error:  # the latter of ~ where nobody has a home
            refused.append(f"{variable or 'one place'}: {error}")
            continue
        if any(not reason.startswith("one place") for reason in refused):
            warnings.warn(f"fastnet: compiled kernels are kept in {folder}, since another place is useless "
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
    others: int  # folders of other versions next to it


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
def _source_digest(file: str) -> str | None:
    """Digest of a file with kernels that is not in this package, as benchmarks and tests have; None if it can't be read."""
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:
        return None


_warned: set[str] = set()


def _warn_once(error: OSError) -> None:
    if not _warned:
        _warned.add("")
        warnings.warn(f"fastnet: compiled kernels cannot be kept ({error}), so that every start takes many seconds. Fix "
                      "this, or set FASTNET_CACHE_DIR to a folder of yours that nobody else can write in.",
                      RuntimeWarning, stacklevel=3)


class KernelCache(caching.FunctionCache):
    """Of one function: all that Numba asks of a cache, but for where and how files are kept.

    Parameters
    ----------
    function : callable
        As written, not yet compiled.
    folder : Path, optional
        For its files. It is made when there is one to write. Without one, nothing is kept.
    """

    def __init__(self, function: Callable, folder: Path | None) -> None:  # Numba's would choose a folder of its own
        self._py_func = function
        self._name = repr(function)
        self._folder = folder
        self._ours = function.__module__.startswith(f"{KERNELS}.")  # which `DIGEST` knows
        module = function.__module__.removeprefix(f"{KERNELS}.")
        self._stem = re.sub(r"[^\w.]", "", f"{module}.{function.__qualname__}")
        self._source = "" if self._ours else _source_digest(function.__code__.co_filename)
        if self._source is None:
            self.disable()
        else:
            self.enable()

    def flush(self) -> None:
        """Forget what is kept of this function."""
        with contextlib.suppress(OSError):
            for file in () if self._folder is None else trusted_folder(self._folder).glob(f"{self._stem}-*.nbc"):
                file.unlink()

    @property
    def cache_path(self) -> str:
        """What Numba calls the folder."""
        return str(self._folder)

    def _key(self, signature: Any) -> tuple:
        if self._ours:  # `DIGEST` knows its code; Numba's key of a closure holds for one process
            return (signature, codegen().magic_tuple(), self._stem, settings())
        return (*self._index_key(signature, codegen()), settings(), self._source)

    def _name_of(self, key: tuple) -> str:
        return f"{self._stem}-{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.nbc"

    def has(self, signature: Any) -> bool:
        """Whether there is a file for these types; it may turn out to be damaged."""
        name = self._name_of(self._key(signature))
        return name in CARRIED.files or (self._folder is not None and (self._folder / name).exists())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Read what is kept for these types; None if there is nothing."""
        if not self._enabled:
            return None
        key = self._key(sig)
        content = self._content(self._name_of(key))
        digest, data = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(data).digest() != digest:
            return None
        kept_key, counts_references, kept = pickle.loads(data)
        if kept_key != key:
            return None
        if counts_references:
            rtsys.initialize(target_context)  # of all that Numba would have first, which takes it half a second
        return CompileResult._rebuild(target_context, *kept)

    def _content(self, name: str) -> bytes:
        """The content of a file, of the installation or in the folder; empty if there is none."""
        if name in CARRIED.files:
            return CARRIED.files[name]
        try:
            return b"" if self._folder is None else (trusted_folder(self._folder) / name).read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            _warn_once(error)
            return b""

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what has been compiled for these types."""
        if not self._enabled or self._folder is None or data.lifted or data.library.has_dynamic_globals:
            return  # neither loops as objects nor addresses outlive the process
        key = self._key(sig)
        counts_references = any(function.name.startswith("NRT_") for function in data.library._final_module.functions)
        pickled = dumps((key, counts_references, data._reduce()))
        try:
            _write(make_private_folder(self._folder) / self._name_of(key), hashlib.sha256(pickled).digest() + pickled)
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
