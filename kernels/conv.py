"""The convolutional layer, layer by layer: every image by itself, as products on the micro-kernel.

An image is taken through a buffer of one thread where it lies with its channels innermost and a frame of zeros around it,
(r + 2 f) x (k + 2 f) x n_i with f = h // 2. There row p of every patch that a filter covers is a run of h n_i neighbours,
and the patches of neighbouring pixels start n_i elements apart: the micro-kernel reads them where they lie. No matrix of
patches is ever formed. Images are dealt out to the threads; gradients of the weights are summed in a fixed number of
chunks of images, whatever the number of threads.
"""
import numpy as np
from fastnet.kernels._jit import jit
from fastnet.kernels._layout import to_read, to_write, written
from fastnet.kernels.blocking import partition
from fastnet.kernels.conv_image import dense_conv_back, from_frame, plain_conv, to_frame
from fastnet.kernels.gemm import vector_lanes
from fastnet.kernels.simd import VECTOR_BYTES, lanes
from fastnet.kernels.threads import run
from numba.extending import overload

CHUNKS = 16  # parts of a batch whose gradients are summed by themselves
_SHARE = 1 << 19  # multiply-adds below which waking a second thread costs more than it gains


def conv_forward(y: np.ndarray, x: np.ndarray, W: np.ndarray, b: np.ndarray) -> None:
    """y[n, o, i, j] = b[o] + sum over c, p, q of W[o, c, p, q] x[n, c, i + p - h // 2, j + q - h // 2].

    y (n, n_o, r, k), x (n, n_i, r, k), W (n_o, n_i, h, h), b (1, n_o): one dtype (float32 or float64); y C-contiguous,
    the others of any layout. Overwrites y. x counts as 0 outside; h is odd. Nothing is transformed: errors are those of
    a sum of h h n_i products.
    """
    n, n_i, r, k = x.shape
    n_o, _, h, _ = W.shape
    packed = pack_filters(W.transpose(2, 3, 1, 0).reshape(-1, n_o))
    bias = np.zeros(packed.shape[0] * packed.shape[2], W.dtype)
    bias[:n_o] = np.ravel(b)
    x = _contiguous(x)
    run(_forward, y, x, packed, bias, n, n_i, r, k, n_o, h, threads=_threads(n * r * k * W.size))


def conv_backward_input(dx: np.ndarray, dy: np.ndarray, W: np.ndarray) -> None:
    """dx[n, c, i, j] = sum over o, p, q of W[o, c, p, q] dy[n, o, i - p + h // 2, j - q + h // 2].

    dx (n, n_i, r, k), dy (n, n_o, r, k), W (n_o, n_i, h, h): one dtype (float32 or float64); dx C-contiguous, the others
    of any layout. Overwrites dx. That is the convolution of dy with the filters turned by half a circle.
    """
    turned = W[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    conv_forward(dx, dy, turned, np.zeros(len(turned), W.dtype))


def conv_backward_weights(dW: np.ndarray, dy: np.ndarray, x: np.ndarray) -> None:
    """dW[o, c, p, q] = sum over n, i, j of dy[n, o, i, j] x[n, c, i + p - h // 2, j + q - h // 2].

    dW (n_o, n_i, h, h), dy (n, n_o, r, k), x (n, n_i, r, k): one dtype (float32 or float64), any layout. Overwrites dW.
    """
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

    db (1, n_o), dy (n, n_o, r, k): one dtype (float32 or float64), any layout. Overwrites db.
    """
    sums = np.empty(dy.shape[:2], dy.dtype)
    run(_plane_sums, sums, _contiguous(dy), threads=_threads(dy.size))
    db[...] = _in_order(sums)


def pack_filters(B: np.ndarray) -> np.ndarray:
    """B (k, n) in vector columns (vectors, k, LANES), missing lanes 0; see kernels/blocking.py."""
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
    frame = np.zeros((r + 2 * f) * (k + 2 * f) * n_i, bias.dtype)
    out = np.empty(r * k * n_o, bias.dtype)
    size = VECTOR_BYTES // width
    for s in range(partition(n, 1, thread, threads), partition(n, 1, thread + 1, threads)):
        to_frame(frame.ctypes.data, x.ctypes.data + s * n_i * r * k * size, n_i, r, k, f, zero)
        plain_conv(out.ctypes.data, k * n_o, frame.ctypes.data, (k + 2 * f) * n_i, filters.ctypes.data, bias.ctypes.data,
                   r, k, n_i, n_o, h, 0, zero)
        from_frame(y.ctypes.data + s * n_o * r * k * size, out.ctypes.data, n_o, r, k, 0, zero)


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
def _in_order(rows):
    """The sum of some rows, added one after the other."""
    total = rows[0].copy()
    for i in range(1, rows.shape[0]):
        for j in range(total.size):
            total[j] += rows[i, j]
    return total


# --- the same names in compiled code, on the calling thread ---------------------------------------------------------


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
        result = to_write(y)
        _forward_here(result, to_read(x), _filters(to_read(W), False), to_read(b).reshape(-1), W.shape[0], W.shape[2])
        written(y, result)

    return in_compiled_code


@overload(conv_backward_input)
def _compiled_backward_input(dx, dy, W):
    def in_compiled_code(dx, dy, W):
        result = to_write(dx)
        _forward_here(result, to_read(dy), _filters(to_read(W), True), np.zeros(W.shape[1], W.dtype), W.shape[1], W.shape[2])
        written(dx, result)

    return in_compiled_code


@overload(conv_backward_weights)
def _compiled_backward_weights(dW, dy, x):
    def in_compiled_code(dW, dy, x):
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
        sums = np.empty((dy.shape[0], dy.shape[1]), dy.dtype)
        _plane_sums(0, 1, np.zeros(0, np.int64), 0, sums, to_read(dy))
        db[0, :] = _in_order(sums)

    return in_compiled_code
