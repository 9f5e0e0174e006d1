"""Sigmoid: kernels against naive, then the layer, then compiled training beside the loop by hand."""
import numpy as np
import pytest
from fastnet.kernels import naive, sigmoid
from helpers import batches, filled, refuses
from hypothesis import given
from hypothesis import strategies as st

from fastnet import CrossEntropyLayer, FullLayer, Sequential, SigmoidLayer, SoftMaxLayer, gradcheck, one_hot
from fastnet.layer import parameters


@given(st.data())
def test_forward_kernel_is_naive(data):
    x = data.draw(batches())
    y, expected = filled(x.shape, x.dtype), filled(x.shape, np.float64)
    sigmoid.sigmoid_forward(y, x)
    naive.sigmoid_forward(expected, x)
    np.testing.assert_allclose(y, expected, rtol=8 * np.finfo(x.dtype).eps)


@given(st.data())
def test_backward_kernel_is_naive(data):
    dy = data.draw(batches())
    y = np.random.default_rng(2).random(dy.shape).astype(dy.dtype)
    dx, expected = filled(dy.shape, dy.dtype), filled(dy.shape, np.float64)
    sigmoid.sigmoid_backward(dx, dy, y)
    naive.sigmoid_backward(expected, dy, y)
    np.testing.assert_allclose(dx, expected, rtol=4 * np.finfo(dy.dtype).eps, atol=4 * np.finfo(dy.dtype).eps)


@pytest.mark.parametrize("shape", [(7,), (2, 3), (2, 3, 4, 5)])
def test_layer_of_any_rank(shape, dtype, rng):
    x = rng.standard_normal(shape).astype(dtype)
    kept = x.copy()
    layer = SigmoidLayer()
    y = layer.forward(x)
    assert y.dtype == dtype
    assert layer.y is y
    expected = np.empty(shape)
    naive.sigmoid_forward(expected, x)
    np.testing.assert_allclose(y, expected, rtol=8 * np.finfo(dtype).eps)
    assert layer.backward(np.ones(shape, dtype)).dtype == dtype
    assert np.array_equal(x, kept)


def test_gradient_is_the_numerical_one(rng):
    assert gradcheck(SigmoidLayer(), rng.standard_normal((5, 7)))


def test_mistakes(rng):
    layer = SigmoidLayer()
    with refuses(RuntimeError, r"call forward\(\)", layer):
        layer.backward(np.ones((2, 2)))
    layer.forward(rng.standard_normal((2, 3)))
    with refuses(ValueError, r"y_grad must have the shape \(2, 3\) of the output, got \(3, 2\)", layer):
        layer.backward(np.ones((3, 2)))


@pytest.mark.parametrize("engine", ["fused", "gram", "windows"])
@pytest.mark.parametrize("where", ["behind the first", "everywhere", "before the first"])
def test_compiled_training_is_that_of_the_layers(engine, where, dtype):
    def build():
        rng = np.random.default_rng(3)
        layers = [FullLayer(9, 17, dtype, rng), SigmoidLayer(), FullLayer(17, 6, dtype, rng)]
        layers += [SigmoidLayer(), FullLayer(6, 3, dtype, rng)] if where == "everywhere" else [FullLayer(6, 3, dtype, rng)]
        return Sequential([SigmoidLayer()] * (where == "before the first") + layers + [SoftMaxLayer()], CrossEntropyLayer())

    rng = np.random.default_rng(4)
    x, t = rng.standard_normal((23, 9)).astype(dtype), one_hot(rng.integers(0, 3, 23), 3, dtype)
    compiled, plain = build(), build()
    options = {"epochs": 3, "lr": 0.1, "batch_size": 5, "weight_decay": 0.01, "validation": (x[:7], t[:7])}
    if where == "before the first" and engine != "fused":
        with refuses(ValueError, "first layer is not fully connected", compiled):
            compiled.fit(x, t, engine=engine, **options)
        return
    losses = compiled.fit(x, t, engine=engine, **options)
    expected = plain.fit(x, t, engine="layers", **options)
    assert compiled.history.engine == engine
    relative = {4: 2e-5, 8: 1e-12}[dtype.itemsize]
    np.testing.assert_allclose(losses, expected, rtol=relative)
    np.testing.assert_allclose(compiled.history.val_losses, plain.history.val_losses, rtol=relative)
    for one, other in zip(compiled.layers, plain.layers, strict=True):
        for name in parameters(one):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=relative, atol=10 * relative)


def test_all_magnitudes(dtype):
    x = np.concatenate([[0, np.inf, 1e-300], np.geomspace(1e-8, 800, 2000)]).astype(dtype)
    x = np.concatenate([x, -x, [np.nan]]).astype(dtype)
    y, expected = filled(x.shape, dtype), filled(x.shape, np.float64)
    sigmoid.sigmoid_forward(y, x)
    naive.sigmoid_forward(expected, x)
    assert np.isnan(y[-1])
    tiny = np.finfo(dtype).smallest_subnormal
    np.testing.assert_allclose(y[:-1], expected[:-1], rtol=4 * np.finfo(dtype).eps, atol=2 * tiny)
    assert np.all((y[:-1] >= 0) & (y[:-1] <= 1))
