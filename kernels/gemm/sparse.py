"""Products that leave out the zeros of A, with the same bits as `blocking.macro_kernel`.

Behind a ReLU, about half of the outputs of a layer and half of their gradients are 0, and adding 0 times a finite number
changes nothing. The bits of a word say which of 64 neighbouring elements of a row of A are not 0. For each of them, one row
of B, times the element, is added to sums that stay in registers (`simd.add_nonzero_rows`). Each multiply-add loads its own
vector of B, so B is copied in blocks of 64 rows and at most `ACROSS` vectors, and the L1 cache holds a block while all rows
of A go past it. In a block with inf or NaN, the zeros count.
"""
import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.codegen.linking import INT, LateKernel
from fastnet.kernels.gemm.blocking import KC, pack_copy
from fastnet.kernels.records import MATRIX, Mat, vector_at
from fastnet.kernels.simd import (
    ACROSS,
    ARM,
    LEAST_ACROSS,
    VECTOR_BITS,
    VECTOR_BYTES,
    add_nonzero_rows,
    cast_like,
    clear_vector,
    copy_vector,
    count_bits,
    finish_vector,
    lanes,
    load,
    nonzero_bits,
    prefetch,
    store_int,
    transpose,
)

BLOCK = 64  # rows of B in the L1 cache, as many as a word has bits
_MOST_ROWS = 1024  # of A: their sums stay in the L2 cache
_WORDS = KC // BLOCK  # of a row of A, in one run of k
_LINE = 64  # bytes of a cache line
_EVICTING = 1024  # bytes: rows of A this far apart, or a multiple of it, evict each other from the L1 cache

# In the scratch, behind the block of B: the sums of the rows of A, their words, and space for a group of rows
_SUMS = BLOCK * ACROSS * VECTOR_BYTES
_BITS = _SUMS + _MOST_ROWS * ACROSS * VECTOR_BYTES
_ROOM = _BITS + 8 * _MOST_ROWS * _WORDS

_PAYS = VECTOR_BITS > 128 and not ARM  # one load for each multiply-add: narrow vectors have little to gain
_LOOKS = 10  # rows of A that are looked at, and elements of each
_LEAST_K, _LEAST_K_TURNED = 48, 64  # with fewer, what is done to each sum takes longer than what zeros save
_WORTH = 1 << 39  # multiply-adds of products in which it saves the time of its compilation: a few seconds
_LEAST_WORK = 1 << 19  # multiply-adds for which a look at A takes no time to speak of


# --- whether to -------------------------------------------------------------------------------------------------------


@jit
def _is_large(rows, cols, k, turned, like):
    least, vectors = _LEAST_K_TURNED if turned else _LEAST_K, (cols + lanes(like) - 1) // lanes(like)
    return _PAYS and rows >= 16 and k >= least and vectors >= LEAST_ACROSS and rows * cols * k >= _LEAST_WORK


@jit
def has_zeros(a, rows, cols, k, turned, like):
    """Whether enough of A (rows, k) is 0 to leave its zeros out of a product with `cols` columns; see `sparse_kernel`.

    Only some elements are looked at: what is found changes how long the product takes, not its bits.
    """
    if not _is_large(rows, cols, k, turned, like):
        return False
    size = VECTOR_BYTES // lanes(like)
    step_i, step_p, first, looks, zeros = (rows + _LOOKS - 1) // _LOOKS, (k + _LOOKS - 1) // _LOOKS, 0, 0, 0
    for i in range(0, rows, step_i):
        for p in range(first, k, step_p):
            looks += 1
            zeros += 1 if load(a.at + (i * a.row + p * a.col) * size, like) == 0 else 0
        first = first + 1 if first + 1 < step_p else 0
    return 3 * zeros >= looks


@jit
def has_zero_bits(bits, step, rows, cols, k, turned, like):
    """As `has_zeros`, for A (rows, k) with words at `bits` that are `step` words from block to block: all are counted."""
    if not _is_large(rows, cols, k, turned, like):
        return False
    count, blocks = 0, (k + BLOCK - 1) // BLOCK
    for block in range(blocks):
        words = vector_at(bits + 8 * block * step, rows, np.int64(0))
        for i in range(rows):
            count += count_bits(words[i])
    return 3 * count <= 2 * BLOCK * blocks * rows


# --- parts of the product ---------------------------------------------------------------------------------------------


@jit
def _find_nonzeros(words, room, a, rows, length, like):
    """words[block][row] = which of 64 elements of a row of A (rows, length) are not 0."""
    width = lanes(like)
    size = VECTOR_BYTES // width
    for p in range(0, length, BLOCK):
        count = min(BLOCK, length - p)
        if count < BLOCK:
            for v in range(BLOCK):
                clear_vector(room + v * VECTOR_BYTES, like)
        for i in range(0, rows, width):
            some = min(width, rows - i)
            pack_copy(room, BLOCK, Mat(a.at + (i * a.row + p * a.col) * size, a.row, a.col, 0), some, count, like)
            for r in range(some):
                word = 0
                for q in range(0, BLOCK, width):
                    word |= nonzero_bits(room + (r * BLOCK + q) * size, like) << q
                store_int(words + 8 * (p // BLOCK * _MOST_ROWS + i + r), word)


@jit
def _pack_block(to, b, length, cols, vecs, like):
    """Copy rows of B next to each other, with 0 in lanes that do not exist; returns whether all elements are finite."""
    width, zero = lanes(like), like - like
    if b.vec > 0:
        for v in range(vecs):
            column = Mat(b.at + v * b.vec * (VECTOR_BYTES // width), width, 1, 0)
            pack_copy(to + v * VECTOR_BYTES, vecs * width, column, length, width, like)
    else:
        if cols < vecs * width:
            for p in range(length):
                clear_vector(to + (p * vecs + vecs - 1) * VECTOR_BYTES, like)
        pack_copy(to, vecs * width, b, length, cols, like)
    copied, total = vector_at(to, length * vecs * width, like), zero
    for q in range(copied.size):
        total += copied[q] * zero  # NaN for inf and NaN
    return total == 0


@jit
def _finish(sums, sums_row, c, first, rows, column, cols, alpha, beta, bias, relu):
    """Some rows of C, from the first, and columns = epilogue(alpha S + beta C); `column` is where the columns of C begin."""
    width = lanes(alpha)
    size = VECTOR_BYTES // width
    for i in range(rows):
        for v in range((cols + width - 1) // width):
            at = (column + v * c.vec) * size
            finish_vector(sums + (i * sums_row + v * width) * size, c.at + (first + i) * c.row * size + at,
                          min(width, cols - v * width), alpha, beta, bias + at if bias != 0 else 0, relu)


@jit
def _finish_turned(room, sums, vecs, c, first, rows, column, cols, alpha, beta, bias, relu):
    """As `_finish`, of S.T: sums S (cols, rows), whose rows are `vecs` vectors long, are transposed vector by vector."""
    width = lanes(alpha)
    group = (cols + width - 1) // width * width
    for v in range(vecs):
        for r in range(0, cols, width):
            transpose(room + r * (VECTOR_BYTES // width), group, sums + (r * vecs + v) * VECTOR_BYTES, vecs * width, alpha)
        _finish(room, group, c, first + v * width, min(width, rows - v * width), column, cols, alpha, beta, bias, relu)


# --- the product ------------------------------------------------------------------------------------------------------


def _sparse_kernel(scratch, c, a, b, bits, step, rows, cols, k, alpha, beta, bias, relu, turned):
    """`macro_kernel` without the zeros of A: C (rows, cols) = epilogue(alpha A B + beta C), by one thread.

    With `turned`, it is C (cols, rows) = epilogue(alpha (A B).T + beta C); C lies as in `macro_kernel`. A and B are of any
    strides, but B may also lie in vector columns, and so may A.T if A comes with words: `bits` is the address of words
    [block][row], `step` words from block to block. With 0 they are found here.
    """
    width = lanes(alpha)
    size = VECTOR_BYTES // width
    group = width if a.vec > 0 else _LINE // size  # rows of A at a time: of its columns, a cache line
    vectors = (cols + width - 1) // width
    chunks = (vectors + ACROSS - 1) // ACROSS
    sums, room = scratch + _SUMS, scratch + _ROOM
    for i0 in range(0, rows, _MOST_ROWS):
        high = min(_MOST_ROWS, rows - i0)
        for k0 in range(0, k, KC):
            length, ends = min(KC, k - k0), k0 + KC >= k
            relu_now = relu if ends else 0
            words, words_step = bits + 8 * (k0 // BLOCK * step + i0), step
            if bits == 0:
                words, words_step = scratch + _BITS, _MOST_ROWS
                run_of_a = Mat(a.at + (i0 * a.row + k0 * a.col) * size, a.row, a.col, 0)
                _find_nonzeros(words, room, run_of_a, high, length, alpha)
            for chunk in range(chunks):
                v0, v1 = vectors * chunk // chunks, vectors * (chunk + 1) // chunks
                vecs, wide = v1 - v0, min(cols, v1 * width) - v0 * width
                for p in range(k0, k0 + length, BLOCK):
                    count = min(BLOCK, k - p)
                    first = p * width + v0 * b.vec if b.vec > 0 else p * b.row + v0 * width * b.col
                    finite = _pack_block(scratch, Mat(b.at + first * size, b.row, b.col, b.vec), count, wide, vecs, alpha)
                    within = 0 if finite else -1 if count == BLOCK else (1 << count) - 1
                    ahead = 0
                    if b.vec == 0 and b.row == 1:
                        next_p, next_v = (p + BLOCK, v0) if p + BLOCK < k0 + length else (k0, v1)
                        ahead = b.at + (next_p + next_v * width * b.col) * size
                    for i in range(0, high, group):
                        some, sums_i = min(group, high - i), sums + i * vecs * VECTOR_BYTES
                        if ahead != 0:  # a part of the columns of the next block, which lie far from each other
                            for s in range(wide * i // high, wide * (i + some) // high):
                                for q in range(0, BLOCK, _LINE // size):
                                    prefetch(ahead + (s * b.col + q) * size)
                        a_i, a_row, a_k = a.at + ((i0 + i) * a.row + p * a.col) * size, a.row, a.col
                        if a.vec > 0:
                            a_i, a_row, a_k = a.at + ((i0 + i) // width * a.vec + p * width) * size, 1, width
                            for q in range(count):  # of the next column: the CPU does not foresee reads that leave out zeros
                                prefetch(a_i + (a.vec + q * width) * size)
                        elif a.row == 1 and a.col * size % _EVICTING == 0:
                            if some == group:
                                for q in range(count):
                                    for r in range(0, group, width):
                                        copy_vector(room + (q * group + r) * size, a_i + (q * a.col + r) * size, alpha)
                            else:
                                pack_copy(room, group, Mat(a_i, a.col, 1, 0), count, some, alpha)
                            a_i, a_k = room, group
                        words_i = words + 8 * ((p - k0) // BLOCK * words_step + i)
                        add_nonzero_rows(vecs, words_i, within, some, a_i, a_row, a_k, scratch, sums_i, 1 if p == k0 else 0,
                                         alpha)
                        if p + BLOCK < k0 + length:
                            continue
                        # the sums are finished while they are in the L1 cache
                        bias_now, beta_now = bias if ends else 0, beta if k0 == 0 else cast_like(1, beta)
                        if turned:
                            _finish_turned(room, sums_i, vecs, c, v0 * width, wide, (i0 + i) // width * c.vec, some, alpha,
                                           beta_now, bias_now, relu_now)
                        else:
                            _finish(sums_i, vecs * width, c, i0 + i, some, v0 * c.vec, wide, alpha, beta_now, bias_now,
                                    relu_now)


sparse_kernel = LateKernel(_sparse_kernel, lambda element: (INT, *[MATRIX] * 3, *[INT] * 5, element, element, *[INT] * 3),
                           worth=_WORTH if _PAYS else 1 << 62)
