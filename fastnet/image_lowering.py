"""Layers of images lower to ops: convolution, pooling, ReLU and flattening, in any order and number.

A block of samples, so few that all its images fit the L2 cache, goes from the data to the loss and back before the next one
begins. Each thread has memory for the images of one block; only rows, which fully connected layers take, exist for the whole
mini-batch. See ``fastnet/kernels/conv_ops.py`` for what the ops do.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastnet.kernels import conv_ops as ops
from fastnet.kernels.conv_avx512 import LANES, LISTS, way_back
from fastnet.kernels.conv_winograd import LEAST_CHANNELS, memory_size
from fastnet.kernels.gemm import pack
from fastnet.kernels.structs import CALL, TEAM
from fastnet.kernels.threads import get_num_threads
from fastnet.lowering import ALL, COLUMNS, DATA, ROWS, WORK, Buffer, Lowering, Matrix, Place, Unsupported

GROUPS = 16  # of blocks, at most: each has memory for the gradients of all filters, and is work for one thread
_BLOCK_BYTES = 1 << 19  # images of a block: half of an L2 cache


@dataclass(frozen=True, eq=False)
class Image(Buffer):
    """Room for the images of one block of samples per thread, channels innermost, each in a frame of zeros."""

    shape: tuple[int, int, int]  # (c, r, k)
    around: int  # pixels of the frame on each side
    thread: int  # distance of the threads' rooms
    wanted: bool  # whether a gradient with respect to it is of use: a layer before it learns

    @property
    def mat(self) -> Matrix:
        """As the ops take it: distance of samples, of an image's rows, of threads."""
        return Matrix(self.place, self.row, (self.shape[2] + 2 * self.around) * self.shape[0], self.thread)

    def as_rows(self, net: Lowering) -> Buffer:
        """The same as rows, channel after channel, which layers of values take."""
        return rows_of(net, self)

    def relu(self, net: Lowering) -> Image:
        """ReLU of the images."""
        return lower_relu(net, self)


def image(net: Lowering, shape: tuple[int, int, int], around: int, wanted: bool, extra: int = 0) -> Image:
    """Room for images of shape (c, r, k), with `extra` bytes behind each."""
    c, r, k = shape
    size = (r + 2 * around) * (k + 2 * around) * c + -(-extra // net.dtype.itemsize) + net.lanes
    row = -(-size // net.lanes) * net.lanes
    if net.threads is None:
        net.threads = get_num_threads()
    net.cost.add(outputs=c * r * k)
    thread = block_size(net) * row
    place = net.reserve(WORK, net.threads * thread + net.lanes)
    return Image(place, c * r * k, row, net.lanes, shape, around, thread, wanted)


def gradient_like(net: Lowering, x: Image) -> Image:
    """Room for the gradients of images, laid out as those are."""
    assert net.threads is not None
    return replace(x, place=net.reserve(WORK, net.threads * x.thread + net.lanes))


def block_size(net: Lowering) -> int:
    """Samples of a block: as many as the cache holds, in equal blocks of a group."""
    assert net.input is not None
    of_group, most = -(-net.rows // GROUPS), max(1, _BLOCK_BYTES // (_image_size(net) * net.dtype.itemsize))
    return -(-of_group // -(-of_group // most))


def groups_of(net: Lowering) -> tuple[int, int]:
    """How many groups of blocks there are in a mini-batch, and the blocks of a group."""
    block, of_group = block_size(net), -(-net.rows // GROUPS)
    group = -(-of_group // block)
    return -(-net.rows // (block * group)), group


def _image_size(net: Lowering) -> int:
    """Elements of all the images of a sample and of their gradients, but for frames."""
    assert net.input is not None
    shape: Any = net.input.shape
    size, absorbed = 0, set(net.absorbed)
    for number, layer in enumerate(net.layers):
        if len(shape) != 3:
            break
        size += 2 * int(np.prod(shape)) * (number not in absorbed)
        absorbed.update(_absorbed(net, number))
        if hasattr(layer, "output_shape"):
            shape = layer.output_shape(shape)
    return size


def images_of(net: Lowering, x: Buffer) -> Image:
    """The images that a layer is given, which may be rows (of the data, or behind a layer of values)."""
    if isinstance(x, Image):
        return x
    if len(x.shape) != 3:
        raise Unsupported(f"layers[{net.layer}] takes images, and is given rows of shape {x.shape}")
    c, r, k = x.shape
    first = net.threads is None  # the first room for images sets it
    y = image(net, (c, r, k), frame_behind(net, net.layer - 1), net.needs_gradient(x))
    block = block_size(net)
    # Every block goes through all ops up to the next barrier, so the one that the parameters need has to stand here, before
    # the first images: another one behind them would find those of the last block only.
    net.forward(CALL, reads={x: ROWS}, writes={y: ROWS}, kernel=ops.rows_to_images_op, c=y.mat, a=x.mat, n=c,
                wait=int(first), block=block, group=groups_of(net)[1], dims=(r, k, 0, 0, 0, y.around, block, 0))

    def backward(dy: Image) -> Buffer:
        dx = net.buffer_like(x)
        net.backward(CALL, reads={dy: ROWS}, writes={dx: ROWS}, kernel=ops.images_to_rows_op, c=dx.mat, a=dy.mat, n=c,
                     dims=(r, k, 0, 0, dy.around, 0, block, 0))
        return dx

    if y.wanted:
        net.on_backward(backward)
    return y


def rows_of(net: Lowering, x: Image) -> Buffer:
    """The rows of images, channel after channel, which layers of values take."""
    c, r, k = x.shape
    y = net.buffer(x.columns, x.shape)
    net.forward(CALL, reads={x: ROWS}, writes={y: ROWS}, kernel=ops.images_to_rows_op, c=y.mat, a=x.mat, n=c,
                dims=(r, k, 0, 0, x.around, 0, 0, 0))

    def backward(dy: Buffer) -> Image:
        dx = gradient_like(net, x)
        net.backward(CALL, reads={dy: ROWS}, writes={dx: ROWS}, kernel=ops.rows_to_images_op, c=dx.mat, a=dy.mat, n=c,
                     dims=(r, k, 0, 0, 0, x.around, 0, 0))
        return dx

    if x.wanted:
        net.on_backward(backward)
    return y


def frame_behind(net: Lowering, number: int) -> int:
    """Pixels around the images that a layer gives which the next convolution reads."""
    from fastnet.conv import ConvLayer
    from fastnet.relu import ReluLayer

    for layer in net.layers[number + 1:]:
        if isinstance(layer, ConvLayer):
            return layer.h // 2
        if not isinstance(layer, ReluLayer):
            return 0
    return 0


class Filters:
    """How filters W (n_o, n_i, h, h) lie in the arenas: as the matrix (h h n_i, n_o) in vector columns.

    The way back reads a copy: by `ROWS` as (n_o, h, h n_i), each row filled up to whole vectors, or `TURNED` by half a
    circle, as the filters of the convolution that leads back, in vector columns, with a row of zeros for its biases behind.
    """

    def __init__(self, lanes: int, copy: int) -> None:
        self.lanes, self.kind = lanes, copy

    def size(self, shape: tuple[int, ...]) -> int:
        """Elements in whole vectors."""
        n_o, n_i, h, _ = shape
        return -(-n_o // self.lanes) * self.lanes * n_i * h * h

    def pack(self, value: np.ndarray, flat: np.ndarray) -> None:
        """Write W."""
        flat[:] = pack(value.transpose(2, 3, 1, 0).reshape(-1, len(value))).data.ravel()

    def unpack(self, flat: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Read W: a new array."""
        n_o, n_i, h, _ = shape
        columns = flat.reshape(-1, h * h * n_i, self.lanes).transpose(0, 2, 1).reshape(-1, h, h, n_i)[:n_o]
        return np.ascontiguousarray(columns.transpose(0, 3, 1, 2))

    def copy_size(self, shape: tuple[int, ...]) -> int:
        """Elements of the copy."""
        n_o, n_i, h, _ = shape
        if self.kind == ops.ROWS:
            return n_o * h * row_length(h * n_i, self.lanes)
        return row_length(n_i, self.lanes) * (h * h * n_o + 1)

    def copy(self, value: np.ndarray) -> np.ndarray:
        """The copy, flat."""
        n_o, n_i, h, _ = value.shape
        if self.kind == ops.ROWS:
            rows = np.zeros((n_o, h, row_length(h * n_i, self.lanes)), value.dtype)
            rows[:, :, :h * n_i] = value.transpose(0, 2, 3, 1).reshape(n_o, h, -1)
            return rows.ravel()
        turned = value[:, :, ::-1, ::-1].transpose(2, 3, 0, 1).reshape(-1, n_i)
        return np.append(pack(turned).data.ravel(), np.zeros(row_length(n_i, self.lanes), value.dtype))


def _for_each_thread(net: Lowering, size: int) -> int:
    """Elements of room for so many per thread."""
    assert net.threads is not None
    return net.threads * row_length(size, net.lanes)


def row_length(count: int, lanes: int) -> int:
    """Elements of whole vectors that hold `count`."""
    return -(-count // lanes) * lanes


def lower_conv(layer: Any, net: Lowering, x: Buffer) -> Buffer:
    """The ops of a ConvLayer, and of a pool of size 2 behind it, with or without ReLU between them."""
    x = images_of(net, x)
    (_, r, k), c, n_o, h = x.shape, layer.n_i, layer.n_o, layer.h
    absorbed = _absorbed(net, net.layer)
    pooled, block = bool(absorbed), block_size(net)
    copy = (ops.ROWS if pooled else ops.TURNED) if x.wanted and not net.forward_only else ops.NO_COPY
    W = net.parameter("W", (n_o, c, h, h), packing=Filters(net.lanes, copy))
    b = net.parameter("b", (1, n_o), vector=True)
    around = frame_behind(net, net.layer + len(absorbed))
    if pooled:
        y = image(net, (n_o, r // 2, k // 2), around, True, (r // 2) * (k // 2) * row_length(n_o, net.lanes))
    else:
        y = image(net, (n_o, r, k), around if net.forward_only else max(around, h // 2), True)
    net.absorbed.update(absorbed)
    length = row_length(h * c, net.lanes)
    dims = (r, k, h, length, x.around, y.around, block)
    column = Matrix(W.place, net.lanes, 1, h * h * c * net.lanes)
    kernel = ops.conv_pool_op if pooled else ops.conv_op
    memory: Place | int = 0
    transforms = h == 3 and net.dtype == np.float32
    if transforms and c >= LEAST_CHANNELS:
        kernel = ops.conv_pool_winograd_op if pooled else ops.conv_winograd_op
        memory = net.reserve(WORK, _for_each_thread(net, memory_size(c, n_o, net.lanes)))
    op = net.forward(CALL, reads={x: ROWS, W: ALL, b: ALL}, writes={y: ROWS}, kernel=kernel, c=y.mat, a=x.mat, b=column,
                     bias=b.place, aux=memory, relu=int(len(absorbed) == 2), n=n_o, k=c, dims=(*dims, 0))
    products = float(r * k * n_o * c * h * h)
    back = (1 + x.wanted) / (4 if pooled else 1)  # of a pooled convolution a quarter of the pixels has a gradient
    net.cost.add(operations=(1 + back) * 2 * products, products=products, outputs=len(absorbed) * n_o * r * k)
    together = [repr(net.layers[net.layer + i]) for i in range(len(absorbed) + 1)]
    net.cost.parts.append(f"{' + '.join(together)} of {r} x {k} pixels: {2e-6 * products:.2f} MFLOP a sample forward, "
                          f"{2e-6 * products * back:.2f} back" + (", where windows have their maxima" if pooled else "")
                          + ("" if x.wanted else ", without the gradient of the data"))

    def backward(dy: Image) -> Image | None:
        dx = gradient_like(net, x) if x.wanted else None
        copied: Place | int = 0
        way = way_back(h, c, net.lanes, dx is not None) if pooled else LISTS
        choice = way if pooled else int(transforms and n_o >= LEAST_CHANNELS and dx is not None)
        if dx is not None:
            behind = 0 if pooled or not choice else _for_each_thread(net, memory_size(n_o, c, net.lanes))
            copied = net.reserve(WORK, W.packing.copy_size(W.shape) + behind)
            W.copy.append(copied)
        groups, group = groups_of(net)
        size = W.size if way == LANES else n_o * h * length
        sums = net.reserve(WORK, groups * (size + row_length(n_o, net.lanes)))
        room = net.reserve(WORK, W.size)
        written = {sums: ROWS, dy: ROWS} | ({dx: ROWS} if dx else {})
        net.backward(CALL, reads={x: ROWS, y: ROWS, copied: ALL}, writes=written,
                     kernel=ops.conv_pool_back_op if pooled else ops.conv_back_op,
                     c=dx.mat if dx else Matrix(Place(DATA, 0), 0), a=x.mat, b=dy.mat,
                     bias=sums, aux=y.place, packed=copied, relu=op["relu"], n=n_o, k=c, group=group, dims=(*dims, choice))
        net.update(CALL, split=TEAM, reads={}, writes={sums: ALL, room: COLUMNS, W: COLUMNS, b: COLUMNS, copied: COLUMNS},
                   kernel=ops.conv_update_op, c=Matrix(W.place, 0), a=Matrix(sums, 0), b=Matrix(room, 0), bias=b.place,
                   aux=net.gradient_of(W), packed=copied, n=n_o, k=c, group=group, dims=(way, *dims[1:], copy))
        return dx

    net.on_backward(backward)
    return y


def _absorbed(net: Lowering, number: int) -> list[int]:
    """Numbers of the layers that a convolution's op does, too: a pool of size 2 behind it, perhaps a ReLU between them."""
    from fastnet.conv import ConvLayer
    from fastnet.maxpool import MaxPoolLayer
    from fastnet.relu import ReluLayer

    if not isinstance(net.layers[number], ConvLayer):
        return []
    behind = net.layers[number + 1:number + 3]
    relu = int(bool(behind) and isinstance(behind[0], ReluLayer))
    if len(behind) > relu and isinstance(behind[relu], MaxPoolLayer) and behind[relu].size == 2:
        return [number + 1 + i for i in range(relu + 1)]
    return []


def lower_relu(net: Lowering, x: Image) -> Image:
    """ReLU of images: at the end of a convolution, or in place."""
    if net.layer in net.absorbed:
        return x
    made = net.writer_of(x, CALL)
    if made is not None and made["kernel"] in ops.CONVOLUTIONS:
        made["relu"] = 1
        return x
    c, r, k = x.shape
    dims = (r, k, 0, 0, 0, x.around, 0, 0)
    net.forward(CALL, reads={x: ROWS}, writes={x: ROWS}, kernel=ops.relu_images_op, c=x.mat, n=c, dims=dims)

    def backward(dy: Image) -> Image:
        net.backward(CALL, reads={x: ROWS}, writes={dy: ROWS}, kernel=ops.relu_images_back_op, c=dy.mat, a=x.mat, n=c,
                     dims=dims)
        return dy

    if x.wanted:
        net.on_backward(backward)
    return x


def lower_maxpool(layer: Any, net: Lowering, x: Buffer) -> Buffer:
    """The ops of a MaxPoolLayer."""
    if net.layer in net.absorbed:
        return x
    x = images_of(net, x)
    (c, r, k), size = x.shape, layer.size
    y = image(net, (c, r // size, k // size), frame_behind(net, net.layer), x.wanted, extra=c * r * k)
    dims = (r, k, size, 0, x.around, y.around, 0, 0)
    net.forward(CALL, reads={x: ROWS}, writes={y: ROWS}, kernel=ops.maxpool_op, c=y.mat, a=x.mat, n=c, dims=dims)

    def backward(dy: Image) -> Image:
        dx = gradient_like(net, x)
        net.backward(CALL, reads={dy: ROWS, y: ROWS}, writes={dx: ROWS}, kernel=ops.maxpool_back_op, c=dx.mat, b=dy.mat,
                     aux=y.place, n=c, dims=dims)
        return dx

    if x.wanted:
        net.on_backward(backward)
    return y
