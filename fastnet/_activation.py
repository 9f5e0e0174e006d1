"""What layers share that compute each output from one input, and its gradient from that output."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fastnet import _checks
from fastnet._buffers import PLAIN, UNUSUAL, Buffered, in_order, take
from fastnet._state import FloatArray
from fastnet.layer import known


@known
class Activation(Buffered):
    """A function of each element, whose derivative is known from the function's value.

    Attributes
    ----------
    y : ndarray or None
        The last output. ``backward`` finds the derivative from it.
    """

    y = FloatArray()

    keeps_shape: ClassVar[bool] = True  # its output is laid out as its input

    # kernel(y, x, *constants) and kernel(dx, dy, y, *constants), then the same as their fast entries
    kernels: ClassVar[tuple[Callable[..., Any], ...]]

    def __init__(self) -> None:
        self.y = None

    def output_shape(self, shape: tuple[int | None, ...] | None) -> tuple[int | None, ...] | None:
        """Shape of a sample's output: that of its input."""
        return shape

    def forward(self, x: npt.ArrayLike) -> np.ndarray:
        """Compute the function of every element, and remember the result.

        Parameters
        ----------
        x : array_like
            Any number of dimensions. Never written to. NaN stays NaN.

        Returns
        -------
        ndarray
            Of the shape of x; a matrix in Fortran order gives another.
        """
        forward, _, entry, _ = self.kernels
        if type(x) is np.ndarray and type(self) in PLAIN:
            try:
                turned = _turned(x)
                a: np.ndarray = x.T if turned else x
                y = take(self._buffers, "y", a.shape, a.dtype, a.size)
                plain = a.ndim == 2 and a.flags.c_contiguous
                if entry(y, a, *self._constants) if plain else entry(_rows(y), _rows(in_order(a)), *self._constants):
                    self.__dict__["y"] = y = y.T if turned else y
                    return y
            except UNUSUAL:
                pass
        x = _checks.floats(self, "x", x)
        _checks.nonempty(self, "x", x)
        turned = _turned(x)
        a = x.T if turned else x
        y = take(self._buffers, "y", a.shape, a.dtype, a.size)
        forward(y, a, *self._constants)
        self.y = y = y.T if turned else y
        return y

    def backward(self, y_grad: npt.ArrayLike) -> np.ndarray:
        """Compute the gradient of the input from that of the output.

        Parameters
        ----------
        y_grad : array_like
            Gradient of the loss with respect to the output of the last ``forward``, of its shape.

        Returns
        -------
        ndarray
            Gradient of the loss with respect to the input.
        """
        _, backward, _, entry = self.kernels
        if type(y_grad) is np.ndarray and type(self) in PLAIN:
            try:
                y = self.__dict__["y"]
                if y.flags.c_contiguous and y_grad.flags.c_contiguous and y.ndim == 2 and y_grad.dtype == y.dtype:
                    dx = take(self._buffers, "dx", y.shape, y.dtype, y.size)
                    if entry(dx, y_grad, y, *self._constants):
                        return dx
                dy: np.ndarray = y_grad
                if dy.dtype == y.dtype and dy.shape == y.shape:
                    turned = _turned(y) and _turned(dy)
                    if turned:
                        y, dy = y.T, dy.T
                    dx = take(self._buffers, "dx", y.shape, y.dtype, y.size)
                    if entry(_rows(dx), _rows(in_order(dy)), _rows(in_order(y)), *self._constants):
                        return dx.T if turned else dx
            except UNUSUAL:
                pass
        y = _checks.floats(self, "y", _checks.computed(self, "y", self.y, "forward"))
        dy = _checks.same_shape(self, "y_grad", _checks.floats(self, "y_grad", y_grad, y.dtype), "the output", y.shape)
        turned = _turned(y) and _turned(dy)
        if turned:
            y, dy = y.T, dy.T
        dx = take(self._buffers, "dx", y.shape, y.dtype, y.size)
        backward(dx, dy, y, *self._constants)
        return dx.T if turned else dx

    @property
    def _constants(self) -> tuple[Any, ...]:
        """What the kernels take behind their arrays."""
        return ()

    def update_param(self, lr: float) -> None:
        """Do nothing: the layer has no parameters."""

    def update_params(self, lr: float) -> None:
        """Do nothing: the layer has no parameters."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self._constants))})"


def _turned(a: np.ndarray) -> bool:
    """Whether a matrix is in Fortran order alone, so that its transpose is what the kernels are compiled for."""
    return not a.flags.c_contiguous and a.ndim == 2 and a.flags.f_contiguous


def _rows(a: np.ndarray) -> np.ndarray:
    """A C-contiguous array of any number of dimensions as a matrix that shares its memory."""
    if a.ndim == 2:
        return a
    if not a.flags.c_contiguous:  # its last holder changed the strides: what is written to a copy would be lost
        raise ValueError("not contiguous")
    return a.reshape(1, -1)
