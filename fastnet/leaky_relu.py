"""The leaky rectified linear unit."""
from __future__ import annotations

from typing import Any

from fastnet.base import checks
from fastnet.base.activation import Activation
from fastnet.kernels.leaky_relu import (
    backward_entry,
    forward_entry,
    leaky_relu_backward,
    leaky_relu_forward,
    leaky_relu_grad_op,
    leaky_relu_op,
)
from fastnet.kernels.records import CALL
from fastnet.layer import known
from fastnet.program.builder import ROWS, Builder, Value


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

    settings = ("slope",)
    kernels = leaky_relu_forward, leaky_relu_backward, forward_entry, backward_entry

    def __init__(self, slope: float = 0.01) -> None:
        super().__init__()
        self.slope = checks.rate("LeakyReluLayer", slope, "slope")

    @property
    def _constants(self) -> tuple[float]:
        return (self.slope,)

    def torch_module(self, nn: Any) -> Any:
        """The module of ``torch.nn`` that computes the same."""
        return nn.LeakyReLU(self.slope)

    def lower(self, net: Builder, x: Value) -> Value:
        """Add this layer's ops to a compiled step, see :mod:`fastnet.program.builder`."""
        y = net.like(x)
        net.forward(CALL, reads={x: ROWS}, writes={y: ROWS}, kernel=leaky_relu_op, c=y.mat, a=x.mat, n=x.columns,
                    number=self.slope)

        def backward(dy: Value) -> Value:
            dx = dy.overwritten()
            net.backward(CALL, reads={dy: ROWS, y: ROWS}, writes={dx: ROWS}, kernel=leaky_relu_grad_op, c=dx.mat, a=y.mat,
                         n=x.columns, number=self.slope)
            return dx

        net.on_backward(backward)
        return y
