"""The mean squared error: a loss for regression."""
from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numpy import ndarray

from fastnet.base import checks
from fastnet.base.attributes import FloatArray
from fastnet.base.buffers import Buffered, in_order, take
from fastnet.base.passes import Checked, Refused, for_kernel, run_pass
from fastnet.kernels.mean_squared_error import backward_entry, forward_entry, mean_squared_error_op
from fastnet.kernels.records import CALL
from fastnet.layer import known
from fastnet.program.builder import ROWS, Builder, Unsupported, Value


@known
class MeanSquaredErrorLayer(Buffered):
    """Mean squared error of outputs and targets: the mean of (x - t)^2 over samples and outputs.

    Attributes
    ----------
    x : ndarray, shape (n, n_outputs), or None
        The last outputs.
    t : ndarray, shape (n, n_outputs), or None
        The last targets.

    Examples
    --------
    >>> loss = MeanSquaredErrorLayer()
    >>> loss.forward([[1.0, 2.0]], [[1.0, 4.0]])
    2.0
    >>> loss.backward()
    array([[ 0., -2.]])
    """

    x = FloatArray()
    t = FloatArray()
    settings = ()

    def __init__(self) -> None:
        self.x = self.t = None

    def forward(self, x: npt.ArrayLike, t: npt.ArrayLike) -> float:
        """Compute the loss, and store x and t for ``backward``.

        Parameters
        ----------
        x : array_like, shape (n, n_outputs)
            Outputs, one sample per row.
        t : array_like, shape (n, n_outputs)
            The targets: any finite numbers.

        Returns
        -------
        float
        """
        return run_pass(self, _forward, _checked_input, (x, t))

    def backward(self, y_grad: float | None = None) -> np.ndarray:
        """Compute the gradient of the loss with respect to the outputs, 2 (x - t) / (n n_outputs).

        Parameters
        ----------
        y_grad : float, optional
            A factor for the gradient, if the loss is part of a larger function.

        Returns
        -------
        ndarray, shape (n, n_outputs)
        """
        scale = None if y_grad is None else checks.gradient_scale(self, y_grad)
        dx = run_pass(self, _backward, _checked_attributes, None)
        return dx if scale is None else dx * dx.dtype.type(scale)

    def lower(self, net: Builder, x: Value) -> Value:
        """Add the loss and the gradient of the outputs to a compiled step, see :mod:`fastnet.program.builder`."""
        if net.is_input(x):
            raise Unsupported("the network has no layer before the loss")
        dx, losses = net.like(x), net.losses()
        net.forward(CALL, reads={x: ROWS}, writes={dx: ROWS, losses: ROWS}, kernel=mean_squared_error_op,
                    c=dx.mat, a=x.mat, aux=losses, n=x.columns)
        return dx

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _forward(layer: MeanSquaredErrorLayer, given: tuple[np.ndarray, np.ndarray], held: dict[str, Any]) -> float:
    x, t = given
    if (type(x) is not ndarray or type(t) is not ndarray or x.shape != t.shape or not x.size or x.dtype != t.dtype
            or not x.dtype.isnative):
        raise Refused
    loss = forward_entry(x if x.flags.c_contiguous else in_order(x), t if t.flags.c_contiguous else in_order(t))
    held["x"], held["t"] = x, t
    return loss


def _checked_input(layer: MeanSquaredErrorLayer, given: tuple[npt.ArrayLike, npt.ArrayLike]) -> tuple[Any, dict[str, Any]]:
    x = checks.rows(layer, "x", checks.floats(layer, "x", given[0]))
    t = checks.same_shape(layer, "t", checks.floats(layer, "t", given[1], x.dtype), "x", x.shape)
    layer.x, layer.t = x, t  # not the copies of unaligned arrays
    return (for_kernel(forward_entry, x), for_kernel(forward_entry, t)), {}


def _backward(layer: MeanSquaredErrorLayer, _: None, held: dict[str, Any]) -> np.ndarray:
    x, t = held["x"], held["t"]
    dx = take(layer._buffers, "dx", x.shape, x.dtype, x.size)
    if t.dtype != x.dtype or not backward_entry(
            dx, x if x.flags.c_contiguous else in_order(x), t if t.flags.c_contiguous else in_order(t)):
        raise Refused
    return dx


def _checked_attributes(layer: MeanSquaredErrorLayer, _: None) -> tuple[None, Checked]:
    x = checks.rows(layer, "x", checks.floats(layer, "x", checks.computed(layer, "x", layer.x, "forward")))
    t = checks.floats(layer, "t", checks.computed(layer, "t", layer.t, "forward"), x.dtype)
    t = checks.same_shape(layer, "t", t, "x", x.shape)
    return None, Checked(layer, x=for_kernel(backward_entry, x), t=for_kernel(backward_entry, t))
