"""The command ``fastnet warmup``: it compiles the kernels, in as many processes as there are cores.

The processes share the kernels that compiled code calls by address, which are most of the work. Then they share short
trainings, one for each dtype and engine, which compile the other kernels.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import numpy as np

from fastnet.cli import cache, failed
from fastnet.cross_entropy import CrossEntropyLayer, one_hot
from fastnet.full import FullLayer
from fastnet.kernels import softmax
from fastnet.kernels.codegen import beside
from fastnet.kernels.codegen.beside import CompilationError, Job, compile_all
from fastnet.kernels.gemm import blocking, commands, pixel_gram, product
from fastnet.kernels.gemm.sparse import sparse_kernel
from fastnet.kernels.program import gram, interpreter, ops
from fastnet.kernels.system import available_cores
from fastnet.relu import ReluLayer
from fastnet.sequential import Sequential
from fastnet.softmax import SoftMaxLayer
from fastnet.training.options import COMPILED

DESCRIPTION = (
    "Compile the kernels for float32 and float64 and store them in the cache, so that the first fit starts at once. This "
    "takes about a minute on two cores, and a second if they are compiled already."
)

DTYPES = ("float32", "float64")
ENGINES = ("layers", *COMPILED)

# Kernels that other kernels call come first
_ADDRESSED = (blocking.tile_loop, blocking.pack_columns, blocking.pack_copy, interpreter.steps, blocking.macro_kernel,
              blocking.transposed_kernel, sparse_kernel, product.product_kernel,
              softmax.normalise_rows, ops.softmax_cross_entropy, ops.update, ops.update_bias, gram.gram_update,
              gram.gram_first, ops.gather, ops.dense, ops.mask, ops.mean_loss, commands.execute,
              commands.packing, commands.product, commands.few_rows, commands.column_sums, commands.sgd,
              commands.gram_product)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare nothing: ``fastnet warmup`` has no arguments."""


def execute(_: argparse.Namespace) -> int:
    """Compile the kernels with a progress bar, and show the cache."""
    from tqdm import tqdm

    try:
        print("Compiling the kernels; this takes about a minute on two cores.", file=sys.stderr)
        with tqdm(warm_up(), total=parts(), unit="part", desc="compiling") as bar:
            for part in bar:
                bar.set_postfix_str(part)
    except CompilationError as error:
        return failed(error)
    return cache.show()


def kernels() -> list[Job]:
    """Return the kernels that several processes compile first."""
    return [(kernel.name, str(element)) for kernel in _ADDRESSED for element in kernel.elements()]


def fits() -> list[Job]:
    """Return the dtype and the engine of each training that compiles, or loads, all other kernels."""
    return [(dtype, engine) for engine in ENGINES for dtype in DTYPES]


def parts() -> int:
    """Return the number of parts of `warm_up`."""
    return len(fits()) + (len(kernels()) if available_cores() > 1 else 0)


def warm_up() -> Iterator[str]:
    """Compile, or load from the cache, all that training needs; yield a description of each part that is done.

    Raises
    ------
    CompilationError
        If a process that compiles has failed. It prints the reason to the error stream.
    """
    if available_cores() > 1:
        for name, element in compile_all(kernels()):
            yield f"{element}, {name.rpartition(':')[2]}"
        for dtype, engine in compile_all(fits(), module=__name__):
            yield f"{dtype}, engine {engine}"
    else:
        for dtype, engine in fits():
            fit(dtype, engine)
            yield f"{dtype}, engine {engine}"


def fit(dtype: str, engine: str) -> None:
    """Train a small network, and predict with it."""
    rng = np.random.default_rng(0)
    type_ = np.dtype(dtype).type
    sparse_kernel.address(np.dtype(dtype))
    if engine == "gram":
        pixel_gram(np.empty((2, 2), type_), np.zeros((2, 3), type_))  # the kernel for images; the data below are none
    x, t = rng.normal(size=(12, 20)).astype(type_), one_hot(np.arange(12) % 3, 3, type_)
    model = Sequential((FullLayer(20, 16, type_, rng), ReluLayer(), FullLayer(16, 3, type_, rng), SoftMaxLayer()),
                       CrossEntropyLayer())
    model.fit(x, t, 1, 0.1, 8, engine=engine, validation=(x, t), progress=False)
    model.predict(x)


def serve() -> None:
    """Run the jobs of `compile_all` in one of its processes."""
    beside.serve(fit)
