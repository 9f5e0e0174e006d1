"""Maximum pooling and its gradient.

Windows that do not overlap have a truth value for each value of the image, which says whether it is its window's maximum.
Where windows overlap, a value may be the maximum of one and not of another: then there is a truth value for each value of
each window.
"""
import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.compiled_calls import (
    PAIR,
    array_at,
    array_kernel,
    at,
    dimensions_of,
    elements_of,
    finish,
    fits,
    in_compiled_code,
    opened,
    side,
)
from fastnet.kernels.conv.arrays import Both, both
from fastnet.kernels.conv.simd import load_byte, store_byte
from fastnet.kernels.conv.windows import one_gradient, one_window, pool_windows
from fastnet.kernels.gemm.blocking import partition
from fastnet.kernels.layout import plain
from fastnet.kernels.runtime.team import run
from fastnet.kernels.simd import VECTOR_BYTES, lanes, load, store

_WORK = 4  # multiply-adds in the time of one element


def maxpool_forward(y: np.ndarray, locs: np.ndarray, x: np.ndarray, size: Both, stride: Both | None = None) -> None:
    """y[n, c, i, j] = max over p, q < size of x[n, c, stride i + p, stride j + q]; locs = 1 where x is that, else 0.

    y (n, c, R, K), x (n, c, r, k): one dtype (float32 or float64). locs, bool: of x's shape if the stride is at least the
    size, and otherwise (n, c, R, K, rows of a window, columns of a window). y and locs C-contiguous, x of any layout.
    `size` and `stride` are numbers or pairs for rows and columns; a stride of None is the size. R = (r - size) // stride
    + 1, and K likewise. Overwrites y and locs. Of equal maxima each is a 1 in locs. Values that no window covers are 0. A
    window with NaN gives NaN, and zeros in locs but where NaN is not.
    """
    n, c, r, k = x.shape
    kernel = _forward if locs.ndim == 4 else _forward_overlapping
    run(kernel, y.reshape(n * c, *y.shape[2:]), locs.reshape(n * c, *locs.shape[2:]).view(np.uint8),
        plain(x).reshape(n * c, r, k), windows_of(size, stride), work=_WORK * x.size)


def maxpool_backward(dx: np.ndarray, dy: np.ndarray, locs: np.ndarray, size: Both, stride: Both | None = None) -> None:
    """dx = the sum of dy over the windows in which locs is not 0: every one of equal maxima gets the whole gradient.

    dx (n, c, r, k), dy (n, c, R, K), locs of bool: shapes, `size` and `stride` as of `maxpool_forward`. dx and dy of one
    dtype (float32 or float64); dx C-contiguous, the others of any layout. Overwrites dx.
    """
    n, c, r, k = dx.shape
    kernel = _backward if locs.ndim == 4 else _backward_overlapping
    run(kernel, dx.reshape(n * c, r, k), plain(dy).reshape(n * c, *dy.shape[2:]),
        plain(locs).reshape(n * c, *locs.shape[2:]).view(np.uint8), windows_of(size, stride),
        work=_WORK * dx.size)


def windows_of(size: Both, stride: Both | None) -> tuple[int, int, int, int]:
    """Rows and columns of a window, then of the step to the next one."""
    return (*both(size), *both(size if stride is None else stride))


@jit
def _windows_here(size, stride):
    """`windows_of` two pairs, of which the second is negative where there is none."""
    down, right = size if stride[0] < 0 else stride
    return size[0], size[1], down, right


@jit
def _shapes_fit(x, y, locs, window):
    high, wide, down, right = window
    if min(high, wide, down, right) < 1 or side(locs, 0) != side(x, 0) or side(locs, 1) != side(x, 1):
        return False
    if side(y, 2) != max(0, (side(x, 2) - high) // down + 1) or side(y, 3) != max(0, (side(x, 3) - wide) // right + 1):
        return False
    if dimensions_of(locs) == 4:
        return side(locs, 2) == side(x, 2) and side(locs, 3) == side(x, 3)
    return elements_of(locs) == elements_of(y) * high * wide


@array_kernel(3, PAIR, PAIR)
def _forward_here(outcome, y, locs, x, size, stride, one):
    window, planes = _windows_here(size, stride), side(x, 0) * side(x, 1)
    if fits(outcome, _shapes_fit(x, y, locs, window)) and opened(outcome, 2, (y, locs, x)):
        places, one_place = at(locs), np.uint8(1)
        maxima = array_at(at(y), (planes, side(y, 2), side(y, 3)), one)
        images = array_at(at(x), (planes, side(x, 2), side(x, 3)), one)
        if dimensions_of(locs) == 4:
            _forward(0, 1, 0, 0, maxima, array_at(places, images.shape, one_place), images, window)
        else:
            each = elements_of(locs) // max(1, planes)
            _forward_overlapping(0, 1, 0, 0, maxima, array_at(places, (planes, each), one_place), images, window)
        finish(outcome, 2, (y, locs, x))


@array_kernel(3, PAIR, PAIR)
def _backward_here(outcome, dx, dy, locs, size, stride, one):
    window, planes = _windows_here(size, stride), side(dx, 0) * side(dx, 1)
    if fits(outcome, _shapes_fit(dx, dy, locs, window)) and opened(outcome, 1, (dx, dy, locs)):
        places, one_place = at(locs), np.uint8(1)
        images = array_at(at(dx), (planes, side(dx, 2), side(dx, 3)), one)
        maxima = array_at(at(dy), (planes, side(dy, 2), side(dy, 3)), one)
        if dimensions_of(locs) == 4:
            _backward(0, 1, 0, 0, images, maxima, array_at(places, images.shape, one_place), window)
        else:
            each = elements_of(locs) // max(1, planes)
            _backward_overlapping(0, 1, 0, 0, images, maxima, array_at(places, (planes, each), one_place), window)
        finish(outcome, 1, (dx, dy, locs))


in_compiled_code(maxpool_forward, _forward_here, "y:ncRK locs:? x:ncrk size stride", writes=2)
in_compiled_code(maxpool_backward, _backward_here, "dx:ncrk dy:ncRK locs:? size stride")


@jit
def _forward(thread, threads, sync, scratch, y, locs, x, window):
    planes = x.shape[0]
    for plane in range(partition(planes, 1, thread, threads), partition(planes, 1, thread + 1, threads)):
        if window == (2, 2, 2, 2):
            _forward_2(y[plane], locs[plane], x[plane])
        else:
            locs[plane] = 0
            _forward_windows(y[plane].ctypes.data, locs[plane].ctypes.data, x[plane].ctypes.data, x.shape[2], y.shape[1],
                             y.shape[2], window, False, y.dtype.type(0))


@jit
def _forward_2(y, locs, x):
    """The usual size: vectors of windows, shorter ones for what is left of a row, and then one by one."""
    rows, cols = y.shape
    zero = y.dtype.type(0)
    size, row = y.itemsize, x.shape[1]
    locs[2 * rows:] = 0
    locs[:, 2 * cols:] = 0
    for i in range(rows):
        y_at, locs_at, x_at = y[i].ctypes.data, locs[2 * i].ctypes.data, x[2 * i].ctypes.data
        done = cols // 16 * 16
        for j in range(0, done, 16):
            pool_windows(16, y_at + j * size, locs_at + 2 * j, x_at + 2 * j * size, row, zero)
        if done + 8 <= cols:
            pool_windows(8, y_at + done * size, locs_at + 2 * done, x_at + 2 * done * size, row, zero)
            done += 8
        if done + 4 <= cols:
            pool_windows(4, y_at + done * size, locs_at + 2 * done, x_at + 2 * done * size, row, zero)
            done += 4
        for j in range(done, cols):
            a, b, c, d = x[2 * i, 2 * j], x[2 * i, 2 * j + 1], x[2 * i + 1, 2 * j], x[2 * i + 1, 2 * j + 1]
            ab = a if a > b or a != a else b
            cd = c if c > d or c != c else d
            top = ab if ab > cd or ab != ab else cd
            y[i, j] = top
            locs[2 * i, 2 * j], locs[2 * i, 2 * j + 1] = np.uint8(a == top), np.uint8(b == top)
            locs[2 * i + 1, 2 * j], locs[2 * i + 1, 2 * j + 1] = np.uint8(c == top), np.uint8(d == top)


@jit
def _forward_windows(y, locs, x, row, rows, cols, window, overlap, zero):
    """One plane, by address: x has rows of `row` elements, y is (rows, cols)."""
    high, wide, down, right = window
    size, locs_row = VECTOR_BYTES // lanes(zero), wide if overlap else row
    for i in range(rows):
        for j in range(cols):
            corner = down * i * row + right * j
            at, to = x + corner * size, y + (i * cols + j) * size
            places = locs + ((i * cols + j) * high * wide if overlap else corner)
            if high == 3 and wide == 3:
                one_window(3, 3, to, places, locs_row, at, row, zero)
            elif high == 2 and wide == 2:
                one_window(2, 2, to, places, locs_row, at, row, zero)
            else:
                top = load(at, zero)
                for p in range(high):
                    for q in range(wide):
                        value = load(at + (p * row + q) * size, zero)
                        top = value if value > top or value != value else top
                store(to, top)
                for p in range(high):
                    for q in range(wide):
                        store_byte(places + p * locs_row + q, 1 if load(at + (p * row + q) * size, zero) == top else 0)


@jit
def _forward_overlapping(thread, threads, sync, scratch, y, locs, x, window):
    planes, rows, cols = y.shape
    for plane in range(partition(planes, 1, thread, threads), partition(planes, 1, thread + 1, threads)):
        _forward_windows(y[plane].ctypes.data, locs[plane].ctypes.data, x[plane].ctypes.data, x.shape[2], rows, cols, window,
                         True, y.dtype.type(0))


@jit
def _backward(thread, threads, sync, scratch, dx, dy, locs, window):
    planes, rows, cols = dy.shape
    zero = dx.dtype.type(0)
    for plane in range(partition(planes, 1, thread, threads), partition(planes, 1, thread + 1, threads)):
        dx[plane] = zero
        _backward_windows(dx[plane].ctypes.data, dy[plane].ctypes.data, locs[plane].ctypes.data, dx.shape[2], rows, cols,
                          window, False, zero)


@jit
def _backward_overlapping(thread, threads, sync, scratch, dx, dy, locs, window):
    planes, rows, cols = dy.shape
    zero = dx.dtype.type(0)
    for plane in range(partition(planes, 1, thread, threads), partition(planes, 1, thread + 1, threads)):
        dx[plane] = zero
        _backward_windows(dx[plane].ctypes.data, dy[plane].ctypes.data, locs[plane].ctypes.data, dx.shape[2], rows, cols,
                          window, True, zero)


@jit
def _backward_windows(dx, dy, locs, row, rows, cols, window, overlap, zero):
    """One plane, by address, as `_forward_windows`; dx is 0 before."""
    high, wide, down, right = window
    size, locs_row = VECTOR_BYTES // lanes(zero), wide if overlap else row
    for i in range(rows):
        for j in range(cols):
            corner = down * i * row + right * j
            to, at = dx + corner * size, dy + (i * cols + j) * size
            places = locs + ((i * cols + j) * high * wide if overlap else corner)
            if high == 3 and wide == 3 and overlap:
                one_gradient(3, 3, 1, to, row, at, places, locs_row, zero)
            elif high == 3 and wide == 3:
                one_gradient(3, 3, 0, to, row, at, places, locs_row, zero)
            elif high == 2 and wide == 2 and overlap:
                one_gradient(2, 2, 1, to, row, at, places, locs_row, zero)
            elif high == 2 and wide == 2:
                one_gradient(2, 2, 0, to, row, at, places, locs_row, zero)
            else:
                for p in range(high):
                    for q in range(wide):
                        if load_byte(places + p * locs_row + q) != 0:
                            there = to + (p * row + q) * size
                            store(there, load(there, zero) + load(at, zero))
