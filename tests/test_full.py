"""The fully connected layer: kernels against naive, then the layer, then error texts."""
import copy
import pickle

import numpy as np
import pytest
from fastnet.kernels import full, naive
from fastnet.kernels.runtime import pool
from helpers import LAYOUTS, dtypes, eps, filled, laid_out, layouts, refuses, seeds, sizes
from hypothesis import given
from hypothesis import strategies as st

import fastnet
from fastnet import FullLayer, gradcheck


@st.composite
def operands(draw):
    """x (n, n_i), W (n_o, n_i), b (1, n_o), dy (n, n_o) of one type, in two layouts."""
    n, n_i, n_o = draw(sizes), draw(sizes), draw(sizes)
    rng, dtype = np.random.default_rng(draw(seeds)), draw(dtypes)
    first, second = draw(layouts), draw(layouts)
    shapes = ((n, n_i), first), ((n_o, n_i), second), ((1, n_o), first), ((n, n_o), second)
    return [laid_out(rng.standard_normal(shape).astype(dtype), layout) for shape, layout in shapes]


def assert_naive(name, shape, *operands):
    """Rounding errors of a sum of k products: at most k + 2 halves of an eps of the sum of their sizes."""
    dtype, k = operands[0].dtype, max(max(a.shape) for a in operands)
    out, expected, sizes = filled(shape, dtype), filled(shape, np.float64), filled(shape, np.float64)
    getattr(full, name)(out, *operands)
    getattr(naive, name)(expected, *operands)
    getattr(naive, name)(sizes, *map(np.abs, operands))
    assert np.all(np.abs(out - expected) <= (k + 2) * eps(out) * sizes), name


@given(operands())
def test_kernels_are_naive(operands):
    x, W, b, dy = operands
    assert_naive("full_forward", dy.shape, x, W, b)
    assert_naive("full_backward_input", x.shape, dy, W)
    assert_naive("full_backward_weights", W.shape, dy, x)
    assert_naive("full_backward_bias", b.shape, dy)


@pytest.mark.parametrize(("n", "n_i", "n_o"), [(0, 3, 2), (3, 0, 2), (3, 2, 0), (0, 0, 0), (1, 1, 1), (128, 3072, 5)])
def test_kernels_on_empty_and_course_shapes(n, n_i, n_o, dtype, rng):
    x, W, b, dy = (rng.standard_normal(s).astype(dtype) for s in ((n, n_i), (n_o, n_i), (1, n_o), (n, n_o)))
    assert_naive("full_forward", dy.shape, x, W, b)
    assert_naive("full_backward_input", x.shape, dy, W)
    assert_naive("full_backward_weights", W.shape, dy, x)
    assert_naive("full_backward_bias", b.shape, dy)


@given(operands())
def test_all_gradients_in_one_call_are_naive(operands):
    x, W, _, dy = operands
    outputs = [filled(shape, x.dtype) for shape in (x.shape, W.shape, (1, len(W)))]
    expected = [filled(a.shape, np.float64) for a in outputs]
    full.full_backward(*outputs, dy, x, W)
    naive.full_backward(*expected, dy, x, W)
    for a, b in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=300 * eps(a), atol=300 * eps(a))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 130])
def test_layer_gives_the_same_bits_for_any_number_of_threads(n, dtype, rng, divided):
    results = []
    x, dy = rng.standard_normal((n, 67)).astype(dtype), rng.standard_normal((n, 45)).astype(dtype)
    for count in (1, 2, 3, 5):
        pool.set_num_threads(count)
        layer = FullLayer(67, 45, dtype=dtype, rng=0)
        y, dx = layer.forward(x), layer.backward(dy)
        layer.update_param(0.1)
        np.testing.assert_allclose(dx, dy @ FullLayer(67, 45, dtype=dtype, rng=0).W, rtol=1e-4, atol=1e-4)
        results.append([a.tobytes() for a in (y, dx, layer.W_grad, layer.b_grad, layer.W, layer.b)])
    pool.set_num_threads(None)
    assert all(other == results[0] for other in results)


def test_wide_outputs(dtype, rng):
    """More outputs than the scratch has room for biases."""
    layer, x = FullLayer(2, 17_000, dtype=dtype, rng=rng), rng.standard_normal((2, 2)).astype(dtype)
    layer.b = rng.standard_normal((1, 17_000)).astype(dtype)
    np.testing.assert_allclose(layer.forward(x), x @ layer.W.T + layer.b, rtol=1e-5, atol=1e-5)


def test_kernels_put_nan_and_inf_where_numpy_does(dtype, rng):
    x, W, b = (rng.standard_normal(s).astype(dtype) for s in ((5, 7), (4, 7), (1, 4)))
    x[1, 2], x[3, 0], W[2, 5] = np.nan, np.inf, -np.inf
    y, expected = filled((5, 4), dtype), filled((5, 4), np.float64)
    full.full_forward(y, x, W, b)
    naive.full_forward(expected, x, W, b)
    np.testing.assert_allclose(y, expected, rtol=1e-5)
    dx, expected = filled((5, 7), dtype), filled((5, 7), np.float64)
    full.full_backward_input(dx, y, W)
    with np.errstate(invalid="ignore"):
        naive.full_backward_input(expected, y, W)
    assert np.array_equal(np.isfinite(dx), np.isfinite(expected))


def layer_and_batch(rng, dtype=np.float64, n=6, n_i=5, n_o=3):
    layer = FullLayer(n_i, n_o, dtype=dtype, rng=rng)
    return layer, rng.standard_normal((n, n_i)).astype(dtype), rng.standard_normal((n, n_o)).astype(dtype)


def test_forward_backward_update(dtype, rng):
    layer, x, dy = layer_and_batch(rng, dtype)
    layer.b = rng.standard_normal((1, 3)).astype(dtype)
    W, b = layer.W.copy(), layer.b.copy()
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == np.float32 else {"rtol": 1e-13, "atol": 1e-13}

    y = layer.forward(x)
    np.testing.assert_allclose(y, x @ W.T + b, **close)
    assert layer.x is x
    dx = layer.backward(dy)
    np.testing.assert_allclose(dx, dy @ W, **close)
    np.testing.assert_allclose(layer.W_grad, dy.T @ x, **close)
    np.testing.assert_allclose(layer.b_grad, dy.sum(axis=0, keepdims=True), **close)
    assert layer.w_grad is layer.W_grad
    layer.update_param(0.3)
    np.testing.assert_allclose(layer.W, W - 0.3 * dy.T @ x, **close)
    np.testing.assert_allclose(layer.b, b - 0.3 * dy.sum(axis=0, keepdims=True), **close)
    assert {a.dtype for a in (y, dx, layer.W, layer.b, layer.W_grad, layer.b_grad)} == {dtype}
    layer.update_params(0.3)
    np.testing.assert_allclose(layer.W, W - 0.6 * dy.T @ x, **close)


def test_gradients_are_the_numerical_ones(rng):
    layer, x, _ = layer_and_batch(rng)
    report = gradcheck(layer, x)
    assert report
    assert [a.name for a in report.arrays] == ["x", "W", "b"]


def test_numerical_gradient_by_hand_as_the_course_does_it(rng):
    """Weights changed in place, one at a time, between two calls of forward."""
    layer, x, _ = layer_and_batch(rng)
    layer.forward(x)
    layer.backward(np.ones((6, 3)))
    grads, h = {"W": layer.W_grad, "b": layer.b_grad}, 1e-6
    for name, grad in grads.items():
        a = getattr(layer, name)
        for i in np.ndindex(a.shape):
            a[i] += h
            up = layer.forward(x).sum()
            a[i] -= 2 * h
            down = layer.forward(x).sum()
            a[i] += h
            assert (up - down) / (2 * h) == pytest.approx(grad[i], abs=1e-7)


def test_initial_values_follow_glorot_and_numpy_s_seed():
    np.random.seed(3)
    layer = FullLayer(300, 200)
    np.random.seed(3)
    assert np.array_equal(layer.W, np.random.normal(0, np.sqrt(2 / 500), (200, 300)))
    assert layer.W.std() == pytest.approx(np.sqrt(2 / 500), rel=0.02)
    assert np.array_equal(layer.b, np.zeros((1, 200)))
    assert layer.x is layer.W_grad is layer.b_grad is None


def test_rng_may_be_a_generator_a_state_or_a_seed():
    seeded = FullLayer(4, 3, rng=5).W
    assert np.array_equal(seeded, FullLayer(4, 3, rng=np.random.default_rng(5)).W)
    assert np.array_equal(seeded.astype(np.float32), FullLayer(4, 3, dtype="float32", rng=np.int64(5)).W)
    np.random.seed(5)
    assert np.array_equal(FullLayer(4, 3).W, FullLayer(4, 3, rng=np.random.RandomState(5)).W)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_assigned_arrays_are_kept_and_never_written(layout, rng):
    layer, x, dy = layer_and_batch(rng)
    W, b = laid_out(rng.standard_normal((3, 5)), layout), laid_out(rng.standard_normal((1, 3)), layout)
    W_given, b_given = W.copy(), b.copy()
    layer.W, layer.b = W, b
    assert layer.W is W
    assert layer.b is b
    np.testing.assert_allclose(layer.forward(laid_out(x, layout)), x @ W.T + b, rtol=1e-12)
    np.testing.assert_allclose(layer.backward(laid_out(dy, layout)), dy @ W, rtol=1e-12)
    layer.update_param(0.1)
    np.testing.assert_allclose(layer.W, W_given - 0.1 * dy.T @ x, rtol=1e-12)
    assert np.array_equal(W, W_given)
    assert np.array_equal(b, b_given)


def test_assigned_integers_lists_and_vectors(rng):
    layer, x, _ = layer_and_batch(rng)
    layer.W = np.arange(15).reshape(3, 5)
    layer.b = [1, 2, 3]
    assert layer.W.dtype == np.float64
    assert layer.b.shape == (1, 3)
    np.testing.assert_allclose(layer.forward(x), x @ np.arange(15).reshape(3, 5).T + [1, 2, 3])


def test_assigned_input_and_gradients_are_used(rng):
    layer, x, dy = layer_and_batch(rng)
    layer.x = x
    layer.backward(dy)
    np.testing.assert_allclose(layer.W_grad, dy.T @ x)
    W = layer.W.copy()
    layer.w_grad = np.ones((3, 5))
    layer.b_grad = np.ones((1, 3))
    layer.update_param(0.5)
    np.testing.assert_allclose(layer.W, W - 0.5)
    np.testing.assert_allclose(layer.b, -0.5)
    layer.W_grad[0, 0] = 3
    layer.W_grad *= 2
    layer.update_param(0.5)
    np.testing.assert_allclose(layer.W[0], W[0] - 0.5 - [3, 1, 1, 1, 1])


def test_parameters_decide_the_type(rng):
    layer = FullLayer(5, 3, dtype=np.float32)
    x = rng.standard_normal((6, 5))
    assert layer.forward(x).dtype == np.float32
    layer.W = rng.standard_normal((3, 5))
    assert layer.forward(x.astype(np.float32)).dtype == np.float64
    layer.W, layer.b = layer.W.astype(np.float16), layer.b.astype(np.float16)
    assert layer.W.dtype == np.float16
    assert layer.forward(x).dtype == np.float32
    layer.W = layer.W.astype(">f8")
    np.testing.assert_allclose(layer.forward(x), x @ layer.W.T)


def test_pickle_and_deepcopy(rng):
    layer, x, dy = layer_and_batch(rng)
    layer.forward(x)
    layer.backward(dy)
    for other in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        other.update_param(0.1)
        assert np.array_equal(other.x, x)
        np.testing.assert_allclose(other.W, layer.W - 0.1 * layer.W_grad, rtol=1e-12)
        assert other.b_grad is not layer.b_grad


def test_repr():
    assert repr(FullLayer(5, 3)) == "FullLayer(5, 3)"
    assert repr(FullLayer(5, 3, dtype=np.float32)) == "FullLayer(5, 3, dtype=float32)"


@pytest.mark.parametrize(("arguments", "error", "match"), [
    ({"n_o": 0}, ValueError, "n_o must be at least 1, got 0"),
    ({"n_i": -1}, ValueError, "n_i must be at least 1, got -1"),
    ({"n_i": 2.0}, TypeError, "n_i must be a whole number, got 2.0"),
    ({"dtype": "int32"}, TypeError, "dtype must be float32 or float64, got int32"),
    ({"dtype": "decimal"}, TypeError, "dtype must be float32 or float64"),
    ({"rng": "seed"}, TypeError, "rng must be a generator or a seed"),
    ({"rng": -1}, ValueError, "must not be negative"),
])
def test_construction_mistakes(arguments, error, match):
    with pytest.raises(error, match="FullLayer: .*" + match):
        FullLayer(**{"n_i": 3, "n_o": 2, **arguments})


def test_assignment_mistakes(rng):
    layer, _, _ = layer_and_batch(rng)
    with refuses(ValueError, r"FullLayer\(5, 3\): W must have shape \(3, 5\), got \(5, 3\).*transposed", layer):
        layer.W = np.ones((5, 3))
    with refuses(ValueError, r"b must have shape \(1, 3\), got \(1, 4\)", layer):
        layer.b = np.ones((1, 4))
    with refuses(ValueError, r"W_grad must have shape \(3, 5\)", layer):
        layer.w_grad = np.ones(5)
    with refuses(TypeError, "W must be an array, got None", layer):
        layer.W = None
    with refuses(TypeError, "b must hold real numbers, got dtype complex128", layer):
        layer.b = np.ones((1, 3), complex)


def test_call_mistakes(rng):
    layer, x, dy = layer_and_batch(rng)
    with refuses(RuntimeError, r"x has not been computed; call forward\(\) first", layer):
        layer.backward(dy)
    with refuses(RuntimeError, r"W_grad has not been computed; call forward\(\) and backward\(\) first", layer):
        layer.update_param(0.1)
    layer.forward(x)
    layer.backward(dy)
    with refuses(ValueError, r"x must have shape \(n, 5\), one row per sample, got \(6, 4\)", layer):
        layer.forward(np.ones((6, 4)))
    with refuses(ValueError, r"x must have shape \(n, 5\), one row per sample, got \(5, 6\). It looks transposed", layer):
        layer.forward(x.T)
    with refuses(ValueError, r"got \(5,\). One sample is a row: np.atleast_2d\(x\)", layer):
        layer.forward(x[0])
    with refuses(ValueError, r"got \(2, 3, 5\). Flatten each sample", layer):
        layer.forward(np.ones((2, 3, 5)))
    with refuses(ValueError, r"x is empty, its shape is \(0, 5\)", layer):
        layer.forward(x[:0])
    with refuses(ValueError, r"y_grad must have the shape \(6, 3\) of the output, got \(4, 3\)", layer):
        layer.backward(dy[:4])
    for lr in (-0.1, np.nan, np.inf):
        with refuses(ValueError, "the learning rate must be finite and not negative", layer):
            layer.update_param(lr)
    with refuses(TypeError, "the learning rate must be a number, got 'fast'", layer):
        layer.update_param("fast")


def test_sizes_changed_after_the_weights(rng):
    layer, x, _ = layer_and_batch(rng)
    layer.n_o = 4
    with refuses(ValueError, r"W has shape \(3, 5\), but the layer's n_o and n_i need \(4, 5\). Assign W again", layer):
        layer.forward(x)
    layer.W, layer.b = np.ones((4, 5)), np.zeros((1, 4))
    assert layer.forward(x).shape == (6, 4)


def test_default_dtype():
    fastnet.set_default_dtype(np.float32)
    layer = FullLayer(3, 2)
    assert {layer.W.dtype, layer.b.dtype, layer.forward([[1, 2, 3]]).dtype} == {np.dtype(np.float32)}
    assert FullLayer(3, 2, dtype=np.float64).dtype == np.float64


def test_initializers():
    drawn = {name: FullLayer(300, 200, rng=0, initializer=name).W for name in ("glorot", "he")}
    assert np.array_equal(drawn["glorot"], FullLayer(300, 200, rng=0).W)
    np.testing.assert_allclose(drawn["he"].std(), np.sqrt(2 / 300), rtol=0.02)
    np.testing.assert_allclose(drawn["glorot"].std(), np.sqrt(2 / 500), rtol=0.02)
    with refuses(ValueError, "initializer must be one of glorot, he|initializer must be"):
        FullLayer(3, 2, initializer="lecun")
