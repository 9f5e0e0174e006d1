"""The leaky rectified linear unit."""
from __future__ import annotations

from fastnet import _checks
from fastnet._activation import Activation
from fastnet.kernels.leaky_relu import (
    backward_entry,
    forward_entry,
    leaky_relu_backward,
    leaky_relu_forward,
    leaky_relu_grad_op,
    leaky_relu_op,
)
from fastnet.kernels.structs import CALL
from fastnet.layer import known
from fastnet.lowering import ROWS, Buffer, Lowering


@known
class LeakyReluLayer(Activation):
    """Leaky rectified linear unit: x where x > 0, else slope x (Maas, Hannun & Ng 2013).

    Parameters
    ----------
    slope : float
        Finite, and not negative. Its derivative at 0 is taken as the slope.

    Attributes
    ----------
    slope : float
        As given.
    y : ndarray or None
        The last output. ``backward`` finds the derivative from it.

    Examples
    --------
    >>> layer = LeakyReluLayer(0.1)
    >>> layer.forward([[-1.0, 0.0, 2.0]])
    array([[-0.1,  0. ,  2. ]])
    >>> layer.backward([[5.0, 5.0, 5.0]])
    array([[0.5, 0.5, 5. ]])
    """

    kernels = leaky_relu_forward, leaky_relu_backward, forward_entry, backward_entry

    def __init__(self, slope: float = 0.01) -> None:
        super().__init__()
        self.slope = _checks.rate("LeakyReluLayer", slope, "slope")

    @property
    def _constants(self) -> tuple[float]:
        return (self.slope,)

    def lower(self, net: Lowering, x: Buffer) -> Buffer:
        """Add this layer's ops to a compiled step, see :mod:`fastnet.lowering`."""
        y = net.buffer_like(x)
        net.forward(CALL, reads={x: ROWS}, writes={y: ROWS}, kernel=leaky_relu_op, c=y.mat, a=x.mat, n=x.columns,
                    number=self.slope)

        def backward(dy: Buffer) -> Buffer:
            net.backward(CALL, reads={y: ROWS}, writes={dy: ROWS}, kernel=leaky_relu_grad_op, c=dy.mat, a=y.mat,
                         n=x.columns, number=self.slope)
            return dy

        net.on_backward(backward)
        return y
