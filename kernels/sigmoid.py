"""The logistic sigmoid and its derivative.

1 / (1 + exp(-x)) is computed from t = exp(-|x|), which never overflows: t / (1 + t) where x is negative, else 1 / (1 + t).
"""
import numpy as np
from fastnet.kernels.codegen.jit import ForEachType, jit, jit_exact
from fastnet.kernels.elementwise import Elementwise
from fastnet.kernels.simd import cast_like
from fastnet.kernels.softmax import exp_f32, exp_f64


@jit_exact
def _sigmoid_f64(x):
    t = exp_f64(-abs(x))
    return (t if x < 0 else 1.0) / (1.0 + t)


@jit_exact
def _sigmoid_f32(x):
    t = exp_f32(-abs(x))
    return (t if x < 0 else np.float32(1)) / (np.float32(1) + t)


_sigmoid = ForEachType(_sigmoid_f32, _sigmoid_f64)


@jit
def _value(x, _):
    return _sigmoid(x)


@jit
def _gradient(dy, y, _):
    return dy * (y * (cast_like(1, y) - y))


SIGMOID = Elementwise(_value, _gradient)


@SIGMOID.compiled_forward
def sigmoid_forward(y: np.ndarray, x: np.ndarray) -> None:
    """y = 1 / (1 + exp(-x)).

    y, x: one shape of any number of dimensions, one dtype (float32 or float64); y C-contiguous, x of any layout.
    Overwrites y, which may be x. NaN stays NaN. Within 4 units in the last place, for results below 1e-300, too.
    """
    SIGMOID.forward(y, x)


@SIGMOID.compiled_backward
def sigmoid_backward(dx: np.ndarray, dy: np.ndarray, y: np.ndarray) -> None:
    """dx = dy y (1 - y).

    dx, dy, y: one shape of any number of dimensions, one dtype (float32 or float64); dx C-contiguous, dy and y of any
    layout; y is the output of the forward pass. Overwrites dx, which may be dy.
    """
    SIGMOID.backward(dx, dy, y)
