"""The leaky rectified linear unit."""
from __future__ import annotations

from typing import Any

from fastnet.base import checks
from fastnet.base.activation import Activation
from fastnet.kernels.leaky_relu import LEAKY_RELU
from fastnet.layer import known


@known
class LeakyReluLayer(Activation):
    """Leaky rectified linear unit: x where x > 0, else slope x (Maas, Hannun & Ng 2013).

    Parameters
    ----------
    slope : float
        A finite number, at least 0. fastnet uses it as the derivative at 0, too.

    Attributes
    ----------
    slope : float
    y : ndarray or None
        The last output, from which ``backward`` computes the derivative.

    Examples
    --------
    >>> layer = LeakyReluLayer(0.1)
    >>> layer.forward([[-1.0, 0.0, 2.0]])
    array([[-0.1,  0. ,  2. ]])
    >>> layer.backward([[5.0, 5.0, 5.0]])
    array([[0.5, 0.5, 5. ]])
    """

    settings = ("slope",)
    kernels = LEAKY_RELU

    def __init__(self, slope: float = 0.01) -> None:
        super().__init__()
        self.slope = checks.rate("LeakyReluLayer", slope, "slope")

    @property
    def constant(self) -> float:
        """The slope."""
        return float(self.slope)

    def torch_module(self, nn: Any) -> Any:
        """Return the module of ``torch.nn`` that computes the same."""
        return nn.LeakyReLU(self.slope)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.slope!r})"
