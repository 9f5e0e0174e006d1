"""The hyperbolic tangent and its derivative.

tanh(x) = x (1 + x^2 P(x^2) / Q(x^2)) near 0 (Cephes, S. Moshier) and (1 - t) / (1 + t) with t = exp(-2 |x|) elsewhere: plain
arithmetic and our own exponential, which LLVM vectorises; the C library's function is called for one number at a time.
"""
import numpy as np
from fastnet.kernels.codegen.jit import ForEachType, jit, jit_exact
from fastnet.kernels.elementwise import Elementwise
from fastnet.kernels.simd import cast_like
from fastnet.kernels.softmax import exp_f32, exp_f64


@jit_exact
def _tanh_f64(x):
    # near 0, where 1 - t cancels: a rational form of (tanh(x) - x) / x^3 in s = x^2
    s = x * x
    p = (-9.64399179425052238628e-1 * s - 9.92877231001918586564e1) * s - 1.61468768441708447952e3
    q = ((s + 1.12811678491632931402e2) * s + 2.23548839060100448583e3) * s + 4.84406305325125486048e3
    near = x + x * s * (p / q)
    t = exp_f64(-2.0 * abs(x))
    return np.copysign(near if abs(x) < 0.625 else (1.0 - t) / (1.0 + t), x)  # also of -0


@jit_exact
def _tanh_f32(x):
    f = np.float32
    s = x * x
    p = (((f(-5.70498872745e-3) * s + f(2.06390887954e-2)) * s - f(5.37397155531e-2)) * s + f(1.33314422036e-1)) * s
    near = x + x * s * (p - f(3.33332819422e-1))
    t = exp_f32(f(-2) * abs(x))
    return np.copysign(near if abs(x) < f(0.625) else (f(1) - t) / (f(1) + t), x)


_tanh = ForEachType(_tanh_f32, _tanh_f64)


@jit
def _value(x, _):
    return _tanh(x)


@jit
def _gradient(dy, y, _):
    return dy * (cast_like(1, y) - y * y)


TANH = Elementwise(_value, _gradient)


@TANH.compiled_forward
def tanh_forward(y: np.ndarray, x: np.ndarray) -> None:
    """y = tanh(x).

    y, x: one shape of any number of dimensions, one dtype (float32 or float64); y C-contiguous, x of any layout.
    Overwrites y, which may be x. NaN stays NaN. Within 4 units in the last place.
    """
    TANH.forward(y, x)


@TANH.compiled_backward
def tanh_backward(dx: np.ndarray, dy: np.ndarray, y: np.ndarray) -> None:
    """dx = dy (1 - y^2).

    dx, dy, y: one shape of any number of dimensions, one dtype (float32 or float64); dx C-contiguous, dy and y of any
    layout; y is the output of the forward pass. Overwrites dx, which may be dy.
    """
    TANH.backward(dx, dy, y)
