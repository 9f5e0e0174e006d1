"""Matrix products of arrays: `matmul`, `syrk`, and `pack` for an operand that is used many times.

From Python they run on all threads (``commands.py``, ``blocking.py``); in a function compiled by Numba on the thread that
calls them, by the same kernels and with the same bits.
"""
from typing import NamedTuple

import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.codegen.linking import address_of
from fastnet.kernels.gemm.blocking import MC, SLAB_BYTES, pack_columns
from fastnet.kernels.gemm.commands import (
    BIAS_BYTES,
    COMMAND_BYTES,
    add_product,
    execute_one,
    few_rows,
    gram_product,
    packing,
    product,
)
from fastnet.kernels.records import Mat, call_at
from fastnet.kernels.runtime.pool import SCRATCH_BYTES
from fastnet.kernels.simd import VECTOR_BYTES, cast_like, lanes, load, noinline, store
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
    execute_one(product, c.dtype, m * n * k, _address(c), c.strides[0] // c.itemsize, _address(a), *_strides(a), place, b_k,
                b_col, b_vec, m, n, k, alpha, beta, 0 if bias is None else _address(padded), relu)


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

@jit
def product_here(c, a, b, alpha, beta, bias, relu):
    """`gemm.matmul` by the thread that calls it, in memory that it allocates: arrays of any layout; bias (n,) or empty."""
    like = c.dtype.type(0)
    _arrays_at(address_of(product, like), c, a, b, alpha, beta, bias, relu)


@jit
def few_rows_here(c, a, b, alpha, beta, bias, relu):
    """As `product_here`, but a few rows are summed as `forward_job` does, where that would take them."""
    like = c.dtype.type(0)
    wide = c.shape[1] * c.itemsize > BIAS_BYTES - VECTOR_BYTES
    _arrays_at(address_of(product, like) if wide else address_of(few_rows, like), c, a, b, alpha, beta, bias, relu)


@jit
def _arrays_at(kernel, c, a, b, alpha, beta, bias, relu):
    like = c.dtype.type(0)
    _product_at(kernel, c.ctypes.data, c.strides[0], c.strides[1], a.ctypes.data, a.strides[0], a.strides[1], b.ctypes.data,
                b.strides[0], b.strides[1], 0, c.shape[0], c.shape[1], a.shape[1], cast_like(alpha, like),
                cast_like(beta, like), bias.ctypes.data, bias.strides[0], len(bias), relu)


@jit
def _packed_here(c, a, data, alpha, beta, bias, relu):
    """`product_here` with the data of a `Packed`."""
    like = c.dtype.type(0)
    _product_at(address_of(product, like), c.ctypes.data, c.strides[0], c.strides[1], a.ctypes.data, a.strides[0],
                a.strides[1], data.ctypes.data, data.strides[1], data.strides[2], data.shape[1] * data.shape[2], c.shape[0],
                c.shape[1], a.shape[1], cast_like(alpha, like), cast_like(beta, like), bias.ctypes.data, bias.strides[0],
                len(bias), relu)


@jit
def _product_at(kernel, c, c_row, c_col, a, a_row, a_col, b, b_row, b_col, b_vec, m, n, k, alpha, beta, bias, bias_step,
                biases, relu):
    """`product_here` by addresses, with strides in bytes: all that is compiled once for all layouts.

    `b_vec`, of a packed B, is in elements. The kernel is called by its address. Linked into the caller's code, it would be
    compiled anew with every function that contains a product.
    """
    noinline()
    width = lanes(alpha)
    size = VECTOR_BYTES // width
    if m == 0 or n == 0:
        return
    direct = (c_col == size or n == 1) and c_row % size == 0
    a_whole, b_whole = a_row % size == 0 and a_col % size == 0, b_row % size == 0 and b_col % size == 0
    scratch, record = np.empty(SCRATCH_BYTES + 64, np.uint8), np.zeros(8 + COMMAND_BYTES, np.uint8)
    row = np.empty((n + width) * size, np.uint8)
    out = np.empty(0 if direct else m * n * size, np.uint8)
    new_a, new_b = np.empty(0 if a_whole else m * k * size, np.uint8), np.empty(0 if b_whole else k * n * size, np.uint8)
    for j in range(n + width):
        store(row.ctypes.data + j * size, load(bias + j * bias_step, alpha) if j < biases else cast_like(0, alpha))
    to, to_row = c, c_row
    if not direct:
        to, to_row = out.ctypes.data, n * size
        if beta != 0:
            _copy(to, to_row, size, c, c_row, c_col, m, n, alpha)
    if not a_whole:
        _copy(new_a.ctypes.data, k * size, size, a, a_row, a_col, m, k, alpha)
        a, a_row, a_col = new_a.ctypes.data, k * size, size
    if not b_whole:
        _copy(new_b.ctypes.data, n * size, size, b, b_row, b_col, k, n, alpha)
        b, b_row, b_col = new_b.ctypes.data, n * size, size
    add_product(record.ctypes.data, kernel, to, to_row // size, a, a_row // size, a_col // size, b, b_row // size,
                b_col // size, b_vec, m, n, k, alpha, beta, row.ctypes.data if biases > 0 else 0, relu)
    call_at(kernel, 0, 1, 0, (scratch.ctypes.data + 63) // 64 * 64, record.ctypes.data + 8, alpha)
    if not direct:
        _copy(c, c_row, c_col, to, to_row, size, m, n, alpha)
    # an address does not keep an array alive: these are used until here
    record[0] = len(scratch) + len(row) + len(out) + len(new_a) + len(new_b)


@jit
def _copy(to, to_row, to_col, a, a_row, a_col, rows, cols, like):
    for i in range(rows):
        for j in range(cols):
            store(to + i * to_row + j * to_col, load(a + i * a_row + j * a_col, like))


@overload(matmul)
def _compiled_matmul(c, a, b, alpha=1.0, beta=0.0, bias=None, relu=False):
    if isinstance(b, types.NamedTuple) and b.instance_class is Packed:
        def packed(c, a, b, alpha=1.0, beta=0.0, bias=None, relu=False):
            _packed_here(c, a, b.data, float(alpha), float(beta), _row_of(bias, c), int(relu))

        return packed

    def here(c, a, b, alpha=1.0, beta=0.0, bias=None, relu=False):
        product_here(c, a, b, float(alpha), float(beta), _row_of(bias, c), int(relu))

    return here


def _row_of(bias, c):
    """A bias (n,), (1, n) or None as a vector, which is empty if there is none."""
    raise NotImplementedError("for compiled code only")


@overload(_row_of)
def _compiled_row_of(bias, c):
    if not isinstance(bias, types.Array):
        return lambda bias, c: np.empty(0, c.dtype)
    if bias.ndim == 1:
        return lambda bias, c: bias
    return lambda bias, c: bias[0]


@overload(syrk)
def _compiled_syrk(c, a):
    def here(c, a):
        product_here(c, a, a.T, 1.0, 0.0, np.empty(0, c.dtype), 0)

    return here


@overload(pack)
def _compiled_pack(b):
    width = vector_lanes(np.dtype(str(b.dtype)))

    def here(b):
        k, n = b.shape
        data = np.empty(((n + width - 1) // width, k, width), b.dtype)
        rows = b if b.strides[0] % b.itemsize == 0 and b.strides[1] % b.itemsize == 0 else b.copy()
        pack_columns(data.ctypes.data, k * width, Mat(rows.ctypes.data, rows.strides[0] // b.itemsize,
                                                      rows.strides[1] // b.itemsize, 0), k, n, b.dtype.type(1))
        return Packed(data, (k, n))

    return here
