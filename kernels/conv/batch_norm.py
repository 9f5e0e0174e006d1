"""Batch normalisation of images as they lie in compiled networks, channels innermost (Ioffe & Szegedy 2015, algorithm 1).

Each block of samples adds to sums of its group of blocks while its images are in the cache; the groups are then merged in
order. So the bits do not depend on the number of threads. Mean and sum of squared deviations are merged by

    mean = mean_a + d n_b / n,   M = M_a + M_b + d^2 n_a n_b / n    with d = mean_b - mean_a, n = n_a + n_b

(Chan, Golub & LeVeque 1979), which has no difference of large numbers.

Neighbouring elements of an image are of different channels. A *tile* is a few pixels of a row, and each number of a channel
is repeated in an array like it. So all loops run over neighbours, for any number of channels.

``OP.n`` is the number of channels.
"""
import math

import numpy as np
from fastnet.kernels.codegen.jit import jit, jit_exact
from fastnet.kernels.codegen.linking import op_kernel
from fastnet.kernels.conv.ops import image_at, mask_frame
from fastnet.kernels.gemm.blocking import partition
from fastnet.kernels.records import context_at, op_at, vector_at
from fastnet.kernels.simd import VECTOR_BYTES, cast_like, lanes, load

MOST_CHANNELS = 4096  # whose tiles and sums fit a thread's scratch memory
_TILE = 512  # elements
_ADDED = 64  # numbers that are added up in the images' type; their sums are added in float64


@jit
def _tile_size(k, c):
    """Elements of a tile: whole pixels of one row."""
    return c * max(1, min(k, _TILE // c))


@jit
def _strip(row, tile):
    """Rows of `row` elements that are added up in the images' type."""
    return max(1, _ADDED // ((row + tile - 1) // tile))


@jit
def _tile(now, number, size, one):
    """One of the tiles in a thread's scratch memory."""
    return vector_at(now.scratch + number * size * (VECTOR_BYTES // lanes(one)), size, one)


@jit
def _sums(now, number, tile, c, one):
    """One of the rows of float64 behind four tiles."""
    behind = (4 * tile * (VECTOR_BYTES // lanes(one)) + 7) // 8 * 8
    return vector_at(now.scratch + behind + 8 * number * c, c, 1.0)


@jit
def _repeat(tile, values):
    """The channels' values for every pixel of a tile."""
    for first in range(0, tile.size, values.size):
        for j in range(values.size):
            tile[first + j] = values[j]


@jit
def _fold(sums, tile):
    """sums = the sum of a tile's pixels."""
    for j in range(sums.size):
        sums[j] = np.float64(tile[j])
    for first in range(sums.size, tile.size, sums.size):
        for j in range(sums.size):
            sums[j] += np.float64(tile[first + j])


@jit
def _merge(mean, deviation, seen, other_mean, other_deviation, count):
    """Add the mean and the sum of squared deviations of `count` values to those of the `seen` ones before."""
    share = count / (seen + count)
    weight = seen * share
    for j in range(mean.size):
        d = other_mean[j] - mean[j]
        mean[j] += d * share
        deviation[j] += other_deviation[j] + d * d * weight


@jit
def _of_group(o, now, number, c):
    """One of the two rows of a group's sums at `aux`; of its first block they are 0."""
    row = vector_at(o.aux + (now.block // o.group * 2 + number) * 8 * c, c, 1.0)
    if now.block % o.group == 0:
        for j in range(c):
            row[j] = 0.0
    return row


@jit
def _groups(o, now):
    """How many groups of blocks there are, and the samples of a whole one."""
    samples = o.image.block * o.group
    return (now.n + samples - 1) // samples, samples


@jit
def _channels(o, now, one):
    """The channels of a part."""
    return partition(o.n, lanes(one), now.part, now.parts), partition(o.n, lanes(one), now.part + 1, now.parts)


@jit
def _row(at, number, stride, count, one):
    """One of the rows of statistics at an address."""
    return vector_at(at + number * stride * (VECTOR_BYTES // lanes(one)), count, one)


@op_kernel
def image_sums_op(op, context, start, stop, one):
    """The mean and the sum of squared deviations of each channel of the images A, of a group, at `aux`.

    The deviations are added up from the group's mean so far, and what that is off is merged with them.
    """
    o, now = op_at(op), context_at(context)
    size, c, r, k = VECTOR_BYTES // lanes(one), o.n, o.image.r, o.image.k
    row, tile = k * c, _tile_size(k, c)
    strip = _strip(row, tile)
    middle, first, second = _tile(now, 0, tile, one), _tile(now, 1, tile, one), _tile(now, 2, tile, one)
    sums, squares = _sums(now, 0, tile, c, one), _sums(now, 1, tile, c, one)
    mean, deviation = _of_group(o, now, 0, c), _of_group(o, now, 1, c)
    seen = now.block % o.group * o.image.block * r * k
    for number in range(stop - start):
        image = image_at(o.a, now.thread, start, number, one) + o.image.x_around * (o.a.col + c) * size
        for i0 in range(0, r, strip):
            high = min(strip, r - i0)
            count = high * k
            share = 1.0 / count
            for e in range(tile):
                middle[e], first[e], second[e] = one - one, one - one, one - one
            if seen == 0:
                _add_deviations(first, second, middle, image + i0 * o.a.col * size, o.a.col, high, row, one)
                _fold(mean, first)
                for j in range(c):
                    mean[j] *= share
                for e in range(tile):
                    first[e], second[e] = one - one, one - one
            for e in range(0, tile, c):
                for j in range(c):
                    middle[e + j] = cast_like(mean[j], one)
            _add_deviations(first, second, middle, image + i0 * o.a.col * size, o.a.col, high, row, one)
            _fold(sums, first)
            _fold(squares, second)
            for j in range(c):
                rest = sums[j] * share
                squares[j] -= rest * sums[j]
                sums[j] = np.float64(middle[j]) + rest
            _merge(mean, deviation, seen, sums, squares, count)
            seen += count


@jit
def _add_deviations(first, second, middle, x, x_row, high, row, one):
    """Add x - middle and its square to two tiles, for `high` rows of `row` elements, x_row apart, at address x."""
    tile, size = middle.size, VECTOR_BYTES // lanes(one)
    for i in range(high):
        for e in range(0, row, tile):
            length = min(tile, row - e)
            values = vector_at(x + (i * x_row + e) * size, length, one)
            for j in range(length):
                d = values[j] - middle[j]
                first[j] += d
                second[j] += d * d


@op_kernel
def image_statistics_op(op, context, start, stop, one):
    """Mean, variance and 1 / sqrt(var + eps) of the mini-batch (C), of a range of channels, from the groups' sums at `aux`.

    The sums of the first group become those of the mini-batch.
    """
    o, now = op_at(op), context_at(context)
    c, values = o.n, o.image.r * o.image.k
    groups, samples = _groups(o, now)
    c0, c1 = _channels(o, now, one)
    mean, var, inv = (_row(o.c.at, 0, o.channels.row, c, one), _row(o.c.at, 1, o.channels.row, c, one),
                      _row(o.c.at, 2, o.channels.row, c, one))
    middle, deviation = vector_at(o.aux + 8 * c0, c1 - c0, 1.0), vector_at(o.aux + 8 * (c + c0), c1 - c0, 1.0)
    for group in range(1, groups):
        at, before = o.aux + (group * 2 * c + c0) * 8, group * samples
        _merge(middle, deviation, before * values, vector_at(at, c1 - c0, 1.0), vector_at(at + 8 * c, c1 - c0, 1.0),
               (min(now.n, before + samples) - before) * values)
    for j in range(c0, c1):
        mean[j], var[j] = cast_like(middle[j - c0], one), cast_like(deviation[j - c0] / (now.n * values), one)
        inv[j] = cast_like(1.0 / math.sqrt(np.float64(var[j]) + o.number), one)


@jit
def _normalise(o, now, start, stop, tile, one):
    """C = (A - mean) factor + beta, perhaps after ReLU; the three are the first tiles in the scratch memory."""
    size, c, r, row, zero = VECTOR_BYTES // lanes(one), o.n, o.image.r, o.image.k * o.n, one - one
    mean, factor, beta = _tile(now, 0, tile, one), _tile(now, 1, tile, one), _tile(now, 2, tile, one)
    for number in range(stop - start):
        from_x = image_at(o.a, now.thread, start, number, one) + o.image.x_around * (o.a.col + c) * size
        to_y = image_at(o.c, now.thread, start, number, one) + o.image.y_around * (o.c.col + c) * size
        for i in range(r):
            for e in range(0, row, tile):
                length = min(tile, row - e)
                x = vector_at(from_x + (i * o.a.col + e) * size, length, one)
                y = vector_at(to_y + (i * o.c.col + e) * size, length, one)
                if o.relu:
                    for j in range(length):
                        y[j] = max((x[j] - mean[j]) * factor[j] + beta[j], zero)  # in this order: NaN stays
                else:
                    for j in range(length):
                        y[j] = (x[j] - mean[j]) * factor[j] + beta[j]


@op_kernel
def image_normalise_op(op, context, start, stop, one):
    """C = the images A, normalised by the statistics at `aux`, times gamma (B) plus beta (`bias`), perhaps after ReLU."""
    o, now = op_at(op), context_at(context)
    c, stride, tile = o.n, o.channels.row, _tile_size(o.image.k, o.n)
    inv, gamma, factor = _row(o.aux, 2, stride, c, one), _row(o.b.at, 0, 0, c, one), _tile(now, 3, tile, one)
    for j in range(c):
        factor[j] = inv[j] * gamma[j]
    _repeat(_tile(now, 0, tile, one), _row(o.aux, 0, stride, c, one))
    _repeat(_tile(now, 1, tile, one), factor[:c])
    _repeat(_tile(now, 2, tile, one), _row(o.bias, 0, 0, c, one))
    _normalise(o, now, start, stop, tile, one)


@op_kernel
def image_predict_op(op, context, start, stop, one):
    """As `image_normalise_op`, by the running mean (`aux`) and variance (`packed`); `number` is eps."""
    o, now = op_at(op), context_at(context)
    c, tile, eps = o.n, _tile_size(o.image.k, o.n), cast_like(o.number, one)
    var, gamma, factor = _row(o.packed, 0, 0, c, one), _row(o.b.at, 0, 0, c, one), _tile(now, 3, tile, one)
    for j in range(c):
        factor[j] = cast_like(one / math.sqrt(var[j] + eps), one) * gamma[j]
    _repeat(_tile(now, 0, tile, one), _row(o.aux, 0, 0, c, one))
    _repeat(_tile(now, 1, tile, one), factor[:c])
    _repeat(_tile(now, 2, tile, one), _row(o.bias, 0, 0, c, one))
    _normalise(o, now, start, stop, tile, one)


@op_kernel
def image_gradient_sums_op(op, context, start, stop, one):
    """The sums of dy (C) and of dy (x - mean) of each channel, of a group, at `aux`; A is x, the statistics are at `bias`.

    With `relu`, dy first becomes 0 where the output (B) is not above 0.
    """
    o, now = op_at(op), context_at(context)
    size, c, r, k, zero = VECTOR_BYTES // lanes(one), o.n, o.image.r, o.image.k, one - one
    row, tile = k * c, _tile_size(k, c)
    strip = _strip(row, tile)
    mean, first, second = _tile(now, 0, tile, one), _tile(now, 1, tile, one), _tile(now, 2, tile, one)
    sums = _sums(now, 0, tile, c, one)
    of_beta, of_gamma = _of_group(o, now, 0, c), _of_group(o, now, 1, c)
    _repeat(mean, _row(o.bias, 0, 0, c, one))
    for number in range(stop - start):
        to_middle = o.image.y_around * (o.c.col + c) * size
        from_dy = image_at(o.c, now.thread, start, number, one) + to_middle
        from_y = image_at(o.b, now.thread, start, number, one) + to_middle
        from_x = image_at(o.a, now.thread, start, number, one) + o.image.x_around * (o.a.col + c) * size
        for i0 in range(0, r, strip):
            for e in range(tile):
                first[e], second[e] = zero, zero
            for i in range(i0, min(r, i0 + strip)):
                if o.relu:  # whole vectors, and so perhaps of the next row, too
                    mask_frame(from_dy + i * o.c.col * size, from_y + i * o.c.col * size, row, zero)
                for e in range(0, row, tile):
                    length = min(tile, row - e)
                    dy = vector_at(from_dy + (i * o.c.col + e) * size, length, one)
                    x = vector_at(from_x + (i * o.a.col + e) * size, length, one)
                    for j in range(length):
                        first[j] += dy[j]
                        second[j] += dy[j] * (x[j] - mean[j])
            _fold(sums, first)
            for j in range(c):
                of_beta[j] += sums[j]
            _fold(sums, second)
            for j in range(c):
                of_gamma[j] += sums[j]


@jit_exact
def _in_order(at, step, count):
    """The sum of `count` float64, `step` bytes apart, one after the other."""
    total = 0.0
    for i in range(count):
        total += load(at + i * step, 1.0)
    return total


@op_kernel
def image_gradients_op(op, context, start, stop, one):
    """dgamma and dbeta (C), rows of a range of channels, from the groups' sums at `aux` and the statistics at `bias`."""
    o, now = op_at(op), context_at(context)
    c, (c0, c1) = o.n, _channels(o, now, one)
    groups, _ = _groups(o, now)
    dgamma, dbeta = _row(o.c.at, 0, o.channels.row, c, one), _row(o.c.at, 1, o.channels.row, c, one)
    inv = _row(o.bias, 2, o.channels.row, c, one)
    for j in range(c0, c1):
        of_beta, of_gamma = _in_order(o.aux + 8 * j, 16 * c, groups), _in_order(o.aux + 8 * (c + j), 16 * c, groups)
        dgamma[j], dbeta[j] = cast_like(of_gamma * np.float64(inv[j]), one), cast_like(of_beta, one)


@op_kernel
def image_back_op(op, context, start, stop, one):
    """C = gamma inv (dy - (dbeta + z dgamma) / N) with z = (x - mean) inv: the gradient of the images A.

    B is dy, `bias` is gamma. The statistics are at `aux`, dgamma and dbeta at `packed`.
    """
    o, now = op_at(op), context_at(context)
    size, c, r, k, stride = VECTOR_BYTES // lanes(one), o.n, o.image.r, o.image.k, o.channels.row
    row, tile, share = k * c, _tile_size(k, c), 1.0 / (now.n * r * k)
    mean, of_dy, of_z, factor = (_tile(now, 0, tile, one), _tile(now, 1, tile, one), _tile(now, 2, tile, one),
                                 _tile(now, 3, tile, one))
    inv, gamma = _row(o.aux, 2, stride, c, one), _row(o.bias, 0, 0, c, one)
    dgamma, dbeta = _row(o.packed, 0, stride, c, one), _row(o.packed, 1, stride, c, one)
    _repeat(mean, _row(o.aux, 0, stride, c, one))
    for first in range(0, tile, c):
        for j in range(c):
            of_dy[first + j] = cast_like(np.float64(dbeta[j]) * share, one)
            of_z[first + j] = cast_like(np.float64(dgamma[j]) * np.float64(inv[j]) * share, one)
            factor[first + j] = gamma[j] * inv[j]
    for number in range(stop - start):
        from_dy = image_at(o.b, now.thread, start, number, one) + o.image.y_around * (o.b.col + c) * size
        from_x = image_at(o.a, now.thread, start, number, one) + o.image.x_around * (o.a.col + c) * size
        to_dx = image_at(o.c, now.thread, start, number, one) + o.image.x_around * (o.c.col + c) * size
        for i in range(r):
            for e in range(0, row, tile):
                length = min(tile, row - e)
                dy = vector_at(from_dy + (i * o.b.col + e) * size, length, one)
                x = vector_at(from_x + (i * o.a.col + e) * size, length, one)
                dx = vector_at(to_dx + (i * o.c.col + e) * size, length, one)
                for j in range(length):
                    dx[j] = factor[j] * (dy[j] - of_dy[j] - (x[j] - mean[j]) * of_z[j])
