"""The base class of element-wise layers, which compute each output from one input, and its gradient from that output."""
from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from numpy import ndarray

from fastnet.base import checks
from fastnet.base.attributes import FloatArray
from fastnet.base.buffers import Buffered, in_order, take_like
from fastnet.base.passes import Checked, Refused, for_kernel, run_pass
from fastnet.kernels.elementwise import MANY, Elementwise
from fastnet.kernels.records import CALL
from fastnet.layer import known
from fastnet.program.builder import ROWS, Builder, Value

_FLOAT64, _FLOAT32 = np.dtype(np.float64), np.dtype(np.float32)


@known
class Activation(Buffered):
    """A function of each element, whose derivative is known from the function's value.

    Attributes
    ----------
    y : ndarray or None
        The last output, from which ``backward`` computes the derivative.
    """

    y = FloatArray()

    keeps_layout = True

    kernels: ClassVar[Elementwise]
    constant: Any = 0.0  # the function's constant, if it has one

    def __init__(self) -> None:
        self.y = None

    def output_shape(self, shape: tuple[int | None, ...] | None) -> tuple[int | None, ...] | None:
        """Return the shape of an output sample, which is that of an input sample."""
        return shape

    def forward(self, x: npt.ArrayLike) -> np.ndarray:
        """Compute the function of every element, and store the result for ``backward``.

        Parameters
        ----------
        x : array_like
            It may have any number of dimensions. The layer does not write to it. NaN stays NaN.

        Returns
        -------
        ndarray
            The result, of the shape of x. For a matrix in Fortran order it is in Fortran order, too.
        """
        return run_pass(self, _forward, _checked_input, x)

    def backward(self, y_grad: npt.ArrayLike) -> np.ndarray:
        """Compute the gradient of the input from that of the output.

        Parameters
        ----------
        y_grad : array_like
            Gradient of the loss with respect to the output of the last ``forward``, of the same shape.

        Returns
        -------
        ndarray
            Gradient of the loss with respect to the input.
        """
        return run_pass(self, _backward, _checked_gradient, y_grad)

    def lower(self, net: Builder, x: Value) -> Value:
        """Add this layer's ops to a compiled step, see :mod:`fastnet.program.builder`."""
        y = net.like(x)
        net.forward(CALL, reads={x: ROWS}, writes={y: ROWS}, kernel=self.kernels.forward_op, c=y.mat, a=x.mat, n=x.columns,
                    number=self.constant)

        def backward(dy: Value) -> Value:
            dx = dy.overwritten()
            net.backward(CALL, reads={dy: ROWS, y: ROWS}, writes={dx: ROWS}, kernel=self.kernels.backward_op, c=dx.mat,
                         a=y.mat, n=x.columns, number=self.constant)
            return dx

        net.on_backward(backward)
        return y

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _forward(layer: Activation, x: np.ndarray, held: dict[str, Any]) -> np.ndarray:
    if type(x) is not ndarray:
        raise Refused
    y = take_like(layer._buffers, "y", x)
    kernel, constant = layer.kernels.forward_entry, layer.constant
    if _is_for_threads(x):
        layer.kernels.forward(y, x, constant)
    elif not (kernel(y, x, constant) if x.ndim == 2 else kernel(_row(y), _row(x), constant)):
        raise Refused
    held["y"] = y
    return y


def _checked_input(layer: Activation, x: npt.ArrayLike) -> tuple[np.ndarray, Checked]:
    x = checks.floats(layer, "x", x)
    checks.nonempty(layer, "x", x)
    return for_kernel(layer.kernels.forward_entry, x), Checked(layer)


def _backward(layer: Activation, dy: np.ndarray, held: dict[str, Any]) -> np.ndarray:
    y = held["y"]
    if type(dy) is not ndarray or dy.dtype != y.dtype:
        raise Refused
    dx, kernel, constant = take_like(layer._buffers, "dx", y), layer.kernels.backward_entry, layer.constant
    if _is_for_threads(y) and _is_for_threads(dy) and dy.shape == y.shape:
        layer.kernels.backward(dx, dy, y, constant)
    elif not (kernel(dx, dy, y, constant) if y.ndim == 2 else
            dy.shape == y.shape and kernel(_row(dx), _row(dy), _row(y), constant)):
        raise Refused
    return dx


def _checked_gradient(layer: Activation, y_grad: npt.ArrayLike) -> tuple[np.ndarray, Checked]:
    y = checks.floats(layer, "y", checks.computed(layer, "y", layer.y, "forward"))
    checks.nonempty(layer, "y", y)
    dy = checks.same_shape(layer, "y_grad", checks.floats(layer, "y_grad", y_grad, y.dtype), "the output", y.shape)
    kernel = layer.kernels.backward_entry
    return for_kernel(kernel, dy), Checked(layer, y=for_kernel(kernel, y))


def _is_for_threads(a: np.ndarray) -> bool:
    """Whether an array is large enough to be shared among threads, and of the one layout that they read."""
    return a.size > MANY and (a.dtype is _FLOAT32 or a.dtype is _FLOAT64) and a.flags.carray


def _row(a: np.ndarray) -> np.ndarray:
    """Return the elements of an array as a matrix of one row."""
    return in_order(a).reshape(1, -1)
