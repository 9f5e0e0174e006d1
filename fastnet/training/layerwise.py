"""The reference engine, which calls forward, backward and update of every layer, fastnet's or user-defined, per batch."""
from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet.base import checks
from fastnet.base.attributes import arrays, snapshot
from fastnet.base.modes import in_mode
from fastnet.base.warn import warn
from fastnet.layer import decaying, declared_parameters, foreign, parameters, trained, updater
from fastnet.program.runner import ALPHA, BETA_1, BETA_2, EPSILON
from fastnet.training.eligibility import unsupported_loss_reason, unsupported_model_reason
from fastnet.training.history import Evaluation
from fastnet.training.lazy import release
from fastnet.training.options import NAMES, FitOptions
from fastnet.training.scoring import converted, evaluate, outputs

Moments = dict[tuple[int, str], tuple[Any, ...]]  # a velocity, v, or m and v, by the layer's first place and the name


class Descent:
    """Steps of gradient descent for any layers: SGD with momentum and weight decay, Adam or RMSprop.

    V = momentum V + W_grad + decay W replaces the gradient W_grad while the model's ``update_param``, and so that of every
    layer, takes its step: W -= lr V, or a user-defined step with the gradient.
    """

    def __init__(self, model: Any, options: FitOptions, moments: Moments | None = None, steps: int = 0) -> None:
        self.model, self.momentum, self.decay = model, options.momentum, options.weight_decay
        self.nesterov, self.optimizer = options.nesterov, options.optimizer
        self.moments = dict(moments or {})
        self.steps = steps
        self.first_step = moments is None

    def step(self, lr: float) -> None:
        """Update every layer's parameters."""
        self.steps += 1
        update = updater(self.model)
        assert update is not None  # Sequential has both
        if not self.momentum and not self.decay and self.optimizer == "sgd":
            update(lr)
            return
        before = _unannounced(self.model.layers) if self.first_step else {}
        gradients = self._put_velocities()
        try:
            update(lr)
        finally:
            for layer, name, gradient in gradients:
                setattr(layer, name, gradient)
        if self.first_step:
            self.first_step = False
            self._warn_of_unreached(before)

    def _put_velocities(self) -> list[tuple[Any, str, np.ndarray]]:
        """Replace the layers' gradients by velocities, and return the gradients."""
        replaced = []
        for i, layer in enumerate(self.model.layers):
            if updater(layer) is None or any(layer is other for other in self.model.layers[:i]):
                continue
            shrinking = decaying(layer) if self.decay else frozenset()
            own = foreign(layer)
            for name, grad in parameters(layer).items():
                gradient = checks.gradient_there(f"layers[{i}], {type(layer).__name__}", layer, name, grad)
                if gradient is None:  # this batch did not use the parameter
                    continue
                change = np.array(gradient) if own else gradient  # a user-defined layer may write into the same array again
                if name in shrinking:
                    change = _sum(self.decay * np.asarray(getattr(layer, name)), change)
                if self.momentum:
                    last = self.moments.get((i, name))
                    velocity = change if last is None else _sum(self.momentum * last[0], change)
                    self.moments[i, name] = (velocity,)
                    if self.nesterov:
                        change = _sum(self.momentum * velocity, change)
                    else:
                        change = velocity.copy() if own else velocity
                elif self.optimizer == "adam":
                    change = self._of_adam((i, name), change)
                elif self.optimizer == "rmsprop":
                    change = self._of_rmsprop((i, name), change)
                setattr(layer, grad, change)
                replaced.append((layer, grad, gradient))
        return replaced

    def _of_adam(self, place: tuple[int, str], gradient: np.ndarray) -> np.ndarray:
        """Return Adam's replacement of a gradient (Kingma & Ba 2015, algorithm 1)."""
        m, v = self.moments.get(place, (0.0, 0.0))
        m = BETA_1 * m + (1 - BETA_1) * gradient
        v = BETA_2 * v + (1 - BETA_2) * gradient * gradient
        self.moments[place] = m, v
        of_m, of_v = 1 - BETA_1 ** self.steps, 1 - BETA_2 ** self.steps
        return m / of_m / (np.sqrt(v / of_v) + EPSILON)

    def _of_rmsprop(self, place: tuple[int, str], gradient: np.ndarray) -> np.ndarray:
        """Return RMSprop's replacement of a gradient (Tieleman & Hinton 2012)."""
        (v,) = self.moments.get(place, (0.0,))
        v = ALPHA * v + (1 - ALPHA) * gradient * gradient
        self.moments[place] = (v,)
        return gradient / (np.sqrt(v) + EPSILON)

    def _warn_of_unreached(self, before: dict[int, dict[str, np.ndarray]]) -> None:
        """Warn of arrays that a layer's update changed, but whose gradients fastnet does not find."""
        what = " and ".join(["momentum"] * bool(self.momentum) + ["weight_decay"] * bool(self.decay)
                            + [NAMES[self.optimizer]] * (self.optimizer != "sgd"))
        for i, held in before.items():
            layer = self.model.layers[i]
            now = arrays(layer)
            reached = {f".{name}" for pair in parameters(layer).items() for name in pair}
            changed = [name[1:] for name, array in held.items() if name not in reached
                       and not (name in now and np.array_equal(now[name], array, equal_nan=array.dtype.kind == "f"))]
            if changed:
                warn(f"fit: the update of layers[{i}], {type(layer).__name__}, changes {', '.join(changed)}, which {what} "
                     "cannot reach. An array X needs its gradient in an attribute X_grad, or in one that the layer's method "
                     "parameters() names, for instance {'X': 'dX'}. It is trained without.")


def _sum(new: Any, other: Any) -> Any:
    """Compute new + other in the memory of `new`, a temporary array. NumPy does that automatically except on Python 3.14."""
    in_place = isinstance(new, np.ndarray) and new.dtype == np.result_type(new, other) and new.shape == np.shape(other)
    return np.add(new, other, out=new) if in_place else new + other


def _unannounced(layers: Any) -> dict[int, dict[str, np.ndarray]]:
    """Return copies of all arrays of the layers whose parameters fastnet has to guess, by the layer's number."""
    return {i: {name: array.copy() for name, array in arrays(layer).items()} for i, layer in enumerate(layers)
            if foreign(layer) and updater(layer) is not None and declared_parameters(layer) is None}


class Layerwise:
    """Trains the model's layers themselves; see `fastnet.training.engine.Engine` for the methods."""

    name = "layers"
    in_one_call = False
    parts: tuple[Any, ...] = ()  # the layers keep their arrays

    def __init__(self, model: Any, x: np.ndarray, t: np.ndarray, options: FitOptions, moments: Moments | None = None,
                 steps: int = 0) -> None:
        self.model, self.x, self.t, self.batch_size = model, x, t, min(options.batch_size, len(x))
        self.descent = Descent(model, options, moments, steps)
        self.check_interrupt: Callable[[], None] = lambda: None

    @property
    def steps(self) -> int:
        """Mini-batches so far."""
        return self.descent.steps

    def epoch(self, lr: float, order: np.ndarray | None, stop: int, start: int = 0) -> np.ndarray:
        losses = []
        with in_mode(self.model, True):
            for first in range(start, stop, self.batch_size):
                last = min(stop, first + self.batch_size)
                rows = slice(first, last) if order is None else order[first:last]
                losses.append(forward_backward(self.model, self.x, self.t, rows))
                self.descent.step(lr)
                self.check_interrupt()
        return np.array(losses, dtype=float)

    def last_batch(self, lr: float, order: np.ndarray | None, start: int) -> float:
        loss = self.epoch(lr, order, len(self.x), start)[0]
        release(self.model)
        return loss

    def leave(self, order: np.ndarray | None, start: int) -> None:
        state = [(layer, {name: getattr(layer, name) for name in trained(layer).keys() - parameters(layer).keys()})
                 for layer in self.model.layers]
        with np.errstate(all="ignore"), in_mode(self.model, True):
            forward_backward(self.model, self.x, self.t, slice(start, None) if order is None else order[start:])
        for layer, held in state:  # running statistics, and counters
            for name, value in held.items():
                setattr(layer, name, value)
        release(self.model)

    def save(self) -> Any:
        return snapshot((*self.model.layers, self.model.loss), copy=True), (
            dict(self.descent.moments), self.descent.steps)

    def restore(self, saved: Any) -> None:
        saved[0]()
        self.descent.moments, self.descent.steps = saved[1]

    def state(self) -> Any:
        """Return the state, for `set_state` of another engine."""
        return copy.deepcopy((self.model, self.descent.moments, self.descent.steps))

    def set_state(self, state: Any) -> None:
        """Continue from the state of another engine."""
        model, self.descent.moments, self.descent.steps = copy.deepcopy(state)
        for layer, other in zip((*self.model.layers, self.model.loss), (*model.layers, model.loss)):
            if hasattr(other, "__dict__"):
                layer.__dict__.clear()
                layer.__dict__.update(other.__dict__)

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        return outputs(self.model, x)

    def write(self) -> None:
        """Do nothing: the layers hold the parameters."""

    def resume(self, moments: Moments, steps: int) -> None:
        self.descent.moments, self.descent.steps, self.descent.first_step = dict(moments), steps, False

    def moments(self) -> Moments:
        return dict(self.descent.moments)

    def score(self, x: np.ndarray, t: np.ndarray) -> Evaluation:
        return evaluate(self.model, x, t)


def forward_backward(model: Any, x: np.ndarray, t: np.ndarray, rows: slice | np.ndarray) -> float:
    """Compute the loss of some rows, and all gradients. User-defined code gets defensive copies."""
    own = unsupported_model_reason(model) is not None
    targets = np.array(t[rows]) if own or unsupported_loss_reason(model.loss) else t[rows]
    loss = checks.loss_value(model.loss, model.forward(converted(x[rows], model.dtype, copy=own), targets))
    model.backward()
    return loss
