"""The ops of layers of images: convolution, pooling, ReLU and flattening, in any order and number.

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
from fastnet.kernels.conv.avx512 import LANES, LISTS, way_back
from fastnet.kernels.conv.image import margin, patch_bytes, turned_tap
from fastnet.kernels.conv.winograd import LEAST_CHANNELS, memory_size
from fastnet.kernels.gemm import pack
from fastnet.kernels.records import CALL, TEAM
from fastnet.kernels.runtime.pool import SCRATCH_BYTES, get_num_threads
from fastnet.program.builder import ALL, COLUMNS, ROWS, Builder, Unsupported, Value
from fastnet.program.memory import WORK, Matrix, Ref, Region

GROUPS = 16  # of blocks, at most: each has memory for the gradients of all filters, and is work for one thread
_PATCH_BYTES = SCRATCH_BYTES // 2  # of one patch, at most, on the way back
_BLOCK_BYTES = 1 << 19  # images of a block: half of an L2 cache


@dataclass(eq=False)
class Image(Value):
    """Images of one block of samples per thread, channels innermost, each with zero padding around it.

    Behind each image a pool keeps its argmax mask, `mask`, a version of its own.
    """

    shape: tuple[int, int, int] = (0, 0, 0)  # (c, r, k)
    around: int = 0  # pixels of zero padding on each side
    thread: int = 0  # distance of the threads' images; 0: there are those of the whole mini-batch
    wanted: bool = False  # whether a gradient with respect to it is of use: a layer before it learns

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
        fused.update(_fused(net, number))
        if hasattr(layer, "output_shape"):
            shape = layer.output_shape(shape)
    return size


def images_of(net: Builder, x: Value) -> Image:
    """The images that a layer is given, which may be rows (of the data, or behind a layer of values)."""
    if isinstance(x, Image):
        return x
    if len(x.shape) != 3:
        raise Unsupported(f"layers[{net.layer}] takes images, and is given rows of shape {x.shape}")
    c, r, k = x.shape
    first = net.threads is None  # the first room for images sets it
    y = image(net, (c, r, k), padding_behind(net, net.layer - 1), net.needs_gradient(x))
    block = block_size(net)
    # Every block goes through all ops up to the next barrier, so the one that the parameters need has to stand here, before
    # the first images: another one behind them would find those of the last block only.
    net.forward(CALL, reads={x: ROWS}, writes={y: ROWS}, kernel=ops.rows_to_images_op, c=y.mat, a=x.mat, n=c,
                wait=first, block=block, group=groups_of(net)[1], dims=(r, k, 0, 0, 0, y.around, block, 0))

    def backward(dy: Image) -> Value:
        dx = net.like(x)
        net.backward(CALL, reads={dy: ROWS}, writes={dx: ROWS}, kernel=ops.images_to_rows_op, c=dx.mat, a=dy.mat, n=c,
                     dims=(r, k, 0, 0, dy.around, 0, block, 0))
        return dx

    if y.wanted:
        net.on_backward(backward)
    return y


def rows_of(net: Builder, x: Image) -> Value:
    """The rows of images, channel after channel, which layers of values take."""
    c, r, k = x.shape
    y = net.value(x.columns, x.shape)
    net.forward(CALL, reads={x: ROWS}, writes={y: ROWS}, kernel=ops.images_to_rows_op, c=y.mat, a=x.mat, n=c,
                dims=(r, k, 0, 0, x.around, 0, 0, 0))

    def backward(dy: Value) -> Image:
        dx = image_like(net, x)
        net.backward(CALL, reads={dy: ROWS}, writes={dx: ROWS}, kernel=ops.rows_to_images_op, c=dx.mat, a=dy.mat, n=c,
                     dims=(r, k, 0, 0, 0, x.around, 0, 0))
        return dx

    if x.wanted:
        net.on_backward(backward)
    return y


def padding_behind(net: Builder, number: int) -> int:
    """Pixels around the images that a layer gives which the next convolution reads."""
    for layer in net.layers[number + 1:]:
        around = getattr(layer, "padding_read", 0)
        if around is not None:  # the layer reads its images as they are, perhaps with what lies around them
            return around
    return 0


class Filters:
    """How filters W (n_o, n_i, h, h) lie in the arenas: as the matrix (h h n_i, n_o) in vector columns.

    The backward pass reads a copy: by `ROWS` as (n_o, h, h n_i), each row filled up to whole vectors, or `TURNED`, rotated
    by 180 degrees for strides (down, right) as `image.input_gradient` takes them, with a row of zeros for biases behind.
    """

    def __init__(self, lanes: int, copy: int, strides: tuple[int, int] = (1, 1)) -> None:
        self.lanes, self.kind, self.strides = lanes, copy, strides

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
        turned = np.empty((h * h, n_o, n_i), value.dtype)
        for p, q in np.ndindex(h, h):
            turned[turned_tap(p, q, h, *self.strides)] = value[:, :, p, q]
        return np.append(pack(turned.reshape(-1, n_i)).data.ravel(), np.zeros(row_length(n_i, self.lanes), value.dtype))


def _for_each_thread(net: Builder, size: int) -> int:
    """Elements of memory of so many per thread."""
    assert net.threads is not None
    return net.threads * row_length(size, net.lanes)


def row_length(count: int, lanes: int) -> int:
    """Elements of whole vectors that hold `count`."""
    return -(-count // lanes) * lanes


def lower_conv(layer: Any, net: Builder, x: Value) -> Value:
    """The ops of a ConvLayer, and of a pool of size 2 behind it, with or without ReLU between them."""
    x = images_of(net, x)
    (_, r, k), c, n_o, h, window = x.shape, layer.n_i, layer.n_o, layer.h, layer.window
    _, rows, cols = layer.output_shape(x.shape)
    fused = _fused(net, net.layer)
    pooled, block = bool(fused), block_size(net)
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
    dims = (r, k, h, length, x.around, y.around, block)
    column = Matrix(W.now, net.lanes, 1, h * h * c * net.lanes)
    kernel = ops.conv_pool_op if pooled else ops.conv_op
    memory: dict[str, Ref] = {}
    transforms = h == 3 and net.dtype == np.float32 and by_one
    if transforms and c >= LEAST_CHANNELS:
        kernel = ops.conv_pool_winograd_op if pooled else ops.conv_winograd_op
        memory = {"aux": net.reserve(WORK, _for_each_thread(net, memory_size(c, n_o, net.lanes)))}
    op = net.forward(CALL, reads={x: ROWS, W.now: ALL, b.now: ALL},
                     writes={y: ROWS, **mask, **dict.fromkeys(memory.values(), ROWS)}, kernel=kernel, c=y.mat, a=x.mat,
                     b=column, bias=b.now, relu=int(len(fused) == 2), n=n_o, k=c, dims=(*dims, 0), window=window, **memory)
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
        way = way_back(h, c, net.lanes, dx is not None) if pooled else LISTS
        by_winograd = transforms and n_o >= LEAST_CHANNELS and dx is not None
        choice = way if pooled else int(by_winograd)
        if dx is not None:
            behind = 0 if pooled or not choice else _for_each_thread(net, memory_size(n_o, c, net.lanes))
            copy_of = {"packed": net.copy_for_backward(W, W.packing.copy_size(W.shape) + behind)}
        groups, group = groups_of(net)
        size = W.size if way == LANES else n_o * h * length
        sums = net.reserve(WORK, groups * (size + row_length(n_o, net.lanes)))
        memory = net.reserve(WORK, W.size)
        output: Any = next(iter(mask)) if pooled else y if op.record["relu"] else None  # what the pass needs of the output
        read = {x: ROWS, dy: ROWS, **dict.fromkeys(copy_of.values(), ALL)} | ({output: ROWS} if output else {})
        written: dict[Ref, str] = {sums: ROWS} | ({dx: ROWS} if dx else {}) | ({} if pooled else {dy.overwritten(): ROWS})
        operands = copy_of | ({"c": dx.mat} if dx else {}) | ({"aux": output} if output else {})
        kernel = ops.conv_pool_back_op if pooled else ops.conv_back_op
        net.backward(CALL, reads=read, writes=written, kernel=kernel, a=x.mat, b=dy.mat, bias=sums, relu=op.record["relu"],
                     n=n_o, k=c, group=group, dims=(*dims, choice), window=window, **operands)
        added, kept = sums.overwritten(), net.moments_of(W)
        of_bias = net.moments_of(b)
        new_copy = {name: ref.overwritten() for name, ref in copy_of.items()}
        net.update(CALL, split=TEAM, reads={sums: ALL},
                   writes={added: ALL, memory: COLUMNS, W.next: COLUMNS, b.next: COLUMNS}
                   | dict.fromkeys((*new_copy.values(), *kept.values(), *of_bias.values()), COLUMNS),
                   kernel=ops.conv_update_op, c=Matrix(W.next, 0), a=Matrix(added, 0), b=Matrix(memory, 0), bias=b.next,
                   n=n_o, k=c, group=group, dims=(way, *dims[1:], copy), window=window, **new_copy, **kept)
        return dx

    net.on_backward(backward)
    return y


def _fused(net: Builder, number: int) -> list[int]:
    """Numbers of the layers that a convolution's op does, too: a pool of size 2 behind it, perhaps a ReLU between them."""
    if not getattr(net.layers[number], "fuses_pool", False):  # at a stride of 1
        return []
    roles = [getattr(layer, "fused_as", None) for layer in net.layers[number + 1:number + 3]]
    relu = int(roles[:1] == ["relu"])
    return [number + 1 + i for i in range(relu + 1)] if roles[relu:relu + 1] == ["pool"] else []


def lower_relu(net: Builder, x: Image) -> Image:
    """ReLU of images: at the end of a convolution, or by itself."""
    if net.layer in net.fused:
        return x
    made = net.writer_of(x, *ops.CONVOLUTIONS)
    if made is not None:
        made.record["relu"] = 1
        return x
    y, c, r, k = image_like(net, x), *x.shape
    dims = (r, k, 0, 0, 0, x.around, 0, 0)
    net.forward(CALL, reads={x: ROWS}, writes={y: ROWS}, overwrites={y: x}, kernel=ops.relu_images_op, c=y.mat, a=x.mat,
                n=c, dims=dims)

    def backward(dy: Image) -> Image:
        dx = dy.overwritten()
        net.backward(CALL, reads={y: ROWS, dy: ROWS}, writes={dx: ROWS}, kernel=ops.relu_images_back_op, c=dx.mat, a=y.mat,
                     n=c, dims=dims)
        return dx

    if x.wanted:
        net.on_backward(backward)
    return y


def lower_maxpool(layer: Any, net: Builder, x: Value) -> Value:
    """The ops of a MaxPoolLayer."""
    if net.layer in net.fused:
        return x
    x = images_of(net, x)
    (c, r, k), (high, wide, *steps) = x.shape, layer.window
    shape = layer.output_shape(x.shape)
    y = image(net, shape, padding_behind(net, net.layer), x.wanted, extra=int(np.prod(shape)) * high * wide)
    mask = mask_behind(net, y)
    geometry: dict[str, Any] = {"n": c, "dims": (r, k, high, wide, x.around, y.around, 0, 0), "window": (*steps, 0, 0)}
    net.forward(CALL, reads={x: ROWS}, writes={y: ROWS, mask: ROWS}, kernel=ops.maxpool_op, c=y.mat, a=x.mat, **geometry)

    def backward(dy: Image) -> Image:
        dx = image_like(net, x)
        net.backward(CALL, reads={dy: ROWS, mask: ROWS}, writes={dx: ROWS}, kernel=ops.maxpool_back_op, c=dx.mat, b=dy.mat,
                     aux=mask, **geometry)
        return dx

    if x.wanted:
        net.on_backward(backward)
    return y
