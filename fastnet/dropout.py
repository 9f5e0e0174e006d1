"""The dropout layer."""
from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet.base import checks
from fastnet.base.attributes import Counter, FloatArray
from fastnet.base.buffers import Buffered, take
from fastnet.kernels.dropout import count_op, dropout_backward, dropout_forward, dropout_grad_op, dropout_op
from fastnet.kernels.records import CALL, TEAM
from fastnet.layer import known
from fastnet.program.builder import ALL, ONE, ROWS, Builder, Value

_SEEDS = 1 << 63


@known
class DropoutLayer(Buffered):
    """Dropout: in training each value becomes 0 with probability `rate`, and the others are multiplied by 1 / (1 - rate).

    In prediction the layer returns its input. This is "inverted" dropout (Srivastava et al. 2014, "Dropout: a simple way to
    prevent neural networks from overfitting", section 10), as in PyTorch: y = x m with m = 0 or 1 / (1 - rate), and the
    gradient of x is that of y times m.

    Parameters
    ----------
    rate : float
        The probability that a value is dropped, at least 0 and below 1.
    rng : int, numpy.random.Generator or RandomState, optional
        The seed of the masks, or the generator that draws it. By default NumPy's global state draws it, so that
        ``np.random.seed`` makes the masks reproducible.

    Attributes
    ----------
    rate : float
    seed : int
    calls : int
        The number of masks so far, which is the number of mini-batches in training. The next mask is a function of `seed`,
        `calls` and the position of a value in the mini-batch, see :func:`fastnet.kernels.dropout.dropout_forward`. So every
        engine, with any number of threads, makes the same masks, and a fit continues where the last one ended. You may
        assign it.
    mask : ndarray or None
        The factors of the last input: 0 or 1 / (1 - rate).
    training : bool
        Whether the layer drops values, see :meth:`fastnet.Sequential.train`.

    Examples
    --------
    >>> import numpy as np
    >>> layer = DropoutLayer(0.5, rng=0)
    >>> y = layer.forward(np.ones((1, 8)))
    >>> y
    array([[2., 0., 0., 2., 2., 2., 2., 0.]])
    >>> layer.training = False
    >>> layer.forward(np.ones((1, 8)))
    array([[1., 1., 1., 1., 1., 1., 1., 1.]])
    """

    mask = FloatArray()
    calls = Counter()

    settings = ("rate", "seed", "calls")
    keeps_layout = True

    def __init__(self, rate: float = 0.5, rng: Any = None) -> None:
        self.rate = checks.fraction("DropoutLayer", "rate", rate)
        generator = checks.generator("DropoutLayer", rng)
        if isinstance(rng, (int, np.integer)):
            self.seed = int(rng) % _SEEDS
        elif isinstance(generator, np.random.Generator):
            self.seed = int(generator.integers(_SEEDS, dtype=np.uint64))
        else:
            self.seed = int(generator.randint(_SEEDS - 1, dtype=np.int64))
        self.calls = 0
        self.mask = None

    @classmethod
    def from_settings(cls, rate: float, seed: int, calls: int) -> DropoutLayer:
        """Return a layer that continues the masks of a seed after so many calls."""
        layer = cls(rate, checks.count("DropoutLayer", "seed", seed))
        layer.calls = calls
        return layer

    def torch_module(self, nn: Any) -> Any:
        """Return the module of ``torch.nn`` that computes the same."""
        return nn.Dropout(self.rate)

    def output_shape(self, shape: tuple[int | None, ...] | None) -> tuple[int | None, ...] | None:
        """Return the shape of an output sample, which is that of an input sample."""
        return shape

    def forward(self, x: npt.ArrayLike) -> np.ndarray:
        """Drop values in training, and store the mask for ``backward``; return x in prediction.

        Parameters
        ----------
        x : array_like, shape (n, ...)
            The layer does not write to it. NaN and infinity become NaN where they are dropped.

        Returns
        -------
        ndarray
            The result, of the shape of x; in prediction x itself, if it is an array of floats.
        """
        x = checks.floats(self, "x", x)
        checks.nonempty(self, "x", x)
        if not self.training:
            self.mask = np.broadcast_to(np.ones((), x.dtype), x.shape)
            return x
        y = take(self._buffers, "y", x.shape, x.dtype, x.size)
        mask = take(self._buffers, "mask", x.shape, x.dtype, x.size)
        dropout_forward(y, mask, x, self.rate, self.seed, self.calls)
        self.mask, self.calls = mask, self.calls + 1
        return y

    def backward(self, y_grad: npt.ArrayLike) -> np.ndarray:
        """Multiply the gradient by the mask.

        Parameters
        ----------
        y_grad : array_like
            Gradient of the loss with respect to the output of the last ``forward``, of the same shape.

        Returns
        -------
        ndarray
            Gradient of the loss with respect to the input.
        """
        mask = checks.floats(self, "mask", checks.computed(self, "mask", self.mask, "forward"))
        dy = checks.floats(self, "y_grad", y_grad, mask.dtype)
        dy = checks.same_shape(self, "y_grad", dy, "the output", mask.shape)
        dx = take(self._buffers, "dx", dy.shape, dy.dtype, dy.size)
        dropout_backward(dx, dy, mask)
        return dx

    def lower(self, net: Builder, x: Value) -> Value:
        """Add this layer's ops to a compiled step, see :mod:`fastnet.program.builder`."""
        calls = net.state("calls", counts=True)
        if net.forward_only:
            return x
        y, mask = net.like(x), net.like(x)
        net.forward(CALL, reads={x: ROWS, calls.now: ALL}, writes={y: ROWS, mask: ROWS}, overwrites={y: x},
                    kernel=dropout_op, c=y.mat, a=x.mat, b=mask.mat, aux=calls.now, n=x.columns, number=self.rate,
                    seed=self.seed)
        net.update(CALL, split=TEAM, reads={calls.now: ALL}, writes={calls.next: ONE}, kernel=count_op, aux=calls.next)

        def backward(dy: Value) -> Value:
            dx = dy.overwritten()
            net.backward(CALL, reads={dy: ROWS, mask: ROWS}, writes={dx: ROWS}, kernel=dropout_grad_op, c=dx.mat,
                         a=mask.mat, n=x.columns)
            return dx

        net.on_backward(backward)
        return y

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.rate})"
