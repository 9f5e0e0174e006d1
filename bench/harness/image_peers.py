"""Networks of images to train, and what trains them: fastnet, PyTorch, JAX, vectorised NumPy."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bench.harness.peers import batches, is_installed, jax_epochs

Weights = list[tuple[np.ndarray, np.ndarray]]


class Network(NamedTuple):
    """Convolutions of 3 x 3 pixels with `channels`, each with ReLU and a pool, then a fully connected layer."""

    shape: tuple[int, int, int]  # of an image
    channels: tuple[int, ...]
    classes: int = 5
    pool: int = 2  # 1: none

    def sizes(self) -> list[tuple[int, int, int]]:
        """Channels in and out, and the side of the images, of each convolution; images are square."""
        inputs = (self.shape[0], *self.channels[:-1])
        return [(n_i, n_o, self.shape[1] // self.pool ** i)
                for i, (n_i, n_o) in enumerate(zip(inputs, self.channels, strict=True))]

    @property
    def features(self) -> int:
        """Inputs of the fully connected layer."""
        return self.channels[-1] * (self.shape[1] // self.pool ** len(self.channels)) ** 2

    def operations(self, sparse: bool = False, winograd: bool = False) -> float:
        """Number of operations of a training step, for one image.

        With `sparse` those that are left where only maxima have a gradient; with `winograd` those of its products alone,
        16 for 36, on the way forward where fastnet uses them in float32.
        """
        from fastnet.kernels.conv.winograd import LEAST_CHANNELS  # here: a peer's environment has no fastnet

        total = 6.0 * self.features * self.classes
        for i, (n_i, n_o, side) in enumerate(self.sizes()):
            dense = 18.0 * n_i * n_o * side * side
            forward = dense * 16 / 36 if winograd and n_i >= LEAST_CHANNELS else dense
            total += forward + dense * (2 if i else 1) / (4 if sparse and self.pool == 2 else 1)
        return total


def workload(network: Network, n: int, dtype: Any, seed: int = 0) -> tuple[np.ndarray, np.ndarray, Weights]:
    """Images around one for each class, one-hot targets and Glorot weights."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, network.classes, n)
    centres = 0.15 * rng.standard_normal((network.classes, *network.shape))
    x = centres[labels] + 0.25 * rng.standard_normal((n, *network.shape))
    shapes: list[tuple[int, ...]] = [(n_o, n_i, 3, 3) for n_i, n_o, _ in network.sizes()]
    weights = []
    for shape in (*shapes, (network.classes, network.features)):
        spread = np.sqrt(2 / ((shape[0] + shape[1]) * int(np.prod(shape[2:]))))
        weights.append(((spread * rng.standard_normal(shape)).astype(dtype), np.zeros((1, shape[0]), dtype)))
    return x.astype(dtype), np.eye(network.classes, dtype=dtype)[labels], weights


def pool_of(x: np.ndarray, weights: Weights) -> int:
    """The side of the pools of a network for images x: 2, or 1 if it has none."""
    return 1 if weights[-1][0].shape[1] == len(weights[-2][0]) * x[0, 0].size else 2


def fastnet_model(weights: Weights, pool: int = 2) -> Any:
    """Our network with these weights."""
    import fastnet

    layers: list[Any] = []
    for W, _ in weights[:-1]:
        layers += [fastnet.ConvLayer(W.shape[1], W.shape[0], 3, W.dtype, 0), fastnet.ReluLayer()]
        layers += [fastnet.MaxPoolLayer(pool)] if pool > 1 else []
    W = weights[-1][0]
    layers += [fastnet.FlattenLayer(), fastnet.FullLayer(W.shape[1], W.shape[0], W.dtype, 0), fastnet.SoftMaxLayer()]
    for layer, (W, b) in zip([layer for layer in layers if hasattr(layer, "W")], weights, strict=True):
        layer.W, layer.b = W.copy(), b.copy()
    return fastnet.Sequential(layers, fastnet.CrossEntropyLayer())


def fastnet_fit(x: np.ndarray, t: np.ndarray, weights: Weights, epochs: int, lr: float, batch_size: int) -> np.ndarray:
    """`Sequential.fit`."""
    return fastnet_model(weights, pool_of(x, weights)).fit(x, t, epochs=epochs, lr=lr, batch_size=batch_size, progress=False)


def layers_fit(x: np.ndarray, t: np.ndarray, weights: Weights, epochs: int, lr: float, batch_size: int) -> np.ndarray:
    """A loop by hand over our layers."""
    model, losses = fastnet_model(weights, pool_of(x, weights)), []
    for _ in range(epochs):
        of_batches = []
        for rows in batches(len(x), batch_size):
            of_batches.append(model.forward(x[rows], t[rows]))
            model.backward()
            model.update_param(lr)
        losses.append(np.mean(of_batches))
    return np.array(losses)


def torch_fit(x: np.ndarray, t: np.ndarray, weights: Weights, epochs: int, lr: float, batch_size: int,
              channels_last: bool = False) -> np.ndarray:
    """PyTorch, eager, with its own SGD."""
    import torch

    modules: list[Any] = []
    pools = [torch.nn.MaxPool2d(2)] if pool_of(x, weights) == 2 else []
    for W, b in weights:
        made = (torch.nn.Conv2d(W.shape[1], W.shape[0], 3, padding=1) if W.ndim == 4
                else torch.nn.Linear(W.shape[1], W.shape[0])).to(torch.from_numpy(W).dtype)
        with torch.no_grad():
            made.weight.copy_(torch.from_numpy(W))
            made.bias.copy_(torch.from_numpy(b[0]))
        modules += [made, torch.nn.ReLU(), *pools] if W.ndim == 4 else [torch.nn.Flatten(), made]
    network, images = torch.nn.Sequential(*modules), torch.from_numpy(x)
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    targets, losses = torch.from_numpy(t), []
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    for _ in range(epochs):
        of_batches = []
        for rows in batches(len(x), batch_size):
            loss = torch.nn.functional.cross_entropy(network(images[rows]), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            of_batches.append(loss.detach())
        losses.append(torch.stack(of_batches).mean().item())
    return np.array(losses)


def channels_last_fit(*job: Any) -> np.ndarray:
    """PyTorch with its faster layout of images."""
    return torch_fit(*job, channels_last=True)


def jax_fit(x: np.ndarray, t: np.ndarray, weights: Weights, epochs: int, lr: float, batch_size: int) -> np.ndarray:
    """JAX with channels last; an epoch is compiled by XLA, see `peers.jax_epochs`."""
    import jax.numpy as jnp

    filters = [(jnp.asarray(W.transpose(2, 3, 1, 0)), jnp.asarray(b[0])) for W, b in weights[:-1]]
    parameters = [*filters, (jnp.asarray(weights[-1][0]), jnp.asarray(weights[-1][1][0]))]
    return jax_epochs(_jax_loss, parameters, np.ascontiguousarray(x.transpose(0, 2, 3, 1)), t, epochs, lr, batch_size)


def _jax_loss(parameters: Any, images: Any, targets: Any) -> Any:
    import jax
    import jax.numpy as jnp

    for W, b in parameters[:-1]:
        images = jax.lax.conv_general_dilated(images, W, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        images = jax.nn.relu(images + b)
        images = jax.lax.reduce_window(images, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    W, b = parameters[-1]
    scores = images.transpose(0, 3, 1, 2).reshape(len(images), -1) @ W.T + b
    return -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(scores), axis=1))


def numpy_fit(x: np.ndarray, t: np.ndarray, weights: Weights, epochs: int, lr: float, batch_size: int) -> np.ndarray:
    """Vectorised NumPy in the dtype of x: patches by sliding windows, one product per layer."""
    weights = [(W.astype(x.dtype), b.astype(x.dtype)) for W, b in weights]
    losses, pool = [], pool_of(x, weights)
    for _ in range(epochs):
        of_batches = []
        for rows in batches(len(x), batch_size):
            images, tape = x[rows], []
            for W, b in weights[:-1]:
                n, _, side, _ = images.shape
                patches = _patches(images)
                y = np.maximum(patches @ W.reshape(len(W), -1).T + b, 0).transpose(0, 2, 1)
                windows = y.reshape(n, len(W), side // pool, pool, side // pool, pool)
                images = windows.max(axis=(3, 5))
                tape.append((patches, windows, images))
            h, (W, b) = images.reshape(len(images), -1), weights[-1]
            z = h @ W.T + b
            p = np.exp(z - z.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            of_batches.append(-(t[rows] * np.log(p)).sum() / len(p))
            dz = (p - t[rows]) / len(p)
            dy, new = (dz @ W).reshape(images.shape), [(W - lr * dz.T @ h, b - lr * dz.sum(axis=0, keepdims=True))]
            for number in reversed(range(len(tape))):
                (patches, windows, top), (W, b) = tape[number], weights[number]
                spread = ((windows == top[:, :, :, None, :, None]) & (windows > 0)) * dy[:, :, :, None, :, None]
                n, n_o, side = len(top), len(W), pool * top.shape[2]
                spread = spread.reshape(n, n_o, side, side)
                flat = spread.transpose(0, 2, 3, 1).reshape(-1, n_o)
                dW = (flat.T @ patches.reshape(len(flat), -1)).reshape(W.shape)
                new.append((W - lr * dW, b - lr * flat.sum(axis=0, keepdims=True)))
                if number:
                    turned = W[:, :, ::-1, ::-1].transpose(0, 2, 3, 1).reshape(-1, W.shape[1])
                    dy = (_patches(spread) @ turned).transpose(0, 2, 1).reshape(n, W.shape[1], side, side)
            weights = new[::-1]
        losses.append(np.mean(of_batches))
    return np.array(losses)


def _patches(images: np.ndarray) -> np.ndarray:
    """(n, pixels, channels 9): what a filter covers at each pixel."""
    around = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(around, (3, 3), axis=(2, 3))
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(len(images), -1, 9 * images.shape[1])


def installed(*names: str) -> dict[str, Callable]:
    """Those of the contenders whose package is there."""
    known = {"layers": ("numpy", layers_fit), "numpy": ("numpy", numpy_fit), "torch": ("torch", torch_fit),
             "channels_last": ("torch", channels_last_fit), "jax": ("jax", jax_fit)}
    return {name: known[name][1] for name in names if is_installed(known[name][0])}
