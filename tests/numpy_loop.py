"""The course's training loop by hand, in float64 NumPy: what every engine is compared with."""
import itertools
from dataclasses import dataclass

import numpy as np

from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer


def network(widths, dtype=np.float64, seed=0):
    """FullLayers of these widths with ReLU between them, and biases that are not 0."""
    rng = np.random.default_rng(seed)
    layers = []
    for n_i, n_o in itertools.pairwise(widths):
        full = FullLayer(n_i, n_o, dtype=dtype, rng=rng)
        full.b = (0.1 * rng.standard_normal((1, n_o))).astype(dtype)
        layers += [full, ReluLayer()]
    return Sequential([*layers[:-1], SoftMaxLayer()], loss=CrossEntropyLayer())


def clusters(n, n_i, n_classes, seed=0, soft=False):
    """Samples around one centre for each class, which a network can learn; float64."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    x = rng.standard_normal((n_classes, n_i))[labels] + 0.7 * rng.standard_normal((n, n_i))
    t = np.eye(n_classes)[labels]
    if soft:
        t = 0.8 * t + 0.2 * rng.dirichlet(np.ones(n_classes), n)
    return x, t


def parameters(model):
    """[W, b, W, b, ...]"""
    return [array for layer in model.layers if isinstance(layer, FullLayer) for array in (layer.W, layer.b)]


@dataclass
class Reference:
    """What the loop leaves behind."""

    losses: np.ndarray
    parameters: list[np.ndarray]
    gradients: list[np.ndarray]  # of the last batch, before momentum and decay
    outputs: list[np.ndarray]  # of the last batch: x, then of every fully connected layer after ReLU, then p


def numpy_fit(model, x, t, epochs, lr, batch_size=128, *, orders=None, momentum=0.0, weight_decay=0.0):
    """Train a copy of a model's parameters."""
    weights = [np.array(a, dtype=np.float64) for a in parameters(model)]
    velocity = [np.zeros_like(a) for a in weights]
    x, t = np.asarray(x, dtype=np.float64), np.asarray(t, dtype=np.float64)
    losses = np.zeros(epochs)
    gradients, h = [], []
    for epoch in range(epochs):
        order = np.arange(len(x)) if orders is None else orders[epoch]
        rate = lr(epoch) if callable(lr) else lr[epoch] if np.ndim(lr) else lr
        of_batches = []
        for first in range(0, len(x), batch_size):
            rows = order[first:first + batch_size]
            h = [x[rows]]
            for W, b in zip(weights[::2], weights[1::2]):
                z = h[-1] @ W.T + b
                h.append(np.maximum(z, 0))
            p = np.exp(z - z.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            h[-1] = p
            with np.errstate(divide="ignore", invalid="ignore"):
                of_batches.append(-np.where(t[rows] == 0, 0, t[rows] * np.log(p)).sum() / len(rows))
            dz = (p * t[rows].sum(axis=1, keepdims=True) - t[rows]) / len(rows)
            gradients = []
            for layer in range(len(weights) // 2 - 1, -1, -1):
                gradients[:0] = [dz.T @ h[layer], dz.sum(axis=0, keepdims=True)]
                if layer > 0:
                    dz = (dz @ weights[2 * layer]) * (h[layer] > 0)
            for i, gradient in enumerate(gradients):
                decay = weight_decay if i % 2 == 0 else 0.0
                velocity[i] = momentum * velocity[i] + gradient + decay * weights[i]
                weights[i] = weights[i] - rate * velocity[i]
        losses[epoch] = np.mean(of_batches)
    return Reference(losses, weights, gradients, h)


def assert_close(one, other, relative):
    """Arrays are equal up to `relative` of their largest number; losses are, each of its own."""
    one, other = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    scale = np.abs(other).max(initial=0) if other.ndim > 1 else np.abs(other)
    assert np.all(np.abs(one - other) <= relative * (scale + 1e-2)), np.abs(one - other).max() / np.max(scale)


def assert_same_training(model, losses, other, other_losses, relative):
    assert_close(losses, other_losses, relative)
    for one, expected in zip(parameters(model), other, strict=True):
        assert one.shape == expected.shape
        assert_close(one, expected, relative)
