"""Images to rows and back: copies."""
import numpy as np
from fastnet.kernels.compiled_calls import array_kernel, at, elements_of, finish, in_compiled_code, opened
from fastnet.kernels.records import vector_at


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


@array_kernel(2)
def _copy_here(outcome, y, x, one):
    if opened(outcome, 1, (y, x)):
        result, source = vector_at(at(y), elements_of(y), one), vector_at(at(x), elements_of(y), one)
        for i in range(result.size):
            result[i] = source[i]
        finish(outcome, 1, (y, x))


in_compiled_code(flatten_forward, _copy_here, "y:* x:*")
in_compiled_code(flatten_backward, _copy_here, "dx:* dy:*")
