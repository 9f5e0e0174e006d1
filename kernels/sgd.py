"""The step of stochastic gradient descent (3.10, 3.11)."""
import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.layout import flat, plain, to_read, to_write, written
from numba.extending import overload


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


@overload(sgd_update)
def _compiled_update(out, W, dW, lr):
    def in_compiled_code(out, W, dW, lr):
        result = to_write(out)
        _update(result.reshape(-1), to_read(W).reshape(-1), to_read(dW).reshape(-1), W.dtype.type(lr))
        written(out, result)

    return in_compiled_code
