"""The command ``fastnet warmup``: it compiles the kernels, in as many processes as there are cores.

The processes share the kernels that compiled code calls by address, which are most of the work. Short trainings compile the
others, each dtype in a separate process, since the kernels of the two dtypes are independent.
"""
from __future__ import annotations

import queue
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np

from fastnet.cross_entropy import CrossEntropyLayer, one_hot
from fastnet.full import FullLayer
from fastnet.kernels import softmax
from fastnet.kernels.codegen.beside import CompilationError, Job, compile_all
from fastnet.kernels.gemm import blocking, commands, pixel_gram
from fastnet.kernels.program import gram, interpreter, ops
from fastnet.kernels.system import available_cores
from fastnet.relu import ReluLayer
from fastnet.sequential import Sequential
from fastnet.softmax import SoftMaxLayer
from fastnet.training.options import COMPILED

DTYPES = ("float32", "float64")
ENGINES = ("layers", *COMPILED)
_CHILD = ("import sys; from fastnet.cli.warm_up import compile_for; "
          "[print(part, flush=True) for part in compile_for(sys.argv[1])]")


# Those that others call come first
_ADDRESSED = (blocking.tile_loop, blocking.pack_columns, blocking.pack_copy, interpreter.steps, blocking.macro_kernel,
              softmax._softmax_rows, ops.softmax_cross_entropy, ops.update, ops.update_bias, gram.gram_update,
              gram.gram_first, ops.gather, ops.dense, ops.mask, ops.mean_loss, commands.work_off)


def addressed() -> list[Job]:
    """Return the kernels that the processes share."""
    return [(kernel.name, str(element)) for kernel in _ADDRESSED for element in kernel.elements()]


def parts() -> int:
    """Return the number of parts of `warm_up`."""
    return len(DTYPES) * len(ENGINES) + (len(addressed()) if available_cores() > 1 else 0)


def warm_up() -> Iterator[str]:
    """Compile all kernels for training, or load them from the cache; yield the name of each part when it is done.

    Raises
    ------
    CompilationError
        If a process that compiles has failed; it has printed the reason to the error stream.
    """
    if available_cores() > 1:
        for name, element in compile_all(addressed()):
            yield f"{element}, {name.rpartition(':')[2]}"
        yield from _in_processes()
    else:
        for dtype in DTYPES:
            yield from compile_for(dtype)


def compile_for(dtype: str) -> Iterator[str]:
    """Do what `warm_up` does for one dtype, in this process."""
    rng = np.random.default_rng(0)
    type_ = np.dtype(dtype).type
    pixel_gram(np.empty((2, 2), type_), np.zeros((2, 3), type_))  # for images, which the data below are not
    for engine in ENGINES:
        x, t = rng.normal(size=(12, 20)).astype(type_), one_hot(np.arange(12) % 3, 3, type_)
        model = Sequential((FullLayer(20, 16, type_, rng), ReluLayer(), FullLayer(16, 3, type_, rng), SoftMaxLayer()),
                           CrossEntropyLayer())
        model.fit(x, t, 1, 0.1, 8, engine=engine, validation=(x, t), progress=False)
        model.predict(x)
        yield f"{dtype}, engine {engine}"


def _in_processes() -> Iterator[str]:
    said: queue.Queue[str | None] = queue.Queue()

    def listen(child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        with child.stdout:
            for line in child.stdout:
                said.put(line.strip())
        child.wait()
        said.put(None)

    children = [subprocess.Popen([sys.executable, "-c", _CHILD, dtype], stdout=subprocess.PIPE, text=True)
                for dtype in DTYPES]
    try:
        for child in children:
            threading.Thread(target=listen, args=(child,), daemon=True).start()
        running = len(children)
        while running:
            part = said.get()
            if part is None:
                running -= 1
            else:
                yield part
        if any(child.returncode for child in children):
            raise CompilationError("the kernels could not be compiled.")
    finally:
        for child in children:
            if child.poll() is None:
                child.terminate()
            child.wait()
