"""Matrix products of arrays: `matmul`, `syrk`, and `pack` for an operand that is used many times.

From Python they run on all threads (``commands.py``, ``blocking.py``); in a function compiled by Numba on the thread that
calls them, by the same kernels and with the same bits.
"""
from typing import NamedTuple

import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.codegen.linking import INT, address_of
from fastnet.kernels.compiled_calls import (
    array_kernel,
    at,
    data_of,
    dimensions_of,
    done,
    finish,
    fits,
    in_compiled_code,
    opened,
    side,
    stride,
)
from fastnet.kernels.gemm.blocking import MC, SLAB_BYTES, pack_columns, transposed_is_faster
from fastnet.kernels.gemm.commands import (
    BIAS_BYTES,
    COMMAND_BYTES,
    add_product,
    execute_one,
    few_rows,
    gram_product,
    packing,
    plain_product,
    product,
)
from fastnet.kernels.gemm.sparse import sparse_kernel
from fastnet.kernels.records import Mat, call_at
from fastnet.kernels.runtime.pool import SCRATCH_BYTES
from fastnet.kernels.simd import VECTOR_BYTES, cast_like, lanes, load, store, store_int
from numba import types
from numba.extending import overload


class Packed(NamedTuple):
    """A matrix B (k, n) kept in vector columns: what `pack` returns and `matmul` takes as `b`, in compiled code too."""

    data: np.ndarray  # (vectors, k, LANES)
    shape: tuple[int, int]

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype


def vector_lanes(dtype: np.dtype | type) -> int:
    """Elements of `dtype` in one vector register of the CPU that kernels are compiled for."""
    return VECTOR_BYTES // np.dtype(dtype).itemsize


def _address(a: np.ndarray) -> int:
    return a.__array_interface__["data"][0]


def _strides(a: np.ndarray) -> tuple[int, int]:
    return a.strides[0] // a.itemsize, a.strides[1] // a.itemsize


def _readable(a: np.ndarray) -> np.ndarray:
    """`a` itself, with any strides, unless an element is not where elements of its size can be."""
    return a if all(step % a.itemsize == 0 for step in a.strides) else a.copy()


def pack(b: np.ndarray) -> Packed:
    """Pack B (k, n) once for many products.

    Parameters
    ----------
    b : ndarray, shape (k, n), float32 or float64
        Any strides; pass ``W.T`` for a weight matrix W (n_o, n_i).

    Returns
    -------
    Packed
        A copy of `b`. It does not follow later changes of `b`.
    """
    b = _readable(b)
    k, n = b.shape
    width = vector_lanes(b.dtype)
    data = np.empty((-(-n // width), k, width), b.dtype)
    b_k, b_col = _strides(b)
    execute_one(packing, b.dtype, k * n, c=_address(data), c_row=k * width, b=_address(b), b_k=b_k, b_col=b_col, n=n, k=k)
    return Packed(data, (k, n))


def matmul(c: np.ndarray, a: np.ndarray, b: np.ndarray | Packed, alpha: float = 1.0, beta: float = 0.0,
           bias: np.ndarray | None = None, relu: bool = False) -> None:
    """C = relu(alpha A B + beta C + bias), bias and ReLU being optional.

    Parameters
    ----------
    c : ndarray, shape (m, n)
        Overwritten. With beta = 0 it is never read. It must not overlap the operands.
    a : ndarray, shape (m, k)
    b : ndarray, shape (k, n), or Packed
        All of one dtype, float32 or float64, any strides (negative and zero ones too), read-only or not.
    alpha, beta : float
    bias : ndarray, n elements, optional
        Added to every row.
    relu : bool
        Negative results become 0; NaN stays NaN.

    Notes
    -----
    Each element is summed by one thread in one order: runs of KC products added one after the other, then the runs. So its
    bits depend neither on the number of threads nor on the layouts, nor on whether `b` is packed.
    """
    m, n = c.shape
    if m == 0 or n == 0:
        return
    if (c.strides[1] != c.itemsize and n > 1) or c.strides[0] % c.itemsize:
        _matmul_strided(c, a, b, alpha, beta, bias, relu)
        return
    a = _readable(a)
    k, width = a.shape[1], vector_lanes(c.dtype)
    if isinstance(b, Packed):
        place, b_k, b_col, b_vec = _address(b.data), width, 1, b.shape[0] * width
    else:
        b = _readable(b)
        place, (b_k, b_col), b_vec = _address(b), _strides(b), 0
    if bias is not None:
        padded = np.zeros(-(-n // width) * width, c.dtype)
        padded[:n] = np.ravel(bias)
    sparse_kernel.expect(c.dtype, m * n * k)
    transposed = beta == 0 and b_vec == 0 and b_k == 1 and transposed_is_faster.py_func(m, n, k, width)
    execute_one(product if transposed else plain_product, c.dtype, m * n * k, _address(c), c.strides[0] // c.itemsize,
                _address(a), *_strides(a), place, b_k, b_col, b_vec, m, n, k, alpha, beta,
                0 if bias is None else _address(padded), relu)


def _matmul_strided(c, a, b, alpha, beta, bias, relu) -> None:
    """C without contiguous rows: through a contiguous strip of rows at a time, so that little memory is needed."""
    m, n = c.shape
    rows = max(MC, SLAB_BYTES // (n * c.itemsize))
    for i in range(0, m, rows):
        strip = np.empty((min(rows, m - i), n), c.dtype)
        if beta != 0:
            strip[...] = c[i:i + rows]
        matmul(strip, a[i:i + rows], b, alpha, beta, bias, relu)
        c[i:i + rows] = strip


def syrk(c: np.ndarray, a: np.ndarray) -> None:
    """C = A A.T (n, n) for A (n, k): half the work of `matmul`. C is symmetric to the bit; its rows are contiguous."""
    a = _readable(a)
    n, k = a.shape
    execute_one(gram_product, c.dtype, n * n * k, _address(c), c.strides[0] // c.itemsize, _address(a), *_strides(a), n=n,
                k=k)


# --- the same products in a user's compiled code, on the calling thread -----------------------------------------------

FEW_ROWS, A_TURNED, B_TURNED = 1, 2, 4  # what `form` is the sum of: few rows as in `forward_job`; A, B stand for A.T, B.T


@array_kernel(4, types.float64, types.float64, INT, INT, allocates=True)
def product_here(outcome, c, a, b, bias, alpha, beta, relu, form, one):
    """`matmul` by the thread that calls it, in memory that it allocates. A bias is 0, or has one or two axes."""
    turned, packed = form & B_TURNED, dimensions_of(b) == 3
    a_at, a_row, a_col = data_of(a), stride(a, 0), stride(a, 1)
    b_at, b_row, b_col, b_vec = data_of(b), stride(b, 0), stride(b, 1), 0
    m, n, k = side(c, 0), side(c, 1), side(a, 1)
    if form & A_TURNED:
        a_row, a_col, k = a_col, a_row, side(a, 0)
    if turned:
        b_row, b_col = b_col, b_row
    if packed:
        b_row, b_col, b_vec = stride(b, 1), stride(b, 2), side(b, 1) * side(b, 2)
    if fits(outcome, packed or (side(b, 1 if turned else 0) == k and side(b, 0 if turned else 1) == n)):
        bias_at, bias_step, biases = 0, 0, 0
        if bias != 0:
            last = dimensions_of(bias) - 1
            bias_at, bias_step, biases = data_of(bias), stride(bias, last), side(bias, last)
        kernel = address_of(product, one)
        if form & FEW_ROWS and n * (VECTOR_BYTES // lanes(one)) <= BIAS_BYTES - VECTOR_BYTES:
            kernel = address_of(few_rows, one)
        _product_at(kernel, data_of(c), stride(c, 0), stride(c, 1), a_at, a_row, a_col, b_at, b_row, b_col, b_vec, m, n, k,
                    cast_like(alpha, one), cast_like(beta, one), bias_at, bias_step, biases, relu)
        done(outcome)


@jit
def _product_at(kernel, c, c_row, c_col, a, a_row, a_col, b, b_row, b_col, b_vec, m, n, k, alpha, beta, bias, bias_step,
                biases, relu):
    """`product_here` by addresses, with strides in bytes; `b_vec`, of a packed B, is in elements."""
    width = lanes(alpha)
    size = VECTOR_BYTES // width
    if m == 0 or n == 0:
        return
    direct = (c_col == size or n == 1) and c_row % size == 0
    a_whole, b_whole = a_row % size == 0 and a_col % size == 0, b_row % size == 0 and b_col % size == 0
    row, out = 8 + COMMAND_BYTES, (n + width) * size + 8 + COMMAND_BYTES
    new_a = out + (0 if direct else m * n * size)
    new_b = new_a + (0 if a_whole else m * k * size)
    scratch = new_b + (0 if b_whole else k * n * size)
    memory = np.empty(scratch + 64 + SCRATCH_BYTES, np.uint8)
    first = memory.ctypes.data
    row, out, new_a, new_b = first + row, first + out, first + new_a, first + new_b
    for j in range(n + width):
        store(row + j * size, load(bias + j * bias_step, alpha) if j < biases else cast_like(0, alpha))
    to, to_row = c, c_row
    if not direct:
        to, to_row = out, n * size
        if beta != 0:
            _copy(to, to_row, size, c, c_row, c_col, m, n, alpha)
    if not a_whole:
        _copy(new_a, k * size, size, a, a_row, a_col, m, k, alpha)
        a, a_row, a_col = new_a, k * size, size
    if not b_whole:
        _copy(new_b, n * size, size, b, b_row, b_col, k, n, alpha)
        b, b_row, b_col = new_b, n * size, size
    store_int(first, 0)
    add_product(first, kernel, to, to_row // size, a, a_row // size, a_col // size, b, b_row // size, b_col // size, b_vec,
                m, n, k, alpha, beta, row if biases > 0 else 0, relu)
    call_at(kernel, 0, 1, 0, (first + scratch + 63) // 64 * 64, first + 8, alpha)
    if not direct:
        _copy(c, c_row, c_col, to, to_row, size, m, n, alpha)
    memory[0] = 0  # an address does not keep an array alive: it is used until here


@jit
def _copy(to, to_row, to_col, a, a_row, a_col, rows, cols, like):
    for i in range(rows):
        for j in range(cols):
            store(to + i * to_row + j * to_col, load(a + i * a_row + j * a_col, like))


in_compiled_code(matmul, product_here, "c:mn a:mk b:? bias:? alpha beta relu", 0)
in_compiled_code(syrk, product_here, "c:nn a:nk a:nk", 0, 1.0, 0.0, 0, B_TURNED)


@array_kernel(2)
def _pack_here(outcome, data, b, one):
    if opened(outcome, 0, (b,)):
        pack_columns(data_of(data), side(b, 0) * lanes(one), Mat(at(b), side(b, 1), 1, 0), side(b, 0), side(b, 1), one)
        finish(outcome, 0, (b,))


def _pack(data, b):
    raise NotImplementedError("for compiled code only")


in_compiled_code(_pack, _pack_here, "data:vkw b:kn")


@overload(pack)
def _compiled_pack(b):
    width = vector_lanes(np.dtype(str(b.dtype)))

    def here(b):
        data = np.empty(((b.shape[1] + width - 1) // width, b.shape[0], width), b.dtype)
        _pack(data, b)
        return Packed(data, b.shape)

    return here
