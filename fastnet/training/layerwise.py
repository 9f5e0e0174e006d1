"""The reference engine: every batch through forward, backward and update of every layer, whoever wrote it."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet._state import snapshot
from fastnet.layer import parameters

_CHUNK = 4096  # rows that go through the layers at once when there is nothing to learn


class Descent:
    """Steps of gradient descent for any layers, with momentum and weight decay.

    V = momentum V + W_grad + decay W, then the layer's own ``update_param`` with V for its gradient: W -= lr V. Biases
    (parameters whose names begin with b) do not decay.
    """

    def __init__(self, model: Any, momentum: float, decay: float,
                 velocities: list[tuple[np.ndarray, np.ndarray]] | None = None) -> None:
        self.model, self.momentum, self.decay = model, momentum, decay
        self.velocity: dict[tuple[int, str], np.ndarray] = {}
        if velocities:
            learning = [i for i, layer in enumerate(model.layers) if hasattr(layer, "W")]
            for i, (of_w, of_b) in zip(learning, velocities, strict=True):
                self.velocity[i, "W"], self.velocity[i, "b"] = of_w, of_b

    def step(self, lr: float) -> None:
        """Update every layer's parameters."""
        if not self.momentum and not self.decay:
            self.model.update_param(lr)
            return
        for i, layer in enumerate(self.model.layers):
            update = getattr(layer, "update_param", None) or getattr(layer, "update_params", None)
            names = parameters(layer)
            if update is None or not names:
                continue
            gradients = {grad: getattr(layer, grad) for grad in names.values()}
            for name, grad in names.items():
                change = gradients[grad]
                if self.decay and not name.lower().startswith("b"):
                    change = change + change.dtype.type(self.decay) * getattr(layer, name)
                if self.momentum:
                    before = self.velocity.get((i, name))
                    if before is not None:
                        change = change.dtype.type(self.momentum) * before + change
                    self.velocity[i, name] = change
                setattr(layer, grad, change)
            update(lr)
            for grad, value in gradients.items():
                setattr(layer, grad, value)


class Layerwise:
    """Trains the model's layers themselves; see `fastnet.training.fused.Fused` for the methods."""

    name = "layers"
    in_one_call = False

    def __init__(self, model: Any, x: np.ndarray, t: np.ndarray, batch_size: int, momentum: float = 0.0,
                 decay: float = 0.0) -> None:
        self.model, self.x, self.t, self.batch_size = model, x, t, min(batch_size, len(x))
        self.descent = Descent(model, momentum, decay)
        self.between: Callable[[], None] = lambda: None

    def epoch(self, lr: float, order: np.ndarray | None, stop: int) -> np.ndarray:
        losses = []
        for first in range(0, stop, self.batch_size):
            last = min(stop, first + self.batch_size)
            rows = slice(first, last) if order is None else order[first:last]
            losses.append(self.model.forward(converted(self.x[rows], self.model.dtype), self.t[rows]))
            self.model.backward()
            self.descent.step(lr)
            self.between()
        return np.array(losses, dtype=float)

    def save(self) -> Any:
        return snapshot((*self.model.layers, self.model.loss), copy=True), dict(self.descent.velocity)

    def restore(self, saved: Any) -> None:
        saved[0]()
        self.descent.velocity = saved[1]

    def write(self) -> None:
        """Nothing to do: the layers were trained themselves."""

    def velocities(self) -> None:
        """Kept by `descent`."""

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        return probabilities(self.model, x)


def converted(x: np.ndarray, dtype: np.dtype | None) -> np.ndarray:
    """Rows of data in the dtype of the model; rows that are so already are not copied."""
    return np.asarray(x) if dtype is None else np.asarray(x, dtype)


def probabilities(model: Any, x: np.ndarray) -> np.ndarray:
    """What the last layer gives, a few thousand rows at a time; what the layers remember stays as it was."""
    restore = snapshot((*model.layers, model.loss))
    try:
        return np.concatenate([model.forward(converted(x[i:i + _CHUNK], model.dtype))
                               for i in range(0, len(x), _CHUNK)])
    finally:
        restore()
