"""Matrix products against their naive twins, in every shape and layout, and what they may not touch."""
import mmap
import sys

import numpy as np
import pytest
from fastnet.kernels import naive, simd
from fastnet.kernels.gemm import Packed, blocking, commands, matmul, pack, product, syrk, vector_lanes
from fastnet.kernels.gemm.blocking import KC, MC
from fastnet.kernels.runtime import pool
from helpers import dtypes, eps, laid_out, seeds
from hypothesis import example, given, settings
from hypothesis import strategies as st

WIDTH = vector_lanes(np.float32)
TILE = simd.NV * WIDTH  # columns of a full tile in float32, twice as many as in float64

heights = st.sampled_from([0, 1, 2, 3, 4, 5, simd.MR - 1, simd.MR, simd.MR + 1, 13, MC - 1, MC, MC + 1, 97, 150])
widths = st.sampled_from([0, 1, 2, 3, WIDTH - 1, WIDTH, WIDTH + 1, TILE - 1, TILE, TILE + 1, 2 * TILE + 3, 101, 211])
lengths = st.sampled_from([0, 1, 2, 3, 7, 8, 31, 97, KC - 1, KC, KC + 1, 2 * KC + 1, 600])
LAYOUTS = ("C", "F", "strided", "reversed", "read-only", "unaligned", "one row", "one column", "windows", "big rows")
layouts = st.sampled_from(LAYOUTS)
factors = st.sampled_from([1.0, 0.0, -0.5, 2.0])


@pytest.fixture(autouse=True)
def threads_put_back():
    yield
    pool.set_num_threads(None)


def unaligned(a):
    """The numbers of `a` one byte off from where elements of their size usually are."""
    raw = np.empty(a.nbytes + 1, np.uint8)
    view = np.ndarray(a.shape, a.dtype, raw, offset=1)
    view[...] = a
    return view


def operand(shape, layout, dtype, rng):
    """Normal numbers in one of LAYOUTS; "windows" are rows that overlap in memory."""
    m, n = shape
    numbers = rng.standard_normal(shape).astype(dtype)
    if layout == "unaligned":
        return unaligned(numbers)
    if layout == "one row":
        return np.broadcast_to(numbers[:1], shape) if m else numbers
    if layout == "one column":
        return np.broadcast_to(numbers[:, :1], shape) if n else numbers
    if layout == "windows" and m and n:
        line = rng.standard_normal(m + n - 1).astype(dtype)
        return np.lib.stride_tricks.sliding_window_view(line, n)
    if layout == "big rows":  # rows that fall into the same cache sets
        wide = np.zeros((m, -(-max(n, 1) // 1024) * 1024), dtype)
        wide[:, :n] = numbers
        return wide[:, :n]
    return laid_out(numbers, layout if layout in ("F", "strided", "reversed", "read-only") else "C")


def framed(shape, layout, dtype):
    """An output full of NaN inside a frame that nobody may write: (what to check, the view)."""
    m, n = shape
    frame = np.full((m + 4, n + 6), 7, dtype)
    inner = frame[2:m + 2, 3:n + 3]
    if layout == "F":
        frame = np.full((n + 6, m + 4), 7, dtype).T
        inner = frame[2:m + 2, 3:n + 3]
    elif layout == "strided":
        frame = np.full((2 * m + 4, 2 * n + 6), 7, dtype)
        inner = frame[2:2 * m + 2:2, 3:2 * n + 3:2]
    elif layout == "reversed":
        inner = inner[::-1, ::-1]
    elif layout == "upwards":
        inner = inner[::-1]
    elif layout == "unaligned":
        frame = unaligned(frame)
        inner = frame[2:m + 2, 3:n + 3]
    inner[...] = np.nan
    return frame, inner


def assert_frame(frame, inner):
    inner[...] = 7
    assert np.all(frame == 7), "something outside C was written"


def assert_product(out, expected, sizes, k):
    """k + 8 roundings at most, each half an eps of the sum of the terms' sizes."""
    assert np.array_equal(np.isnan(out), np.isnan(expected))
    assert np.all(np.abs(out - expected) <= (k + 8) * eps(out) * sizes)


@st.composite
def products(draw):
    m, n, k, dtype = draw(heights), draw(widths), draw(lengths), draw(dtypes)
    rng = np.random.default_rng(draw(seeds))
    a, b = operand((m, k), draw(layouts), dtype, rng), operand((k, n), draw(layouts), dtype, rng)
    bias = rng.standard_normal((1, n)).astype(dtype) if draw(st.booleans()) else None
    options = {"alpha": draw(factors), "beta": draw(factors), "bias": bias, "relu": draw(st.booleans())}
    return a, b, draw(st.sampled_from(["C", "F", "strided", "reversed", "upwards", "unaligned"])), options


def check(a, b, layout, options, as_packed=False):
    m, k, n = len(a), a.shape[1], b.shape[1]
    frame, c = framed((m, n), layout, a.dtype)
    if options["beta"] != 0:
        c[...] = np.random.default_rng(m + n).standard_normal((m, n))
    expected = c.astype(float)
    sizes = np.abs(expected)
    naive.matmul(expected, a, b, **options)
    naive.matmul(sizes, np.abs(a), np.abs(b), alpha=abs(options["alpha"]), beta=abs(options["beta"]),
                 bias=None if options["bias"] is None else np.abs(options["bias"]))
    matmul(c, a, pack(b) if as_packed else b, **options)
    assert_product(c, expected, sizes, k)
    assert_frame(frame, c)


@settings(max_examples=250)
@given(products(), st.booleans())
def test_matmul_is_naive(product, as_packed):
    check(*product, as_packed=as_packed)


PLAIN = {"alpha": 1.0, "beta": 0.0, "bias": None, "relu": False}


@pytest.mark.parametrize("shape", [
    (128, 500, 3072), (500, 3072, 128), (128, 3072, 500), (1, 1, 4000), (1, 3001, 1), (3001, 1, 1), (3001, 2, 3),
    (2, 3, 5001), (1, 500, 3072), (3, 500, 700), (67, 1601, 259),
])
def test_matmul_of_the_course_and_of_extreme_shapes(shape, dtype, rng):
    """Wider than a slab, longer than several runs, one row, one column; x W.T as the layers ask for it."""
    m, n, k = shape
    a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((n, k)).astype(dtype).T
    check(a, b, "C", PLAIN)
    check(a, np.ascontiguousarray(b), "C", {**PLAIN, "beta": 1.0, "alpha": -0.1})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pack_is_a_copy(layout, dtype, rng):
    b = operand((37, 2 * TILE + 5), layout, dtype, rng)
    before = b.copy()
    packed = pack(b)
    assert isinstance(packed, Packed)
    assert packed.shape == b.shape
    assert packed.dtype == dtype
    width = vector_lanes(dtype)
    rows = packed.data.transpose(1, 0, 2).reshape(37, -1)
    assert np.array_equal(rows[:, :b.shape[1]], before)
    assert np.all(rows[:, b.shape[1]:] == 0)
    assert rows.shape[1] % width == 0
    if b.flags.writeable:
        b[...] = 0
        assert np.array_equal(packed.data.transpose(1, 0, 2).reshape(37, -1)[:, :b.shape[1]], before)


def test_packed_and_plain_operands_give_the_same_bits(dtype, rng):
    """Also where the product is computed as C.T = B.T A.T: with rows of B.T contiguous, and few rows of A."""
    for m, n, k in ((70, 133, 300), (5, 3, 257), (1, 40, 9), (3, 33, 1), (33, 500, 784), (61, 1500, 513), (300, 37, 257)):
        a, b, bias = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n), (1, n)))
        for options in ({}, {"alpha": -0.3, "bias": bias}, {"relu": True}, {"bias": bias, "relu": True}):
            results = np.empty((4, m, n), dtype)
            matmul(results[0], a, b, **options)
            matmul(results[1], a, pack(b), **options)
            matmul(results[2], np.asfortranarray(a), np.asfortranarray(b), **options)
            matmul(results[3], a, np.asfortranarray(b), **options)
            for other in results[1:]:
                assert other.tobytes() == results[0].tobytes()


@pytest.mark.parametrize("shape", [(4, 65, 300), (32, 128, 784), (128, 500, 300), (240, 4000, 3000)])
def test_products_of_few_rows_are_transposed(shape):
    m, n, k = shape
    assert blocking.transposed_is_faster(m, n, k, 16)
    assert not blocking.transposed_is_faster(n, m, k, 16)
    assert not blocking.transposed_is_faster(m, n, 0, 16)


@settings(max_examples=60)
@given(st.sampled_from([0, 1, 2, 3, WIDTH, TILE + 1, MC - 1, MC, MC + 1, 2 * MC + 1, 200, 331]), lengths, layouts,
       dtypes, seeds)
@example(700, KC + 1, "C", np.float32, 0)
def test_syrk_is_naive(n, k, layout, dtype, seed):
    a = operand((n, k), layout, dtype, np.random.default_rng(seed))
    frame, c = framed((n, n), "C", a.dtype)
    expected, sizes = np.zeros((n, n)), np.zeros((n, n))
    naive.syrk(expected, a)
    naive.syrk(sizes, np.abs(a))
    syrk(c, a)
    assert np.array_equal(c, c.T)
    assert_product(c, expected, sizes, k)
    assert_frame(frame, c)


@given(heights, widths, lengths, dtypes, seeds)
def test_c_times_t_is_a_times_b_t(m, n, k, dtype, seed):
    """The property by which BLIS tests: (A B) t = A (B t), no reference needed."""
    rng = np.random.default_rng(seed)
    a, b, t = (rng.standard_normal(s).astype(dtype) for s in ((m, k), (k, n), (n, 1)))
    c, ct, bt, abt = (np.full(s, np.nan, dtype) for s in ((m, n), (m, 1), (k, 1), (m, 1)))
    matmul(c, a, b)
    matmul(ct, c, t)
    matmul(bt, b, t)
    matmul(abt, a, bt)
    sizes = np.abs(a).astype(float) @ (np.abs(b).astype(float) @ np.abs(t))
    assert np.all(np.abs(ct.astype(float) - abt) <= (n + k + 8) * eps(c) * sizes)


@pytest.mark.parametrize("where", ["a", "b", "both"])
@pytest.mark.parametrize("shape", [(9, 70, 300), (2, 70, 33), (70, 3, 300)])
def test_nan_and_inf_come_out_where_numpy_puts_them(where, shape, dtype, rng):
    m, n, k = shape
    a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    a[1, 5] = b[7, 2] = 0  # 0 times inf is NaN too
    if where != "b":
        a[0, 3], a[1, 7], a[m - 1, k - 1] = np.nan, np.inf, -np.inf
    if where != "a":
        b[5, 1], b[0, n - 1], b[k - 1, 0] = np.inf, np.nan, -np.inf
    expected = np.empty((m, n))
    with np.errstate(invalid="ignore"):
        naive.matmul(expected, a, b)
    for make in (np.ascontiguousarray, np.asfortranarray):
        for operand_b in (make(b), pack(b)):
            c = np.full((m, n), 3, dtype)
            matmul(c, make(a), operand_b)
            for of in (np.isnan, np.isposinf, np.isneginf):
                assert np.array_equal(of(c), of(expected))
    square, of_square = np.empty((m, m), dtype), np.empty((m, m))
    with np.errstate(invalid="ignore"):
        naive.syrk(of_square, a)
    syrk(square, a)
    for of in (np.isnan, np.isposinf, np.isneginf):
        assert np.array_equal(of(square), of(of_square))


def test_nan_in_c_counts_unless_beta_is_0(dtype):
    for order in "CF":
        c = np.full((5, 9), np.nan, dtype, order=order)
        matmul(c, np.ones((5, 3), dtype), np.ones((3, 9), dtype), beta=1.0)
        assert np.all(np.isnan(c))
        matmul(c, np.ones((5, 3), dtype), np.ones((3, 9), dtype), beta=0.0)
        assert np.all(c == 3)


def test_relu_lets_nan_through(dtype):
    for order in "CF":
        c = np.empty((2, 20), dtype, order=order)
        a = np.array([[np.nan], [-1]], dtype)
        matmul(c, a, np.ones((1, 20), dtype), bias=np.full((1, 20), 0.5, dtype), relu=True)
        assert np.all(np.isnan(c[0]))
        assert np.all(c[1] == 0)


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 50, 5), (70, 133, 300), (129, 48, 257), (3, 900, 700), (500, 5, 128)])
def test_same_bits_for_any_number_of_threads(shape, dtype, rng, divided):
    m, n, k = shape
    a, b, bias = (rng.standard_normal(s).astype(dtype) for s in ((m, k), (k, n), (1, n)))
    start = rng.standard_normal((m, n)).astype(dtype)
    results = []
    for count in (1, 2, 3, 5):
        pool.set_num_threads(count)
        rows, columns, packed = (np.array(start, order=order) for order in "CFC")
        matmul(rows, a, b, alpha=0.5, beta=1.0, bias=bias, relu=True)
        matmul(columns, a, b, alpha=0.5, beta=1.0, bias=bias, relu=True)
        matmul(packed, a, pack(b))
        across = np.empty((m, n), dtype)
        matmul(across, a, np.asfortranarray(b), bias=bias)
        square = np.empty((m, m), dtype)
        syrk(square, a)
        results.append((rows, columns, packed, across, square))
    for other in results[1:]:
        for one, same in zip(results[0], other, strict=True):
            assert one.tobytes() == same.tobytes()


def test_a_call_is_repeated_to_the_bit(dtype, rng):
    a, b = rng.standard_normal((70, 300)).astype(dtype), rng.standard_normal((300, 133)).astype(dtype)
    first, again = np.empty((70, 133), dtype), np.empty((70, 133), dtype)
    matmul(first, a, b)
    for _ in range(20):
        matmul(again, a, b)
        assert first.tobytes() == again.tobytes()


@pytest.mark.parametrize("total", [0, 1, 15, 16, 17, 2**31 - 1, 2**31, 2**31 + 17, 2**40 + 3])
def test_shares_cover_everything_once(total):
    for unit in (1, 8, 16):
        for parts in (1, 2, 3, 5, 64):
            bounds = [blocking.partition(total, unit, part, parts) for part in range(parts + 1)]
            assert bounds[0] == 0
            assert bounds[-1] == total
            assert bounds == sorted(bounds)
            assert all(bound % unit == 0 for bound in bounds[:-1] if bound < total)
            assert max(np.diff(bounds)) <= (-(-total // unit) // parts + 1) * unit


def test_split_divides_the_threads():
    for m, n in ((1, 1), (128, 500), (2**31 + 1, 3), (3, 2**31 + 1), (2**33, 2**33)):
        for count in (1, 2, 3, 4, 6, 64):
            assert count % product.split(m, n, 16, count) == 0


@pytest.fixture
def spacious():
    """64 GiB of addresses of which only the pages that are used take memory."""
    if not sys.platform.startswith("linux") or sys.maxsize < 2**40:
        pytest.skip("needs memory that is reserved, not taken")
    no_reserve = 0x4000
    try:
        pages = mmap.mmap(-1, 1 << 36, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve)
    except OSError:
        pytest.skip("the system grants no such reservation")
    yield np.frombuffer(pages, np.uint8)


@pytest.mark.parametrize("who", ["a", "b", "c"])
def test_elements_more_than_2_to_the_31_apart(who, spacious, dtype, rng):
    """No index is narrower than 64 bits: rows of one operand lie 2^31 + 24 elements apart, without their memory."""
    m, n, k = 3, 2 * WIDTH + 1, 3
    apart = 2**31 + 24 if dtype.itemsize == 4 else 2**31 - 40  # in bytes: beyond 2^33 and 2^34
    shapes = {"a": (m, k), "b": (k, n), "c": (m, n)}
    arrays = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    far = np.lib.stride_tricks.as_strided(spacious.view(dtype), shapes[who], (apart * dtype.itemsize, dtype.itemsize))
    far[...] = arrays[who]
    arrays[who] = far
    expected = arrays["a"].astype(float) @ arrays["b"].astype(float)
    matmul(arrays["c"], arrays["a"], arrays["b"])
    np.testing.assert_allclose(arrays["c"], expected, rtol=1e-4, atol=1e-5)
    if who == "a":
        square = np.empty((m, m), dtype)
        syrk(square, far)
        np.testing.assert_allclose(square, far.astype(float) @ far.T, rtol=1e-4)
        matmul(arrays["c"].T, arrays["b"].T, far.T)
        np.testing.assert_allclose(arrays["c"], expected, rtol=1e-4, atol=1e-5)
    if who == "b":
        assert np.array_equal(pack(far).data.transpose(1, 0, 2).reshape(k, -1)[:, :n], far)


def test_a_product_in_a_handler_leaves_the_interrupted_one_alone(monkeypatch, rng):
    """Python may run a signal handler or a finalizer at any place, also when the arguments are ready for the threads."""
    a, b, c = rng.standard_normal((9, 7)), rng.standard_normal((7, 5)), np.empty((9, 5))
    run_at, inner = commands.run_at, np.full((4, 4), np.nan)

    def interrupted(*arguments):
        monkeypatch.setattr(commands, "run_at", run_at)
        matmul(inner, np.ones((4, 3)), np.ones((3, 4)))
        run_at(*arguments)

    monkeypatch.setattr(commands, "run_at", interrupted)
    matmul(c, a, b)
    np.testing.assert_allclose(c, a @ b)
    assert (inner == 3).all()
