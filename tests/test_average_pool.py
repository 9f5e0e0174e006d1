"""Average pooling: kernels beside naive, then the layer, then compiled training beside the layers."""
import numpy as np
import pytest
from fastnet.kernels import average_pool, naive
from helpers import filled, refuses

from fastnet import (
    AveragePoolLayer,
    ConvLayer,
    CrossEntropyLayer,
    FlattenLayer,
    FullLayer,
    ReluLayer,
    Sequential,
    SoftMaxLayer,
    gradcheck,
    one_hot,
)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 4, 4), (3, 2, 7, 5), (0, 2, 4, 4), (4, 8, 32, 33)], ids=str)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_kernels_are_naive(shape, size, dtype, rng):
    n, c, r, k = shape
    pooled = n, c, r // size, k // size
    x, dy = rng.standard_normal(shape).astype(dtype), rng.standard_normal(pooled).astype(dtype)
    y, expected = filled(pooled, dtype), filled(pooled, np.float64)
    average_pool.average_pool_forward(y, x, size)
    naive.average_pool_forward(expected, x, size)
    np.testing.assert_allclose(y, expected, rtol=4 * np.finfo(dtype).eps, atol=4 * np.finfo(dtype).eps)
    dx, expected = filled(shape, dtype), filled(shape, np.float64)
    average_pool.average_pool_backward(dx, dy, size)
    naive.average_pool_backward(expected, dy, size)
    np.testing.assert_allclose(dx, expected, rtol=4 * np.finfo(dtype).eps)


def test_gradient_is_the_numerical_one(rng):
    assert gradcheck(AveragePoolLayer(2), rng.standard_normal((2, 3, 5, 4)))


def test_mistakes():
    layer = AveragePoolLayer(3)
    with refuses(ValueError, "images of at least 3 x 3 pixels", layer):
        layer.forward(np.ones((1, 1, 2, 5)))
    with refuses(RuntimeError, r"call forward\(\)", layer):
        layer.backward(np.ones((1, 1, 1, 1)))


@pytest.mark.parametrize("behind", ["a convolution", "a ReLU", "nothing"])
def test_compiled_training_is_that_of_the_layers(behind, dtype):
    rng = np.random.default_rng(4)
    x, t = rng.standard_normal((9, 2, 7, 6)).astype(dtype), one_hot(rng.integers(0, 3, 9), 3, dtype)

    def build():
        rng = np.random.default_rng(3)
        conv = {"a convolution": [ConvLayer(2, 4, 3, dtype, rng)], "a ReLU": [ConvLayer(2, 4, 3, dtype, rng), ReluLayer()],
                "nothing": []}[behind]
        c = 4 if conv else 2
        return Sequential([*conv, AveragePoolLayer(2), ConvLayer(c, 3, 3, dtype, rng), FlattenLayer(), FullLayer(27, 3, dtype, rng),
                           SoftMaxLayer()], CrossEntropyLayer())

    compiled, plain = build(), build()
    options = {"epochs": 3, "lr": 0.05, "batch_size": 4, "validation": (x[:5], t[:5])}
    losses = compiled.fit(x, t, engine="fused", **options)
    relative = {4: 1e-4, 8: 1e-11}[dtype.itemsize]
    np.testing.assert_allclose(losses, plain.fit(x, t, engine="layers", **options), rtol=relative)
    np.testing.assert_allclose(compiled.history.val_losses, plain.history.val_losses, rtol=relative)
