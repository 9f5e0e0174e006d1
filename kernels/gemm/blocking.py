"""Matrix products: packing, blocking and threads around the micro-kernel ``simd.micro_kernel``.

C (m, n) = alpha * A (m, k) @ B (k, n) + beta * C, for float32 and float64 and any strides. In BLIS's letters:

- Each thread owns one rectangle of C and computes it alone, so that no bit depends on how many threads there are.
- k is cut into runs of KC. For each, a slab of B (KC x NC) is packed into *vector columns*, [vector][p][lane], which the
  micro-kernel reads front to back; the slab stays in the L2 cache while all rows of A go past.
- A is read where it lies, MR rows at a time. MC rows at a time are packed if neither its rows nor its columns are
  contiguous, and columns also where a wide product pays for it.
- A panel of B, of NV vector columns, goes past MC rows of A before the next panel is read, if the L1 cache holds it. With
  vectors of 512 bits it does not: there, MR rows of A stay in the L1 cache, and the whole slab goes past them.

`kernels/README.md` has the picture. An operand that is used many times can be kept packed: see `pack`.
"""

from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.codegen.linking import INT, separate
from fastnet.kernels.records import MATRIX, Mat, vector_at
from fastnet.kernels.runtime.pool import SCRATCH_BYTES, barrier_at, next_job_at
from fastnet.kernels.simd import (
    MR,
    NV,
    VECTOR_BYTES,
    cast_like,
    clear_vector,
    copy_vector,
    lanes,
    load,
    prefetch_to_write,
    store,
    tile,
    transpose,
)

KC = 256  # length of one packed run
MC = 64  # rows of A packed at once
SLAB_BYTES = SCRATCH_BYTES * 3 // 4  # the scratch holds a slab of B, then MC rows of A
_PAD = 1  # keeps vector columns out of the same sets of the L1 cache
NC_BYTES = SLAB_BYTES // (KC + _PAD) // VECTOR_BYTES * VECTOR_BYTES  # width of the slab
_ABREAST = 16  # vectors of a row packed together
_NEAR_BYTES = 1 << 20  # a matrix that spans no more, in vector columns, stays in the L2 cache from step to step
_MOST_ACROSS = 16  # vectors of A.T that leave half of the scratch to C.T
_SMALL_BYTES = 1 << 15  # an operand that spans no more stays in the L1 cache as it lies, and need not be packed
_MANY_COLUMNS = 16  # vectors of C's columns for which columns of A are worth a copy
_PANEL_FIRST = NV * VECTOR_BYTES * KC <= _SMALL_BYTES // 2  # whether a panel of B leaves half of the L1 cache to others
_PANEL_ROWS = MC if _PANEL_FIRST else MR  # rows of A that go past one panel of B before the next one is read


# --- inside a kernel: matrices by address, see `records.Mat` ---------------------------------------------------------


@separate(lambda element: (*[MATRIX] * 3, *[INT] * 3, element, element, *[INT] * 3))
def tile_loop(c, a, b, rows, cols, k, alpha, beta, bias, relu, is_far):
    """C = alpha A B + beta C over one run of k, tile by tile, for any `rows` and `cols`.

    C and B are read and written in vectors (`Mat.vec`), A element by element; the rest as of `simd.micro_kernel`.
    The L1 cache keeps a panel of B, of NV vectors, while `_PANEL_ROWS` rows of A go past. With `is_far`, a tile's C is
    prefetched while its products are summed up.
    """
    width = lanes(alpha)
    size = VECTOR_BYTES // width
    a_row, a_k, b_k, b_vec, c_row, c_vec = a.row, a.col, b.row, b.vec, c.row, c.vec
    for start in range(0, rows, _PANEL_ROWS):
        end = min(rows, start + _PANEL_ROWS)
        j = 0
        while j < cols:
            left = (cols - j + width - 1) // width
            # never leave one vector alone behind a full tile: 2 + 2 is faster than 3 + 1
            wide = 2 if left == 4 or left == 2 else min(left, NV)
            tail = min(width, cols - j - (wide - 1) * width)
            v = j // width
            b_j = b.at + v * b_vec * size
            bias_j = bias + v * c_vec * size if bias != 0 else 0
            i = start
            while i < end:
                left = end - i
                # never leave two or three rows alone behind a tile of six: 4 + 4 is faster than 6 + 1 + 1
                high = MR if left >= MR and (MR != 6 or left < 8 or left > 9) else 4 if left >= 4 else 1
                a_i = a.at + i * a_row * size
                c_ij = c.at + (i * c_row + v * c_vec) * size
                if is_far:
                    for q in range(high):
                        for u in range(wide):
                            prefetch_to_write(c_ij + (q * c_row + u * c_vec) * size)
                tile(high, wide, a_i, a_row, a_k, b_j, b_k, b_vec, c_ij, c_row, c_vec, tail, k, alpha, beta, bias_j, relu)
                i += high
            j += wide * width


@separate(lambda element: (INT, INT, MATRIX, INT, INT, element))
def pack_copy(to, to_row, a, rows, cols, alpha):
    """to[i, j] = A[i, j] for A of any strides; `to` is an address, its rows are contiguous. The whole of packing."""
    width = lanes(alpha)
    size = VECTOR_BYTES // width
    i0 = 0  # rows that whole vectors or blocks have done
    j0 = 0  # and columns, in those rows
    if a.col == 1:
        i0, j0 = rows, cols // width * width
        for i in range(rows):
            for j in range(0, j0, width):
                copy_vector(to + (i * to_row + j) * size, a.at + (i * a.row + j) * size, alpha)
    elif a.row == 1:
        i0, j0 = rows // width * width, cols // width * width
        for i in range(0, i0, width):
            for j in range(0, j0, width):
                transpose(to + (i * to_row + j) * size, to_row, a.at + (i + j * a.col) * size, a.col, alpha)
    for i in range(rows):
        for j in range(j0 if i < i0 else 0, cols):
            store(to + (i * to_row + j) * size, load(a.at + (i * a.row + j * a.col) * size, alpha))


@separate(lambda element: (INT, INT, MATRIX, INT, INT, element))
def pack_columns(to, to_vec, b, k, cols, alpha):
    """Pack B (k, cols) into vector columns: element (p, j) goes to [j // LANES][p][j % LANES]; missing lanes are 0.

    `to` is an address, its vector columns lie `to_vec` elements apart.
    """
    width = lanes(alpha)
    size = VECTOR_BYTES // width
    whole = cols // width if b.col == 1 else 0
    for v in range(0, whole, _ABREAST):  # a few vectors of a row at a time: neighbours share a page
        for p in range(k):
            for u in range(v, min(v + _ABREAST, whole)):
                copy_vector(to + (u * to_vec + p * width) * size, b.at + (p * b.row + u * width) * size, alpha)
    for j in range(whole * width, cols, width):
        column = to + j // width * to_vec * size
        if cols - j < width:
            for p in range(k):
                clear_vector(column + p * width * size, alpha)
        pack_copy(column, width, Mat(b.at + j * b.col * size, b.row, b.col, 0), k, min(width, cols - j), alpha)


@separate(lambda element: (INT, *[MATRIX] * 3, *[INT] * 3, element, element, *[INT] * 3))
def macro_kernel(scratch, c, a, b, rows, cols, k, alpha, beta, bias, relu, lower):
    """C (rows, cols) = epilogue(alpha A B + beta C) by one thread: the loops over KC, NC and MC.

    C lies in vector columns (rows of contiguous elements are such: `Mat.vec` is LANES). So may B, packed by
    `pack_columns`; with b.vec = 0 it is of any strides and is packed here. Bias and ReLU, see `simd.micro_kernel`, are
    applied after the last run of k. With `lower`, only blocks of MC rows up to the diagonal are computed.
    """
    width = lanes(alpha)
    size = VECTOR_BYTES // width
    runs = max(1, (k + KC - 1) // KC)  # k = 0 still scales C
    # rows also if they evict each other from the L1 cache: the L2 cache serves them, while a copy costs more than it saves;
    # of columns, a narrow tile uses a part of each cache line, and many tiles pay for a copy
    in_place = a.col == 1 or a.row == 1
    if _PANEL_FIRST and a.row == 1 and a.col != 1:
        in_place = min(KC, k) * a.col * size <= _SMALL_BYTES or cols < _MANY_COLUMNS * width
    for run_number in range(runs):
        p = run_number * KC
        length = min(KC, k - p)
        beta_now = beta if run_number == 0 else cast_like(1.0, beta)
        last = run_number == runs - 1
        # tile after tile along a row of C needs no prefetch
        is_far = 1 if beta_now != 0 and rows * cols * size > _NEAR_BYTES and (c.vec != width or _PANEL_FIRST) else 0
        for j in range(0, cols, NC_BYTES // size):
            nc = min(NC_BYTES // size, cols - j)
            bias_j = bias + j // width * c.vec * size if last and bias != 0 else 0
            c_j = c.at + j // width * c.vec * size
            if b.vec > 0:
                slab = Mat(b.at + (j // width * b.vec + p * width) * size, width, 1, b.vec)
            elif b.col == 1 and nc % width == 0 and length * b.row * size <= _SMALL_BYTES:
                slab = Mat(b.at + (p * b.row + j) * size, b.row, 1, width)
            else:
                slab = Mat(scratch, width, 1, (KC + _PAD) * width)
                pack_columns(scratch, slab.vec, Mat(b.at + (p * b.row + j * b.col) * size, b.row, b.col, 0),
                             length, nc, alpha)
            for i in range(0, rows, MC):
                mc = min(MC, rows - i)
                wide = min(nc, i + mc - j) if lower else nc
                if wide <= 0:
                    continue
                a_i = Mat(a.at + (i * a.row + p * a.col) * size, a.row, a.col, 0)
                if not in_place:
                    if a.row == 1:
                        pack_copy(scratch + SLAB_BYTES, MC, Mat(a_i.at, a.col, 1, 0), length, mc, alpha)
                        a_i = Mat(scratch + SLAB_BYTES, 1, MC, 0)
                    else:
                        pack_copy(scratch + SLAB_BYTES, KC, a_i, mc, length, alpha)
                        a_i = Mat(scratch + SLAB_BYTES, KC, 1, 0)
                tile_loop(Mat(c_j + i * c.row * size, c.row, 1, c.vec), a_i, slab, mc, wide, length,
                          alpha, beta_now, bias_j, relu if last else 0, is_far)


@separate(lambda element: (INT, *[MATRIX] * 3, *[INT] * 3, element, INT, INT))
def transposed_kernel(scratch, c, a, b, rows, cols, k, alpha, bias, relu):
    """C (rows, cols) = epilogue(alpha A B) by one thread, as C.T = B.T A.T: the bits of `macro_kernel`.

    Rows of C and of B.T are contiguous, and C has at most `_MOST_ACROSS` vectors of rows. The micro-kernel broadcasts
    elements of B where they lie, and only A is packed. A block of C.T is summed up in the scratch.
    """
    width = lanes(alpha)
    size = VECTOR_BYTES // width
    vectors, zero, one = (rows + width - 1) // width, cast_like(0, alpha), cast_like(1, alpha)
    slab = Mat(scratch, width, 1, (KC + _PAD) * width)
    sums = Mat(scratch + vectors * slab.vec * size, vectors * width, 1, width)
    most = (scratch + SLAB_BYTES - sums.at) // (vectors * VECTOR_BYTES)
    for j in range(0, cols, most):
        high = min(most, cols - j)
        for p in range(0, k, KC):
            length = min(KC, k - p)
            pack_columns(scratch, slab.vec, Mat(a.at + p * a.col * size, a.col, a.row, 0), length, rows, alpha)
            tile_loop(sums, Mat(b.at + (j * b.col + p) * size, b.col, 1, 0), slab, high, vectors * width, length, alpha,
                      one if p > 0 else zero, 0, 0, 0)
        pack_copy(c.at + j * size, c.row, Mat(sums.at, 1, sums.row, 0), rows, high, alpha)
        for i in range(rows):
            row = vector_at(c.at + (i * c.row + j) * size, high, alpha)
            if bias != 0:
                added = vector_at(bias + j * size, high, alpha)
                for q in range(high):
                    row[q] += added[q]
            if relu:
                for q in range(high):
                    row[q] = zero if row[q] < zero else row[q]


@jit
def transposed_is_faster(m, n, k, width):
    """Whether `transposed_kernel` takes less time than packing B, in cycles for each step of k, as in `split`."""
    across, down = (m + width - 1) // width, (n + width - 1) // width
    return across <= _MOST_ACROSS and (n + 16) * across + 16 * m * down // max(1, k) < (m + 16) * down and k > 0


@jit
def partition(total, unit, part, parts):
    """Where part `part` of `parts` of range(total) starts; all but the end are multiples of `unit`."""
    units = (total + unit - 1) // unit
    return min(total, units * part // parts * unit)


@jit
def mirror(sync, threads, c, c_row, n, job, strips, alpha):
    """Fill the upper triangle of C (n, n) from the lower one; blocks of MC rows are whole up to the diagonal's own.

    Each thread has drawn one number too many for its strips: the jobs go on from `job`, which is that number less `strips`.
    """
    size = VECTOR_BYTES // lanes(alpha)
    barrier_at(sync, threads)
    while job * MC < n:  # rows of the upper triangle, each from a column of the lower
        i = job * MC
        high = min(MC, n - i)
        pack_copy(c + (i * c_row + i + high) * size, c_row, Mat(c + ((i + high) * c_row + i) * size, 1, c_row, 0),
                  high, n - i - high, alpha)
        job = next_job_at(sync) - strips
