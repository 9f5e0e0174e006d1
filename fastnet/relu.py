"""The rectified linear unit."""
from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastnet import _checks
from fastnet._buffers import PLAIN, UNUSUAL, Buffered, take
from fastnet._state import FloatArray
from fastnet.kernels.relu import backward_entry, forward_entry, relu_backward, relu_forward, relu_op
from fastnet.kernels.structs import CALL, DENSE, GRAM_FIRST, MASK
from fastnet.layer import known
from fastnet.lowering import ROWS, Buffer, Lowering


@known
class ReluLayer(Buffered):
    """Rectified linear unit: x where x > 0, else 0 (3.14). Its derivative at 0 is taken as 0.

    Attributes
    ----------
    y : ndarray or None
        The last output. ``backward`` lets the gradient pass where it is positive.

    Examples
    --------
    >>> layer = ReluLayer()
    >>> layer.forward([[-1.0, 0.0, 2.0]])
    array([[0., 0., 2.]])
    >>> layer.backward([[5.0, 5.0, 5.0]])
    array([[0., 0., 5.]])
    """

    y = FloatArray()

    def __init__(self) -> None:
        self.y = None

    def output_shape(self, shape: tuple[int | None, ...] | None) -> tuple[int | None, ...] | None:
        """Shape of a sample's output: that of its input."""
        return shape

    def forward(self, x: npt.ArrayLike) -> np.ndarray:
        """Set everything that is not positive to 0, and remember the result.

        Parameters
        ----------
        x : array_like
            Any number of dimensions. Never written to. NaN stays NaN.

        Returns
        -------
        ndarray
            Of the shape of x.
        """
        if type(x) is np.ndarray and type(self) in PLAIN:
            try:
                y = take(self._buffers, "y", x.shape, x.dtype)
                if forward_entry(y, x):
                    self.__dict__["y"] = y
                    return y
            except UNUSUAL:
                pass
        x = _checks.floats(self, "x", x)
        _checks.nonempty(self, "x", x)
        y = take(self._buffers, "y", x.shape, x.dtype)
        relu_forward(y, x)
        self.y = y
        return y

    def backward(self, y_grad: npt.ArrayLike) -> np.ndarray:
        """Let the gradient pass where the output is positive.

        Parameters
        ----------
        y_grad : array_like
            Gradient of the loss with respect to the output of the last ``forward``, of its shape.

        Returns
        -------
        ndarray
            Gradient of the loss with respect to the input.
        """
        if type(y_grad) is np.ndarray and type(self) in PLAIN:
            try:
                y = self.__dict__["y"]
                dx = take(self._buffers, "dx", y.shape, y.dtype)
                if y_grad.dtype == y.dtype and backward_entry(dx, y_grad, y):
                    return dx
            except UNUSUAL:
                pass
        y = _checks.floats(self, "y", _checks.computed(self, "y", self.y, "forward"))
        dy = _checks.same_shape(self, "y_grad", _checks.floats(self, "y_grad", y_grad, y.dtype), "the output", y.shape)
        dx = take(self._buffers, "dx", y.shape, y.dtype)
        relu_backward(dx, dy, y)
        return dx

    def update_param(self, lr: float) -> None:
        """Do nothing: the layer has no parameters."""

    def update_params(self, lr: float) -> None:
        """Do nothing: the layer has no parameters."""

    def lower(self, net: Lowering, x: Buffer) -> Buffer:
        """Add this layer's ops to a compiled step, see :mod:`fastnet.lowering`."""
        y, product = x, net.writer_of(x, DENSE, GRAM_FIRST)
        if product is not None:
            product["relu"] = 1  # at the end of the product, before its result leaves the registers
        else:
            y = net.buffer(x.columns)
            net.forward(CALL, reads={x: ROWS}, writes={y: ROWS}, kernel=relu_op, c=y.mat, a=x.mat, n=x.columns)

        def backward(dy: Buffer) -> Buffer:
            net.backward(MASK, reads={y: ROWS}, writes={dy: ROWS}, c=dy.mat, a=y.mat, n=x.columns)
            return dy

        net.on_backward(backward)
        return y

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
