"""The rectified linear unit."""
from __future__ import annotations

from fastnet._activation import Activation
from fastnet.kernels.relu import backward_entry, forward_entry, relu_backward, relu_forward, relu_op
from fastnet.kernels.structs import CALL, DENSE, GRAM_FIRST, MASK
from fastnet.layer import known
from fastnet.lowering import ROWS, Buffer, Lowering


@known
class ReluLayer(Activation):
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

    takes_images = True  # for Lowering
    kernels = relu_forward, relu_backward, forward_entry, backward_entry

    def lower(self, net: Lowering, x: Buffer) -> Buffer:
        """Add this layer's ops to a compiled step, see :mod:`fastnet.lowering`."""
        done = x.relu(net)
        if done is not None:
            return done
        y, product = x, net.writer_of(x, DENSE, GRAM_FIRST)
        if product is not None:
            product["relu"] = 1  # at the end of the product, before its result leaves the registers
        else:
            y = net.buffer_like(x)
            net.forward(CALL, reads={x: ROWS}, writes={y: ROWS}, kernel=relu_op, c=y.mat, a=x.mat, n=x.columns)

        def backward(dy: Buffer) -> Buffer:
            net.backward(MASK, reads={y: ROWS}, writes={dy: ROWS}, c=dy.mat, a=y.mat, n=x.columns)
            return dy

        net.on_backward(backward)
        return y
