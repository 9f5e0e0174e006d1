"""The softmax layer: class scores to probabilities."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy import ndarray

from fastnet.base import checks
from fastnet.base.attributes import FloatArray
from fastnet.base.buffers import Buffered, in_order, take
from fastnet.base.passes import Checked, Refused, for_kernel, run_pass
from fastnet.kernels.records import CALL
from fastnet.kernels.softmax import (
    backward_entry,
    forward_entry,
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
        return run_pass(self, _forward, _checked_input, x)

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
        return run_pass(self, _backward, _checked_gradient, y_grad)

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


def _forward(layer: SoftMaxLayer, x: np.ndarray, held: dict[str, Any]) -> np.ndarray:
    if type(x) is not ndarray:
        raise Refused
    y = take(layer._buffers, "y", x.shape, x.dtype, x.size)
    if not forward_entry(y, x if x.flags.c_contiguous else in_order(x)):
        raise Refused
    held["y"] = y
    return y


def _checked_input(layer: SoftMaxLayer, x: npt.ArrayLike) -> tuple[np.ndarray, Checked]:
    x = checks.rows(layer, "x", checks.floats(layer, "x", x))
    return for_kernel(forward_entry, x), Checked(layer)


def _backward(layer: SoftMaxLayer, dy: np.ndarray, held: dict[str, Any]) -> np.ndarray:
    y = held["y"]
    if type(dy) is not ndarray or dy.dtype != y.dtype:
        raise Refused
    dx = take(layer._buffers, "dx", y.shape, y.dtype, y.size)
    if not backward_entry(
            dx, dy if dy.flags.c_contiguous else in_order(dy), y if y.flags.c_contiguous else in_order(y)):
        raise Refused
    return dx


def _checked_gradient(layer: SoftMaxLayer, y_grad: npt.ArrayLike) -> tuple[np.ndarray, Checked]:
    y = checks.rows(layer, "y", checks.floats(layer, "y", checks.computed(layer, "y", layer.y, "forward")))
    dy = checks.same_shape(layer, "y_grad", checks.floats(layer, "y_grad", y_grad, y.dtype), "the output", y.shape)
    return for_kernel(backward_entry, dy), Checked(layer, y=for_kernel(backward_entry, y))
