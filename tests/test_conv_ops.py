"""The ops of compiled networks of images, each called by itself as a step calls it, beside its naive twin."""
import numpy as np
import pytest
from fastnet.kernels import naive
from fastnet.kernels.conv import avx512, batch_norm, ops, pack_filters, strided
from fastnet.kernels.conv import winograd as conv_winograd
from fastnet.kernels.conv.image import back_kernel, margin
from fastnet.kernels.gemm import vector_lanes
from fastnet.kernels.records import CONTEXT, OP, Channels, FilterLayout, ImageSizes, Window, call_at
from fastnet.kernels.runtime.pool import SCRATCH_BYTES
from helpers import dtypes, eps, seeds
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from fastnet.program.filters import Filters
from fastnet.program.images import row_length

GUARD = 12345.0
channels = st.sampled_from([1, 2, 3, 5, 16, 17, 32, 33, 70])
sides = st.sampled_from([1, 2, 3, 5, 7, 8, 11])
frames = st.integers(0, 3)


@njit
def call(kernel, op, context, samples, one):
    call_at(kernel, op, context, 0, samples, one)


def run(kernel, dtype, samples, *, lr=0.0, momentum=0.0, block=0, **fields):
    """Call an op on `samples` samples, all of one block; matrices are (address, row, col, vec)."""
    op, context, scratch = np.zeros(1, OP), np.zeros(1, CONTEXT), np.zeros(SCRATCH_BYTES + 64, np.uint8)
    for name, value in ({"group": 1} | fields).items():
        op[0][name] = value
    for name, value in (("parts", 1), ("begins", 1), ("block", block), ("n", samples), ("lr", lr), ("momentum", momentum),
                        ("optimizer", int(momentum > 0)), ("scratch", -(-scratch.ctypes.data // 64) * 64)):
        context[0][name] = value
    call(kernel.address(dtype), op.ctypes.data, context.ctypes.data, samples, dtype.type(1))


class Images:
    """Memory for n images (c, r, k) in frames of f pixels, with `extra` bytes behind each."""

    def __init__(self, n, c, r, k, f, dtype, extra=0, fill=0.0):
        self.shape, self.f, self.dtype = (n, c, r, k), f, dtype
        self.framed = (r + 2 * f, k + 2 * f, c)
        lanes, size = vector_lanes(dtype), int(np.prod(self.framed))
        self.row = row_length(size + -(-extra // dtype.itemsize) + lanes, lanes)
        self.flat = np.full(n * self.row + lanes, fill, dtype)

    @property
    def mat(self):
        return self.flat.ctypes.data, self.row, self.framed[1] * self.framed[2], 0

    @property
    def frames(self):
        """A view (n, r + 2 f, k + 2 f, c)."""
        rows = self.flat[:self.shape[0] * self.row].reshape(self.shape[0], -1)
        return rows[:, :int(np.prod(self.framed))].reshape(-1, *self.framed)

    @property
    def images(self):
        """A view (n, c, r, k) of what is inside the frames."""
        _, _, r, k = self.shape
        return self.frames[:, self.f:self.f + r, self.f:self.f + k].transpose(0, 3, 1, 2)

    def behind(self, count):
        """The bytes behind each image (n, count)."""
        rows = self.flat[:self.shape[0] * self.row].reshape(self.shape[0], -1)
        return np.ascontiguousarray(rows[:, int(np.prod(self.framed)):]).view(np.uint8)[:, :count]


class Convolution:
    """Random images, filters and gradients, and the memory that the ops of a convolution need."""

    def __init__(self, n, c, n_o, h, r, k, of_y, dtype, rng, pooled, window):
        self.sizes, self.dtype, self.rng, self.window = (n, c, n_o, h, r, k), np.dtype(dtype), rng, window
        dtype, self.lanes = self.dtype, vector_lanes(dtype)
        self.whole = row_length(n_o, self.lanes)
        self.length = row_length(h * c, self.lanes)
        (down, right), (above, left) = self.geometry
        self.sides = out = (r + 2 * above - h) // down + 1, (k + 2 * left - h) // right + 1
        out = (out[0] // 2, out[1] // 2) if pooled else out
        self.x = Images(n, c, r, k, max(above, left) + int(rng.integers(2)), dtype)
        self.x.images[...] = rng.standard_normal(self.x.shape)
        self.y, self.dy = (Images(n, n_o, *out, of_y, dtype, out[0] * out[1] * self.whole * pooled) for _ in range(2))
        self.W, self.b = rng.standard_normal((n_o, c, h, h)).astype(dtype), rng.standard_normal((1, n_o)).astype(dtype)
        self.filters = np.append(pack_filters(self.W.transpose(2, 3, 1, 0).reshape(-1, n_o)).ravel(), np.zeros(self.whole, dtype))
        self.bias = self.filters[-self.whole:]
        self.bias[:n_o] = self.b

    @property
    def geometry(self):
        """Strides, paddings."""
        return self.window[:2], self.window[2:]

    def fields(self, way=0):
        n, c, n_o, h, r, k = self.sizes
        return {"n": n_o, "k": c, "a": self.x.mat, "image": ImageSizes(r, k, self.x.f, self.y.f, n),
                "window": Window(h, h, *self.window), "filters": FilterLayout(self.length, way, way)}

    def forward(self, kernel, relu, aux=0):
        run(kernel, self.dtype, self.sizes[0], c=self.y.mat, b=(self.filters.ctypes.data, self.lanes, 1, 0),
            bias=self.bias.ctypes.data, relu=relu, aux=aux, **self.fields())

    def back(self, kernel, relu, way, copy, wanted):
        """dx, dW, db."""
        n, c, n_o, h, _, _ = self.sizes
        dx = Images(*self.x.shape, self.x.f, self.dtype, fill=GUARD)
        columns = way == avx512.LANES and copy == ops.ROWS
        size = (self.filters.size - self.whole) if columns else n_o * h * self.length
        sums = np.full(size + self.whole + self.lanes, GUARD, self.dtype)
        of_winograd = max(conv_winograd.memory_size(n_o, c, self.lanes), strided.strided_memory(n_o, c, self.lanes))
        behind = of_winograd if copy == ops.TURNED else 0
        packed = np.append(Filters(self.lanes, copy, self.window[:2]).copy(self.W), np.zeros(behind + self.lanes, self.dtype))
        back = back_kernel(way, wanted).address(self.dtype) if kernel is ops.conv_pool_back_op else 0
        run(kernel, self.dtype, n, c=dx.mat if wanted else (0, 0, 0, 0), b=self.dy.mat, bias=sums.ctypes.data,
            aux=self.y.flat.ctypes.data, packed=packed.ctypes.data, relu=relu, back=back, **self.fields(way))
        if columns:
            dW = sums[:size].reshape(-1, h * h * c, self.lanes).transpose(0, 2, 1).reshape(-1, h, h, c)[:n_o]
        else:
            dW = sums[:size].reshape(n_o, h, -1)[:, :, :h * c].reshape(n_o, h, h, c)
        return [dx.images] * wanted + [dW.transpose(0, 3, 1, 2), sums[None, size:size + n_o]]


@st.composite
def convolutions(draw, pooled=False, strided=False, halved=False):
    h = 3 if halved else draw(st.sampled_from([1, 2, 3, 3, 4, 5, 7]))
    padding = draw(st.integers(0, h - 1)), draw(st.integers(0, h - 1))
    if h % 2 and draw(st.booleans()):
        padding = h // 2, h // 2
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3))) if strided else (2, 2) if halved else (1, 1)
    r, k = (max(draw(sides), h - 2 * f + pooled) for f in padding)
    window = (*stride, *padding)
    of_y = draw(frames) if pooled else max(draw(frames), margin(h, window))
    return Convolution(draw(st.integers(1, 3)), draw(channels), draw(channels), h, r, k, of_y, draw(dtypes),
                       np.random.default_rng(draw(seeds)), pooled, window)


def assert_sums(found, twin, operands, terms):
    """Rounding errors of sums of products: some halves of an eps of the sum of their sizes."""
    exact, sizes = [np.empty(a.shape) for a in found], [np.empty(a.shape) for a in found]
    twin(*exact, *operands)
    twin(*sizes, *(np.abs(a) if a.dtype.kind == "f" else a for a in operands))
    for ours, theirs, size, count in zip(found, exact, sizes, terms, strict=True):
        assert np.all(np.abs(ours - theirs) <= (count + 2) * eps(ours) * size)


def terms(case):
    n, _, n_o, h, _, _ = case.sizes
    pixels = n * case.sides[0] * case.sides[1]
    return [n_o * h * h, pixels, pixels]


def forward(case, relu):
    """The exact output, and the sum of the sizes of what it is a sum of."""
    exact, sizes = np.empty(case.y.shape), np.empty(case.y.shape)
    naive.conv_op(exact, case.x.images, case.W, case.b, relu, *case.geometry)
    naive.conv_op(sizes, np.abs(case.x.images), np.abs(case.W), np.abs(case.b), False, *case.geometry)
    return exact, sizes


@given(convolutions(strided=True), st.booleans())
def test_strided_convolution_and_its_way_back(case, relu):
    _, c, _, h, _, _ = case.sizes
    exact, sizes = forward(case, relu)
    case.forward(ops.conv_op, relu)
    y = np.ascontiguousarray(case.y.images)
    assert np.all(np.abs(y - exact) <= (c * h * h + 2) * eps(y) * sizes)
    assert np.count_nonzero(case.y.frames) == np.count_nonzero(y)  # the frame stays 0
    dy = case.rng.standard_normal(y.shape).astype(case.dtype)
    for wanted in (True, False):
        case.dy.flat[...] = GUARD  # around the images, too
        case.dy.images[...] = dy
        found = case.back(ops.conv_back_op, relu, 0, ops.TURNED, wanted)

        def twin(*arrays, wanted=wanted):
            arrays = arrays if wanted else (np.empty(case.x.shape), *arrays)
            naive.conv_back_op(*arrays[:4], y, *arrays[4:], relu, *case.geometry)

        assert_sums(found, twin, (dy, case.x.images, case.W), terms(case)[not wanted:])


@given(convolutions(), st.booleans())
def test_convolution_and_its_way_back(case, relu):
    _, c, n_o, h, _, _ = case.sizes
    exact, sizes = forward(case, relu)
    memory = np.zeros(conv_winograd.memory_size(c, n_o, case.lanes) + case.lanes, case.dtype)
    for kernel in (ops.conv_winograd_op, ops.conv_op)[h != 3:]:
        case.y.flat[...] = 0
        case.forward(kernel, relu, memory.ctypes.data)
        y = np.ascontiguousarray(case.y.images)
        bound = sizes if kernel is ops.conv_op else sizes.max()  # Winograd's errors are of the window around
        assert np.all(np.abs(y - exact) <= (c * h * h + 2) * eps(y) * bound)
        assert np.count_nonzero(case.y.frames) == np.count_nonzero(y)  # the frame stays 0
    case.dy.flat[...] = GUARD  # around the images, too
    case.dy.images[...] = dy = case.rng.standard_normal(y.shape).astype(case.dtype)

    def twin(*arrays):
        naive.conv_back_op(*arrays[:4], y, *arrays[4:], relu, *case.geometry)

    for winograd in range(1 + (h == 3)):
        found = case.back(ops.conv_back_op, relu, winograd, ops.TURNED, True)
        if winograd:  # as above
            exact, sizes = np.empty(case.x.shape), np.empty(case.x.shape)
            naive.conv_backward_input(exact, np.where(y > 0, dy, 0) if relu else dy, case.W, *case.geometry)
            naive.conv_backward_input(sizes, np.abs(dy), np.abs(case.W), *case.geometry)
            assert np.all(np.abs(found[0] - exact) <= (n_o * h * h + 2) * eps(y) * sizes.max())
            found[0][...] = exact
        assert_sums(found, twin, (dy, case.x.images, case.W), terms(case))


@given(convolutions(halved=True), st.booleans())
def test_winograd_at_a_stride_of_2_and_its_way_back(case, relu):
    _, c, n_o, _, _, _ = case.sizes
    exact, sizes = forward(case, relu)
    memory = np.full(strided.strided_memory(c, n_o, case.lanes) + case.lanes, np.nan, case.dtype)
    case.forward(ops.conv_strided_op, relu, memory.ctypes.data)
    y = np.ascontiguousarray(case.y.images)
    assert np.all(np.abs(y - exact) <= (9 * c + 2) * eps(y) * sizes.max())  # errors are of the window around
    assert np.count_nonzero(case.y.frames) == np.count_nonzero(y)  # the frame stays 0
    if case.window[2:] != (1, 1):
        return
    case.dy.flat[...] = GUARD  # around the images, too
    case.dy.images[...] = dy = case.rng.standard_normal(y.shape).astype(case.dtype)
    found = case.back(ops.conv_strided_back_op, relu, 0, ops.TURNED, True)
    exact, sizes = np.empty(case.x.shape), np.empty(case.x.shape)
    naive.conv_backward_input(exact, np.where(y > 0, dy, 0) if relu else dy, case.W, *case.geometry)
    naive.conv_backward_input(sizes, np.abs(dy), np.abs(case.W), *case.geometry)
    assert np.all(np.abs(found[0] - exact) <= (9 * n_o + 2) * eps(y) * sizes.max())
    found[0][...] = exact

    def twin(*arrays):
        naive.conv_back_op(*arrays[:4], y, *arrays[4:], relu, *case.geometry)

    assert_sums(found, twin, (dy, case.x.images, case.W), terms(case))


def test_equal_pixels_have_equal_bits_at_a_stride_of_2(rng):
    """Else a pool behind would take one of them for its maximum, and not the others."""
    case = Convolution(1, 32, 16, 3, 13, 17, 0, np.float32, rng, False, (2, 2, 0, 0))
    for same in ("rows", "columns"):
        row = rng.standard_normal((1, 32, 13, 17)).astype(np.float32)
        case.x.images[...] = row[:, :, :1] if same == "rows" else row[..., :1]
        memory = np.zeros(strided.strided_memory(32, 16, case.lanes) + case.lanes, np.float32)
        case.forward(ops.conv_strided_op, False, memory.ctypes.data)
        y = case.y.images
        assert np.array_equal(y, np.broadcast_to(y[:, :, :1] if same == "rows" else y[..., :1], y.shape))


@given(convolutions(pooled=True), st.booleans(), st.booleans())
def test_pooled_convolution_and_its_way_back(case, relu, wanted):
    n, c, n_o, h, _, _ = case.sizes
    windows = case.y.shape[2] * case.y.shape[3]
    memory = np.zeros(conv_winograd.memory_size(c, n_o, case.lanes) + case.lanes, case.dtype)
    for kernel in (ops.conv_pool_winograd_op, ops.conv_pool_op)[h != 3:]:
        case.forward(kernel, relu, memory.ctypes.data)
        y = np.ascontiguousarray(case.y.images)
        bits = case.y.behind(windows * case.whole).reshape(n, *case.y.shape[2:], -1)[..., :n_o].transpose(0, 3, 1, 2)
        exact, places = np.empty(y.shape), np.empty(y.shape, np.uint8)
        naive.conv_pool_op(exact, places, case.x.images, case.W, case.b, relu, case.window[2:])
        size = np.abs(case.W).sum(axis=(1, 2, 3)).max() * np.abs(case.x.images).max() + np.abs(case.b).max()
        np.testing.assert_allclose(y, exact, atol=4 * case.W[0].size * eps(y) * size, rtol=0)
        assert np.mean(bits != places) < 0.02  # only where rounding may decide
        assert not case.y.frames.sum() - case.y.images.sum() > 1e-3 * np.abs(y).sum()  # the frame stays 0
    case.dy.images[...] = dy = case.rng.standard_normal(y.shape).astype(case.dtype)

    def twin(*arrays):
        arrays = arrays if wanted else (np.empty(case.x.shape), *arrays)
        naive.conv_pool_back_op(*arrays[:4], bits, *arrays[4:], case.window[2:])

    for way in {avx512.LISTS, avx512.choose_way(h, c, case.lanes, wanted)}:
        found = case.back(ops.conv_pool_back_op, relu, way, ops.ROWS, wanted)
        assert_sums(found, twin, (dy, case.x.images, case.W), terms(case)[not wanted:])


pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))


@given(st.integers(1, 3), channels, sides, sides, pairs, pairs, frames, frames, dtypes, seeds)
def test_pool_and_relu_of_images_and_their_ways_back(n, c, r, k, size, step, of_x, of_y, dtype, seed):
    dtype, rng = np.dtype(dtype), np.random.default_rng(seed)
    step = size if seed % 2 else step  # windows side by side, too
    r, k = max(r, size[0]), max(k, size[1])
    pooled = (r - size[0]) // step[0] + 1, (k - size[1]) // step[1] + 1
    x = Images(n, c, r, k, of_x, dtype)
    x.images[...] = np.rint(2 * rng.standard_normal(x.shape))  # equal maxima
    given_x = x.images.copy()
    y, dy = (Images(n, c, *pooled, of_y, dtype, extra=c * pooled[0] * pooled[1] * size[0] * size[1]) for _ in range(2))
    geometry = {"n": c, "image": ImageSizes(r, k, of_x, of_y), "window": Window(*size, *step)}
    run(ops.maxpool_op, dtype, n, c=y.mat, a=x.mat, **geometry)
    exact, locs = np.empty(y.shape), np.empty((*y.shape, *size), bool)
    naive.maxpool_forward(exact, locs, given_x, size, step)
    assert np.array_equal(y.images, exact)
    dy.images[...] = rng.standard_normal(y.shape)
    dx, expected = Images(n, c, r, k, of_x, dtype, fill=GUARD), np.empty(x.shape)
    run(ops.maxpool_back_op, dtype, n, c=dx.mat, b=dy.mat, aux=y.flat.ctypes.data, **geometry)
    naive.maxpool_backward(expected, dy.images, locs, size, step)
    if step[0] >= size[0] and step[1] >= size[1]:
        assert np.array_equal(dx.images, expected)
    np.testing.assert_allclose(dx.images, expected, rtol=0, atol=16 * eps(dy.flat))
    assert np.count_nonzero(dx.frames) == np.count_nonzero(dx.images)
    expected = dx.images.copy()
    sizes = ImageSizes(r, k, of_x, of_x)
    run(ops.relu_images_op, dtype, n, c=x.mat, a=x.mat, n=c, image=sizes)
    assert np.array_equal(x.images, np.maximum(given_x, 0))
    run(ops.relu_images_back_op, dtype, n, c=dx.mat, a=x.mat, n=c, image=sizes)
    assert np.array_equal(dx.images, np.where(given_x > 0, expected, 0))


@given(st.integers(1, 3), channels, sides, st.sampled_from([1, 2, 5, 8, 300]), frames, frames, dtypes, seeds, st.booleans())
def test_batch_norm_of_images_and_its_backward_pass(n, c, r, k, of_x, of_y, dtype, seed, relu):
    dtype, rng = np.dtype(dtype), np.random.default_rng(seed)
    x, y, dy, dx = (Images(n, c, r, k, f, dtype) for f in (of_x, of_y, of_y, of_x))
    x.images[...] = rng.standard_normal(x.shape) + 30 * rng.standard_normal((c, 1, 1))  # means far from 0
    dy.flat[...] = GUARD  # around the images, too
    dy.images[...] = given_dy = rng.standard_normal(dy.shape).astype(dtype)
    gamma, beta = rng.standard_normal((2, 1, c)).astype(dtype)
    row, number = row_length(c, vector_lanes(dtype)), 1e-3
    found, gradients, sums = np.zeros((3, row), dtype), np.zeros((2, row), dtype), np.full((2, c), np.nan)
    at, op = [a.ctypes.data for a in (found, gradients, sums, gamma, beta)], {
        "n": c, "image": ImageSizes(r, k, of_x, of_y, n), "channels": Channels(r * k, row), "relu": relu, "number": number}
    run(batch_norm.image_sums_op, dtype, n, a=x.mat, aux=at[2], **op)
    run(batch_norm.image_statistics_op, dtype, n, c=(at[0], 0, 0, 0), aux=at[2], **op)
    run(batch_norm.image_normalise_op, dtype, n, c=y.mat, a=x.mat, b=(at[3], 0, 0, 0), bias=at[4], aux=at[0], **op)
    exact, statistics = np.empty(x.shape), [np.empty((1, c)) for _ in range(3)]
    naive.batch_norm_forward(exact, *statistics, x.images, gamma, beta, number)
    largest = np.abs(x.images).max()
    of_sums = eps(gamma) + np.finfo(float).eps * np.sqrt(n * r * k) / 16  # sums are of float64: their rounding is a random walk
    for ours, right in zip(found, statistics[:2], strict=False):
        np.testing.assert_allclose(ours[:c], right[0], rtol=16 * of_sums, atol=of_sums * largest)
    bound = 8 * of_sums * (largest + 1) * (1 + np.abs(gamma).max() * statistics[2].max())
    np.testing.assert_allclose(y.images, np.maximum(exact, 0) if relu else exact, rtol=0, atol=bound)
    assert np.count_nonzero(y.frames) == np.count_nonzero(y.images)  # the frame stays 0
    arguments = {"aux": at[2], "bias": at[0]} | op
    run(batch_norm.image_gradient_sums_op, dtype, n, c=dy.mat, a=x.mat, b=y.mat, **arguments)
    run(batch_norm.image_gradients_op, dtype, n, c=(at[1], 0, 0, 0), **arguments)
    run(batch_norm.image_back_op, dtype, n, c=dx.mat, a=x.mat, b=dy.mat, bias=at[3], aux=at[0], packed=at[1], **op)
    masked = np.where(y.images > 0, given_dy, 0) if relu else given_dy
    exact, dgamma, dbeta = np.empty(x.shape), np.empty((1, c)), np.empty((1, c))
    naive.batch_norm_backward(exact, dgamma, dbeta, masked, x.images, gamma, found[None, 0, :c], found[None, 2, :c])
    size = 16 * eps(gamma) * np.abs(masked).sum(axis=(0, 2, 3)) * (1 + found[2, :c] * (np.abs(x.images).max() + largest))
    assert np.all(np.abs(gradients[1, :c] - dbeta[0]) <= size)
    assert np.all(np.abs(gradients[0, :c] - dgamma[0]) <= size)
    np.testing.assert_allclose(dx.images, exact, rtol=0, atol=(1 + np.abs(gamma).max() * found[2, :c].max()) * 4 * size.max())


@given(st.integers(1, 3), channels, sides, sides, frames, dtypes, seeds)
def test_rows_to_images_and_back(n, c, r, k, f, dtype, seed):
    dtype, rng = np.dtype(dtype), np.random.default_rng(seed)
    rows, back = rng.standard_normal((n, c * r * k)).astype(dtype), np.full((n, c * r * k), np.nan, dtype)
    images = Images(n, c, r, k, f, dtype, fill=GUARD)
    expected = images.frames.copy()
    naive.rows_to_images_op(expected, rows, f)
    run(ops.rows_to_images_op, dtype, n, c=images.mat, a=(rows.ctypes.data, c * r * k, 1, 0), n=c, image=ImageSizes(r, k, 0, f))
    assert np.array_equal(images.frames, expected)
    run(ops.images_to_rows_op, dtype, n, c=(back.ctypes.data, c * r * k, 1, 0), a=images.mat, n=c, image=ImageSizes(r, k, f))
    naive.images_to_rows_op(expected := np.empty(rows.shape), images.frames, f)
    assert np.array_equal(back, expected)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(("way", "copy"), [(avx512.LISTS, ops.ROWS), (avx512.LISTS, ops.TURNED),
                                           (avx512.LANES, ops.NO_COPY)])
@pytest.mark.parametrize(("c", "n_o"), [(1, 16), (3, 19), (40, 33)])
def test_update_adds_the_groups_up(c, n_o, way, copy, momentum, dtype, rng):
    h, groups, lanes = 3, 3, vector_lanes(dtype)
    length, whole = row_length(h * c, lanes), row_length(n_o, lanes)
    dW, db = rng.standard_normal((groups, n_o, c, h, h)).astype(dtype), rng.standard_normal((groups, 1, n_o)).astype(dtype)
    W, b = rng.standard_normal((n_o, c, h, h)).astype(dtype), rng.standard_normal((1, n_o)).astype(dtype)
    packing = Filters(lanes, copy, (2, 1))
    size = packing.size(W.shape)
    state, kept, room = (np.zeros(size + whole, dtype) for _ in range(3))
    packing.pack(W, state[:size])
    state[size:size + n_o] = b
    sums = []
    for one, bias in zip(dW, db, strict=True):
        if way == avx512.LANES:
            packing.pack(one, of_group := np.empty(size, dtype))
        else:
            of_group = np.zeros((n_o, h, length), dtype)
            of_group[:, :, :h * c] = one.transpose(0, 2, 3, 1).reshape(n_o, h, -1)
        sums.append(np.concatenate([of_group.ravel(), bias.ravel(), np.zeros(whole - n_o, dtype)]))
    sums = np.stack(sums)
    packed = np.zeros(packing.copy_size(W.shape) if copy else 1, dtype)
    at = state.ctypes.data
    kernel = ops.conv_update_with_moments_op if momentum else ops.conv_update_op
    run(kernel, dtype, 5, lr=0.5, momentum=momentum, c=(at, 0, 0, 0), a=(sums.ctypes.data, 0, 0, 0),
        b=(room.ctypes.data, 0, 0, 0), bias=at + size * dtype.itemsize, aux=kept.ctypes.data if momentum else 0,
        packed=packed.ctypes.data, n=n_o, k=c, group=1, window=Window(h, h, 2, 1),
        image=ImageSizes(block=2), filters=FilterLayout(length, way, copy=copy))  # 5 samples, blocks of 2
    expected = W.astype(float), b.astype(float)
    naive.conv_update_op(*expected, dW, db, 0.5)
    found = packing.unpack(state[:size], W.shape)
    np.testing.assert_allclose(found, expected[0], atol=20 * eps(W), rtol=0)
    np.testing.assert_allclose(state[None, size:size + n_o], expected[1], atol=20 * eps(W), rtol=0)
    if momentum:
        np.testing.assert_allclose(packing.unpack(kept[:size], W.shape), dW.sum(axis=0), atol=20 * eps(W), rtol=0)
    if copy:
        assert np.array_equal(packed, packing.copy(found))
