"""Products that leave out zeros, compared with the plain products: the same bits for any sizes and layouts."""
import numpy as np
import pytest
from fastnet.kernels.codegen.cache import CACHE
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.gemm import matmul, pack, vector_lanes
from fastnet.kernels.gemm.blocking import KC, macro_kernel
from fastnet.kernels.gemm.sparse import BLOCK, has_zero_bits, has_zeros, sparse_kernel
from fastnet.kernels.records import Mat
from fastnet.kernels.runtime import pool
from fastnet.kernels.simd import ACROSS, ARM, LEAST_ACROSS, VECTOR_BITS
from helpers import dtypes, seeds
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba import from_dtype
from numpy_loop import clusters, network

from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer
from fastnet.training.engine import Engine

DENSE, SPARSE, TURNED = range(3)
ELEMENTS = ("zeros", "negative zeros", "tiny", "inf", "nan")


@pytest.fixture(autouse=True)
def kernel_is_there():
    for dtype in (np.float32, np.float64):
        sparse_kernel.address(np.dtype(dtype))
    yield
    pool.set_num_threads(None)


@jit
def _product(thread, threads, sync, scratch, kind, c, a, b, words, step, m, n, k, alpha, beta, bias, relu):
    if thread == 0:
        if kind == DENSE:
            macro_kernel(scratch, c, a, b, m, n, k, alpha, beta, bias, relu, 0)
        else:
            sparse_kernel(scratch, c, a, b, words, step, m, n, k, alpha, beta, bias, relu, kind - 1)


def matrix(a):
    return Mat(a.ctypes.data, *(stride // a.itemsize for stride in a.strides), 0)


def columns(packed):
    return Mat(packed.data.ctypes.data, packed.data.shape[2], 1, packed.shape[0] * packed.data.shape[2])


def words_of(a):
    """Which elements of 64 neighbours in a row of A are not 0, [block][row], with some words more in each block."""
    m, k = a.shape
    bits = np.zeros((-(-k // BLOCK), BLOCK, m + 3), np.uint64)
    for p in range(k):
        bits[p // BLOCK, p % BLOCK, :m] = (a[:, p] != 0).astype(np.uint64) << np.uint64(p % BLOCK)
    return np.bitwise_or.reduce(bits, axis=1)


def numbers(rng, shape, dtype, zeros, special):
    """Normal numbers, many of them 0, and a few of the special ones."""
    a = rng.standard_normal(shape).astype(dtype)
    a[rng.random(shape) < zeros] = 0
    if special == "negative zeros":
        a[a == 0] = -0.0
    elif special == "tiny":
        a[rng.random(shape) < 0.2] = np.finfo(dtype).smallest_subnormal
    elif special in ("inf", "nan"):
        a[rng.random(shape) < 0.01] = {"inf": np.inf, "nan": np.nan}[special]
    return a


@st.composite
def products(draw):
    """A of any number of rows, B of at least the vectors that `sparse_kernel` can take, and k around its blocks and runs."""
    dtype, rng = draw(dtypes), np.random.default_rng(draw(seeds))
    width = vector_lanes(dtype)
    m = draw(st.sampled_from([1, 2, width - 1, width, width + 1, 3 * width + 5, 70, 1023, 1024, 1030]))
    n = draw(st.integers((LEAST_ACROSS - 1) * width + 1, 3 * ACROSS * width + 1))
    k = draw(st.sampled_from([1, 2, 31, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 7, KC - 1, KC, KC + 1, 2 * KC + 70]))
    zeros = draw(st.sampled_from([0.0, 0.3, 0.5, 0.97, 1.0]))
    a = numbers(rng, (m, k), dtype, zeros, draw(st.sampled_from(ELEMENTS)))
    b = numbers(rng, (k, n), dtype, 0, draw(st.sampled_from(ELEMENTS)))
    options = [dtype(draw(st.sampled_from([1.0, -0.3]))), dtype(draw(st.sampled_from([0.0, 1.0, 0.7])))]
    return rng, a, b, options, draw(st.booleans()), draw(st.booleans())


@settings(max_examples=150)
@given(products(), st.sampled_from(["rows", "columns", "words"]), st.sampled_from(["rows", "columns", "vectors"]),
       st.sampled_from([SPARSE, TURNED]))
def test_same_bits_as_without_zeros_left_out(product, layout_of_a, layout_of_b, kind):
    """For A and B in every layout that `sparse_kernel` takes, C plain and turned, in vector columns or not."""
    rng, a, b, options, with_bias, relu = product
    (m, k), n, width = a.shape, b.shape[1], vector_lanes(a.dtype)
    rows, cols = (n, m) if kind == TURNED else (m, n)
    kept, step, words = a, 0, np.zeros(0)  # `kept` and the like hold the memory whose addresses are passed on
    if layout_of_a == "words":
        words, kept = words_of(a), pack(np.ascontiguousarray(a.T))
        place_of_a, step = columns(kept)._replace(row=0, col=0), words.shape[1]
    else:
        kept = np.asarray(a, order="C" if layout_of_a == "rows" else "F")
        place_of_a = matrix(kept)
    wide = pack(b) if layout_of_b == "vectors" else np.asarray(b, order="C" if layout_of_b == "rows" else "F")
    place_of_b = columns(wide) if layout_of_b == "vectors" else matrix(wide)
    bias = rng.standard_normal(cols + width).astype(a.dtype)
    in_columns = not with_bias and rng.random() < 0.7  # a bias lies as a row of C does
    first = rng.standard_normal((-(-cols // width), rows, width) if in_columns else (rows, cols + 2)).astype(a.dtype)
    found = {}
    for how in (DENSE, kind):
        c = found[how] = first.copy()
        to = (Mat(c.ctypes.data, width, 1, rows * width) if in_columns else Mat(c.ctypes.data, c.shape[1], 1, width))
        left, right = (place_of_a, place_of_b) if how != DENSE else (matrix(a), matrix(b))
        size = m, n
        if how == DENSE and kind == TURNED:
            left, right, size = matrix(b.T), matrix(a.T), (n, m)
        pool.run(_product, how, to, left, right, words.ctypes.data if layout_of_a == "words" and how else 0, step, *size, k,
                 *options, bias.ctypes.data if with_bias else 0, relu)
    np.testing.assert_array_equal(found[kind], found[DENSE])
    del kept, wide


@settings(max_examples=60)
@given(dtypes, seeds, st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]), st.sampled_from(ELEMENTS), st.integers(1, 3),
       st.sampled_from(["C", "F"]), st.sampled_from(["C", "F"]), st.booleans())
@example(np.float32, 0, 0.5, "zeros", 2, "F", "F", False)
def test_products_of_any_threads_have_the_same_bits(dtype, seed, zeros, special, threads, order_a, order_b, packed):
    """`matmul` decides by some elements of A: any decision gives the bits of the plain product."""
    rng = np.random.default_rng(seed)
    m, n, k = (int(rng.integers(*bounds)) for bounds in ((60, 300), (60, 400), (60, 500)))
    a = np.asarray(numbers(rng, (m, k), dtype, zeros, special), order=order_a)
    b = np.asarray(numbers(rng, (k, n), dtype, 0, rng.choice(ELEMENTS)), order=order_b)
    found, expected = np.empty((m, n), dtype), np.empty((m, n), dtype)
    pool.set_num_threads(threads)
    matmul(found, a, pack(b) if packed else b)
    c = matrix(expected)._replace(vec=vector_lanes(dtype))
    pool.run(_product, DENSE, c, matrix(a), matrix(b), 0, 0, m, n, k, dtype(1), dtype(0), 0, False)
    np.testing.assert_array_equal(found, expected)


@jit
def _decisions(thread, threads, sync, scratch, out, a, words, step, m, n, k, one):
    if thread == 0:
        out[0] = has_zeros(a, m, n, k, 0, one)
        out[1] = has_zero_bits(words, step, m, n, k, 0, one)


@pytest.mark.skipif(VECTOR_BITS == 128 or ARM, reason="narrow vectors have little to gain")
@pytest.mark.parametrize(("zeros", "size", "expected"), [(0.5, 200, True), (0.45, 200, True), (0.1, 200, False), (0.5, 8, False)])
def test_zeros_are_left_out_where_that_pays(zeros, size, expected, dtype, rng):
    a = numbers(rng, (size, size + 30), dtype, zeros, "zeros")
    words, out = words_of(a), np.zeros(2, np.int64)
    pool.run(_decisions, out, matrix(a), words.ctypes.data, words.shape[1], size, 500, size + 30, dtype.type(1))
    assert list(out) == [expected, expected]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 0.01)])
def test_fits_have_the_same_bits(momentum, decay, shuffle, dtype):
    """In Gram space with zeros left out and with none found there, and on any number of threads in all forms."""
    x, t = clusters(400, 150, 5)
    order = np.random.default_rng(3).permutation(len(x)) if shuffle else None

    def trained(form, all_count):
        model = network([150, 140, 130, 5], dtype)
        engine = Engine(model, x.astype(dtype), t, 100, momentum, decay, form=form)
        losses = []
        for _ in range(3):
            if all_count:
                engine.form.bits[:] = -1
            losses.append(engine.epoch(0.1, order, len(x)))
        engine.write()
        return np.concatenate(losses), *(getattr(layer, name) for layer in model.layers for name in ("W", "b")
                                         if hasattr(layer, name))

    expected = trained("gram", True)
    for form, threads in (("gram", 1), ("gram", 3), ("fused", 1), ("fused", 3), ("fused", 2)):
        pool.set_num_threads(threads)
        found = trained(form, False)
        if (form, threads) == ("fused", 1):
            expected = found
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.fixture
def place(dtype, monkeypatch):
    """Where the kernel's address and the work so far are, as if it had not been compiled."""
    place, before = sparse_kernel.place(from_dtype(dtype)), sparse_kernel.place(from_dtype(dtype))[:]
    monkeypatch.setattr(sparse_kernel, "_compiled", {})
    monkeypatch.setattr(sparse_kernel, "_expected", {from_dtype(dtype)})
    place[:] = 0, 0
    yield place
    place[:] = before


def one_product(a, b, t):
    c = np.empty_like(a)
    matmul(c, a, b)
    return [c]


def one_pass(a, b, t):
    layer = FullLayer(a.shape[1], a.shape[1], a.dtype, 0)
    layer.forward(b)
    return layer.backward(a), layer.W_grad


def small_model(a):
    return Sequential((FullLayer(a.shape[1], 120, a.dtype, 0), ReluLayer(), FullLayer(120, 4, a.dtype, 1), SoftMaxLayer()),
                      CrossEntropyLayer())


def one_fit(a, b, t):
    return [small_model(a).fit(b, t, 2, 0.1, 100, engine="fused", progress=False)]


def some_steps(a, b, t):
    model = small_model(a)
    return [[model.train_on_batch(b, t, 0.1) for _ in range(3)]]


@pytest.mark.parametrize("work", [one_product, one_pass, one_fit, some_steps])
def test_the_kernel_comes_once_it_pays(work, place, dtype, rng):
    """Without it, with enough work for it, and with it: the same bits."""
    a, b = numbers(rng, (200, 200), dtype, 0.5, "zeros"), rng.standard_normal((200, 200)).astype(dtype)
    t = np.eye(4, dtype=dtype)[rng.integers(0, 4, 200)]
    without = work(a, b, t)
    assert place[0] == 0
    assert 0 < place[1] < sparse_kernel.worth
    place[1] = sparse_kernel.worth
    for _ in range(2):
        for found, expected in zip(work(a, b, t), without, strict=True):
            np.testing.assert_array_equal(found, expected)
        assert place[0] != 0


@pytest.mark.skipif(CACHE is None, reason="nothing is kept here")
def test_the_kernel_comes_from_the_cache(place, dtype, monkeypatch):
    monkeypatch.setattr(sparse_kernel, "_expected", set())
    sparse_kernel.expect(dtype)
    assert place[0] != 0
    assert place[1] == 0
