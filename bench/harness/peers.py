"""The same training done by what a user would pick instead: NumPy by hand, PyTorch, JAX, scikit-learn.

Every fit starts from the same weights, takes the same batches in the same order, and returns the mean loss of each
epoch: one that skips work shows as a different loss (scikit-learn draws its own weights, so only its time compares).
A peer that is not installed is left out, with a message.
"""
from __future__ import annotations

import copy
import functools
import importlib.util
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

PACKAGES = {"torch": "torch", "jax": "jax", "scikit-learn": "sklearn"}  # and what one imports
Weights = list[tuple[np.ndarray, np.ndarray]]  # (W (n_o, n_i), b (n_o,)) of each layer


def workload(n: int, widths: tuple[int, ...], dtype: Any, seed: int = 0) -> tuple[np.ndarray, np.ndarray, Weights]:
    """8-bit images (n, d), pixels / 255 - 0.5, as the course has them; one-hot targets, and Glorot's starting weights."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, widths[-1], n)
    centres = rng.normal(size=(widths[-1], widths[0])) * 0.02
    x = np.clip(centres[labels] + rng.normal(size=(n, widths[0])) * 0.25, -0.5, 0.5)
    x = (np.rint((x + 0.5) * 255) / 255 - 0.5).astype(dtype)
    weights = [((rng.normal(size=(o, i)) * np.sqrt(2 / (i + o))).astype(dtype), np.zeros(o, dtype))
               for i, o in itertools.pairwise(widths)]
    return x, np.eye(widths[-1], dtype=dtype)[labels], weights


def plain_flops(n: int, widths: tuple[int, ...]) -> float:
    """Of one epoch of the plain algorithm, without the gradient of the input."""
    return n * sum((4 if i == 0 else 6) * a * b for i, (a, b) in enumerate(itertools.pairwise(widths)))


def batches(n: int, size: int) -> Iterator[slice]:
    """The rows of each mini-batch."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def installed(*names: str) -> dict[str, Callable]:
    """The named peers' fits, of those that are installed; says which are not."""
    for name in names:
        if not is_installed(PACKAGES.get(name, name)):
            print(f"{name} is not installed: left out. To include it: pip install {name}")
    return {name: FITS[name] for name in names if is_installed(PACKAGES.get(name, name))}


def fastnet_model(weights: Weights) -> Any:
    """The course network with given weights."""
    model = copy.deepcopy(_drawn_model(weights[0][0].dtype, weights[0][0].shape[1], *(len(W) for W, _ in weights)))
    for layer, (W, b) in zip(model.layers[::2], weights, strict=False):
        layer.W, layer.b = W.copy(), b[None].copy()
    return model


@functools.cache
def _drawn_model(dtype: np.dtype, *widths: int) -> Any:
    """One with weights of its own: drawing them takes as long as many a fit, and is no part of what is compared."""
    from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer
    layers: list[Any] = []
    for n_i, n_o in itertools.pairwise(widths):
        layers += [FullLayer(n_i, n_o, dtype, rng=0), ReluLayer()]
    return Sequential((*layers[:-1], SoftMaxLayer()), loss=CrossEntropyLayer())


def fastnet_fit(x: np.ndarray, t: np.ndarray, weights: Weights, epochs: int, lr: float, batch_size: int = 128,
                engine: str = "auto") -> np.ndarray:
    return fastnet_model(weights).fit(x, t, epochs, lr, batch_size, engine=engine, progress=False)


def numpy_fit(x: np.ndarray, t: np.ndarray, weights: Weights, epochs: int, lr: float,
              batch_size: int = 128) -> np.ndarray:
    """The course's layers as a good student writes them: vectorised, one after the other, input gradient included."""
    Ws, bs = [W.copy() for W, _ in weights], [b.copy() for _, b in weights]
    losses = np.zeros(epochs)
    for epoch in range(epochs):
        parts = list(batches(len(x), batch_size))
        for rows in parts:
            target, inputs = t[rows], [x[rows]]
            for W, b in zip(Ws[:-1], bs[:-1], strict=True):
                inputs.append(np.maximum(inputs[-1] @ W.T + b, 0))
            z = inputs[-1] @ Ws[-1].T + bs[-1]
            p = np.exp(z - z.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            losses[epoch] -= np.sum(target * np.log(p)) / len(target) / len(parts)
            dp = -target / p / len(target)
            dz = p * (dp - (dp * p).sum(axis=1, keepdims=True))
            for layer in reversed(range(len(Ws))):
                dW, db, dx = dz.T @ inputs[layer], dz.sum(axis=0), dz @ Ws[layer]
                Ws[layer] = Ws[layer] - lr * dW
                bs[layer] = bs[layer] - lr * db
                dz = dx * (inputs[layer] > 0)
    return losses


def torch_fit(x: np.ndarray, t: np.ndarray, weights: Weights, epochs: int, lr: float,
              batch_size: int = 128) -> np.ndarray:
    """PyTorch as its tutorials write it: eager, ``torch.optim.SGD``."""
    import torch
    from torch.nn.functional import cross_entropy
    modules: list[Any] = []
    for W, b in weights:
        linear = torch.nn.utils.skip_init(torch.nn.Linear, W.shape[1], W.shape[0], dtype=torch.from_numpy(W).dtype)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(W))
            linear.bias.copy_(torch.from_numpy(b))
        modules += [linear, torch.nn.ReLU()]
    model = torch.nn.Sequential(*modules[:-1])
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    inputs, labels = torch.from_numpy(x), torch.from_numpy(t.argmax(axis=1))
    losses = []
    for _ in range(epochs):
        steps = []
        for rows in batches(len(x), batch_size):
            loss = cross_entropy(model(inputs[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps.append(loss.detach())
        losses.append(float(torch.stack(steps).mean()))
    return np.array(losses)


@functools.cache
def _jax_epoch(loss_of: Callable) -> Callable:
    """Steps of gradient descent for mini-batches of one size, compiled as one function."""
    import jax

    def step(parameters: Any, part: Any, lr: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(parameters, *part)
        return jax.tree.map(lambda a, g: a - lr * g, parameters, grads), loss

    def epoch(parameters: Any, x: Any, t: Any, lr: Any) -> Any:
        return jax.lax.scan(lambda now, part: step(now, part, lr), parameters, (x, t))

    return jax.jit(epoch)


def jax_epochs(loss_of: Callable, parameters: Any, x: np.ndarray, t: np.ndarray, epochs: int, lr: float,
               batch_size: int) -> np.ndarray:
    """Train with JAX: an epoch is one compiled loop over the whole mini-batches, and one over the last, smaller one."""
    import jax.numpy as jnp

    whole = len(x) // batch_size * batch_size
    parts = [(jnp.array(x[rows]).reshape(-1, size, *x.shape[1:]), jnp.array(t[rows]).reshape(-1, size, t.shape[1]))
             for rows, size in ((slice(whole), batch_size), (slice(whole, None), len(x) - whole)) if len(x[rows])]
    losses = []
    for _ in range(epochs):
        steps = []
        for part in parts:
            parameters, loss = _jax_epoch(loss_of)(parameters, *part, lr)
            steps.append(loss)
        losses.append(float(jnp.concatenate(steps).mean()))
    return np.array(losses)


def jax_fit(x: np.ndarray, t: np.ndarray, weights: Weights, epochs: int, lr: float,
            batch_size: int = 128) -> np.ndarray:
    """JAX with a compiled epoch. It computes in float32 unless told otherwise for the whole process."""
    import jax
    import jax.numpy as jnp
    with jax.enable_x64(x.dtype == np.float64):
        return jax_epochs(_jax_loss, [(jnp.array(W), jnp.array(b)) for W, b in weights], x, t, epochs, lr, batch_size)


def _jax_loss(parameters: Any, x: Any, t: Any) -> Any:
    import jax
    import jax.numpy as jnp

    for W, b in parameters[:-1]:
        x = jax.nn.relu(x @ W.T + b)
    W, b = parameters[-1]
    return -jnp.mean(jnp.sum(t * jax.nn.log_softmax(x @ W.T + b), axis=1))


def sklearn_fit(x: np.ndarray, t: np.ndarray, weights: Weights, epochs: int, lr: float,
                batch_size: int = 128) -> np.ndarray:
    """scikit-learn's MLPClassifier, set to plain gradient descent. It draws its own weights."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    model = MLPClassifier([W.shape[0] for W, _ in weights[:-1]], solver="sgd", momentum=0, nesterovs_momentum=False,
                          alpha=0, learning_rate_init=lr, batch_size=min(batch_size, len(x)), shuffle=False,
                          max_iter=epochs, tol=0, n_iter_no_change=10**6, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, t.argmax(axis=1))
    return np.array(model.loss_curve_)


FITS: dict[str, Callable] = {"numpy": numpy_fit, "torch": torch_fit, "jax": jax_fit, "scikit-learn": sklearn_fit}
