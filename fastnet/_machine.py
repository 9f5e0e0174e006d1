"""What the commands `warmup` and `doctor` do: compile what the main job needs, and look at the machine."""
from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import llvmlite
import llvmlite.binding as llvm
import numba
import numpy as np

from fastnet.cross_entropy import CrossEntropyLayer, one_hot
from fastnet.full import FullLayer
from fastnet.kernels._cache import cache_info
from fastnet.kernels._jit import jit
from fastnet.kernels.gemm import matmul, pack, syrk
from fastnet.kernels.simd import MR, NV, VECTOR_BITS, lanes, micro_kernel
from fastnet.kernels.threads import available_cores, get_num_threads, run
from fastnet.relu import ReluLayer
from fastnet.sequential import Sequential
from fastnet.softmax import SoftMaxLayer
from fastnet.training.plan import ENGINES

_REPEATS = 400
_ROUNDS = 7
_CPU_NAME = vars(numba.config)["CPU_NAME"]  # of $NUMBA_CPU_NAME; numba sets it in a way that type checkers miss


class Rate(NamedTuple):
    """A measured product."""

    what: str
    gflops: float
    share: float  # of the FMA peak measured in the same run


def warm_up() -> Iterator[str]:
    """Compile, or load from the cache, all that training needs; yields what was done after each part."""
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        x, t = rng.normal(size=(12, 20)).astype(dtype), one_hot(np.arange(12) % 3, 3, dtype)
        for engine in ENGINES:
            model = Sequential((FullLayer(20, 16, dtype, rng), ReluLayer(), FullLayer(16, 3, dtype, rng),
                                SoftMaxLayer()), CrossEntropyLayer())
            model.fit(x, t, 1, 0.1, 8, engine=engine, validation=(x, t), progress=False)
            model.predict(x)
            yield f"{np.dtype(dtype).name}, engine {engine}"


@jit
def fma_peak_kernel(thread, threads, sync, scratch, k, repeats, one):
    """The micro-kernel on operands that stay in the L1 cache: what the multipliers can do."""
    width = lanes(one)
    for _ in range(repeats):
        micro_kernel(MR, NV, scratch, k, 1, scratch, width * NV, width, scratch + 24576, width * NV, width, width, k,
             one, one - one, 0, 0)


def fma_peak(dtype: np.dtype | type) -> float:
    """GFLOP/s of multiply-adds on all threads, measured now."""
    one, k = np.dtype(dtype).type(1), 64
    width = VECTOR_BITS // 8 // one.itemsize
    flops = 2.0 * MR * NV * width * k * _REPEATS * get_num_threads() * 10
    return flops / _seconds(lambda: run(fma_peak_kernel, k, _REPEATS * 10, one), min) / 1e9


def product_rates(dtype: np.dtype | type, peak: float) -> list[Rate]:
    """The products of training the course network, measured now."""
    rng = np.random.default_rng(0)
    x, W, dy = (rng.normal(size=shape).astype(dtype) for shape in ((128, 3072), (500, 3072), (128, 500)))
    y, dW, dx = np.empty_like(dy), np.empty_like(W), np.empty_like(x)
    G, A = np.empty((1000, 1000), dtype), rng.normal(size=(1000, 3072)).astype(dtype)
    kept = pack(W.T)
    jobs: list[tuple[str, float, Callable[[], None]]] = [
        ("forward            128 x 500 x 3072", 2 * x.size * 500, lambda: matmul(y, x, W.T)),
        ("forward, kept      128 x 500 x 3072", 2 * x.size * 500, lambda: matmul(y, x, kept)),
        ("weight gradient    500 x 3072 x 128", 2 * x.size * 500, lambda: matmul(dW, dy.T, x)),
        ("input gradient     128 x 3072 x 500", 2 * x.size * 500, lambda: matmul(dx, dy, W)),
        ("x x.T, half    1000 x 1000 x 3072", A.size * 1000, lambda: syrk(G, A)),
    ]
    rates = []
    for what, flops, job in jobs:
        gflops = flops / _seconds(job, statistics.median) / 1e9
        rates.append(Rate(what, gflops, gflops / peak))
    return rates


def _seconds(job: Callable[[], None], summary: Callable[[list[float]], float]) -> float:
    job()
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        job()
        times.append(time.perf_counter() - start)
    return summary(times)


def facts() -> dict[str, str]:
    """Versions, CPU, threads, cache."""
    cache = cache_info()
    flags = llvm.get_host_cpu_features()
    vectors = [name for name in ("sse4.2", "avx", "avx2", "fma", "avx512f", "neon", "sve") if flags.get(name)]
    return {
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "numpy": np.__version__,
        "numba": f"{numba.__version__}, llvmlite {llvmlite.__version__}",
        "cpu": f"{_CPU_NAME or llvm.get_host_cpu_name()} ({' '.join(vectors) or 'no vector unit known'})",
        "kernels": f"{VECTOR_BITS}-bit vectors, tile of {MR} rows x {NV} vectors",
        "threads": f"{get_num_threads()} of {available_cores()} usable cores ({os.cpu_count()} logical CPUs)",
        "cache": f"{cache.folder or 'none'}, {cache.kernels} compiled functions, {cache.size / 1e6:.1f} MB",
    }


def advice(rates: list[Rate]) -> list[str]:
    """What is odd about this machine, and what to do about it."""
    found = []
    cache = cache_info()
    if cache.folder is None:
        found.append("Compiled kernels are not kept, so that every start takes many seconds: set FASTNET_CACHE_DIR to a "
                     "folder that can be written.")
    elif cache.kernels == 0:
        found.append("Nothing is compiled yet: run `fastnet warmup` once.")
    if get_num_threads() > available_cores():
        found.append(f"More threads ({get_num_threads()}) than usable cores ({available_cores()}) wait for each other: "
                     "lower FASTNET_NUM_THREADS.")
    if get_num_threads() < available_cores():
        found.append(f"{available_cores() - get_num_threads()} usable cores stand idle: raise FASTNET_NUM_THREADS, unless "
                     "they are meant for something else.")
    if _CPU_NAME:
        found.append(f"NUMBA_CPU_NAME={_CPU_NAME} may keep kernels from using all of this CPU: unset it.")
    if VECTOR_BITS == 128 and platform.machine().lower() in ("x86_64", "amd64"):
        found.append("This CPU, or the virtual machine's picture of it, has no AVX2: products take several times as long.")
    if min(rate.share for rate in rates) < 0.5:
        found.append("A product runs at less than half of the measured peak: something else probably uses the cores. "
                     "Try again on a quiet machine.")
    return found
