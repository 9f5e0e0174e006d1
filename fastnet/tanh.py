"""The hyperbolic tangent."""
from __future__ import annotations

from typing import Any

from fastnet.base.activation import Activation
from fastnet.kernels.records import CALL
from fastnet.kernels.tanh import backward_entry, forward_entry, tanh_backward, tanh_forward, tanh_grad_op, tanh_op
from fastnet.layer import known
from fastnet.program.builder import ROWS, Builder, Value


@known
class TanhLayer(Activation):
    """Hyperbolic tangent of each element; its derivative is 1 - tanh(x)^2.

    Attributes
    ----------
    y : ndarray or None
        The last output. ``backward`` finds the derivative from it.

    Examples
    --------
    >>> layer = TanhLayer()
    >>> layer.forward([[0.0, 100.0]])
    array([[0., 1.]])
    >>> layer.backward([[5.0, 5.0]])
    array([[5., 0.]])
    """

    settings = ()
    kernels = tanh_forward, tanh_backward, forward_entry, backward_entry

    def torch_module(self, nn: Any) -> Any:
        """The module of ``torch.nn`` that computes the same."""
        return nn.Tanh()

    def lower(self, net: Builder, x: Value) -> Value:
        """Add this layer's ops to a compiled step, see :mod:`fastnet.program.builder`."""
        y = net.like(x)
        net.forward(CALL, reads={x: ROWS}, writes={y: ROWS}, kernel=tanh_op, c=y.mat, a=x.mat, n=x.columns)

        def backward(dy: Value) -> Value:
            dx = dy.overwritten()
            net.backward(CALL, reads={dy: ROWS, y: ROWS}, writes={dx: ROWS}, kernel=tanh_grad_op, c=dx.mat, a=y.mat,
                         n=x.columns)
            return dx

        net.on_backward(backward)
        return y
