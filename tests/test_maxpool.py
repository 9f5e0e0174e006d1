"""Maximum pooling: kernels against naive, then the layer, then error texts."""
import copy
import pickle

import numpy as np
import pytest
from fastnet.kernels import maxpool, naive
from fastnet.kernels.runtime import pool
from helpers import LAYOUTS, dtypes, filled, laid_out, layouts, refuses, seeds
from hypothesis import given
from hypothesis import strategies as st

from fastnet import MaxPoolLayer, gradcheck


@st.composite
def images(draw):
    """A batch with many equal numbers, and a size of window."""
    size = draw(st.integers(1, 4))
    shape = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 7])), draw(st.integers(size, 17)), draw(st.integers(size, 37))
    rng = np.random.default_rng(draw(seeds))
    return size, laid_out(rng.integers(-2, 3, shape).astype(draw(dtypes)), draw(layouts)), draw(layouts), rng


@given(images())
def test_kernels_are_naive(drawn):
    size, x, layout, rng = drawn
    n, c, r, k = x.shape
    y, locs = filled((n, c, r // size, k // size), x.dtype), np.ones(x.shape, bool)
    expected, places = filled(y.shape, np.float64), np.ones(x.shape, bool)
    maxpool.maxpool_forward(y, locs, x, size)
    naive.maxpool_forward(expected, places, x, size)
    assert np.array_equal(y, expected)
    assert np.array_equal(locs, places)
    dy = laid_out(rng.standard_normal(y.shape).astype(x.dtype), layout)
    dx, expected = filled(x.shape, x.dtype), filled(x.shape, np.float64)
    maxpool.maxpool_backward(dx, dy, laid_out(locs, layout), size)
    naive.maxpool_backward(expected, dy, locs, size)
    assert np.array_equal(dx, expected)


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


@pytest.mark.parametrize("size", [1, 2, 3])
def test_gradient_is_the_numerical_one(size, rng):
    assert gradcheck(MaxPoolLayer(size), rng.standard_normal((2, 3, 7, 6)))


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


def test_output_shape():
    layer = MaxPoolLayer(2)
    assert layer.output_shape((3, 7, 8)) == (3, 3, 4)
    assert layer.output_shape((3, None, None)) == (3, None, None)
    assert layer.output_shape(None) == (None, None, None)
    with pytest.raises(ValueError, match=r"takes images of at least 2 x 2 pixels, but its input has 1 x 5. Pool less"):
        layer.output_shape((3, 1, 5))
    with pytest.raises(ValueError, match=r"takes images, of shape \(c, r, k\) per sample, but its input has shape \(12,\)"):
        layer.output_shape((12,))


def test_mistakes(rng):
    with pytest.raises(ValueError, match="MaxPoolLayer: size must be at least 1, got 0"):
        MaxPoolLayer(0)
    with pytest.raises(TypeError, match=r"MaxPoolLayer: size must be a whole number, got 2\.0"):
        MaxPoolLayer(2.0)
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
