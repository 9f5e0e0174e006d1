"""The compiled training step: a short program of ops, run for one mini-batch after the other.

Layers make the ops (``fastnet/program/builder.py``), a planner marks where threads must wait for each other, and `train`
runs them; it is compiled once for each dtype and serves every network. For fully connected layers with ReLU (`l` counts
them from 0, H_l is the output of layer l after ReLU, A_l what stands before it) a step has three phases, with a barrier
after the first and the second:

======= =========================================================================== ==============================
phase   what                                                                        a thread's range
======= =========================================================================== ==============================
first   H_0 = relu(X_B W_0.T + b_0)                                          (3.7)  columns: hidden units
samples H_l for l > 0, softmax, loss, dA_last = (p - t) / n            (3.14-3.19)  rows: samples of the batch
        dA_l = (dA_{l+1} W_{l+1}) where H_l > 0                              (3.9)
update  W_l -= lr dA_l.T H_{l-1}, b_l -= lr (column sums of dA_l)  (3.9-3.11)       columns of W_l
======= =========================================================================== ==============================

A thread's columns of H_0 are its columns of W_0 and W_1, so that no barrier is needed between `update` and the next
`first`. The weights are kept transposed and in vector columns (see blocking.py) during the whole fit: `first` reads them as
they are, `update` writes straight into them. The gradient of the input is not computed unless somebody needs it.

The first layer can also be trained in Gram space, where its weights are never formed: see gram.py.
"""
from typing import NamedTuple

from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.gemm.blocking import partition
from fastnet.kernels.program.gram import gram_first, gram_scales, gram_update, settled
from fastnet.kernels.program.ops import (
    bias_corrected,
    dense,
    gather,
    input_of,
    mask,
    mean_loss,
    softmax_cross_entropy,
    update,
    update_bias,
)
from fastnet.kernels.records import (
    ADAM,
    CALL,
    DENSE,
    GATHER,
    GRAM_FIRST,
    GRAM_UPDATE,
    MASK,
    MEAN_LOSS,
    SAMPLES,
    SOFTMAX_CROSS_ENTROPY,
    UPDATE,
    UPDATE_BIAS,
    Batch,
    Team,
    call_op,
    context_at,
    new_context,
)
from fastnet.kernels.runtime.phases import (
    CROWDED,
    PHASE,
    claim_any,
    claim_own,
    finish,
    give_way,
    next_begins_soon,
    pieces_in,
    wait_for_next,
)
from fastnet.kernels.runtime.pool import PACE
from fastnet.kernels.simd import VECTOR_BYTES, atomic_load, cast_like, lanes, load_int, noinline


class Position(NamedTuple):
    """Where in the program a phase begins."""

    first: int  # place of the mini-batch's first row in the order
    op: int
    scales: tuple[float, float, float, float, float]  # of `gram.Gram`, by then


@jit
def train(thread, threads, sync, scratch, ops, data, gram, hyper, batch_size, start, stop, losses):
    """Run the ops for rows start:stop of the order, batch after batch, and write each batch's loss (float64).

    What lies between two barriers is a phase, see ``pieces.py``: the threads share out its parts, and one that has fallen
    behind goes on where the others are.

    Parameters
    ----------
    thread, threads, sync, scratch
        See ``threads.run``.
    ops : array of OP
    data : Data
    gram : Gram
    hyper : Hyperparameters
        Their dtype is that of all matrices.
    batch_size, start, stop : int
    losses : ndarray of float64, a number for each batch
        Overwritten, if there is an op MEAN_LOSS.
    """
    rows, at, board, pace = (batch_size, start, stop), sync.ctypes.data, load_int(scratch - 8), scratch + PACE
    context = new_context()
    told = context_at(context)
    told.thread, told.scratch = thread, scratch
    told.targets, told.targets_row = data.targets.ctypes.data, data.targets.shape[1]
    here = Position(start, 0, (gram.scales[0], gram.scales[1], gram.scales[2], gram.scales[3], gram.scales[4]))
    if threads == 1:
        here = run_ops(Team(0, 1, scratch), ops, context, data, gram, hyper, rows, here, losses, False)
    number, behind = 0, here  # of the phase that begins `here`, and where it ends once that is known
    while here.first < stop:
        phase = atomic_load(at + 8 * PHASE)
        while number < phase >> 1 and here.first < stop:
            here = behind if behind.first > here.first or behind.op > here.op else skip_ops(ops, hyper, rows, here)
            number, behind = number + 1, here
        if here.first >= stop:
            break
        piece = claim(board, at, thread, threads, phase)
        if piece >= 0:
            team = Team(piece, pieces_in(phase, threads), scratch)
            behind = run_ops(team, ops, context, data, gram, hyper, rows, here, losses, True)
            finish(board, at, threads, phase)
            if load_int(board + 8 * CROWDED) > 0:
                give_way(board, pace)
        else:
            wait_for_next(board, at, phase, pace)
    if thread == 0:
        for i in range(5):  # not a slice: the text of an error about shapes would take two seconds to compile
            gram.scales[i] = here.scales[i]


@jit
def claim(board, sync, thread, threads, phase):
    """Claim a piece of the phase, see ``pieces.py``; -1 if there is none left."""
    if not phase & 1:
        if claim_own(sync, thread, phase):
            return thread
        if next_begins_soon(board, sync, phase):
            return -1
    return claim_any(sync, thread, threads, phase)


@jit
def run_ops(team, ops, context, data, gram, hyper, rows, here, losses, one_phase):
    """The ops from a `Position` on, this team's part of each, to the end of the phase or to that of the rows.

    Returns the position behind them.
    """
    noinline()
    batch_size, start, stop = rows
    first, number, scales = here
    part, parts, scratch = team
    one = cast_like(1, hyper.lr)
    width = lanes(one)
    size = VECTOR_BYTES // width
    begun, told = False, context_at(context)
    told.part, told.parts = part, parts
    while first < stop:
        n = min(batch_size, stop - first)
        batch = Batch(data.source + first * data.source_row * size, data.source_row, first, n)
        if data.gathered:
            batch = Batch(data.rows, data.rows_row, first, n)
        told.n, told.batch, told.batch_row = n, batch.at, batch.row
        told.order = data.order.ctypes.data + 8 * first
        steps = (first - start) // batch_size
        now = bias_corrected(hyper, steps + 1) if hyper.optimizer == ADAM else hyper
        told.lr, told.momentum, told.weight_decay = now.lr, now.momentum, now.weight_decay
        told.optimizer, told.moments = now.optimizer, now.moments
        told.beta1, told.beta2, told.epsilon = now.beta1, now.beta2, now.epsilon
        while number < len(ops):
            op = ops[number]
            kind = op.kind
            if op.wait and begun and one_phase:
                return Position(first, number, scales)
            begun = True
            if op.split == SAMPLES:
                run_samples(team, ops, number, context, data, batch, one)
                number = op.last
                continue
            if kind == GATHER:
                gather(team, op, data, batch, one)
            elif kind == DENSE:
                dense(scratch, op, input_of(op, batch), 0, n, partition(op.n, width, part, parts),
                      partition(op.n, width, part + 1, parts), one)
            elif kind == MEAN_LOSS:
                if part == 0:
                    losses[steps] = mean_loss(op, n)
            elif kind == UPDATE:
                update(team, op, input_of(op, batch), n, now)
            elif kind == UPDATE_BIAS:
                update_bias(team, op, n, now)
            elif kind == GRAM_FIRST:
                gram_first(team, op, gram, data, batch, scales, one)
            elif kind == GRAM_UPDATE:
                scales = gram_scales(scales, hyper)
                gram_update(team, op, gram, data, batch, scales, hyper)
                scales = settled(scales)
            elif kind == CALL:
                call_op(op.kernel, ops.ctypes.data + number * ops.itemsize, context, 0, n, one)
            number += 1
        first, number = first + batch_size, 0
    return Position(first, 0, scales)


@jit
def skip_ops(ops, hyper, rows, here):
    """The position behind a phase that others have run."""
    batch_size, _, stop = rows
    first, number, scales = here
    begun = False
    while first < stop:
        while number < len(ops):
            op = ops[number]
            if op.wait and begun:
                return Position(first, number, scales)
            begun = True
            if op.kind == GRAM_UPDATE:
                scales = settled(gram_scales(scales, hyper))
            number = op.last if op.split == SAMPLES else number + 1
        first, number = first + batch_size, 0
    return Position(first, 0, scales)


@jit
def run_samples(team, ops, number, context, data, batch, one):
    """The ops from `number` to the last of its run, on one part of the samples.

    With `OP.block` that many samples at a time go through all of them, so that what they pass on stays in the cache. Blocks
    are the same for any number of threads, and `CONTEXT.block` says which one is at work. Those of a group go through in
    order, on one thread.
    """
    block, last, group = ops[number].block, ops[number].last, max(1, ops[number].group)
    blocks = (batch.n + block - 1) // block if block > 0 else batch.n
    begin, end = partition(blocks, group, team.part, team.parts), partition(blocks, group, team.part + 1, team.parts)
    step, told = 1 if block > 0 else max(1, end - begin), context_at(context)
    for at in range(begin, end, step):
        i0, i1 = (at * block, min(batch.n, (at + 1) * block)) if block > 0 else (begin, end)
        told.block, told.begins = at, int(at == begin)
        for q in range(number, last):
            op = ops[q]
            kind = op.kind
            if kind == DENSE:
                dense(team.scratch, op, input_of(op, batch), i0, i1, 0, op.n, one)
            elif kind == MASK:
                mask(op, i0, i1, one)
            elif kind == SOFTMAX_CROSS_ENTROPY:
                softmax_cross_entropy(op, data, batch, i0, i1, one)
            elif kind == CALL:
                call_op(op.kernel, ops.ctypes.data + q * ops.itemsize, context, i0, i1, one)
