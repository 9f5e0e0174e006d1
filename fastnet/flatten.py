"""The layer that turns images into rows."""
from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet.base import checks
from fastnet.base.attributes import Remembered
from fastnet.base.buffers import Buffered, take
from fastnet.kernels.flatten import flatten_backward, flatten_forward
from fastnet.layer import known
from fastnet.program.builder import Builder, Unsupported, Value


@known
class FlattenLayer(Buffered):
    """Turns every image into one row: channel after channel, and within each channel row after row from the top.

    Attributes
    ----------
    orig_shape : tuple of int, or None
        The shape (n, c, r, k) of the last input.

    Examples
    --------
    >>> layer = FlattenLayer()
    >>> layer.forward([[[[1.0, 2.0], [3.0, 4.0]]]])
    array([[1., 2., 3., 4.]])
    >>> layer.backward([[5.0, 6.0, 7.0, 8.0]])
    array([[[[5., 6.],
             [7., 8.]]]])
    """

    orig_shape = Remembered()
    settings = ()
    keeps_layout = True  # compiled programs store images as rows
    needs_images = True

    def __init__(self) -> None:
        self.orig_shape = None

    def output_shape(self, shape: tuple[int | None, ...] | None) -> tuple[int | None, ...]:
        """Return the shape of an output sample for that of an input sample; a side of None if it is not known."""
        c, r, k = checks.image_shape(self, shape)
        return (None if c is None or r is None or k is None else c * r * k,)

    def forward(self, x: npt.ArrayLike) -> np.ndarray:
        """Copy each image to a row, and store the shape for ``backward``.

        Parameters
        ----------
        x : array_like, shape (n, c, r, k)
            The images. The layer does not write to them.

        Returns
        -------
        ndarray, shape (n, c r k)
            A copy, never a view of x.
        """
        x = checks.images(self, "x", checks.floats(self, "x", x))
        y = take(self._buffers, "y", (len(x), x[0].size), x.dtype, x.size)
        flatten_forward(y, x)
        self.orig_shape = x.shape
        return y

    def backward(self, y_grad: npt.ArrayLike) -> np.ndarray:
        """Copy each row to an image.

        Parameters
        ----------
        y_grad : array_like, shape (n, c r k)
            Gradient of the loss with respect to the output of the last ``forward``.

        Returns
        -------
        ndarray, shape (n, c, r, k)
            Gradient of the loss with respect to the input, in the dtype of `y_grad`.
        """
        n, c, r, k = checks.computed(self, "orig_shape", self.orig_shape, "forward")
        dy = checks.same_shape(self, "y_grad", checks.floats(self, "y_grad", y_grad), "the output", (n, c * r * k))
        dx = take(self._buffers, "dx", (n, c, r, k), dy.dtype, dy.size)
        flatten_backward(dx, dy)
        return dx

    def lower(self, net: Builder, x: Value) -> Value:
        """Take each image as a row of values, see :mod:`fastnet.program.builder`."""
        if len(x.shape) != 3:
            raise Unsupported(f"FlattenLayer takes images, not samples of shape {x.shape}")
        return x.flattened()

    def torch_module(self, nn: Any) -> Any:
        """Return the module of ``torch.nn`` that computes the same."""
        return nn.Flatten()

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
