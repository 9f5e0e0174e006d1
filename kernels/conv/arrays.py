"""The convolutional layer, layer by layer: every image by itself, as products on the micro-kernel.

An image is taken through a buffer of one thread where it lies with its channels innermost and a frame of zeros around it,
(r + 2 f) x (k + 2 f) x n_i with f = h // 2. There row p of every patch that a filter covers is a run of h n_i neighbours,
and the patches of neighbouring pixels start n_i elements apart: the micro-kernel reads them where they lie. No matrix of
patches is ever formed. Images are dealt out to the threads; gradients of the weights are summed in a fixed number of
chunks of images, whatever the number of threads.

The usual next layers are ReLU and a pool of 2, and a gradient that came through them has one value, or none, in each 2 x 2
window. `conv_backward` looks: such an image goes back as in a compiled network (`conv_image.pooled_conv_back`), with a
quarter of the operations. Images with values whose product with 0 is not 0 do not, and neither do those that
Winograd's sums might overflow with.
"""
import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.codegen.layout import to_read, to_write, written
from fastnet.kernels.conv.avx512 import LANES, way_back
from fastnet.kernels.conv.image import (
    MEMORY,
    add_channel_sums,
    clear,
    dense_conv_back,
    from_frame,
    is_moderate,
    plain_conv,
    pooled_conv_back,
    pooled_form,
    to_frame,
)
from fastnet.kernels.conv.winograd import LEAST_CHANNELS, memory_size, winograd_filters, winograd_plain_conv
from fastnet.kernels.gemm import vector_lanes
from fastnet.kernels.gemm.blocking import partition
from fastnet.kernels.runtime.pool import run
from fastnet.kernels.simd import VECTOR_BYTES, lanes
from numba.extending import overload

CHUNKS = 16  # parts of a batch whose gradients are summed by themselves
_SHARE = 1 << 19  # multiply-adds below which waking a second thread costs more than it gains


def conv_forward(y: np.ndarray, x: np.ndarray, W: np.ndarray, b: np.ndarray) -> None:
    """y[n, o, i, j] = b[o] + sum over c, p, q of W[o, c, p, q] x[n, c, i + p - h // 2, j + q - h // 2].

    y (n, n_o, r, k), x (n, n_i, r, k), W (n_o, n_i, h, h), b (1, n_o): one dtype (float32 or float64); y C-contiguous,
    the others of any layout. Overwrites y. x counts as 0 outside; h is odd. Errors are those of a sum of h h n_i products;
    in float32, 3 x 3 filters of 16 channels or more are transformed (`conv_winograd`), where errors are as large. Without
    channels in, y is b.
    """
    n, n_i, r, k = x.shape
    n_o, _, h, _ = W.shape
    if y.size == 0 or n_i == 0:
        y[...] = np.reshape(b, (1, n_o, 1, 1))
        return
    packed = pack_filters(W.transpose(2, 3, 1, 0).reshape(-1, n_o))
    bias = np.zeros(packed.shape[0] * packed.shape[2], W.dtype)
    bias[:n_o] = np.ravel(b)
    x = _contiguous(x)
    run(_forward, y, x, packed, bias, n, n_i, r, k, n_o, h, threads=_threads(n * r * k * W.size))


def conv_backward(dx: np.ndarray, dW: np.ndarray, db: np.ndarray, dy: np.ndarray, x: np.ndarray, W: np.ndarray) -> None:
    """All three gradients: see `conv_backward_input`, `conv_backward_weights`, `conv_backward_bias`.

    dx (n, n_i, r, k), dW (n_o, n_i, h, h), db (1, n_o), dy (n, n_o, r, k), x (n, n_i, r, k), W (n_o, n_i, h, h): one dtype
    (float32 or float64); dx, dW and db C-contiguous, the others of any layout. Overwrites dx, dW and db. Sums of nothing are
    0.
    """
    if dy.size == 0 or x.size == 0:
        dx[...], dW[...] = 0, 0
        conv_backward_bias(db, dy)
        return
    W, width = _contiguous(W), vector_lanes(W.dtype)
    rows, turned, way = _pack_rows(W, width), _pack_turned(W, width), way_back(W.shape[2], W.shape[1], width, True)
    sums, columns, biases = _gradients(W, len(x), rows.shape[2], way, width)
    run(_backward, dx, sums, columns, biases, _contiguous(dy), _contiguous(x), rows, turned, W.shape[2], way,
        threads=_threads(x[:, 0].size * W.size))
    _add_up(dW, db, sums, columns, biases)


def conv_backward_input(dx: np.ndarray, dy: np.ndarray, W: np.ndarray) -> None:
    """dx[n, c, i, j] = sum over o, p, q of W[o, c, p, q] dy[n, o, i - p + h // 2, j - q + h // 2].

    dx (n, n_i, r, k), dy (n, n_o, r, k), W (n_o, n_i, h, h): one dtype (float32 or float64); dx C-contiguous, the others
    of any layout. Overwrites dx. That is the convolution of dy with the filters turned by half a circle.
    """
    turned = W[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    conv_forward(dx, dy, turned, np.zeros(len(turned), W.dtype))


def conv_backward_weights(dW: np.ndarray, dy: np.ndarray, x: np.ndarray) -> None:
    """dW[o, c, p, q] = sum over n, i, j of dy[n, o, i, j] x[n, c, i + p - h // 2, j + q - h // 2].

    dW (n_o, n_i, h, h), dy (n, n_o, r, k), x (n, n_i, r, k): one dtype (float32 or float64), any layout. Overwrites dW. Sums
    of nothing are 0.
    """
    if dy.size == 0 or x.size == 0:
        dW[...] = 0
        return
    n, n_i, r, k = x.shape
    n_o, _, h, _ = dW.shape
    chunks = min(CHUNKS, n)
    sums = np.zeros((chunks, n_o, h, h * n_i), dW.dtype)
    run(_backward_weights, sums, _contiguous(dy), _contiguous(x), chunks, n, n_i, r, k, n_o, h,
        threads=_threads(n * r * k * dW.size))
    total = _in_order(sums.reshape(chunks, -1))
    dW[...] = total.reshape(n_o, h, h, n_i).transpose(0, 3, 1, 2)


def conv_backward_bias(db: np.ndarray, dy: np.ndarray) -> None:
    """db[o] = sum over n, i, j of dy[n, o, i, j].

    db (1, n_o), dy (n, n_o, r, k): one dtype (float32 or float64), any layout. Overwrites db. Sums of nothing are 0.
    """
    if dy.size == 0:
        db[...] = 0
        return
    sums = np.empty(dy.shape[:2], dy.dtype)
    run(_plane_sums, sums, _contiguous(dy), threads=_threads(dy.size))
    db[...] = _in_order(sums)


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


def _threads(work: int) -> int | None:
    return 1 if work < _SHARE else None


# --- inside a kernel ------------------------------------------------------------------------------------------------


@jit
def _forward(thread, threads, sync, scratch, y, x, filters, bias, n, n_i, r, k, n_o, h):
    zero = bias.dtype.type(0)
    width = lanes(zero)
    f = h // 2
    frame = np.zeros((r + 2 * f) * (k + 2 * f) * n_i + width, bias.dtype)
    out = np.empty(r * k * n_o, bias.dtype)
    size = VECTOR_BYTES // width
    transformed = h == 3 and n_i >= LEAST_CHANNELS and size == 4 and is_moderate(filters.ctypes.data, filters.size, zero)
    memory = np.empty(memory_size(n_i, n_o, width) if transformed else 0, bias.dtype)
    if transformed:
        winograd_filters(memory.ctypes.data, filters.ctypes.data, n_i, n_o, zero)
    for s in range(partition(n, 1, thread, threads), partition(n, 1, thread + 1, threads)):
        to_frame(frame.ctypes.data, x.ctypes.data + s * n_i * r * k * size, n_i, r, k, f, zero)
        if transformed and is_moderate(frame.ctypes.data, frame.size, zero):
            winograd_plain_conv(out.ctypes.data, k * n_o, frame.ctypes.data, (k + 2) * n_i, memory.ctypes.data,
                                filters.ctypes.data, bias.ctypes.data, r, k, n_i, n_o, 0, zero)
        else:
            plain_conv(out.ctypes.data, k * n_o, frame.ctypes.data, (k + 2 * f) * n_i, filters.ctypes.data, bias.ctypes.data,
                       r, k, n_i, n_o, h, 0, zero)
        from_frame(y.ctypes.data + s * n_o * r * k * size, out.ctypes.data, n_o, r, k, 0, zero)


@jit
def _backward(thread, threads, sync, scratch, dx, sums, columns, biases, dy, x, rows, turned, h, way):
    """dx, and for each chunk of images the gradients: sums (n_o, h, row length), columns as `LANES` keeps them, biases."""
    zero = sums.dtype.type(0)
    width = lanes(zero)
    size = VECTOR_BYTES // width
    (n, n_i, r, k), n_o, f = x.shape, dy.shape[1], h // 2
    chunks, length, bits_col = sums.shape[0], sums.shape[3], biases.shape[1]
    frame = np.zeros((r + 2 * f) * (k + 2 * f) * n_i + 2 * width, sums.dtype)
    back = np.empty(frame.size, sums.dtype)
    gradient = np.zeros((r + 2 * f) * (k + 2 * f) * n_o + 2 * width, sums.dtype)
    windows = (r // 2) * (k // 2)
    pooled, bits = np.empty(windows * n_o + 2 * width, sums.dtype), np.empty(windows * bits_col + 64, np.uint8)
    memory = np.empty(MEMORY + 64, np.uint8)
    no_bias = np.zeros((n_i + width - 1) // width * width, sums.dtype)
    transformed = np.empty(memory_size(n_o, n_i, width) if h == 3 and n_o >= LEAST_CHANNELS and size == 4 else 0, sums.dtype)
    # Numba frees an array after its last use, and an address is none: each of these is named again where it is needed
    x_row, dy_row = (k + 2 * f) * n_i, (k + 2 * f) * n_o
    image, patches, middle = frame.ctypes.data, gradient.ctypes.data, gradient.ctypes.data + f * (dy_row + n_o) * size
    moderate, is_ready = is_moderate(rows.ctypes.data, rows.size, zero), False
    for chunk in range(partition(chunks, 1, thread, threads), partition(chunks, 1, thread + 1, threads)):
        dW, db = sums[chunk].ctypes.data, biases[chunk].ctypes.data
        for s in range(partition(n, 1, chunk, chunks), partition(n, 1, chunk + 1, chunks)):
            to_frame(image, x.ctypes.data + s * n_i * r * k * size, n_i, r, k, f, zero)
            to_frame(patches, dy.ctypes.data + s * n_o * r * k * size, n_o, r, k, f, zero)
            dx_at = dx.ctypes.data + s * n_i * r * k * size
            if (moderate and pooled_form(pooled.ctypes.data, bits.ctypes.data, bits_col, middle, dy_row, r, k, n_o, zero)
                    and is_moderate(image, frame.size, zero) and is_moderate(pooled.ctypes.data, windows * n_o, zero)):
                clear(back.ctypes.data, (r + 2 * f) * x_row, zero)
                pooled_conv_back(way, back.ctypes.data, columns[chunk].ctypes.data if way == LANES else dW, db, length,
                                 pooled.ctypes.data, k // 2 * n_o, bits.ctypes.data, bits_col, image, x_row,
                                 rows.ctypes.data, r, k, n_i, n_o, h, (memory.ctypes.data + 63) // 64 * 64, zero)
                from_frame(dx_at, back.ctypes.data, n_i, r, k, f, zero)
                continue
            dense_conv_back(dW, length, middle, dy_row, image, x_row, r, k, n_i, n_o, h, zero)
            add_channel_sums(db, middle, dy_row, r, k, n_o, zero)
            if transformed.size and moderate and is_moderate(patches, gradient.size, zero):
                if not is_ready:
                    winograd_filters(transformed.ctypes.data, turned.ctypes.data, n_o, n_i, zero)
                    is_ready = True
                winograd_plain_conv(back.ctypes.data, k * n_i, patches, dy_row, transformed.ctypes.data, turned.ctypes.data,
                                    no_bias.ctypes.data, r, k, n_o, n_i, 0, zero)
            else:
                plain_conv(back.ctypes.data, k * n_i, patches, dy_row, turned.ctypes.data, no_bias.ctypes.data, r, k, n_o,
                           n_i, h, 0, zero)
            from_frame(dx_at, back.ctypes.data, n_i, r, k, 0, zero)


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
        for c in range(n_i):
            for p in range(h):
                for q in range(h):
                    dW[o, c, p, q] = total[o, p, q * n_i + c]
    if columns.shape[0] > 0:
        total = _in_order(columns)
        for o in range(n_o):
            for c in range(n_i):
                for p in range(h):
                    for q in range(h):
                        dW[o, c, p, q] += total[o // columns.shape[3], (p * h + q) * n_i + c, o % columns.shape[3]]


@jit
def _backward_weights(thread, threads, sync, scratch, sums, dy, x, chunks, n, n_i, r, k, n_o, h):
    zero = sums.dtype.type(0)
    width = lanes(zero)
    size = VECTOR_BYTES // width
    f = h // 2
    frame = np.zeros((r + 2 * f) * (k + 2 * f) * n_i + width, sums.dtype)
    gradient = np.zeros((r + 2 * f) * (k + 2 * f) * n_o, sums.dtype)  # in a frame as wide as that of x
    row = (k + 2 * f) * n_o
    for chunk in range(partition(chunks, 1, thread, threads), partition(chunks, 1, thread + 1, threads)):
        for s in range(partition(n, 1, chunk, chunks), partition(n, 1, chunk + 1, chunks)):
            to_frame(frame.ctypes.data, x.ctypes.data + s * n_i * r * k * size, n_i, r, k, f, zero)
            to_frame(gradient.ctypes.data, dy.ctypes.data + s * n_o * r * k * size, n_o, r, k, f, zero)
            dense_conv_back(sums[chunk].ctypes.data, h * n_i, gradient.ctypes.data + f * (row + n_o) * size, row,
                            frame.ctypes.data, (k + 2 * f) * n_i, r, k, n_i, n_o, h, zero)


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
        for c in range(n_i):
            for p in range(h):
                for q in range(h):
                    rows[o, p, q * n_i + c] = W[o, c, p, q]
    return rows


@jit
def _pack_turned(W, width):
    """W (n_o, n_i, h, h), turned by half a circle, in vector columns (vectors, h h n_o, LANES): filters of the way back."""
    n_o, n_i, h, _ = W.shape
    turned = np.zeros(((n_i + width - 1) // width, h * h * n_o, width), W.dtype)
    for o in range(n_o):
        for c in range(n_i):
            for p in range(h):
                for q in range(h):
                    turned[c // width, ((h - 1 - p) * h + h - 1 - q) * n_o + o, c % width] = W[o, c, p, q]
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


# --- the same names in compiled code, on the calling thread ---------------------------------------------------------

_way_back = jit(way_back)


@jit
def _forward_here(y, x, filters, bias, n_o, h):
    """`_forward` of filters B (h h n_i, n_o) that are not packed yet; y and x C-contiguous, bias (n_o,)."""
    n, n_i, r, k = x.shape
    width = lanes(bias.dtype.type(0))
    vectors = (n_o + width - 1) // width
    packed, padded = np.zeros((vectors, h * h * n_i, width), y.dtype), np.zeros(vectors * width, y.dtype)
    for o in range(n_o):
        padded[o] = bias[o]
        for p in range(h * h * n_i):
            packed[o // width, p, o % width] = filters[p, o]
    _forward(0, 1, np.zeros(0, np.int64), 0, y, x, packed, padded, n, n_i, r, k, n_o, h)


@jit
def _filters(W, turned):
    """W (n_o, n_i, h, h) as B (h h n_i, n_o); or turned by half a circle, for the way back, as B (h h n_o, n_i)."""
    n_o, n_i, h, _ = W.shape
    out, channels = (n_i, n_o) if turned else (n_o, n_i)
    B = np.empty((h * h * channels, out), W.dtype)
    for o in range(n_o):
        for c in range(n_i):
            for p in range(h):
                for q in range(h):
                    if turned:
                        B[((h - 1 - p) * h + h - 1 - q) * n_o + o, c] = W[o, c, p, q]
                    else:
                        B[(p * h + q) * n_i + c, o] = W[o, c, p, q]
    return B


@overload(conv_forward)
def _compiled_forward(y, x, W, b):
    def in_compiled_code(y, x, W, b):
        if y.size == 0 or x.shape[1] == 0:
            for o in range(y.shape[1]):
                y[:, o] = b[0, o]
            return
        result = to_write(y)
        _forward_here(result, to_read(x), _filters(to_read(W), False), to_read(b).reshape(-1), W.shape[0], W.shape[2])
        written(y, result)

    return in_compiled_code


@overload(conv_backward)
def _compiled_backward(dx, dW, db, dy, x, W):
    def in_compiled_code(dx, dW, db, dy, x, W):
        if dy.size == 0 or x.size == 0:
            dx[...] = 0
            dW[...] = 0
            conv_backward_bias(db, dy)
            return
        result, filters, bias, weights = to_write(dx), to_write(dW), to_write(db), to_read(W)
        width = lanes(W.dtype.type(0))
        rows, turned = _pack_rows(weights, width), _pack_turned(weights, width)
        way = _way_back(W.shape[2], W.shape[1], width, True)
        sums, columns, biases = _gradients(weights, len(x), rows.shape[2], way, width)
        _backward(0, 1, np.zeros(0, np.int64), 0, result, sums, columns, biases, to_read(dy), to_read(x), rows, turned,
                  W.shape[2], way)
        _add_up(filters, bias, sums, columns, biases)
        written(dx, result)
        written(dW, filters)
        written(db, bias)

    return in_compiled_code


@overload(conv_backward_input)
def _compiled_backward_input(dx, dy, W):
    def in_compiled_code(dx, dy, W):
        if dy.size == 0 or dx.size == 0:
            dx[...] = 0
            return
        result = to_write(dx)
        _forward_here(result, to_read(dy), _filters(to_read(W), True), np.zeros(W.shape[1], W.dtype), W.shape[1], W.shape[2])
        written(dx, result)

    return in_compiled_code


@overload(conv_backward_weights)
def _compiled_backward_weights(dW, dy, x):
    def in_compiled_code(dW, dy, x):
        if dy.size == 0 or x.size == 0:
            dW[...] = 0
            return
        n, n_i, r, k = x.shape
        n_o, h = dW.shape[0], dW.shape[2]
        chunks = min(CHUNKS, n)
        sums = np.zeros((chunks, n_o, h, h * n_i), dW.dtype)
        _backward_weights(0, 1, np.zeros(0, np.int64), 0, sums, to_read(dy), to_read(x), chunks, n, n_i, r, k, n_o, h)
        total = _in_order(sums.reshape(chunks, -1)).reshape(n_o, h, h, n_i)
        dW[...] = total.transpose(0, 3, 1, 2)

    return in_compiled_code


@overload(conv_backward_bias)
def _compiled_backward_bias(db, dy):
    def in_compiled_code(db, dy):
        if dy.size == 0:
            db[...] = 0
            return
        sums = np.empty((dy.shape[0], dy.shape[1]), dy.dtype)
        _plane_sums(0, 1, np.zeros(0, np.int64), 0, sums, to_read(dy))
        db[0, :] = _in_order(sums)

    return in_compiled_code
