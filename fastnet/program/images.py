"""Images in compiled training: their memory, their blocks, and the ops between them and rows.

A block of samples, so few that all its images fit the L2 cache, goes from the data to the loss and back before the next one
begins. Each thread has memory for the images of one block; only rows, which fully connected layers take, exist for the whole
mini-batch. Where a layer needs the whole mini-batch at once, such as batch normalisation, images exist for all of it, too.
See ``fastnet/kernels/conv/ops.py`` for what the ops do.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastnet.kernels.conv import ops
from fastnet.kernels.conv.batch_norm import image_normalise_op, image_predict_op
from fastnet.kernels.records import CALL, ImageSizes
from fastnet.kernels.runtime.pool import get_num_threads
from fastnet.program.builder import ROWS, Builder, Unsupported, Value
from fastnet.program.memory import WORK, Matrix, Ref, Region

GROUPS = 16  # of blocks, at most: each has memory for the gradients of all filters, and is work for one thread
_BLOCK_BYTES = 1 << 20  # images of a block: an op reads and writes a part of them at a time, which the L2 cache holds


@dataclass(eq=False)
class Image(Value):
    """Images of one block of samples per thread, channels innermost, each with zero padding around it.

    Behind each image a pool keeps its argmax mask, see `mask_behind`.
    """

    shape: tuple[int, int, int] = (0, 0, 0)  # (c, r, k)
    around: int = 0  # pixels of zero padding on each side
    thread: int = 0  # distance of the threads' images; 0: there are those of the whole mini-batch
    wanted: bool = False  # whether its gradient is needed: a layer before it learns

    @property
    def mat(self) -> Matrix:
        """As the ops take it: distance of samples, of an image's rows, of threads."""
        return Matrix(self, self.row, (self.shape[2] + 2 * self.around) * self.shape[0], self.thread)

    def as_rows(self, net: Builder) -> Value:
        """The same as rows, channel after channel, which layers of values take."""
        return rows_of(net, self)

    @property
    def kind(self) -> str:
        return "images"


def image(net: Builder, shape: tuple[int, int, int], around: int, wanted: bool, extra: int = 0) -> Image:
    """Images of shape (c, r, k), with `extra` bytes behind each."""
    c, r, k = shape
    size = (r + 2 * around) * (k + 2 * around) * c + -(-extra // net.dtype.itemsize) + net.lanes
    row = -(-size // net.lanes) * net.lanes
    if net.threads is None:
        _begin(net)
    net.cost.add(outputs=c * r * k)
    made = Image(_memory(net, row), 0, c * r * k, row, net.lanes, shape, around, 0, wanted)
    return replace(made, thread=block_size(net) * row) if made.region.of_block else made


def image_like(net: Builder, x: Image) -> Image:
    """Images laid out as others are: their gradients, or the output of a layer that keeps their shape."""
    return replace(x, region=_memory(net, x.row), version=0)


def _begin(net: Builder) -> None:
    """Decide, before the first images, how many threads there may be, and whether blocks suffice."""
    net.threads = get_num_threads()
    needed = not net.forward_only and any(getattr(layer, "needs_batch", False) for layer in net.layers[net.layer:])
    net.block = (block_size(net), groups_of(net)[1]) if needed else None


def _memory(net: Builder, row: int) -> Region:
    """Memory for images `row` elements apart: of a block for each thread, or of the whole mini-batch."""
    assert net.threads is not None
    count = net.rows if net.block else net.threads * block_size(net)
    return net.reserve(WORK, count * row + net.lanes, of_block=not net.block).region


def mask_behind(net: Builder, y: Image) -> Ref:
    """The argmax mask of a pool, in the memory behind each of its images."""
    return net.reserve(WORK, 0, inside=y.region, of_block=y.region.of_block)


def block_size(net: Builder) -> int:
    """Samples of a block: as many as the cache holds, in equal blocks of a group."""
    if net.samples_of_block is None:
        of_group, most = -(-net.rows // GROUPS), max(1, _BLOCK_BYTES // (_image_size(net) * net.dtype.itemsize))
        net.samples_of_block = -(-of_group // -(-of_group // most))
    return net.samples_of_block


def groups_of(net: Builder) -> tuple[int, int]:
    """How many groups of blocks there are in a mini-batch, and the blocks of a group."""
    block, of_group = block_size(net), -(-net.rows // GROUPS)
    group = -(-of_group // block)
    return -(-net.rows // (block * group)), group


def _image_size(net: Builder) -> int:
    """Elements of all the images of a sample and of their gradients, but for frames."""
    assert net.input is not None
    shape: Any = net.input.shape
    size, fused = 0, set(net.fused)
    for number, layer in enumerate(net.layers):
        if len(shape) != 3:
            break
        size += 2 * int(np.prod(shape)) * (number not in fused)
        fused.update(fused_with(net, number))
        if hasattr(layer, "output_shape"):
            shape = layer.output_shape(shape)
    return size


def images_of(net: Builder, x: Value) -> Image:
    """The input of a layer as images, also if it is rows (of the data, or behind a layer of values)."""
    if isinstance(x, Image):
        return x
    if len(x.shape) != 3:
        raise Unsupported(f"layers[{net.layer}] takes images, not rows of shape {x.shape}")
    c, r, k = x.shape
    first = net.threads is None  # the first memory for images sets it
    y = image(net, (c, r, k), padding_behind(net, net.layer - 1), net.needs_gradient(x))
    block = block_size(net)
    # Every block goes through all ops up to the next barrier, so the one that the parameters need is here, before the
    # first images: behind a later one, only the images of the last block would be left.
    net.forward(CALL, reads={x: ROWS}, writes={y: ROWS}, kernel=ops.rows_to_images_op, c=y.mat, a=x.mat, n=c,
                wait=first, block=block, group=groups_of(net)[1], image=ImageSizes(r, k, 0, y.around))

    def backward(dy: Image) -> Value:
        dx = net.like(x)
        net.backward(CALL, reads={dy: ROWS}, writes={dx: ROWS}, kernel=ops.images_to_rows_op, c=dx.mat, a=dy.mat, n=c,
                     image=ImageSizes(r, k, dy.around))
        return dx

    if y.wanted:
        net.on_backward(backward)
    return y


def rows_of(net: Builder, x: Image) -> Value:
    """The rows of images, channel after channel, which layers of values take."""
    c, r, k = x.shape
    y = net.value(x.columns, x.shape)
    net.forward(CALL, reads={x: ROWS}, writes={y: ROWS}, kernel=ops.images_to_rows_op, c=y.mat, a=x.mat, n=c,
                image=ImageSizes(r, k, x.around))

    def backward(dy: Value) -> Image:
        dx = image_like(net, x)
        net.backward(CALL, reads={dy: ROWS}, writes={dx: ROWS}, kernel=ops.rows_to_images_op, c=dx.mat, a=dy.mat, n=c,
                     image=ImageSizes(r, k, 0, x.around))
        return dx

    if x.wanted:
        net.on_backward(backward)
    return y


def padding_behind(net: Builder, number: int) -> int:
    """Pixels around the images that a layer gives which the next convolution reads."""
    for layer in net.layers[number + 1:]:
        around = getattr(layer, "padding_read", 0)
        if around is not None:  # the layer reads its images in place, perhaps with the padding around them
            return around
    return 0


def for_each_thread(net: Builder, size: int) -> int:
    """Elements of memory of so many per thread."""
    assert net.threads is not None
    return net.threads * row_length(size, net.lanes)


def row_length(count: int, lanes: int) -> int:
    """Elements of whole vectors that hold `count`."""
    return -(-count // lanes) * lanes


def fused_with(net: Builder, number: int) -> list[int]:
    """Numbers of the layers that a convolution's op does, too: a pool of size 2 behind it, perhaps a ReLU between them."""
    if not getattr(net.layers[number], "fuses_pool", False):  # at a stride of 1
        return []
    roles = [getattr(layer, "fused_as", None) for layer in net.layers[number + 1:number + 3]]
    relu = int(roles[:1] == ["relu"])
    return [number + 1 + i for i in range(relu + 1)] if roles[relu:relu + 1] == ["pool"] else []


def lower_relu(net: Builder, x: Image) -> Image:
    """ReLU of images: fused with the op before it, or a separate op."""
    if net.layer in net.fused:
        return x
    made = net.writer_of(x, *ops.CONVOLUTIONS, image_normalise_op, image_predict_op)
    if made is not None:
        made.record["relu"] = 1
        return x
    y, c, r, k = image_like(net, x), *x.shape
    sizes = ImageSizes(r, k, x.around, x.around)
    net.forward(CALL, reads={x: ROWS}, writes={y: ROWS}, overwrites={y: x}, kernel=ops.relu_images_op, c=y.mat, a=x.mat,
                n=c, image=sizes)

    def backward(dy: Image) -> Image:
        dx = dy.overwritten()
        net.backward(CALL, reads={y: ROWS, dy: ROWS}, writes={dx: ROWS}, kernel=ops.relu_images_back_op, c=dx.mat, a=y.mat,
                     n=c, image=sizes)
        return dx

    if x.wanted:
        net.on_backward(backward)
    return y
