"""Maximum pooling: kernels against naive, then the layer, then error texts."""
import copy
import pickle

import numpy as np
import pytest
from fastnet.kernels import maxpool, naive
from fastnet.kernels.runtime import pool
from helpers import LAYOUTS, dtypes, eps, filled, laid_out, layouts, refuses, seeds
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from fastnet import MaxPoolLayer, gradcheck


@st.composite
def images(draw):
    """A batch with many equal numbers, and windows that lie side by side, overlap, or leave gaps."""
    number = st.integers(1, 4)
    size = draw(number | st.tuples(number, number))
    stride = draw(st.none() | number | st.tuples(number, number))
    high, wide, _, _ = maxpool.windows_of(size, stride)
    shape = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 7])), draw(st.integers(high, 17)), draw(st.integers(wide, 37))
    rng = np.random.default_rng(draw(seeds))
    x = laid_out(rng.integers(-2, 3, shape).astype(draw(dtypes)), draw(layouts))
    return (size, stride), x, draw(layouts), rng


def shapes_of(x, size, stride):
    """Shapes of the output and of the truth values."""
    high, wide, down, right = maxpool.windows_of(size, stride)
    y = *x.shape[:2], (x.shape[2] - high) // down + 1, (x.shape[3] - wide) // right + 1
    return y, (*y, high, wide) if down < high or right < wide else x.shape


@given(images())
def test_kernels_are_naive(drawn):
    windows, x, layout, rng = drawn
    shape, of_locs = shapes_of(x, *windows)
    y, locs = filled(shape, x.dtype), np.ones(of_locs, bool)
    expected, places = filled(y.shape, np.float64), np.ones(of_locs, bool)
    maxpool.maxpool_forward(y, locs, x, *windows)
    naive.maxpool_forward(expected, places, x, *windows)
    assert np.array_equal(y, expected)
    assert np.array_equal(locs, places)
    dy = laid_out(rng.standard_normal(y.shape).astype(x.dtype), layout)
    dx, expected = filled(x.shape, x.dtype), filled(x.shape, np.float64)
    maxpool.maxpool_backward(dx, dy, laid_out(locs, layout), *windows)
    naive.maxpool_backward(expected, dy, locs, *windows)
    if locs.ndim == 4:
        assert np.array_equal(dx, expected)
    np.testing.assert_allclose(dx, expected, rtol=0, atol=64 * eps(dx))


@njit
def both_kernels(y, locs, dx, x, dy, size, stride):
    maxpool.maxpool_forward(y, locs, x, size, stride)
    maxpool.maxpool_backward(dx, dy, locs, size, stride)


@pytest.mark.parametrize(("size", "stride"), [(2, None), (3, 2), ((2, 3), (1, 4)), (2, 3)])
def test_compiled_calls_have_equal_bits_for_any_windows(size, stride, rng):
    for n in (3, 0):
        x = rng.standard_normal((n, 2, 8, 9))
        shape, of_locs = shapes_of(x, size, stride)
        dy, results = rng.standard_normal(shape), []
        for call in (both_kernels, both_kernels.py_func):
            results.append((filled(shape, np.float64), np.ones(of_locs, bool), filled(x.shape, np.float64)))
            call(*results[-1], x, dy, size, stride)
        assert all(np.array_equal(one, other) for one, other in zip(*results, strict=True))


def test_large_batches_on_any_number_of_threads(dtype, rng):
    x = rng.standard_normal((9, 8, 32, 33)).astype(dtype)
    before = pool.get_num_threads()
    try:
        for count in (1, 2, 3):
            pool.set_num_threads(count)
            for size in (2, 3):
                y, locs = filled((9, 8, 32 // size, 33 // size), dtype), np.ones(x.shape, bool)
                maxpool.maxpool_forward(y, locs, x, size)
                expected, places = filled(y.shape, np.float64), np.ones(x.shape, bool)
                naive.maxpool_forward(expected, places, x, size)
                assert np.array_equal(y, expected)
                assert np.array_equal(locs, places)
    finally:
        pool.set_num_threads(before)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_nan_and_infinities(size, dtype):
    for place in np.ndindex(size, size):
        for window in (0, 15, 23, 27, 28):  # in vectors of 16, 8 and 4 windows, and on its own
            x = np.full((1, 1, size, 29 * size), -np.inf, dtype)
            x[0, 0, place[0], window * size + place[1]] = np.nan
            layer = MaxPoolLayer(size)
            y = layer.forward(x)
            assert np.array_equal(np.isnan(y[0, 0, 0]), np.arange(29) == window)
            assert np.all(y[~np.isnan(y)] == -np.inf)
            whole = np.repeat(np.arange(29) != window, size)
            assert np.all(layer.locs[0, 0] == whole)


# --- the layer ------------------------------------------------------------------------------------------------------


def test_layer(dtype, rng):
    x = rng.standard_normal((3, 2, 6, 8)).astype(dtype)
    given_x = x.copy()
    layer = MaxPoolLayer()
    assert layer.size == 2
    assert layer.locs is None
    y = layer.forward(x)
    assert y.dtype == dtype
    assert np.array_equal(y, x.reshape(3, 2, 3, 2, 4, 2).max(axis=(3, 5)))
    assert layer.locs.shape == x.shape
    assert np.array_equal(np.unique(layer.locs), [0, 1])
    dx = layer.backward(y)
    assert dx.dtype == dtype
    assert np.array_equal(dx, np.where(layer.locs, x, 0))
    assert np.array_equal(x, given_x)


def test_every_equal_maximum_gets_the_whole_gradient():
    layer = MaxPoolLayer(2)
    layer.forward([[[[7, 7, 1, 2], [7, 0, 3, 3]]]])
    assert layer.backward([[[[5, 6]]]]).tolist() == [[[[5, 5, 0, 0], [5, 0, 6, 6]]]]
    layer.forward(np.zeros((1, 1, 2, 2)))
    assert layer.backward([[[[5]]]]).tolist() == [[[[5, 5], [5, 5]]]]


@pytest.mark.parametrize(("size", "r", "k"), [(2, 5, 4), (2, 4, 5), (3, 8, 7), (4, 7, 4)])
def test_what_does_not_fill_a_window_is_ignored(size, r, k, rng):
    x = rng.standard_normal((2, 3, r, k))
    x[:, :, r // size * size:] = 100
    x[:, :, :, k // size * size:] = 100
    layer = MaxPoolLayer(size)
    y = layer.forward(x)
    assert y.shape == (2, 3, r // size, k // size)
    assert y.max() < 100
    dx = layer.backward(np.ones(y.shape))
    assert not dx[x == 100].any()
    assert dx.sum() == y.size


@pytest.mark.parametrize("windows", [(1,), (2,), (3,), (3, 2), (2, 1), ((1, 3), (2, 2)), (2, 3)])
def test_gradient_is_the_numerical_one(windows, rng):
    assert gradcheck(MaxPoolLayer(*windows), rng.standard_normal((2, 3, 7, 6)))


def test_windows_that_overlap_or_leave_gaps(rng):
    layer = MaxPoolLayer(3, stride=2)
    assert layer.forward([[[[1.0, 2, 9, 4, 5], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]]]).tolist() == [[[[9, 9]]]]
    assert layer.locs.shape == (1, 1, 1, 2, 3, 3)
    assert layer.backward([[[[10.0, 100.0]]]])[0, 0, 0].tolist() == [0, 0, 110, 0, 0]
    layer = MaxPoolLayer((1, 2), stride=(1, 3))
    assert layer.forward([[[[1.0, 2, 9, 4, 5]]]]).tolist() == [[[[2, 5]]]]
    assert layer.locs.tolist() == [[[[False, True, False, False, True]]]]
    assert layer.backward([[[[3.0, 4.0]]]]).tolist() == [[[[0, 3, 0, 0, 4]]]]
    layer = MaxPoolLayer(3, 2)
    with refuses(RuntimeError, "locs has not been computed", layer):
        layer.backward([[[[1.0]]]])
    layer.forward(rng.standard_normal((1, 2, 5, 6)))
    layer.locs = np.ones((1, 2, 5, 6), bool)
    with pytest.raises(ValueError, match=r"locs must have the shape \(1, 2, 2, 2, 3, 3\) of the windows, got \(1, 2, 5, 6\)"):
        layer.backward(np.ones((1, 2, 2, 2)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_arrays_of_any_layout_and_kind(layout, rng):
    x, layer = rng.integers(-3, 4, (2, 3, 6, 7)), MaxPoolLayer()
    y = layer.forward(laid_out(x.astype(float), layout))
    dx = layer.backward(laid_out(y, layout))
    assert np.array_equal(y, layer.forward(x.tolist()))
    assert np.array_equal(dx, layer.backward(y.astype(int)))


def test_places_may_be_assigned():
    layer = MaxPoolLayer()
    layer.locs = np.array([[[[1.0, 0.0], [0.0, 1.0]]]])
    assert layer.backward([[[[3.0]]]]).tolist() == [[[[3, 0], [0, 3]]]]


def test_copies_pickles_and_nothing_to_update(rng):
    layer = MaxPoolLayer(3)
    layer.forward(rng.standard_normal((1, 2, 6, 6)))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert np.array_equal(other.locs, layer.locs)
    assert layer.update_param(0.1) is None
    assert layer.update_params(0.1) is None
    assert repr(layer) == "MaxPoolLayer(3)"
    assert repr(MaxPoolLayer((2, 3), 1)) == "MaxPoolLayer((2, 3), stride=1)"


def test_output_shape():
    layer = MaxPoolLayer(2)
    assert layer.output_shape((3, 7, 8)) == (3, 3, 4)
    assert layer.output_shape((3, None, None)) == (3, None, None)
    assert layer.output_shape(None) == (None, None, None)
    assert MaxPoolLayer(3, 2).output_shape((3, 7, 8)) == (3, 3, 3)
    assert MaxPoolLayer((1, 2), stride=[3, 1]).output_shape((3, 7, 8)) == (3, 3, 7)
    with pytest.raises(ValueError, match=r"takes images of at least 2 x 2 pixels, but its input has 1 x 5. Pool less"):
        layer.output_shape((3, 1, 5))
    with pytest.raises(ValueError, match=r"takes images, of shape \(c, r, k\) per sample, but its input has shape \(12,\)"):
        layer.output_shape((12,))


def test_mistakes(rng):
    with pytest.raises(ValueError, match="MaxPoolLayer: size must be at least 1, got 0"):
        MaxPoolLayer(0)
    with pytest.raises(TypeError, match=r"MaxPoolLayer: size must be a whole number, got 2\.0"):
        MaxPoolLayer(2.0)
    with pytest.raises(ValueError, match=r"MaxPoolLayer: stride\[0\] must be at least 1, got 0. It is the step"):
        MaxPoolLayer(2, (0, 1))
    layer, x = MaxPoolLayer(3), rng.standard_normal((2, 3, 6, 7))
    with refuses(RuntimeError, r"MaxPoolLayer\(3\): locs has not been computed; call forward\(\)", layer):
        layer.backward(x)
    with refuses(ValueError, r"x must be images of at least 3 x 3 pixels, got \(2, 3, 2, 7\). Pool less", layer):
        layer.forward(x[:, :, :2])
    with refuses(ValueError, r"x must be images of shape \(n, c, r, k\), got \(6, 42\)", layer):
        layer.forward(x.reshape(6, 42))
    with refuses(ValueError, "x is empty", layer):
        layer.forward(x[:0])
    layer.forward(x)
    with refuses(ValueError, r"y_grad must have the shape \(2, 3, 2, 2\) of the output, got \(2, 3, 6, 7\)", layer):
        layer.backward(x)
