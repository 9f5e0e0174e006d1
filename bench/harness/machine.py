"""What this machine is, and what it can do at most: measured in the session that quotes it."""
from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba
import numpy as np
from fastnet.kernels.runtime.pool import get_num_threads
from fastnet.kernels.simd import VECTOR_BITS
from fastnet.kernels.system import available_cores

from fastnet.cli import peak

PEERS = ("torch", "jax", "scikit-learn")
_REFERENCE = (512, 512, 512)


@functools.cache
def _peak_rate(dtype: str) -> peak.Rate:
    return peak.fma_peak(dtype)


def fma_peak(dtype: str) -> float:
    """FLOP/s of the micro-kernel alone, on all threads."""
    return _peak_rate(dtype).best


@functools.cache
def _copy_rate(size: int) -> float:
    return peak.copy_rate(size).best


def copy_bandwidth(nbytes: float) -> float:
    """Bytes/s, read and written, of a plain copy on all threads that touches about `nbytes` in all."""
    return _copy_rate(2 ** max(14, min(28, round(np.log2(max(1, nbytes // 2))))))


@functools.cache
def reference_seconds() -> float:
    """Best time of one NumPy product: what stored runs are divided by to compare sessions."""
    m, n, k = _REFERENCE
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((m, k), (k, n)))
    return 1 / peak.measure(1, lambda repeats: [a @ b for _ in range(repeats)], get_num_threads()).best


def limits() -> dict[str, Any]:
    """The machine's limits in this session: FLOP/s, bytes/s, the reference product's seconds; and whether it was busy."""
    return {
        "fma_peak": {dtype: fma_peak(dtype) for dtype in ("float32", "float64")},
        "busy": _peak_rate("float32").busy or _peak_rate("float64").busy,
        "copy_bandwidth": {"cache": copy_bandwidth(1 << 18), "memory": copy_bandwidth(1 << 28)},
        "reference_seconds": reference_seconds(),
    }


def fingerprint() -> dict[str, Any]:
    """What a figure depends on: CPU, features, cores, threads and versions."""
    versions = {name: version for name in PEERS if (version := _version(name))}
    return {
        "cpu": _cpu_name(), "llvm_cpu": llvm.get_host_cpu_name(), "features": _features(), "vector_bits": VECTOR_BITS,
        "cores": available_cores(), "threads": get_num_threads(), "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(), "numpy": np.__version__, "numba": numba.__version__,
        "llvmlite": llvmlite.__version__, "blas": _blas(), **versions,
    }


def _blas() -> str:
    """Name and version of the library behind NumPy's products, as NumPy was built; NumPy 1.24 does not keep them."""
    try:
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    except TypeError:  # no mode
        return "unknown"
    return f"{blas.get('name')} {blas.get('version')}"


def _version(name: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return None


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        if found:
            return found.group(1)
    return platform.processor() or platform.machine()


def _features() -> str:
    """The vector features that matter here, of the many a CPU has."""
    known = ("sse2", "avx", "avx2", "fma", "avx512f", "avx512vl", "neon", "sve")
    host = llvm.get_host_cpu_features()
    return " ".join(name for name in known if host.get(name))


def load_average() -> float | None:
    """Programs that want to run, of the last minute; None where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
