"""The hyperbolic tangent."""
from __future__ import annotations

from fastnet._activation import Activation
from fastnet.kernels.structs import CALL
from fastnet.kernels.tanh import backward_entry, forward_entry, tanh_backward, tanh_forward, tanh_grad_op, tanh_op
from fastnet.layer import known
from fastnet.lowering import ROWS, Buffer, Lowering


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

    kernels = tanh_forward, tanh_backward, forward_entry, backward_entry

    def lower(self, net: Lowering, x: Buffer) -> Buffer:
        """Add this layer's ops to a compiled step, see :mod:`fastnet.lowering`."""
        y = net.buffer_like(x)
        net.forward(CALL, reads={x: ROWS}, writes={y: ROWS}, kernel=tanh_op, c=y.mat, a=x.mat, n=x.columns)

        def backward(dy: Buffer) -> Buffer:
            net.backward(CALL, reads={y: ROWS}, writes={dy: ROWS}, kernel=tanh_grad_op, c=dy.mat, a=y.mat, n=x.columns)
            return dy

        net.on_backward(backward)
        return y
