"""Dropout with masks from a counter-based generator: which elements stay is a function of a seed and of places, not of time.

The bits are those of Philox4x64-10 (Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"), which
``numpy.random.Philox`` computes, too. Its key is the seed; its counter holds the block of eight elements of a sample, the
number of the sample in its mini-batch, and the number of the mini-batch. So any thread can make the mask of any sample.
"""
import math

import llvmlite.ir as ir
import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.codegen.linking import INT, op_kernel
from fastnet.kernels.compiled_calls import (
    array_at,
    array_kernel,
    at,
    dimensions_of,
    elements_of,
    finish,
    in_compiled_code,
    opened,
    side,
)
from fastnet.kernels.gemm.blocking import partition
from fastnet.kernels.layout import plain
from fastnet.kernels.records import context_at, input_row, op_at, row_of, vector_at
from fastnet.kernels.runtime.team import run
from fastnet.kernels.simd import cast_like, load_int, store_int
from numba import types
from numba.extending import intrinsic

_WORK, _PRODUCT_WORK = 8, 2  # multiply-adds in the time of one element: of a mask, and of a product with one
_OF_COUNTER_0, _OF_COUNTER_2 = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)  # the multipliers of a round
_OF_KEY_0, _OF_KEY_1 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)  # what a round adds to the key
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


def dropout_forward(y: np.ndarray, mask: np.ndarray, x: np.ndarray, rate: float, seed: int, call: int) -> None:
    """mask = 0 where an element is dropped, else 1 / (1 - rate); y = x mask.

    y, mask, x: one shape (n, ...), one dtype (float32 or float64); y and mask C-contiguous, x of any layout. Overwrites
    mask, and y, which may be x. Element j of sample i (in C order) is dropped if half j % 2 (the low one is 0) of word
    j // 2 % 4 of Philox4x64-10 is below rate 2^32, for the counter (j // 8, i, call, 0) and the key (seed, 0).
    0 <= rate < 1; seed and call are whole numbers from 0 to 2^63 - 1. NaN and inf give NaN where they are dropped.
    """
    run(_forward, by_samples(y), by_samples(mask), by_samples(plain(x)), float(rate), seed, call,
        work=_WORK * x.size)


def dropout_backward(dx: np.ndarray, dy: np.ndarray, mask: np.ndarray) -> None:
    """dx = dy mask.

    dx, dy, mask: one shape (n, ...), one dtype (float32 or float64); dx C-contiguous, dy and mask of any layout. Overwrites
    dx, which may be dy.
    """
    run(_backward, by_samples(dx), by_samples(plain(dy)), by_samples(plain(mask)), work=_PRODUCT_WORK * dx.size)


def by_samples(a: np.ndarray) -> np.ndarray:
    """A C-contiguous array (n, ...) as rows, one a sample, that share its memory."""
    return a.reshape(len(a), math.prod(a.shape[1:])) if a.ndim else a.reshape(1, 1)


@intrinsic
def mul_high(typingctx, a, b):
    """The upper 64 bits of the product of two uint64."""
    def codegen(context, builder, signature, arguments):
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(argument, wide) for argument in arguments))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), codegen


@jit
def philox(c0, c1, c2, c3, k0, k1):
    """The four words of Philox4x64-10 for a counter and a key, all uint64."""
    for _ in range(10):
        high0, low0 = mul_high(_OF_COUNTER_0, c0), _OF_COUNTER_0 * c0
        high2, low2 = mul_high(_OF_COUNTER_2, c2), _OF_COUNTER_2 * c2
        c0, c1, c2, c3 = high2 ^ c1 ^ k0, low2, high0 ^ c3 ^ k1, low0
        k0, k1 = k0 + _OF_KEY_0, k1 + _OF_KEY_1
    return c0, c1, c2, c3


@jit
def _of_sample(y, mask, x, rate, seed, call, i):
    """`dropout_forward` for the elements of sample i."""
    m, zero = x.size, cast_like(0, x[:1].sum())
    threshold, scale = np.uint64(rate * 4294967296.0), cast_like(1.0 / (1.0 - rate), zero)
    none, key, sample, number = np.uint64(0), np.uint64(seed), np.uint64(i), np.uint64(call)
    whole = m // 8 * 8
    for j in range(0, whole, 8):
        w0, w1, w2, w3 = philox(np.uint64(j // 8), sample, number, none, key, none)
        mask[j], mask[j + 1] = _factors(w0, threshold, scale)
        mask[j + 2], mask[j + 3] = _factors(w1, threshold, scale)
        mask[j + 4], mask[j + 5] = _factors(w2, threshold, scale)
        mask[j + 6], mask[j + 7] = _factors(w3, threshold, scale)
    if whole < m:
        words = philox(np.uint64(whole // 8), sample, number, none, key, none)
        for j in range(whole, m):
            mask[j] = _factors(words[(j - whole) // 2], threshold, scale)[j % 2]
    for j in range(m):
        y[j] = x[j] * mask[j]


@jit
def _factors(word, threshold, scale):
    """What two elements are multiplied by; products, as half of the branches would be guessed wrong."""
    low, high = (word & _LOW) >= threshold, (word >> _HALF) >= threshold
    return scale * cast_like(np.int64(low), scale), scale * cast_like(np.int64(high), scale)


@jit
def _multiply(dx, dy, mask):
    for j in range(dx.size):
        dx[j] = dy[j] * mask[j]


@jit
def _forward(thread, threads, sync, scratch, y, mask, x, rate, seed, call):
    for i in range(partition(len(x), 1, thread, threads), partition(len(x), 1, thread + 1, threads)):
        _of_sample(y[i], mask[i], x[i], rate, seed, call, i)


@jit
def _backward(thread, threads, sync, scratch, dx, dy, mask):
    for i in range(partition(len(dx), 1, thread, threads), partition(len(dx), 1, thread + 1, threads)):
        _multiply(dx[i], dy[i], mask[i])


@array_kernel(3, types.float64, INT, INT)
def _forward_here(outcome, y, mask, x, rate, seed, call, one):
    if opened(outcome, 2, (y, mask, x)):
        n = side(x, 0) if dimensions_of(x) > 0 else 1
        shape = n, elements_of(x) // max(1, n)
        _forward(0, 1, 0, 0, array_at(at(y), shape, one), array_at(at(mask), shape, one),
                 array_at(at(x), shape, one), rate, seed, call)
        finish(outcome, 2, (y, mask, x))


@array_kernel(3)
def _backward_here(outcome, dx, dy, mask, one):
    if opened(outcome, 1, (dx, dy, mask)):
        n = elements_of(dx)
        _multiply(vector_at(at(dx), n, one), vector_at(at(dy), n, one), vector_at(at(mask), n, one))
        finish(outcome, 1, (dx, dy, mask))


in_compiled_code(dropout_forward, _forward_here, "y:* mask:* x:* rate seed call", writes=2)
in_compiled_code(dropout_backward, _backward_here, "dx:* dy:* mask:*")


@op_kernel
def dropout_op(op, context, start, stop, one):
    """B = the mask of the mini-batch whose number is at `aux`, C = A B, for samples start:stop of a compiled step.

    `number` is the rate. C may be A.
    """
    o, c = op_at(op), context_at(context)
    for i in range(start, stop):
        _of_sample(row_of(o.c, i, o.n, one), row_of(o.b, i, o.n, one), input_row(o, c, i, one), o.number, o.seed,
                   load_int(o.aux), i)


@op_kernel
def dropout_grad_op(op, context, start, stop, one):
    """C = C A: the backward pass, from the mask A."""
    o = op_at(op)
    for i in range(start, stop):
        dx = row_of(o.c, i, o.n, one)
        _multiply(dx, dx, row_of(o.a, i, o.n, one))


@op_kernel
def count_op(op, context, start, stop, one):
    """The whole number at `aux` grows by 1, once a mini-batch."""
    o = op_at(op)
    if context_at(context).part == 0:
        store_int(o.aux, load_int(o.aux) + 1)
