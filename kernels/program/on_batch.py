"""One training step per call from Python, for loops that somebody writes by hand: `step.train`, its arguments in a record.

A call passes two arrays and three numbers, where those of `step.train` are some thirty to unpack, and goes on to the threads
without going back to Python.
"""
import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.codegen.layout import for_dtypes
from fastnet.kernels.codegen.linking import thread_kernel
from fastnet.kernels.program.gram import Gram
from fastnet.kernels.program.interpreter import train
from fastnet.kernels.records import SGD, Data, Hyperparameters, op_at, rows_at, vector_at
from fastnet.kernels.runtime.pool import SYNC_SIZE, run_compiled
from fastnet.kernels.simd import cast_like, load, load_int, pointer_at, store, store_int
from numba import carray, types

# Places in the record, in int64 numbers. FUNCTION: see `kernel_for`. OPS, COUNT: the program. ORDER: address of 0, 1, 2, ...
# ROWS, ROWS_ROW: as of `structs.Data`. OUTPUTS: columns of the targets. MOST: threads. LOSS: the result, a float64. Each
# call fills in the rest, but for the last five: they belong to `Gram`, which is not used.
FUNCTION, OPS, COUNT, ORDER, ROWS, ROWS_ROW, OUTPUTS, MOST, LOSS, _X, _X_ROW, _T, _N, _LR, _SCALES = range(15)
SIZE = _SCALES + 5


@jit
def _work(thread, threads, sync, scratch, job, like):
    n, zero, at = load_int(job + 8 * _N), cast_like(0, like), load_int(job + 8 * OPS)
    ops = vector_at(at, load_int(job + 8 * COUNT), op_at(at))
    order = vector_at(load_int(job + 8 * ORDER), n, 1)
    targets = rows_at(load_int(job + 8 * _T), n, load_int(job + 8 * OUTPUTS), like)
    data = Data(load_int(job + 8 * _X), load_int(job + 8 * _X_ROW), targets, order, False, load_int(job + 8 * ROWS),
                load_int(job + 8 * ROWS_ROW))
    none, nothing = rows_at(job, 0, 0, like), carray(pointer_at(job, like), (0, 0, 0))
    gram = Gram(none, none, nothing, nothing, vector_at(job + 8 * _SCALES, 5, 1.0), 0)
    hyper = Hyperparameters(load(job + 8 * _LR, like), zero, zero, SGD, 0, 0, zero, zero, zero)
    train(thread, threads, vector_at(sync, SYNC_SIZE, 1), scratch, ops, data, gram, hyper, n, 0, n,
          vector_at(job + 8 * LOSS, 1, 1.0))


def _work_f32(thread, threads, sync, scratch, job):
    _work(thread, threads, sync, scratch, job, np.float32(0))


def _work_f64(thread, threads, sync, scratch, job):
    _work(thread, threads, sync, scratch, job, np.float64(0))


_step = thread_kernel({types.float32: _work_f32, types.float64: _work_f64})


def kernel_for(dtype: np.dtype) -> int:
    """What stands at FUNCTION in a record for elements of this dtype."""
    return _step.address(dtype)


@for_dtypes(lambda t: (types.Array(t, 2, "A", readonly=True), types.Array(t, 2, "C"), types.float64, *[types.int64] * 2))
def step_entry(x, t, lr, job, caller):
    """One step on a batch x (n, n_i), t (n, outputs), by plain SGD; False, with nothing done, if threads are missing yet.

    `job` is the address of the record, which has the loss afterwards. Rows of x are contiguous.
    """
    store_int(job + 8 * _X, x.ctypes.data)
    store_int(job + 8 * _X_ROW, x.strides[0] // x.itemsize)
    store_int(job + 8 * _T, t.ctypes.data)
    store_int(job + 8 * _N, x.shape[0])
    store(job + 8 * _LR, cast_like(lr, t.dtype.type(0)))
    return run_compiled(caller, load_int(job + 8 * FUNCTION), job, load_int(job + 8 * MOST))
