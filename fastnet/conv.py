"""The convolutional layer."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet.base import checks, dtypes
from fastnet.base.attributes import FloatArray
from fastnet.base.buffers import Buffered, take
from fastnet.kernels import conv as kernels
from fastnet.kernels.conv import ops
from fastnet.kernels.conv.avx512 import LANES, LISTS, choose_way
from fastnet.kernels.conv.image import back_kernel, margin, patch_bytes
from fastnet.kernels.conv.strided import strided_memory
from fastnet.kernels.conv.winograd import LEAST_CHANNELS, memory_size
from fastnet.kernels.records import CALL, TEAM, FilterLayout, ImageSizes, Window
from fastnet.kernels.runtime.pool import SCRATCH_BYTES
from fastnet.kernels.sgd import sgd_update
from fastnet.layer import known
from fastnet.program.builder import ALL, COLUMNS, ROWS, Builder, Unsupported, Value
from fastnet.program.filters import Filters
from fastnet.program.images import (
    Image,
    block_size,
    for_each_thread,
    fused_with,
    groups_of,
    image,
    image_like,
    images_of,
    mask_behind,
    padding_behind,
    row_length,
)
from fastnet.program.memory import WORK, Matrix, Ref

_PATCH_BYTES = SCRATCH_BYTES // 2  # of one patch and its gradient, at most, in the backward pass


@known
class ConvLayer(Buffered):
    """Convolutional layer: every output pixel is a weighted sum of the h x h pixels around it, in all channels.

    y[n, o, i, j] = b[o] + sum over c, p, q of W[o, c, p, q] x[n, c, stride i + p - padding, stride j + q - padding]

    The layer does not flip the filters, and x is 0 outside the image. By default the stride is 1 and the padding h // 2, so
    that images keep their height and width.

    Parameters
    ----------
    n_i, n_o : int
        Number of input and output channels.
    h : int
        Side of the square filters; it must be odd with ``padding="same"``.
    dtype : float32 or float64, optional
        Type of W and b, and so of the computation. The default is float64, see :func:`fastnet.set_default_dtype`.
    rng : numpy.random.Generator or RandomState or int, optional
        The generator that draws the weights; an int is the seed of a new one. By default NumPy's global state draws them,
        so that ``np.random.seed`` makes them reproducible.
    initializer : {"glorot", "he"}
        The standard deviation of the initial filters, which are normally distributed: sqrt(2 / (n_i h h + n_o h h)) (Glorot
        & Bengio 2010), or sqrt(2 / (n_i h h)) (He et al. 2015), which suits ReLU.
    stride : int or (int, int)
        The step from the patch of one output pixel to that of the next; a pair is for rows and columns.
    padding : {"same", "valid"} or int or (int, int)
        The number of rows and columns of zeros on each side of an image. ``"same"`` is h // 2: an image of r rows becomes
        one of r / stride rows, rounded up. ``"valid"`` is 0.

    Attributes
    ----------
    W : ndarray, shape (n_o, n_i, h, h)
        Filters, see `initializer`.
    b : ndarray, shape (1, n_o)
        Biases, initially 0. You may also assign an array of shape (n_o,).
    x : ndarray, shape (n, n_i, r, k), or None
        The last input.
    W_grad, b_grad : ndarray or None
        Gradients from the last ``backward``, of the shapes of W and b. ``w_grad`` is another name of ``W_grad``.

    Notes
    -----
    You may assign all attributes and change them in place. ``update_param`` never writes into an array that you assigned:
    it binds new ones.

    An image of r rows becomes one of (r + 2 padding - h) // stride + 1 rows. As in PyTorch, padding is the same on both
    sides; Keras' ``"same"`` with a stride above 1 may have less above and to the left.

    Examples
    --------
    >>> import numpy as np
    >>> layer = ConvLayer(1, 1, 3)
    >>> layer.W = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> layer.forward(np.arange(9.0).reshape(1, 1, 3, 3))
    array([[[[ 58., 100.,  70.],
             [132., 204., 132.],
             [ 70., 100.,  58.]]]])
    >>> ConvLayer(3, 8, 5, stride=2, padding="valid").output_shape((3, 32, 32))
    (8, 14, 14)
    """

    W = FloatArray(shape=lambda layer: (layer.n_o, layer.n_i, layer.h, layer.h), optional=False, sizes="n_o, n_i and h")
    b = FloatArray(shape=lambda layer: (1, layer.n_o), optional=False, sizes="n_o, n_i and h")
    W_grad = FloatArray(shape=lambda layer: (layer.n_o, layer.n_i, layer.h, layer.h))
    b_grad = FloatArray(shape=lambda layer: (1, layer.n_o))
    x = FloatArray()

    settings = ("n_i", "n_o", "h", "stride", "padding")
    added_settings = ("stride", "padding")
    takes = frozenset({"rows", "images"})
    needs_images = True

    def __init__(self, n_i: int, n_o: int, h: int, dtype: npt.DTypeLike | None = None, rng: Any = None, *,
                 initializer: str = "glorot", stride: int | tuple[int, int] = 1,
                 padding: str | int | tuple[int, int] = "same") -> None:
        self.n_i = checks.whole_number("ConvLayer", "n_i", n_i, "It is the number of channels of an image.")
        self.n_o = checks.whole_number("ConvLayer", "n_o", n_o, "It is the number of filters.")
        self.stride = checks.one_or_two("ConvLayer", "stride", stride, "It is the step from a patch to the next one.")
        self.padding = _padding(padding)
        if self.padding == "same":
            self.h = checks.odd_number("ConvLayer", "h", h, "It is the side of a filter, which has a middle: 3 is usual. An "
                                       'even one needs padding="valid", or a number.')
        else:
            self.h = checks.whole_number("ConvLayer", "h", h, "It is the side of a filter: 3 is usual.")
        type_ = dtypes.supported("ConvLayer", dtype)
        normal = checks.generator("ConvLayer", rng).normal
        spread = checks.spread("ConvLayer", initializer, self.n_i * self.h * self.h, self.n_o * self.h * self.h)
        self.W = normal(0, spread, size=(self.n_o, self.n_i, self.h, self.h)).astype(type_, copy=False)
        self.b = np.zeros((1, self.n_o), type_)
        self.x = self.W_grad = self.b_grad = None

    @property
    def window(self) -> tuple[int, int, int, int]:
        """The strides of rows and columns, then their padding."""
        padding = self.padding
        if isinstance(padding, str):
            padding = self.h // 2 if padding == "same" else 0
        return kernels.window_of(self.stride, padding, self.h)

    @property
    def padding_read(self) -> int:
        """The number of pixels that the layer reads beyond each side of an image."""
        return max(self.window[2:])

    @property
    def fuses_pool(self) -> bool:
        """Whether the layer's op can include a following pool of size 2."""
        return self.window[:2] == (1, 1)

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
        """Return the shape of an input sample: n_i channels of any height and width."""
        return self.n_i, None, None

    def multiply_adds(self, shape: tuple[int, ...]) -> float:
        """Return the number of multiply-adds of a forward pass for a sample with an output of this shape."""
        return float(math.prod(shape)) * self.n_i * self.h ** 2

    def output_shape(self, shape: tuple[int | None, ...] | None) -> tuple[int | None, ...]:
        """Return the shape of an output sample for that of an input sample; a side of None if it is not known."""
        _, r, k = checks.image_shape(self, shape, self.n_i, self._least())
        return self.n_o, *self._sides(r, k)

    def _least(self) -> tuple[int, int]:
        """Return the number of rows and columns of the smallest image that has an output."""
        _, _, above, left = self.window
        return max(1, self.h - 2 * above), max(1, self.h - 2 * left)

    def _sides(self, *sides: int | None) -> tuple[int | None, ...]:
        """Return the number of rows and columns of the output."""
        window = self.window
        return tuple(None if side is None else (side + 2 * padding - self.h) // stride + 1
                     for side, stride, padding in zip(sides, window[:2], window[2:], strict=True))

    def forward(self, x: npt.ArrayLike) -> np.ndarray:
        """Convolve the images with the filters, add the biases, and store x for ``backward``.

        Parameters
        ----------
        x : array_like, shape (n, n_i, r, k)
            Images of any height r and width k. The layer does not write to them.

        Returns
        -------
        ndarray, shape (n, n_o, rows, columns)
        """
        W, b = self._parameters()
        x = self._images(x, W.dtype)
        shape: Any = len(x), self.n_o, *self._sides(*x.shape[2:])
        y = take(self._buffers, "y", shape, W.dtype, math.prod(shape))
        window = self.window
        kernels.conv_forward(y, x, W, b, window[:2], window[2:])
        self.x = x
        return y

    def backward(self, y_grad: npt.ArrayLike) -> np.ndarray:
        """Compute the gradients from that of the output; store ``W_grad`` and ``b_grad``.

        Parameters
        ----------
        y_grad : array_like, shape (n, n_o, rows, columns)
            Gradient of the loss with respect to the output of the last ``forward``.

        Returns
        -------
        ndarray, shape (n, n_i, r, k)
            Gradient of the loss with respect to the input.
        """
        W, _ = self._parameters()
        x = self._images(checks.computed(self, "x", self.x, "forward"), W.dtype)
        dy = checks.floats(self, "y_grad", y_grad, W.dtype)
        shape: Any = len(x), self.n_o, *self._sides(*x.shape[2:])
        dy = checks.same_shape(self, "y_grad", dy, "the output", shape)
        dx = take(self._buffers, "dx", x.shape, W.dtype, x.size)
        dW, db = np.empty(W.shape, W.dtype), np.empty((1, self.n_o), W.dtype)
        window = self.window
        kernels.conv_backward(dx, dW, db, dy, x, W, window[:2], window[2:])
        self.W_grad, self.b_grad = dW, db
        return dx

    def update_param(self, lr: float) -> None:
        """Take a step against the gradients: the new W is W - lr W_grad, the new b is b - lr b_grad.

        Parameters
        ----------
        lr : float
            The learning rate.
        """
        lr = checks.rate(self, lr)
        W, b = self._parameters()
        dW = checks.computed(self, "W_grad", self.W_grad, "forward() and backward")
        db = checks.computed(self, "b_grad", self.b_grad, "forward() and backward")
        dW = checks.own_shape(self, "W_grad", dW, W.shape, W.dtype, "n_o, n_i and h")
        db = checks.own_shape(self, "b_grad", db, b.shape, b.dtype, "n_o, n_i and h")
        new_W, new_b = np.empty(W.shape, W.dtype), np.empty(b.shape, b.dtype)
        sgd_update(new_W, W, dW, lr)
        sgd_update(new_b, b, db, lr)
        self.W, self.b = new_W, new_b

    def _images(self, x: npt.ArrayLike, dtype: np.dtype) -> np.ndarray:
        return checks.images(self, "x", checks.floats(self, "x", x, dtype), self.n_i, self._least())

    def _parameters(self) -> tuple[np.ndarray, np.ndarray]:
        dtype = self.dtype
        return (
            checks.own_shape(self, "W", self.W, (self.n_o, self.n_i, self.h, self.h), dtype, "n_o, n_i and h"),
            checks.own_shape(self, "b", self.b, (1, self.n_o), dtype, "n_o, n_i and h"),
        )

    def lower(self, net: Builder, x: Value) -> Value:
        """Add this layer's ops to a compiled step, see :mod:`fastnet.program.builder`."""
        x = images_of(net, x)
        (_, r, k), c, n_o, h, window = x.shape, self.n_i, self.n_o, self.h, self.window
        sides: Any = self.output_shape(x.shape)
        _, rows, cols = sides
        fused = fused_with(net, net.layer)
        pooled = bool(fused)
        by_one = window[:2] == (1, 1)
        if not pooled and patch_bytes(h * row_length(h * c, net.lanes), n_o, net.dtype.type(0)) > _PATCH_BYTES:
            raise Unsupported(f"layers[{net.layer}] has filters of {h} x {h} x {c} values, too large for a thread's memory")
        copy = (ops.ROWS if pooled else ops.TURNED) if x.wanted and not net.forward_only else ops.NO_COPY
        W = net.parameter("W", (n_o, c, h, h), packing=Filters(net.lanes, copy, window[:2]))
        b = net.parameter("b", (1, n_o), vector=True)
        around = padding_behind(net, net.layer + len(fused))
        if pooled:
            y = image(net, (n_o, rows // 2, cols // 2), around, True, (rows // 2) * (cols // 2) * row_length(n_o, net.lanes))
        else:
            read = 0 if net.forward_only else margin(h, window)  # of its gradient, in the backward pass
            y = image(net, (n_o, rows, cols), max(around, read), True)
        mask = {mask_behind(net, y): ROWS} if pooled else {}
        net.fused.update(fused)
        length = row_length(h * c, net.lanes)
        geometry: dict[str, Any] = {"n": n_o, "k": c, "image": ImageSizes(r, k, x.around, y.around, block_size(net)),
                                    "window": Window(h, h, *window)}
        column = Matrix(W.now, net.lanes, 1, h * h * c * net.lanes)
        kernel = ops.conv_pool_op if pooled else ops.conv_op
        memory: dict[str, Ref] = {}
        by_two = window[:2] == (2, 2)
        of_winograd = strided_memory if by_two else memory_size.py_func  # what his algorithm needs for a thread
        transforms = h == 3 and net.dtype == np.float32 and (by_one or by_two)
        if transforms and c >= LEAST_CHANNELS:
            kernel = ops.conv_pool_winograd_op if pooled else ops.conv_strided_op if by_two else ops.conv_winograd_op
            memory = {"aux": net.reserve(WORK, for_each_thread(net, of_winograd(c, n_o, net.lanes)))}
        op = net.forward(CALL, reads={x: ROWS, W.now: ALL, b.now: ALL},
                         writes={y: ROWS, **mask, **dict.fromkeys(memory.values(), ROWS)}, kernel=kernel, c=y.mat, a=x.mat,
                         b=column, bias=b.now, relu=int(len(fused) == 2), **geometry, **memory)
        products = float(rows * cols * n_o * c * h * h)
        back = (1 + x.wanted) / (4 if pooled else 1)  # of a pooled convolution a quarter of the pixels has a gradient
        net.cost.add(operations=(1 + back) * 2 * products, products=products, outputs=len(fused) * n_o * rows * cols)
        together = [repr(net.layers[net.layer + i]) for i in range(len(fused) + 1)]
        net.cost.parts.append(f"{' + '.join(together)} of {r} x {k} pixels: {2e-6 * products:.2f} MFLOP a sample forward, "
                              f"{2e-6 * products * back:.2f} back" + (", where windows have their maxima" if pooled else "")
                              + ("" if x.wanted else ", without the gradient of the data"))

        def backward(dy: Image) -> Image | None:
            dx = image_like(net, x) if x.wanted else None
            copy_of: dict[str, Ref] = {}
            way = choose_way(h, c, net.lanes, dx is not None) if pooled else LISTS
            by_winograd = transforms and n_o >= LEAST_CHANNELS and dx is not None and (by_one or window[2:] == (1, 1))
            if dx is not None:
                behind = 0 if pooled or not by_winograd else for_each_thread(net, of_winograd(n_o, c, net.lanes))
                copy_of = {"packed": net.copy_for_backward(W, W.packing.copy_size(W.shape) + behind)}
            groups, group = groups_of(net)
            size = W.size if way == LANES else n_o * h * length
            sums = net.reserve(WORK, groups * (size + row_length(n_o, net.lanes)))
            memory = net.reserve(WORK, W.size)
            # what the pass needs of the output
            output: Any = next(iter(mask)) if pooled else y if op.record["relu"] else None
            read = {x: ROWS, dy: ROWS, **dict.fromkeys(copy_of.values(), ALL)} | ({output: ROWS} if output else {})
            written: dict[Ref, str] = {sums: ROWS} | ({dx: ROWS} if dx else {})
            written |= {} if pooled else {dy.overwritten(): ROWS}
            operands: dict[str, Any] = copy_of | ({"c": dx.mat} if dx else {}) | ({"aux": output} if output else {})
            kernel = ops.conv_strided_back_op if by_winograd and by_two else ops.conv_back_op
            if pooled:
                kernel = ops.conv_pool_back_op
                operands |= {"back": back_kernel(way, dx is not None)}
            net.backward(CALL, reads=read, writes=written, kernel=kernel, a=x.mat, b=dy.mat, bias=sums, group=group,
                         relu=op.record["relu"], filters=FilterLayout(length, way, int(by_winograd)), **geometry,
                         **operands)
            added, kept = sums.overwritten(), net.moments_of(W)
            of_bias = net.moments_of(b)
            new_copy = {name: ref.overwritten() for name, ref in copy_of.items()}
            net.update(CALL, split=TEAM, reads={sums: ALL},
                       writes={added: ALL, memory: COLUMNS, W.next: COLUMNS, b.next: COLUMNS}
                       | dict.fromkeys((*new_copy.values(), *kept.values(), *of_bias.values()), COLUMNS),
                       kernel=ops.conv_update_with_moments_op if kept else ops.conv_update_op, c=Matrix(W.next, 0),
                       a=Matrix(added, 0), b=Matrix(memory, 0), bias=b.next, group=group,
                       filters=FilterLayout(length, way, copy=copy), **geometry, **new_copy, **kept)
            return dx

        net.on_backward(backward)
        return y

    def torch_module(self, nn: Any) -> Any:
        """Return the module of ``torch.nn`` that computes the same."""
        window = self.window
        return nn.Conv2d(self.n_i, self.n_o, self.h, window[:2], window[2:], device="meta")

    def __repr__(self) -> str:
        stride = "" if self.stride == 1 else f", stride={self.stride}"
        padding = "" if self.padding == "same" else f", padding={self.padding!r}"
        dtype = "" if self.dtype == np.float64 else f", dtype={self.dtype}"
        return f"{type(self).__name__}({self.n_i}, {self.n_o}, {self.h}{stride}{padding}{dtype})"


def _padding(value: Any) -> str | int | tuple[int, int]:
    if isinstance(value, str):
        return checks.choice("ConvLayer", "padding", value, ("same", "valid"))
    return checks.one_or_two("ConvLayer", "padding", value, "It counts rows and columns of zeros on each side.", least=0)
