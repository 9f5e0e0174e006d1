"""The command ``fastnet doctor``: facts about the machine, its speed, and advice."""
from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable
from typing import NamedTuple

import llvmlite
import numba
import numpy as np

from fastnet.cli.peak import Rate, fma_peak, measure
from fastnet.kernels.codegen.cache import DIGEST, UNREADABLE, cache_info
from fastnet.kernels.codegen.carried import CARRIED
from fastnet.kernels.gemm import matmul, pack, syrk
from fastnet.kernels.runtime.pool import get_num_threads
from fastnet.kernels.simd import MR, NV, TARGET, VECTOR_BITS
from fastnet.kernels.system import available_cores

DESCRIPTION = (
    "Show versions, CPU, threads and cache, measure the speed of matrix products (about 15 seconds), and advise on problems."
)


class Product(NamedTuple):
    """A measured matrix product."""

    what: str
    rate: Rate  # in FLOP/s

    def share(self, peak: Rate) -> float:
        """Return the rate as a share of the FMA peak measured in the same run."""
        return self.rate.best / peak.best


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare nothing: ``fastnet doctor`` has no arguments."""


def execute(_: argparse.Namespace) -> int:
    """Print the facts, measure, and print the advice."""
    for name, value in facts().items():
        print(f"{name:8s} {value}")
    print("\nMeasuring the speed of matrix products; this takes about 15 seconds ...", flush=True)
    measured = []
    for dtype in (np.float32, np.float64):
        peak, found = fma_peak(dtype), products(dtype)
        other_programs = busy(peak, found)
        print(f"\n{np.dtype(dtype).name}: peak of {peak.best / 1e9:.0f} GFLOP/s for multiply-adds on all threads. Products "
              "(higher is better):")
        for product in found:
            share = "machine busy" if other_programs else f"{product.share(peak):4.0%} of peak"
            print(f"  {product.what:36s} {product.rate.best / 1e9:6.0f} GFLOP/s  {share}")
        measured.append((peak, found))
    print("\n" + ("\n".join(f"! {line}" for line in advice(measured)) or "No problems found."))
    return 0


def products(dtype: np.dtype | type) -> list[Product]:
    """Measure the products of training the course network."""
    rng = np.random.default_rng(0)
    x, W, dy = (rng.normal(size=shape).astype(dtype) for shape in ((128, 3072), (500, 3072), (128, 500)))
    y, dW, dx = np.empty_like(dy), np.empty_like(W), np.empty_like(x)
    G, A = np.empty((1000, 1000), dtype), rng.normal(size=(1000, 3072)).astype(dtype)
    packed = pack(W.T)
    jobs: list[tuple[str, float, Callable[[], None]]] = [
        ("forward            128 x 500 x 3072", 2 * x.size * 500, lambda: matmul(y, x, W.T)),
        ("forward, packed    128 x 500 x 3072", 2 * x.size * 500, lambda: matmul(y, x, packed)),
        ("weight gradient    500 x 3072 x 128", 2 * x.size * 500, lambda: matmul(dW, dy.T, x)),
        ("input gradient     128 x 3072 x 500", 2 * x.size * 500, lambda: matmul(dx, dy, W)),
        ("x x.T, half    1000 x 1000 x 3072", A.size * 1000, lambda: syrk(G, A)),
    ]
    return [Product(what, measure(flops, lambda repeats, job=job: [job() for _ in range(repeats)],  # type: ignore[misc]
                                  get_num_threads())) for what, flops, job in jobs]


def facts() -> dict[str, str]:
    """Return versions, CPU, threads and cache, by name."""
    cache = cache_info()
    _, cpu, features = TARGET  # the CPU that Numba compiles for, which may differ from this one
    on = {feature[1:] for feature in features.split(",") if feature.startswith("+")}
    vectors = " ".join(name for name in ("sse4.2", "avx", "avx2", "fma", "avx512f", "neon", "sve") if name in on)
    return {
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "numpy": np.__version__,
        "numba": f"{numba.__version__}, llvmlite {llvmlite.__version__}",
        "cpu": f"{cpu} ({vectors or 'features by LLVM'})",
        "kernels": f"{VECTOR_BITS}-bit vectors, tile of {MR} rows x {NV} vectors",
        "threads": f"{get_num_threads()} of {available_cores()} usable cores ({os.cpu_count()} logical CPUs)",
        "compiled": (f"with the package, {len(CARRIED.files)} functions for {CARRIED.level}: " if CARRIED.level else
                     "on this machine: ") + CARRIED.reason,
        "cache": f"{cache.folder or 'none'}, {cache.kernels} compiled functions, {cache.size / 1e6:.1f} MB",
    }


def settings_of_compiler() -> list[str]:
    """Return the environment variables that make Numba compile for another CPU than this one."""
    config = vars(numba.config)  # type checkers do not see these attributes
    found = {"NUMBA_CPU_NAME": config["CPU_NAME"], "NUMBA_CPU_FEATURES": config["CPU_FEATURES"]}
    if config["CPU_NAME"] == "generic" and not config["CPU_FEATURES"]:
        del found["NUMBA_CPU_FEATURES"]  # the name implies it
    if "NUMBA_ENABLE_AVX" in os.environ and not config["ENABLE_AVX"]:
        found["NUMBA_ENABLE_AVX"] = "0"
    return [f"{name}={value}" for name, value in found.items() if value is not None]


def advice(measured: list[tuple[Rate, list[Product]]]) -> list[str]:
    """Return the problems of this machine, each with what to do; `measured` has a peak and products for each dtype."""
    found = []
    cache = cache_info()
    if DIGEST is None:
        found.append(f"fastnet does not store compiled kernels: {UNREADABLE}")
    elif cache.folder is None:
        found.append("fastnet cannot store compiled kernels, so that every start takes many seconds. Set FASTNET_CACHE_DIR "
                     "to a folder that you can write.")
    elif cache.kernels == 0 and CARRIED.level is None:
        found.append("No kernels are compiled yet. Run `fastnet warmup` once.")
    if get_num_threads() > available_cores():
        found.append(f"fastnet uses {get_num_threads()} threads on {available_cores()} usable cores, which is slow. Lower "
                     "FASTNET_NUM_THREADS.")
    if get_num_threads() < available_cores():
        found.append(f"fastnet does not use {available_cores() - get_num_threads()} of {available_cores()} usable cores. "
                     "Raise FASTNET_NUM_THREADS, unless you reserve them for other programs.")
    found += [f"{setting} may keep kernels from using all features of this CPU. Unset it."
              for setting in settings_of_compiler()]
    if VECTOR_BITS == 128 and platform.machine().lower() in ("x86_64", "amd64"):
        found.append("This CPU, or the virtual machine, has no AVX2. Products are several times slower without it.")
    # One line for all dtypes, although each may be busy by another figure.
    if why := next(filter(None, (busy(peak, products) for peak, products in measured)), ""):
        found.append(f"{why[0].upper()}{why[1:]}. The rates above are too low, and shares of the peak would be wrong. Try "
                     "again when no other programs run.")
    elif min(product.share(peak) for peak, products in measured for product in products) < 0.5:
        found.append("A product runs at less than half of the measured peak, although the machine is not busy. Please "
                     "report it with this output.")
    return found


def busy(peak: Rate, measured: list[Product]) -> str:
    """Return why shares of the peak would be wrong; an empty string if they are right."""
    # Idle cores during products are no sign of other programs: while one thread packs, the others wait.
    for why in (peak.busy, *[product.rate.unsteady for product in measured]):
        if why:
            return why
    if max(product.share(peak) for product in measured) > 1.1:
        return "the machine is busy: a product was faster than the peak measured before it"
    return ""
