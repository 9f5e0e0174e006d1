"""The rectified linear unit and its mask (3.14)."""
import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.elementwise import Elementwise
from fastnet.kernels.simd import cast_like


@jit
def _value(x, _):
    return max(x, cast_like(0, x))  # in this order: the second only if it is greater, so that NaN stays


@jit
def _gradient(dy, y, _):
    return dy if y > 0 else dy - dy  # a difference, as 0 (-1) is -0


RELU = Elementwise(_value, _gradient)


@RELU.compiled_forward
def relu_forward(y: np.ndarray, x: np.ndarray) -> None:
    """y = x where x > 0, else 0 (3.14).

    y, x: one shape of any number of dimensions, one dtype (float32 or float64); y C-contiguous, x of any layout.
    Overwrites y, which may be x. NaN stays NaN.
    """
    RELU.forward(y, x)


@RELU.compiled_backward
def relu_backward(dx: np.ndarray, dy: np.ndarray, y: np.ndarray) -> None:
    """dx = dy where y > 0, else 0 dy: the derivative at 0 is taken as 0 (3.14).

    dx, dy, y: one shape of any number of dimensions, one dtype (float32 or float64); dx C-contiguous, dy and y of any
    layout; y is the output of the forward pass (its input does as well). Overwrites dx, which may be dy.
    Where y is NaN, dx is 0 dy. A gradient that is NaN or inf gives NaN where y is not above 0, as in NumPy's product with a
    mask: a lost network is lost in all its weights.
    """
    RELU.backward(dx, dy, y)
