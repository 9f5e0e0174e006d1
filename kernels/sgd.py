"""The step of stochastic gradient descent (3.10, 3.11)."""
import numpy as np
from fastnet.kernels._jit import jit
from fastnet.kernels._layout import contiguous, flat, plain
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
    def in_a_row(out, W, dW, lr):
        _update(out.reshape(-1), W.reshape(-1), dW.reshape(-1), W.dtype.type(lr))

    def one_by_one(out, W, dW, lr):
        rate = W.dtype.type(lr)
        for i in np.ndindex(W.shape):
            out[i] = W[i] - rate * dW[i]

    return in_a_row if contiguous(out, W, dW) else one_by_one
