"""The mean squared error: kernels against naive, the layer, regression by every engine, Adam."""
import numpy as np
import pytest
from fastnet.kernels import mean_squared_error, naive
from helpers import batches, filled, refuses
from hypothesis import given
from hypothesis import strategies as st

from fastnet import FullLayer, MeanSquaredErrorLayer, ReluLayer, Sequential, TanhLayer
from fastnet.layer import parameters


@given(st.data())
def test_kernels_are_naive(data):
    x = data.draw(batches())
    if x.size == 0:
        return
    t = np.random.default_rng(5).standard_normal(x.shape).astype(x.dtype)
    eps = float(np.finfo(x.dtype).eps)
    assert mean_squared_error.mean_squared_error_forward(x, t) == pytest.approx(
        naive.mean_squared_error_forward(x, t), rel=8 * eps)
    dx, expected = filled(x.shape, x.dtype), filled(x.shape, np.float64)
    mean_squared_error.mean_squared_error_backward(dx, x, t)
    naive.mean_squared_error_backward(expected, x, t)
    np.testing.assert_allclose(dx, expected, rtol=8 * eps, atol=8 * eps)


def test_gradient_is_the_numerical_one(rng):
    x, t, step = rng.standard_normal((3, 4)), rng.standard_normal((3, 4)), 1e-6
    loss = MeanSquaredErrorLayer()
    loss.forward(x, t)
    gradient = loss.backward()
    for i, j in np.ndindex(3, 4):
        moved = x.copy()
        moved[i, j] += step
        up = loss.forward(moved, t)
        moved[i, j] -= 2 * step
        assert gradient[i, j] == pytest.approx((up - loss.forward(moved, t)) / (2 * step), rel=1e-6)
    loss.forward(x, t)
    assert np.array_equal(loss.backward(2.0), 2 * gradient)


def test_mistakes(rng):
    loss = MeanSquaredErrorLayer()
    with refuses(RuntimeError, r"call forward\(\)", loss):
        loss.backward()
    with refuses(ValueError, r"t must have the shape \(2, 3\) of x, got \(3, 2\)", loss):
        loss.forward(np.ones((2, 3)), np.ones((3, 2)))


def regression(dtype, last=None):
    rng = np.random.default_rng(3)
    layers = [FullLayer(6, 20, dtype, rng), ReluLayer(), FullLayer(20, 2, dtype, rng)]
    return Sequential(layers + ([last] if last else []), MeanSquaredErrorLayer())


def targets(dtype, n=29):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((n, 6)).astype(dtype)
    return x, np.stack([x[:, 0] * x[:, 1], np.sin(x[:, 2])], axis=1).astype(dtype)


@pytest.mark.parametrize("engine", ["fused", "gram", "windows"])
@pytest.mark.parametrize("last", [None, ReluLayer, TanhLayer])
@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"weight_decay": 0.02, "shuffle": True, "rng": 1}])
def test_regression_is_that_of_the_layers(engine, last, options, dtype):
    x, t = targets(dtype)
    compiled, plain = (regression(dtype, last and last()) for _ in range(2))
    options = {"epochs": 3, "lr": 0.05, "batch_size": 8, "validation": (x[:9], t[:9]), **options}
    losses = compiled.fit(x, t, engine=engine, **options)
    expected = plain.fit(x, t, engine="layers", **options)
    assert compiled.history.engine == engine
    relative = {4: 5e-5, 8: 1e-12}[dtype.itemsize]
    np.testing.assert_allclose(losses, expected, rtol=relative)
    np.testing.assert_allclose(compiled.history.val_losses, plain.history.val_losses, rtol=relative)
    assert np.isnan(compiled.history.val_accuracies).all()  # numbers are no classes
    for one, other in zip(compiled.layers, plain.layers, strict=True):
        for name in parameters(one):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=relative, atol=10 * relative)


def adam_by_hand(model, x, t, epochs, lr, batch_size, decay):
    """Kingma & Ba 2015, algorithm 1, over forward and backward."""
    moments, step, losses = {}, 0, []
    for _ in range(epochs):
        of_batches = []
        for first in range(0, len(x), batch_size):
            of_batches.append(model.forward(x[first:first + batch_size], t[first:first + batch_size]))
            model.backward()
            step += 1
            for layer in model.layers:
                for name, grad in parameters(layer).items():
                    W = getattr(layer, name)
                    g = getattr(layer, grad) + (decay * W if name == "W" else 0)
                    m, v = moments.get((id(layer), name), (0, 0))
                    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
                    moments[id(layer), name] = m, v
                    setattr(layer, name, W - lr * (m / (1 - 0.9 ** step)) / (np.sqrt(v / (1 - 0.999 ** step)) + 1e-8))
        losses.append(np.mean(of_batches))
    return np.array(losses)


@pytest.mark.parametrize("engine", ["layers", "fused"])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam(engine, decay, dtype):
    x, t = targets(dtype)
    model, by_hand = regression(dtype), regression(np.dtype(np.float64))
    for ours, theirs in zip(model.layers, by_hand.layers, strict=True):
        for name in parameters(ours):
            setattr(theirs, name, getattr(ours, name).astype(float))
    expected = adam_by_hand(by_hand, x.astype(float), t.astype(float), 4, 0.01, 8, decay)
    losses = model.fit(x, t, 4, 0.01, 8, optimizer="adam", engine=engine, weight_decay=decay)
    assert model.history.engine == engine
    relative = {4: 1e-4, 8: 1e-10}[dtype.itemsize]
    np.testing.assert_allclose(losses, expected, rtol=relative)
    for ours, theirs in zip(model.layers, by_hand.layers, strict=True):
        for name in parameters(ours):
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=relative, atol=10 * relative)


def test_adam_needs_the_weights():
    x, t = targets(np.float64)
    for engine in ("gram", "windows"):
        with refuses(ValueError, "Adam changes weights by more than combinations of samples"):
            regression(np.float64).fit(x, t, 2, 0.01, optimizer="adam", engine=engine)
    with refuses(ValueError, "its own momentum"):
        regression(np.float64).fit(x, t, 2, 0.01, optimizer="adam", momentum=0.9)
    with refuses(ValueError, "optimizer must be one of"):
        regression(np.float64).fit(x, t, 2, 0.01, optimizer="lbfgs")
