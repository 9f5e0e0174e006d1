"""The leaky rectified linear unit (Maas, Hannun & Ng 2013) and its derivative."""
import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.elementwise import Elementwise
from fastnet.kernels.simd import cast_like


@jit
def _value(x, slope):
    return x if x > 0 else cast_like(slope, x) * x


@jit
def _gradient(dy, y, slope):
    return dy if y > 0 else cast_like(slope, dy) * dy


LEAKY_RELU = Elementwise(_value, _gradient)


@LEAKY_RELU.compiled_forward
def leaky_relu_forward(y: np.ndarray, x: np.ndarray, slope: float) -> None:
    """y = x where x > 0, else slope x.

    y, x: one shape of any number of dimensions, one dtype (float32 or float64); y C-contiguous, x of any layout; slope is
    rounded to that dtype. Overwrites y, which may be x. NaN stays NaN.
    """
    LEAKY_RELU.forward(y, x, slope)


@LEAKY_RELU.compiled_backward
def leaky_relu_backward(dx: np.ndarray, dy: np.ndarray, y: np.ndarray, slope: float) -> None:
    """dx = dy where y > 0, else slope dy: the derivative at 0 is taken as the slope.

    dx, dy, y: one shape of any number of dimensions, one dtype (float32 or float64); dx C-contiguous, dy and y of any
    layout; y is the output of the forward pass, for a slope that is not negative. Overwrites dx, which may be dy.
    """
    LEAKY_RELU.backward(dx, dy, y, slope)
