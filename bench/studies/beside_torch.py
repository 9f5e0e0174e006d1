"""Each layer by hand, and training with the layers that people add, beside PyTorch: how many times as fast is fastnet?

    python -m bench.studies.beside_torch                       # all, on one thread
    python -m bench.studies.beside_torch --threads 2 --only strides

Both compute the same from the same arrays, in turns within one process; the ratio is PyTorch's time / fastnet's, the median
over the rounds, and higher is better. The threads of both libraries spin after a call. So a turn is a block of calls, which
follows a pause and one untimed call. The gain is fastnet's time on one thread / on all threads; higher is better, too. A
layer's call is its forward and its backward pass; a network's is a fit of four epochs in float32 with mini-batches of 128.
PyTorch's network and optimiser exist before, whereas ``fit`` plans its program in each call.
Losses of networks are compared before anything is timed, but for dropout, whose masks differ.
"""
from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import fastnet

Call = Callable[[], Any]
ROUNDS = 9
EPOCHS = 4  # in a fit
PAUSE = 0.01  # seconds after which no thread of the other library spins any more
BLOCK = 0.03  # seconds of calls in a turn


def of_layers(rng: np.random.Generator) -> Iterator[tuple[str, Any, tuple[int, ...]]]:
    """A name, a layer, and the shape of what it is given."""
    for n, width in ((128, 512),):
        for layer in (fastnet.ReluLayer(), fastnet.LeakyReluLayer(0.01), fastnet.TanhLayer(), fastnet.SigmoidLayer(),
                      fastnet.DropoutLayer(0.5, 0), fastnet.BatchNormLayer(width, dtype=np.float32)):
            yield f"{layer!r}, {n} x {width}", layer, (n, width)
    shape = 128, 16, 32, 32
    for layer in (fastnet.BatchNormLayer(16, dtype=np.float32), fastnet.MaxPoolLayer(2), fastnet.MaxPoolLayer(3, 2),
                  fastnet.MaxPoolLayer(2, 3), fastnet.AveragePoolLayer(2), fastnet.DropoutLayer(0.5, 0)):
        yield f"{layer!r}, images", layer, shape
    for n_i, n_o, h, side, options in (
            (16, 32, 3, 32, {}), (3, 32, 3, 32, {"stride": 2}), (32, 64, 3, 16, {"stride": 2}),
            (64, 128, 3, 8, {"stride": 2}), (16, 32, 5, 16, {"padding": "valid"}), (64, 64, 1, 16, {}),
            (16, 32, 4, 32, {"stride": 2, "padding": 1})):
        layer = fastnet.ConvLayer(n_i, n_o, h, np.float32, rng, **options)
        yield f"{layer!r}, {side} x {side}", layer, (128, n_i, side, side)


def layer_calls(layer: Any, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Call, Call]:
    """A forward and a backward pass of fastnet's and of PyTorch's."""
    import torch

    behind = [fastnet.FlattenLayer()] if len(shape) == 4 else []
    module = fastnet.Sequential([layer, *behind], fastnet.MeanSquaredErrorLayer()).to_torch()[0].train()
    x = rng.standard_normal(shape).astype(np.float32)
    dy = rng.standard_normal(layer.forward(x).shape).astype(np.float32)
    tensor, gradient = torch.from_numpy(x.copy()).requires_grad_(), torch.from_numpy(dy)

    def ours() -> None:
        layer.forward(x)
        layer.backward(dy)

    def theirs() -> None:
        tensor.grad = None
        module.zero_grad(set_to_none=True)
        module(tensor).backward(gradient)

    return ours, theirs


def networks() -> dict[str, tuple[Callable[[], list[Any]], tuple[int, ...], int]]:
    """Layers, the shape of a sample and the number of samples, by a name."""
    f, r = np.float32, fastnet.ReluLayer

    def mlp() -> list[Any]:
        return [fastnet.FullLayer(784, 512, f, 0), fastnet.BatchNormLayer(512, dtype=f), r(), fastnet.DropoutLayer(0.5, 1),
                fastnet.FullLayer(512, 256, f, 2), fastnet.BatchNormLayer(256, dtype=f), r(), fastnet.DropoutLayer(0.5, 3),
                fastnet.FullLayer(256, 10, f, 4), fastnet.SoftMaxLayer()]

    def small_mlp() -> list[Any]:
        return [fastnet.FullLayer(64, 128, f, 0), fastnet.BatchNormLayer(128, dtype=f), r(), fastnet.DropoutLayer(0.3, 1),
                fastnet.FullLayer(128, 64, f, 2), fastnet.BatchNormLayer(64, dtype=f), r(), fastnet.DropoutLayer(0.3, 3),
                fastnet.FullLayer(64, 10, f, 4), fastnet.SoftMaxLayer()]

    def small_strides() -> list[Any]:
        return [fastnet.ConvLayer(1, 16, 3, f, 0, stride=2), r(), fastnet.ConvLayer(16, 32, 3, f, 1, stride=2), r(),
                fastnet.FlattenLayer(), fastnet.FullLayer(1568, 10, f, 3), fastnet.SoftMaxLayer()]

    def strides() -> list[Any]:
        return [fastnet.ConvLayer(3, 32, 3, f, 0, stride=2), r(), fastnet.ConvLayer(32, 64, 3, f, 1, stride=2), r(),
                fastnet.ConvLayer(64, 64, 3, f, 2, stride=2), r(), fastnet.FlattenLayer(), fastnet.FullLayer(1024, 10, f, 3),
                fastnet.SoftMaxLayer()]

    def normalised() -> list[Any]:
        layers = strides()
        for place, channels in ((5, 64), (3, 64), (1, 32)):
            layers.insert(place, fastnet.BatchNormLayer(channels, dtype=f))
        return layers

    def lenet() -> list[Any]:
        return [fastnet.ConvLayer(1, 6, 5, f, 0, padding=2), r(), fastnet.MaxPoolLayer(2),
                fastnet.ConvLayer(6, 16, 5, f, 1, padding="valid"), r(), fastnet.MaxPoolLayer(2), fastnet.FlattenLayer(),
                fastnet.FullLayer(400, 120, f, 2), r(), fastnet.FullLayer(120, 84, f, 3), r(),
                fastnet.FullLayer(84, 10, f, 4), fastnet.SoftMaxLayer()]

    return {"MLP with batch norm and dropout": (mlp, (784,), 2048),
            "small MLP with batch norm and dropout": (small_mlp, (64,), 2048),
            "small CNN with strides": (small_strides, (1, 28, 28), 1024), "CNN with strides": (strides, (3, 32, 32), 512),
            "CNN with strides and batch norm": (normalised, (3, 32, 32), 512), "LeNet": (lenet, (1, 28, 28), 1024)}


def network_calls(make: Callable[[], list[Any]], shape: tuple[int, ...], n: int,
                  rng: np.random.Generator) -> tuple[Call, Call]:
    """Some epochs of training, of fastnet's and of PyTorch's; each returns the loss of the last."""
    import torch

    x, labels = rng.standard_normal((n, *shape)).astype(np.float32), rng.integers(0, 10, n)
    t = np.eye(10, dtype=np.float32)[labels]
    model = fastnet.Sequential(make(), fastnet.CrossEntropyLayer())
    network = torch.nn.Sequential(*list(model.to_torch())[:-1]).train()
    optimizer, data, targets = torch.optim.SGD(network.parameters(), lr=0.01), torch.from_numpy(x), torch.from_numpy(labels)

    def ours() -> float:
        return model.fit(x, t, epochs=EPOCHS, lr=0.01, batch_size=128, progress=False)[-1]

    def theirs() -> float:
        for _ in range(EPOCHS):
            losses = []
            for first in range(0, n, 128):
                loss = torch.nn.functional.cross_entropy(network(data[first:first + 128]), targets[first:first + 128])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
            mean = torch.stack(losses).mean().item()
        return mean

    one, other = ours(), theirs()
    dropped = any(isinstance(layer, fastnet.DropoutLayer) for layer in model.layers)
    assert dropped or abs(one - other) < 1e-4 * abs(other), f"fastnet's loss is {one}, PyTorch's {other}"
    return ours, theirs


def settle(call: Call) -> None:
    """Let the other library's threads fall asleep, then have this one's threads awake and its data in the caches."""
    time.sleep(PAUSE)
    call()


def times(ours: Call, theirs: Call, threads: int) -> tuple[float, float, float]:
    """PyTorch's time / fastnet's, fastnet's time on one thread / on all, and fastnet's milliseconds: medians of blocks."""
    ours(), theirs()
    start = time.perf_counter()
    ours()
    count = max(1, round(BLOCK / (time.perf_counter() - start)))

    def timed(call: Call, of_ours: int) -> float:
        fastnet.set_num_threads(of_ours)
        settle(call)
        begin = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - begin) / count

    blocks = [(timed(ours, threads), timed(theirs, threads), timed(ours, 1)) for _ in range(ROUNDS)]
    fastnet.set_num_threads(threads)
    return (statistics.median(b / a for a, b, _ in blocks), statistics.median(c / a for a, _, c in blocks),
            1e3 * statistics.median(a for a, _, _ in blocks))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="threads of each (default: 1)")
    parser.add_argument("--only", default="", help="a part of the name of what is compared")
    given = parser.parse_args()
    import torch

    torch.set_num_threads(given.threads)
    fastnet.set_num_threads(given.threads)
    rng = np.random.default_rng(0)
    print(f"{'PyTorch / fastnet':>18} {'gain':>6} {'fastnet, ms':>12}")

    def show(name: str, ours: Call, theirs: Call) -> None:
        print("{:18.2f} {:6.2f} {:12.3f}  {}".format(*times(ours, theirs, given.threads), name), flush=True)

    for name, layer, shape in of_layers(rng):
        if given.only in name:
            show(name, *layer_calls(layer, shape, rng))
    for name, (make, shape, n) in networks().items():
        if given.only in name:
            show(name, *network_calls(make, shape, n, rng))


if __name__ == "__main__":
    main()
