"""One training step per call from Python, for loops that somebody writes by hand: `interpreter.steps`, its job kept.

A call passes two arrays and three numbers, writes them into the record, and goes on to the threads without going back to
Python.
"""
import numpy as np
from fastnet.kernels.layout import for_dtypes
from fastnet.kernels.program.interpreter import steps
from fastnet.kernels.records import JOB, job_at
from fastnet.kernels.runtime.pool import UNLIMITED, run_compiled
from fastnet.kernels.simd import cast_like, load_int
from numba import types

# A job, and how it is run: `function` on at most `most` threads. `loss` is the result.
RECORD = np.dtype([*JOB.descr, ("function", "i8"), ("most", "i8"), ("loss", "f8")])
_FUNCTION, _MOST, LOSS = (RECORD.fields[name][1] for name in ("function", "most", "loss"))


def step_function() -> int:
    """What `function` is in a record."""
    return steps.address()


@for_dtypes(lambda t: (types.Array(t, 2, "A", readonly=True), types.Array(t, 2, "C"), types.float64, *[types.int64] * 2))
def step_entry(x, t, lr, job, caller):
    """One step on a batch x (n, n_i), t (n, outputs), by plain SGD; False, with nothing done, if threads are missing yet.

    `job` is the address of the record, which has the loss afterwards. Rows of x are contiguous.
    """
    asked = job_at(job)
    asked.source, asked.source_row = x.ctypes.data, x.strides[0] // x.itemsize
    asked.targets = t.ctypes.data
    asked.batch_size = asked.stop = x.shape[0]
    asked.lr = cast_like(lr, t.dtype.type(0))
    return run_compiled(caller, load_int(job + _FUNCTION), job, load_int(job + _MOST), UNLIMITED)
