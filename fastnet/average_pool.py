"""The average pooling layer."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet.base import checks
from fastnet.base.attributes import Remembered
from fastnet.base.buffers import Buffered, take
from fastnet.kernels.average_pool import (
    average_pool_back_op,
    average_pool_backward,
    average_pool_forward,
    average_pool_op,
)
from fastnet.kernels.records import CALL
from fastnet.layer import known
from fastnet.program.builder import ROWS, Builder, Value
from fastnet.program.images import Image, image, image_like, images_of, padding_behind


@known
class AveragePoolLayer(Buffered):
    """Average pooling: the mean of every size x size window of an image (LeCun et al. 1998, there called subsampling).

    y[n, c, i, j] = sum over p, q < size of x[n, c, size i + p, size j + q] / size^2; the gradient of each of these x is that
    of y divided by size^2. Windows do not overlap. The layer ignores rows and columns after the last whole window.

    Parameters
    ----------
    size : int
        Side of a window, and the step to the next one.

    Attributes
    ----------
    size : int
    x_shape : tuple of int or None
        The shape of the last input.

    Examples
    --------
    >>> layer = AveragePoolLayer(2)
    >>> layer.forward([[[[1.0, 2.0, 9.0], [4.0, 5.0, 9.0]]]])
    array([[[[3.]]]])
    >>> layer.backward([[[[4.0]]]])
    array([[[[1., 1., 0.],
             [1., 1., 0.]]]])
    """

    x_shape = Remembered()

    takes = frozenset({"rows", "images"})
    needs_images = True

    settings = ("size",)

    def __init__(self, size: int = 2) -> None:
        self.size = checks.whole_number("AveragePoolLayer", "size", size, "It is the side of a window: 2 is usual.")
        self.x_shape = None

    def torch_module(self, nn: Any) -> Any:
        """Return the module of ``torch.nn`` that computes the same."""
        return nn.AvgPool2d(self.size)

    def output_shape(self, shape: tuple[int | None, ...] | None) -> tuple[int | None, ...]:
        """Return the shape of an output sample for that of an input sample; a side of None if it is not known."""
        c, r, k = checks.image_shape(self, shape, least=(self.size, self.size))
        return c, None if r is None else r // self.size, None if k is None else k // self.size

    def forward(self, x: npt.ArrayLike) -> np.ndarray:
        """Compute the mean of each window.

        Parameters
        ----------
        x : array_like, shape (n, c, r, k)
            Images of at least one window. The layer does not write to them. The mean of a window with NaN is NaN.

        Returns
        -------
        ndarray, shape (n, c, r // size, k // size)
        """
        x = checks.images(self, "x", checks.floats(self, "x", x), least=(self.size, self.size))
        y = self._taken("y", self._pooled(x.shape), x.dtype)
        average_pool_forward(y, x, self.size)
        self.x_shape = x.shape
        return y

    def backward(self, y_grad: npt.ArrayLike) -> np.ndarray:
        """Divide each window's gradient among its values.

        Parameters
        ----------
        y_grad : array_like, shape (n, c, r // size, k // size)
            Gradient of the loss with respect to the output of the last ``forward``.

        Returns
        -------
        ndarray, shape (n, c, r, k)
            Gradient of the loss with respect to the input, in the dtype of `y_grad`.
        """
        shape = checks.computed(self, "x_shape", self.x_shape, "forward")
        dy = checks.floats(self, "y_grad", y_grad)
        dy = checks.same_shape(self, "y_grad", dy, "the output", self._pooled(shape))
        dx = self._taken("dx", shape, dy.dtype)
        average_pool_backward(dx, dy, self.size)
        return dx

    def lower(self, net: Builder, x: Value) -> Value:
        """Add this layer's ops to a compiled step, see :mod:`fastnet.program.builder`."""
        x = images_of(net, x)
        (c, r, k), size = x.shape, self.size
        y = image(net, (c, r // size, k // size), padding_behind(net, net.layer), x.wanted)
        dims = (r, k, size, 0, x.around, y.around, 0, 0)
        net.forward(CALL, reads={x: ROWS}, writes={y: ROWS}, kernel=average_pool_op, c=y.mat, a=x.mat, n=c, dims=dims)

        def backward(dy: Image) -> Image:
            dx = image_like(net, x)
            net.backward(CALL, reads={dy: ROWS}, writes={dx: ROWS}, kernel=average_pool_back_op, c=dx.mat, b=dy.mat, n=c,
                         dims=dims)
            return dx

        if x.wanted:
            net.on_backward(backward)
        return y

    def _pooled(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        n, c, r, k = shape
        return n, c, r // self.size, k // self.size

    def _taken(self, purpose: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return take(self._buffers, purpose, shape, dtype, math.prod(shape))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.size})"
