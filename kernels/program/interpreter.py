"""The compiled training step: a short program of ops, run for one mini-batch after the other.

Layers make the ops (``fastnet/program/builder.py``), a planner marks where threads must wait for each other, and `train`
runs them. It calls each op's kernel by its address and does not depend on the elements' type. So it is compiled once for
every network of either dtype, and of the kernels only those that a network needs. For fully connected layers with ReLU (`l`
counts them from 0, H_l is the output of layer l after ReLU, A_l what stands before it) a step has three phases, with a
barrier after the first and the second:

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

import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.codegen.linking import thread_kernel
from fastnet.kernels.gemm.blocking import partition
from fastnet.kernels.program.gram import gram_scales, settled
from fastnet.kernels.records import (
    GRAM_UPDATE,
    OP_BYTES,
    SAMPLES,
    call_op,
    context_at,
    job_at,
    new_context,
    op_at,
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
from fastnet.kernels.simd import atomic_load, call_kernel, load_int, noinline


class Position(NamedTuple):
    """Where in the program a phase begins."""

    first: int  # place of the mini-batch's first row in the order
    op: int
    scales: tuple[float, float, float, float, float]  # of `gram.Gram`, by then


@thread_kernel
def steps(thread, threads, sync, scratch, job):
    """Run the ops of a `JOB` for some rows of the order, batch after batch.

    What lies between two barriers is a phase, see ``phases.py``: the threads share out its parts, and one that has fallen
    behind goes on where the others are.

    Parameters
    ----------
    thread, threads, sync, scratch
        See ``pool.run_compiled``.
    job : int
        Address of the record. Each batch's loss is written where it says, if there is an op MEAN_LOSS, and the scales of
        Gram space as they are in the end.
    """
    board, pace, asked = load_int(scratch - 8), scratch + PACE, job_at(job)
    context = new_context()
    told = context_at(context)
    told.job, told.thread, told.scratch = job, thread, scratch
    told.source, told.source_row = asked.source, asked.source_row
    told.targets, told.targets_row = asked.targets, asked.targets_row
    told.lr, told.momentum, told.weight_decay = asked.lr, asked.momentum, asked.weight_decay
    told.optimizer, told.moments = asked.optimizer, asked.moments
    told.beta1, told.beta2, told.epsilon = asked.beta1, asked.beta2, asked.epsilon
    here = Position(asked.start, 0, (asked.w_w, asked.w_v, asked.v_w, asked.v_v, asked.d_scale))
    if threads == 1:
        here = run_ops(0, 1, asked, context, here, False)
    number, behind = 0, here  # of the phase that begins `here`, and where it ends once that is known
    while here.first < asked.stop:
        phase = atomic_load(sync + 8 * PHASE)
        while number < phase >> 1 and here.first < asked.stop:
            here = behind if behind.first > here.first or behind.op > here.op else skip_ops(asked, here)
            number, behind = number + 1, here
        if here.first >= asked.stop:
            break
        piece = claim(board, sync, thread, threads, phase)
        if piece >= 0:
            behind = run_ops(piece, pieces_in(phase, threads), asked, context, here, True)
            finish(board, sync, threads, phase)
            if load_int(board + 8 * CROWDED) > 0:
                give_way(board, pace)
        else:
            wait_for_next(board, sync, phase, pace)
    if thread == 0:
        asked.w_w, asked.w_v, asked.v_w, asked.v_v, asked.d_scale = here.scales


@jit
def claim(board, sync, thread, threads, phase):
    """Claim a chunk of the phase, see ``phases.py``; -1 if there is none left."""
    if not phase & 1:
        if claim_own(sync, thread, phase):
            return thread
        if next_begins_soon(board, sync, phase):
            return -1
    return claim_any(sync, thread, threads, phase)


@jit
def run_ops(part, parts, job, context, here, one_phase):
    """The ops from a `Position` on, this part of each, to the end of the phase or to that of the rows.

    Returns the position behind them.
    """
    noinline()
    first, number, scales = here
    begun, told, size = False, context_at(context), 8 if job.double else 4
    told.part, told.parts = part, parts
    told.w_w, told.w_v, told.v_w, told.v_v, told.d_scale = scales
    while first < job.stop:
        n = min(job.batch_size, job.stop - first)
        told.n, told.first = n, first
        told.batch, told.batch_row = job.source + first * job.source_row * size, job.source_row
        if job.gathered:
            told.batch, told.batch_row = job.rows, job.rows_row
        told.order = job.order + 8 * first
        batch = (first - job.start) // job.batch_size
        told.loss = job.losses + 8 * batch
        if job.correct != 0:
            call_kernel(job.correct, context, batch + 1, 0, 0, 0)
        while number < job.count:
            address = job.ops + number * OP_BYTES
            op = op_at(address)
            if op.wait and begun and one_phase:
                return Position(first, number, scales)
            begun = True
            if op.split == SAMPLES:
                run_samples(job, number, context)
                number = op.last
                continue
            if op.kind == GRAM_UPDATE:
                scales = gram_scales(scales, job)
                told.w_w, told.w_v, told.v_w, told.v_v, told.d_scale = scales
            call(job, op.kernel, address, context, 0, n)
            if op.kind == GRAM_UPDATE:
                scales = settled(scales)
                told.d_scale = scales[4]
            number += 1
        first, number = first + job.batch_size, 0
    return Position(first, 0, scales)


@jit
def call(job, kernel, op, context, start, stop):
    """Call an op's kernel with a 1 of the elements' type."""
    if job.double:
        call_op(kernel, op, context, start, stop, 1.0)
    else:
        call_op(kernel, op, context, start, stop, np.float32(1))


@jit
def skip_ops(job, here):
    """The position behind a phase that others have run."""
    first, number, scales = here
    begun = False
    while first < job.stop:
        while number < job.count:
            op = op_at(job.ops + number * OP_BYTES)
            if op.wait and begun:
                return Position(first, number, scales)
            begun = True
            if op.kind == GRAM_UPDATE:
                scales = settled(gram_scales(scales, job))
            number = op.last if op.split == SAMPLES else number + 1
        first, number = first + job.batch_size, 0
    return Position(first, 0, scales)


@jit
def run_samples(job, number, context):
    """The ops from `number` to the last of its run, on one part of the samples.

    With `OP.block` that many samples at a time go through all of them, so that what they pass on stays in the cache. Blocks
    are the same for any number of threads, and `CONTEXT.block` says which one is at work. Those of a group go through in
    order, on one thread.
    """
    told, op = context_at(context), op_at(job.ops + number * OP_BYTES)
    n, block, last, group = told.n, op.block, op.last, max(1, op.group)
    blocks = (n + block - 1) // block if block > 0 else n
    begin, end = partition(blocks, group, told.part, told.parts), partition(blocks, group, told.part + 1, told.parts)
    step = 1 if block > 0 else max(1, end - begin)
    for at in range(begin, end, step):
        i0, i1 = (at * block, min(n, (at + 1) * block)) if block > 0 else (begin, end)
        told.block, told.begins = at, 1 if at == begin else 0
        for q in range(number, last):
            address = job.ops + q * OP_BYTES
            call(job, op_at(address).kernel, address, context, i0, i1)
