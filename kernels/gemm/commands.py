"""What layers have done to arrays: products, sums and steps, recorded by compiled code and executed by all threads.

A layer's call is one call of one of the functions at the end of this file. It looks at the shapes, writes a *job*, which is
a list of `COMMAND` records, into the thread context, and has the threads execute it without going back to Python. Arrays of
every layout are of one type here (strides are read, nothing is copied), so that each dtype has one compiled version. What
such a function does not know (an odd shape, a dtype mixed with another, a machine not made ready) it refuses, with
False or TypeError, before it has changed anything: then the layer checks everything and says what is wrong, or converts.
"""

import numpy as np
from fastnet.kernels.codegen.jit import jit, jit_exact
from fastnet.kernels.codegen.linking import INT, address_of, separate, thread_kernel
from fastnet.kernels.gemm.blocking import KC, gemm, partition
from fastnet.kernels.layout import for_dtypes, make_ready
from fastnet.kernels.records import COMMAND, command_at
from fastnet.kernels.runtime.pool import (
    ALONE,
    JOB,
    LEAST,
    PACE,
    SCRATCH_BYTES,
    caller,
    run_compiled,
    start_workers,
)
from fastnet.kernels.runtime.wait import clock
from fastnet.kernels.simd import (
    VECTOR_BYTES,
    cast_like,
    lanes,
    load,
    load_int,
    pointer_at,
    store,
    store_int,
)
from numba import carray, types

# Kinds of commands: C = relu(alpha A B + beta C + bias); C = A B + bias, where a few rows or columns of C are computed
# without packing B; and what their names say
PRODUCT, FEW_ROWS, COLUMN_SUMS, SGD = range(4)

_FEW = 4  # rows of C below which packing B would cost more than the product
_NARROW = 12  # columns of C below which dot products are quicker, if the rows of A and of B.T are contiguous
_STRIP = 1024  # elements of a row of C that stay in L1 cache while rows of B are added to them
COMMAND_BYTES = COMMAND.itemsize
BIAS_BYTES = 1 << 16  # at the end of the scratch, which products leave alone
_SHORT = 1 << 26  # multiply-adds that take few milliseconds: no longer than a worker may wait for its core
_SGD_WORK = 8  # multiply-adds in the time of one element of a step


# --- records ----------------------------------------------------------------------------------------------------------


@jit
def add_product(job, kind, c, c_row, a, a_row, a_k, b, b_k, b_col, b_vec, m, n, k, alpha, beta, bias, relu):
    """Add a product to a job; arguments as of `blocking.gemm`."""
    command = _new(job, kind)
    command.c, command.c_row, command.a, command.a_row, command.a_k = c, c_row, a, a_row, a_k
    command.b, command.b_k, command.b_col, command.b_vec = b, b_k, b_col, b_vec
    command.m, command.n, command.k = m, n, k
    command.alpha, command.beta, command.bias, command.relu = alpha, beta, bias, relu


@jit
def add_column_sums(job, out, a, a_row, a_col, rows, cols):
    """Add to a job: out = column sums of A (rows, cols)."""
    command = _new(job, COLUMN_SUMS)
    command.c, command.a, command.a_row, command.a_k, command.m, command.n = out, a, a_row, a_col, rows, cols


@jit
def add_sgd(job, out, W, dW, size, lr):
    """Add to a job: out = W - lr dW for `size` contiguous elements."""
    command = _new(job, SGD)
    command.c, command.a, command.b, command.n, command.alpha = out, W, dW, size, lr


@jit
def _new(job, kind):
    number = load_int(job)
    store_int(job, number + 1)
    command = command_at(job + 8 + number * COMMAND_BYTES)
    command.kind = kind
    return command


# --- what threads do --------------------------------------------------------------------------------------------------


@jit
def _work(thread, threads, sync, scratch, job, like):
    """Work off a job, this thread's part of each record; no record reads what another writes."""
    width = lanes(like)
    size = VECTOR_BYTES // width
    for number in range(load_int(job)):
        o = command_at(job + 8 + number * COMMAND_BYTES)
        kind, c, a, b, m, n, k = o.kind, o.c, o.a, o.b, o.m, o.n, o.k
        c_row, a_row, a_k = o.c_row, o.a_row, o.a_k
        if kind == PRODUCT or kind == FEW_ROWS:
            b_k, b_col, b_vec, bias, relu = o.b_k, o.b_col, o.b_vec, o.bias, o.relu
            alpha, beta = cast_like(o.alpha, like), cast_like(o.beta, like)
            few, narrow = kind == FEW_ROWS and m < _FEW and k > 1, kind == FEW_ROWS and n < _NARROW and k > 1
            j0, j1 = partition(n, width, thread, threads), partition(n, width, thread + 1, threads)
            if (few or narrow) and b_k == 1 and a_k == 1:
                i0, i1 = 0, m
                if few:
                    j0, j1 = partition(n, 8 * width, thread, threads), partition(n, 8 * width, thread + 1, threads)
                else:
                    i0, i1, j0, j1 = partition(m, 1, thread, threads), partition(m, 1, thread + 1, threads), 0, n
                _dots(c + i0 * c_row * size, c_row, a + i0 * a_row * size, a_row, b, b_col, i1 - i0, j0, j1, k, bias, like)
            elif few and b_col == 1 and bias == 0:
                _sums_of_rows(scratch, c, c_row, a, a_row, a_k, b, b_k, m, j0, j1, k, like)
            else:
                gemm(thread, threads, sync, scratch, c, c_row, width, a, a_row, a_k, b, b_k, b_col, b_vec, m, n, k,
                     alpha, beta, bias, relu)
        elif kind == COLUMN_SUMS:
            j0, j1 = partition(n, width, thread, threads), partition(n, width, thread + 1, threads)
            _column_sums(c, a, a_row, a_k, m, j0, j1, like)
        else:
            j0, j1 = partition(n, 8 * width, thread, threads), partition(n, 8 * width, thread + 1, threads)
            _sgd(c, a, b, j0, j1, cast_like(o.alpha, like))


@jit
def _array(address, size, like):
    """The elements at an address as an array."""
    return carray(pointer_at(address, like), (size,))


@separate(lambda element: (*[INT] * 11, element))
def _dots(c, c_row, a, a_row, b, b_col, m, j0, j1, k, bias, like):
    """Columns j0:j1 of C = A B + bias, where B.T has contiguous rows: each element is the dot product of two rows.

    j0 is a multiple of 4, and j1 as well unless it is the last: so an element is summed in the same way by any thread.
    """
    size = VECTOR_BYTES // lanes(like)
    whole = j1 - (j1 - j0) % 4
    for i in range(m):
        row = _array(a + i * a_row * size, k, like)
        out = c + i * c_row * size
        for j in range(j0, whole, 4):
            b0, b1 = _array(b + j * b_col * size, k, like), _array(b + (j + 1) * b_col * size, k, like)
            b2, b3 = _array(b + (j + 2) * b_col * size, k, like), _array(b + (j + 3) * b_col * size, k, like)
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
            column, total = _array(b + j * b_col * size, k, like), cast_like(0, like)
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
        sums = _array(scratch, min(_STRIP, j1 - start), like)
        for i in range(m):
            out = _array(c + (i * c_row + start) * size, sums.size, like)
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
        b0, b1 = _array(b, sums.size, like), _array(b + b_step, sums.size, like)
        b2, b3 = _array(b + 2 * b_step, sums.size, like), _array(b + 3 * b_step, sums.size, like)
        for j in range(sums.size):
            sums[j] = (((sums[j] + w0 * b0[j]) + w1 * b1[j]) + w2 * b2[j]) + w3 * b3[j]
        a += 4 * a_step
        b += 4 * b_step
    for _ in range(k % 4):
        w0, b0 = load(a, like), _array(b, sums.size, like)
        for j in range(sums.size):
            sums[j] += w0 * b0[j]
        a += a_step
        b += b_step


@separate(lambda element: (*[INT] * 7, element))
def _column_sums(out, a, a_row, a_col, rows, j0, j1, like):
    size = VECTOR_BYTES // lanes(like)
    sums = _array(out + j0 * size, j1 - j0, like)
    for j in range(sums.size):
        sums[j] = cast_like(0, like)
    for i in range(rows):
        at = a + (i * a_row + j0 * a_col) * size
        if a_col == 1:
            row = _array(at, j1 - j0, like)
            for j in range(sums.size):
                sums[j] += row[j]
        else:
            for j in range(sums.size):
                sums[j] += load(at + j * a_col * size, like)


@separate(lambda element: (*[INT] * 5, element))
def _sgd(out, W, dW, first, last, lr):
    size = VECTOR_BYTES // lanes(lr)
    to, old = _array(out + first * size, last - first, lr), _array(W + first * size, last - first, lr)
    step = _array(dW + first * size, last - first, lr)
    for i in range(to.size):
        to[i] = old[i] - lr * step[i]


def _work_f32(thread, threads, sync, scratch, job):
    _work(thread, threads, sync, scratch, job, np.float32(0))


def _work_f64(thread, threads, sync, scratch, job):
    _work(thread, threads, sync, scratch, job, np.float64(0))


work_off = thread_kernel({types.float32: _work_f32, types.float64: _work_f64})


# --- for callers with arrays ------------------------------------------------------------------------------------------


@jit
def _begin(caller):
    """An empty job in the caller's block."""
    store_int(caller + JOB, 0)
    return caller + JOB


@jit
def _finish(caller, work, like):
    """Have the threads work off the job, only one of them if it is too small to be divided; False if they cannot yet."""
    board, function = load_int(caller - 8), address_of(work_off, like)
    if work < load_int(board + 8 * LEAST):
        return run_compiled(caller, function, caller + JOB, 1)
    until = load_int(board + 8 * ALONE)
    if work < _SHORT and until > 0 and clock(board, caller + PACE) < until:  # the same bits by any number of threads
        return run_compiled(caller, function, caller + JOB, 1)
    return run_compiled(caller, function, caller + JOB, 1 << 30)


@jit
def _regular(a):
    """Whether the elements of a matrix are whole steps apart."""
    return a.strides[0] % a.itemsize == 0 and a.strides[1] % a.itemsize == 0


@jit
def submit_product(caller, c, c_row, a, a_row, a_k, b, b_k, b_col, b_vec, m, n, k, alpha, beta, bias, relu):
    """One product of matrices by address, as of `blocking.gemm`; what `gemm.matmul` calls."""
    add_product(_begin(caller), PRODUCT, c, c_row, a, a_row, a_k, b, b_k, b_col, b_vec, m, n, k, alpha, beta, bias,
                relu)
    return _finish(caller, m * n * k, alpha)


def _written(t):
    return types.Array(t, 2, "C")


def _read(t):
    return types.Array(t, 2, "A", readonly=True)


def _read_flat(t):
    return types.Array(t, 2, "C", readonly=True)


@for_dtypes(lambda t: (_written(t), _read(t), _read(t), _read(t), types.int64, types.int64))
def forward_job(y, x, W, b, n_i, caller):
    """y = x W.T + b (3.7)."""
    n, n_o = y.shape
    like = W.dtype.type(0)
    size = W.itemsize
    if n == 0 or x.shape != (n, n_i) or W.shape != (n_o, n_i) or b.shape != (1, n_o):
        return False
    if n_o * size > BIAS_BYTES - VECTOR_BYTES or not (_regular(x) and _regular(W)):
        return False
    bias = caller + SCRATCH_BYTES - BIAS_BYTES  # whole vectors of it are read
    for j in range(n_o):
        store(bias + j * size, b[0, j])
    add_product(_begin(caller), FEW_ROWS, y.ctypes.data, n_o, x.ctypes.data, x.strides[0] // size, x.strides[1] // size,
                W.ctypes.data, W.strides[1] // size, W.strides[0] // size, 0, n, n_o, n_i,
                cast_like(1, like), cast_like(0, like), bias, 0)
    return _finish(caller, n * n_o * n_i, like)


@for_dtypes(lambda t: (*[_written(t)] * 3, *[_read(t)] * 3, *[types.int64] * 3))
def backward_job(dx, dW, db, dy, x, W, n_i, n_o, caller):
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
    job = _begin(caller)
    add_product(job, FEW_ROWS, dx.ctypes.data, n_i, dy_at, dy_row, dy_col, W.ctypes.data,
                W.strides[0] // size, W.strides[1] // size, 0, n, n_i, n_o, one, zero, 0, 0)
    add_product(job, PRODUCT, dW.ctypes.data, n_i, dy_at, dy_col, dy_row, x.ctypes.data, x.strides[0] // size,
                x.strides[1] // size, 0, n_o, n_i, n, one, zero, 0, 0)
    add_column_sums(job, db.ctypes.data, dy_at, dy_row, dy_col, n, n_o)
    return _finish(caller, 2 * n * n_o * n_i, like)


@for_dtypes(lambda t: (*[_written(t), _read_flat(t), _read_flat(t)] * 2, types.float64, *[types.int64] * 3))
def sgd_job(new_W, W, dW, new_b, b, db, lr, n_i, n_o, caller):
    """new_W = W - lr dW, new_b = b - lr db (3.10, 3.11)."""
    like = W.dtype.type(0)
    shape, row = (n_o, n_i), (1, n_o)
    if new_W.shape != shape or W.shape != shape or dW.shape != shape:
        return False
    if new_b.shape != row or b.shape != row or db.shape != row:
        return False
    job = _begin(caller)
    add_sgd(job, new_W.ctypes.data, W.ctypes.data, dW.ctypes.data, W.size, cast_like(lr, like))
    add_sgd(job, new_b.ctypes.data, b.ctypes.data, db.ctypes.data, b.size, cast_like(lr, like))
    return _finish(caller, _SGD_WORK * W.size, like)


def attempt(entry, dtype: np.dtype, *args) -> bool:
    """Call one of the functions above with arrays of a dtype, compiling it if need be; whether it did its work."""
    for again in (False, True):
        try:
            if entry(*args, caller()):
                return True
        except TypeError:  # not compiled, or not for such arrays
            pass
        if not again:
            make_ready(entry, dtype)
            start_workers()
    return False
