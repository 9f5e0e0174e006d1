"""Compiled kernels, kept from one process to the next.

There is one folder for each state of the code. Its name holds a digest of every module of this package, as its loader reads
it (a file, a member of a zip, bytecode without sources), and of the versions of fastnet, Numba, llvmlite, NumPy and Python.
Numba itself notices only an edit of the very file that a kernel stands in, and nothing in a zip. Where a module cannot be
read, nothing is kept.

fastnet takes the first of these places that it can write and that nobody else can change: $FASTNET_CACHE_DIR,
$NUMBA_CACHE_DIR, the user's cache folder, the system's folder for temporary files. Where there is none, kernels are compiled
anew in every process.

There is one file for each compiled version of a function, and a digest of the rest in its first bytes. Its name depends on
the CPU and on all settings of Numba that can change the code. What is in it is a pickle and machine code: it would run any
program that somebody else put there, and a damaged one would end the process. So the folder is checked each time it is used,
and a file whose digest does not match counts as missing. Numba's own cache has neither check, and keeps an index file
beside, which processes that start at once must take turns to write; here each file is complete when it gets its name, so
that nobody waits.
"""
import contextlib
import functools
import hashlib
import marshal
import os
import pickle
import pkgutil
import platform
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite
import numba
import numpy as np
from fastnet.kernels._system import expanded, make_private_folder, trusted_folder, user_cache
from numba.core import caching
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from fastnet._version import __version__

_DIGEST_BYTES = hashlib.sha256().digest_size

# --- where compiled code is kept ------------------------------------------------------------------------------------


def _modules(spec: ModuleSpec) -> Iterator[ModuleSpec]:
    """A module and all below it, in a fixed order and without importing them."""
    yield spec
    found = pkgutil.iter_modules(spec.submodule_search_locations or (), f"{spec.name}.")
    for module in sorted(found, key=lambda module: module.name):
        below = module.module_finder.find_spec(module.name, None)
        if below is None:
            raise ImportError(f"{module.name} is listed, but has no loader")
        yield from _modules(below)


def _content(spec: ModuleSpec) -> bytes:
    """What a module is made of: its file, or its bytecode where the loader has no files (as in frozen programs)."""
    loader: Any = spec.loader
    try:
        return loader.get_data(loader.get_filename(spec.name))
    except (AttributeError, ImportError, OSError):
        return marshal.dumps(loader.get_code(spec.name), 2)  # a later format depends on who else holds the constants


def _digest() -> str | None:
    """Digest of all that compiled kernels depend on but the CPU and Numba's settings; None where it cannot be known."""
    versions = __version__, numba.__version__, llvmlite.__version__, np.__version__, platform.python_version()
    total = hashlib.sha256(" ".join(versions).encode())
    spec = sys.modules[__package__].__spec__
    try:
        contents = {module.name: _content(module) for module in _modules(spec)} if spec else {}
    except (AttributeError, ImportError, OSError, ValueError):
        return None
    if __name__ not in contents or marshal.dumps(None, 2) in contents.values():  # a loader that lists or reads nothing
        return None
    for name, content in contents.items():
        total.update(f"{name} {len(content)} ".encode() + content)
    return total.hexdigest()[:16]


DIGEST = _digest()


def _places() -> Iterator[tuple[str, str]]:
    """Where the cache may stand, best first, each with the environment variable that names it."""
    for name in ("FASTNET_CACHE_DIR", "NUMBA_CACHE_DIR"):
        if os.environ.get(name):
            yield name, os.environ[name]
    if (cache := user_cache()) is not None:
        yield "", str(cache)
    user = os.geteuid() if hasattr(os, "geteuid") else os.environ.get("USERNAME", "")
    with contextlib.suppress(FileNotFoundError):  # there is none that can be written
        yield "", os.path.join(tempfile.gettempdir(), f"fastnet-{user}")


def _find_cache() -> Path | None:
    if DIGEST is None:
        warnings.warn("fastnet: Python cannot read the code of its kernels back, so that an update would go unnoticed. "
                      "Nothing compiled is kept: every process compiles anew, which takes many seconds.",
                      RuntimeWarning, stacklevel=2)
        return None
    refused = []
    for variable, place in _places():
        try:
            folder = make_private_folder(expanded(place) / f"kernels-{DIGEST}")
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


# Settings that leave the code as it is, or change it through the CPU's features, which Numba's own key has. All others
# belong to the key, those of later versions of Numba as well: at worst a kernel is compiled once more.
_HARMLESS = re.compile(
    ".*CUDA.*|.*NUM_THREADS|THREADING_LAYER.*|CPU_NAME|CPU_FEATURES|ENABLE_AVX|CACHE_.*|DEBUG_CACHE|FUNCTION_CACHE_SIZE|"
    "GDB_BINARY|COLOR_SCHEME|SHOW_HELP|FULL_TRACEBACKS|.*WARN.*|TRACE|CHROME_TRACE|JIT_COVERAGE|LLVM_PASS_TIMINGS|"
    "USE_LLVMLITE_MEMORY_MANAGER|RUNNING_UNDER_PROFILER|ENABLE_SYS_MONITORING|_.*")
_SETTINGS = sorted(name for name in vars(numba.config) if name.isupper() and not _HARMLESS.fullmatch(name))


def _settings() -> tuple[str, ...]:
    """Numba's settings that can change the code, as they are now: OPT, BOUNDSCHECK, DEBUGINFO_DEFAULT ..."""
    return tuple(f"{name}={vars(numba.config).get(name)!r}" for name in _SETTINGS)


@functools.cache
def _source_digest(file: str) -> str | None:
    """Digest of a file with kernels that is not in this package, as benchmarks and tests have; None if it is unreadable."""
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except (OSError, ValueError):
        return None


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
        ours = function.__module__.startswith(f"{__package__}.")  # `DIGEST` covers them
        self._source = "" if ours else _source_digest(function.__code__.co_filename)
        self._enabled = self._source is not None

    def flush(self) -> None:
        """Forget what is kept of this function."""
        with contextlib.suppress(OSError):
            for file in trusted_folder(self._cache_path).glob(f"{self._stem}-*.nbc"):
                file.unlink()

    def _key(self, signature: Any, codegen: Any) -> tuple:
        return (*self._index_key(signature, codegen), *_settings(), self._source)

    def _name_of(self, key: tuple) -> str:
        return f"{self._stem}-{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.nbc"

    def _load_overload(self, sig: Any, target_context: Any) -> Any:
        if not self._enabled:
            return None
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
        # neither loops as objects nor addresses outlive the process
        if not self._enabled or data.lifted or data.library.has_dynamic_globals:
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
