"""The maximum pooling layer."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet.base import checks
from fastnet.base.attributes import Remembered
from fastnet.base.buffers import Buffered, take
from fastnet.kernels.maxpool import maxpool_backward, maxpool_forward, windows_of
from fastnet.layer import known
from fastnet.program.builder import Builder, Value
from fastnet.program.images import lower_maxpool

_BOOL = np.dtype(bool)


@known
class MaxPoolLayer(Buffered):
    """Maximum pooling: the largest value of every size x size window of an image.

    y[n, c, i, j] = max over p, q < size of x[n, c, stride i + p, stride j + q]

    The layer ignores rows and columns after the last whole window. If a window has several equal maxima, each gets the whole
    gradient (in PyTorch only one does). Where windows overlap, a value's gradient is the sum over the windows whose maximum
    it is.

    Parameters
    ----------
    size : int or (int, int)
        Side of a window; a pair is for rows and columns.
    stride : int or (int, int), optional
        Step to the next window. The default is `size`, so that windows do not overlap.

    Attributes
    ----------
    size, stride : int or (int, int)
    locs : ndarray of bool, or None
        Where the last input is the maximum of its window: shape (n, c, r, k). Where windows overlap, it has the shape
        (n, c, rows, columns, size, size), with a truth value for each value of each window.
    x_shape : tuple of int or None
        The shape of the last input.

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
    x_shape = Remembered()

    settings = ("size", "stride")
    added_settings = ("stride",)
    takes = frozenset({"rows", "images"})
    needs_images = True

    def __init__(self, size: int | tuple[int, int] = 2, stride: int | tuple[int, int] | None = None) -> None:
        self.size = checks.one_or_two("MaxPoolLayer", "size", size, "It is the side of a window: 2 is usual.")
        self.stride = self.size if stride is None else checks.one_or_two(
            "MaxPoolLayer", "stride", stride, "It is the step to the next window.")
        self.locs = self.x_shape = None

    @property
    def window(self) -> tuple[int, int, int, int]:
        """The rows and columns of a window, then those of the step to the next one."""
        return windows_of(self.size, self.stride)

    @property
    def fused_as(self) -> str | None:
        """The part of a preceding convolution's op that can replace this layer; None if no part can."""
        return "pool" if self.window == (2, 2, 2, 2) else None

    def output_shape(self, shape: tuple[int | None, ...] | None) -> tuple[int | None, ...]:
        """Return the shape of an output sample for that of an input sample; a side of None if it is not known."""
        c, *sides = checks.image_shape(self, shape, least=self.window[:2])
        return c, *self._pooled(*sides)

    def _overlap(self) -> bool:
        high, wide, down, right = self.window
        return down < high or right < wide

    def _pooled(self, *sides: int | None) -> tuple[int | None, ...]:
        window = self.window
        return tuple(None if side is None else (side - size) // step + 1
                     for side, size, step in zip(sides, window[:2], window[2:], strict=True))

    def forward(self, x: npt.ArrayLike) -> np.ndarray:
        """Compute the maximum of each window, and store its position for ``backward``.

        Parameters
        ----------
        x : array_like, shape (n, c, r, k)
            Images of at least one window. The layer does not write to them. A window with NaN becomes NaN.

        Returns
        -------
        ndarray, shape (n, c, rows, columns)
        """
        window = self.window
        x = checks.images(self, "x", checks.floats(self, "x", x), least=window[:2])
        shape: Any = *x.shape[:2], *self._pooled(*x.shape[2:])
        places = (*shape, *window[:2]) if self._overlap() else x.shape
        y = take(self._buffers, "y", shape, x.dtype, math.prod(shape))
        locs = take(self._buffers, "locs", places, _BOOL, math.prod(places))
        maxpool_forward(y, locs, x, window[:2], window[2:])
        self.locs, self.x_shape = locs, x.shape
        return y

    def backward(self, y_grad: npt.ArrayLike) -> np.ndarray:
        """Pass each window's gradient to every position of its maximum.

        Parameters
        ----------
        y_grad : array_like, shape (n, c, rows, columns)
            Gradient of the loss with respect to the output of the last ``forward``.

        Returns
        -------
        ndarray, shape (n, c, r, k)
            Gradient of the loss with respect to the input, in the dtype of `y_grad`.
        """
        window = self.window
        locs = checks.numbers(self, "locs", checks.computed(self, "locs", self.locs, "forward"))
        if self._overlap():
            shape = checks.computed(self, "x_shape", self.x_shape, "forward")
        else:
            shape = checks.images(self, "locs", locs, least=window[:2]).shape
        pooled: Any = *shape[:2], *self._pooled(*shape[2:])
        if self._overlap():
            checks.same_shape(self, "locs", locs, "the windows", (*pooled, *window[:2]))
        dy = checks.same_shape(self, "y_grad", checks.floats(self, "y_grad", y_grad), "the output", pooled)
        dx = take(self._buffers, "dx", shape, dy.dtype, math.prod(shape))
        maxpool_backward(dx, dy, np.asarray(locs, bool), window[:2], window[2:])
        return dx

    def lower(self, net: Builder, x: Value) -> Value:
        """Add this layer's ops to a compiled step, see :mod:`fastnet.program.builder`."""
        return lower_maxpool(self, net, x)

    def torch_module(self, nn: Any) -> Any:
        """Return the module of ``torch.nn`` that computes the same."""
        window = self.window
        return nn.MaxPool2d(window[:2], window[2:])

    def __repr__(self) -> str:
        stride = "" if self.stride == self.size else f", stride={self.stride}"
        return f"{type(self).__name__}({self.size}{stride})"
