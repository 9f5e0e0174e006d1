"""The convolutional layer on arrays, one image at a time.

A thread copies each image into its own buffer, with the channels innermost and zero padding around them. There row p of
every patch that a filter covers is a run of h n_i neighbours, and the patches of neighbouring output pixels start n_i
elements apart, times the stride, so that the kernels read patches where they lie. Only the gradient of the weights forms a
matrix of patches, a part of an image at a time, at strides above 1 and where the padding is not half a filter. Threads share
the images. The gradients of the weights are summed in a fixed number of chunks of images, for any number of threads.

The usual next layers are ReLU and a pool of 2. A gradient that came through them has one value, or none, in each 2 x 2
window. At a stride of 1, `conv_backward` tests for such gradients, and computes with them as a compiled network does
(`image.back_kernel`), with a quarter of the operations. It does not if a product with 0 might not be 0, or if
Winograd's sums might overflow.

`stride` and `padding` are numbers, or pairs of them for rows and columns. A padding of None is h // 2 on each side, with
which images keep their size at a stride of 1.
"""
from typing import Any

import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.codegen.linking import INT, separate
from fastnet.kernels.compiled_calls import (
    PAIR,
    array_at,
    array_kernel,
    at,
    close,
    done,
    elements_of,
    fits,
    in_compiled_code,
    opened,
    side,
)
from fastnet.kernels.conv.avx512 import LANES, choose_way
from fastnet.kernels.conv.image import (
    MEMORY,
    PATCHES,
    PIXELS,
    add_channel_sums,
    back_at,
    back_kernel,
    clear,
    dense_conv_back,
    from_frame,
    input_gradient,
    is_moderate,
    margin,
    patch_bytes,
    patches_back,
    plain_conv,
    pooled_form,
    to_frame,
    turned_tap,
)
from fastnet.kernels.conv.winograd import LEAST_CHANNELS, memory_size, winograd_filters, winograd_plain_conv
from fastnet.kernels.gemm import vector_lanes
from fastnet.kernels.gemm.blocking import partition
from fastnet.kernels.records import call_at
from fastnet.kernels.runtime.team import run
from fastnet.kernels.simd import VECTOR_BYTES, lanes
from numba import types

CHUNKS = 16  # parts of a batch whose gradients are summed separately
_SUM_WORK = 4  # multiply-adds in the time of one element of a sum


Both = int | tuple[int, int]  # one number for rows and columns, or one for each


def conv_forward(y: np.ndarray, x: np.ndarray, W: np.ndarray, b: np.ndarray, stride: Both = 1,
                 padding: Both | None = None) -> None:
    """y[n, o, i, j] = b[o] + sum over c, p, q of W[o, c, p, q] x[n, c, stride i + p - padding, stride j + q - padding].

    y (n, n_o, R, K), x (n, n_i, r, k), W (n_o, n_i, h, h), b (1, n_o): one dtype (float32 or float64); y C-contiguous,
    the others of any layout. R = (r + 2 padding - h) // stride + 1, and K likewise. Overwrites y. x counts as 0 outside.
    Errors are those of a sum of h h n_i products; in float32, 3 x 3 filters of 16 channels or more are transformed at a
    stride of 1 (`winograd`), where errors are as large. Without values in, y is b.
    """
    n_o = len(W)
    if y.size == 0 or x.size == 0:
        y[...] = np.reshape(b, (1, n_o, 1, 1))
        return
    packed = pack_filters(W.transpose(2, 3, 1, 0).reshape(-1, n_o))
    bias = np.zeros(packed.shape[0] * packed.shape[2], W.dtype)
    bias[:n_o] = np.ravel(b)
    x = _contiguous(x)
    run(_forward, y, x, packed, bias, W.shape[2], window_of(stride, padding, W.shape[2]),
        work=y[:, 0].size * W.size)


def conv_backward(dx: np.ndarray, dW: np.ndarray, db: np.ndarray, dy: np.ndarray, x: np.ndarray, W: np.ndarray,
                  stride: Both = 1, padding: Both | None = None) -> None:
    """All three gradients: see `conv_backward_input`, `conv_backward_weights`, `conv_backward_bias`.

    dx (n, n_i, r, k), dW (n_o, n_i, h, h), db (1, n_o), dy (n, n_o, R, K), x (n, n_i, r, k), W (n_o, n_i, h, h): one dtype
    (float32 or float64); dx, dW and db C-contiguous, the others of any layout. Overwrites dx, dW and db. Sums of nothing are
    0.
    """
    if dy.size == 0 or x.size == 0:
        dx[...], dW[...] = 0, 0
        conv_backward_bias(db, dy)
        return
    W, width, window = _contiguous(W), vector_lanes(W.dtype), window_of(stride, padding, W.shape[2])
    rows, turned = _pack_rows(W, width), _pack_turned(W, width, window[0], window[1])
    way = choose_way(W.shape[2], W.shape[1], width, True)
    sums, columns, biases = _gradients(W, len(x), rows.shape[2], way, width)
    run(_backward, dx, sums, columns, biases, _contiguous(dy), _contiguous(x), rows, turned, W.shape[2], way,
        back_kernel(way, True).address(W.dtype), window, work=2 * dy[:, 0].size * W.size)
    _add_up(dW, db, sums, columns, biases)


def conv_backward_input(dx: np.ndarray, dy: np.ndarray, W: np.ndarray, stride: Both = 1,
                        padding: Both | None = None) -> None:
    """dx[n, c, stride i + p - padding, stride j + q - padding] += W[o, c, p, q] dy[n, o, i, j], summed over o, i, j, p, q.

    dx (n, n_i, r, k), dy (n, n_o, R, K), W (n_o, n_i, h, h): one dtype (float32 or float64); dx C-contiguous, the others
    of any layout. Overwrites dx. At a stride of 1 that is the convolution of dy with the filters rotated by 180 degrees.
    """
    if dy.size == 0 or dx.size == 0:
        dx[...] = 0
        return
    h, window = W.shape[2], window_of(stride, padding, W.shape[2])
    if turns(window, h):
        turned = W[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
        conv_forward(dx, dy, turned, np.zeros((1, len(turned)), W.dtype), 1, (h - 1 - window[2], h - 1 - window[3]))
        return
    turned = _pack_turned(_contiguous(W), vector_lanes(W.dtype), window[0], window[1])
    run(_backward_input, dx, _contiguous(dy), turned, h, window, work=dy[:, 0].size * W.size)


def conv_backward_weights(dW: np.ndarray, dy: np.ndarray, x: np.ndarray, stride: Both = 1,
                          padding: Both | None = None) -> None:
    """dW[o, c, p, q] = sum over n, i, j of dy[n, o, i, j] x[n, c, stride i + p - padding, stride j + q - padding].

    dW (n_o, n_i, h, h), dy (n, n_o, R, K), x (n, n_i, r, k): one dtype (float32 or float64), any layout. Overwrites dW. Sums
    of nothing are 0.
    """
    if dy.size == 0 or x.size == 0:
        dW[...] = 0
        return
    n, n_i, _, _ = x.shape
    n_o, _, h, _ = dW.shape
    sums = np.zeros((min(CHUNKS, n), n_o, h, whole(h * n_i, vector_lanes(dW.dtype))), dW.dtype)
    run(_backward_weights, sums, _contiguous(dy), _contiguous(x), window_of(stride, padding, h),
        work=dy[:, 0].size * dW.size)
    total = _in_order(sums.reshape(len(sums), -1)).reshape(n_o, h, -1)[:, :, :h * n_i]
    dW[...] = total.reshape(n_o, h, h, n_i).transpose(0, 3, 1, 2)


def conv_backward_bias(db: np.ndarray, dy: np.ndarray) -> None:
    """db[o] = sum over n, i, j of dy[n, o, i, j].

    db (1, n_o), dy (n, n_o, R, K): one dtype (float32 or float64), any layout. Overwrites db. Sums of nothing are 0.
    """
    if dy.size == 0:
        db[...] = 0
        return
    sums = np.empty(dy.shape[:2], dy.dtype)
    run(_plane_sums, sums, _contiguous(dy), work=_SUM_WORK * dy.size)
    db[...] = _in_order(sums)


def whole(count: int, lanes: int) -> int:
    """Elements of whole vectors that hold `count`."""
    return -(-count // lanes) * lanes


def window_of(stride: Both, padding: Both | None, h: int) -> tuple[int, int, int, int]:
    """Strides of rows and columns, then their padding, for filters of side h."""
    return (*both(stride), *both(h // 2 if padding is None else padding))


def both(value: Any) -> tuple[int, int]:
    """A number for rows and one for columns, from one number or a pair."""
    rows, columns = value if isinstance(value, (tuple, list)) else (value, value)
    return int(rows), int(columns)


def pack_filters(B: np.ndarray) -> np.ndarray:
    """B (k, n) in vector columns (vectors, k, LANES), missing lanes 0; see kernels/gemm/blocking.py."""
    k, n = B.shape
    width = vector_lanes(B.dtype)
    vectors = -(-n // width)
    padded = np.zeros((k, vectors * width), B.dtype)
    padded[:, :n] = B
    return np.ascontiguousarray(padded.reshape(k, vectors, width).transpose(1, 0, 2))


def _contiguous(a: np.ndarray) -> np.ndarray:
    """`a` itself if it is C-contiguous, aligned and writable, for which the kernels are compiled; otherwise a copy."""
    return a if a.flags.carray else np.array(a, order="C")


# --- inside a kernel ------------------------------------------------------------------------------------------------


def turns(window: tuple[int, int, int, int], h: int) -> bool:
    """Whether the gradient of the input is a convolution of all of its pixels: at a stride of 1.

    For large filters with less padding than h // 2 there are too many zeros around the gradient of the output.
    """
    least = 0 if h <= 3 else h // 2
    return window[0] == 1 and window[1] == 1 and least <= window[2] < h and least <= window[3] < h


_turns, _margin = jit(turns), jit(margin)


@jit
def vectors_of(count, zero):
    """Bytes of whole vectors that hold `count` elements."""
    width = lanes(zero)
    return (count + width - 1) // width * VECTOR_BYTES


@jit
def aligned(at):
    """The first address from here on that is on a vector's boundary."""
    return (at + VECTOR_BYTES - 1) // VECTOR_BYTES * VECTOR_BYTES


@jit
def keep(memory):
    """Name an array whose address was used: Numba frees an array after its last use, and an address is none."""
    memory[0] = 0


@jit
def _forward(thread, threads, sync, scratch, y, x, filters, bias, h, window):
    zero = bias.dtype.type(0)
    width = lanes(zero)
    (n, n_i, r, k), (_, n_o, rows, cols) = x.shape, y.shape
    f = max(window[2], window[3])
    size, row = VECTOR_BYTES // width, (k + 2 * f) * n_i
    image = (r + 2 * f) * row
    transformed = (h == 3 and window[0] == 1 and window[1] == 1 and n_i >= LEAST_CHANNELS and size == 4
                   and is_moderate(filters.ctypes.data, filters.size, zero))
    of_frame, of_out = vectors_of(image + width, zero), vectors_of(rows * cols * n_o, zero)
    of_winograd = memory_size(n_i, n_o, width) * size if transformed else 0
    memory = np.empty(of_frame + of_out + of_winograd + VECTOR_BYTES, np.uint8)
    frame = aligned(memory.ctypes.data)
    out, products = frame + of_frame, frame + of_frame + of_out
    corner = frame + ((f - window[2]) * row + (f - window[3]) * n_i) * size  # of the first patch
    clear(frame, image + width, zero)
    if transformed:
        winograd_filters(products, filters.ctypes.data, n_i, n_o, zero)
    for s in range(partition(n, 1, thread, threads), partition(n, 1, thread + 1, threads)):
        to_frame(frame, x.ctypes.data + s * n_i * r * k * size, n_i, r, k, f, zero)
        if transformed and is_moderate(frame, image, zero):
            winograd_plain_conv(out, cols * n_o, corner, row, products, filters.ctypes.data, bias.ctypes.data, rows, cols,
                                n_i, n_o, 0, zero)
        else:
            plain_conv(out, cols * n_o, n_o, corner, row, window[0] * row, window[1] * n_i, filters.ctypes.data,
                       h * n_i * width, h * h * n_i * width, bias.ctypes.data, rows, cols, n_o, h, h * n_i, 0, zero)
        from_frame(y.ctypes.data + s * n_o * rows * cols * size, out, n_o, rows, cols, 0, zero)
    keep(memory)


@jit
def _backward(thread, threads, sync, scratch, dx, sums, columns, biases, dy, x, rows, turned, h, way, pooled_back, window):
    """dx, and for each chunk of images the gradients: sums (n_o, h, row length), columns as `LANES` keeps them, biases."""
    zero = sums.dtype.type(0)
    width = lanes(zero)
    size = VECTOR_BYTES // width
    (n, n_i, r, k), (_, n_o, high, wide) = x.shape, dy.shape
    f, g = max(window[2], window[3]), _margin(h, window)  # padding of x and of dy
    chunks, length, bits_col = sums.shape[0], sums.shape[3], biases.shape[1]
    x_row, dy_row = (k + 2 * f) * n_i, (wide + 2 * g) * n_o
    x_image, dy_image = (r + 2 * f) * x_row, (high + 2 * g) * dy_row
    by_one = window[0] == 1 and window[1] == 1
    dense = by_one and x_row * n_o == dy_row * n_i
    together = 1 if by_one else max(1, min(n, PIXELS // (high * wide)))  # images in one product
    windows = (high // 2) * (wide // 2)
    winograd = by_one and h == 3 and n_o >= LEAST_CHANNELS and size == 4
    of_patches = max(PATCHES, patch_bytes(h * length, n_o, zero))
    frames, gradients = together * x_image + 2 * width, together * dy_image + 2 * width  # elements
    of_frame, of_gradient = vectors_of(frames, zero), vectors_of(gradients, zero)
    of_back, of_pooled = vectors_of(max(x_image, n_i * r * k) + 2 * width, zero), vectors_of(windows * n_o + 2 * width, zero)
    of_bits, of_list, of_zeros = aligned(windows * bits_col + 64), aligned(max(MEMORY, of_patches)), vectors_of(n_i, zero)
    memory = np.empty(of_frame + of_back + of_gradient + of_pooled + of_bits + of_list + of_zeros
                      + (memory_size(n_o, n_i, width) * size if winograd else 0) + VECTOR_BYTES, np.uint8)
    frame = aligned(memory.ctypes.data)
    back, gradient = frame + of_frame, frame + of_frame + of_back
    pooled = gradient + of_gradient
    bits = pooled + of_pooled
    lists, no_bias = bits + of_bits, bits + of_bits + of_list
    transformed = no_bias + of_zeros
    clear(frame, frames, zero)
    clear(gradient, gradients, zero)
    clear(no_bias, n_i, zero)
    corner = ((f - window[2]) * x_row + (f - window[3]) * n_i) * size  # from a frame to the patch of pixel (0, 0)
    to_middle = g * (dy_row + n_o) * size
    moderate, is_ready = is_moderate(rows.ctypes.data, rows.size, zero), False
    for chunk in range(partition(chunks, 1, thread, threads), partition(chunks, 1, thread + 1, threads)):
        dW, db, waiting, end = sums[chunk].ctypes.data, biases[chunk].ctypes.data, 0, partition(n, 1, chunk + 1, chunks)
        for s in range(partition(n, 1, chunk, chunks), end):
            image, around = frame + waiting * x_image * size, gradient + waiting * dy_image * size
            middle = around + to_middle
            to_frame(image, x.ctypes.data + s * n_i * r * k * size, n_i, r, k, f, zero)
            to_frame(around, dy.ctypes.data + s * n_o * high * wide * size, n_o, high, wide, g, zero)
            dx_at = dx.ctypes.data + s * n_i * r * k * size
            if (by_one and moderate
                    and pooled_form(pooled, bits, bits_col, middle, dy_row, high, wide, n_o, zero)
                    and is_moderate(image, x_image, zero) and is_moderate(pooled, windows * n_o, zero)):
                clear(back, x_image, zero)
                of_W = columns[chunk].ctypes.data if way == LANES else dW
                call_at(pooled_back, back + corner, of_W, db, length, pooled, wide // 2 * n_o, bits, bits_col,
                        image + corner, x_row, rows.ctypes.data, high, wide, n_i, n_o, h, lists, zero)
                from_frame(dx_at, back, n_i, r, k, f, zero)
                continue
            if winograd and moderate and is_moderate(around, dy_image, zero):
                if not is_ready:
                    winograd_filters(transformed, turned.ctypes.data, n_o, n_i, zero)
                    is_ready = True
                patches = around + ((g - h + 1 + window[2]) * dy_row + (g - h + 1 + window[3]) * n_o) * size
                winograd_plain_conv(back, k * n_i, patches, dy_row, transformed, turned.ctypes.data,
                                    no_bias, r, k, n_o, n_i, 0, zero)
            else:
                input_gradient(back, k * n_i, middle, dy_row, turned.ctypes.data, no_bias, r, k, high, wide, n_i,
                               n_o, h, window[0], window[1], window[2], window[3], zero)
            from_frame(dx_at, back, n_i, r, k, 0, zero)
            add_channel_sums(db, middle, dy_row, high, wide, n_o, zero)
            waiting += 1
            if dense:
                dense_conv_back(dW, length, middle, dy_row, image + corner, x_row, high, wide, n_i, n_o, h, zero)
                waiting = 0
            elif waiting == together or s == end - 1:
                patches_back(dW, length, gradient + to_middle, dy_row, dy_image, frame + corner,
                             x_row, x_image, window[0] * x_row, window[1] * n_i, waiting, high, wide, n_o, h,
                             lists, of_patches, zero)
                waiting = 0
    keep(memory)


@jit
def _backward_input(thread, threads, sync, scratch, dx, dy, turned, h, window):
    """dx alone."""
    zero = turned.dtype.type(0)
    width = lanes(zero)
    size = VECTOR_BYTES // width
    (n, n_i, r, k), (_, n_o, high, wide), g = dx.shape, dy.shape, _margin(h, window)
    dy_row = (wide + 2 * g) * n_o
    of_gradient, of_zeros = vectors_of((high + 2 * g) * dy_row + width, zero), vectors_of(n_i, zero)
    memory = np.empty(of_gradient + of_zeros + vectors_of(n_i * r * k + width, zero) + VECTOR_BYTES, np.uint8)
    gradient = aligned(memory.ctypes.data)
    no_bias, back = gradient + of_gradient, gradient + of_gradient + of_zeros
    clear(gradient, (of_gradient + of_zeros) // size, zero)
    for s in range(partition(n, 1, thread, threads), partition(n, 1, thread + 1, threads)):
        to_frame(gradient, dy.ctypes.data + s * n_o * high * wide * size, n_o, high, wide, g, zero)
        input_gradient(back, k * n_i, gradient + g * (dy_row + n_o) * size, dy_row, turned.ctypes.data, no_bias, r, k, high,
                       wide, n_i, n_o, h, window[0], window[1], window[2], window[3], zero)
        from_frame(dx.ctypes.data + s * n_i * r * k * size, back, n_i, r, k, 0, zero)
    keep(memory)


@jit
def _gradients(W, n, length, way, width):
    """Zeros for what `_backward` sums up over the chunks of n images."""
    n_o, n_i, h, _ = W.shape
    chunks, vectors = min(CHUNKS, n), (n_o + width - 1) // width
    return (np.zeros((chunks, n_o, h, length), W.dtype),
            np.zeros((chunks if way == LANES else 0, vectors, h * h * n_i, width), W.dtype),
            np.zeros((chunks, vectors * width), W.dtype))


@jit
def _add_up(dW, db, sums, columns, biases):
    """dW (n_o, n_i, h, h) and db (1, n_o) from what `_backward` leaves."""
    n_o, n_i, h, _ = dW.shape
    total, bias = _in_order(sums), _in_order(biases)
    for o in range(n_o):
        db[0, o] = bias[o]
        for p in range(h):
            for q in range(h):
                for c in range(n_i):
                    dW[o, c, p, q] = total[o, p, q * n_i + c]
    if columns.shape[0] > 0:
        total = _in_order(columns)
        for o in range(n_o):
            for c in range(n_i):
                for p in range(h):
                    for q in range(h):
                        dW[o, c, p, q] += total[o // columns.shape[3], (p * h + q) * n_i + c, o % columns.shape[3]]


@jit
def _backward_weights(thread, threads, sync, scratch, sums, dy, x, window):
    zero = sums.dtype.type(0)
    width = lanes(zero)
    size = VECTOR_BYTES // width
    (n, n_i, r, k), (_, n_o, high, wide), (chunks, _, h, length) = x.shape, dy.shape, sums.shape
    f = max(window[2], window[3])
    row = (k + 2 * f) * n_i
    g = f if window == (1, 1, h // 2, h // 2) else 0  # equal frames make many rows one product, see `dense_conv_back`
    dense = window[0] == 1 and window[1] == 1 and wide + 2 * g == k + 2 * f
    dy_row, to_middle = (wide + 2 * g) * n_o, g * ((wide + 2 * g) * n_o + n_o) * size
    of_patches = max(PATCHES, patch_bytes(h * length, n_o, zero))
    of_frame, of_gradient = vectors_of((r + 2 * f) * row + width, zero), vectors_of((high + 2 * g) * dy_row, zero)
    memory = np.empty(of_frame + of_gradient + (0 if dense else of_patches) + VECTOR_BYTES, np.uint8)
    frame = aligned(memory.ctypes.data)
    gradient, corner = frame + of_frame, frame + ((f - window[2]) * row + (f - window[3]) * n_i) * size
    clear(frame, (of_frame + of_gradient) // size, zero)
    for chunk in range(partition(chunks, 1, thread, threads), partition(chunks, 1, thread + 1, threads)):
        for s in range(partition(n, 1, chunk, chunks), partition(n, 1, chunk + 1, chunks)):
            to_frame(frame, x.ctypes.data + s * n_i * r * k * size, n_i, r, k, f, zero)
            to_frame(gradient, dy.ctypes.data + s * n_o * high * wide * size, n_o, high, wide, g, zero)
            dW = sums[chunk].ctypes.data
            if dense:
                dense_conv_back(dW, length, gradient + to_middle, dy_row, corner, row, high, wide, n_i, n_o, h,
                                zero)
            else:
                patches_back(dW, length, gradient + to_middle, dy_row, 0, corner, row, 0, window[0] * row,
                             window[1] * n_i, 1, high, wide, n_o, h, gradient + of_gradient, of_patches, zero)
    keep(memory)


@jit
def _plane_sums(thread, threads, sync, scratch, sums, dy):
    n = dy.shape[0]
    for s in range(partition(n, 1, thread, threads), partition(n, 1, thread + 1, threads)):
        for o in range(dy.shape[1]):
            total = sums.dtype.type(0)
            for i in range(dy.shape[2]):
                for j in range(dy.shape[3]):
                    total += dy[s, o, i, j]
            sums[s, o] = total


@jit
def _pack_rows(W, width):
    """W (n_o, n_i, h, h) as (n_o, h, h n_i), each row filled up to whole vectors with 0."""
    n_o, n_i, h, _ = W.shape
    rows = np.zeros((n_o, h, (h * n_i + width - 1) // width * width), W.dtype)
    for o in range(n_o):
        for p in range(h):
            for q in range(h):
                for c in range(n_i):
                    rows[o, p, q * n_i + c] = W[o, c, p, q]
    return rows


@jit
def _pack_turned(W, width, down, right):
    """W (n_o, n_i, h, h) in vector columns (vectors, h h n_o, LANES) as `input_gradient` takes it at these strides."""
    n_o, n_i, h, _ = W.shape
    turned = np.zeros(((n_i + width - 1) // width, h * h * n_o, width), W.dtype)
    for p in range(h):
        for q in range(h):
            first = turned_tap(p, q, h, down, right) * n_o
            for o in range(n_o):
                for v in range(turned.shape[0]):
                    for lane in range(min(width, n_i - v * width)):
                        turned[v, first + o, lane] = W[o, v * width + lane, p, q]
    return turned


@jit
def _in_order(rows):
    """The sum of some rows, added one after the other."""
    total = rows[0].copy()
    flat = total.reshape(-1)
    for i in range(1, rows.shape[0]):
        row = rows[i].reshape(-1)
        for j in range(flat.size):
            flat[j] += row[j]
    return total


# --- the same names in compiled code, on the calling thread -------------------------------------------------------------

_choose_way, _whole = jit(choose_way), jit(whole)


def _alone(written: tuple[int, ...], read: tuple[int, ...], window: int = 4) -> Any:
    """Decorator: a kernel of an outcome, and of C-contiguous arrays with so many dimensions, which it writes or reads."""
    return separate(lambda element: (INT, *(types.Array(element, n, "C") for n in written),
                                     *(types.Array(element, n, "C", readonly=True) for n in read),
                                     *[types.UniTuple(INT, window)] * (window > 0), element), allocates=True)


@_alone((4,), (4, 4, 1))
def _forward_alone(outcome, y, x, W, b, window, one):
    n_o, n_i, h, _ = W.shape
    if y.size == 0 or x.size == 0:
        for o in range(n_o):
            y[:, o] = b[o]
        done(outcome)
        return
    width = lanes(one)
    vectors = (n_o + width - 1) // width
    packed, padded = np.zeros((vectors, h * h * n_i, width), y.dtype), np.zeros(vectors * width, y.dtype)
    for o in range(n_o):
        padded[o] = b[o]
        for c in range(n_i):
            for p in range(h):
                for q in range(h):
                    packed[o // width, (p * h + q) * n_i + c, o % width] = W[o, c, p, q]
    _forward(0, 1, np.zeros(0, np.int64), 0, y, x, packed, padded, h, window)
    done(outcome)


@_alone((4, 4, 2), (4, 4, 4))
def _backward_alone(outcome, dx, dW, db, dy, x, W, window, one):
    if dy.size == 0 or x.size == 0:
        dx[...] = 0
        dW[...] = 0
        _bias_alone(outcome, db, dy, one)
        return
    h, width = W.shape[2], lanes(one)
    rows, turned = _pack_rows(W, width), _pack_turned(W, width, window[0], window[1])
    way = _choose_way(h, W.shape[1], width, True)
    sums, columns, biases = _gradients(W, len(x), rows.shape[2], way, width)
    _backward(0, 1, np.zeros(0, np.int64), 0, dx, sums, columns, biases, dy, x, rows, turned, h, way, back_at(way, one),
              window)
    _add_up(dW, db, sums, columns, biases)
    done(outcome)


@_alone((4,), (4, 4))
def _backward_input_alone(outcome, dx, dy, W, window, one):
    n_o, n_i, h, _ = W.shape
    if dy.size == 0 or dx.size == 0:
        dx[...] = 0
        done(outcome)
    elif _turns(window, h):
        turned = np.empty((n_i, n_o, h, h), W.dtype)
        for p in range(h):
            for q in range(h):
                turned[:, :, p, q] = W[:, :, h - 1 - p, h - 1 - q].T
        _forward_alone(outcome, dx, dy, turned, np.zeros(n_i, W.dtype), (1, 1, h - 1 - window[2], h - 1 - window[3]), one)
    else:
        turned = _pack_turned(W, lanes(one), window[0], window[1])
        _backward_input(0, 1, np.zeros(0, np.int64), 0, dx, dy, turned, h, window)
        done(outcome)


@_alone((4,), (4, 4))
def _backward_weights_alone(outcome, dW, dy, x, window, one):
    if dy.size == 0 or x.size == 0:
        dW[...] = 0
        done(outcome)
        return
    (n, n_i, _, _), n_o, h = x.shape, dW.shape[0], dW.shape[2]
    sums = np.zeros((min(CHUNKS, n), n_o, h, _whole(h * n_i, lanes(one))), dW.dtype)
    _backward_weights(0, 1, np.zeros(0, np.int64), 0, sums, dy, x, window)
    total = _in_order(sums)
    for q in range(h):
        dW[:, :, :, q] = total[:, :, q * n_i:(q + 1) * n_i].transpose(0, 2, 1)
    done(outcome)


@_alone((2,), (4,), 0)
def _bias_alone(outcome, db, dy, one):
    if dy.size == 0:
        db[...] = 0
        done(outcome)
        return
    sums = np.empty((dy.shape[0], dy.shape[1]), dy.dtype)
    _plane_sums(0, 1, np.zeros(0, np.int64), 0, sums, dy)
    db[0, :] = _in_order(sums)
    done(outcome)


@jit
def _window_here(stride, padding, h):
    """`window_of` two pairs, of which the second is negative where there is none."""
    above, left = (h // 2, h // 2) if padding[0] < 0 else padding
    return stride[0], stride[1], above, left


@jit
def _sides(array):
    return side(array, 0), side(array, 1), side(array, 2), side(array, 3)


@array_kernel(4, PAIR, PAIR)
def _forward_here(outcome, y, x, W, b, stride, padding, one):
    if fits(outcome, elements_of(b) == side(W, 0)) and opened(outcome, 1, (y, x, W, b)):
        _forward_alone(outcome, array_at(at(y), _sides(y), one), array_at(at(x), _sides(x), one),
                       array_at(at(W), _sides(W), one), array_at(at(b), (side(W, 0),), one),
                       _window_here(stride, padding, side(W, 2)), one)
        close(1, (y, x, W, b))


@array_kernel(6, PAIR, PAIR)
def _backward_here(outcome, dx, dW, db, dy, x, W, stride, padding, one):
    if opened(outcome, 3, (dx, dW, db, dy, x, W)):
        _backward_alone(outcome, array_at(at(dx), _sides(x), one), array_at(at(dW), _sides(W), one),
                        array_at(at(db), (1, side(W, 0)), one), array_at(at(dy), _sides(dy), one),
                        array_at(at(x), _sides(x), one), array_at(at(W), _sides(W), one),
                        _window_here(stride, padding, side(W, 2)), one)
        close(3, (dx, dW, db, dy, x, W))


@array_kernel(3, PAIR, PAIR)
def _backward_input_here(outcome, dx, dy, W, stride, padding, one):
    if opened(outcome, 1, (dx, dy, W)):
        _backward_input_alone(outcome, array_at(at(dx), _sides(dx), one), array_at(at(dy), _sides(dy), one),
                              array_at(at(W), _sides(W), one), _window_here(stride, padding, side(W, 2)), one)
        close(1, (dx, dy, W))


@array_kernel(3, PAIR, PAIR)
def _backward_weights_here(outcome, dW, dy, x, stride, padding, one):
    if opened(outcome, 1, (dW, dy, x)):
        _backward_weights_alone(outcome, array_at(at(dW), _sides(dW), one), array_at(at(dy), _sides(dy), one),
                                array_at(at(x), _sides(x), one), _window_here(stride, padding, side(dW, 2)), one)
        close(1, (dW, dy, x))


@array_kernel(2)
def _backward_bias_here(outcome, db, dy, one):
    if opened(outcome, 1, (db, dy)):
        _bias_alone(outcome, array_at(at(db), (1, side(dy, 1)), one), array_at(at(dy), _sides(dy), one), one)
        close(1, (db, dy))


in_compiled_code(conv_forward, _forward_here, "y:noRK x:ncrk W:ochh b:? stride padding")
in_compiled_code(conv_backward, _backward_here, "dx:ncrk dW:ochh db:1o dy:noRK x:ncrk W:ochh stride padding", writes=3)
in_compiled_code(conv_backward_input, _backward_input_here, "dx:ncrk dy:noRK W:ochh stride padding")
in_compiled_code(conv_backward_weights, _backward_weights_here, "dW:ochh dy:noRK x:ncrk stride padding")
in_compiled_code(conv_backward_bias, _backward_bias_here, "db:1o dy:noRK")
