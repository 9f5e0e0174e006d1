"""The ops of compiled networks of images: convolution, pooling, ReLU, copies from rows and to rows, updates.

An image belongs to one thread: a sample's frame (see `image`) and what its layer remembers lie in the thread's own
memory, as many samples behind each other as a block has, and are written anew for the next block. Of a matrix of images,
`row` is the distance of samples, `col` that of an image's rows and `vec` that of the threads' memories, in elements. Where a
layer needs the whole mini-batch at once, `vec` is 0, and there is memory for all of its samples.

Gradients of filters are summed over the samples of a group of blocks, one after the other, into the group's memory;
the update adds them up in the order of the groups. So they do not depend on the number of threads.

``OP.n`` and ``OP.k`` are the channels that come out and go in; `records` names the other fields.
"""
import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.codegen.linking import op_kernel
from fastnet.kernels.conv.avx512 import LANES
from fastnet.kernels.conv.image import (
    PATCHES,
    add_channel_sums,
    clear,
    dense_conv_back,
    from_frame,
    input_gradient,
    patch_bytes,
    patches_back,
    plain_conv,
    pooled_conv,
    to_frame,
    turned_tap,
)
from fastnet.kernels.conv.strided import strided_conv, strided_filters, strided_memory
from fastnet.kernels.conv.winograd import memory_size, winograd_conv, winograd_filters, winograd_plain_conv
from fastnet.kernels.gemm.blocking import pack_columns, pack_copy, partition
from fastnet.kernels.program.ops import step, step_with_moments
from fastnet.kernels.records import Mat, call_at, context_at, hyperparameters, op_at, vector_at
from fastnet.kernels.simd import VECTOR_BYTES, keep_positive, lanes, store

_ADDED = 1024  # elements that are added up at a time: they stay in the L1 cache
NO_COPY, ROWS, TURNED = range(3)  # what the backward pass reads of the filters


@jit
def image_at(images, thread, start, number, one):
    """Address of the frame of a sample: of `number` in the block, which begins with sample `start` of the mini-batch."""
    place = thread * images.vec + number * images.row if images.vec else (start + number) * images.row
    return images.at + place * (VECTOR_BYTES // lanes(one))


@jit
def frame_size(r, k, f, c):
    """Elements of a frame."""
    return (r + 2 * f) * (k + 2 * f) * c


@jit
def patches(frame, row, around, above, left, c, one):
    """Address of the patch of pixel (0, 0), which reaches so far above and to the left, in a frame of `around` pixels."""
    return frame + ((around - above) * row + (around - left) * c) * (VECTOR_BYTES // lanes(one))


@jit
def output_sides(o, high, wide):
    """Rows and columns of the output of windows of `high` x `wide` pixels."""
    return ((o.image.r + 2 * o.window.above - high) // o.window.down + 1,
            (o.image.k + 2 * o.window.left - wide) // o.window.right + 1)


@op_kernel
def rows_to_images_op(op, context, start, stop, one):
    """C = the images whose rows A (samples, n r k) are, channel after channel, each in its frame of zeros."""
    o, now = op_at(op), context_at(context)
    size = VECTOR_BYTES // lanes(one)
    at, row = o.a.at, o.a.row
    if o.from_data:
        at, row = now.batch, now.batch_row
    r, k, around = o.image.r, o.image.k, o.image.y_around
    for s in range(start, stop):
        to_frame(image_at(o.c, now.thread, start, s - start, one), at + s * row * size, o.n, r, k, around, one - one)


@op_kernel
def images_to_rows_op(op, context, start, stop, one):
    """C (samples, n r k) = the images A, channel after channel."""
    o, now = op_at(op), context_at(context)
    size = VECTOR_BYTES // lanes(one)
    r, k, around = o.image.r, o.image.k, o.image.x_around
    for s in range(start, stop):
        x = image_at(o.a, now.thread, start, s - start, one)
        from_frame(o.c.at + s * o.c.row * size, x, o.n, r, k, around, one - one)


@op_kernel
def conv_op(op, context, start, stop, one):
    """C = the convolution of images A with filters B, plus bias, perhaps after ReLU."""
    o, now = op_at(op), context_at(context)
    size = VECTOR_BYTES // lanes(one)
    h, n_o, c, of_x, of_y = o.window.high, o.n, o.k, o.image.x_around, o.image.y_around
    rows, cols = output_sides(o, h, h)
    row = h * c * lanes(one)  # of the filters
    for number in range(stop - start):
        x = patches(image_at(o.a, now.thread, start, number, one), o.a.col, of_x, o.window.above, o.window.left, c, one)
        y = image_at(o.c, now.thread, start, number, one) + of_y * (o.c.col + n_o) * size
        plain_conv(y, o.c.col, n_o, x, o.a.col, o.window.down * o.a.col, o.window.right * c, o.b.at, row, h * row, o.bias,
                   rows, cols, n_o, h, h * c, o.relu, one - one)


@op_kernel
def conv_winograd_op(op, context, start, stop, one):
    """As `conv_op` at a stride of 1, by Winograd's algorithm; `aux`: memory of each thread, `memory_size` elements."""
    o, now = op_at(op), context_at(context)
    size = VECTOR_BYTES // lanes(one)
    n_o, c, of_x, of_y = o.n, o.k, o.image.x_around, o.image.y_around
    rows, cols = output_sides(o, 3, 3)
    memory = o.aux + now.thread * whole_vectors(memory_size(c, n_o, lanes(one)), one) * size
    if now.begins:
        winograd_filters(memory, o.b.at, c, n_o, one - one)
    for number in range(stop - start):
        x = patches(image_at(o.a, now.thread, start, number, one), o.a.col, of_x, o.window.above, o.window.left, c, one)
        y = image_at(o.c, now.thread, start, number, one) + of_y * (o.c.col + n_o) * size
        winograd_plain_conv(y, o.c.col, x, o.a.col, memory, o.b.at, o.bias, rows, cols, c, n_o, o.relu, one - one)


@op_kernel
def conv_strided_op(op, context, start, stop, one):
    """As `conv_op` for 3 x 3 filters at a stride of 2, by Winograd's algorithm; `aux` as of `conv_winograd_op`."""
    o, now = op_at(op), context_at(context)
    size = VECTOR_BYTES // lanes(one)
    n_o, c, of_x, of_y = o.n, o.k, o.image.x_around, o.image.y_around
    rows, cols = output_sides(o, 3, 3)
    memory = o.aux + now.thread * whole_vectors(strided_memory(c, n_o, lanes(one)), one) * size
    if now.begins:
        strided_filters(memory, o.b.at, c, n_o, 0, one - one)
    x = patches(image_at(o.a, now.thread, start, 0, one), o.a.col, of_x, o.window.above, o.window.left, c, one)
    y = image_at(o.c, now.thread, start, 0, one) + of_y * (o.c.col + n_o) * size
    strided_conv(0, stop - start, y, o.c.row, o.c.col, x, o.a.row, o.a.col, memory, o.bias, rows, cols, c, n_o, o.relu,
                 one - one)


@op_kernel
def conv_pool_op(op, context, start, stop, one):
    """C = the maxima of 2 x 2 windows of the convolution of images A with filters B, plus bias, perhaps after ReLU.

    The stride is 1. Behind each frame of C a byte per window and channel says where its maxima are.
    """
    o, now = op_at(op), context_at(context)
    size = VECTOR_BYTES // lanes(one)
    h, n_o, c, of_x, of_y = o.window.high, o.n, o.k, o.image.x_around, o.image.y_around
    rows, cols = output_sides(o, h, h)
    behind = frame_size(rows // 2, cols // 2, of_y, n_o) * size
    for number in range(stop - start):
        x = patches(image_at(o.a, now.thread, start, number, one), o.a.col, of_x, o.window.above, o.window.left, c, one)
        frame = image_at(o.c, now.thread, start, number, one)
        y = frame + of_y * (o.c.col + n_o) * size
        pooled_conv(y, o.c.col, frame + behind, whole_vectors(n_o, one), x, o.a.col, o.b.at, o.bias, rows, cols, c, n_o, h,
                    o.relu, one - one)


@op_kernel
def conv_pool_winograd_op(op, context, start, stop, one):
    """As `conv_pool_op`, by Winograd's algorithm; at `aux` each thread has memory for it, `memory_size` elements."""
    o, now = op_at(op), context_at(context)
    size = VECTOR_BYTES // lanes(one)
    n_o, c, of_x, of_y = o.n, o.k, o.image.x_around, o.image.y_around
    rows, cols = output_sides(o, 3, 3)
    behind = frame_size(rows // 2, cols // 2, of_y, n_o) * size
    memory = o.aux + now.thread * whole_vectors(memory_size(c, n_o, lanes(one)), one) * size
    if now.begins:
        winograd_filters(memory, o.b.at, c, n_o, one - one)
    for number in range(stop - start):
        x = patches(image_at(o.a, now.thread, start, number, one), o.a.col, of_x, o.window.above, o.window.left, c, one)
        frame = image_at(o.c, now.thread, start, number, one)
        y = frame + of_y * (o.c.col + n_o) * size
        winograd_conv(y, o.c.col, frame + behind, whole_vectors(n_o, one), x, o.a.col, memory, o.bias, rows, cols, c, n_o,
                      o.relu, one - one)


# Those which have ReLU at their end
CONVOLUTIONS = conv_op, conv_winograd_op, conv_strided_op, conv_pool_op, conv_pool_winograd_op


@op_kernel
def conv_pool_back_op(op, context, start, stop, one):
    """The backward pass of `conv_pool_op`: the group's dW and db, and C = the gradient of the images A, if C is wanted.

    B is the gradient of the pooled images, which lie at `aux`; the groups' memory is at `bias`; `packed` holds the filters
    row by row, `back` the address of `image.back_kernel`.
    """
    o, now = op_at(op), context_at(context)
    zero = one - one
    size = VECTOR_BYTES // lanes(one)
    r, k, of_x, of_y = o.image.r, o.image.k, o.image.x_around, o.image.y_around
    h, length, n_o, c = o.window.high, o.filters.row, o.n, o.k
    rows, cols = output_sides(o, h, h)
    dW, db = gradient_of_group(o, now.block, o.filters.way, one)
    behind = frame_size(rows // 2, cols // 2, of_y, n_o) * size
    for number in range(stop - start):
        x = patches(image_at(o.a, now.thread, start, number, one), o.a.col, of_x, o.window.above, o.window.left, c, one)
        dy = image_at(o.b, now.thread, start, number, one) + of_y * (o.b.col + n_o) * size
        bits = image_at(Mat(o.aux, o.b.row, o.b.col, o.b.vec), now.thread, start, number, one) + behind
        dx = 0
        if o.c.at != 0:
            frame = image_at(o.c, now.thread, start, number, one)
            clear(frame, frame_size(r, k, of_x, c), zero)
            dx = patches(frame, o.c.col, of_x, o.window.above, o.window.left, c, one)
        call_at(o.back, dx, dW, db, length, dy, o.b.col, bits, whole_vectors(n_o, one), x, o.a.col, o.packed, rows,
                cols, c, n_o, h, now.scratch, zero)


@op_kernel
def conv_back_op(op, context, start, stop, one):
    """The backward pass of `conv_op` at any stride, as `conv_pool_back_op`.

    `packed` holds the filters as `input_gradient` takes them. B, the gradient of what lies at `aux`, is changed: it becomes
    0 where ReLU cut off, and in the frame. With `FilterLayout.winograd`, each thread has memory for Winograd's algorithm
    behind `packed`.
    """
    _weights_back(op, context, start, stop, one)
    o, now = op_at(op), context_at(context)
    if o.c.at == 0:
        return
    size = VECTOR_BYTES // lanes(one)
    r, k, of_x, of_y = o.image.r, o.image.k, o.image.x_around, o.image.y_around
    h, n_o, c = o.window.high, o.n, o.k
    down, right, above, left = o.window.down, o.window.right, o.window.above, o.window.left
    rows, cols = output_sides(o, h, h)
    no_bias, memory = _behind_filters(o, now, memory_size(n_o, c, lanes(one)), one)
    if o.filters.winograd and now.begins:
        winograd_filters(memory, o.packed, n_o, c, one - one)
    for number in range(stop - start):
        dx = image_at(o.c, now.thread, start, number, one) + of_x * (o.c.col + c) * size
        frame = image_at(o.b, now.thread, start, number, one)
        if o.filters.winograd:
            dy = patches(frame, o.b.col, of_y, h - 1 - above, h - 1 - left, n_o, one)
            winograd_plain_conv(dx, o.c.col, dy, o.b.col, memory, o.packed, no_bias, r, k, n_o, c, 0, one - one)
        else:
            input_gradient(dx, o.c.col, frame + of_y * (o.b.col + n_o) * size, o.b.col, o.packed, no_bias, r, k, rows, cols,
                           c, n_o, h, down, right, above, left, one - one)


@op_kernel
def conv_strided_back_op(op, context, start, stop, one):
    """The backward pass of `conv_strided_op` for a padding of 1, as `conv_back_op`; C is wanted."""
    _weights_back(op, context, start, stop, one)
    o, now = op_at(op), context_at(context)
    size = VECTOR_BYTES // lanes(one)
    n_o, c, of_x, of_y = o.n, o.k, o.image.x_around, o.image.y_around
    no_bias, memory = _behind_filters(o, now, strided_memory(n_o, c, lanes(one)), one)
    if now.begins:
        strided_filters(memory, o.packed, n_o, c, 1, one - one)
    dx = image_at(o.c, now.thread, start, 0, one) + of_x * (o.c.col + c) * size
    dy = image_at(o.b, now.thread, start, 0, one) + of_y * (o.b.col + n_o) * size
    strided_conv(1, stop - start, dx, o.c.row, o.c.col, dy, o.b.row, o.b.col, memory, no_bias, o.image.r, o.image.k, n_o, c,
                 0, one - one)


@jit
def _behind_filters(o, now, count, one):
    """What lies behind the filters at `packed`: the address of zeros, and of the thread's own memory of `count` elements."""
    size, zeros = VECTOR_BYTES // lanes(one), whole_vectors(o.k, one)
    no_bias = o.packed + o.window.high * o.window.high * o.n * zeros * size
    return no_bias, no_bias + (zeros + now.thread * whole_vectors(count, one)) * size


@jit
def _weights_back(op, context, start, stop, one):
    """The part of `conv_back_op` that gives the group's dW and db."""
    o, now = op_at(op), context_at(context)
    zero = one - one
    size = VECTOR_BYTES // lanes(one)
    of_x, of_y = o.image.x_around, o.image.y_around
    h, length, n_o, c = o.window.high, o.filters.row, o.n, o.k
    down, right, above, left = o.window.down, o.window.right, o.window.above, o.window.left
    dW, db = gradient_of_group(o, now.block, 0, one)
    rows, cols = output_sides(o, h, h)
    to_middle = of_y * (o.b.col + n_o) * size
    for number in range(stop - start):
        frame = image_at(o.b, now.thread, start, number, one)
        _cut_off(o, now, frame, start, number, rows, cols, one)
        add_channel_sums(db, frame + to_middle, o.b.col, rows, cols, n_o, zero)
    if down == 1 and right == 1 and o.b.col * c == o.a.col * n_o:
        for number in range(stop - start):
            x = patches(image_at(o.a, now.thread, start, number, one), o.a.col, of_x, above, left, c, one)
            dense_conv_back(dW, length, image_at(o.b, now.thread, start, number, one) + to_middle, o.b.col, x, o.a.col, rows,
                            cols, c, n_o, h, zero)
    else:
        x = patches(image_at(o.a, now.thread, start, 0, one), o.a.col, of_x, above, left, c, one)
        patches_back(dW, length, image_at(o.b, now.thread, start, 0, one) + to_middle, o.b.col, o.b.row, x, o.a.col, o.a.row,
                     down * o.a.col, right * c, stop - start, rows, cols, n_o, h, now.scratch,
                     max(PATCHES, patch_bytes(h * length, n_o, one)), zero)


@jit
def _cut_off(o, now, frame, start, number, rows, cols, one):
    """The gradient in a frame becomes 0 where ReLU cut off the output, and around it."""
    n_o, of_y = o.n, o.image.y_around
    if o.relu:
        y = image_at(Mat(o.aux, o.b.row, o.b.col, o.b.vec), now.thread, start, number, one)
        mask_frame(frame, y, frame_size(rows, cols, of_y, n_o), one - one)
    else:
        clear_around(frame, rows, cols, of_y, n_o, one - one)


@jit
def whole_vectors(count, one):
    """Elements that whole vectors of at least `count` have."""
    width = lanes(one)
    return (count + width - 1) // width * width


@jit
def gradient_size(way, n_o, h, length, c, one):
    """Elements of a gradient of filters: (n_o, h, length), or as the filters themselves in vector columns."""
    return whole_vectors(n_o, one) * h * h * c if way == LANES else n_o * h * length


@jit
def gradient_of_group(o, block, way, one):
    """Addresses of dW and db of the group that a block belongs to, set to 0 for the first of its blocks."""
    size = VECTOR_BYTES // lanes(one)
    filters = gradient_size(way, o.n, o.window.high, o.filters.row, o.k, one)
    total = filters + whole_vectors(o.n, one)
    at = o.bias + block // o.group * total * size
    if block % o.group == 0:
        clear(at, total, one - one)
    return at, at + filters * size


@jit
def mask_frame(dy, y, count, zero):
    """dy = 0 where y is not above 0, in the middle and in the frame, where y is 0."""
    width = lanes(zero)
    size = VECTOR_BYTES // width
    for i in range(0, count, width):
        keep_positive(dy + i * size, y + i * size, zero)


@jit
def clear_around(frame, r, k, f, c, zero):
    """Zeros around the middle of a frame."""
    if f == 0:
        return
    size = VECTOR_BYTES // lanes(zero)
    row = (k + 2 * f) * c
    for i in range(r + 2 * f):
        inside = f <= i < f + r
        for j in range(row):
            if not inside or j < f * c or j >= (f + k) * c:
                store(frame + (i * row + j) * size, zero)


@op_kernel
def relu_images_op(op, context, start, stop, one):
    """C = max(A, 0), zero padding included. C may be A."""
    o, now = op_at(op), context_at(context)
    count = frame_size(o.image.r, o.image.k, o.image.y_around, o.n)
    for number in range(stop - start):
        x = vector_at(image_at(o.a, now.thread, start, number, one), count, one)
        y = vector_at(image_at(o.c, now.thread, start, number, one), count, one)
        for i in range(count):
            y[i] = max(x[i], one - one)  # in this order: NaN stays


@op_kernel
def relu_images_back_op(op, context, start, stop, one):
    """C = 0 where the images A are not above 0."""
    o, now = op_at(op), context_at(context)
    count = frame_size(o.image.r, o.image.k, o.image.y_around, o.n)
    for number in range(stop - start):
        y = image_at(o.a, now.thread, start, number, one)
        mask_frame(image_at(o.c, now.thread, start, number, one), y, count, one - one)


@op_kernel
def maxpool_op(op, context, start, stop, one):
    """C = the maxima of windows of images A; behind each frame of C a byte for each value of a window: 1 where it is one.

    The bytes are (rows, columns, rows of a window, columns of a window, channels).
    """
    o, now = op_at(op), context_at(context)
    size = VECTOR_BYTES // lanes(one)
    high, wide, c, of_x, of_y = o.window.high, o.window.wide, o.n, o.image.x_around, o.image.y_around
    rows, cols = output_sides(o, high, wide)
    behind = frame_size(rows, cols, of_y, c) * size
    for number in range(stop - start):
        x = image_at(o.a, now.thread, start, number, one) + of_x * (o.a.col + c) * size
        frame = image_at(o.c, now.thread, start, number, one)
        y, places = frame + of_y * (o.c.col + c) * size, frame + behind
        for i in range(rows):
            for j in range(cols):
                at = x + (i * o.window.down * o.a.col + j * o.window.right * c) * size
                pool_window(y + (i * o.c.col + j * c) * size, places + (i * cols + j) * high * wide * c, at, o.a.col, c,
                            high, wide, one)


@jit
def pool_window(y, places, x, x_row, c, high, wide, one):
    """One window of all channels: its maxima, and the places of them."""
    size = VECTOR_BYTES // lanes(one)
    top, first = vector_at(y, c, one), vector_at(x, c, one)
    for channel in range(c):
        top[channel] = first[channel]
    for p in range(high):
        for q in range(wide):
            pixel = vector_at(x + (p * x_row + q * c) * size, c, one)
            for channel in range(c):
                value = pixel[channel]
                top[channel] = value if value > top[channel] or value != value else top[channel]
    for p in range(high):
        for q in range(wide):
            pixel, is_top = vector_at(x + (p * x_row + q * c) * size, c, one), vector_at(places, c, np.uint8(0))
            for channel in range(c):
                is_top[channel] = pixel[channel] == top[channel]
            places += c


@op_kernel
def maxpool_back_op(op, context, start, stop, one):
    """C = the gradient of the input of `maxpool_op`, from B, that of its output, which lies at `aux`."""
    o, now = op_at(op), context_at(context)
    zero = one - one
    size = VECTOR_BYTES // lanes(one)
    high, wide, c, of_x, of_y = o.window.high, o.window.wide, o.n, o.image.x_around, o.image.y_around
    rows, cols = output_sides(o, high, wide)
    behind, overlap = frame_size(rows, cols, of_y, c) * size, o.window.down < high or o.window.right < wide
    for number in range(stop - start):
        frame = image_at(o.c, now.thread, start, number, one)
        clear(frame, frame_size(o.image.r, o.image.k, of_x, c), zero)
        dx = frame + of_x * (o.c.col + c) * size
        dy = image_at(o.b, now.thread, start, number, one) + of_y * (o.b.col + c) * size
        places = image_at(Mat(o.aux, o.b.row, o.b.col, o.b.vec), now.thread, start, number, one) + behind
        for i in range(rows):
            for j in range(cols):
                gradient = vector_at(dy + (i * o.b.col + j * c) * size, c, one)
                corner = dx + (i * o.window.down * o.c.col + j * o.window.right * c) * size
                for p in range(high):
                    for q in range(wide):
                        to = vector_at(corner + (p * o.c.col + q * c) * size, c, one)
                        is_top = vector_at(places, c, np.uint8(0))
                        places += c
                        for channel in range(c):
                            value = gradient[channel] if is_top[channel] != 0 else zero
                            to[channel] = to[channel] + value if overlap else value


@op_kernel
def conv_update_op(op, context, start, stop, one):
    """A step for the filters C and the biases, from the groups' sums A, of whole vectors of output channels per thread.

    C is (h h k, n) in vector columns. B is memory for a gradient like it, `aux` what the optimiser keeps. `packed` is the
    copy that the backward pass reads, made anew: row by row or rotated, see `FilterLayout.copy`.
    """
    o, now = op_at(op), context_at(context)
    hyper, size = hyperparameters(now, one), VECTOR_BYTES // lanes(one)
    first, last, at, count, gradient, of_biases = _summed(o, now, one)
    step(o.c.at + at, gradient, count, hyper.weight_decay, hyper.lr)
    step(o.bias + first * size, of_biases, last - first, one - one, hyper.lr)
    _copy_filters(o, first, last, one)


@op_kernel
def conv_update_with_moments_op(op, context, start, stop, one):
    """As `conv_update_op`, but a step of another optimiser than plain gradient descent."""
    o, now = op_at(op), context_at(context)
    hyper, size = hyperparameters(now, one), VECTOR_BYTES // lanes(one)
    first, last, at, count, gradient, of_biases = _summed(o, now, one)
    step_with_moments(o.c.at + at, gradient, o.aux + at, count, hyper.weight_decay, hyper)
    biases = o.bias + first * size
    step_with_moments(biases, of_biases, biases - o.c.at + o.aux, last - first, one - one, hyper)
    _copy_filters(o, first, last, one)


@jit
def _summed(o, now, one):
    """This part's channels, place in C and number of weights, and the addresses of their gradient and of the biases'."""
    width = lanes(one)
    size = VECTOR_BYTES // width
    h, length, n_o, c, way = o.window.high, o.filters.row, o.n, o.k, o.filters.way
    o0, o1 = partition(n_o, width, now.part, now.parts), partition(n_o, width, now.part + 1, now.parts)
    blocks = (now.n + o.image.block - 1) // o.image.block
    groups = (blocks + o.group - 1) // o.group
    of_filters = gradient_size(way, n_o, h, length, c, one)
    column = h * h * c * width  # elements of a vector column
    filters = column // width if way == LANES else h * length  # elements of a channel's gradient
    channels = whole_vectors(o1 - o0, one) if way == LANES else o1 - o0
    stride = of_filters + whole_vectors(n_o, one)
    add_up(o.a.at + o0 * filters * size, channels * filters, groups, stride, one)
    add_up(o.a.at + (of_filters + o0) * size, o1 - o0, groups, stride, one)
    at = o0 // width * column * size
    gradient = o.a.at + at
    if way != LANES:
        gradient = o.b.at + at
        for j in range(o0, o1, width):
            for p in range(h):
                pack_columns(o.b.at + (j // width * column + p * h * c * width) * size, column,
                             Mat(o.a.at + (j * filters + p * length) * size, 1, filters, 0), h * c, min(width, n_o - j), one)
    return o0, o1, at, (o1 - o0 + width - 1) // width * column, gradient, o.a.at + (of_filters + o0) * size


@jit
def _copy_filters(o, o0, o1, one):
    """Make this part of the copy anew, if there is one."""
    width = lanes(one)
    size = VECTOR_BYTES // width
    h, length, n_o, c = o.window.high, o.filters.row, o.n, o.k
    column = h * h * c * width
    for j in range(o0, o1, width):
        high = min(width, n_o - j)
        for p in range(h):
            if o.filters.copy == ROWS:
                pack_copy(o.packed + (j * h * length + p * length) * size, h * length,
                          Mat(o.c.at + (j // width * column + p * h * c * width) * size, 1, width, 0), high, h * c, one)
            elif o.filters.copy == TURNED:
                for q in range(h):
                    place = turned_tap(p, q, h, o.window.down, o.window.right) * n_o + j
                    pack_columns(o.packed + place * width * size, h * h * n_o * width,
                                 Mat(o.c.at + (j // width * column + (p * h + q) * c * width) * size, 1, width, 0),
                                 high, c, one)


@jit
def add_up(to, count, groups, stride, one):
    """to += the arrays of `count` elements that follow `to`, `stride` elements apart, in order."""
    size = VECTOR_BYTES // lanes(one)
    for first in range(0, count, _ADDED):
        length = min(_ADDED, count - first)
        a = vector_at(to + first * size, length, one)
        for group in range(1, groups):
            b = vector_at(to + (group * stride + first) * size, length, one)
            for i in range(length):
                a[i] += b[i]
