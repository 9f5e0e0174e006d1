"""Partially compiled networks: compiled segments, and calls of user-defined layers between them, once per mini-batch.

A *segment* is a sequence of neighbouring layers that lower to ops. It has one program for the forward pass and one for the
backward pass or, if it includes the loss, one for both. The engine calls user-defined layers and losses as training layer by
layer does, with defensive copies of its arrays.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastnet.base import checks
from fastnet.base.attributes import snapshot
from fastnet.base.modes import in_mode
from fastnet.kernels.records import SGD, Data
from fastnet.layer import parameters, shielded, updater
from fastnet.program.builder import ROWS_ONLY, Builder, Unsupported
from fastnet.program.runner import MOMENTS_OF, CompiledProgram, Moments, address, optimizer_of
from fastnet.training.eligibility import (
    shared_layer_reason,
    unsupported_dtypes_reason,
    unsupported_layer_reason,
    unsupported_loss_reason,
    unsupported_model_reason,
)
from fastnet.training.history import Evaluation
from fastnet.training.layerwise import Descent, Layerwise
from fastnet.training.options import FitOptions
from fastnet.training.reaching import reaches
from fastnet.training.scoring import converted, evaluate


def segments(model: Any) -> list[range]:
    """Return the compiled segments: ranges of neighbouring layers, each with parameters. The last may include the loss."""
    stack = model.layers
    compiled = [unsupported_layer_reason(layer) is None for layer in stack]
    found, i = [], 0
    while i < len(stack):
        stop = i
        while stop < len(stack) and compiled[stop]:
            stop += 1
        if any(parameters(layer) for layer in stack[i:stop]):
            found.append(range(i, stop))
        i = max(stop, i + 1)
    return found


def unsupported_mixed_reason(model: Any) -> str | None:
    """Return why a network cannot be trained in segments; None if it can."""
    reason = unsupported_model_reason(model) or shared_layer_reason(model.layers) or unsupported_dtypes_reason(model)
    if reason:
        return reason
    if any(getattr(layer, "needs_images", False) and "images" in layer.takes for layer in model.layers):
        # forward and backward pass of a segment are two programs, and images are stored only for one block at a time
        return "networks for images are compiled as a whole or not at all"
    parts = segments(model)
    if not parts:
        return "the compiled engines support none of its layers with parameters"
    own = [(f"layers[{i}], {type(layer).__name__}", layer) for i, layer in enumerate(model.layers)
           if unsupported_layer_reason(layer)]
    own += [("the loss", model.loss)] if unsupported_loss_reason(model.loss) else []
    if not own:
        return "all its layers are fastnet's, so that it has only one segment"
    return next((f"{what} may look at other layers" for what, one in own if reaches(one, model)), None)


class _Pending(NamedTuple):
    """A segment that is compiled when the first mini-batch shows the shape of its input."""

    layers: range
    with_loss: bool


class Rate(NamedTuple):
    """The numbers of a step of descent."""

    lr: float = 0.0
    momentum: float = 0.0
    weight_decay: float = 0.0
    optimizer: int = SGD
    steps: int = 0  # the number of steps before it


class Segment:
    """Neighbouring fastnet layers, compiled.

    Parameters
    ----------
    layers : sequence of layers
    first : int
        The number of the first of them in the network.
    dtype : dtype
    rows : int
        The largest number of samples in a mini-batch.
    shape : tuple of int
        The shape of one sample of its input.
    moments : int
        The number of arrays that the optimiser keeps per parameter.
    input_gradient : bool
        Whether there are layers before it.
    loss : layer, optional
        The loss after it, which is fastnet's.
    """

    def __init__(self, layers: Sequence[Any], first: int, dtype: np.dtype, rows: int, shape: tuple[int, ...], moments: int,
                 input_gradient: bool, loss: Any = None) -> None:
        self.first, self.dtype, self.shape = first, dtype, shape
        net = Builder(dtype, rows, moments=moments, input_gradient=input_gradient).lower(list(layers), shape, loss)
        self.program = CompiledProgram(net)
        self._nothing = np.empty((0, 0), dtype)
        self._x = np.empty((0, 0), dtype)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of one sample of its output."""
        assert self.program.net.output is not None
        return self.program.net.output.shape

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Compute the output for a mini-batch, a new array."""
        output = self.program.net.output
        assert output is not None
        self._x = np.ascontiguousarray(x.reshape(len(x), -1), self.dtype)
        self._run(self.program.commands(backward=False), self._nothing, Rate())
        return self.program.values(output, len(x)).reshape(len(x), *output.shape).copy()

    def backward(self, gradient: np.ndarray, rate: Rate) -> np.ndarray | None:
        """Update the parameters from the gradient of the output, and return that of the input if it is needed."""
        assert self.program.net.gradient is not None
        n = len(self._x)
        self.program.values(self.program.net.gradient, n)[:] = gradient.reshape(n, -1)
        self._run(self.program.commands(forward=False), self._nothing, rate)
        return self._input_gradient(n)

    def step(self, x: np.ndarray, t: np.ndarray, rate: Rate) -> tuple[float, np.ndarray | None]:
        """Take a step on a mini-batch; return its loss and, if it is needed, the gradient of the input."""
        self._x = np.ascontiguousarray(x.reshape(len(x), -1), self.dtype)
        loss = self._run(self.program.commands(), np.require(t, self.dtype, ("C", "W")), rate)
        return loss, self._input_gradient(len(x))

    def resume(self, moments: Moments) -> None:
        """Continue from the moments of the whole network."""
        self.program.put_moments({(i - self.first, name): kept for (i, name), kept in moments.items()})

    def moments(self) -> Moments:
        """Return the optimiser's arrays, as `Engine.moments` does, with the layers' numbers in the network."""
        return {(self.first + i, name): kept for (i, name), kept in self.program.moments().items()}

    def _run(self, commands: np.ndarray, targets: np.ndarray, rate: Rate) -> float:
        x, loss = self._x, np.zeros(1)
        data = Data(address(x), x.strides[0] // x.itemsize, targets, np.arange(len(x)), False, 0, 0)
        self.program.run(commands, data, self.program.hyperparameters(*rate), loss)
        return float(loss[0])

    def _input_gradient(self, n: int) -> np.ndarray | None:
        gradient = self.program.net.of_input
        return None if gradient is None else self.program.values(gradient, n).reshape(n, *self.shape).copy()


class Mixed:
    """Trains segments and the user-defined layers between them; see `fastnet.training.engine.Engine` for the methods."""

    name = "mixed"
    in_one_call = False

    def __init__(self, model: Any, x: np.ndarray, t: np.ndarray, options: FitOptions) -> None:
        self.model, self.x, self.t, self.options = model, x, t, options
        self.dtype, self.batch_size = np.dtype(model.dtype), min(options.batch_size, len(x))
        self.optimizer = optimizer_of(options.optimizer, options.momentum, options.nesterov)
        self.own = [i for i, layer in enumerate(model.layers) if not any(i in part for part in segments(model))]
        self.descent = Descent(_Own(model, self.own), options)
        self.steps = 0
        self._resumed: Moments = {}
        self.check_interrupt: Callable[[], None] = lambda: None
        self._parts = self._pending()
        self._handed_over: Layerwise | None = None

    def epoch(self, lr: float, order: np.ndarray | None, stop: int, start: int = 0) -> np.ndarray:
        """Do what `Engine.epoch` does."""
        losses = []
        with in_mode(self.model, True):
            for first in range(start, stop, self.batch_size):
                last = min(stop, first + self.batch_size)
                rows = slice(first, last) if order is None else order[first:last]
                losses.append(self._step(converted(self.x[rows], self.dtype, copy=True), self.t[rows], lr))
                self.check_interrupt()
        return np.array(losses, dtype=float)

    def save(self) -> Any:
        """Do what `Engine.save` does."""
        layers = [self.model.layers[i] for i in self.own]
        pending = any(isinstance(part, _Pending) for part in self._parts)
        states = None if pending else [part.program.save() for part in self._segments()]
        return snapshot((*layers, self.model.loss), copy=True), dict(self.descent.moments), self.steps, states

    def restore(self, saved: Any) -> None:
        """Do what `Engine.restore` does."""
        put_back, self.descent.moments, self.steps, states = saved
        self._handed_over = None
        self.descent.steps = self.steps
        put_back()
        if states is None:  # what the layers hold is where training started
            self._parts = self._pending()
        else:
            for part, state in zip(self._segments(), states, strict=True):
                part.program.restore(state)

    def write(self) -> None:
        """Do what `Engine.write` does."""
        if self._handed_over is None:
            for part in self._segments():
                part.program.write()

    def last_batch(self, lr: float, order: np.ndarray | None, start: int) -> float:
        """Do what `Engine.last_batch` does, with calls of the layers themselves."""
        self.write()
        layers = Layerwise(self.model, self.x, self.t, self.options, self.moments() if self.steps else None, self.steps)
        self._handed_over = layers
        loss = layers.last_batch(lr, order, start)
        self.steps = layers.steps
        return loss

    def leave(self, order: np.ndarray | None, start: int) -> None:
        """Do what `Engine.leave` does."""
        self.write()
        Layerwise(self.model, self.x, self.t, self.options).leave(order, start)

    def resume(self, moments: Moments, steps: int) -> None:
        """Do what `Engine.resume` does; segments get their part when they are compiled."""
        self._resumed, self.steps = moments, steps
        own = {place: kept for place, kept in moments.items() if place[0] in self.own}
        self.descent.moments, self.descent.steps, self.descent.first_step = own, steps, False

    def moments(self) -> Moments:
        """Do what `Engine.moments` does."""
        if self._handed_over is not None:
            return self._handed_over.moments()
        found = {**self._resumed, **self.descent.moments}
        for part in self._segments():
            found.update(part.moments())
        return found

    @property
    def parts(self) -> list[Any]:
        """The compiled layers, whose arrays the engine keeps."""
        return [layer for i, layer in enumerate(self.model.layers) if i not in self.own]

    def score(self, x: np.ndarray, t: np.ndarray) -> Evaluation:
        """Do what `Engine.score` does, with calls of the layers themselves."""
        self.write()
        return evaluate(self.model, x, t)

    def _segments(self) -> list[Segment]:
        return [part for part in self._parts if isinstance(part, Segment)]

    def _step(self, x: np.ndarray, t: np.ndarray, lr: float) -> float:
        o, parts = self.options, self._parts
        rate = Rate(lr, o.momentum, o.weight_decay, self.optimizer, self.steps)
        value: Any = x
        for i in range(len(parts)):
            if isinstance(parts[i], _Pending):
                parts[i] = self._compiled(parts[i], value)
            if i and isinstance(parts[i], Segment):
                value = self._fitting(value, i - 1, "forward", "output", (len(x), *parts[i].shape))
            if i < len(parts) - 1:
                value = parts[i].forward(value if isinstance(parts[i], Segment) else shielded(value, parts[i]))
        last = parts[-1]
        if isinstance(last, Segment):
            loss, gradient = last.step(value, t, rate)
        else:
            loss = checks.loss_value(last, last.forward(shielded(value, last), np.array(t)))
            gradient = last.backward()
        for i, part in reversed([*enumerate(parts[:-1])]):
            if isinstance(part, Segment):
                gradient = self._fitting(gradient, i + 1, "backward", "x_grad", (len(x), *part.output_shape))
                gradient = part.backward(gradient, rate)
            else:
                gradient = part.backward(gradient)
        self.descent.step(lr)
        self.steps += 1
        return loss

    def _fitting(self, given: Any, part: int, method: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Check what a user-defined layer or loss gives a segment, whose memory has space for that shape alone."""
        own = self._parts[part]
        number = next((i for i, layer in enumerate(self.model.layers) if layer is own), None)
        who = f"Sequential.fit: {method} of {'the loss' if number is None else f'layers[{number}]'}, {type(own).__name__}"
        array = checks.numbers(who, name, given)
        if array.shape != shape:
            raise ValueError(f"{who}: {name} must have shape {shape}, got {array.shape}. If other shapes are meant, "
                             "engine='layers' passes them on.")
        return array

    def _compiled(self, part: _Pending, x: Any) -> Segment:
        layers = self.model.layers[part.layers.start:part.layers.stop]
        try:
            segment = Segment(layers, part.layers.start, self.dtype, self.batch_size, np.shape(x)[1:],
                              MOMENTS_OF[self.optimizer], part.layers.start > 0, self.model.loss if part.with_loss else None)
        except Unsupported:  # a layer cannot take its input, and its forward raises the best error
            for layer in layers:
                x = layer.forward(x)
            raise
        segment.resume(self._resumed)
        return segment

    def _pending(self) -> list[Any]:
        """Return segments and user-defined layers in order, with the loss, or the segment that includes it, at the end."""
        layers, loss, parts, at = list(self.model.layers), self.model.loss, [], 0
        with_loss = False
        for run_ in segments(self.model):
            takes = getattr(loss, "takes", ROWS_ONLY)
            with_loss = (unsupported_loss_reason(loss) is None and run_.stop == len(layers)
                         and getattr(layers[-1], "gives", "rows") in takes)
            parts += [*layers[at:run_.start], _Pending(run_, with_loss)]
            at = run_.stop
        return [*parts, *layers[at:]] if with_loss else [*parts, *layers[at:], loss]


class _Own:
    """The user-defined layers of a model by their numbers, for `Descent`."""

    def __init__(self, model: Any, own: list[int]) -> None:
        self.layers = [layer if i in own else None for i, layer in enumerate(model.layers)]

    def update_param(self, lr: float) -> None:
        """Let them take a step against their gradients."""
        for update in (updater(layer) for layer in self.layers):
            if update is not None:
                update(lr)
