"""Average pooling over windows that do not overlap, and its gradient."""
import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.codegen.linking import INT, op_kernel
from fastnet.kernels.compiled_calls import array_at, array_kernel, at, finish, fits, in_compiled_code, opened, side
from fastnet.kernels.conv.ops import clear, frame_size, image_at
from fastnet.kernels.gemm.blocking import partition
from fastnet.kernels.layout import plain
from fastnet.kernels.records import context_at, op_at, vector_at
from fastnet.kernels.runtime.team import run
from fastnet.kernels.simd import VECTOR_BYTES, cast_like, lanes, load

_WORK = 4  # multiply-adds in the time of one element


def average_pool_forward(y: np.ndarray, x: np.ndarray, size: int) -> None:
    """y[n, c, i, j] = mean over p, q < size of x[n, c, size i + p, size j + q].

    y (n, c, r // size, k // size), x (n, c, r, k): one dtype (float32 or float64); y C-contiguous, x of any layout.
    Overwrites y. Rows and columns behind the last whole window are ignored. A window with NaN gives NaN.
    """
    n, c, r, k = x.shape
    run(_forward, y.reshape(n * c, r // size, k // size), plain(x).reshape(n * c, r, k), size,
        work=_WORK * x.size)


def average_pool_backward(dx: np.ndarray, dy: np.ndarray, size: int) -> None:
    """dx = dy / size^2 of the window, and 0 behind the last whole window.

    dx (n, c, r, k), dy (n, c, r // size, k // size): one dtype (float32 or float64); dx C-contiguous, dy of any layout.
    Overwrites dx.
    """
    n, c, r, k = dx.shape
    run(_backward, dx.reshape(n * c, r, k), plain(dy).reshape(n * c, r // size, k // size), size,
        work=_WORK * dx.size)


@jit
def _forward(thread, threads, sync, scratch, y, x, size):
    images, rows, columns = y.shape
    scale, zero, first = 1.0 / (size * size), y.dtype.type(0), x.ctypes.data
    for image in range(partition(images, 1, thread, threads), partition(images, 1, thread + 1, threads)):
        for i in range(rows):
            at = first + (image * x.shape[1] + i * size) * x.shape[2] * x.itemsize
            for j in range(columns):
                total = 0.0
                for p in range(size):
                    for q in range(size):
                        total += np.float64(load(at + (p * x.shape[2] + j * size + q) * x.itemsize, zero))
                y[image, i, j] = total * scale


@jit
def _backward(thread, threads, sync, scratch, dx, dy, size):
    images, rows, columns = dy.shape
    scale, zero = 1.0 / (size * size), dx.dtype.type(0)
    for image in range(partition(images, 1, thread, threads), partition(images, 1, thread + 1, threads)):
        dx[image, rows * size:] = zero
        for i in range(rows * size):
            to, row = dx[image, i], dy[image, i // size]
            to[columns * size:] = zero
            if size == 2:
                for j in range(columns):
                    to[2 * j] = row[j] * scale
                    to[2 * j + 1] = row[j] * scale
            else:
                for j in range(columns):
                    for q in range(size):
                        to[j * size + q] = row[j] * scale


@array_kernel(2, INT)
def _forward_here(outcome, y, x, size, one):
    images, r, k, rows, columns = side(x, 0) * side(x, 1), side(x, 2), side(x, 3), side(y, 2), side(y, 3)
    if fits(outcome, rows == r // size and columns == k // size) and opened(outcome, 1, (y, x)):
        _forward(0, 1, 0, 0, array_at(at(y), (images, rows, columns), one), array_at(at(x), (images, r, k), one),
                 size)
        finish(outcome, 1, (y, x))


@array_kernel(2, INT)
def _backward_here(outcome, dx, dy, size, one):
    images, r, k, rows, columns = side(dx, 0) * side(dx, 1), side(dx, 2), side(dx, 3), side(dy, 2), side(dy, 3)
    if fits(outcome, rows == r // size and columns == k // size) and opened(outcome, 1, (dx, dy)):
        _backward(0, 1, 0, 0, array_at(at(dx), (images, r, k), one),
                  array_at(at(dy), (images, rows, columns), one), size)
        finish(outcome, 1, (dx, dy))


in_compiled_code(average_pool_forward, _forward_here, "y:ncRK x:ncrk size")
in_compiled_code(average_pool_backward, _backward_here, "dx:ncrk dy:ncRK size")


@op_kernel
def average_pool_op(op, context, start, stop, one):
    """C = the means of windows of images A, channels innermost."""
    o, now = op_at(op), context_at(context)
    size = VECTOR_BYTES // lanes(one)
    r, k, pool, c, of_x, of_y = o.image.r, o.image.k, o.window.high, o.n, o.image.x_around, o.image.y_around
    scale = cast_like(1.0 / (pool * pool), one)
    for number in range(stop - start):
        x = image_at(o.a, now.thread, start, number, one) + of_x * (o.a.col + c) * size
        y = image_at(o.c, now.thread, start, number, one) + of_y * (o.c.col + c) * size
        for i in range(r // pool):
            for j in range(k // pool):
                mean = vector_at(y + (i * o.c.col + j * c) * size, c, one)
                for channel in range(c):
                    mean[channel] = one - one
                for p in range(pool):
                    for q in range(pool):
                        pixel = vector_at(x + ((i * pool + p) * o.a.col + (j * pool + q) * c) * size, c, one)
                        for channel in range(c):
                            mean[channel] += pixel[channel]
                for channel in range(c):
                    mean[channel] *= scale


@op_kernel
def average_pool_back_op(op, context, start, stop, one):
    """C = the gradient of the input of `average_pool_op`, from B, that of its output."""
    o, now = op_at(op), context_at(context)
    size = VECTOR_BYTES // lanes(one)
    r, k, pool, c, of_x, of_y = o.image.r, o.image.k, o.window.high, o.n, o.image.x_around, o.image.y_around
    scale = cast_like(1.0 / (pool * pool), one)
    for number in range(stop - start):
        frame = image_at(o.c, now.thread, start, number, one)
        clear(frame, frame_size(r, k, of_x, c), one - one)
        dx = frame + of_x * (o.c.col + c) * size
        dy = image_at(o.b, now.thread, start, number, one) + of_y * (o.b.col + c) * size
        for i in range(r // pool * pool):
            for j in range(k // pool * pool):
                to = vector_at(dx + (i * o.c.col + j * c) * size, c, one)
                of_window = vector_at(dy + (i // pool * o.b.col + j // pool * c) * size, c, one)
                for channel in range(c):
                    to[channel] = of_window[channel] * scale
