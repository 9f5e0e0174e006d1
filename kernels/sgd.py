"""The step of stochastic gradient descent (3.10, 3.11)."""
import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.compiled_calls import array_kernel, at, elements_of, finish, in_compiled_code, opened
from fastnet.kernels.layout import flat, plain
from fastnet.kernels.records import vector_at
from fastnet.kernels.simd import cast_like
from numba import types


def sgd_update(out: np.ndarray, W: np.ndarray, dW: np.ndarray, lr: float) -> None:
    """out = W - lr dW (3.10, 3.11).

    out, W, dW: one shape of any number of dimensions, one dtype (float32 or float64); out C-contiguous, W and dW of any
    layout; lr is rounded to that dtype. Overwrites out, which may be W.
    """
    _update(flat(out), flat(plain(W)), flat(plain(dW)), W.dtype.type(lr))


@jit
def _update(out, W, dW, lr):
    for i in range(W.size):
        out[i] = W[i] - lr * dW[i]


@array_kernel(3, types.float64)
def _update_here(outcome, out, W, dW, lr, one):
    if opened(outcome, 1, (out, W, dW)):
        n = elements_of(W)
        _update(vector_at(at(out), n, one), vector_at(at(W), n, one), vector_at(at(dW), n, one),
                cast_like(lr, one))
        finish(outcome, 1, (out, W, dW))


in_compiled_code(sgd_update, _update_here, "out:* W:* dW:* lr")
