"""The rectified linear unit."""
from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numpy import empty_like, maximum, ndarray

from fastnet.base.activation import Activation
from fastnet.base.buffers import FAST, SMALL
from fastnet.kernels.records import CALL, DENSE, GRAM_FIRST, MASK
from fastnet.kernels.relu import RELU
from fastnet.layer import known
from fastnet.program.builder import ROWS, Builder, Value
from fastnet.program.images import Image, lower_relu

_FLOAT64, _FLOAT32 = np.dtype(np.float64), np.dtype(np.float32)
_ZERO64, _ZERO32 = np.zeros((), np.float64), np.zeros((), np.float32)  # arrays: numbers would be converted in each call
# Elements below which NumPy's call costs less than one of a compiled function; 0 where NumPy makes 0 of -0, which the kernel
# does not: the bits must not depend on how many elements there are
_FEW = 600 if all(np.signbit(np.maximum(zero, np.full(67, -0.0, zero.dtype))).all() for zero in (_ZERO64, _ZERO32)) else 0


@known
class ReluLayer(Activation):
    """Rectified linear unit: x where x > 0, else 0 (3.14). fastnet uses 0 as its derivative at 0.

    Attributes
    ----------
    y : ndarray or None
        The last output. ``backward`` passes the gradient where y is positive.

    Examples
    --------
    >>> layer = ReluLayer()
    >>> layer.forward([[-1.0, 0.0, 2.0]])
    array([[0., 0., 2.]])
    >>> layer.backward([[5.0, 5.0, 5.0]])
    array([[0., 0., 5.]])
    """

    settings = ()
    takes = frozenset({"rows", "images"})
    padding_read = None
    fused_as = "relu"
    kernels = RELU
    output_shape = Activation.output_shape  # fastnet uses it only if the class that defines it also defines forward

    def forward(self, x: npt.ArrayLike) -> np.ndarray:
        """Compute max(x, 0) of every element, and store the result for ``backward``.

        Parameters
        ----------
        x : array_like
            It may have any number of dimensions. The layer does not write to it. NaN stays NaN.

        Returns
        -------
        ndarray
            The result, of the shape of x. For a matrix in Fortran order it is in Fortran order, too.
        """
        if type(x) is ndarray and 0 < x.size <= SMALL and x.ndim == 2 and type(self) in FAST:
            dtype = x.dtype
            zero = _ZERO64 if dtype is _FLOAT64 else _ZERO32 if dtype is _FLOAT32 else None
            try:
                if zero is not None and x.size < _FEW:
                    self.__dict__["y"] = y = maximum(zero, x)
                    return y
                if zero is not None and RELU.forward_entry(y := empty_like(x), x, 0.0):
                    self.__dict__["y"] = y
                    return y
            except TypeError:  # it has not been compiled yet
                pass
        return super().forward(x)

    def torch_module(self, nn: Any) -> Any:
        """Return the module of ``torch.nn`` that computes the same."""
        return nn.ReLU()

    def lower(self, net: Builder, x: Value) -> Value:
        """Add this layer's ops to a compiled step, see :mod:`fastnet.program.builder`."""
        if isinstance(x, Image):
            return lower_relu(net, x)
        y, product = x, net.writer_of(x, DENSE, GRAM_FIRST)
        if product is not None:
            product.record["relu"] = 1  # at the end of the product, before its result leaves the registers
        else:
            y = net.like(x)
            net.forward(CALL, reads={x: ROWS}, writes={y: ROWS}, kernel=RELU.forward_op, c=y.mat, a=x.mat, n=x.columns)

        def backward(dy: Value) -> Value:
            dx = dy.overwritten()
            net.backward(MASK, reads={dy: ROWS, y: ROWS}, writes={dx: ROWS}, c=dx.mat, a=y.mat, n=x.columns)
            return dx

        net.on_backward(backward)
        return y
