"""What layers have done to arrays: products, sums and steps, recorded by compiled code and executed by all threads.

A layer's call is one call of one of the functions at the end of this file. It looks at the shapes, writes a *job*, which is
a list of `COMMAND` records, into the thread context, and has the threads execute it without going back to Python. Arrays of
every layout are of one type here (strides are read, nothing is copied), so that each dtype has one compiled version. What
such a function does not know (an odd shape, a dtype mixed with another, a machine not made ready) it refuses, with
False or TypeError, before it has changed anything: then the layer checks everything and says what is wrong, or converts.
"""
import ctypes
import struct

import numpy as np
from fastnet.kernels.codegen.jit import jit, jit_exact
from fastnet.kernels.codegen.linking import INT, AddressedKernel, address_of, command_kernel, pays, separate, thread_kernel
from fastnet.kernels.gemm.blocking import KC, MC, NC_BYTES, macro_kernel, mirror, pack_columns, partition
from fastnet.kernels.gemm.product import gemm, plain_gemm
from fastnet.kernels.gemm.sparse import sparse_kernel
from fastnet.kernels.layout import for_dtypes, make_ready
from fastnet.kernels.records import COMMAND, Mat, call_at, command_at, vector_at
from fastnet.kernels.runtime.pool import (
    SCRATCH_BYTES,
    UNLIMITED,
    next_job_at,
    run_at,
    run_compiled,
    start_workers,
    thread_context,
)
from fastnet.kernels.runtime.state import THREAD_CONTEXT
from fastnet.kernels.simd import VECTOR_BYTES, cast_like, lanes, load, load_int, store, store_int
from numba import types

_FEW = 4  # rows of C below which packing B would cost more than the product
_NARROW = 12  # columns of C below which dot products are quicker, if the rows of A and of B.T are contiguous
_STRIP = 1024  # elements of a row of C that stay in L1 cache while rows of B are added to them
COMMAND_BYTES = COMMAND.itemsize
_JOB_OF_ONE = struct.Struct("q" + "".join("d" if COMMAND[name].kind == "f" else "q" for name in COMMAND.names or ()))
BIAS_BYTES = 1 << 16  # at the end of the scratch, which products leave alone
_SGD_WORK = 8  # multiply-adds in the time of one element of a step


# --- records ----------------------------------------------------------------------------------------------------------


@jit
def add_product(job, kernel, c, c_row, a, a_row, a_k, b, b_k, b_col, b_vec, m, n, k, alpha, beta, bias, relu):
    """Add a product to a job, for `product` or `few_rows`; arguments as of `blocking.gemm`."""
    command = _new(job, kernel, alpha)
    command.c, command.c_row, command.a, command.a_row, command.a_k = c, c_row, a, a_row, a_k
    command.b, command.b_k, command.b_col, command.b_vec = b, b_k, b_col, b_vec
    command.m, command.n, command.k = m, n, k
    command.alpha, command.beta, command.bias, command.relu = alpha, beta, bias, relu


@jit
def add_column_sums(job, out, a, a_row, a_col, rows, cols, one):
    """Add to a job: out = column sums of A (rows, cols)."""
    command = _new(job, address_of(column_sums, one), one)
    command.c, command.a, command.a_row, command.a_k, command.m, command.n = out, a, a_row, a_col, rows, cols


@jit
def add_sgd(job, out, W, dW, size, lr):
    """Add to a job: out = W - lr dW for `size` contiguous elements."""
    command = _new(job, address_of(sgd, lr), lr)
    command.c, command.a, command.b, command.n, command.alpha = out, W, dW, size, lr


@jit
def _new(job, kernel, like):
    number = load_int(job)
    store_int(job, number + 1)
    command = command_at(job + 8 + number * COMMAND_BYTES)
    command.kernel, command.double = kernel, VECTOR_BYTES // lanes(like) // 8
    return command


def execute_one(kernel: AddressedKernel, dtype: np.dtype, work: int, c: int, c_row: int, a: int = 0, a_row: int = 0,
                a_k: int = 0, b: int = 0, b_k: int = 0, b_col: int = 0, b_vec: int = 0, m: int = 0, n: int = 0, k: int = 0,
                alpha: float = 0.0, beta: float = 0.0, bias: int = 0, relu: int = 0) -> None:
    """Have the threads execute one command, with these fields; `work` is its number of multiply-adds.

    The command has memory of its own: a signal handler or a finalizer may call fastnet before the threads begin.
    """
    packed = _JOB_OF_ONE.pack(1, kernel.address(dtype), dtype.itemsize // 8, c, c_row, a, a_row, a_k, b, b_k, b_col, b_vec,
                              m, n, k, alpha, beta, bias, relu)
    job = ctypes.create_string_buffer(packed, len(packed))
    run_at(execute.address(), ctypes.addressof(job), None, work)


# --- what threads do --------------------------------------------------------------------------------------------------


@thread_kernel
def execute(thread, threads, sync, scratch, job):
    """Execute the commands of a job, this thread's part of each; no command reads what another writes."""
    for number in range(load_int(job)):
        at = job + 8 + number * COMMAND_BYTES
        command = command_at(at)
        if command.double:
            call_at(command.kernel, thread, threads, sync, scratch, at, 1.0)
        else:
            call_at(command.kernel, thread, threads, sync, scratch, at, np.float32(1))


@command_kernel
def product(thread, threads, sync, scratch, command, one):
    """C = relu(alpha A B + beta C + bias)."""
    o = command_at(command)
    gemm(thread, threads, sync, scratch, o.c, o.c_row, lanes(one), o.a, o.a_row, o.a_k, o.b, o.b_k, o.b_col, o.b_vec, o.m,
         o.n, o.k, cast_like(o.alpha, one), cast_like(o.beta, one), o.bias, o.relu)


@command_kernel
def plain_product(thread, threads, sync, scratch, command, one):
    """`product` by `plain_gemm`: the same bits."""
    o = command_at(command)
    plain_gemm(thread, threads, scratch, o.c, o.c_row, lanes(one), o.a, o.a_row, o.a_k, o.b, o.b_k, o.b_col, o.b_vec, o.m,
               o.n, o.k, cast_like(o.alpha, one), cast_like(o.beta, one), o.bias, o.relu)


@command_kernel
def few_rows(thread, threads, sync, scratch, command, one):
    """C = A B + bias; a few rows or columns of C are computed without packing B."""
    o = command_at(command)
    width, m, n, k = lanes(one), o.m, o.n, o.k
    size = VECTOR_BYTES // width
    few, narrow = m < _FEW and k > 1, n < _NARROW and k > 1
    if (few or narrow) and o.b_k == 1 and o.a_k == 1:
        i0, i1, j0, j1 = 0, m, 0, n
        if few:
            j0, j1 = partition(n, 8 * width, thread, threads), partition(n, 8 * width, thread + 1, threads)
        else:
            i0, i1 = partition(m, 1, thread, threads), partition(m, 1, thread + 1, threads)
        _dots(o.c + i0 * o.c_row * size, o.c_row, o.a + i0 * o.a_row * size, o.a_row, o.b, o.b_col, i1 - i0, j0, j1, k,
              o.bias, one)
    elif few and o.b_col == 1 and o.bias == 0:
        j0, j1 = partition(n, width, thread, threads), partition(n, width, thread + 1, threads)
        _sums_of_rows(scratch, o.c, o.c_row, o.a, o.a_row, o.a_k, o.b, o.b_k, m, j0, j1, k, one)
    else:
        gemm(thread, threads, sync, scratch, o.c, o.c_row, width, o.a, o.a_row, o.a_k, o.b, o.b_k, o.b_col, o.b_vec, m, n, k,
             cast_like(o.alpha, one), cast_like(o.beta, one), o.bias, o.relu)


@command_kernel
def gram_product(thread, threads, sync, scratch, command, one):
    """C (n, n) = A A.T: strips of the lower triangle, each computed by the next free thread, then mirrored."""
    o = command_at(command)
    c, c_row, a, a_row, n = o.c, o.c_row, o.a, o.a_row, o.n
    width = lanes(one)
    size = VECTOR_BYTES // width
    # several strips a thread, so that all end together; wide ones, since each packs all rows of A below it
    strip = min(NC_BYTES // size // MC, max(1, n // (4 * threads * MC))) * MC
    strips = (n + strip - 1) // strip
    job = next_job_at(sync)
    while job < strips:  # the longest first
        j = job * strip
        a_j = a + j * a_row * size
        macro_kernel(scratch, Mat(c + (j * c_row + j) * size, c_row, 1, width), Mat(a_j, a_row, o.a_k, 0),
                     Mat(a_j, o.a_k, a_row, 0), n - j, min(strip, n - j), o.k, one, one - one, 0, 0, 1)
        job = next_job_at(sync)
    mirror(sync, threads, c, c_row, n, job - strips, strips, one)


@command_kernel
def packing(thread, threads, sync, scratch, command, one):
    """C = B in vector columns, which lie `c_row` elements apart: `blocking.pack_columns`."""
    o = command_at(command)
    width = lanes(one)
    size = VECTOR_BYTES // width
    j0, j1 = partition(o.n, width, thread, threads), partition(o.n, width, thread + 1, threads)
    pack_columns(o.c + j0 // width * o.c_row * size, o.c_row, Mat(o.b + j0 * o.b_col * size, o.b_k, o.b_col, 0), o.k,
                 j1 - j0, one)


@command_kernel
def column_sums(thread, threads, sync, scratch, command, one):
    """C = column sums of A (m, n); the columns of A are `a_k` apart."""
    o = command_at(command)
    width, a_row, a_col = lanes(one), o.a_row, o.a_k
    size = VECTOR_BYTES // width
    j0, j1 = partition(o.n, width, thread, threads), partition(o.n, width, thread + 1, threads)
    sums = vector_at(o.c + j0 * size, j1 - j0, one)
    for j in range(sums.size):
        sums[j] = cast_like(0, one)
    for i in range(o.m):
        at = o.a + (i * a_row + j0 * a_col) * size
        if a_col == 1:
            row = vector_at(at, j1 - j0, one)
            for j in range(sums.size):
                sums[j] += row[j]
        else:
            for j in range(sums.size):
                sums[j] += load(at + j * a_col * size, one)


@command_kernel
def sgd(thread, threads, sync, scratch, command, one):
    """C = A - alpha B for n contiguous elements."""
    o = command_at(command)
    width = lanes(one)
    size = VECTOR_BYTES // width
    first, last = partition(o.n, 8 * width, thread, threads), partition(o.n, 8 * width, thread + 1, threads)
    to, old = vector_at(o.c + first * size, last - first, one), vector_at(o.a + first * size, last - first, one)
    step, lr = vector_at(o.b + first * size, last - first, one), cast_like(o.alpha, one)
    for i in range(to.size):
        to[i] = old[i] - lr * step[i]


@separate(lambda element: (*[INT] * 11, element))
def _dots(c, c_row, a, a_row, b, b_col, m, j0, j1, k, bias, like):
    """Columns j0:j1 of C = A B + bias, where B.T has contiguous rows: each element is the dot product of two rows.

    j0 is a multiple of 4, and j1 as well unless it is the last: so an element is summed in the same way by any thread.
    """
    size = VECTOR_BYTES // lanes(like)
    whole = j1 - (j1 - j0) % 4
    for i in range(m):
        row = vector_at(a + i * a_row * size, k, like)
        out = c + i * c_row * size
        for j in range(j0, whole, 4):
            b0, b1 = vector_at(b + j * b_col * size, k, like), vector_at(b + (j + 1) * b_col * size, k, like)
            b2, b3 = vector_at(b + (j + 2) * b_col * size, k, like), vector_at(b + (j + 3) * b_col * size, k, like)
            s0, s1, s2, s3 = cast_like(0, like), cast_like(0, like), cast_like(0, like), cast_like(0, like)
            for p in range(k):
                s0 += row[p] * b0[p]
                s1 += row[p] * b1[p]
                s2 += row[p] * b2[p]
                s3 += row[p] * b3[p]
            store(out + j * size, _plus_bias(s0, bias, j, like))
            store(out + (j + 1) * size, _plus_bias(s1, bias, j + 1, like))
            store(out + (j + 2) * size, _plus_bias(s2, bias, j + 2, like))
            store(out + (j + 3) * size, _plus_bias(s3, bias, j + 3, like))
        for j in range(whole, j1):
            column, total = vector_at(b + j * b_col * size, k, like), cast_like(0, like)
            for p in range(k):
                total += row[p] * column[p]
            store(out + j * size, _plus_bias(total, bias, j, like))


@jit
def _plus_bias(value, bias, j, like):
    return value + load(bias + j * (VECTOR_BYTES // lanes(like)), like) if bias != 0 else value


@separate(lambda element: (*[INT] * 12, element))
def _sums_of_rows(scratch, c, c_row, a, a_row, a_k, b, b_k, m, j0, j1, k, like):
    """Columns j0:j1 of C = A B, where B has contiguous rows: they are added up as `macro_kernel` does, the same bits."""
    size = VECTOR_BYTES // lanes(like)
    for start in range(j0, j1, _STRIP):
        sums = vector_at(scratch, min(_STRIP, j1 - start), like)
        for i in range(m):
            out = vector_at(c + (i * c_row + start) * size, sums.size, like)
            for p in range(0, k, KC):
                for j in range(sums.size):
                    sums[j] = cast_like(0, like)
                _add_rows(sums, a + (i * a_row + p * a_k) * size, a_k * size, b + (p * b_k + start) * size, b_k * size,
                          min(KC, k - p), like)
                if p == 0:
                    for j in range(sums.size):
                        out[j] = sums[j]
                else:
                    for j in range(sums.size):
                        out[j] += sums[j]


@jit_exact
def _add_rows(sums, a, a_step, b, b_step, k, like):
    """Add k rows at b, each times its number at a, in this order; four a pass. Steps are in bytes."""
    for _ in range(k // 4):
        w0, w1, w2, w3 = load(a, like), load(a + a_step, like), load(a + 2 * a_step, like), load(a + 3 * a_step, like)
        b0, b1 = vector_at(b, sums.size, like), vector_at(b + b_step, sums.size, like)
        b2, b3 = vector_at(b + 2 * b_step, sums.size, like), vector_at(b + 3 * b_step, sums.size, like)
        for j in range(sums.size):
            sums[j] = (((sums[j] + w0 * b0[j]) + w1 * b1[j]) + w2 * b2[j]) + w3 * b3[j]
        a += 4 * a_step
        b += 4 * b_step
    for _ in range(k % 4):
        w0, b0 = load(a, like), vector_at(b, sums.size, like)
        for j in range(sums.size):
            sums[j] += w0 * b0[j]
        a += a_step
        b += b_step


# --- for callers with arrays ------------------------------------------------------------------------------------------


@jit
def _begin(context):
    """An empty job in the thread context."""
    store_int(context + THREAD_CONTEXT.job, 0)
    return context + THREAD_CONTEXT.job


@jit
def _finish(context, work):
    """Have the threads execute the job; False if they cannot yet."""
    return run_compiled(context, address_of(execute, None), context + THREAD_CONTEXT.job, UNLIMITED, work)


@jit
def _regular(a):
    """Whether the elements of a matrix are whole steps apart."""
    return a.strides[0] % a.itemsize == 0 and a.strides[1] % a.itemsize == 0


def _written(t):
    return types.Array(t, 2, "C")


def _read(t):
    return types.Array(t, 2, "A", readonly=True)


def _read_flat(t):
    return types.Array(t, 2, "C", readonly=True)


@for_dtypes(lambda t: (_written(t), _read(t), _read(t), _read(t), types.int64, types.int64))
def forward_job(y, x, W, b, n_i, context):
    """y = x W.T + b (3.7)."""
    n, n_o = y.shape
    like = W.dtype.type(0)
    size = W.itemsize
    if n == 0 or x.shape != (n, n_i) or W.shape != (n_o, n_i) or b.shape != (1, n_o):
        return False
    if n_o * size > BIAS_BYTES - VECTOR_BYTES or not (_regular(x) and _regular(W)):
        return False
    bias = context + SCRATCH_BYTES - BIAS_BYTES  # whole vectors of it are read
    for j in range(n_o):
        store(bias + j * size, b[0, j])
    add_product(_begin(context), address_of(few_rows, like), y.ctypes.data, n_o, x.ctypes.data, x.strides[0] // size,
                x.strides[1] // size, W.ctypes.data, W.strides[1] // size, W.strides[0] // size, 0, n, n_o, n_i,
                cast_like(1, like), cast_like(0, like), bias, 0)
    return _finish(context, n * n_o * n_i)


@for_dtypes(lambda t: (*[_written(t)] * 3, *[_read(t)] * 3, *[types.int64] * 3))
def backward_job(dx, dW, db, dy, x, W, n_i, n_o, context):
    """dx = dy W, dW = dy.T x, db = column sums of dy (3.9)."""
    n = x.shape[0]
    like = W.dtype.type(0)
    size = W.itemsize
    one, zero = cast_like(1, like), cast_like(0, like)
    if n == 0 or x.shape != (n, n_i) or dy.shape != (n, n_o) or W.shape != (n_o, n_i):
        return False
    if dx.shape != (n, n_i) or dW.shape != (n_o, n_i) or db.shape != (1, n_o):
        return False
    if not (_regular(x) and _regular(W) and _regular(dy)):
        return False
    dy_at, dy_row, dy_col = dy.ctypes.data, dy.strides[0] // size, dy.strides[1] // size
    if pays(sparse_kernel, 3 * n * n_o * n_i, like):
        return False
    job = _begin(context)
    add_product(job, address_of(few_rows, like), dx.ctypes.data, n_i, dy_at, dy_row, dy_col, W.ctypes.data,
                W.strides[0] // size, W.strides[1] // size, 0, n, n_i, n_o, one, zero, 0, 0)
    add_product(job, address_of(product, like), dW.ctypes.data, n_i, dy_at, dy_col, dy_row, x.ctypes.data,
                x.strides[0] // size, x.strides[1] // size, 0, n_o, n_i, n, one, zero, 0, 0)
    add_column_sums(job, db.ctypes.data, dy_at, dy_row, dy_col, n, n_o, one)
    return _finish(context, 2 * n * n_o * n_i)


@for_dtypes(lambda t: (*[_written(t), _read_flat(t), _read_flat(t)] * 2, types.float64, *[types.int64] * 3))
def sgd_job(new_W, W, dW, new_b, b, db, lr, n_i, n_o, context):
    """new_W = W - lr dW, new_b = b - lr db (3.10, 3.11)."""
    like = W.dtype.type(0)
    shape, row = (n_o, n_i), (1, n_o)
    if new_W.shape != shape or W.shape != shape or dW.shape != shape:
        return False
    if new_b.shape != row or b.shape != row or db.shape != row:
        return False
    job = _begin(context)
    add_sgd(job, new_W.ctypes.data, W.ctypes.data, dW.ctypes.data, W.size, cast_like(lr, like))
    add_sgd(job, new_b.ctypes.data, b.ctypes.data, db.ctypes.data, b.size, cast_like(lr, like))
    return _finish(context, _SGD_WORK * W.size)


def attempt(entry, dtype: np.dtype, *args) -> bool:
    """Call one of the functions above with arrays of a dtype, compiling it if need be; whether it did its work."""
    for again in (False, True):
        try:
            if entry(*args, thread_context()):
                return True
        except TypeError:  # not compiled, or not for such arrays
            pass
        if not again:
            make_ready(entry, dtype)
            sparse_kernel.expect(dtype)
            start_workers()
    return False
