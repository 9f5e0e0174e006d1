"""The fully connected layer."""
from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy import ndarray

from fastnet.base import checks, dtypes
from fastnet.base.attributes import FloatArray
from fastnet.base.buffers import Buffered, take
from fastnet.base.passes import Checked, Refused, run_pass
from fastnet.kernels.full import full_backward, full_forward
from fastnet.kernels.gemm.commands import attempt, backward_job, forward_job, sgd_job
from fastnet.kernels.records import DENSE, INPUTS, OUTPUTS, SAMPLES, UPDATE
from fastnet.kernels.runtime.pool import caller
from fastnet.kernels.sgd import sgd_update
from fastnet.layer import known
from fastnet.program.builder import ALL, COLUMNS, ROWS, Builder, Unsupported, Value
from fastnet.program.builder import INPUTS as OF_INPUTS
from fastnet.program.memory import Matrix


@known
class FullLayer(Buffered):
    """Fully connected layer: every output is a weighted sum of all inputs, plus a bias.

    ``forward`` computes y = x Wᵀ + b (equation 3.7 of the chapter), ``backward`` the gradients dx = dy W, dW = dyᵀ x and
    db = the sum of dy over the samples (3.9), ``update_param`` the step W - lr dW, b - lr db (3.10, 3.11).

    Parameters
    ----------
    n_i, n_o : int
        Number of inputs and of outputs.
    dtype : float32 or float64, optional
        Type of W and b, and so of the computation. The default is float64, see :func:`fastnet.set_default_dtype`.
    rng : numpy.random.Generator or RandomState or int, optional
        The generator that draws the weights; an int is the seed of a new one. By default NumPy's global state draws them,
        so that ``np.random.seed`` makes them reproducible.
    initializer : {"glorot", "he"}
        The standard deviation of the initial weights, which are normally distributed: sqrt(2 / (n_i + n_o)) (3.12; Glorot &
        Bengio 2010), or sqrt(2 / n_i) (He et al. 2015), which suits ReLU.

    Attributes
    ----------
    W : ndarray, shape (n_o, n_i)
        Weights, see `initializer`.
    b : ndarray, shape (1, n_o)
        Biases, initially 0 (3.13).
    x : ndarray, shape (n, n_i), or None
        The last input.
    W_grad, b_grad : ndarray or None
        Gradients from the last ``backward``, of the shapes of W and b. ``w_grad`` is another name of ``W_grad``.

    Notes
    -----
    You may assign all attributes and change them in place. No method writes into an array that you assigned or still hold:
    outputs, gradients and new weights are then new arrays, see :mod:`fastnet.base.buffers`.

    The same input gives the same bits on any number of threads. As with a BLAS, the output for one sample may differ in the
    last place between memory layouts, and between a batch of fewer than four samples and a larger one: for few samples or
    few outputs with contiguous rows, the layer computes dot products.

    Examples
    --------
    >>> import numpy as np
    >>> layer = FullLayer(2, 1)
    >>> layer.W = np.array([[1.0, 10.0]])
    >>> layer.forward(np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([[21.],
           [43.]])
    >>> layer.backward(np.array([[1.0], [1.0]]))
    array([[ 1., 10.],
           [ 1., 10.]])
    >>> layer.W_grad, layer.b_grad
    (array([[4., 6.]]), array([[2.]]))
    """

    W = FloatArray(shape=lambda layer: (layer.n_o, layer.n_i), optional=False)
    b = FloatArray(shape=lambda layer: (1, layer.n_o), optional=False)
    W_grad = FloatArray(shape=lambda layer: (layer.n_o, layer.n_i))
    b_grad = FloatArray(shape=lambda layer: (1, layer.n_o))
    x = FloatArray()

    settings = ("n_i", "n_o")

    def __init__(self, n_i: int, n_o: int, dtype: npt.DTypeLike | None = None, rng: Any = None, *,
                 initializer: str = "glorot") -> None:
        self.n_i = checks.whole_number("FullLayer", "n_i", n_i, "It is the number of values per sample.")
        self.n_o = checks.whole_number("FullLayer", "n_o", n_o, "It is the number of outputs.")
        type_ = dtypes.supported("FullLayer", dtype)
        normal = checks.generator("FullLayer", rng).normal
        spread = checks.spread("FullLayer", initializer, self.n_i, self.n_o)
        self.W = normal(0, spread, size=(self.n_o, self.n_i)).astype(type_, copy=False)
        self.b = np.zeros((1, self.n_o), type_)
        self.x = self.W_grad = self.b_grad = None

    @property
    def dtype(self) -> np.dtype:
        """The type that the layer computes in: the wider of the types of W and b, float32 or float64."""
        return dtypes.result_dtype(*(a for a in (self.W, self.b) if a is not None))

    @property
    def w_grad(self) -> Any:
        """The same array as ``W_grad``; the chapter uses both names."""
        return self.W_grad

    @w_grad.setter
    def w_grad(self, value: npt.ArrayLike | None) -> None:
        self.W_grad = value

    def input_shape(self) -> tuple[int | None, ...]:
        """Return the shape of an input sample: (n_i,)."""
        return (self.n_i,)

    def multiply_adds(self, shape: tuple[int, ...]) -> float:
        """Return the number of multiply-adds of a forward pass for one sample."""
        return float(self.n_i * self.n_o)

    def output_shape(self, shape: tuple[int | None, ...] | None) -> tuple[int | None, ...]:
        """Return the shape of an output sample, (n_o,), for that of an input sample, (n_i,) or None if it is not known."""
        checks.width_given(self, shape, self.n_i)
        return (self.n_o,)

    def forward(self, x: npt.ArrayLike) -> np.ndarray:
        """Compute x Wᵀ + b, and store x for ``backward``.

        Parameters
        ----------
        x : array_like, shape (n, n_i)
            One sample per row. The layer does not write to it.

        Returns
        -------
        ndarray, shape (n, n_o)
        """
        return run_pass(self, _forward, _checked_input, x)

    def backward(self, y_grad: npt.ArrayLike) -> np.ndarray:
        """Compute the gradients from that of the output; store ``W_grad`` and ``b_grad``.

        Parameters
        ----------
        y_grad : array_like, shape (n, n_o)
            Gradient of the loss with respect to the output of the last ``forward``.

        Returns
        -------
        ndarray, shape (n, n_i)
            Gradient of the loss with respect to the input.
        """
        return run_pass(self, _backward, _checked_gradient, y_grad)

    def update_param(self, lr: float) -> None:
        """Take a step against the gradients: the new W is W - lr W_grad, the new b is b - lr b_grad.

        Parameters
        ----------
        lr : float
            The learning rate.
        """
        run_pass(self, _update, _checked_step, lr)

    def lower(self, net: Builder, x: Value) -> Value:
        """Add this layer's ops to a compiled step, see :mod:`fastnet.program.builder`."""
        if net.is_input(x) and net.first is not None:
            return net.first.lower(net, x)
        if x.shape != (self.n_i,):
            raise Unsupported(f"FullLayer takes samples of {self.n_i} values, not of the shape {x.shape}")
        W = net.parameter("W", (self.n_o, self.n_i))
        b = net.parameter("b", (1, self.n_o), vector=True)
        y = net.value(self.n_o)
        # In the first layer each thread reads all samples and computes some outputs, whose weights stay in its cache. In
        # later layers, and if the outputs cannot be divided evenly, each thread computes all outputs of some samples.
        by_outputs = net.is_input(x) and not net.forward_only and net.shares_evenly(self.n_o)
        split, of_x, of_y = (OUTPUTS, ALL, COLUMNS) if by_outputs else (SAMPLES, ROWS, ROWS)
        of_W = COLUMNS if by_outputs else ALL
        net.forward(DENSE, split=split, reads={x: of_x, W.now: of_W, b.now: of_W}, writes={y: of_y},
                    c=y.mat, a=x.mat, b=W.mat(W.now), bias=b.now, n=self.n_o, k=self.n_i)
        products = 3 if net.needs_gradient(x) else 2
        net.cost.first = self.n_o if net.is_input(x) and self is net.layers[0] else net.cost.first
        net.cost.add(operations=2 * products * self.n_i * self.n_o, products=self.n_i * self.n_o,
                     parameter_traffic=(6 if products == 3 else 3) * self.n_i * self.n_o)

        def backward(dy: Value) -> Value | None:
            dx, new_copy = None, {}
            if net.needs_gradient(x):
                dx, copy = net.like(x), net.copy_for_backward(W, self.n_o * -(-self.n_i // net.lanes) * net.lanes)
                new_copy = {"packed": copy.overwritten()}
                net.backward(DENSE, reads={dy: ROWS, copy: ALL}, writes={dx: ROWS}, c=dx.mat, a=dy.mat,
                             b=Matrix(copy, net.lanes, 1, self.n_o * net.lanes), n=self.n_i, k=self.n_o)
            part, kept = COLUMNS if by_outputs else OF_INPUTS, net.moments_of(W)
            net.update(UPDATE, split=OUTPUTS if by_outputs else INPUTS,
                       reads={x: ALL, dy: COLUMNS} if by_outputs else {x: COLUMNS, dy: ALL},
                       writes=dict.fromkeys((W.next, *new_copy.values(), *kept.values()), part), c=W.mat(W.next), a=x.mat,
                       b=dy.mat, decays=1, n=self.n_o, k=self.n_i, rank=int(by_outputs), **new_copy, **kept)
            net.update_bias(b, dy)
            return dx

        net.on_backward(backward)
        return y

    def _parameters(self) -> tuple[np.ndarray, np.ndarray]:
        dtype = self.dtype
        return (
            checks.own_shape(self, "W", self.W, (self.n_o, self.n_i), dtype),
            checks.own_shape(self, "b", self.b, (1, self.n_o), dtype),
        )

    def torch_module(self, nn: Any) -> Any:
        """Return the module of ``torch.nn`` that computes the same."""
        return nn.Linear(self.n_i, self.n_o, device="meta")

    def __repr__(self) -> str:
        dtype = "" if self.dtype == np.float64 else f", dtype={self.dtype}"
        return f"{type(self).__name__}({self.n_i}, {self.n_o}{dtype})"


def _forward(layer: FullLayer, x: np.ndarray, held: dict[str, Any], kernel: Any = forward_job) -> np.ndarray:
    W, b, dtype = held["W"], held["b"], x.dtype
    if type(x) is not ndarray or not dtype == W.dtype == b.dtype:
        raise Refused
    n, n_o = len(x), layer.n_o
    y = take(layer._buffers, "y", (n, n_o), dtype, n * n_o)
    if kernel(y, x, W, b, layer.n_i, caller()) is False:
        raise Refused
    held["x"] = x
    return y


def _checked_input(layer: FullLayer, x: npt.ArrayLike) -> tuple[Any, ...]:
    W, b = layer._parameters()
    x = checks.rows(layer, "x", checks.floats(layer, "x", x, W.dtype), layer.n_i)
    return x, Checked(layer, W=W, b=b), lambda y, x, W, b, *_: full_forward(y, x, W, b)


def _backward(layer: FullLayer, dy: np.ndarray, held: dict[str, Any], kernel: Any = backward_job) -> np.ndarray:
    x, W, dtype, n_i, n_o = held["x"], held["W"], dy.dtype, layer.n_i, layer.n_o
    if type(dy) is not ndarray or not dtype == x.dtype == W.dtype == held["b"].dtype:
        raise Refused
    buffers = layer._buffers
    dx = take(buffers, "dx", x.shape, dtype, x.size)
    dW = take(buffers, "dW", (n_o, n_i), dtype, n_o * n_i)
    db = take(buffers, "db", (1, n_o), dtype, n_o)
    if kernel(dx, dW, db, dy, x, W, n_i, n_o, caller()) is False:
        raise Refused
    held["W_grad"], held["b_grad"] = dW, db
    return dx


def _checked_gradient(layer: FullLayer, y_grad: npt.ArrayLike) -> tuple[Any, ...]:
    W, b = layer._parameters()
    x = checks.floats(layer, "x", checks.computed(layer, "x", layer.x, "forward"), W.dtype)
    x = checks.rows(layer, "x", x, layer.n_i)
    dy = checks.floats(layer, "y_grad", y_grad, W.dtype)
    dy = checks.same_shape(layer, "y_grad", dy, "the output", (len(x), layer.n_o))
    return dy, Checked(layer, x=x, W=W, b=b), lambda *arrays: full_backward(*arrays[:6])


def _update(layer: FullLayer, lr: float, held: dict[str, Any], kernel: Any = sgd_job) -> None:
    W, b, dW, db, n_i, n_o = held["W"], held["b"], held["W_grad"], held["b_grad"], layer.n_i, layer.n_o
    dtype = W.dtype
    if type(lr) is not float or not 0 <= lr < inf or not dtype == b.dtype == dW.dtype == db.dtype:
        raise Refused
    buffers = layer._buffers
    new_W = take(buffers, "W", (n_o, n_i), dtype, n_o * n_i)
    new_b = take(buffers, "b", (1, n_o), dtype, n_o)
    if kernel(new_W, W, dW, new_b, b, db, lr, n_i, n_o, caller()) is False:
        raise Refused
    held["W"], held["b"] = new_W, new_b


def _checked_step(layer: FullLayer, lr: float) -> tuple[Any, ...]:
    lr = checks.rate(layer, lr)
    W, b = layer._parameters()
    dW = checks.computed(layer, "W_grad", layer.W_grad, "forward() and backward")
    db = checks.computed(layer, "b_grad", layer.b_grad, "forward() and backward")
    dW = checks.own_shape(layer, "W_grad", dW, W.shape, W.dtype)
    db = checks.own_shape(layer, "b_grad", db, b.shape, b.dtype)
    return lr, Checked(layer, W=W, b=b, W_grad=dW, b_grad=db), _any_update


def _any_update(new_W: np.ndarray, W: np.ndarray, dW: np.ndarray, new_b: np.ndarray, b: np.ndarray, db: np.ndarray,
                lr: float, n_i: int, n_o: int, caller: int) -> None:
    if not attempt(sgd_job, W.dtype, new_W, W, dW, new_b, b, db, lr, n_i, n_o):
        sgd_update(new_W, W, dW, lr)
        sgd_update(new_b, b, db, lr)
