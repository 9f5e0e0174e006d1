"""One training step per call from Python, for loops that somebody writes by hand: `interpreter.steps`, its job kept.

A call passes two arrays and three numbers, writes them into the record, and goes on to the threads without going back to
Python.
"""
import numpy as np
from fastnet.kernels.codegen.linking import pays
from fastnet.kernels.gemm.sparse import sparse_kernel
from fastnet.kernels.layout import for_dtypes
from fastnet.kernels.program.interpreter import steps
from fastnet.kernels.records import JOB, job_at
from fastnet.kernels.runtime.pool import UNLIMITED, run_compiled
from fastnet.kernels.simd import cast_like, load_int
from numba import types

# A job, and how it is run: `function` on at most `most` threads. `loss` is the result, `work` the multiply-adds a sample.
RECORD = np.dtype([*JOB.descr, ("function", "i8"), ("most", "i8"), ("loss", "f8"), ("work", "i8")])
_FUNCTION, _MOST, LOSS, _WORK = (RECORD.fields[name][1] for name in ("function", "most", "loss", "work"))


def step_function() -> int:
    """What `function` is in a record."""
    return steps.address()


@for_dtypes(lambda t: (types.Array(t, 2, "A", readonly=True), types.Array(t, 2, "C"), types.float64, *[types.int64] * 2))
def step_entry(x, t, lr, job, context):
    """One step on a batch x (n, n_i), t (n, outputs), by plain SGD; False, with nothing done, if something is missing yet.

    `job` is the address of the record, which has the loss afterwards. Rows of x are contiguous.
    """
    if pays(sparse_kernel, x.shape[0] * load_int(job + _WORK), t.dtype.type(0)):
        return False
    record = job_at(job)
    record.source, record.source_row = x.ctypes.data, x.strides[0] // x.itemsize
    record.targets = t.ctypes.data
    record.batch_size = record.stop = x.shape[0]
    record.lr = cast_like(lr, t.dtype.type(0))
    return run_compiled(context, load_int(job + _FUNCTION), job, load_int(job + _MOST), UNLIMITED)
