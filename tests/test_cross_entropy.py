"""Cross-entropy: kernel against naive, then the layer, then error texts; one_hot."""
import numpy as np
import pytest
from fastnet.kernels import cross_entropy, naive
from helpers import batches, eps, filled, laid_out, layouts, one_hot_rows, refuses
from hypothesis import given
from hypothesis import strategies as st

import fastnet
from fastnet import CrossEntropyLayer, gradcheck, one_hot


def probabilities(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@given(st.data(), layouts, st.booleans())
def test_kernels_are_naive(data, layout, soft):
    p = probabilities(data.draw(batches()))
    rng = np.random.default_rng(3)
    t = probabilities(rng.standard_normal(p.shape)) if soft else one_hot_rows(rng, *p.shape)
    p, t = laid_out(p, layout), t.astype(p.dtype)
    assert cross_entropy.cross_entropy_forward(p, t) == pytest.approx(naive.cross_entropy_forward(p, t), rel=1e-13)
    dp, expected = filled(p.shape, p.dtype), filled(p.shape, np.float64)
    cross_entropy.cross_entropy_backward(dp, p, t)
    naive.cross_entropy_backward(expected, p, t)
    np.testing.assert_allclose(dp, expected, rtol=4 * eps(p))


@pytest.mark.parametrize(("p", "loss"), [
    ([1, 0], 0), ([0, 1], np.inf), ([np.nan, np.nan], np.nan), ([1, np.nan], np.nan), ([-1, 2], np.nan),
])
def test_special_probabilities(p, loss, dtype):
    p, t = np.array([p], dtype), np.array([[1, 0]], dtype)
    for module in (cross_entropy, naive):
        assert module.cross_entropy_forward(p, t) == pytest.approx(loss, nan_ok=True)
        dp = filled(p.shape, dtype)
        module.cross_entropy_backward(dp, p, t)
        assert dp[0, 1] == 0
        with np.errstate(divide="ignore"):
            assert np.array_equal(dp[0, 0], -1 / p[0, 0], equal_nan=True)


def test_layer(dtype, rng):
    p = probabilities(rng.standard_normal((6, 4))).astype(dtype)
    t = one_hot_rows(rng, 6, 4, dtype)
    layer = CrossEntropyLayer()
    loss = layer.forward(p, t)
    assert type(loss) is float
    assert loss == pytest.approx(-np.log(p[t == 1]).mean(), rel=1e-6)
    assert layer.x is p
    assert layer.t is t
    grad = layer.backward()
    assert grad.dtype == dtype
    np.testing.assert_allclose(grad, -t / p / 6, rtol=1e-6)
    assert np.array_equal(layer.backward(None), grad)
    np.testing.assert_allclose(layer.backward(2.0), 2 * grad)
    assert layer.backward(2.0).dtype == dtype


def test_gradient_is_the_numerical_one(rng):
    p = probabilities(rng.standard_normal((5, 7)))
    assert gradcheck(CrossEntropyLayer(), p, one_hot_rows(rng, 5, 7))


def test_saturated_softmax_gives_a_finite_loss(dtype):
    p = fastnet.SoftMaxLayer().forward(np.array([[2000, 0], [0, 2000]], dtype))
    assert CrossEntropyLayer().forward(p, np.eye(2)) == 0
    assert CrossEntropyLayer().forward(p, np.eye(2)[::-1]) == np.inf


def test_assigned_attributes_are_used():
    layer = CrossEntropyLayer()
    layer.x, layer.t = [[0.5, 0.5]], [[1, 0]]
    assert np.array_equal(layer.backward(), [[-2, 0]])
    layer.t[0] = 0, 1
    assert np.array_equal(layer.backward(), [[0, -2]])


def test_integer_one_hot_is_fine():
    assert CrossEntropyLayer().forward([[0.5, 0.5]], np.array([[1, 0]], np.uint8)) == pytest.approx(np.log(2))


def test_nothing_to_update():
    layer = CrossEntropyLayer()
    assert layer.update_param(0.1) is None
    assert layer.update_params(0.1) is None
    assert repr(layer) == "CrossEntropyLayer()"


def test_mistakes():
    layer = CrossEntropyLayer()
    p = np.full((3, 2), 0.5)
    with refuses(RuntimeError, r"x has not been computed; call forward\(\) first", layer):
        layer.backward()
    layer.forward(p, np.eye(2)[[0, 1, 0]])
    with refuses(ValueError, r"t must be one-hot, of shape \(3, 2\), got labels of shape \(3,\).*one_hot\(t, 2\)", layer):
        layer.forward(p, [0, 1, 0])
    with refuses(ValueError, r"one_hot\(np.ravel\(t\), 2\)", layer):
        layer.forward(p, [[0], [1], [0]])
    with refuses(ValueError, r"\(3, 2\), got \(3, 4\). The network returns 2 values per sample", layer):
        layer.forward(p, np.ones((3, 4)))
    with refuses(ValueError, "one row per sample", layer):
        layer.forward(p, np.ones((4, 2)))
    with refuses(ValueError, "x is empty", layer):
        layer.forward(p[:0], p[:0])
    with refuses(ValueError, "the loss is one number", layer):
        layer.backward(p)
    with refuses(TypeError, "t must be an array, got None", layer):
        layer.forward(p, None)


def test_one_hot():
    assert np.array_equal(one_hot([2, 0]), [[0, 0, 1], [1, 0, 0]])
    assert one_hot(np.array([1], np.uint8), 4, np.float32).dtype == np.float32
    assert one_hot([1], 4).shape == (1, 4)
    fastnet.set_default_dtype("float32")
    assert one_hot([1]).dtype == np.float32


@pytest.mark.parametrize(("labels", "n_classes", "error", "match"), [
    ([0, 5], 5, ValueError, "between 0 and 4, got 0 to 5"),
    ([-1, 2], None, ValueError, "between 0 and 2, got -1 to 2"),
    ([[1], [2]], None, ValueError, "ravel"),
    ([], None, ValueError, "labels is empty"),
    ([0.0, 1.0], None, TypeError, "Make them whole"),
    (["cat"], None, TypeError, "real numbers"),
    ([0, 1], 0, ValueError, "n_classes must be at least 1"),
])
def test_one_hot_mistakes(labels, n_classes, error, match):
    with pytest.raises(error, match=match):
        one_hot(labels, n_classes)
