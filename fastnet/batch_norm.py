"""The batch normalisation layer."""
from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet.base import checks, dtypes
from fastnet.base.attributes import FloatArray, Remembered
from fastnet.base.buffers import Buffered, take
from fastnet.kernels import batch_norm as kernels
from fastnet.kernels.codegen.linking import AddressedKernel
from fastnet.kernels.conv import batch_norm as of_images
from fastnet.kernels.records import CALL, TEAM, Channels, ImageSizes
from fastnet.kernels.sgd import sgd_update
from fastnet.layer import known
from fastnet.program.builder import ALL, COLUMNS, ROWS, Builder, Unsupported, Value
from fastnet.program.images import Image, block_size, groups_of, image, image_like, padding_behind
from fastnet.program.memory import WORK, Matrix, Parameter, Ref


def _of_channels(layer: Any) -> tuple[int, int]:
    return (1, layer.n)


@known
class BatchNormLayer(Buffered):
    """Batch normalisation: it gives each column of rows, or each channel of images, a learned mean and standard deviation.

    y = gamma (x - mean) / sqrt(var + eps) + beta (Ioffe & Szegedy 2015, algorithm 1). In training, mean and var are those of
    the mini-batch, and the running statistics follow them; in prediction they are the running statistics.

    Parameters
    ----------
    n : int
        Number of columns, or of channels.
    eps : float
        A number that keeps the divisor above 0.
    momentum : float
        The weight of a mini-batch in the running statistics: running = (1 - momentum) running + momentum found.
    dtype : float32 or float64, optional
        Type of the parameters, and so of the computation. The default is float64, see :func:`fastnet.set_default_dtype`.

    Attributes
    ----------
    gamma, beta : ndarray, shape (1, n)
        Scale and shift, initially 1 and 0. Weight decay does not change them.
    gamma_grad, beta_grad : ndarray or None
        Gradients from the last ``backward``.
    running_mean, running_var : ndarray, shape (1, n)
        Running statistics, initially 0 and 1. Every ``forward`` in training changes them.
    x : ndarray or None
        The last input.
    training : bool
        Whether the layer uses the mini-batch's own statistics, see :meth:`fastnet.Sequential.train`.

    Notes
    -----
    As in PyTorch, the layer divides by the biased variance, the mean of the N squared deviations of a channel, and the
    running variance follows the unbiased one, N / (N - 1) times that. For a mini-batch of one value per channel, which
    PyTorch refuses, the output is beta, and the running statistics do not change.

    Examples
    --------
    >>> layer = BatchNormLayer(1, eps=0.0)
    >>> layer.forward([[1.0], [3.0]])
    array([[-1.],
           [ 1.]])
    >>> layer.running_mean, layer.running_var
    (array([[0.2]]), array([[1.1]]))
    """

    gamma = FloatArray(shape=_of_channels, optional=False, sizes="n")
    beta = FloatArray(shape=_of_channels, optional=False, sizes="n")
    running_mean = FloatArray(shape=_of_channels, optional=False, sizes="n")
    running_var = FloatArray(shape=_of_channels, optional=False, sizes="n")
    gamma_grad = FloatArray(shape=_of_channels, sizes="n")
    beta_grad = FloatArray(shape=_of_channels, sizes="n")
    x = FloatArray()
    statistics = Remembered()  # mean and 1 / sqrt(var + eps) of the last forward pass, and whether they are the mini-batch's

    settings = ("n", "eps", "momentum")
    takes = frozenset({"rows", "images"})
    keeps_layout = True
    needs_batch = True
    decays = ()

    def __init__(self, n: int, eps: float = 1e-5, momentum: float = 0.1, dtype: npt.DTypeLike | None = None) -> None:
        self.n = checks.whole_number("BatchNormLayer", "n", n, "It is the number of columns, or of channels of images.")
        self.eps = checks.rate("BatchNormLayer", eps, "eps")
        self.momentum = checks.rate("BatchNormLayer", momentum, "momentum")
        if self.momentum > 1:
            raise ValueError(f"BatchNormLayer: momentum must be at most 1, got {self.momentum}. It is the weight of a "
                             "mini-batch in the running statistics; 0.1 is usual.")
        type_ = dtypes.supported("BatchNormLayer", dtype)
        self.gamma, self.beta = np.ones((1, self.n), type_), np.zeros((1, self.n), type_)
        self.running_mean, self.running_var = np.zeros((1, self.n), type_), np.ones((1, self.n), type_)
        self.x = self.gamma_grad = self.beta_grad = self.statistics = None

    @property
    def dtype(self) -> np.dtype:
        """The type that the layer computes in: the widest of the types of its arrays, float32 or float64."""
        arrays = (self.gamma, self.beta, self.running_mean, self.running_var)
        return dtypes.result_dtype(*(a for a in arrays if a is not None))

    def torch_module(self, nn: Any) -> Any:
        """Return the module of ``torch.nn`` that computes the same for rows."""
        return nn.BatchNorm1d(self.n, self.eps, self.momentum)

    def torch_module_of_images(self, nn: Any) -> Any:
        """Return the module of ``torch.nn`` that computes the same for images."""
        return nn.BatchNorm2d(self.n, self.eps, self.momentum)

    def output_shape(self, shape: tuple[int | None, ...] | None) -> tuple[int | None, ...] | None:
        """Return the shape of an output sample, which is that of an input sample."""
        if shape is not None:
            checks.channels(self, f"samples of shape {shape}", shape, self.n)
        return shape

    def forward(self, x: npt.ArrayLike) -> np.ndarray:
        """Normalise each channel, and store x for ``backward``.

        Parameters
        ----------
        x : array_like, shape (n_samples, n) or (n_samples, n, r, k)
            The layer does not write to it.

        Returns
        -------
        ndarray
            The result, of the shape of x.
        """
        gamma, beta, running_mean, running_var = self._state()
        x = checks.floats(self, "x", x, gamma.dtype)
        checks.nonempty(self, "x", x)
        checks.channels(self, f"x of shape {x.shape}", x.shape[1:], self.n)
        y = take(self._buffers, "y", x.shape, x.dtype, x.size)
        if not self.training:
            inv = (1 / np.sqrt(running_var.astype(float) + self.eps)).astype(x.dtype)
            kernels.batch_norm_predict(y, x, gamma, beta, running_mean, inv)
            self.x, self.statistics = x, (running_mean, inv, False)
            return y
        mean, var, inv = (np.empty((1, self.n), x.dtype) for _ in range(3))
        kernels.batch_norm_forward(y, mean, var, inv, x, gamma, beta, self.eps)
        count = x.size // self.n
        if count > 1:
            self.running_mean = running_mean + self.momentum * (mean - running_mean)
            self.running_var = running_var + self.momentum * (count / (count - 1) * var - running_var)
        self.x, self.statistics = x, (mean, inv, True)
        return y

    def backward(self, y_grad: npt.ArrayLike) -> np.ndarray:
        """Compute the gradients from that of the output; store ``gamma_grad`` and ``beta_grad``.

        With z = (x - mean) / sqrt(var + eps): the gradient of beta is the sum of y_grad, that of gamma the sum of y_grad z,
        that of x is gamma / sqrt(var + eps) (y_grad - (beta_grad + z gamma_grad) / N). In prediction, where mean and var are
        constants, that of x is gamma / sqrt(var + eps) y_grad.

        Parameters
        ----------
        y_grad : array_like
            Gradient of the loss with respect to the output of the last ``forward``, of the same shape.

        Returns
        -------
        ndarray
            Gradient of the loss with respect to the input.
        """
        gamma = self._state()[0]
        mean, inv, of_batch = checks.computed(self, "statistics", self.statistics, "forward")
        x = checks.floats(self, "x", checks.computed(self, "x", self.x, "forward"), gamma.dtype)
        checks.channels(self, f"x of shape {x.shape}", x.shape[1:], self.n)
        dy = checks.floats(self, "y_grad", y_grad, gamma.dtype)
        dy = checks.same_shape(self, "y_grad", dy, "the output", x.shape)
        dx = take(self._buffers, "dx", x.shape, x.dtype, x.size)
        dgamma, dbeta = np.empty((1, self.n), x.dtype), np.empty((1, self.n), x.dtype)
        kernels.batch_norm_backward(dx, dgamma, dbeta, dy, x, gamma, mean, inv)
        if not of_batch:
            kernels.batch_norm_predict(dx, dy, gamma, np.zeros_like(gamma), np.zeros_like(gamma), inv)
        self.gamma_grad, self.beta_grad = dgamma, dbeta
        return dx

    def update_param(self, lr: float) -> None:
        """Take a step against the gradients: the new gamma is gamma - lr gamma_grad, the new beta is beta - lr beta_grad.

        Parameters
        ----------
        lr : float
            The learning rate.
        """
        lr = checks.rate(self, lr)
        gamma, beta, *_ = self._state()
        for name, value in (("gamma", gamma), ("beta", beta)):
            gradient = checks.computed(self, f"{name}_grad", getattr(self, f"{name}_grad"), "forward() and backward")
            gradient = checks.own_shape(self, f"{name}_grad", gradient, value.shape, value.dtype, "n")
            new = np.empty(value.shape, value.dtype)
            sgd_update(new, value, gradient, lr)
            setattr(self, name, new)

    def lower(self, net: Builder, x: Value) -> Value:
        """Add this layer's ops to a compiled step, see :mod:`fastnet.program.builder`."""
        if x.shape[0] != self.n or len(x.shape) not in (1, 3):
            raise Unsupported(f"BatchNormLayer takes rows of {self.n} columns or images of {self.n} channels, and is given "
                              f"samples of shape {x.shape}")
        gamma, beta = (net.parameter(name, (1, self.n), vector=True) for name in ("gamma", "beta"))
        mean, var = (net.state(name, (1, self.n)) for name in ("running_mean", "running_var"))
        if isinstance(x, Image):
            if self.n <= of_images.MOST_CHANNELS:
                return self._lower_images(net, x, gamma, beta, mean, var)
            x = x.as_rows(net)
        values = x.columns // self.n
        y = net.like(x)
        if net.forward_only:
            net.forward(CALL, reads={x: ROWS, **dict.fromkeys((gamma.now, beta.now, mean.now, var.now), ALL)},
                        writes={y: ROWS}, kernel=kernels.batch_norm_predict_op, c=y.mat, a=x.mat, b=Matrix(gamma.now, 0),
                        bias=beta.now, aux=mean.now, packed=var.now, n=self.n, number=self.eps,
                        channels=Channels(values))
            return y
        part = COLUMNS if values == 1 else ALL  # whose a channel is: neighbouring columns, or whatever the kernel says
        stride = -(-self.n // net.lanes) * net.lanes
        found, gradients = net.reserve(WORK, 3 * stride), net.reserve(WORK, 2 * stride)
        op: dict[str, Any] = {"split": TEAM, "n": self.n, "channels": Channels(values, stride)}
        net.cost.add(parameter_traffic=6 * self.n, operations=20.0 * x.columns)
        net.forward(CALL, reads={x: part, gamma.now: part, beta.now: part}, writes={y: part, found: part},
                    kernel=kernels.batch_norm_op, c=y.mat, a=x.mat, b=Matrix(gamma.now, 0), bias=beta.now, aux=found,
                    number=self.eps, **op)
        net.update(CALL, reads={found: part}, writes={mean.next: part, var.next: part}, kernel=kernels.batch_norm_running_op,
                   c=Matrix(mean.next, 0), a=Matrix(found, 0), bias=var.next, number=self.momentum, **op)

        def backward(dy: Value) -> Value:
            dx = dy.overwritten()
            net.backward(CALL, reads={dy: part, x: part, gamma.now: part, found: part},
                         writes={dx: part, gradients: part}, kernel=kernels.batch_norm_grad_op, c=dx.mat, a=x.mat,
                         b=Matrix(gamma.now, 0), aux=found, packed=gradients, **op)
            of_gamma: dict[str, Ref] = net.moments_of(gamma)
            of_beta = net.moments_of(beta)
            net.update(CALL, reads={gradients: part},
                       writes=dict.fromkeys((gamma.next, beta.next, *of_gamma.values(), *of_beta.values()), part),
                       kernel=_update_op(of_gamma), c=Matrix(gamma.next, 0), a=Matrix(gradients, 0), bias=beta.next,
                       **of_gamma, **op)
            return dx

        net.on_backward(backward)
        return y

    def _lower_images(self, net: Builder, x: Image, gamma: Parameter, beta: Parameter, mean: Parameter,
                      var: Parameter) -> Image:
        """The ops for images as they lie, see `fastnet.kernels.conv.batch_norm`."""
        y = image(net, x.shape, padding_behind(net, net.layer), True)
        _, r, k = x.shape
        stride = -(-self.n // net.lanes) * net.lanes
        op: dict[str, Any] = {"n": self.n, "image": ImageSizes(r, k, x.around, y.around, block_size(net)),
                              "channels": Channels(r * k, stride)}
        if net.forward_only:
            net.forward(CALL, reads={x: ROWS, **dict.fromkeys((gamma.now, beta.now, mean.now, var.now), ALL)},
                        writes={y: ROWS}, kernel=of_images.image_predict_op, c=y.mat, a=x.mat, b=Matrix(gamma.now, 0),
                        bias=beta.now, aux=mean.now, packed=var.now, number=self.eps, relu=0, **op)
            return y
        of_team, (groups, group) = op | {"split": TEAM}, groups_of(net)
        found, gradients = net.reserve(WORK, 3 * stride), net.reserve(WORK, 2 * stride)
        sums, of_dy = (net.reserve(WORK, groups * 2 * self.n * (8 // net.dtype.itemsize)) for _ in range(2))
        net.cost.add(parameter_traffic=6 * self.n, operations=20.0 * x.columns)
        net.forward(CALL, reads={x: ROWS}, writes={sums: ROWS}, kernel=of_images.image_sums_op, a=x.mat, aux=sums, **op)
        merged = sums.overwritten()
        net.forward(CALL, reads={sums: ALL}, writes={found: COLUMNS, merged: ALL}, kernel=of_images.image_statistics_op,
                    c=Matrix(found, 0), aux=merged, number=self.eps, group=group, **of_team)
        normalise = net.forward(CALL, reads={x: ROWS, **dict.fromkeys((found, gamma.now, beta.now), ALL)}, writes={y: ROWS},
                                kernel=of_images.image_normalise_op, c=y.mat, a=x.mat, b=Matrix(gamma.now, 0), bias=beta.now,
                                aux=found, relu=0, **op)
        net.update(CALL, reads={found: ALL}, writes={mean.next: ALL, var.next: ALL}, kernel=kernels.batch_norm_running_op,
                   c=Matrix(mean.next, 0), a=Matrix(found, 0), bias=var.next, number=self.momentum, **of_team)

        def backward(dy: Image) -> Image | None:
            masked = dy.overwritten()
            net.backward(CALL, reads={dy: ROWS, x: ROWS, y: ROWS, found: ALL}, writes={masked: ROWS, of_dy: ROWS},
                         kernel=of_images.image_gradient_sums_op, c=masked.mat, a=x.mat, b=y.mat, bias=found, aux=of_dy,
                         relu=normalise.record["relu"], **op)
            net.backward(CALL, reads={of_dy: ALL, found: ALL}, writes={gradients: COLUMNS},
                         kernel=of_images.image_gradients_op, c=Matrix(gradients, 0), aux=of_dy, bias=found, group=group,
                         **of_team)
            of_gamma: dict[str, Ref] = net.moments_of(gamma)
            of_beta = net.moments_of(beta)
            net.update(CALL, reads={gradients: ALL},
                       writes=dict.fromkeys((gamma.next, beta.next, *of_gamma.values(), *of_beta.values()), ALL),
                       kernel=_update_op(of_gamma), c=Matrix(gamma.next, 0), a=Matrix(gradients, 0), bias=beta.next,
                       **of_gamma, **of_team)
            if not x.wanted:
                return None
            dx = image_like(net, x)
            net.backward(CALL, reads={masked: ROWS, x: ROWS, **dict.fromkeys((found, gamma.now, gradients), ALL)},
                         writes={dx: ROWS}, kernel=of_images.image_back_op, c=dx.mat, a=x.mat, b=masked.mat, bias=gamma.now,
                         aux=found, packed=gradients, **op)
            return dx

        net.on_backward(backward)
        return y

    def _state(self) -> list[np.ndarray]:
        """Return gamma, beta, running_mean and running_var in one dtype."""
        dtype = self.dtype
        return [checks.own_shape(self, name, getattr(self, name), (1, self.n), dtype, "n")
                for name in ("gamma", "beta", "running_mean", "running_var")]

    def __repr__(self) -> str:
        dtype = "" if self.dtype == np.float64 else f", dtype={self.dtype}"
        return f"{type(self).__name__}({self.n}{dtype})"


def _update_op(kept: dict[str, Ref]) -> AddressedKernel:
    """The op that updates gamma and beta; `kept`: what the optimiser keeps of gamma, see `Builder.moments_of`."""
    return kernels.batch_norm_update_with_moments_op if kept else kernels.batch_norm_update_op
