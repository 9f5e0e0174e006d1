"""The hyperbolic tangent."""
from __future__ import annotations

from typing import Any

from fastnet.base.activation import Activation
from fastnet.kernels.tanh import TANH
from fastnet.layer import known


@known
class TanhLayer(Activation):
    """Hyperbolic tangent of each element; its derivative is 1 - tanh(x)^2.

    Attributes
    ----------
    y : ndarray or None
        The last output, from which ``backward`` computes the derivative.

    Examples
    --------
    >>> layer = TanhLayer()
    >>> layer.forward([[0.0, 100.0]])
    array([[0., 1.]])
    >>> layer.backward([[5.0, 5.0]])
    array([[5., 0.]])
    """

    settings = ()
    kernels = TANH

    def torch_module(self, nn: Any) -> Any:
        """Return the module of ``torch.nn`` that computes the same."""
        return nn.Tanh()
