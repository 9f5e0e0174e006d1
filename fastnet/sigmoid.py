"""The logistic sigmoid."""
from __future__ import annotations

from typing import Any

from fastnet.base.activation import Activation
from fastnet.kernels.records import CALL
from fastnet.kernels.sigmoid import (
    backward_entry,
    forward_entry,
    sigmoid_backward,
    sigmoid_forward,
    sigmoid_grad_op,
    sigmoid_op,
)
from fastnet.layer import known
from fastnet.program.builder import ROWS, Builder, Value


@known
class SigmoidLayer(Activation):
    """Logistic sigmoid of each element, y = 1 / (1 + exp(-x)); its derivative is y (1 - y).

    The function and its derivative are those of Rumelhart, Hinton and Williams (Learning representations by back-propagating
    errors, Nature 1986). The layer computes both from exp(-abs(x)), so no x overflows.

    Attributes
    ----------
    y : ndarray or None
        The last output. ``backward`` finds the derivative from it.

    Examples
    --------
    >>> layer = SigmoidLayer()
    >>> layer.forward([[0.0, 1000.0, -1000.0]])
    array([[0.5, 1. , 0. ]])
    >>> layer.backward([[4.0, 4.0, 4.0]])
    array([[1., 0., 0.]])
    """

    settings = ()
    kernels = sigmoid_forward, sigmoid_backward, forward_entry, backward_entry

    def torch_module(self, nn: Any) -> Any:
        """The module of ``torch.nn`` that computes the same."""
        return nn.Sigmoid()

    def lower(self, net: Builder, x: Value) -> Value:
        """Add this layer's ops to a compiled step, see :mod:`fastnet.program.builder`."""
        y = net.like(x)
        net.forward(CALL, reads={x: ROWS}, writes={y: ROWS}, kernel=sigmoid_op, c=y.mat, a=x.mat, n=x.columns)

        def backward(dy: Value) -> Value:
            dx = dy.overwritten()
            net.backward(CALL, reads={dy: ROWS, y: ROWS}, writes={dx: ROWS}, kernel=sigmoid_grad_op, c=dx.mat, a=y.mat,
                         n=x.columns)
            return dx

        net.on_backward(backward)
        return y
