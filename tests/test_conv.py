"""The convolutional layer: kernels against naive, then the layer, then error texts."""
import copy
import pickle

import numpy as np
import pytest
from fastnet.kernels import conv, naive
from fastnet.kernels.runtime import pool
from helpers import LAYOUTS, dtypes, eps, filled, laid_out, layouts, refuses, seeds
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

import fastnet
from fastnet import ConvLayer, MaxPoolLayer, gradcheck

channels = st.sampled_from([1, 2, 3, 5, 8, 16, 17, 33, 70])
sides = st.sampled_from([1, 2, 3, 5, 7, 8, 11, 17])
filters = st.sampled_from([1, 3, 5, 7])
SAME = 1, None  # stride and padding


@st.composite
def operands(draw):
    """x (n, n_i, r, k), W (n_o, n_i, h, h), b (1, n_o), dy (n, n_o, r, k) of one type, in two layouts."""
    n, n_i, n_o, h, r, k = draw(st.integers(1, 3)), draw(channels), draw(channels), draw(filters), draw(sides), draw(sides)
    rng, dtype = np.random.default_rng(draw(seeds)), draw(dtypes)
    first, second = draw(layouts), draw(layouts)
    shapes = ((n, n_i, r, k), first), ((n_o, n_i, h, h), second), ((1, n_o), first), ((n, n_o, r, k), second)
    return [laid_out(rng.standard_normal(shape).astype(dtype), layout) for shape, layout in shapes]


@st.composite
def strided(draw):
    """As `operands`, with filters of any side, and a stride and a padding that the images allow."""
    h, n, n_i, n_o = draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(channels), draw(channels)
    stride = draw(st.integers(1, 4) | st.tuples(st.integers(1, 4), st.integers(1, 4)))
    padding = draw(st.integers(0, 6) | st.tuples(st.integers(0, 6), st.integers(0, 6)))
    down, right, above, left = conv.window_of(stride, padding, h)
    r, k = (max(1, draw(sides), h - 2 * f) for f in (above, left))
    out = (r + 2 * above - h) // down + 1, (k + 2 * left - h) // right + 1
    rng, dtype = np.random.default_rng(draw(seeds)), draw(dtypes)
    first, second = draw(layouts), draw(layouts)
    shapes = ((n, n_i, r, k), first), ((n_o, n_i, h, h), second), ((1, n_o), first), ((n, n_o, *out), second)
    return [laid_out(rng.standard_normal(shape).astype(dtype), layout) for shape, layout in shapes], (stride, padding)


def assert_naive(name, shape, terms, *operands):
    """Rounding errors of a sum of products: at most terms + 2 halves of an eps of the sum of their sizes."""
    dtype = operands[0].dtype
    out, expected, sizes = filled(shape, dtype), filled(shape, np.float64), filled(shape, np.float64)
    getattr(conv, name)(out, *operands)
    getattr(naive, name)(expected, *operands)
    getattr(naive, name)(sizes, *(np.abs(a) if isinstance(a, np.ndarray) else a for a in operands))
    assert np.all(np.abs(out - expected) <= (terms + 2) * eps(out) * sizes), name


def assert_all_naive(x, W, b, dy, window=SAME):
    pixels = dy[:, 0].size
    assert_naive("conv_forward", dy.shape, W[0].size, x, W, b, *window)
    assert_naive("conv_backward_input", x.shape, W[:, 0].size, dy, W, *window)
    assert_naive("conv_backward_weights", W.shape, pixels, dy, x, *window)
    assert_naive("conv_backward_bias", b.shape, pixels, dy)
    assert_backward_naive(dy, x, W, window)
    assert_backward_naive(through_pool(dy), x, W, window)


def assert_backward_naive(dy, x, W, window=SAME, by_pixel=True):
    """All three gradients at once, to the same bounds as one by one.

    Not `by_pixel`, the errors of dx may be as large as those of an image's largest sum: Winograd's are of the window around.
    """
    shapes, terms = (x.shape, W.shape, (1, len(W))), (W[:, 0].size, dy[:, 0].size, dy[:, 0].size)
    results = [[filled(shape, dtype) for shape in shapes] for dtype in (x.dtype, np.float64, np.float64)]
    conv.conv_backward(*results[0], dy, x, W, *window)
    naive.conv_backward(*results[1], dy, x, W, *window)
    naive.conv_backward(*results[2], *map(np.abs, (dy, x, W)), *window)
    if not by_pixel:
        results[2][0] = results[2][0].max(axis=(1, 2, 3), keepdims=True)
    for ours, expected, sizes, count in zip(*results, terms, strict=True):
        assert np.all(np.abs(ours - expected) <= (count + 2) * eps(ours) * sizes)


def through_pool(dy):
    """dy as it is behind a pool of 2 and ReLU: of each window the maxima, some of which are equal, those above 0."""
    r, k = dy.shape[2:]
    result = np.zeros_like(dy)
    if r > 1 and k > 1:
        naive.maxpool_backward(result, dy[:, :, :r // 2, :k // 2], np.rint(dy) == 1, 2)
    return result


def test_gradients_that_came_through_a_pool_and_others_in_one_batch(dtype, rng):
    """Also where the one that did not is so at a single place, in a last odd row or column, or by NaN."""
    x, W = (rng.standard_normal(s).astype(dtype) for s in ((6, 3, 7, 9), (20, 3, 3, 3)))
    dy = through_pool(rng.standard_normal((6, 20, 7, 9)).astype(dtype))
    dy[1, 19, 2, 4:6] = 1, 2
    dy[2, 7, 6, 3], dy[3, 18, 1, 8] = 1, 1
    dy[5] = rng.standard_normal(dy[5].shape)
    assert_backward_naive(dy, x, W, by_pixel=False)
    dy[4, 3, 2, 2:4] = np.nan
    results = [[filled(shape, kind) for shape in (x.shape, W.shape, (1, 20))] for kind in (dtype, np.float64)]
    conv.conv_backward(*results[0], dy, x, W)
    naive.conv_backward(*results[1], dy, x, W)
    for ours, expected in zip(*results, strict=True):
        assert np.array_equal(np.isnan(ours), np.isnan(expected))


@pytest.mark.parametrize("lost", [np.nan, np.inf])
@pytest.mark.parametrize("n_i", [3, 16])
def test_zeros_of_a_gradient_times_nan_or_inf_are_nan(lost, n_i, dtype, rng):
    for where in ("x", "W", "dy"):
        x, W = (rng.standard_normal(s).astype(dtype) for s in ((3, n_i, 8, 8), (16, n_i, 3, 3)))
        dy = through_pool(rng.standard_normal((3, 16, 8, 8)).astype(dtype))
        array, place = {"x": (x, (1, 0, 3, 2)), "W": (W, (5, 1, 1, 2)), "dy": (dy, (2, 4, 3, 3))}[where]
        array[place] = lost
        results = [[filled(shape, kind) for shape in (x.shape, W.shape, (1, 16))] for kind in (dtype, np.float64)]
        conv.conv_backward(*results[0], dy, x, W)
        with np.errstate(invalid="ignore"):
            naive.conv_backward(*results[1], dy, x, W)
        if where == "W":  # at the border it meets zeros around dy, too, which the twin does not multiply
            results = [[dx[:, :, 1:-1, 1:-1], *others] for dx, *others in results]
        for ours, expected in zip(*results, strict=True):
            assert np.array_equal(np.isnan(ours), np.isnan(expected)), where
            assert np.array_equal(np.isinf(ours), np.isinf(expected)), where


def test_winograd_s_sums_do_not_overflow_nor_spread_nan(rng):
    x, W, b = (rng.standard_normal(s).astype(np.float32) for s in ((3, 16, 6, 7), (20, 16, 3, 3), (1, 20)))
    x[0, 2] *= np.float32(1e37)
    x[1, 3, 2, 2] = np.nan
    y, expected = filled((3, 20, 6, 7), np.float32), filled((3, 20, 6, 7), np.float64)
    conv.conv_forward(y, x, W * np.float32(0.1), b)
    naive.conv_forward(expected, x, W * np.float32(0.1), b)
    assert np.array_equal(np.isnan(y), np.isnan(expected))
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e33)
    np.testing.assert_allclose(y[2], expected[2], rtol=1e-4, atol=1e-5)


@given(operands())
def test_kernels_are_naive(operands):
    assert_all_naive(*operands)


@given(strided())
def test_kernels_are_naive_at_any_stride_and_padding(drawn):
    operands, window = drawn
    assert_all_naive(*operands, window)


@pytest.mark.parametrize(("n_i", "n_o", "h", "r", "k", "stride", "padding"), [
    (16, 32, 5, 16, 16, 1, 0), (5, 20, 7, 24, 18, 1, (2, 1)), (3, 8, 5, 30, 36, 2, 0), (17, 3, 6, 15, 11, (1, 2), (1, 3)),
    (2, 3, 9, 20, 9, 1, 0), (4, 4, 3, 12, 18, 1, 1)])
def test_patches_that_reach_into_the_padding_of_the_gradient(n_i, n_o, h, r, k, stride, padding, dtype, rng):
    """Columns of pixels have a part of the filters, and pixels at the corners all of them."""
    window = conv.window_of(stride, padding, h)
    out = (r + 2 * window[2] - h) // window[0] + 1, (k + 2 * window[3] - h) // window[1] + 1
    shapes = (2, n_i, r, k), (n_o, n_i, h, h), (1, n_o), (2, n_o, *out)
    x, W, _, dy = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    results, expected = (np.full(x.shape, np.nan, dtype) for _ in range(2))
    conv.conv_backward_input(results, dy, W, stride, padding)
    naive.conv_backward_input(expected, dy, W, stride, padding)
    tolerance = 4 * W[:, 0].size * np.finfo(dtype).eps * np.abs(W).max() * np.abs(dy).max()
    np.testing.assert_allclose(results, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("n", "n_i", "n_o", "h", "side", "window"), [
    (70, 3, 8, 3, 9, (2, 1)), (40, 64, 33, 3, 8, (2, 1)), (3, 5, 4, 7, 40, (1, 0)), (2, 70, 40, 5, 24, (3, 0))])
def test_many_images_share_products_with_patches_and_large_ones_need_several(n, n_i, n_o, h, side, window, dtype, rng):
    """Chunks of more images than stand in the frames together, and images of more pixels than patches fit the memory."""
    out = (side + 2 * window[1] - h) // window[0] + 1
    shapes = (n, n_i, side, side), (n_o, n_i, h, h), (1, n_o), (n, n_o, out, out)
    x, W, _, dy = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    dy[::3] = through_pool(dy[::3])
    assert_backward_naive(dy, x, W, window)


WINDOWS = ((1, None), (2, 1), ((2, 1), (0, 3)), (1, 0), (1, (4, 1)))


@njit
def all_kernels(y, dx, dW, db, dx_alone, dW_alone, x, W, b, dy, stride, padding):
    conv.conv_forward(y, x, W, b, stride, padding)
    conv.conv_backward(dx, dW, db, dy, x, W, stride, padding)
    conv.conv_backward_input(dx_alone, dy, W, stride, padding)
    conv.conv_backward_weights(dW_alone, dy, x, stride, padding)


@pytest.mark.parametrize(("stride", "padding"), WINDOWS)
def test_compiled_calls_have_equal_bits_at_any_stride_and_padding(stride, padding, rng):
    """Also where images are empty."""
    down, right, above, left = conv.window_of(stride, padding, 3)
    for n, r in ((3, 7), (0, 7), (3, 0)):
        out = max(0, (r + 2 * above - 3) // down + 1), (6 + 2 * left - 3) // right + 1
        x, W, b, dy = (rng.standard_normal(shape) for shape in ((n, 2, r, 6), (5, 2, 3, 3), (1, 5), (n, 5, *out)))
        results, expected = ([filled(a.shape, np.float64) for a in (dy, x, W, b, x, W)] for _ in range(2))
        all_kernels(*results, x, W, b, dy, stride, padding)
        all_kernels.py_func(*expected, x, W, b, dy, stride, padding)
        naive.conv_forward(exact := np.empty(dy.shape), x, W, b, stride, padding)
        np.testing.assert_allclose(results[0], exact, atol=1e-12)
        for one, other in zip(results, expected, strict=True):
            assert np.array_equal(one, other)


@pytest.mark.parametrize(("n", "n_i", "n_o", "h", "r", "k"), [
    (5, 3, 16, 3, 32, 32), (2, 16, 32, 3, 16, 16), (2, 1, 16, 3, 48, 48), (40, 2, 3, 3, 4, 5), (1, 1, 1, 1, 1, 1), (1, 2, 2, 7, 1, 1)])
def test_kernels_on_the_course_s_shapes_and_smaller_than_the_filter(n, n_i, n_o, h, r, k, dtype, rng):
    shapes = (n, n_i, r, k), (n_o, n_i, h, h), (1, n_o), (n, n_o, r, k)
    assert_all_naive(*(rng.standard_normal(shape).astype(dtype) for shape in shapes))


def test_nan_and_inf_reach_what_they_are_part_of(dtype, rng):
    x, W, b = (rng.standard_normal(s).astype(dtype) for s in ((2, 2, 6, 7), (3, 2, 3, 3), (1, 3)))
    x[1, 0, 2, 3] = np.nan
    y = filled((2, 3, 6, 7), dtype)
    conv.conv_forward(y, x, W, b)
    expected = np.zeros(y.shape, bool)
    expected[1, :, 1:4, 2:5] = True
    assert np.array_equal(np.isnan(y), expected)


def test_same_bits_for_any_number_of_threads(dtype, rng):
    x, W, b, dy = (rng.standard_normal(s).astype(dtype) for s in ((19, 3, 16, 16), (20, 3, 3, 3), (1, 20), (19, 20, 16, 16)))
    before, results = pool.get_num_threads(), []
    try:
        for count in (1, 2, 3, 5):
            pool.set_num_threads(count)
            y, dx, dW, db = (filled(a.shape, dtype) for a in (dy, x, W, b))
            conv.conv_forward(y, x, W, b)
            conv.conv_backward_input(dx, dy, W)
            conv.conv_backward_weights(dW, dy, x)
            conv.conv_backward_bias(db, dy)
            results.append([a.tobytes() for a in (y, dx, dW, db)])
            for gradient in (dy, through_pool(dy)):
                conv.conv_backward(dx, dW, db, gradient, x, W)
                results[-1] += [a.tobytes() for a in (dx, dW, db)]
            y, gradient = filled((19, 20, 8, 8), dtype), np.ascontiguousarray(dy[:, :, ::2, ::2])
            conv.conv_forward(y, x, W, b, 2)
            conv.conv_backward(dx, dW, db, gradient, x, W, 2)
            results[-1] += [a.tobytes() for a in (y, dx, dW, db)]
    finally:
        pool.set_num_threads(before)
    assert all(result == results[0] for result in results)


# --- the layer ------------------------------------------------------------------------------------------------------


def counted(n_i, n_o, h, shape):
    """A layer and images of the numbers 0, 1, 2, ..."""
    layer = ConvLayer(n_i, n_o, h)
    layer.W = np.arange(layer.W.size, dtype=float).reshape(layer.W.shape)
    layer.b = np.arange(n_o, dtype=float)
    return layer, np.arange(np.prod(shape), dtype=float).reshape(shape)


def test_outputs_that_the_course_pins():
    layer, x = counted(1, 1, 3, (1, 1, 3, 3))
    assert layer.forward(x).tolist() == [[[[58, 100, 70], [132, 204, 132], [70, 100, 58]]]]
    layer, x = counted(2, 1, 3, (1, 2, 4, 4))
    y = layer.forward(x)
    assert y.shape == (1, 1, 4, 4)
    assert y[0, 0, 0].tolist() == [1196, 1796, 1916, 1264]
    assert y[0, 0, 3].tolist() == [1424, 2072, 2156, 1380]
    layer, x = counted(2, 2, 3, (1, 2, 4, 4))
    assert layer.forward(x)[0, 1, 0].tolist() == [2709, 4173, 4509, 3065]


@pytest.mark.parametrize(("n_i", "n_o", "h", "shape"), [
    (1, 1, 3, (1, 1, 8, 8)), (2, 1, 3, (1, 2, 4, 4)), (2, 2, 3, (1, 2, 4, 4)), (5, 3, 3, (2, 5, 3, 3)), (2, 2, 5, (2, 2, 8, 8))])
@pytest.mark.parametrize("weighted", [False, True])
def test_differences_of_large_numbers_as_the_course_takes_them(n_i, n_o, h, shape, weighted):
    """Arrays changed in place by 0.001, outputs near 2e6, rtol 1e-5: nothing but a sum to rounding stands this."""
    layer, x = counted(n_i, n_o, h, shape)
    y = layer.forward(x)
    kept, dy = y.copy(), np.ones(y.shape)
    if weighted:
        dy = np.arange(y.size, dtype=float).reshape(y.shape)
    dx = layer.backward(dy)
    for array, gradient in ((x, dx), (layer.W, layer.W_grad), (layer.b, layer.b_grad)):
        for i in np.ndindex(array.shape):
            before = array[i]
            array[i] = before + 0.001
            up = layer.forward(x)
            array[i] = before - 0.001
            down = layer.forward(x)
            array[i] = before
            np.testing.assert_allclose(gradient[i], np.sum((up - down) * dy) / 0.002, rtol=1e-5, atol=1e-8)
    assert np.array_equal(y, kept)


def layer_and_images(rng, dtype=np.float64, n=3, n_i=2, n_o=4, h=3, r=5, k=6):
    layer = ConvLayer(n_i, n_o, h, dtype=dtype, rng=rng)
    return layer, rng.standard_normal((n, n_i, r, k)).astype(dtype), rng.standard_normal((n, n_o, r, k)).astype(dtype)


def test_forward_backward_update(dtype, rng):
    layer, x, dy = layer_and_images(rng, dtype)
    layer.b = rng.standard_normal(4).astype(dtype)
    W, b = layer.W.copy(), layer.b.copy()
    given = x.copy()
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-12}
    expected = [filled(a.shape, np.float64) for a in (dy, x, W, b)]
    naive.conv_forward(expected[0], x, W, b)
    naive.conv_backward_input(expected[1], dy, W)
    naive.conv_backward_weights(expected[2], dy, x)
    naive.conv_backward_bias(expected[3], dy)
    y = layer.forward(x)
    dx = layer.backward(dy)
    for ours, theirs in zip((y, dx, layer.W_grad, layer.b_grad), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, **close)
        assert ours.dtype == dtype
    assert layer.x is x
    assert layer.w_grad is layer.W_grad
    layer.update_param(0.3)
    layer.update_params(0.3)
    np.testing.assert_allclose(layer.W, W - 0.6 * expected[2], **close)
    np.testing.assert_allclose(layer.b, b - 0.6 * expected[3], **close)
    assert layer.b.shape == (1, 4)
    assert np.array_equal(x, given)
    assert not any(np.shares_memory(a, x) for a in (y, dx, layer.W, layer.W_grad))


@pytest.mark.parametrize(("h", "stride", "padding"), [(3, 2, "same"), (2, 1, "valid"), (4, (1, 3), (0, 2)), (3, 3, 5)])
def test_strided_gradients_are_the_numerical_ones(h, stride, padding, rng):
    assert gradcheck(ConvLayer(2, 3, h, rng=rng, stride=stride, padding=padding), rng.standard_normal((2, 2, 7, 6)))


def test_gradients_are_the_numerical_ones(rng):
    layer, x, _ = layer_and_images(rng)
    report = gradcheck(layer, x)
    assert report
    assert [a.name for a in report.arrays] == ["x", "W", "b"]


def test_initial_values_follow_glorot_and_numpy_s_seed():
    np.random.seed(3)
    layer = ConvLayer(40, 50, 5)
    np.random.seed(3)
    assert np.array_equal(layer.W, np.random.normal(0, np.sqrt(2 / (90 * 25)), (50, 40, 5, 5)))
    assert layer.W.std() == pytest.approx(np.sqrt(2 / (90 * 25)), rel=0.01)
    assert np.array_equal(layer.b, np.zeros((1, 50)))
    assert np.array_equal(ConvLayer(2, 3, 3, rng=7).W, ConvLayer(2, 3, 3, rng=np.random.default_rng(7)).W)
    fastnet.set_default_dtype(np.float32)
    assert ConvLayer(2, 3, 3).W.dtype == np.float32


@pytest.mark.parametrize("layout", LAYOUTS)
def test_arrays_of_any_layout_and_kind(layout, rng):
    layer, x, dy = layer_and_images(rng)
    expected = layer.forward(x), layer.backward(dy), layer.W_grad
    layer.W = laid_out(layer.W, layout)
    results = layer.forward(laid_out(x, layout)), layer.backward(laid_out(dy, layout)), layer.W_grad
    assert all(np.array_equal(a, b) for a, b in zip(results, expected, strict=True))
    whole = np.arange(60).reshape(1, 2, 5, 6)
    assert np.array_equal(layer.forward(whole), layer.forward(whole.tolist()))
    assert np.array_equal(layer.forward(whole.astype(">i4")), layer.forward(whole.astype(float)))


def test_copies_and_pickles(rng):
    layer, x, dy = layer_and_images(rng)
    layer.forward(x)
    layer.backward(dy)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert np.array_equal(other.W_grad, layer.W_grad)
        assert np.array_equal(other.forward(x), layer.forward(x))
        other.W[:] = 0
        assert layer.W.any()
    assert repr(layer) == "ConvLayer(2, 4, 3)"
    assert repr(ConvLayer(2, 4, 1, dtype=np.float32)) == "ConvLayer(2, 4, 1, dtype=float32)"
    assert repr(ConvLayer(2, 4, 5, stride=(2, 1), padding="valid")) == "ConvLayer(2, 4, 5, stride=(2, 1), padding='valid')"
    assert repr(ConvLayer(2, 4, 5, padding=1)) == "ConvLayer(2, 4, 5, padding=1)"


def test_output_shape():
    layer = ConvLayer(3, 8, 3)
    assert layer.output_shape((3, 7, 9)) == (8, 7, 9)
    assert layer.output_shape(None) == (8, None, None)
    assert ConvLayer(3, 8, 3, stride=2).output_shape((3, 7, 8)) == (8, 4, 4)
    assert ConvLayer(3, 8, 4, padding="valid").output_shape((3, 7, None)) == (8, 4, None)
    assert ConvLayer(3, 8, 2, stride=(1, 3), padding=[2, 0]).output_shape((3, 1, 8)) == (8, 4, 3)
    with pytest.raises(ValueError, match=r"takes images of at least 5 x 3 pixels, but its input has 9 x 2\. Pool less"):
        ConvLayer(3, 8, 5, padding=(0, 1)).output_shape((3, 9, 2))
    with pytest.raises(ValueError, match=r"ConvLayer\(3, 8, 3\) takes images of 3 channels, but its input has 4"):
        layer.output_shape((4, 7, 9))
    with pytest.raises(ValueError, match=r"takes images, of shape \(3, r, k\) per sample, but its input has shape \(12,\)"):
        layer.output_shape((12,))


def test_mistakes(rng):
    with pytest.raises(ValueError, match=r"ConvLayer: h must be odd, got 4.*which has a middle"):
        ConvLayer(3, 16, 4)
    with pytest.raises(ValueError, match="ConvLayer: n_i must be at least 1, got 0"):
        ConvLayer(0, 16, 3)
    with pytest.raises(TypeError, match=r"ConvLayer: h must be a whole number, got 3\.0"):
        ConvLayer(3, 16, 3.0)
    with pytest.raises(ValueError, match=r"h must be odd, got 2.* An even one needs padding=.valid., or a number"):
        ConvLayer(3, 16, 2)
    with pytest.raises(ValueError, match=r"ConvLayer: stride must be at least 1, got 0\. It is the step"):
        ConvLayer(3, 16, 3, stride=0)
    with pytest.raises(ValueError, match=r"ConvLayer: stride must be a whole number or a pair \(rows, columns\), got \(1, 2, 3\)"):
        ConvLayer(3, 16, 3, stride=(1, 2, 3))
    with pytest.raises(ValueError, match=r"ConvLayer: padding\[1\] must be at least 0, got -1"):
        ConvLayer(3, 16, 3, padding=(1, -1))
    with pytest.raises(ValueError, match="ConvLayer: padding must be one of 'same', 'valid', got 'full'"):
        ConvLayer(3, 16, 3, padding="full")
    with pytest.raises(TypeError, match=r"ConvLayer: padding must be a whole number, got 1\.5"):
        ConvLayer(3, 16, 3, padding=1.5)
    layer, x, dy = layer_and_images(rng)
    with refuses(RuntimeError, r"ConvLayer\(2, 4, 3\): x has not been computed; call forward\(\) first", layer):
        layer.backward(dy)
    with refuses(ValueError, r"x must be images of shape \(n, 2, r, k\), got \(3, 60\)\.$", layer):
        layer.forward(x.reshape(3, 60))
    with refuses(ValueError, r"got \(2, 5, 6\).*np.expand_dims\(x, 0\)", layer):
        layer.forward(x[0])
    with refuses(ValueError, r"x must be images of 2 channels, shape \(n, 2, r, k\), got \(3, 3, 5, 6\)", layer):
        layer.forward(rng.standard_normal((3, 3, 5, 6)))
    with refuses(ValueError, r"channels seem to be last: np.transpose\(x, \(0, 3, 1, 2\)\)", layer):
        layer.forward(x.transpose(0, 2, 3, 1))
    with refuses(ValueError, "x is empty", layer):
        layer.forward(x[:0])
    with refuses(TypeError, "real numbers, got dtype complex128", layer):
        layer.forward(x + 1j)
    layer.forward(x)
    with refuses(ValueError, r"y_grad must have the shape \(3, 4, 5, 6\) of the output, got \(3, 2, 5, 6\)", layer):
        layer.backward(x)
    with refuses(ValueError, r"W must have shape \(4, 2, 3, 3\), got \(4, 2, 9\)", layer):
        layer.W = np.ones((4, 2, 9))
    layer.n_o = 5
    with refuses(ValueError, r"the layer's n_o, n_i and h need \(5, 2, 3, 3\). Assign W again", layer):
        layer.forward(x)


def test_initializers():
    drawn = {name: ConvLayer(30, 20, 5, rng=0, initializer=name).W for name in ("glorot", "he")}
    assert np.array_equal(drawn["glorot"], ConvLayer(30, 20, 5, rng=0).W)
    np.testing.assert_allclose(drawn["he"].std(), np.sqrt(2 / 750), rtol=0.02)


def test_pairs_may_be_lists_also_when_they_are_assigned(rng):
    x = rng.standard_normal((2, 1, 9, 8))
    conv, pool = ConvLayer(1, 2, 3, rng=0, stride=[1, 2], padding=[0, 1]), MaxPoolLayer([3, 2], [1, 2])
    expected = pool.forward(conv.forward(x))
    conv.stride, conv.padding, pool.size, pool.stride = [1, 2], [0, 1], [3, 2], [1, 2]
    assert np.array_equal(pool.forward(conv.forward(x)), expected)
