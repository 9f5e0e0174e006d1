"""What compiled kernels depend on: the sources of this package, versions, and settings of Numba."""
import contextlib
import hashlib
import pkgutil
import platform
import re
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec
from types import CodeType
from typing import Any

import llvmlite
import numba
import numpy as np

from fastnet._version import __version__

KERNELS = __package__.rpartition(".")[0]  # fastnet.kernels

# What decides which machine code comes out of the same sources. Numba takes NumPy's rules for types from NumPy, which has
# changed them with its major version only.
VERSIONS = {"fastnet": __version__, "Numba": numba.__version__, "llvmlite": llvmlite.__version__,
            "NumPy": np.__version__.partition(".")[0],
            "Python": f"{sys.implementation.cache_tag}{getattr(sys, 'abiflags', '')}"}


def _modules(path: Iterable[str], prefix: str) -> Iterator[ModuleSpec]:
    """The modules below a package, in a fixed order and without importing them."""
    for found in sorted(pkgutil.iter_modules(path, prefix), key=lambda found: found.name):
        spec = found.module_finder.find_spec(found.name, None)
        if spec is not None:
            yield spec
            yield from _modules(spec.submodule_search_locations or (), f"{found.name}.")


def _content(spec: ModuleSpec) -> bytes | None:
    """What a module is made of: its file, in a folder or in a zip, or else its code; None if the loader has neither."""
    loader: Any = spec.loader
    with contextlib.suppress(AttributeError, OSError):  # not a loader of files; its file is no more, or in an archive
        return loader.get_data(spec.origin)
    with contextlib.suppress(AttributeError, ImportError, OSError):
        code = loader.get_code(spec.name)
        return None if code is None else repr(_described(code)).encode()
    return None


def _described(part: object) -> object:
    """Compiled Python in a form whose `repr` is the same in every process: all that decides what it does."""
    if isinstance(part, CodeType):
        return (part.co_code, part.co_names, part.co_varnames, part.co_freevars, part.co_flags,
                getattr(part, "co_exceptiontable", b""), *map(_described, part.co_consts))
    return sorted(map(repr, part)) if isinstance(part, frozenset) else part


def _sources() -> str | None:
    """Digest of every module of this package, and of `VERSIONS`; None where one cannot be read, or none is found."""
    package = sys.modules[KERNELS]
    total = hashlib.sha256(repr(VERSIONS).encode())
    modules = list(_modules(package.__path__, f"{package.__name__}."))
    for spec in [package.__spec__, *modules]:
        content = _content(spec)
        if content is None:
            return None
        total.update(f"\0{spec.name}\0{len(content)}\0".encode() + content)
    return total.hexdigest() if modules else None


SOURCES = _sources()

# What the folder of the cache is called after: exact versions, as nothing is lost by compiling once more
DIGEST = None if SOURCES is None else hashlib.sha256(
    f"{SOURCES} {np.__version__} {platform.python_version()}".encode()).hexdigest()[:16]

# Settings of Numba that leave compiled code as it is, or whose effect on it is known from the CPU in the key. All others
# are part of the key, also those of a Numba to come: at worst something is compiled twice.
_WITHOUT_EFFECT = re.compile(
    ".*CUDA.*|.*NUM_THREADS|THREADING_LAYER.*|CPU_NAME|CPU_FEATURES|ENABLE_AVX|CACHE_.*|DEBUG_CACHE|FUNCTION_CACHE_SIZE|"
    "GDB_BINARY|COLOR_SCHEME|SHOW_HELP|FULL_TRACEBACKS|.*WARN.*|TRACE|CHROME_TRACE|JIT_COVERAGE|LLVM_PASS_TIMINGS|"
    "USE_LLVMLITE_MEMORY_MANAGER|RUNNING_UNDER_PROFILER|ENABLE_SYS_MONITORING")


def settings() -> list[tuple[str, str]]:
    """Settings of Numba, as they are now, that may change what it compiles: NUMBA_OPT, NUMBA_BOUNDSCHECK, ..."""
    return sorted((name, repr(value)) for name, value in vars(numba.config).items()
                  if name.isupper() and not name.startswith("_") and not _WITHOUT_EFFECT.fullmatch(name))
