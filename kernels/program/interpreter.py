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
`first`. The weights are kept transposed and in vector columns (see blocking.py) during the whole fit: `first` reads them
directly, and `update` writes into them. The gradient of the input is not computed unless a layer needs it.

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
    call_at,
    context_at,
    job_at,
    new_context,
    op_at,
)
from fastnet.kernels.runtime.phases import (
    chunks_in,
    claim_any,
    claim_own,
    finish,
    next_begins_soon,
    wait_for_next,
    yield_core,
)
from fastnet.kernels.runtime.state import PHASES, SHARED, THREAD_CONTEXT
from fastnet.kernels.simd import atomic_load, call_kernel, load_int, noinline


class Position(NamedTuple):
    """Where in the program a phase begins."""

    first: int  # place of the mini-batch's first row in the order
    op: int
    scales: tuple[float, float, float, float, float]  # of `gram.Gram`, by then


@thread_kernel
def steps(thread, threads, sync, scratch, job):
    """Run the ops of a `JOB` for some rows of the order, batch after batch.

    What lies between two barriers is a phase, see ``phases.py``: the threads claim its chunks, and one that has fallen
    behind continues where the others are.

    Parameters
    ----------
    thread, threads, sync, scratch
        See ``pool.run_compiled``.
    job : int
        Address of the record. Each batch's loss is written where it says, if there is an op MEAN_LOSS, and the scales of
        Gram space as they are in the end.
    """
    shared, pace, record = load_int(scratch + THREAD_CONTEXT.shared), scratch + THREAD_CONTEXT.pace, job_at(job)
    context = new_context()
    ctx = context_at(context)
    ctx.job, ctx.thread, ctx.scratch = job, thread, scratch
    ctx.source, ctx.source_row = record.source, record.source_row
    ctx.targets, ctx.targets_row = record.targets, record.targets_row
    ctx.lr, ctx.momentum, ctx.weight_decay = record.lr, record.momentum, record.weight_decay
    ctx.optimizer, ctx.moments = record.optimizer, record.moments
    ctx.beta1, ctx.beta2, ctx.epsilon = record.beta1, record.beta2, record.epsilon
    position = Position(record.start, 0, (record.w_w, record.w_v, record.v_w, record.v_v, record.d_scale))
    if threads == 1:
        position = run_ops(0, 1, record, context, position, False)
    number, end = 0, position  # of the phase that begins at `position`, and where it ends once that is known
    while position.first < record.stop:
        phase = atomic_load(sync + PHASES.phase)
        while number < phase >> 1 and position.first < record.stop:
            position = end if end.first > position.first or end.op > position.op else skip_ops(record, position)
            number, end = number + 1, position
        if position.first >= record.stop:
            break
        chunk = claim(shared, sync, thread, threads, phase)
        if chunk >= 0:
            end = run_ops(chunk, chunks_in(phase, threads), record, context, position, True)
            finish(shared, sync, threads, phase)
            if load_int(shared + SHARED.crowded_until) > 0:
                yield_core(shared, pace)
        else:
            wait_for_next(shared, sync, phase, pace)
    if thread == 0:
        record.w_w, record.w_v, record.v_w, record.v_v, record.d_scale = position.scales


@jit
def claim(shared, sync, thread, threads, phase):
    """Claim a chunk of the phase, see ``phases.py``; -1 if there is none left."""
    if not phase & 1:
        if claim_own(sync, thread, phase):
            return thread
        if next_begins_soon(shared, sync, phase):
            return -1
    return claim_any(sync, thread, threads, phase)


@jit
def run_ops(part, parts, job, context, position, one_phase):
    """The ops from a `Position` on, this part of each, to the end of the phase or to that of the rows.

    Returns the position at their end.
    """
    noinline()
    first, number, scales = position
    started, ctx, size = False, context_at(context), 8 if job.double else 4
    ctx.part, ctx.parts = part, parts
    ctx.w_w, ctx.w_v, ctx.v_w, ctx.v_v, ctx.d_scale = scales
    while first < job.stop:
        n = min(job.batch_size, job.stop - first)
        ctx.n, ctx.first = n, first
        ctx.batch, ctx.batch_row = job.source + first * job.source_row * size, job.source_row
        if job.gathered:
            ctx.batch, ctx.batch_row = job.rows, job.rows_row
        ctx.order = job.order + 8 * first
        batch = (first - job.start) // job.batch_size
        ctx.loss = job.losses + 8 * batch
        if job.correct != 0:
            call_kernel(job.correct, context, batch + 1, 0, 0, 0)
        while number < job.count:
            address = job.ops + number * OP_BYTES
            op = op_at(address)
            if op.wait and started and one_phase:
                return Position(first, number, scales)
            started = True
            if op.split == SAMPLES:
                run_samples(job, number, context)
                number = op.last
                continue
            if op.kind == GRAM_UPDATE:
                scales = gram_scales(scales, job)
                ctx.w_w, ctx.w_v, ctx.v_w, ctx.v_v, ctx.d_scale = scales
            call(job, op.kernel, address, context, 0, n)
            if op.kind == GRAM_UPDATE:
                scales = settled(scales)
                ctx.d_scale = scales[4]
            number += 1
        first, number = first + job.batch_size, 0
    return Position(first, 0, scales)


@jit
def call(job, kernel, op, context, start, stop):
    """Call an op's kernel with a 1 of the elements' type."""
    if job.double:
        call_at(kernel, op, context, start, stop, 1.0)
    else:
        call_at(kernel, op, context, start, stop, np.float32(1))


@jit
def skip_ops(job, position):
    """The position at the end of a phase that others have run."""
    first, number, scales = position
    started = False
    while first < job.stop:
        while number < job.count:
            op = op_at(job.ops + number * OP_BYTES)
            if op.wait and started:
                return Position(first, number, scales)
            started = True
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
    ctx, op = context_at(context), op_at(job.ops + number * OP_BYTES)
    n, block, last, group = ctx.n, op.block, op.last, max(1, op.group)
    blocks = (n + block - 1) // block if block > 0 else n
    begin, end = partition(blocks, group, ctx.part, ctx.parts), partition(blocks, group, ctx.part + 1, ctx.parts)
    step = 1 if block > 0 else max(1, end - begin)
    at = begin
    while at < end:  # a range would raise for a step of 0
        i0, i1 = (at * block, min(n, (at + 1) * block)) if block > 0 else (begin, end)
        ctx.block, ctx.begins = at, 1 if at == begin else 0
        for q in range(number, last):
            address = job.ops + q * OP_BYTES
            call(job, op_at(address).kernel, address, context, i0, i1)
        at += step
