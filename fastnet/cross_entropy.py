"""The cross-entropy loss, and one-hot targets."""
from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numpy import ndarray

from fastnet.base import checks, dtypes
from fastnet.base.attributes import FloatArray
from fastnet.base.buffers import Buffered, in_order, take_like
from fastnet.base.passes import Checked, Refused, for_kernel, run_pass
from fastnet.kernels.cross_entropy import backward_entry, columns_entry, forward_entry
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
        return run_pass(self, _forward, _checked_input, (x, t))

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
        scale = None if y_grad is None else checks.gradient_scale(self, y_grad)
        dx = run_pass(self, _backward, _checked_attributes, None)
        return dx if scale is None else dx * dx.dtype.type(scale)

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


def _forward(layer: CrossEntropyLayer, given: tuple[np.ndarray, np.ndarray], held: dict[str, Any]) -> float:
    x, t = given
    if (type(x) is not ndarray or type(t) is not ndarray or x.shape != t.shape or not x.size or x.dtype != t.dtype
            or not x.dtype.isnative):
        raise Refused
    if x.flags.fnc and t.flags.f_contiguous:
        loss = columns_entry(x.T, t.T)
    else:
        loss = forward_entry(x if x.flags.c_contiguous else in_order(x), t if t.flags.c_contiguous else in_order(t))
    held["x"], held["t"] = x, t
    return loss


def _checked_input(layer: CrossEntropyLayer, given: tuple[npt.ArrayLike, npt.ArrayLike]) -> tuple[Any, dict[str, Any]]:
    x = checks.rows(layer, "x", checks.floats(layer, "x", given[0]))
    t = checks.targets(layer, "t", given[1], x.shape, x.dtype)
    layer.x, layer.t = x, t  # not the copies of unaligned arrays
    kernel = columns_entry if x.flags.fnc and t.flags.f_contiguous else forward_entry
    return (for_kernel(kernel, x), for_kernel(kernel, t)), {}


def _backward(layer: CrossEntropyLayer, _: None, held: dict[str, Any]) -> np.ndarray:
    x, t = held["x"], held["t"]
    dx = take_like(layer._buffers, "dx", x)
    if t.dtype != x.dtype or not backward_entry(dx, x, t):
        raise Refused
    return dx


def _checked_attributes(layer: CrossEntropyLayer, _: None) -> tuple[None, Checked]:
    x = checks.rows(layer, "x", checks.floats(layer, "x", checks.computed(layer, "x", layer.x, "forward")))
    t = checks.targets(layer, "t", checks.computed(layer, "t", layer.t, "forward"), x.shape, x.dtype)
    return None, Checked(layer, x=for_kernel(backward_entry, x), t=for_kernel(backward_entry, t))


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
