"""Maximum pooling over windows that do not overlap, and its gradient."""
import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.codegen.layout import plain, to_read, to_write, written
from fastnet.kernels.conv.windows import pool_windows
from fastnet.kernels.gemm.blocking import partition
from fastnet.kernels.runtime.pool import run
from numba.extending import overload

_SHARE = 1 << 16  # elements below which waking a second thread costs more than it gains


def maxpool_forward(y: np.ndarray, locs: np.ndarray, x: np.ndarray, size: int) -> None:
    """y[n, c, i, j] = max over p, q < size of x[n, c, size i + p, size j + q]; locs = 1 where x is that, else 0.

    y (n, c, r // size, k // size), x (n, c, r, k): one dtype (float32 or float64); locs of x's shape, bool. y and locs
    C-contiguous, x of any layout. Overwrites y and locs. Of equal maxima each is a 1 in locs. Rows and columns behind
    the last whole window are 0 in locs. A window with NaN gives NaN, and zeros in locs but where NaN is not.
    """
    n, c, r, k = x.shape
    run(_forward, y.reshape(n * c, r // size, k // size), locs.reshape(n * c, r, k).view(np.uint8),
        plain(x).reshape(n * c, r, k), size, threads=1 if x.size < _SHARE else None)


def maxpool_backward(dx: np.ndarray, dy: np.ndarray, locs: np.ndarray, size: int) -> None:
    """dx = dy of the window where locs is not 0, else 0: every one of equal maxima gets the whole gradient.

    dx, locs (n, c, r, k), dy (n, c, r // size, k // size): dx and dy of one dtype (float32 or float64), locs of bool;
    dx C-contiguous, the others of any layout. Overwrites dx.
    """
    n, c, r, k = dx.shape
    run(_backward, dx.reshape(n * c, r, k), plain(dy).reshape(n * c, r // size, k // size),
        plain(locs).reshape(n * c, r, k).view(np.uint8), size, threads=1 if dx.size < _SHARE else None)


@overload(maxpool_forward)
def _compiled_forward(y, locs, x, size):
    def in_compiled_code(y, locs, x, size):
        n, c, r, k = x.shape
        maxima, places = to_write(y), to_write(locs)
        _forward(0, 1, np.zeros(0, np.int64), 0, maxima.reshape(n * c, r // size, k // size),
                 places.reshape(n * c, r, k).view(np.uint8), to_read(x).reshape(n * c, r, k), size)
        written(y, maxima)
        written(locs, places)

    return in_compiled_code


@overload(maxpool_backward)
def _compiled_backward(dx, dy, locs, size):
    def in_compiled_code(dx, dy, locs, size):
        n, c, r, k = dx.shape
        result = to_write(dx)
        _backward(0, 1, np.zeros(0, np.int64), 0, result.reshape(n * c, r, k),
                  to_read(dy).reshape(n * c, r // size, k // size), to_read(locs).reshape(n * c, r, k).view(np.uint8), size)
        written(dx, result)

    return in_compiled_code


@jit
def _forward(thread, threads, sync, scratch, y, locs, x, size):
    planes = x.shape[0]
    for plane in range(partition(planes, 1, thread, threads), partition(planes, 1, thread + 1, threads)):
        if size == 2:
            _forward_2(y[plane], locs[plane], x[plane])
        else:
            _forward_any(y[plane], locs[plane], x[plane], size)


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
def _forward_any(y, locs, x, size):
    rows, cols = y.shape
    locs[:] = 0
    for i in range(rows):
        for j in range(cols):
            top = x[size * i, size * j]
            for p in range(size):
                for q in range(size):
                    value = x[size * i + p, size * j + q]
                    if value > top or value != value:
                        top = value
            y[i, j] = top
            for p in range(size):
                for q in range(size):
                    locs[size * i + p, size * j + q] = np.uint8(x[size * i + p, size * j + q] == top)


@jit
def _backward(thread, threads, sync, scratch, dx, dy, locs, size):
    planes, rows, cols = dy.shape
    zero = dx.dtype.type(0)
    for plane in range(partition(planes, 1, thread, threads), partition(planes, 1, thread + 1, threads)):
        dx[plane, size * rows:] = zero
        for i in range(size * rows):
            at, mask, row = dx[plane, i], locs[plane, i], dy[plane, i // size]
            at[size * cols:] = zero
            if size == 2:
                for j in range(cols):
                    at[2 * j] = row[j] if mask[2 * j] != 0 else zero
                    at[2 * j + 1] = row[j] if mask[2 * j + 1] != 0 else zero
            else:
                for j in range(size * cols):
                    at[j] = row[j // size] if mask[j] != 0 else zero
