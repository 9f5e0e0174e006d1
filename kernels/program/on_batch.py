"""One training step per call from Python, for loops written by hand: `interpreter.train` with its arguments in a record.

A call passes two arrays and three numbers, where `interpreter.train` has thirty to unpack, and goes on to the threads
without going back to Python.
"""
import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.codegen.layout import for_dtypes
from fastnet.kernels.codegen.linking import thread_kernel
from fastnet.kernels.program.gram import Gram
from fastnet.kernels.program.interpreter import train
from fastnet.kernels.records import SGD, STEP, Data, Hyperparameters, op_at, rows_at, step_at, vector_at
from fastnet.kernels.runtime.pool import SYNC_SIZE, run_compiled
from fastnet.kernels.simd import cast_like, pointer_at
from numba import carray, types

_LOSS, _SCALES = (STEP.fields[name][1] for name in ("loss", "scales"))  # bytes from the record's address


@jit
def _work(thread, threads, sync, scratch, record, like):
    step, zero = step_at(record), cast_like(0, like)
    ops, order = vector_at(step.ops, step.count, op_at(step.ops)), vector_at(step.order, step.n, 1)
    targets = rows_at(step.t, step.n, step.outputs, like)
    data = Data(step.x, step.x_row, targets, order, False, step.rows, step.rows_row)
    none, nothing = rows_at(record, 0, 0, like), carray(pointer_at(record, like), (0, 0, 0))
    gram = Gram(none, none, nothing, nothing, vector_at(record + _SCALES, 5, 1.0), 0)
    hyper = Hyperparameters(cast_like(step.lr, like), zero, zero, SGD, 0, 0, zero, zero, zero)
    train(thread, threads, vector_at(sync, SYNC_SIZE, 1), scratch, ops, data, gram, hyper, step.n, 0, step.n,
          vector_at(record + _LOSS, 1, 1.0))


def _work_f32(thread, threads, sync, scratch, record):
    _work(thread, threads, sync, scratch, record, np.float32(0))


def _work_f64(thread, threads, sync, scratch, record):
    _work(thread, threads, sync, scratch, record, np.float64(0))


_step = thread_kernel({types.float32: _work_f32, types.float64: _work_f64})


def kernel_for(dtype: np.dtype) -> int:
    """The `function` of a `STEP` for elements of this dtype."""
    return _step.address(dtype)


@for_dtypes(lambda t: (types.Array(t, 2, "A", readonly=True), types.Array(t, 2, "C"), types.float64, *[types.int64] * 2))
def step_entry(x, t, lr, record, caller):
    """One step on a batch x (n, n_i), t (n, outputs), by plain SGD; False, with nothing done, if threads are missing yet.

    `record` is the address of a `STEP`, which has the loss afterwards. Rows of x are contiguous.
    """
    step = step_at(record)
    step.x, step.x_row, step.t, step.n = x.ctypes.data, x.strides[0] // x.itemsize, t.ctypes.data, x.shape[0]
    step.lr = cast_like(lr, t.dtype.type(0))
    return run_compiled(caller, step.function, record, step.most)
