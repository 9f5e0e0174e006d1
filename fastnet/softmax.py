"""The softmax layer: class scores to probabilities."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet.base import checks
from fastnet.base.attributes import FloatArray
from fastnet.base.buffers import PLAIN, UNUSUAL, Buffered, in_order, take
from fastnet.kernels.records import CALL
from fastnet.kernels.softmax import (
    backward_entry,
    forward_entry,
    softmax_backward,
    softmax_forward,
    softmax_grad_op,
    softmax_op,
)
from fastnet.layer import known
from fastnet.program.builder import ROWS, Builder, Unsupported, Value


@dataclass(eq=False)
class Probabilities(Value):
    """The softmax of scores, not yet computed: a loss computes both at once, and `as_rows` computes the softmax alone."""

    @property
    def kind(self) -> str:
        return "probabilities"

    def as_rows(self, net: Builder) -> Value:
        """Add the ops of the softmax (3.16) and of its backward pass (3.17)."""
        x: Any = self
        y = net.like(x)
        net.forward(CALL, reads={x: ROWS}, writes={y: ROWS}, kernel=softmax_op, c=y.mat, a=x.mat, n=x.columns)

        def backward(dy: Value) -> Value:
            dx = dy.overwritten()
            net.backward(CALL, reads={dy: ROWS, y: ROWS}, writes={dx: ROWS}, kernel=softmax_grad_op, c=dx.mat, b=y.mat,
                         n=x.columns)
            return dx

        net.on_backward(backward)
        return y


@known
class SoftMaxLayer(Buffered):
    """Softmax: turns each row of class scores into probabilities, which sum to 1 (3.16).

    Attributes
    ----------
    y : ndarray, shape (n, n_classes), or None
        The last output.

    Examples
    --------
    >>> layer = SoftMaxLayer()
    >>> layer.forward([[0.0, 0.0], [1000.0, 0.0]])
    array([[0.5, 0.5],
           [1. , 0. ]])
    """

    y = FloatArray()
    settings = ()
    keeps_layout = True

    gives = "probabilities"

    def __init__(self) -> None:
        self.y = None

    def output_shape(self, shape: tuple[int | None, ...] | None) -> tuple[int | None, ...] | None:
        """Return the shape of an output sample, which is that of an input sample."""
        return shape

    def forward(self, x: npt.ArrayLike) -> np.ndarray:
        """Compute exp(x) / sum(exp(x)) of each row without overflow, and store it for ``backward``.

        Parameters
        ----------
        x : array_like, shape (n, n_classes)
            Class scores. The layer does not write to them. A score of -inf has probability 0; a row with NaN or +inf
            becomes NaN.

        Returns
        -------
        ndarray, shape (n, n_classes)
        """
        if type(x) is np.ndarray and type(self) in PLAIN:
            try:
                y = take(self._buffers, "y", x.shape, x.dtype, x.size)
                if forward_entry(y, x if x.flags.c_contiguous else in_order(x)):
                    self.__dict__["y"] = y
                    return y
            except UNUSUAL:
                pass
        x = checks.rows(self, "x", checks.floats(self, "x", x))
        y = take(self._buffers, "y", x.shape, x.dtype, x.size)
        softmax_forward(y, x)
        self.y = y
        return y

    def backward(self, y_grad: npt.ArrayLike) -> np.ndarray:
        """Multiply the gradient by the Jacobian of each row (3.17), dx = y (dy - sum(dy y)), without forming the Jacobian.

        Parameters
        ----------
        y_grad : array_like, shape (n, n_classes)
            Gradient of the loss with respect to the output of the last ``forward``.

        Returns
        -------
        ndarray, shape (n, n_classes)
            Gradient of the loss with respect to the scores.
        """
        if type(y_grad) is np.ndarray and type(self) in PLAIN:
            try:
                y = self.__dict__["y"]
                dx = take(self._buffers, "dx", y.shape, y.dtype, y.size)
                if y_grad.dtype == y.dtype and backward_entry(dx, in_order(y_grad), in_order(y)):
                    return dx
            except UNUSUAL:
                pass
        y = checks.rows(self, "y", checks.floats(self, "y", checks.computed(self, "y", self.y, "forward")))
        dy = checks.same_shape(self, "y_grad", checks.floats(self, "y_grad", y_grad, y.dtype), "the output", y.shape)
        dx = take(self._buffers, "dx", y.shape, y.dtype, y.size)
        softmax_backward(dx, dy, y)
        return dx

    def lower(self, net: Builder, x: Value) -> Value:
        """Pass on the scores to a loss that computes their softmax itself, see :mod:`fastnet.program.builder`."""
        if len(x.shape) != 1:
            raise Unsupported(f"SoftMaxLayer takes rows of scores, not samples of shape {x.shape}")
        return Probabilities(x.region, x.version, x.columns, x.row, x.lanes, x.shape)

    def torch_module(self, nn: Any) -> Any:
        """Return the module of ``torch.nn`` that computes the same."""
        return nn.Softmax(dim=1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
