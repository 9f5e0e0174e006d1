"""The maximum pooling layer."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet.base import checks
from fastnet.base.attributes import Remembered
from fastnet.base.buffers import Buffered, take
from fastnet.kernels.maxpool import maxpool_backward, maxpool_forward
from fastnet.layer import known
from fastnet.program.builder import Builder, Value
from fastnet.program.images import lower_maxpool

_BOOL = np.dtype(bool)


@known
class MaxPoolLayer(Buffered):
    """Maximum pooling: of every size x size window of an image, the largest value.

    Windows do not overlap. Rows and columns behind the last whole window are ignored. Of equal maxima in a window each
    gets the whole gradient.

    Parameters
    ----------
    size : int
        Side of a window, and the step to the next one.

    Attributes
    ----------
    size : int
    locs : ndarray of bool, shape (n, c, r, k), or None
        Where the last input is the maximum of its window.

    Examples
    --------
    >>> layer = MaxPoolLayer(2)
    >>> layer.forward([[[[1.0, 2.0, 9.0], [4.0, 4.0, 9.0]]]])
    array([[[[4.]]]])
    >>> layer.backward([[[[5.0]]]])
    array([[[[0., 0., 0.],
             [5., 5., 0.]]]])
    """

    locs = Remembered()

    settings = ("size",)
    takes = frozenset({"rows", "images"})
    needs_images = True

    def __init__(self, size: int = 2) -> None:
        self.size = checks.whole_number("MaxPoolLayer", "size", size, "It is the side of a window: 2 is usual.")
        self.locs = None

    @property
    def fused_as(self) -> str | None:
        """What a convolution before it can do in its own op."""
        return "pool" if self.size == 2 else None

    def output_shape(self, shape: tuple[int | None, ...] | None) -> tuple[int | None, ...]:
        """Shape of a sample's output, for one of its input; sides that are not known yet are None."""
        c, r, k = checks.image_shape(self, shape, least=self.size)
        return c, None if r is None else r // self.size, None if k is None else k // self.size

    def forward(self, x: npt.ArrayLike) -> np.ndarray:
        """Take the maximum of each window, and remember where it was.

        Parameters
        ----------
        x : array_like, shape (n, c, r, k)
            Images of at least one window. Never written to. A window with NaN becomes NaN.

        Returns
        -------
        ndarray, shape (n, c, r // size, k // size)
        """
        x = checks.images(self, "x", checks.floats(self, "x", x), least=self.size)
        n, c, r, k = x.shape
        shape = n, c, r // self.size, k // self.size
        y = take(self._buffers, "y", shape, x.dtype, math.prod(shape))
        locs = take(self._buffers, "locs", x.shape, _BOOL, x.size)
        maxpool_forward(y, locs, x, self.size)
        self.locs = locs
        return y

    def backward(self, y_grad: npt.ArrayLike) -> np.ndarray:
        """Give each window's gradient to every place where its maximum was.

        Parameters
        ----------
        y_grad : array_like, shape (n, c, r // size, k // size)
            Gradient of the loss with respect to the output of the last ``forward``.

        Returns
        -------
        ndarray, shape (n, c, r, k)
            Gradient of the loss with respect to the input, in the dtype of `y_grad`.
        """
        locs = checks.images(self, "locs", checks.numbers(self, "locs", checks.computed(
            self, "locs", self.locs, "forward")), least=self.size)
        n, c, r, k = locs.shape
        dy = checks.floats(self, "y_grad", y_grad)
        dy = checks.same_shape(self, "y_grad", dy, "the output", (n, c, r // self.size, k // self.size))
        dx = take(self._buffers, "dx", locs.shape, dy.dtype, locs.size)
        maxpool_backward(dx, dy, np.asarray(locs, bool), self.size)
        return dx

    def lower(self, net: Builder, x: Value) -> Value:
        """Add this layer's ops to a compiled step, see :mod:`fastnet.program.builder`."""
        return lower_maxpool(self, net, x)

    def torch_module(self, nn: Any) -> Any:
        """The module of ``torch.nn`` that computes the same."""
        return nn.MaxPool2d(self.size)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.size})"
