"""The logistic sigmoid."""
from __future__ import annotations

from typing import Any

from fastnet.base.activation import Activation
from fastnet.kernels.sigmoid import SIGMOID
from fastnet.layer import known


@known
class SigmoidLayer(Activation):
    """Logistic sigmoid of each element, y = 1 / (1 + exp(-x)); its derivative is y (1 - y).

    The function and its derivative are those of Rumelhart, Hinton and Williams (Learning representations by back-propagating
    errors, Nature 1986). The layer computes both from exp(-abs(x)), so no x overflows.

    Attributes
    ----------
    y : ndarray or None
        The last output, from which ``backward`` computes the derivative.

    Examples
    --------
    >>> layer = SigmoidLayer()
    >>> layer.forward([[0.0, 1000.0, -1000.0]])
    array([[0.5, 1. , 0. ]])
    >>> layer.backward([[4.0, 4.0, 4.0]])
    array([[1., 0., 0.]])
    """

    settings = ()
    kernels = SIGMOID

    def torch_module(self, nn: Any) -> Any:
        """Return the module of ``torch.nn`` that computes the same."""
        return nn.Sigmoid()
