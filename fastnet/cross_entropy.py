"""The cross-entropy loss, and one-hot targets."""
from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastnet.base import checks, dtypes
from fastnet.base.attributes import FloatArray
from fastnet.base.buffers import PLAIN, UNUSUAL, Buffered, in_order, take, take_like
from fastnet.kernels.cross_entropy import (
    backward_entry,
    columns_entry,
    cross_entropy_backward,
    cross_entropy_forward,
    forward_entry,
)
from fastnet.kernels.records import SOFTMAX_CROSS_ENTROPY
from fastnet.layer import known
from fastnet.program.builder import ROWS, Builder, Unsupported, Value


@known
class CrossEntropyLayer(Buffered):
    """Cross-entropy of predicted probabilities and one-hot targets: the mean of -sum(t log x) over the batch (3.18).

    Attributes
    ----------
    x : ndarray, shape (n, n_classes), or None
        The last probabilities.
    t : ndarray, shape (n, n_classes), or None
        The last targets.

    Examples
    --------
    >>> loss = CrossEntropyLayer()
    >>> round(loss.forward([[0.5, 0.5], [0.25, 0.75]], [[1, 0], [0, 1]]), 6)
    0.490415
    >>> loss.backward()
    array([[-1.        ,  0.        ],
           [ 0.        , -0.66666667]])
    """

    x = FloatArray()
    t = FloatArray()
    settings = ()
    takes = frozenset({"probabilities"})
    compares_classes = True

    def __init__(self) -> None:
        self.x = self.t = None

    def forward(self, x: npt.ArrayLike, t: npt.ArrayLike) -> float:
        """Compute the loss, and store x and t for ``backward``.

        Parameters
        ----------
        x : array_like, shape (n, n_classes)
            Probabilities, one sample per row.
        t : array_like, shape (n, n_classes)
            One-hot targets, see :func:`fastnet.one_hot`.

        Returns
        -------
        float
            The loss; inf if the true class of a sample has probability 0.
        """
        if type(x) is np.ndarray and type(t) is np.ndarray and type(self) in PLAIN:
            try:
                # a single column might be labels
                if x.shape == t.shape and x.size and x.shape[1] > 1 and x.dtype == t.dtype and x.dtype.isnative:
                    held = self.__dict__
                    if not x.flags.c_contiguous and x.flags.f_contiguous and t.flags.f_contiguous:
                        loss = columns_entry(x.T, t.T)
                    else:
                        loss = forward_entry(in_order(x), in_order(t))
                    held["x"], held["t"] = x, t
                    return loss
            except UNUSUAL:
                pass
        x = checks.rows(self, "x", checks.floats(self, "x", x))
        t = checks.targets(self, "t", t, x.shape, x.dtype)
        loss = cross_entropy_forward(x, t)
        self.x, self.t = x, t
        return loss

    def backward(self, y_grad: float | None = None) -> np.ndarray:
        """Compute the gradient of the loss with respect to the probabilities, -t / (n x) (3.19).

        Parameters
        ----------
        y_grad : float, optional
            A factor for the gradient, if the loss is part of a larger function.

        Returns
        -------
        ndarray, shape (n, n_classes)
        """
        if y_grad is None and type(self) in PLAIN:
            try:
                held = self.__dict__
                x, t = held["x"], held["t"]
                if x.shape[1] > 1 and t.dtype == x.dtype:
                    dx = take_like(self._buffers, "dx", x)
                    if backward_entry(dx, x, t):
                        return dx
            except UNUSUAL:
                pass
        scale = checks.gradient_scale(self, y_grad)
        x = checks.rows(self, "x", checks.floats(self, "x", checks.computed(self, "x", self.x, "forward")))
        t = checks.targets(self, "t", checks.computed(self, "t", self.t, "forward"), x.shape, x.dtype)
        dx = take(self._buffers, "dx", x.shape, x.dtype, x.size)
        cross_entropy_backward(dx, x, t)
        return dx if y_grad is None else dx * x.dtype.type(scale)

    def lower(self, net: Builder, x: Value) -> Value:
        """Add the softmax of the scores x, the loss, and the gradient of the scores to a compiled step."""
        if x.kind != "probabilities" or x.row != x.columns or net.is_input(x):
            raise Unsupported("the compiled engines support CrossEntropyLayer only after SoftMaxLayer")
        p, dx, losses = net.like(x), net.like(x), net.losses()
        net.forward(SOFTMAX_CROSS_ENTROPY, reads={x: ROWS}, writes={p: ROWS, dx: ROWS, losses: ROWS}, overwrites={p: x},
                    c=dx.mat, a=x.mat, b=p.mat, aux=losses, n=x.columns)
        return dx

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def one_hot(labels: npt.ArrayLike, n_classes: int | None = None, dtype: npt.DTypeLike | None = None) -> np.ndarray:
    """Turn class numbers into rows with a single 1.

    Parameters
    ----------
    labels : array_like of int, shape (n,)
        Class numbers, from 0.
    n_classes : int, optional
        Number of columns. By default one more than the largest label.
    dtype : float32 or float64, optional
        By default float64, see :func:`fastnet.set_default_dtype`.

    Returns
    -------
    ndarray, shape (n, n_classes)

    Examples
    --------
    >>> one_hot([0, 3], n_classes=5)
    array([[1., 0., 0., 0., 0.],
           [0., 0., 0., 1., 0.]])
    """
    classes, n_classes = checks.labels("one_hot", labels, n_classes)
    targets = np.zeros((len(classes), n_classes), dtypes.supported("one_hot", dtype))
    targets[np.arange(len(classes)), classes] = 1
    return targets
