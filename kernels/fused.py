"""Training, compiled: all mini-batches of an epoch in one call, every product through the packed kernels.

A step has three phases, with a barrier after the first and the second; `l` counts the fully connected layers from 0,
H_l is the output of layer l (after ReLU), A_l what stands before the ReLU:

======= =========================================================================== ==============================
phase   what                                                                        a thread's share
======= =========================================================================== ==============================
first   H_0 = relu(X_B W_0.T + b_0)                                          (3.7)  columns: hidden units
rows    H_l for l > 0, softmax, loss, dA_last = (p - t) / n            (3.14-3.19)  rows: samples of the batch
        dA_l = (dA_{l+1} W_{l+1}) where H_l > 0                              (3.9)
update  W_l -= lr dA_l.T H_{l-1}, b_l -= lr (column sums of dA_l)  (3.9-3.11)       columns of W_l
======= =========================================================================== ==============================

A thread's columns of H_0 are its columns of W_0 and W_1, so that no barrier is needed between `update` and the next
`first`. The weights are kept transposed and in vector columns (see kernels/gemm.py) during the whole fit: `first` reads
them as they are, `update` writes straight into them. The gradient of the input is never computed.

The first layer can also be trained in Gram space, where its weights are never formed: see kernels/gram.py.
"""
import math
from typing import NamedTuple

import numpy as np
from fastnet.kernels._jit import jit
from fastnet.kernels.fused_gram import gram_first, gram_scales, gram_update
from fastnet.kernels.gemm import macro_kernel, pack_columns, pack_copy, partition, tile_loop
from fastnet.kernels.simd import VECTOR_BYTES, cast_like, keep_positive, lanes
from fastnet.kernels.softmax import softmax_rows
from fastnet.kernels.structs import Mat
from fastnet.kernels.threads import barrier

# One row of `Net.table` a layer: sizes, then where things start, in elements, in `params` and in `work`
N_IN, N_OUT, LD, W, B, BACK, H, DA, COLUMNS = range(9)


class Net(NamedTuple):
    """A network as the kernels see it: everything in a few flat arrays of one dtype."""

    table: np.ndarray  # int64 (layers, COLUMNS): sizes and places of every fully connected layer
    params: np.ndarray  # weights, transposed and in vector columns, and biases
    velocity: np.ndarray  # of the same places as params; empty without momentum
    work: np.ndarray  # buffers for one batch; work[0] is 1
    row_losses: np.ndarray  # float64 (batch_size,)


class Data(NamedTuple):
    """What is trained on."""

    source: int  # address of X (n, n_i), or of the Gram matrix G (n, n); rows contiguous, never written
    source_row: int  # its row stride, in elements
    targets: np.ndarray  # (n, n_classes)
    order: np.ndarray  # int64 (n,): rows in the order of training
    shuffled: bool  # the order is anything else than 0, 1, 2, ...
    rows_at: int  # place in `work` for one batch's rows of the source; used if shuffled
    rows_row: int  # their row stride, in elements


class Rates(NamedTuple):
    """Numbers of gradient descent, of the dtype of the network."""

    lr: np.floating
    momentum: np.floating
    decay: np.floating


class Gram(NamedTuple):
    """The first layer in Gram space, see kernels/gram.py; not `used`, it is trained as the others are."""

    used: bool
    a0: np.ndarray  # (n, n_o): X W_0.T
    av: np.ndarray  # (n, n_o): X V_0.T; empty if the velocity starts from 0
    d: np.ndarray  # (vectors, n, LANES)
    e: np.ndarray  # as d; empty without momentum
    scales: np.ndarray  # float64 (5,)
    visited: int  # rows of D, from the top, that may not be 0 before this call


@jit
def train(thread, threads, sync, scratch, net, data, gram, rates, batch_size, start, stop, losses):
    """Train on rows start:stop of the order, batch after batch, and write each batch's loss (float64)."""
    table, lr = net.table, rates.lr
    width = lanes(lr)
    size = VECTOR_BYTES // width
    work_at = net.work.ctypes.data
    scales = gram.scales[0], gram.scales[1], gram.scales[2], gram.scales[3], gram.scales[4]
    for first in range(start, stop, batch_size):
        n = min(batch_size, stop - first)
        batch_at, batch_row = data.source + first * data.source_row * size, data.source_row
        if data.shuffled:
            batch_at, batch_row = work_at + data.rows_at * size, data.rows_row
            source_width = gram.a0.shape[0] if gram.used else table[0, N_IN]
            for i in range(partition(n, 1, thread, threads), partition(n, 1, thread + 1, threads)):
                pack_copy(batch_at + i * batch_row * size, 0,
                          Mat(data.source + data.order[first + i] * data.source_row * size, 0, 1, 0), 1, source_width, lr)
            barrier(sync, threads)
        if gram.used:
            known = len(gram.a0) if data.shuffled else max(gram.visited, first)
            gram_first(thread, threads, scratch, net, data, gram, batch_at, batch_row, first, n, known, scales)
        else:
            _first(thread, threads, scratch, net, batch_at, batch_row, n, lr)
        barrier(sync, threads)
        _rows(thread, threads, scratch, net, data, first, n, lr)
        barrier(sync, threads)
        if thread == 0:
            total = 0.0
            for i in range(n):
                total += net.row_losses[i]
            losses[(first - start) // batch_size] = total / n
        for layer in range(1, len(table)):
            _update(thread, threads, scratch, net, layer,
                    work_at + table[layer - 1, H] * size, table[layer - 1, LD], n, rates)
        if gram.used:
            scales = gram_update(thread, threads, net, data, gram, first, n, gram_scales(scales, rates), rates)
        else:
            _update(thread, threads, scratch, net, 0, batch_at, batch_row, n, rates)
        _update_bias(thread, threads, net, n, rates)
        if data.shuffled:
            barrier(sync, threads)  # the rows of this batch are still read by others
    barrier(sync, threads)
    if thread == 0:
        gram.scales[:] = scales


@jit
def _first(thread, threads, scratch, net, x, x_row, n, lr):
    """H_0 = relu(X_B W_0.T + b_0), this thread's columns."""
    table, params, work = net.table, net.params, net.work
    width = lanes(lr)
    size = VECTOR_BYTES // width
    n_in, n_out, ld = table[0, N_IN], table[0, N_OUT], table[0, LD]
    j0, j1 = partition(n_out, width, thread, threads), partition(n_out, width, thread + 1, threads)
    macro_kernel(scratch, Mat(work.ctypes.data + (table[0, H] + j0) * size, ld, 1, width), Mat(x, x_row, 1, 0),
         Mat(params.ctypes.data + (table[0, W] + j0 * n_in) * size, 0, 0, n_in * width), n, j1 - j0, n_in,
         cast_like(1, lr), cast_like(0, lr), params.ctypes.data + (table[0, B] + j0) * size, int(len(table) > 1))


@jit
def _rows(thread, threads, scratch, net, data, first, n, lr):
    """Forward from layer 1 to the loss and back to dA_0, for this thread's rows of the batch."""
    table, params, work = net.table, net.params, net.work
    width = lanes(lr)
    size = VECTOR_BYTES // width
    one, zero = cast_like(1, lr), cast_like(0, lr)
    params_at, work_at = params.ctypes.data, work.ctypes.data
    i0, i1 = partition(n, 1, thread, threads), partition(n, 1, thread + 1, threads)
    rows, top = i1 - i0, len(table) - 1
    if rows == 0:
        return
    for layer in range(1, top + 1):
        n_in, before, ld = table[layer, N_IN], table[layer - 1, LD], table[layer, LD]
        macro_kernel(scratch, Mat(work_at + (table[layer, H] + i0 * ld) * size, ld, 1, width),
             Mat(work_at + (table[layer - 1, H] + i0 * before) * size, before, 1, 0),
             Mat(params_at + table[layer, W] * size, 0, 0, n_in * width), rows, table[layer, N_OUT], n_in,
             one, zero, params_at + table[layer, B] * size, int(layer < top))

    classes = table[top, N_OUT]
    p = work[table[top, H]:table[top, H] + n * classes].reshape(n, classes)[i0:i1]
    dz = work[table[top, DA]:table[top, DA] + n * classes].reshape(n, classes)[i0:i1]
    softmax_rows(p, p)
    scale = cast_like(1 / n, lr)
    for i in range(rows):
        t = data.targets[data.order[first + i0 + i]]
        loss, total, lost = 0.0, zero, False
        for j in range(classes):
            total += t[j]
            if t[j] != 0:
                loss -= t[j] * math.log(p[i, j])
                lost |= math.isinf(t[j] / p[i, j])
        if lost:
            _gradient_of_lost(dz[i], p[i], t, cast_like(n, lr))
        else:
            for j in range(classes):
                dz[i, j] = (p[i, j] * total - t[j]) * scale  # (3.19) through (3.17), where p cancels
        net.row_losses[i0 + i] = loss

    for layer in range(top, 0, -1):
        n_in, n_out, below, ld = table[layer, N_IN], table[layer, N_OUT], table[layer - 1, LD], table[layer, LD]
        macro_kernel(scratch, Mat(work_at + (table[layer - 1, DA] + i0 * below) * size, below, 1, width),
             Mat(work_at + (table[layer, DA] + i0 * ld) * size, ld, 1, 0),
             Mat(work_at + table[layer, BACK] * size, 0, 0, n_out * width), rows, n_in, n_out, one, zero, 0, 0)
        h_at, dh_at = table[layer - 1, H] + i0 * below, table[layer - 1, DA] + i0 * below
        for i in range(0, rows * below, width):  # not a loop over elements: half of its branches would be guessed wrong
            keep_positive(work_at + (dh_at + i) * size, work_at + (h_at + i) * size, zero)


@jit
def _gradient_of_lost(dz, p, t, n):
    """dz of a sample whose true class has no probability, or so little that t / p overflows: NaN, as the layers find it.

    The layers' way, dp = -t / p / n (3.19) and dz = p (dp - sum(dp p)) (3.17), where p does not cancel.
    """
    zero = p[0] - p[0]
    dot = zero
    for j in range(p.size):
        if t[j] != 0:
            dot += -t[j] / p[j] / n * p[j]
    for j in range(p.size):
        dz[j] = p[j] * ((-t[j] / p[j] / n if t[j] != 0 else zero) - dot)


@jit
def _update(thread, threads, scratch, net, layer, h, h_row, n, rates):
    """W -= lr (dA.T H + decay W), with momentum V = momentum V + dA.T H + decay W, W -= lr V; a share of the layer.

    The first layer is shared out by its outputs, as in `_first`; the others by their inputs, and `BACK`, the packed
    copy of W that the way back reads, is made anew from the same share.
    """
    table, params, velocity, work = net.table, net.params, net.velocity, net.work
    lr, momentum, decay = rates
    width = lanes(lr)
    size = VECTOR_BYTES // width
    one = cast_like(1, lr)
    n_in, n_out, ld = table[layer, N_IN], table[layer, N_OUT], table[layer, LD]
    i0, i1, j0, j1 = 0, n_in, 0, n_out
    if layer == 0:
        j0, j1 = partition(n_out, width, thread, threads), partition(n_out, width, thread + 1, threads)
    else:
        i0, i1 = partition(n_in, width, thread, threads), partition(n_in, width, thread + 1, threads)
    at = table[layer, W] + j0 * n_in + i0 * width
    weights = params.ctypes.data + at * size
    dz = work.ctypes.data + (table[layer, DA] + j0) * size
    if momentum == 0:
        macro_kernel(scratch, Mat(weights, width, 1, n_in * width), Mat(h + i0 * size, 1, h_row, 0),
             Mat(dz, ld, 1, 0), i1 - i0, j1 - j0, n,
             -lr, one - lr * decay, 0, 0)
    else:
        macro_kernel(scratch, Mat(velocity.ctypes.data + at * size, width, 1, n_in * width), Mat(h + i0 * size, 1, h_row, 0),
             Mat(dz, ld, 1, 0),
             i1 - i0, j1 - j0, n, one, momentum, 0, 0)
        for v in range((j1 - j0 + width - 1) // width):
            begin = at + v * n_in * width
            w, dw = params[begin:begin + (i1 - i0) * width], velocity[begin:begin + (i1 - i0) * width]
            for i in range(w.size):
                dw[i] += decay * w[i]
                w[i] -= lr * dw[i]
    if layer > 0:
        pack_back(thread, threads, net, layer, lr)


@jit
def pack_back(thread, threads, net, layer, alpha):
    """Pack W (n_out, n_in) in vector columns, from its transpose in vector columns; a share of the inputs."""
    table, params, work = net.table, net.params, net.work
    width = lanes(alpha)
    size = VECTOR_BYTES // width
    n_in, n_out = table[layer, N_IN], table[layer, N_OUT]
    i0, i1 = partition(n_in, width, thread, threads), partition(n_in, width, thread + 1, threads)
    for j in range(0, n_out, width):
        pack_columns(work.ctypes.data + (table[layer, BACK] + i0 * n_out + j * width) * size, n_out * width,
                     Mat(params.ctypes.data + (table[layer, W] + j * n_in + i0 * width) * size, 1, width, 0),
                     min(width, n_out - j), i1 - i0, alpha)


@jit
def _update_bias(thread, threads, net, n, rates):
    """b -= lr (column sums of dA), with momentum as for the weights; a share of the units."""
    table, params, velocity, work = net.table, net.params, net.velocity, net.work
    lr, momentum, _ = rates
    width = lanes(lr)
    size = VECTOR_BYTES // width
    one = cast_like(1, lr)
    for layer in range(len(table)):
        n_out, ld, at = table[layer, N_OUT], table[layer, LD], table[layer, B]
        j0, j1 = partition(n_out, width, thread, threads), partition(n_out, width, thread + 1, threads)
        dz = work.ctypes.data + (table[layer, DA] + j0) * size
        ones = np.int64(work.ctypes.data)  # work[0] is 1, and strides of 0 make a row of it: column sums as a product
        if momentum == 0:
            tile_loop(Mat(params.ctypes.data + (at + j0) * size, 0, 1, width), Mat(ones, 0, 0, 0),
                      Mat(dz, ld, 1, width), 1, j1 - j0, n,
                  -lr, one, 0, 0)
        else:
            tile_loop(Mat(velocity.ctypes.data + (at + j0) * size, 0, 1, width), Mat(ones, 0, 0, 0),
                      Mat(dz, ld, 1, width), 1, j1 - j0, n,
                  one, momentum, 0, 0)
            for j in range(at + j0, at + j1):
                params[j] -= lr * velocity[j]
