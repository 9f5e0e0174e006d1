"""The one place that decides how kernels are compiled, and where the compiled code is kept.

The cache lives in one folder for each state of the sources: its name holds a digest of every file of this package and
the versions of Numba, llvmlite and Python, because Numba itself only notices an edit in the very file that a kernel
stands in. The first of these places that can be written is used: $FASTNET_CACHE_DIR, $NUMBA_CACHE_DIR, the user's cache
folder, the system's folder for temporary files. Where none can, kernels are compiled anew in every process.
"""
import contextlib
import hashlib
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite
import numba
import platformdirs
from numba import config, njit, types

if os.name == "nt":
    import msvcrt
else:
    import fcntl

# LLVM may fuse a*b + c and reorder sums; it may never assume that NaN and inf do not occur.
FASTMATH = {"contract", "reassoc", "nsz", "arcp", "afn"}


# --- where compiled code is kept ------------------------------------------------------------------------------------


def _digest() -> str:
    """Of everything that compiled kernels depend on, but for the CPU, which Numba looks at."""
    total = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__} {platform.python_version()}".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        total.update(source.name.encode() + b"\0" + source.read_bytes())
    return total.hexdigest()[:16]


def _places() -> Iterator[Path]:
    for name in ("FASTNET_CACHE_DIR", "NUMBA_CACHE_DIR"):
        if os.environ.get(name):
            yield Path(os.environ[name])
    with contextlib.suppress(RuntimeError):  # no home
        yield Path(platformdirs.user_cache_dir("fastnet", appauthor=False))
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    yield Path(tempfile.gettempdir(), f"fastnet-{user}")


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
            return False  # cached code is run: never from a folder that somebody else made
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _find_cache() -> Path | None:
    name = f"kernels-{_digest()}"
    for place in _places():
        if _writable(place / name):
            return place / name
    warnings.warn("fastnet: no folder for compiled kernels can be written, so they are compiled anew in every process. "
                  "Set FASTNET_CACHE_DIR to a folder of yours.", RuntimeWarning, stacklevel=2)
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
    files = [file for file in CACHE.rglob("*") if file.is_file()]
    others = [folder for folder in CACHE.parent.glob("kernels-*") if folder != CACHE]
    return CacheInfo(CACHE, sum(file.suffix == ".nbc" for file in files), sum(file.stat().st_size for file in files),
                     len(others))


def clear_cache() -> int:
    """Remove the compiled kernels of this and all other versions; returns how many folders went."""
    folders = [] if CACHE is None else list(CACHE.parent.glob("kernels-*"))
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    return len(folders)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time; the system lets go of the lock when a process dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a+b") as file:
        if os.name == "nt":
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file unlocks it


def _keep_compiled(dispatcher: Any, folder: Path) -> None:
    """Have Numba keep a dispatcher's compiled code in a folder.

    Numba notes in one file which compiled version is in which other file. Two processes that save at once could each
    take the same name for different code; so they take turns.
    """
    before, config.CACHE_DIR = config.CACHE_DIR, str(folder)
    try:
        dispatcher.enable_caching()
    finally:
        config.CACHE_DIR = before
    cache = dispatcher._cache
    save = cache.save_overload

    def save_alone(*args: Any) -> None:
        with contextlib.suppress(OSError), _alone(folder):  # a full disk costs time, not the result
            save(*args)

    cache.save_overload = save_alone


# --- the decorators -------------------------------------------------------------------------------------------------


def _compiler(fastmath: set[str]) -> Callable[[Callable], Any]:
    """A decorator: nogil, because a pool of our own threads enters kernels; NumPy's rules for division by zero."""

    def compile_lazily(function: Callable) -> Any:
        dispatcher = njit(nogil=True, error_model="numpy", fastmath=fastmath)(function)
        # Called by another kernel with a constant, Numba would compile a version for that very constant: the product
        # alone, called with 0 and 1 for many things, nine times over. One version for all numbers is enough.
        resolve = dispatcher.get_call_template
        dispatcher.get_call_template = lambda args, kws: resolve([types.unliteral(arg) for arg in args], kws)
        if CACHE is not None:
            _keep_compiled(dispatcher, CACHE)
        return dispatcher

    return compile_lazily


jit = _compiler(FASTMATH)

# For arithmetic whose order is its meaning (an argument reduced in two parts): fused, but never reordered.
jit_exact = _compiler({"contract"})
