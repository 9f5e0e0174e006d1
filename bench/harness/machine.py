"""What this machine is, and what it can do at most: measured in the session that quotes it."""
from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba
import numpy as np
from fastnet.kernels._jit import jit
from fastnet.kernels.simd import MR, NV, VECTOR_BITS, copy_vector, lanes, micro_kernel, store
from fastnet.kernels.threads import available_cores, get_num_threads, run

PEERS = ("torch", "jax", "scikit-learn")
_PANEL_K = 128  # panels of this length and one tile's size stay in the L1 cache
_PANEL_B, _PANEL_C = 1 << 15, 1 << 17  # where they lie in a thread's scratch, in bytes
_SECONDS = 0.02  # one timing
_TIMINGS = 12
_REST = 0.05  # seconds between timings: a neighbour who comes for a moment must not be in all of them
_REFERENCE = (512, 512, 512)


@jit
def _tiles(thread, threads, sync, scratch, repeats, k, zero):
    """The micro-kernel on panels that stay in the L1 cache: the most that products can reach."""
    width = lanes(zero)
    panel_b, c = scratch + _PANEL_B, scratch + _PANEL_C
    for byte in range(0, _PANEL_C, VECTOR_BITS // 8 // width):
        store(scratch + byte, zero + 1)
    for _ in range(repeats):
        micro_kernel(MR, NV, scratch, k, 1, panel_b, width, (k + 1) * width, c, NV * width, width, width, k, zero + 1, zero,
             0, 0)


@jit
def _copy(thread, threads, sync, scratch, to, source, vectors, repeats, zero):
    """Copy vectors, this thread's share of them."""
    size = VECTOR_BITS // 8
    for _ in range(repeats):
        for vector in range(vectors * thread // threads, vectors * (thread + 1) // threads):
            copy_vector(to + vector * size, source + vector * size, zero)


def _best_rate(work: float, function: Callable[[int], object]) -> float:
    """The highest work per second of several timings; function(repeats) does repeats * work."""
    function(1)
    repeats, seconds = 1, 0.0
    while seconds < _SECONDS / 4:
        repeats *= 4
        seconds = _timed(function, repeats)
    repeats = max(1, round(repeats * _SECONDS / seconds))
    best = float("inf")
    for _ in range(_TIMINGS):
        time.sleep(_REST)
        best = min(best, _timed(function, repeats))
    return repeats * work / best


def _timed(function: Callable[[int], object], repeats: int) -> float:
    started = time.perf_counter()
    function(repeats)
    return time.perf_counter() - started


@functools.cache
def fma_peak(dtype: str) -> float:
    """FLOP/s of the micro-kernel alone, on all threads."""
    zero = np.dtype(dtype).type(0)
    width = VECTOR_BITS // 8 // zero.itemsize
    flops = 2 * MR * NV * width * _PANEL_K * get_num_threads()
    return _best_rate(flops, lambda repeats: run(_tiles, repeats, _PANEL_K, zero))


@functools.cache
def _copy_rate(size: int) -> float:
    source, to = np.ones((2, size // 8))
    vectors = size // (VECTOR_BITS // 8)
    return _best_rate(2 * size, lambda repeats: run(_copy, to.ctypes.data, source.ctypes.data, vectors, repeats, 0.0))


def copy_bandwidth(nbytes: float) -> float:
    """Bytes/s, read and written, of a plain copy on all threads that touches about `nbytes` in all."""
    return _copy_rate(2 ** max(14, min(28, round(np.log2(max(1, nbytes // 2))))))


@functools.cache
def reference_seconds() -> float:
    """Best time of one NumPy product: what stored runs are divided by to compare sessions."""
    m, n, k = _REFERENCE
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((m, k), (k, n)))
    return 1 / _best_rate(1, lambda repeats: [a @ b for _ in range(repeats)])


def limits() -> dict[str, Any]:
    """The machine's limits in this session: FLOP/s and bytes/s, and the reference product's seconds."""
    return {
        "fma_peak": {dtype: fma_peak(dtype) for dtype in ("float32", "float64")},
        "copy_bandwidth": {"cache": copy_bandwidth(1 << 18), "memory": copy_bandwidth(1 << 28)},
        "reference_seconds": reference_seconds(),
    }


def fingerprint() -> dict[str, Any]:
    """What a figure depends on: CPU, features, cores, threads and versions."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    versions = {name: version for name in PEERS if (version := _version(name))}
    return {
        "cpu": _cpu_name(), "llvm_cpu": llvm.get_host_cpu_name(), "features": _features(), "vector_bits": VECTOR_BITS,
        "cores": available_cores(), "threads": get_num_threads(), "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(), "numpy": np.__version__, "numba": numba.__version__,
        "llvmlite": llvmlite.__version__, "blas": f"{blas.get('name')} {blas.get('version')}", **versions,
    }


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
