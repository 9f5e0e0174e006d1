"""Train a network inside one function that Numba compiles, with fastnet's kernels.

    python examples/one_compiled_function.py

Compiled code calls every public kernel of :mod:`fastnet.kernels` by the same name and with the same arguments as Python
does. The kernel runs on the calling thread, and nothing returns to Python between two calls. This function is a whole
training, with a learning rate that falls from epoch to epoch.
"""
import numpy as np
from fastnet.kernels.cross_entropy import cross_entropy_backward, cross_entropy_forward
from fastnet.kernels.full import full_backward, full_forward
from fastnet.kernels.relu import relu_backward, relu_forward
from fastnet.kernels.sgd import sgd_update
from fastnet.kernels.softmax import softmax_backward, softmax_forward
from numba import njit

from fastnet import one_hot


@njit
def train(x, t, W1, b1, W2, b2, lr, batch_size, epochs):
    """Train a network with one hidden layer on the rows of x, in place, and return the loss of each epoch."""
    hidden, classes = W1.shape[0], W2.shape[0]
    h, dh = np.empty((batch_size, hidden)), np.empty((batch_size, hidden))
    z, p, dp = np.empty((batch_size, classes)), np.empty((batch_size, classes)), np.empty((batch_size, classes))
    dx, dW1, db1 = np.empty((batch_size, x.shape[1])), np.empty_like(W1), np.empty_like(b1)
    dW2, db2 = np.empty_like(W2), np.empty_like(b2)
    losses = np.zeros(epochs)
    batches = len(x) // batch_size
    for epoch in range(epochs):
        for batch in range(batches):
            rows = slice(batch * batch_size, (batch + 1) * batch_size)
            full_forward(h, x[rows], W1, b1)
            relu_forward(h, h)
            full_forward(z, h, W2, b2)
            softmax_forward(p, z)
            losses[epoch] += cross_entropy_forward(p, t[rows]) / batches

            cross_entropy_backward(dp, p, t[rows])
            softmax_backward(dp, dp, p)
            full_backward(dh, dW2, db2, dp, h, W2)
            relu_backward(dh, dh, h)
            full_backward(dx, dW1, db1, dh, x[rows], W1)

            rate = lr / (1 + 0.01 * epoch)
            sgd_update(W1, W1, dW1, rate)
            sgd_update(b1, b1, db1, rate)
            sgd_update(W2, W2, dW2, rate)
            sgd_update(b2, b2, db2, rate)
    return losses


def two_spirals(n, rng):
    """n points of two classes, each of which winds around the other."""
    labels = np.arange(n) % 2
    turn = rng.uniform(0.3, 1.3, n)
    angle = 2 * np.pi * turn + np.pi * labels
    x = np.stack([turn * np.cos(angle), turn * np.sin(angle)], axis=1) + rng.normal(0, 0.02, (n, 2))
    return x, labels


def main():
    rng = np.random.default_rng(0)
    x, labels = two_spirals(512, rng)
    W1, b1 = rng.normal(0, 1, (32, 2)), np.zeros((1, 32))
    W2, b2 = rng.normal(0, 0.3, (2, 32)), np.zeros((1, 2))
    losses = train(x, one_hot(labels), W1, b1, W2, b2, lr=0.5, batch_size=32, epochs=200)
    right = np.argmax(np.maximum(x @ W1.T + b1, 0) @ W2.T + b2, axis=1) == labels
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}, {right.mean():.1%} of the points right")
    return losses


if __name__ == "__main__":
    main()
