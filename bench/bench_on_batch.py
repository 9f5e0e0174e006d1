"""A loop over mini-batches: one compiled call per step, and over the layers by hand, beside the same loop in plain NumPy."""
import numpy as np
import pytest

from bench.harness import peers
from bench.harness.race import sizes

# n, widths, batch size, epochs: the course's network, MNIST's shape, and one whose calls weigh more than its arithmetic
LOOPS = sizes((1280, (3072, 500, 5), 128, 2), (3200, (784, 128, 10), 32, 2), (3200, (64, 32, 10), 32, 4),
              tiny=(20, (7, 5, 3), 8, 2))
RATE = 0.1


def losses_of(step, n, batch_size, epochs):
    """The mean loss of each epoch; `step` takes the rows of a mini-batch and returns its loss."""
    return np.array([np.mean([step(rows) for rows in peers.batches(n, batch_size)]) for _ in range(epochs)])


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: "-".join(map(str, loop[1])))
def test_loop(race, loop, dtype):
    n, widths, batch_size, epochs = loop
    x, t, weights = peers.workload(n, widths, dtype)

    def train_on_batch():
        model = peers.fastnet_model(weights)
        return losses_of(lambda rows: model.train_on_batch(x[rows], t[rows], RATE), n, batch_size, epochs)

    def by_hand():
        model = peers.fastnet_model(weights)

        def step(rows):
            loss = model.forward(x[rows], t[rows])
            model.backward()
            model.update_param(RATE)
            return loss

        return losses_of(step, n, batch_size, epochs)

    race({"fastnet": train_on_batch, "by hand": by_hand,
          "numpy": lambda: peers.numpy_fit(x, t, weights, epochs, RATE, batch_size)},
         expected=lambda: peers.numpy_fit(*peers.workload(n, widths, np.float64), epochs, RATE, batch_size),
         tolerance=1e-4, kernel="train_on_batch", dtype=dtype, flops=epochs * peers.plain_flops(n, widths),
         shape=f"{n}x{'-'.join(map(str, widths))}, batch {batch_size}, {epochs} epochs")
