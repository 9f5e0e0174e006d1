"""Networks with layers of the user's among fastnet's: compiled segments, and the user's code once a mini-batch between them.

A *segment* is a run of neighbouring layers that lower to ops. It has a program for the way forward and one for the way back,
or, with the loss behind it, one for both. A layer or loss of the user's is called as layer-by-layer training calls it, with
arrays of its own.
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
from fastnet.training.eligibility import why_not, why_not_dtypes, why_not_loss, why_not_model, why_not_twice
from fastnet.training.history import Evaluation
from fastnet.training.layerwise import Descent, Layerwise
from fastnet.training.options import FitOptions
from fastnet.training.reaching import reaches
from fastnet.training.scoring import converted, evaluate


def segments(model: Any) -> list[range]:
    """The layers that are compiled: runs of neighbours, each with parameters. The loss may belong to the last."""
    stack = model.layers
    compiled = [why_not(layer) is None for layer in stack]
    found, i = [], 0
    while i < len(stack):
        stop = i
        while stop < len(stack) and compiled[stop]:
            stop += 1
        if any(parameters(layer) for layer in stack[i:stop]):
            found.append(range(i, stop))
        i = max(stop, i + 1)
    return found


def why_not_mixed(model: Any) -> str | None:
    """Why a network cannot be trained in segments; None if it can."""
    reason = why_not_model(model) or why_not_twice(model.layers) or why_not_dtypes(model)
    if reason:
        return reason
    if any(getattr(layer, "needs_images", False) and "images" in layer.takes for layer in model.layers):
        # the way forward and the way back of a segment are two programs, and images are kept for one block at a time
        return "networks of images are compiled as a whole or not at all"
    parts = segments(model)
    if not parts:
        return "no layer with parameters is one that the compiled engines know"
    own = [(f"layers[{i}], {type(layer).__name__}", layer) for i, layer in enumerate(model.layers) if why_not(layer)]
    own += [("the loss", model.loss)] if why_not_loss(model.loss) else []
    if not own:
        return "all its layers are fastnet's: nothing lies between segments"
    return next((f"{what} may look at other layers" for what, one in own if reaches(one, model)), None)


class _Pending(NamedTuple):
    """A segment that is compiled when the first mini-batch tells the shape of its input."""

    layers: range
    with_loss: bool


class Rate(NamedTuple):
    """What a step of descent is made with."""

    lr: float = 0.0
    momentum: float = 0.0
    weight_decay: float = 0.0
    optimizer: int = SGD
    steps: int = 0  # before it


class Segment:
    """Neighbouring layers of fastnet's, compiled.

    Parameters
    ----------
    layers : sequence of layers
    first : int
        The number of the first of them in the network.
    dtype : dtype
    rows : int
        Samples of a mini-batch at most.
    shape : tuple of int
        Of one sample of its input.
    moments : int
        Arrays like the parameters that the optimiser keeps.
    input_gradient : bool
        Whether there are layers before it.
    loss : layer, optional
        Behind it; fastnet's.
    """

    def __init__(self, layers: Sequence[Any], first: int, dtype: np.dtype, rows: int, shape: tuple[int, ...], moments: int,
                 input_gradient: bool, loss: Any = None) -> None:
        self.first, self.dtype, self.shape = first, dtype, shape
        net = Builder(dtype, rows, moments=moments, input_gradient=input_gradient).lower(list(layers), shape, loss)
        self.program = CompiledProgram(net)
        self._nothing = np.empty((0, 0), dtype)
        self._x = np.empty((0, 0), dtype)

    def forward(self, x: np.ndarray) -> np.ndarray:
        """The output for a mini-batch, a new array."""
        output = self.program.net.output
        assert output is not None
        self._x = np.ascontiguousarray(x.reshape(len(x), -1), self.dtype)
        self._run(self.program.commands(backward=False), self._nothing, Rate())
        return self.program.values(output, len(x)).reshape(len(x), *output.shape).copy()

    def backward(self, gradient: np.ndarray, rate: Rate) -> np.ndarray | None:
        """Update the parameters from the gradient of the output; returns that of the input, if it is needed."""
        assert self.program.net.gradient is not None
        n = len(self._x)
        self.program.values(self.program.net.gradient, n)[:] = gradient.reshape(n, -1)
        self._run(self.program.commands(forward=False), self._nothing, rate)
        return self._input_gradient(n)

    def step(self, x: np.ndarray, t: np.ndarray, rate: Rate) -> tuple[float, np.ndarray | None]:
        """The loss of a mini-batch, and all of the step; with the gradient of the input, if it is needed."""
        self._x = np.ascontiguousarray(x.reshape(len(x), -1), self.dtype)
        loss = self._run(self.program.commands(), np.require(t, self.dtype, ("C", "W")), rate)
        return loss, self._input_gradient(len(x))

    def resume(self, moments: Moments) -> None:
        """Go on from the moments of the whole network."""
        self.program.put_moments({(i - self.first, name): kept for (i, name), kept in moments.items()})

    def moments(self) -> Moments:
        """As of `Engine`."""
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
    """Trains segments, and the user's layers between them; see `fastnet.training.engine.Engine` for the methods."""

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
        """As of `Engine`."""
        losses = []
        with in_mode(self.model, True):
            for first in range(start, stop, self.batch_size):
                last = min(stop, first + self.batch_size)
                rows = slice(first, last) if order is None else order[first:last]
                losses.append(self._step(converted(self.x[rows], self.dtype, copy=True), self.t[rows], lr))
                self.check_interrupt()
        return np.array(losses, dtype=float)

    def save(self) -> Any:
        """As of `Engine`."""
        layers = [self.model.layers[i] for i in self.own]
        pending = any(isinstance(part, _Pending) for part in self._parts)
        states = None if pending else [part.program.save() for part in self._segments()]
        return snapshot((*layers, self.model.loss), copy=True), dict(self.descent.moments), self.steps, states

    def restore(self, saved: Any) -> None:
        """As of `Engine`."""
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
        """As of `Engine`."""
        if self._handed_over is None:
            for part in self._segments():
                part.program.write()

    def last_batch(self, lr: float, order: np.ndarray | None, start: int) -> float:
        """As of `Engine`: by the layers themselves."""
        self.write()
        layers = Layerwise(self.model, self.x, self.t, self.options, self.moments() if self.steps else None, self.steps)
        self._handed_over = layers
        loss = layers.last_batch(lr, order, start)
        self.steps = layers.steps
        return loss

    def leave(self, order: np.ndarray | None, start: int) -> None:
        """As of `Engine`."""
        self.write()
        Layerwise(self.model, self.x, self.t, self.options).leave(order, start)

    def resume(self, moments: Moments, steps: int) -> None:
        """As of `Engine`; segments are given their part when they are compiled."""
        self._resumed, self.steps = moments, steps
        own = {place: kept for place, kept in moments.items() if place[0] in self.own}
        self.descent.moments, self.descent.steps, self.descent.first_step = own, steps, False

    def moments(self) -> Moments:
        """As of `Engine`."""
        if self._handed_over is not None:
            return self._handed_over.moments()
        found = {**self._resumed, **self.descent.moments}
        for part in self._segments():
            found.update(part.moments())
        return found

    @property
    def parts(self) -> list[Any]:
        """As of `Engine`."""
        return [layer for i, layer in enumerate(self.model.layers) if i not in self.own]

    def score(self, x: np.ndarray, t: np.ndarray) -> Evaluation:
        """As of `Engine`: through the layers."""
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
            if i < len(parts) - 1:
                value = parts[i].forward(np.asarray(value) if isinstance(parts[i], Segment) else shielded(value, parts[i]))
        last = parts[-1]
        if isinstance(last, Segment):
            loss, gradient = last.step(np.asarray(value), t, rate)
        else:
            loss = checks.loss_value(last, last.forward(shielded(value, last), np.array(t)))
            gradient = last.backward()
        for part in reversed(parts[:-1]):
            gradient = part.backward(np.asarray(gradient), rate) if isinstance(part, Segment) else part.backward(gradient)
        self.descent.step(lr)
        self.steps += 1
        return loss

    def _compiled(self, part: _Pending, x: Any) -> Segment:
        layers = self.model.layers[part.layers.start:part.layers.stop]
        try:
            segment = Segment(layers, part.layers.start, self.dtype, self.batch_size, np.shape(x)[1:],
                              MOMENTS_OF[self.optimizer], part.layers.start > 0, self.model.loss if part.with_loss else None)
        except Unsupported:  # a layer cannot take what it is given: its own error says so best
            for layer in layers:
                x = layer.forward(x)
            raise
        segment.resume(self._resumed)
        return segment

    def _pending(self) -> list[Any]:
        """Segments and layers of the user's in order, the loss or the segment with it last."""
        layers, loss, parts, at = list(self.model.layers), self.model.loss, [], 0
        with_loss = False
        for run_ in segments(self.model):
            takes = getattr(loss, "takes", ROWS_ONLY)
            with_loss = (why_not_loss(loss) is None and run_.stop == len(layers)
                         and getattr(layers[-1], "gives", "rows") in takes)
            parts += [*layers[at:run_.start], _Pending(run_, with_loss)]
            at = run_.stop
        return [*parts, *layers[at:]] if with_loss else [*parts, *layers[at:], loss]


class _Own:
    """The user's layers of a model, each in its place, for `Descent`."""

    def __init__(self, model: Any, own: list[int]) -> None:
        self.layers = [layer if i in own else None for i, layer in enumerate(model.layers)]

    def update_param(self, lr: float) -> None:
        """Let them step against their gradients."""
        for update in (updater(layer) for layer in self.layers):
            if update is not None:
                update(lr)
