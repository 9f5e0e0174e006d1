"""The base class of element-wise layers, which compute each output from one input, and its gradient from that output."""
from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fastnet.base import checks
from fastnet.base.attributes import FloatArray
from fastnet.base.buffers import PLAIN, UNUSUAL, Buffered, in_order, take_like
from fastnet.kernels.elementwise import Elementwise
from fastnet.kernels.records import CALL
from fastnet.layer import known
from fastnet.program.builder import ROWS, Builder, Value


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
        entry, constant = self.kernels.forward_entry, self.constant
        if type(x) is np.ndarray and type(self) in PLAIN:
            try:
                y = take_like(self._buffers, "y", x)
                if entry(y, x, constant) if x.ndim == 2 else entry(_rows(y), _rows(in_order(x)), constant):
                    self.__dict__["y"] = y
                    return y
            except UNUSUAL:
                pass
        x = checks.floats(self, "x", x)
        checks.nonempty(self, "x", x)
        y = take_like(self._buffers, "y", x)
        turned = not y.flags.c_contiguous
        self.kernels.forward(y.T if turned else y, x.T if turned else x, constant)
        self.y = y
        return y

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
        entry, constant = self.kernels.backward_entry, self.constant
        if type(y_grad) is np.ndarray and type(self) in PLAIN:
            try:
                y = self.__dict__["y"]
                if y_grad.dtype == y.dtype:
                    dx = take_like(self._buffers, "dx", y)
                    if y.ndim == 2:
                        if entry(dx, y_grad, y, constant):
                            return dx
                    elif y_grad.shape == y.shape and entry(
                            _rows(dx), _rows(in_order(y_grad)), _rows(in_order(y)), constant):
                        return dx
            except UNUSUAL:
                pass
        y = checks.floats(self, "y", checks.computed(self, "y", self.y, "forward"))
        dy = checks.same_shape(self, "y_grad", checks.floats(self, "y_grad", y_grad, y.dtype), "the output", y.shape)
        dx = take_like(self._buffers, "dx", y)
        turned = not dx.flags.c_contiguous
        self.kernels.backward(dx.T if turned else dx, dy.T if turned else dy, y.T if turned else y, constant)
        return dx

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


def _rows(a: np.ndarray) -> np.ndarray:
    """A C-contiguous array of any number of dimensions as a matrix that shares its memory."""
    if a.ndim == 2:
        return a
    if not a.flags.c_contiguous:  # its last holder changed the strides: what is written to a copy would be lost
        raise ValueError("not contiguous")
    return a.reshape(1, -1)
