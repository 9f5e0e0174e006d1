"""Each intrinsic by itself, on memory with guards around it."""
import ctypes
import re
import threading

import numpy as np
import pytest
from fastnet.kernels import simd
from fastnet.kernels.simd import VECTOR_BYTES
from numba import njit
from other_cpus import innermost

GUARD = -12345.0


def lanes_of(dtype):
    return VECTOR_BYTES // dtype.itemsize


def at(a):
    """Where an array's first element is; also for read-only and unaligned ones."""
    return a.__array_interface__["data"][0]


def guarded(count, dtype):
    """`count` elements in the middle of others that nobody may write."""
    room = 2 * lanes_of(dtype)
    base = np.full(count + 2 * room, GUARD, dtype)
    return base, base[room:room + count]


def assert_guards(base, inner):
    room = (base.size - inner.size) // 2
    assert np.all(base[:room] == GUARD)
    assert np.all(base[room + inner.size:] == GUARD)


def compiled(rows, vecs):
    """`micro_kernel` of one size; the sizes are constants of the compiled function."""
    micro_kernel = simd.micro_kernel

    @njit
    def kernel(a, a_row, a_k, b, b_k, b_vec, c, c_row, c_vec, tail, k, alpha, beta, bias, relu):
        micro_kernel(rows, vecs, a, a_row, a_k, b, b_k, b_vec, c, c_row, c_vec, tail, k, alpha, beta, bias, relu)

    return kernel


SIZES = sorted({(simd.MR, simd.NV), (4, 2), (1, 1), (3, 2)})
TILES = {size: compiled(*size) for size in SIZES}


def run_tile(size, k, tail, dtype, *, alpha=1.0, beta=0.0, bias=False, relu=False, a_order="rows", spread=0, c=None):
    """One tile beside what NumPy makes of it: C in rows with gaps between them, which must stay as they are."""
    rows, vecs = size
    width, rng = lanes_of(dtype), np.random.default_rng(k + 100 * tail)
    n = (vecs - 1) * width + tail
    a = rng.standard_normal((rows, k) if a_order == "rows" else (k, rows)).astype(dtype)
    b = rng.standard_normal((vecs, k, width)).astype(dtype)
    row_bias = rng.standard_normal(vecs * width).astype(dtype)
    c_row = n + spread
    base, inner = guarded(rows * c_row, dtype)
    whole = inner.reshape(rows, c_row)
    start = rng.standard_normal((rows, n)).astype(dtype) if c is None else np.full((rows, n), c, dtype)
    whole[:, :n] = start
    a_row, a_k = (k, 1) if a_order == "rows" else (1, rows)
    number = dtype.type
    TILES[size](at(a), a_row, a_k, at(b), width, k * width, at(whole), c_row, width, tail, k,
                number(alpha), number(beta), at(row_bias) if bias else 0, int(relu))
    assert_guards(base, inner)
    assert np.all(whole[:, n:] == GUARD)
    a = a if a_order == "rows" else a.T
    b = b.transpose(1, 0, 2).reshape(k, vecs * width)[:, :n]
    expected = alpha * (a.astype(float) @ b.astype(float))
    if beta != 0:
        expected = expected + beta * start.astype(float)
    if bias:
        expected = expected + row_bias[:n]
    if relu:
        expected = np.where(expected < 0, 0, expected)
    tolerance = 4 * (k + 3) * np.finfo(dtype).eps
    np.testing.assert_allclose(whole[:, :n], expected, rtol=tolerance, atol=tolerance)
    return whole[:, :n]


@pytest.mark.parametrize("size", SIZES)
def test_tile_of_every_tail(size, dtype):
    for tail in range(1, lanes_of(dtype) + 1):
        run_tile(size, 7, tail, dtype, spread=3)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("k", [0, 1, 2, 64, 257])
def test_tile_of_every_length(size, k, dtype):
    for a_order in ("rows", "columns"):
        run_tile(size, k, lanes_of(dtype), dtype, a_order=a_order)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("alpha", "beta"), [(1, 1), (-0.5, 0), (0, 1), (0, 0), (2, -0.25)])
@pytest.mark.parametrize("tail", [1, None])
def test_tile_s_end(size, alpha, beta, tail, dtype):
    for bias in (False, True):
        for relu in (False, True):
            run_tile(size, 5, tail or lanes_of(dtype), dtype, alpha=alpha, beta=beta, bias=bias, relu=relu, spread=1)


def test_tile_never_reads_c_if_beta_is_0(dtype):
    for size in SIZES:
        for tail in (1, lanes_of(dtype)):
            run_tile(size, 4, tail, dtype, c=np.nan)


def test_tile_reads_c_for_any_other_beta(dtype):
    a, b, c = np.zeros(1, dtype), np.zeros(lanes_of(dtype), dtype), np.full(lanes_of(dtype), np.nan, dtype)
    TILES[1, 1](at(a), 1, 1, at(b), 1, 1, at(c), 1, 1, 2, 1, dtype.type(1), dtype.type(np.nan), 0, 0)
    assert np.all(np.isnan(c))


def test_tile_with_strides_of_0_and_below(dtype):
    """One element of A for all rows, B's rows from the last to the first, C's rows upwards."""
    width, rows, k = lanes_of(dtype), 3, 5
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal(k).astype(dtype), rng.standard_normal((k, 2 * width)).astype(dtype)
    c = np.zeros((rows, 2 * width), dtype)
    TILES[3, 2](at(a), 0, 1, at(b[-1]), -2 * width, width, at(c[-1]), -2 * width, width, width, k,
                dtype.type(1), dtype.type(0), 0, 0)
    np.testing.assert_allclose(c, np.tile(a @ b[::-1], (rows, 1)), rtol=1e-5, atol=1e-6)


def test_tile_keeps_nan_and_inf(dtype):
    """A product with 0 may not be left out, and ReLU is no filter for NaN."""
    width = lanes_of(dtype)
    a = np.array([[0.0], [1.0], [-1.0]], dtype)
    b = np.ones(2 * width, dtype)
    b[:3] = np.nan, np.inf, -np.inf
    c = np.zeros((3, 2 * width), dtype)
    for relu, of_ones in ((0, [0, 1, -1]), (1, [0, 1, 0])):
        TILES[3, 2](at(a), 1, 1, at(b), width, width, at(c), 2 * width, width, width, 1,
                    dtype.type(1), dtype.type(0), 0, relu)
        low = -np.inf if relu == 0 else 0
        np.testing.assert_array_equal(c[:, :4], [[np.nan, np.nan, np.nan, of_ones[0]],
                                                 [np.nan, np.inf, low, of_ones[1]],
                                                 [np.nan, low, np.inf, of_ones[2]]])


def test_tile_on_unaligned_memory(dtype):
    """Vectors begin where elements do; one byte off, no operand may be assumed to be aligned."""
    width, k = lanes_of(dtype), 6
    rng = np.random.default_rng(5)

    def off(shape):
        raw = np.zeros(int(np.prod(shape)) * dtype.itemsize + 1, np.uint8)[1:].view(np.uint8)
        return np.ndarray(shape, dtype, raw)

    a, b, c = off((3, k)), off((2, k, width)), off((3, 2 * width))
    a[...], b[...] = rng.standard_normal(a.shape), rng.standard_normal(b.shape)
    TILES[3, 2](at(a), k, 1, at(b), width, k * width, at(c), 2 * width, width, width, k,
                dtype.type(1), dtype.type(0), 0, 0)
    np.testing.assert_allclose(c, a @ b.transpose(1, 0, 2).reshape(k, -1), rtol=1e-4, atol=1e-5)


@njit
def call_transpose(to, to_row, source, source_row, zero):
    simd.transpose(to, to_row, source, source_row, zero)


def test_transpose(dtype):
    width = lanes_of(dtype)
    source = np.arange(width * (width + 3), dtype=dtype).reshape(width, width + 3)
    base, inner = guarded(width * (width + 1), dtype)
    to = inner.reshape(width, width + 1)
    call_transpose(at(to), width + 1, at(source), width + 3, dtype.type(0))
    assert np.array_equal(to[:, :width], source[:, :width].T)
    assert np.all(to[:, width:] == GUARD)
    assert_guards(base, inner)


def test_transpose_in_place_and_backwards(dtype):
    width = lanes_of(dtype)
    block = np.arange(width * width, dtype=dtype).reshape(width, width)
    expected = block[::-1].T.copy()
    call_transpose(at(block), width, at(block[-1]), -width, dtype.type(0))
    assert np.array_equal(block, expected)


@njit
def call_copy(to, source, zero):
    simd.copy_vector(to, source, zero)


@njit
def call_clear(to, zero):
    simd.clear_vector(to, zero)


@njit
def call_keep_positive(to, where, zero):
    simd.keep_positive(to, where, zero)


def test_copy_and_clear(dtype):
    width = lanes_of(dtype)
    source = np.arange(1, width + 1, dtype=dtype)
    source[0] = np.nan
    base, inner = guarded(width, dtype)
    call_copy(at(inner), at(source), dtype.type(0))
    assert np.array_equal(inner, source, equal_nan=True)
    assert_guards(base, inner)
    call_clear(at(inner), dtype.type(0))
    assert np.array_equal(inner, np.zeros(width))
    assert_guards(base, inner)


def test_keep_positive_is_relu_s_way_back(dtype):
    width = lanes_of(dtype)
    smallest = np.finfo(dtype).smallest_subnormal
    for value, kept in ((1.0, True), (smallest, True), (np.inf, True), (0.0, False), (-0.0, False), (-1.0, False),
                        (-np.inf, False), (np.nan, False)):
        base, inner = guarded(width, dtype)
        inner[:] = np.arange(1, width + 1)
        inner[-1] = np.nan
        where = np.full(width, -1, dtype)
        where[::2] = where[-1] = value
        expected = np.where((np.arange(width) % 2 == 0) | (np.arange(width) == width - 1), inner if kept else 0.0, 0.0)
        expected[-1] = np.nan  # 0 NaN
        call_keep_positive(at(inner), at(where), dtype.type(0))
        assert np.array_equal(inner, expected, equal_nan=True)
        assert_guards(base, inner)


@njit
def call_load(address, zero):
    return simd.load(address, zero)


@njit
def call_store(address, value):
    simd.store(address, value)


@njit
def call_number(value, like):
    return simd.cast_like(value, like)


@njit
def call_lanes(zero):
    return simd.lanes(zero)


def test_scalars(dtype):
    base, inner = guarded(1, dtype)
    call_store(at(inner), dtype.type(2.5))
    assert inner[0] == 2.5
    assert_guards(base, inner)
    assert call_load(at(inner), dtype.type(0)) == 2.5
    assert call_load(at(base[:1]), dtype.type(0)) == GUARD
    assert call_lanes(dtype.type(0)) == lanes_of(dtype)


def test_number_keeps_the_type(dtype):
    call_number(0.1, dtype.type(0))
    returned = call_number.overloads[call_number.signatures[-1]].signature.return_type
    assert str(returned) == dtype.name
    assert call_number(0.1, dtype.type(0)) == dtype.type(0.1)
    assert call_number(3, dtype.type(0)) == 3


@njit(nogil=True)
def add_often(address, value, times):
    last = 0
    for _ in range(times):
        last = simd.atomic_add(address, value)
    return last


def test_atomic_add_returns_what_was_there():
    counter = np.array([5, 77])
    assert add_often(at(counter), 3, 1) == 5
    assert add_often(at(counter), 0, 1) == 8
    assert add_often(at(counter), -9, 1) == 8
    assert counter.tolist() == [-1, 77]


def test_atomic_add_loses_nothing():
    counter = np.zeros(1, np.int64)
    add_often(at(counter), 0, 1)
    threads = [threading.Thread(target=add_often, args=(at(counter), 1, 200_000)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter[0] == 800_000


@njit
def exchange(address, expected, value):
    return simd.compare_exchange(address, expected, value), simd.atomic_load(address)


def test_compare_exchange_changes_what_was_expected_only():
    word = np.array([4])
    assert exchange(at(word), 4, 9) == (True, 9)
    assert exchange(at(word), 4, 1) == (False, 9)


@njit
def copied(value):
    return simd.load_int(simd.address_of_copy(value))


def test_address_of_copy_holds_the_value():
    assert copied(-77) == -77
    assert copied(2**40) == 2**40


@njit
def call_c(function, value):
    return simd.call_system(function, value, 0, 0, 0, 0)


def test_call_system_calls_a_c_function():
    labs = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int64)(lambda value: abs(value))
    assert call_c(ctypes.cast(labs, ctypes.c_void_p).value, -5) == 5
    negative = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int64)(lambda value: -3)
    assert call_c(ctypes.cast(negative, ctypes.c_void_p).value, 1) == -3


@njit
def call_pause():
    simd.pause()
    return 1


def test_pause_is_an_instruction_here():
    assert call_pause() == 1


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize(("triple", "cpu", "features", "instruction", "count"), [
    ("x86_64-linux-gnu", "haswell", "", r"vfmadd\w+\s.*ymm", 12),
    ("x86_64-linux-gnu", "skylake-avx512", "", r"vfmadd\w+\s.*zmm", 24),
    ("aarch64-linux-gnu", "cortex-a72", "+neon", r"fmla\b", 24),
])
def test_the_tile_stays_in_the_registers(triple, cpu, features, instruction, count, kind):
    """The loop over k is compiled for CPUs that may differ from this one: it does nothing on the stack."""
    loop, found = innermost(triple, cpu, features, instruction, "simd", "micro_kernel", "MR", "NV", *["int64"] * 11, kind, kind,
                            "int64", "int64")
    assert found == count
    assert not re.search(r"\br?sp\b", loop)
