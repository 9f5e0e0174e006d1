"""Batch normalisation of rows and of images (Ioffe & Szegedy 2015, algorithm 1), and its gradient.

A channel is a column of rows (n, c), or a channel of images (n, c, r, k); each is normalised over its N values, which are n
or n r k. One thread does all of a channel, in a fixed order, so that the bits do not depend on the number of threads.
"""
import math

import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.codegen.linking import op_kernel
from fastnet.kernels.compiled_calls import (
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
from fastnet.kernels.gemm.blocking import partition
from fastnet.kernels.layout import plain
from fastnet.kernels.program.ops import step, step_with_moments
from fastnet.kernels.records import context_at, hyperparameters, op_at, rows_at, vector_at
from fastnet.kernels.runtime.team import run
from fastnet.kernels.simd import VECTOR_BYTES, cast_like, lanes
from numba import types

_WORK = 2  # multiply-adds in the time of one element


def batch_norm_forward(y: np.ndarray, mean: np.ndarray, var: np.ndarray, inv: np.ndarray, x: np.ndarray, gamma: np.ndarray,
                       beta: np.ndarray, eps: float) -> None:
    """y = gamma (x - mean) inv + beta, mean and var of each channel's N values, inv = 1 / sqrt(var + eps).

    y, x: (n, c) or (n, c, r, k); the others (1, c); one dtype (float32 or float64). y, mean, var and inv C-contiguous, the
    others of any layout. Overwrites y, which may be x, mean, var and inv. The variance is the biased one, the mean of
    (x - mean)^2. A channel with NaN or infinity becomes NaN. Without samples mean and var are NaN.
    """
    run(_forward, channels(y), mean, var, inv, channels(plain(x)), plain(gamma), plain(beta), float(eps),
        work=_WORK * x.size)


def batch_norm_predict(y: np.ndarray, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray,
                       inv: np.ndarray) -> None:
    """y = gamma (x - mean) inv + beta for any mean and inv.

    Shapes and layouts as of `batch_norm_forward`. Overwrites y, which may be x.
    """
    run(_predict, channels(y), channels(plain(x)), plain(gamma), plain(beta), plain(mean), plain(inv),
        work=_WORK * x.size)


def batch_norm_backward(dx: np.ndarray, dgamma: np.ndarray, dbeta: np.ndarray, dy: np.ndarray, x: np.ndarray,
                        gamma: np.ndarray, mean: np.ndarray, inv: np.ndarray) -> None:
    """dbeta = sum of dy, dgamma = sum of dy z, dx = gamma inv (dy - (dbeta + z dgamma) / N) with z = (x - mean) inv.

    Shapes and layouts as of `batch_norm_forward`, whose mean and inv these are. Overwrites dx, which may be dy, dgamma and
    dbeta.
    """
    run(_backward, channels(dx), dgamma, dbeta, channels(plain(dy)), channels(plain(x)), plain(gamma), plain(mean),
        plain(inv), work=_WORK * x.size)


def channels(a: np.ndarray) -> np.ndarray:
    """A C-contiguous array (n, c) or (n, c, r, k) as (n, c, values of a channel) that shares its memory."""
    return a.reshape(*a.shape[:2], math.prod(a.shape[2:]))


@jit
def channel_range(c, values, part, parts, one):
    """The channels of a part: whole vectors where neighbouring elements are of different channels."""
    unit = lanes(one) if values == 1 else 1
    return partition(c, unit, part, parts), partition(c, unit, part + 1, parts)


@jit
def statistics(mean, var, inv, x, row, n, values, eps):
    """Mean, variance and inv of the channels that start at address x; samples lie `row` elements apart."""
    zero = cast_like(0, mean[:0].sum())
    size, count = VECTOR_BYTES // lanes(zero), float(n * values)
    if values == 1:
        for j in range(mean.size):
            mean[j], var[j] = zero, zero
        for i in range(n):
            a = vector_at(x + i * row * size, mean.size, zero)
            for j in range(mean.size):
                mean[j] += a[j]
        for j in range(mean.size):
            mean[j] = cast_like(mean[j] / count, zero)
        for i in range(n):
            a = vector_at(x + i * row * size, mean.size, zero)
            for j in range(mean.size):
                var[j] += (a[j] - mean[j]) * (a[j] - mean[j])
        for j in range(mean.size):
            var[j] = cast_like(var[j] / count, zero)
    else:
        for j in range(mean.size):
            total = 0.0
            for i in range(n):
                a = vector_at(x + (i * row + j * values) * size, values, zero)
                for v in range(values):
                    total += np.float64(a[v])
            middle = total / count
            total = 0.0
            for i in range(n):
                a = vector_at(x + (i * row + j * values) * size, values, zero)
                for v in range(values):
                    total += (np.float64(a[v]) - middle) * (np.float64(a[v]) - middle)
            mean[j], var[j] = cast_like(middle, zero), cast_like(total / count, zero)
    for j in range(mean.size):
        inv[j] = cast_like(1.0 / math.sqrt(np.float64(var[j]) + eps), zero)


@jit
def normalise(y, x, gamma, beta, mean, inv, values):
    """y = gamma (x - mean) inv + beta for the channels of one sample, of which x and y hold all values."""
    if values == 1:
        for j in range(mean.size):
            y[j] = (x[j] - mean[j]) * (inv[j] * gamma[j]) + beta[j]
        return
    for j in range(mean.size):
        factor = inv[j] * gamma[j]
        for v in range(j * values, (j + 1) * values):
            y[v] = (x[v] - mean[j]) * factor + beta[j]


@jit
def gradients(dx, dx_row, dgamma, dbeta, dy, dy_row, x, x_row, gamma, mean, inv, n, values):
    """`batch_norm_backward` for the channels that start at the addresses dx, dy and x."""
    zero = cast_like(0, mean[:0].sum())
    size, count = VECTOR_BYTES // lanes(zero), mean.size
    share = cast_like(1.0 / max(1, n * values), zero)
    if values == 1:
        for j in range(count):
            dgamma[j], dbeta[j] = zero, zero
        for i in range(n):
            g, a = vector_at(dy + i * dy_row * size, count, zero), vector_at(x + i * x_row * size, count, zero)
            for j in range(count):
                dbeta[j] += g[j]
                dgamma[j] += g[j] * ((a[j] - mean[j]) * inv[j])
        for i in range(n):
            g, a = vector_at(dy + i * dy_row * size, count, zero), vector_at(x + i * x_row * size, count, zero)
            to = vector_at(dx + i * dx_row * size, count, zero)
            for j in range(count):
                z = (a[j] - mean[j]) * inv[j]
                to[j] = (gamma[j] * inv[j]) * (g[j] - (dbeta[j] + z * dgamma[j]) * share)
        return
    for j in range(count):
        of_beta, of_gamma, middle, factor = 0.0, 0.0, mean[j], inv[j]
        for i in range(n):
            g = vector_at(dy + (i * dy_row + j * values) * size, values, zero)
            a = vector_at(x + (i * x_row + j * values) * size, values, zero)
            for v in range(values):
                of_beta += np.float64(g[v])
                of_gamma += np.float64(g[v]) * np.float64((a[v] - middle) * factor)
        dbeta[j], dgamma[j] = cast_like(of_beta, zero), cast_like(of_gamma, zero)
        for i in range(n):
            g = vector_at(dy + (i * dy_row + j * values) * size, values, zero)
            a = vector_at(x + (i * x_row + j * values) * size, values, zero)
            to = vector_at(dx + (i * dx_row + j * values) * size, values, zero)
            for v in range(values):
                z = (a[v] - middle) * factor
                to[v] = (gamma[j] * factor) * (g[v] - (dbeta[j] + z * dgamma[j]) * share)


@jit
def _forward(thread, threads, sync, scratch, y, mean, var, inv, x, gamma, beta, eps):
    n, c, values = x.shape
    c0, c1 = channel_range(c, values, thread, threads, cast_like(0, mean[0, :0].sum()))
    statistics(mean[0, c0:c1], var[0, c0:c1], inv[0, c0:c1], x.ctypes.data + c0 * values * x.itemsize, c * values, n, values,
               eps)
    for i in range(n):
        normalise(y[i, c0:c1].reshape(-1), x[i, c0:c1].reshape(-1), gamma[0, c0:c1], beta[0, c0:c1], mean[0, c0:c1],
                  inv[0, c0:c1], values)


@jit
def _predict(thread, threads, sync, scratch, y, x, gamma, beta, mean, inv):
    n, _, values = x.shape
    for i in range(partition(n, 1, thread, threads), partition(n, 1, thread + 1, threads)):
        normalise(y[i].reshape(-1), x[i].reshape(-1), gamma[0], beta[0], mean[0], inv[0], values)


@jit
def _backward(thread, threads, sync, scratch, dx, dgamma, dbeta, dy, x, gamma, mean, inv):
    n, c, values = x.shape
    c0, c1 = channel_range(c, values, thread, threads, cast_like(0, mean[0, :0].sum()))
    first, row = c0 * values * x.itemsize, c * values
    gradients(dx.ctypes.data + first, row, dgamma[0, c0:c1], dbeta[0, c0:c1], dy.ctypes.data + first, row,
              x.ctypes.data + first, row, gamma[0, c0:c1], mean[0, c0:c1], inv[0, c0:c1], n, values)


@jit
def _channels_here(x, c):
    """The shape of `channels`, or (0, 0, -1) where there are not c channels."""
    axes, values = dimensions_of(x), 1
    for axis in range(2, axes):
        values *= side(x, axis)
    return (side(x, 0), c, values) if axes >= 2 and side(x, 1) == c else (0, 0, -1)


@array_kernel(7, types.float64)
def _forward_here(outcome, y, mean, var, inv, x, gamma, beta, eps, one):
    shape = _channels_here(x, elements_of(mean))
    if fits(outcome, shape[2] >= 0) and opened(outcome, 4, (y, mean, var, inv, x, gamma, beta)):
        c = shape[1]
        _forward(0, 1, 0, 0, array_at(at(y), shape, one), rows_at(at(mean), 1, c, one),
                 rows_at(at(var), 1, c, one), rows_at(at(inv), 1, c, one), array_at(at(x), shape, one),
                 rows_at(at(gamma), 1, c, one), rows_at(at(beta), 1, c, one), eps)
        finish(outcome, 4, (y, mean, var, inv, x, gamma, beta))


@array_kernel(6)
def _predict_here(outcome, y, x, gamma, beta, mean, inv, one):
    shape = _channels_here(x, elements_of(mean))
    if fits(outcome, shape[2] >= 0) and opened(outcome, 1, (y, x, gamma, beta, mean, inv)):
        c = shape[1]
        _predict(0, 1, 0, 0, array_at(at(y), shape, one), array_at(at(x), shape, one),
                 rows_at(at(gamma), 1, c, one), rows_at(at(beta), 1, c, one), rows_at(at(mean), 1, c, one),
                 rows_at(at(inv), 1, c, one))
        finish(outcome, 1, (y, x, gamma, beta, mean, inv))


@array_kernel(8)
def _backward_here(outcome, dx, dgamma, dbeta, dy, x, gamma, mean, inv, one):
    shape = _channels_here(x, elements_of(mean))
    if fits(outcome, shape[2] >= 0) and opened(outcome, 3, (dx, dgamma, dbeta, dy, x, gamma, mean, inv)):
        c = shape[1]
        _backward(0, 1, 0, 0, array_at(at(dx), shape, one), rows_at(at(dgamma), 1, c, one),
                  rows_at(at(dbeta), 1, c, one), array_at(at(dy), shape, one), array_at(at(x), shape, one),
                  rows_at(at(gamma), 1, c, one), rows_at(at(mean), 1, c, one), rows_at(at(inv), 1, c, one))
        finish(outcome, 3, (dx, dgamma, dbeta, dy, x, gamma, mean, inv))


in_compiled_code(batch_norm_forward, _forward_here, "y:* mean:1c var:1c inv:1c x:* gamma:1c beta:1c eps", writes=4)
in_compiled_code(batch_norm_predict, _predict_here, "y:* x:* gamma:1c beta:1c mean:1c inv:1c")
in_compiled_code(batch_norm_backward, _backward_here, "dx:* dgamma:1c dbeta:1c dy:* x:* gamma:1c mean:1c inv:1c", writes=3)


@jit
def kept_row(at, number, c0, c1, stride, one):
    """Channels c0:c1 of one of the rows at an address, `stride` elements apart: mean, var, inv, or dgamma, dbeta."""
    return vector_at(at + (number * stride + c0) * (VECTOR_BYTES // lanes(one)), c1 - c0, one)


@op_kernel
def batch_norm_op(op, context, start, stop, one):
    """C = A, normalised over the mini-batch, times gamma (B) plus beta (`bias`); a range of the channels of a compiled step.

    `number` is eps. Mean, var and inv are left in the rows at `aux`.
    """
    o, now = op_at(op), context_at(context)
    size, values, stride = VECTOR_BYTES // lanes(one), o.channels.values, o.channels.row
    c0, c1 = channel_range(o.n, values, now.part, now.parts, one)
    at, row = (now.batch, now.batch_row) if o.from_data else (o.a.at, o.a.row)
    mean, var, inv = (kept_row(o.aux, 0, c0, c1, stride, one), kept_row(o.aux, 1, c0, c1, stride, one),
                      kept_row(o.aux, 2, c0, c1, stride, one))
    first = c0 * values * size
    statistics(mean, var, inv, at + first, row, now.n, values, o.number)
    gamma, beta, count = kept_row(o.b.at, 0, c0, c1, 0, one), kept_row(o.bias, 0, c0, c1, 0, one), (c1 - c0) * values
    for i in range(now.n):
        x, y = at + i * row * size + first, o.c.at + i * o.c.row * size + first
        normalise(vector_at(y, count, one), vector_at(x, count, one), gamma, beta, mean, inv, values)


@op_kernel
def batch_norm_grad_op(op, context, start, stop, one):
    """C = the gradient of the input A, from that of the output, C; dgamma and dbeta are left at `packed`. B is gamma.

    The others as of `batch_norm_op`.
    """
    o, now = op_at(op), context_at(context)
    size, values, stride = VECTOR_BYTES // lanes(one), o.channels.values, o.channels.row
    c0, c1 = channel_range(o.n, values, now.part, now.parts, one)
    at, row = (now.batch, now.batch_row) if o.from_data else (o.a.at, o.a.row)
    first = c0 * values * size
    dgamma, dbeta = kept_row(o.packed, 0, c0, c1, stride, one), kept_row(o.packed, 1, c0, c1, stride, one)
    gradients(o.c.at + first, o.c.row, dgamma, dbeta, o.c.at + first, o.c.row, at + first, row,
              kept_row(o.b.at, 0, c0, c1, 0, one), kept_row(o.aux, 0, c0, c1, stride, one),
              kept_row(o.aux, 2, c0, c1, stride, one), now.n, values)


@op_kernel
def batch_norm_update_op(op, context, start, stop, one):
    """A step of plain gradient descent for gamma (C) and beta (`bias`) from dgamma and dbeta (A)."""
    o, now = op_at(op), context_at(context)
    size, stride, zero = VECTOR_BYTES // lanes(one), o.channels.row, one - one
    c0, c1 = channel_range(o.n, o.channels.values, now.part, now.parts, one)
    lr = hyperparameters(now, one).lr
    step(o.c.at + c0 * size, o.a.at + c0 * size, c1 - c0, zero, lr)
    step(o.bias + c0 * size, o.a.at + (stride + c0) * size, c1 - c0, zero, lr)


@op_kernel
def batch_norm_update_with_moments_op(op, context, start, stop, one):
    """As `batch_norm_update_op`, but a step of another optimiser; `aux` is what that keeps of gamma."""
    o, now = op_at(op), context_at(context)
    size, stride, zero = VECTOR_BYTES // lanes(one), o.channels.row, one - one
    c0, c1 = channel_range(o.n, o.channels.values, now.part, now.parts, one)
    hyper, gamma, beta = hyperparameters(now, one), o.c.at + c0 * size, o.bias + c0 * size
    to_kept = o.aux - o.c.at
    step_with_moments(gamma, o.a.at + c0 * size, gamma + to_kept, c1 - c0, zero, hyper)
    step_with_moments(beta, o.a.at + (stride + c0) * size, beta + to_kept, c1 - c0, zero, hyper)


@jit
def run_on(running, found, momentum, factor):
    """running += momentum (factor found - running)."""
    for j in range(running.size):
        running[j] += momentum * (factor * found[j] - running[j])


@op_kernel
def batch_norm_running_op(op, context, start, stop, one):
    """The running mean (C) and variance (`bias`) come nearer to those of the mini-batch (A); `number` is the momentum.

    With the unbiased variance, N / (N - 1) times the biased one. A mini-batch of one value per channel changes nothing.
    """
    o, now = op_at(op), context_at(context)
    c0, c1 = channel_range(o.n, o.channels.values, now.part, now.parts, one)
    count = now.n * o.channels.values
    if count > 1:
        momentum, stride = cast_like(o.number, one), o.channels.row
        run_on(kept_row(o.c.at, 0, c0, c1, 0, one), kept_row(o.a.at, 0, c0, c1, stride, one), momentum, one)
        run_on(kept_row(o.bias, 0, c0, c1, 0, one), kept_row(o.a.at, 1, c0, c1, stride, one), momentum,
               cast_like(count / (count - 1), one))


@op_kernel
def batch_norm_predict_op(op, context, start, stop, one):
    """C = A, normalised by the running mean (`aux`) and variance (`packed`), for samples start:stop.

    Gamma, beta and eps as of `batch_norm_op`.
    """
    o, now = op_at(op), context_at(context)
    values, eps = o.channels.values, cast_like(o.number, one)
    mean, var = kept_row(o.aux, 0, 0, o.n, 0, one), kept_row(o.packed, 0, 0, o.n, 0, one)
    gamma, beta = kept_row(o.b.at, 0, 0, o.n, 0, one), kept_row(o.bias, 0, 0, o.n, 0, one)
    for i in range(start, stop):
        x, y = _input_of_all(o, now, i, values, one), vector_at(
            o.c.at + i * o.c.row * (VECTOR_BYTES // lanes(one)), o.n * values, one)
        for j in range(o.n):
            factor = cast_like(one / math.sqrt(var[j] + eps), one) * gamma[j]
            for v in range(j * values, (j + 1) * values):
                y[v] = (x[v] - mean[j]) * factor + beta[j]


@jit
def _input_of_all(o, now, i, values, one):
    """All values of sample i of matrix a."""
    size = VECTOR_BYTES // lanes(one)
    at = now.batch + i * now.batch_row * size if o.from_data else o.a.at + i * o.a.row * size
    return vector_at(at, o.n * values, one)
