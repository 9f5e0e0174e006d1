"""One image through a convolution, its pool and back, by address: beside the naive twins, for every tile and in every corner."""
import numpy as np
import pytest
from fastnet.kernels import naive
from fastnet.kernels.conv import avx512, image, pack_filters
from fastnet.kernels.conv import winograd as conv_winograd
from fastnet.kernels.gemm import vector_lanes
from fastnet.kernels.records import call_at
from fastnet.kernels.simd import lanes
from helpers import dtypes, eps, seeds
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

GUARD = 12345.0


@njit
def call_pooled(y, bits, bits_col, x, x_row, filters, bias, r, k, c, n_o, h, relu, zero):
    image.pooled_conv(y.ctypes.data, k // 2 * n_o, bits.ctypes.data, bits_col, x.ctypes.data, x_row, filters.ctypes.data,
                           bias.ctypes.data, r, k, c, n_o, h, relu, zero)


@njit
def call_winograd(y, bits, bits_col, x, x_row, filters, bias, r, k, c, n_o, h, relu, zero, memory):
    conv_winograd.winograd_filters(memory.ctypes.data, filters.ctypes.data, c, n_o, zero)
    conv_winograd.winograd_conv(y.ctypes.data, k // 2 * n_o, bits.ctypes.data, bits_col, x.ctypes.data, x_row,
                                       memory.ctypes.data, bias.ctypes.data, r, k, c, n_o, relu, zero)


@njit
def call_pooled_back(kernel, dx, scatter, dW, db, row_length, dy, bits, bits_col, x, x_row, W, r, k, c, n_o, h, zero):
    memory = np.empty(image.MEMORY // 8, np.int64)
    call_at(kernel, dx.ctypes.data if scatter else 0, dW.ctypes.data, db.ctypes.data, row_length, dy.ctypes.data, k // 2 * n_o,
            bits.ctypes.data, bits_col, x.ctypes.data, x_row, W.ctypes.data, r, k, c, n_o, h, memory.ctypes.data, zero)


@njit
def call_plain(y, x, x_row, filters, bias, r, k, c, n_o, h, relu, zero):
    column = h * h * c * lanes(zero)
    image.plain_conv(y.ctypes.data, k * n_o, n_o, x.ctypes.data, x_row, x_row, c, filters.ctypes.data, column // h, column,
                     bias.ctypes.data, r, k, n_o, h, h * c, relu, zero)


@njit
def call_frames(to, x, back, c, r, k, f, zero):
    image.to_frame(to.ctypes.data, x.ctypes.data, c, r, k, f, zero)
    image.from_frame(back.ctypes.data, to.ctypes.data, c, r, k, f, zero)


@njit
def call_sums(db, dy, r, k, n_o, zero):
    image.add_channel_sums(db.ctypes.data, dy.ctypes.data, k * n_o, r, k, n_o, zero)


class Case:
    """One image and its filters, as arrays of the layer's layout and as the kernels want them."""

    def __init__(self, c, n_o, h, r, k, dtype, rng, whole_numbers=False):
        self.c, self.n_o, self.h, self.r, self.k, self.zero = c, n_o, h, r, k, dtype.type(0)
        self.x, self.W, self.b = (rng.standard_normal(shape).astype(dtype) for shape in ((1, c, r, k), (n_o, c, h, h), (1, n_o)))
        if whole_numbers:  # windows with equal maxima
            self.x, self.W, self.b = np.rint(self.x), np.rint(self.W), np.rint(self.b)
        lanes, f = vector_lanes(dtype), h // 2
        frame = np.zeros((r + 2 * f, k + 2 * f, c), dtype)
        frame[f:f + r, f:f + k] = self.x[0].transpose(1, 2, 0)
        self.frame = np.append(frame.ravel(), np.full(2 * lanes, GUARD, dtype))
        self.x_row = (k + 2 * f) * c
        self.filters = pack_filters(self.W.transpose(2, 3, 1, 0).reshape(-1, n_o))
        self.bias = np.zeros(self.filters.shape[0] * lanes, dtype)
        self.bias[:n_o] = self.b
        self.bits_col = len(self.bias)
        self.row_length = -(-h * c // lanes) * lanes
        self.rows = np.zeros((n_o, h, self.row_length), dtype)
        self.rows[:, :, :h * c] = self.W.transpose(0, 2, 3, 1).reshape(n_o, h, -1)

    @property
    def sizes(self):
        return self.r, self.k, self.c, self.n_o, self.h

    def pooled(self, relu, winograd=False):
        """Output and places by the kernel, in the layer's layout."""
        shape = self.r // 2, self.k // 2
        y = np.full((*shape, self.n_o), np.nan, self.x.dtype)
        size = shape[0] * shape[1] * self.bits_col
        with_guard = np.full(size + 64, 99, np.uint8)
        self.bits = with_guard[:size].reshape(*shape, self.bits_col)
        arguments = y, self.bits, self.bits_col, self.frame, self.x_row, self.filters, self.bias, *self.sizes, relu, self.zero
        if winograd:
            call_winograd(*arguments, np.full(conv_winograd.memory_size(self.c, self.n_o, vector_lanes(y.dtype)), np.nan, y.dtype))
        else:
            call_pooled(*arguments)
        return y.transpose(2, 0, 1)[None], self.bits[:, :, :self.n_o].transpose(2, 0, 1)[None]

    def pooled_back(self, dy, scatter=True, way=avx512.LISTS):
        """dx, dW, db by the kernel, from places that `pooled` left."""
        in_columns, lanes = way == avx512.LANES, vector_lanes(self.x.dtype)
        dx, db = np.zeros_like(self.frame), np.zeros_like(self.bias)
        dW = np.zeros_like(self.filters if in_columns else self.rows)
        dy = np.append(dy[0].transpose(1, 2, 0), np.full(2 * lanes, GUARD, dy.dtype))
        kernel = image.back_kernel(way, scatter).address(self.x.dtype)
        call_pooled_back(kernel, dx, scatter, dW, db, self.row_length, dy, self.bits,
                         self.bits_col, self.frame, self.x_row, self.rows, *self.sizes, self.zero)
        f = self.h // 2
        dx = dx[:(self.r + 2 * f) * self.x_row].reshape(self.r + 2 * f, self.k + 2 * f, self.c)
        if in_columns:
            assert not dW.transpose(0, 2, 1).reshape(len(db), -1)[self.n_o:].any()
            dW = dW.transpose(0, 2, 1).reshape(len(db), self.h, self.h, self.c)[:self.n_o]
        else:
            dW = dW[:, :, :self.h * self.c].reshape(self.n_o, self.h, self.h, self.c)
        return dx[f:f + self.r, f:f + self.k].transpose(2, 0, 1)[None], dW.transpose(0, 3, 1, 2), db[None, :self.n_o]


@st.composite
def cases(draw):
    c, n_o = draw(st.sampled_from([1, 2, 3, 5, 12, 16, 33, 48, 70])), draw(st.sampled_from([1, 3, 8, 16, 17, 32, 49, 70]))
    h, r, k = draw(st.sampled_from([1, 3, 5, 7])), draw(st.integers(2, 9)), draw(st.integers(2, 19))
    return Case(c, n_o, h, r, k, np.dtype(draw(dtypes)), np.random.default_rng(draw(seeds)), draw(st.booleans()))


def assert_pooled(case, relu):
    dtype = case.x.dtype
    for winograd in (True, False) if case.h == 3 else (False,):
        y, bits = case.pooled(relu, winograd)
        expected, places = np.empty(y.shape), np.empty(y.shape, np.uint8)
        naive.conv_pool_forward(expected, places, case.x, case.W, case.b, relu)
        size = np.abs(case.W).sum(axis=(1, 2, 3)).max() * np.abs(case.x).max() + np.abs(case.b).max()
        tolerance = 4 * case.W[0].size * eps(y) * size
        np.testing.assert_allclose(y, expected, atol=tolerance, rtol=0)
        different = bits != places  # only where rounding may decide
        assert different.mean() < 0.02
    dy = np.random.default_rng(5).standard_normal(y.shape).astype(dtype)
    results = [np.empty(a.shape) for a in (case.x, case.W, case.b)]
    sizes = [np.empty(a.shape) for a in (case.x, case.W, case.b)]
    naive.conv_pool_backward(*results, dy, bits, case.x, case.W)
    naive.conv_pool_backward(*sizes, np.abs(dy), bits, np.abs(case.x), np.abs(case.W))
    terms = [case.W[:, 0].size, 4 * dy[0, 0].size, 4 * dy[0, 0].size]
    for scatter in (True, False):
        for way in {avx512.LISTS, avx512.choose_way(case.h, case.c, vector_lanes(dtype), scatter)}:
            found = list(zip(case.pooled_back(dy, scatter, way), results, sizes, terms, strict=True))
            for ours, theirs, size, count in found if scatter else found[1:]:
                assert np.all(np.abs(ours - theirs) <= (count + 2) * eps(y) * size), way


@given(cases(), st.booleans())
def test_pooled_convolution_and_its_way_back_are_naive(case, relu):
    assert_pooled(case, int(relu))


@pytest.mark.parametrize(("c", "n_o", "h", "r", "k"), [(3, 16, 3, 32, 32), (16, 32, 3, 16, 16), (1, 16, 3, 48, 48), (1, 1, 3, 2, 700), (16, 3, 3, 2, 700)])
def test_shapes_of_the_course_and_more_windows_than_are_listed_at_once(c, n_o, h, r, k, dtype, rng):
    assert_pooled(Case(c, n_o, h, r, k, dtype, rng), 1)


@pytest.mark.parametrize("winograd", [True, False])
def test_equal_maxima_have_a_bit_each(winograd, dtype, rng):
    case = Case(2, 3, 3, 6, 8, dtype, rng)
    case.frame[:-2 * vector_lanes(dtype)] = 0
    for relu in (0, 1):
        case.bias[:] = 1
        y, bits = case.pooled(relu, winograd)
        assert np.all(y == 1)
        assert np.all(bits == 15)
        case.bias[:] = 0
        assert np.all(case.pooled(relu, winograd)[1] == (0 if relu else 15))


@pytest.mark.parametrize("winograd", [True, False])
def test_pixels_under_equal_patches_have_the_same_bits(winograd, dtype, rng):
    """Images that do not change along an axis, as flat areas and straight edges are: windows of equal outputs."""
    for axes, pairs in (((0,), {5, 10}), ((1,), {3, 12}), ((0, 1), {15})):
        case = Case(17, 19, 3, 10, 12, dtype, rng)
        frame = case.frame[:12 * case.x_row].reshape(12, 14, 17)
        frame[...] = rng.standard_normal(frame.shape)
        for axis in axes:
            frame[...] = frame.take([0], axis)
        assert set(np.unique(case.pooled(0, winograd)[1])) == pairs


@pytest.mark.parametrize("relu", [0, 1])
def test_winograd_s_window_over_nan_is_nan(relu, dtype, rng):
    case = Case(3, 20, 3, 6, 6, dtype, rng)
    case.frame[0] = np.nan  # in the corner of the frame, under one window alone
    y, _ = case.pooled(relu, True)
    assert np.all(np.isnan(y[0, :, 0, 0]))
    assert np.isnan(y).sum() == 20


@pytest.mark.parametrize("relu", [0, 1])
def test_a_window_with_nan_is_nan(relu, dtype, rng):
    for place in np.ndindex(2, 2):
        case = Case(1, 20, 1, 4, 6, dtype, rng)
        case.frame[place[0] * 6 + place[1] + 2] = np.nan
        y, _ = case.pooled(relu)
        expected = np.zeros(y.shape, bool)
        expected[:, :, 0, 1] = True
        assert np.array_equal(np.isnan(y), expected)


@given(cases(), st.booleans())
def test_plain_convolution_is_naive(case, relu):
    y, expected = np.full((case.r, case.k, case.n_o), np.nan, case.x.dtype), np.empty((1, case.n_o, case.r, case.k))
    call_plain(y, case.frame, case.x_row, case.filters, case.bias, *case.sizes, int(relu), case.zero)
    naive.conv_forward(expected, case.x, case.W, case.b)
    expected = np.maximum(expected, 0) if relu else expected
    scale = np.abs(case.W).sum(axis=(1, 2, 3)).max() * np.abs(case.x).max() + np.abs(case.b).max()
    np.testing.assert_allclose(y.transpose(2, 0, 1)[None], expected, atol=4 * case.W[0].size * eps(y) * scale, rtol=0)


@pytest.mark.parametrize(("c", "r", "k", "f"), [(1, 1, 1, 0), (3, 32, 32, 1), (17, 5, 9, 3), (32, 8, 8, 0), (40, 3, 20, 2)])
def test_into_a_frame_and_out_of_it(c, r, k, f, dtype, rng):
    x = rng.standard_normal((c, r, k)).astype(dtype)
    frame, back = np.full((r + 2 * f, k + 2 * f, c), GUARD, dtype), np.full((c, r, k), np.nan, dtype)
    call_frames(frame, x, back, c, r, k, f, dtype.type(0))
    assert np.array_equal(back, x)
    assert np.array_equal(frame[f:f + r, f:f + k], x.transpose(1, 2, 0))
    frame[f:f + r, f:f + k] = GUARD
    assert np.all(frame == GUARD)


def test_channel_sums(dtype, rng):
    dy = rng.standard_normal((4, 5, 7)).astype(dtype)
    db = np.ones(7, dtype)
    call_sums(db, dy, 4, 5, 7, dtype.type(0))
    np.testing.assert_allclose(db, 1 + dy.sum(axis=(0, 1)), rtol=1e-4)
