"""Images to rows and back: copies, with nothing to compile."""
import numpy as np
from fastnet.kernels.layout import to_write, written
from numba.extending import overload


def flatten_forward(y: np.ndarray, x: np.ndarray) -> None:
    """y[n, (c r + i) k + j] = x[n, c, i, j].

    y (n, c r k) C-contiguous, x (n, c, r, k) of any layout; one dtype. Overwrites y.
    """
    np.copyto(y.reshape(x.shape), x)


def flatten_backward(dx: np.ndarray, dy: np.ndarray) -> None:
    """dx[n, c, i, j] = dy[n, (c r + i) k + j].

    dx (n, c, r, k) C-contiguous, dy (n, c r k) of any layout; one dtype. Overwrites dx.
    """
    np.copyto(dx.reshape(dy.shape), dy)


@overload(flatten_forward)
def _compiled_forward(y, x):
    def in_compiled_code(y, x):
        result = to_write(y)
        result.reshape(x.shape)[...] = x
        written(y, result)

    return in_compiled_code


@overload(flatten_backward)
def _compiled_backward(dx, dy):
    def in_compiled_code(dx, dy):
        result = to_write(dx)
        result.reshape(dy.shape)[...] = dy
        written(dx, result)

    return in_compiled_code
