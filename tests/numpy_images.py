"""Training of networks of images by hand, in float64, from the naive twins: what every engine is compared with."""
import numpy as np
from fastnet.kernels import naive

from fastnet import (
    ConvLayer,
    CrossEntropyLayer,
    FlattenLayer,
    FullLayer,
    MaxPoolLayer,
    ReluLayer,
    Sequential,
    SoftMaxLayer,
)


def network(stack, shape, n_classes, dtype=np.float64, seed=0):
    """A network of images of `shape` (c, r, k), spelled as words: "conv 16 3", "relu", "pool 2", "flatten", "full 20".

    A fully connected layer for the classes, and SoftMaxLayer, come last. Biases are not 0.
    """
    rng, layers = np.random.default_rng(seed), []
    for word, *numbers in (item.split() for item in [*stack, f"full {n_classes}"]):
        sizes = [int(number) for number in numbers]
        if word == "conv":
            layer = ConvLayer(shape[0], *sizes, dtype=dtype, rng=rng)
            shape = sizes[0], *shape[1:]
        elif word == "full":
            layer = FullLayer(shape[0], *sizes, dtype=dtype, rng=rng)
            shape = tuple(sizes)
        elif word == "pool":
            layer = MaxPoolLayer(*sizes)
            shape = shape[0], shape[1] // sizes[0], shape[2] // sizes[0]
        elif word == "flatten":
            layer, shape = FlattenLayer(), (int(np.prod(shape)),)
        else:
            layer = ReluLayer()
        if hasattr(layer, "b"):
            layer.b = (0.1 * rng.standard_normal(layer.b.shape)).astype(dtype)
        layers.append(layer)
    return Sequential([*layers, SoftMaxLayer()], loss=CrossEntropyLayer())


def pictures(n, shape, n_classes, seed=0):
    """Images around one for each class, and one-hot targets; float64."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    x = 0.5 * rng.standard_normal((n_classes, *shape))[labels] + 0.5 * rng.standard_normal((n, *shape))
    return x, np.eye(n_classes)[labels]


def parameters(model):
    """[W, b, W, b, ...]"""
    return [array for layer in model.layers if hasattr(layer, "W") for array in (layer.W, layer.b)]


def forward(layer, W, b, x):
    """A layer's output, and what its way back needs."""
    if isinstance(layer, ConvLayer):
        y = np.empty((len(x), layer.n_o, *x.shape[2:]))
        naive.conv_forward(y, x, W, b)
        return y, x
    if isinstance(layer, FullLayer):
        return x @ W.T + b, x
    if isinstance(layer, MaxPoolLayer):
        y, locs = np.empty((*x.shape[:2], x.shape[2] // layer.size, x.shape[3] // layer.size)), np.empty(x.shape, bool)
        naive.maxpool_forward(y, locs, x, layer.size)
        return y, locs
    if isinstance(layer, FlattenLayer):
        return x.reshape(len(x), -1), x.shape
    return np.maximum(x, 0), x


def backward(layer, kept, W, dy):
    """The gradients of a layer's input, and of its parameters."""
    if isinstance(layer, ConvLayer):
        dx, dW, db = np.empty(kept.shape), np.empty(W.shape), np.empty((1, len(W)))
        naive.conv_backward_input(dx, dy, W)
        naive.conv_backward_weights(dW, dy, kept)
        naive.conv_backward_bias(db, dy)
        return dx, [dW, db]
    if isinstance(layer, FullLayer):
        return dy @ W, [dy.T @ kept, dy.sum(axis=0, keepdims=True)]
    if isinstance(layer, MaxPoolLayer):
        dx = np.empty(kept.shape)
        naive.maxpool_backward(dx, dy, kept, layer.size)
        return dx, []
    if isinstance(layer, FlattenLayer):
        return dy.reshape(kept), []
    return np.where(kept > 0, dy, 0), []


def numpy_fit(model, x, t, epochs, lr, batch_size, *, momentum=0.0, weight_decay=0.0, orders=None):
    """Train a copy of a model's parameters; returns the epochs' losses and the parameters."""
    layers = model.layers[:-1]
    weights = [np.array(a, np.float64) for a in parameters(model)]
    velocity = [np.zeros_like(a) for a in weights]
    losses = np.zeros(epochs)
    for epoch in range(epochs):
        order, of_batches = np.arange(len(x)) if orders is None else orders[epoch], []
        for first in range(0, len(x), batch_size):
            rows, held = order[first:first + batch_size], iter(weights)
            y, tape = np.asarray(x[rows], np.float64), []
            for layer in layers:
                W, b = (next(held), next(held)) if hasattr(layer, "W") else (None, None)
                y, kept = forward(layer, W, b, y)
                tape.append((layer, kept, W))
            p = np.exp(y - y.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            of_batches.append(-(t[rows] * np.log(p)).sum() / len(rows))
            dy, gradients = (p - t[rows]) / len(rows), []
            for layer, kept, W in reversed(tape):
                dy, of_layer = backward(layer, kept, W, dy)
                gradients[:0] = of_layer
            for i, gradient in enumerate(gradients):
                velocity[i] = momentum * velocity[i] + gradient + (weight_decay if i % 2 == 0 else 0) * weights[i]
                weights[i] = weights[i] - lr * velocity[i]
        losses[epoch] = np.mean(of_batches)
    return losses, weights
