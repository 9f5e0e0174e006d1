"""The first layer trained in Gram space: its weights are never formed, products of rows of X replace them.

Its input X (n, n_i) never changes during fit, and every change of its weights is a combination of rows of X. So with
G = X X.T (n, n), A_0 = X W_0.T (n, n_o) and D (n, n_o), which holds for each sample the sum of its lr dA so far:

    W = W_0 - D.T X                             at any time, but only formed at the end
    X_B W.T + b = A_0[B] - G[B] D + b           the forward pass, 2 n n_o operations a sample instead of 2 n_i n_o
    D[B] += lr dA                               the update, which needs no product at all

It is the same gradient descent, summed in another order. Weight decay and momentum are linear in D too: with five
scales, and V_0 the velocity at the start,

    W = w_w W_0 + w_v V_0 - d_scale D.T X       d_scale gathers the factors (1 - lr decay), so that D need not be scaled
    V = v_w W_0 + v_v V_0 + E.T X               the velocity, if there is momentum (d_scale is then 1)

X need not be all the data: fastnet/training/first.py also takes about a hundred rows at a time, and forms W after each of
these windows. D and E are kept in vector columns [vector][sample][lane], the form in which the product reads D.
"""
from typing import NamedTuple

import numpy as np
from fastnet.kernels.codegen.jit import jit, jit_exact
from fastnet.kernels.codegen.linking import is_there, op_kernel
from fastnet.kernels.gemm.blocking import macro_kernel, partition
from fastnet.kernels.gemm.sparse import BLOCK, has_zero_bits, sparse_kernel
from fastnet.kernels.records import NESTEROV, Mat, context_at, hyperparameters, job_at, op_at, rows_at, vector_at
from fastnet.kernels.simd import VECTOR_BYTES, cast_like, lanes, load_int, set_where_nonzero

_LEAST_SCALE = 1e-3  # d_scale below which D is multiplied by d_scale

W_W, W_V, V_W, V_V, D_SCALE = range(5)  # places in `Gram.scales`


class Gram(NamedTuple):
    """The first layer's state in Gram space; empty where it is trained as the others are."""

    a0: np.ndarray  # (n, n_o): X W_0.T
    av: np.ndarray  # (n, n_o): X V_0.T; empty if the velocity starts from 0
    d: np.ndarray  # (vectors, n, LANES)
    bits: np.ndarray  # int64 (n / 64, vectors * LANES): which elements of 64 rows of D are not 0, see `sparse_kernel`
    e: np.ndarray  # as d; empty without momentum
    scales: np.ndarray  # float64 (5,)
    visited: int  # rows of D, from the top, that may not be 0 before this call


@op_kernel
def gram_first(op, context, start, n, one):
    """H_0 = relu(w_w A_0[B] + w_v A_V[B] - d_scale G[B] D + b_0), this part's range of the columns.

    Only the first `known` rows of D can be other than 0: in the first epoch this halves the work.
    """
    op, ctx = op_at(op), context_at(context)
    job = job_at(ctx.job)
    width = lanes(one)
    size = VECTOR_BYTES // width
    known = job.d_rows if job.gathered else max(job.visited, ctx.first)
    j0, j1 = partition(op.n, width, ctx.part, ctx.parts), partition(op.n, width, ctx.part + 1, ctx.parts)
    of_w, of_v = cast_like(ctx.w_w, one), cast_like(ctx.w_v, one)
    for i in range(n):
        row = vector_at(op.c.at + (i * op.c.row + j0) * size, j1 - j0, one)
        sample = load_int(ctx.order + 8 * i)
        a0 = vector_at(job.a0 + (sample * job.a0_row + j0) * size, row.size, one)
        for j in range(row.size):  # from 0: an index that might be negative, counted from the end, is not vectorised well
            row[j] = of_w * a0[j]
        if job.av != 0:
            av = vector_at(job.av + (sample * job.av_row + j0) * size, row.size, one)
            for j in range(row.size):
                row[j] += of_v * av[j]
    c, alpha, bits = Mat(op.c.at + j0 * size, op.c.row, 1, width), cast_like(-ctx.d_scale, one), job.bits + 8 * j0
    at, distance, columns = job.d + j0 * job.d_rows * size, job.d_rows * width, (op.n + width - 1) // width * width
    if is_there(sparse_kernel, one) and has_zero_bits(bits, columns, j1 - j0, n, known, 1, one):
        sparse_kernel(ctx.scratch, c, Mat(at, 0, 0, distance), Mat(ctx.batch, 1, ctx.batch_row, 0), bits, columns, j1 - j0,
                      n, known, alpha, one, op.bias + j0 * size, op.relu, 1)
    else:
        macro_kernel(ctx.scratch, c, Mat(ctx.batch, ctx.batch_row, 1, 0), Mat(at, width, 1, distance), n, j1 - j0, known,
                     alpha, one, op.bias + j0 * size, op.relu, 0)


@jit_exact
def gram_scales(scales, job):
    """The five scales after one more step; float64, as they are products of thousands of numbers near 1."""
    w_w, w_v, v_w, v_v, d_scale = scales
    lr, momentum, decay = job.lr, job.momentum, job.weight_decay
    if momentum == 0:
        shrink = 1.0 - lr * decay if job.double else 1.0 - np.float64(np.float32(lr * decay))  # as the update rounds it
        return w_w * shrink, w_v, v_w, v_v, d_scale * shrink
    ahead = momentum if job.optimizer == NESTEROV else 0.0
    old_w, old_v = v_w, v_v
    v_w = momentum * v_w + decay * w_w
    v_v = momentum * v_v + decay * w_v
    w_w -= lr * ((1 + ahead) * v_w - ahead * old_w)
    w_v -= lr * ((1 + ahead) * v_v - ahead * old_v)
    return w_w, w_v, v_w, v_v, d_scale


@jit
def settled(scales):
    """The scales after `gram_update`, which has multiplied D by d_scale if that was too small."""
    w_w, w_v, v_w, v_v, d_scale = scales
    return w_w, w_v, v_w, v_v, 1.0 if abs(d_scale) < _LEAST_SCALE else d_scale


@jit_exact
def _quotient(a, b):
    return a / b  # rounded once, and not multiplied into each dA


@op_kernel
def gram_update(op, context, start, n, one):
    """D[B] += lr dA / d_scale; a range of the columns.

    Where d_scale has become so small that D had better be multiplied by it, that is done: see `settled`.
    """
    op, ctx = op_at(op), context_at(context)
    job, lr, d_scale = job_at(ctx.job), hyperparameters(ctx, one).lr, ctx.d_scale
    width, rows = lanes(lr), job.d_rows
    rescale, factor = abs(d_scale) < _LEAST_SCALE, cast_like(d_scale, lr)
    if rescale:
        d_scale = 1.0
    step = cast_like(_quotient(lr, d_scale), lr)
    v0, v1 = _vectors(op, ctx, width)
    for v in range(v0, v1):
        if rescale:
            d = rows_at(job.d + v * rows * VECTOR_BYTES, rows, width, lr)
            for i in range(rows):
                for lane in range(width):
                    d[i, lane] *= factor
        _add_batch(job.d + v * rows * VECTOR_BYTES, op, ctx, v, n, step)


@op_kernel
def gram_update_with_velocity(op, context, start, n, one):
    """E = momentum E - decay D, E[B] += dA, D += lr E; a range of the columns.

    Nesterov's momentum steps by dA - decay D + momentum E, which is (1 + momentum) E - momentum (E before the step).
    """
    op, ctx = op_at(op), context_at(context)
    job, hyper = job_at(ctx.job), hyperparameters(ctx, one)
    lr, momentum, decay = hyper.lr, hyper.momentum, hyper.weight_decay
    width, rows = lanes(lr), job.d_rows
    nesterov = hyper.optimizer == NESTEROV
    of_velocity = lr * (cast_like(1, lr) + momentum) if nesterov else lr
    v0, v1 = _vectors(op, ctx, width)
    for v in range(v0, v1):
        d = rows_at(job.d + v * rows * VECTOR_BYTES, rows, width, lr)
        e = rows_at(job.e + v * rows * VECTOR_BYTES, rows, width, lr)
        for i in range(rows):
            for lane in range(width):
                before = e[i, lane]
                e[i, lane] = momentum * before - decay * d[i, lane]
                if nesterov:
                    d[i, lane] -= lr * momentum * before
        _add_batch(job.e + v * rows * VECTOR_BYTES, op, ctx, v, n, cast_like(1, lr))
        for i in range(rows):
            for lane in range(width):
                d[i, lane] += of_velocity * e[i, lane]


@jit
def _vectors(op, ctx, width):
    """The first of this part's vectors of columns, and the first behind them."""
    last = partition(op.n, width, ctx.part + 1, ctx.parts)
    return partition(op.n, width, ctx.part, ctx.parts) // width, (last + width - 1) // width


@jit
def _add_batch(to, op, ctx, v, n, step):
    """Add the batch's dA, times `step`, to its rows of vector column v at address `to`, and set the bits of these."""
    width, columns = lanes(step), (op.n + lanes(step) - 1) // lanes(step) * lanes(step)
    words = job_at(ctx.job).bits + 8 * v * width
    for i in range(n):
        sample = load_int(ctx.order + 8 * i)
        at = to + sample * VECTOR_BYTES
        row = vector_at(at, width, step)
        dz = vector_at(op.b.at + (i * op.b.row + v * width) * (VECTOR_BYTES // width), width, step)
        for lane in range(min(width, op.n - v * width)):
            row[lane] += step * dz[lane]
        set_where_nonzero(words + 8 * (sample // BLOCK * columns), at, 1 << sample % BLOCK, step)
