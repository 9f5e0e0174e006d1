"""X X.T of 8-bit images, exactly: `pixel_gram`.

Their pixels are whole numbers u from 0 to 255, and X = (p u + o) / q with small integers, for instance u / 255 - 0.5. So

    q^2 (X X.T)[i, j] = p^2 sum(u_i u_j) + p o (sum(u_i) + sum(u_j)) + o^2 k

is a whole number. Its sums are exact in any order, and one division in float64 then rounds each element of X X.T correctly.
A CPU with instructions for products of bytes (VNNI on x86, DotProd on Arm) adds up four times as many products as it
does of float32. Others multiply numbers of 16 bits: on x86 twice as many. All get the same bits.
"""
import functools
from typing import NamedTuple

import llvmlite.ir as ir
import numpy as np
from fastnet.kernels.codegen.jit import jit, jit_exact
from fastnet.kernels.gemm.blocking import KC, MC, SLAB_BYTES, mirror, pack_columns, partition
from fastnet.kernels.records import Mat, vector_at
from fastnet.kernels.runtime.pool import least_work, next_job, run
from fastnet.kernels.simd import ADDRESS, ARM, MR, NV, VECTOR_BITS, VECTOR_BYTES, assembly, cast_like, lanes
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_LANES = VECTOR_BYTES // 4  # sums of 32 bits in a vector
_INT = ir.IntType(32)
_SUMS = ir.VectorType(_INT, _LANES)
_STRIP = 12  # vectors in the widest strip of columns, a multiple of NV
_WIDTH = _STRIP * VECTOR_BYTES  # bytes in a row of a block's sums
_RUN = 128  # groups of pixels: NV vectors of so many stay in the L1 cache
_MIDDLE = 128  # a pixel's code is u less this
_UNSIGNED = -0x7f7f7f80  # an exclusive or with it adds 128 to each of four signed bytes
_SAMPLED = 16  # pixels of a row that are looked at first


def _byte_products() -> tuple[str, ir.Type] | None:
    """LLVM's function that adds four products of bytes in each lane, and its operands' type.

    LLVM 22 has another type for x86's operands, and takes the one before it, too.
    """
    code = assembly(f"""
        define i32 @probe(<16 x i8> %a, <16 x i8> %b) {{
            %c = {"sext" if ARM else "zext"} <16 x i8> %a to <16 x i32>
            %d = sext <16 x i8> %b to <16 x i32>
            %products = mul <16 x i32> %c, %d
            %sum = call i32 @llvm.vector.reduce.add.v16i32(<16 x i32> %products)
            ret i32 %sum
        }}
        declare i32 @llvm.vector.reduce.add.v16i32(<16 x i32>)""")
    if ARM and "sdot" in code:
        return "llvm.aarch64.neon.sdot.v4i32.v16i8", ir.VectorType(ir.IntType(8), 16)
    return (f"llvm.x86.avx512.vpdpbusd.{VECTOR_BITS}", _SUMS) if "vpdpbusd" in code else None


BYTE_PRODUCTS = _byte_products()
GROUP, _CODE = (4, np.int8) if BYTE_PRODUCTS else (2, np.int16)  # pixels in a lane of 32 bits, and what a code is kept as
_SIGNED_COLUMNS = ARM or not BYTE_PRODUCTS  # x86 multiplies unsigned bytes by signed ones
_MOST = SLAB_BYTES // (NV * VECTOR_BYTES) * GROUP  # pixels of an image: the scratch must hold NV vectors of columns


def _add_products(builder, sums, columns, row):
    """Each lane's sum plus the products of its group: numbers of `columns` times those of `row`."""
    if BYTE_PRODUCTS:
        name, operand = BYTE_PRODUCTS
        kind = ir.FunctionType(_SUMS, [_SUMS, operand, operand])
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(function, [sums, builder.bitcast(columns, operand), builder.bitcast(row, operand)])
    pairs, wide = (ir.VectorType(ir.IntType(bits), 2 * _LANES) for bits in (16, 32))  # LLVM knows x86's pmaddwd by this
    products = builder.mul(*(builder.sext(builder.bitcast(value, pairs), wide) for value in (columns, row)))
    both = [builder.shuffle_vector(products, ir.Constant(wide, ir.Undefined),
                                   ir.Constant(_SUMS, list(range(first, 2 * _LANES, 2)))) for first in (0, 1)]
    return builder.add(sums, builder.add(*both))


@intrinsic
def code_tile(typingctx, c, c_row, a, a_row, b, b_vec, groups):
    """C += A B for one tile of MR x (NV * LANES) whole numbers of 32 bits.

    Parameters
    ----------
    c, c_row : int64
        Address of the tile, and the distance of its rows. Distances are in bytes here.
    a, a_row : int64
        MR rows of codes.
    b, b_vec : int64
        NV vector columns of codes: a lane holds neighbours of one column, four bytes or two numbers of 16 bits.
    groups : int64
        Of as many products, 1 or more.
    """
    def codegen(context, builder, signature, arguments):
        def step(base, distance, count):
            return builder.add(base, builder.mul(distance, ir.Constant(ADDRESS, count)))

        def read(address, kind):
            return builder.load(builder.inttoptr(address, kind.as_pointer()), align=4)

        c, c_row, a, a_row, b, b_vec, groups = arguments
        one, undefined = ir.Constant(ADDRESS, 1), ir.Constant(_SUMS, ir.Undefined)
        at = [(i, v) for i in range(MR) for v in range(NV)]
        a_rows, b_vecs = [step(a, a_row, i) for i in range(MR)], [step(b, b_vec, v) for v in range(NV)]
        c_at = {(i, v): step(step(c, c_row, i), one, v * VECTOR_BYTES) for i, v in at}
        old = {place: read(c_at[place], _SUMS) for place in at}
        before = builder.block
        loop, after = builder.append_basic_block("bytes.loop"), builder.append_basic_block("bytes.after")
        builder.branch(loop)
        builder.position_at_end(loop)
        p = builder.phi(ADDRESS)
        sums = {place: builder.phi(_SUMS) for place in at}
        columns = [read(step(address, p, VECTOR_BYTES), _SUMS) for address in b_vecs]
        new = {}
        for i in range(MR):
            group = builder.insert_element(undefined, read(step(a_rows[i], p, 4), _INT), ir.Constant(_INT, 0))
            group = builder.shuffle_vector(group, undefined, ir.Constant(_SUMS, [0] * _LANES))
            for v in range(NV):
                new[i, v] = _add_products(builder, sums[i, v], columns[v], group)
        following = builder.add(p, one)
        builder.cbranch(builder.icmp_signed("<", following, groups), loop, after)
        for value, first, then in ((p, ir.Constant(ADDRESS, 0), following), *((sums[q], old[q], new[q]) for q in at)):
            value.add_incoming(first, before)
            value.add_incoming(then, loop)
        builder.position_at_end(after)
        for place in at:
            builder.store(new[place], builder.inttoptr(c_at[place], _SUMS.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), codegen


# --- sums of products for MC rows and a strip of columns: whole numbers of 32 bits in rows of _WIDTH bytes ---------------


@jit
def _pack_codes(scratch, codes, row, j, cols, k):
    """Columns j to j + cols, for `code_tile`: a group in 32 bits is packed as a float32 number is."""
    groups = (k + GROUP - 1) // GROUP
    pack_columns(scratch, groups * _LANES, Mat(codes + j * row, 1, row // 4, 0), groups, cols, np.float32(1))
    if _SIGNED_COLUMNS:
        return
    bits = vector_at(scratch, (cols + _LANES - 1) // _LANES * _LANES * groups, np.int32(0))
    for p in range(bits.size):
        bits[p] ^= np.int32(_UNSIGNED)


@jit
def _sum_block(scratch, sums, codes, row, i, rows, cols, k):
    """Sums of products of the codes of `rows` rows from i on and the packed columns."""
    groups = (k + GROUP - 1) // GROUP
    column = groups * VECTOR_BYTES
    block = vector_at(sums, (MC + MR) * _WIDTH // 4, np.int32(0))
    block[:] = np.int32(0)
    for p in range(0, groups, _RUN):
        for v in range(0, (cols + _LANES - 1) // _LANES, NV):
            for r in range(0, rows, MR):
                code_tile(sums + r * _WIDTH + v * VECTOR_BYTES, _WIDTH, codes + (i + r) * row + 4 * p, row,
                          scratch + v * column + p * VECTOR_BYTES, column, min(_RUN, groups - p))


@jit
def gram_kernel(thread, threads, sync, scratch, g, g_row, codes, row, n, k, of_rows, of_columns, square, divisor, one):
    """G (n, n) = (square * sums + of_rows + of_columns) / divisor: strips of the lower triangle, then the upper one."""
    size = VECTOR_BYTES // lanes(one)
    room = SLAB_BYTES // ((k + GROUP - 1) // GROUP * VECTOR_BYTES)  # vector columns that the scratch holds
    strip = min(_STRIP, room, max(NV, n // (4 * threads * _LANES))) // NV * NV * _LANES
    strips = (n + strip - 1) // strip
    sums = scratch + SLAB_BYTES + 4 * MC * KC
    job = next_job(sync)
    while job < strips:  # the longest first
        j = job * strip
        _pack_codes(scratch, codes, row, j, min(strip, n - j), k)
        for i in range(j // MC * MC, n, MC):
            rows, cols = min(MC, n - i), min(strip, n - j, i + MC - j)
            _sum_block(scratch, sums, codes, row, i, rows, cols, k)
            for r in range(rows):
                to, found = g + ((i + r) * g_row + j) * size, sums + r * _WIDTH
                _scaled(vector_at(to, cols, one), vector_at(found, cols, np.int32(0)), of_rows[i + r],
                        of_columns[j:j + cols], square, divisor)
        job = next_job(sync)
    mirror(sync.ctypes.data, threads, g, g_row, n, job - strips, strips, one)


@jit_exact
def _scaled(to, sums, of_row, of_columns, square, divisor):
    """All but the quotient is a whole number below 2^53. No tie in float32 is as near to it as float64 rounds."""
    for q in range(to.size):
        to[q] = cast_like((square * np.float64(sums[q]) + (of_row + of_columns[q])) / divisor, to[q])


# --- recognising them -------------------------------------------------------------------------------------------------


class Scale(NamedTuple):
    """How pixels are scaled: x = (p u + o) / q, as a table of x for u = 0 to 255."""

    p: int
    o: int
    q: int
    table: np.ndarray


@functools.cache
def _scales(dtype: np.dtype) -> tuple[list[Scale], np.ndarray]:
    """The scales that are known, as computed in float64 and in `dtype`; and all of their values, sorted."""
    found = []
    for kind in {np.float64, dtype.type}:
        u, half, one = np.arange(256, dtype=kind), kind(0.5), kind(1)
        found += [Scale(2, -255, 510, (u / kind(255) - half).astype(dtype)), Scale(1, 0, 255, (u / kind(255)).astype(dtype)),
                  Scale(2, -255, 255, (u / kind(127.5) - one).astype(dtype)), Scale(1, 0, 1, u.astype(dtype))]
    return found, np.unique([scale.table for scale in found])


@jit
def read_kernel(thread, threads, sync, scratch, codes, x, x_row, k, table, totals, wrong):
    """Codes of X (n, k), and the sum of each row's u; `wrong` becomes 1 if there is an x that `table` has not."""
    low, high, one = table[0], table[255], table[1]
    scale, half, n = cast_like(255, one) / (high - low), cast_like(0.5, one), totals.size
    for i in range(partition(n, 1, thread, threads), partition(n, 1, thread + 1, threads)):
        if wrong[0]:
            return
        source, to, total, differ = vector_at(x + i * x_row * table.itemsize, k, one), codes[i], np.int32(0), np.int32(0)
        for p in range(k):
            value = source[p] if source[p] >= low and source[p] <= high else high
            to[p] = np.int32((value - low) * scale + half) - _MIDDLE
        for p in range(k):  # a separate loop that writes nothing, or it would not run in vectors
            u = np.int32(to[p]) + np.int32(_MIDDLE)
            total += u
            differ |= np.int32(table[np.uint32(u)] != source[p])
        totals[i] = total
        if differ:
            wrong[0] = 1


def pixel_gram(g: np.ndarray, x: np.ndarray) -> bool:
    """G = X X.T, correctly rounded, if X is of 8-bit images; if not, nothing is done.

    Every element of X must be u, u / 255, u / 255 - 0.5 or u / 127.5 - 1 to the bit, with the same formula for all.

    Parameters
    ----------
    g : ndarray, shape (n, n)
        Overwritten. Its rows are contiguous.
    x : ndarray, shape (n, k)
        float32 or float64, as `g`.

    Returns
    -------
    bool
        Whether G has been written.
    """
    n, k = x.shape
    if not (n and 0 < k <= _MOST):
        return False
    scales, known = _scales(x.dtype)
    sample = x[[0, n // 2, -1], ::-(-k // _SAMPLED)]
    if not _within(sample, known):
        return False
    x = np.require(x, requirements="A") if x.strides[1] == x.itemsize and x.strides[0] % x.itemsize == 0 else x.copy("C")
    least = 1 if n * n * k < least_work() else None
    for p, o, q, table in scales:
        if not _within(sample, table):
            continue
        codes, row = _room(n, k)
        totals, wrong = np.empty(n, np.int64), np.zeros(1, np.int64)
        run(read_kernel, codes, _address(x), x.strides[0] // x.itemsize, k, table, totals, wrong, threads=least)
        if wrong[0]:
            continue
        # sums of (u_i - 128) u_j lack 128 sum(u_j); those of (u_i - 128) (u_j - 128) lack 128 sum(u_i) - 128^2 k as well
        lacking = _MIDDLE * p * p if _SIGNED_COLUMNS else 0
        of_rows = (p * o + lacking) * totals
        of_columns = (p * o + _MIDDLE * p * p) * totals + (o * o - _MIDDLE * lacking) * k
        run(gram_kernel, _address(g), g.strides[0] // g.itemsize, _address(codes), row, n, k, of_rows.astype(np.float64),
            of_columns.astype(np.float64), float(p * p), float(q * q), x.dtype.type(1), threads=least)
        return True
    return False


def _within(sample: np.ndarray, known: np.ndarray) -> bool:
    """Whether all elements are among those of a sorted vector."""
    return bool((known[np.minimum(np.searchsorted(known, sample), known.size - 1)] == sample).all())


def _room(n: int, k: int) -> tuple[np.ndarray, int]:
    """For codes, with rows to spare that `code_tile` may read; and the distance of rows, in bytes."""
    row = -(-k * np.dtype(_CODE).itemsize // VECTOR_BYTES) * VECTOR_BYTES
    row += VECTOR_BYTES if row % 1024 == 0 else 0  # or rows would evict each other from the L1 cache
    return np.zeros((n + MR, row // np.dtype(_CODE).itemsize), _CODE), row


def _address(a: np.ndarray) -> int:
    return a.__array_interface__["data"][0]
