"""Networks with layers of the user's among fastnet's: compiled segments, and the user's code once a mini-batch between them.

A *segment* is a run of neighbouring layers that lower to ops. It has a program for the way forward and one for the way back,
or, with the loss behind it, one for both. A layer or loss of the user's is called as layer-by-layer training calls it, with
arrays of its own.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastnet import _checks
from fastnet._state import snapshot
from fastnet.conv import ConvLayer
from fastnet.kernels import step
from fastnet.kernels.structs import ADAM, MOMENTUM, SGD, Data
from fastnet.kernels.threads import run
from fastnet.layer import parameters, shielded, updater
from fastnet.lowering import MOMENTS, STATE, WORK, Buffer, Lowering, assemble
from fastnet.maxpool import MaxPoolLayer
from fastnet.softmax import SoftMaxLayer
from fastnet.training.eligibility import why_not, why_not_dtypes, why_not_loss, why_not_model, why_not_twice
from fastnet.training.engine import (
    MOMENTS_OF,
    SMALL_STEP,
    address,
    allocate,
    bases,
    hyperparameters,
    moments_of,
    put_copies,
)
from fastnet.training.first import no_gram
from fastnet.training.layerwise import Descent, Moments
from fastnet.training.options import FitOptions
from fastnet.training.scoring import converted, outputs
from fastnet.training.watching import reaches


def segments(model: Any) -> list[range]:
    """The layers that are compiled: runs of neighbours, each with parameters. The loss may belong to the last."""
    stack, ends = model.layers, why_not_loss(model.loss) is None
    compiled = [why_not(layer) is None and not (isinstance(layer, SoftMaxLayer) and not (ends and i == len(stack) - 1))
                for i, layer in enumerate(stack)]
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
    if any(isinstance(layer, (ConvLayer, MaxPoolLayer)) for layer in model.layers):
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

    lr: float
    momentum: float
    weight_decay: float
    optimizer: int
    steps: int  # before it


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
        self.layers, self.first, self.dtype = list(layers), first, dtype
        self.shape = shape
        self.net = net = Lowering(dtype, rows, moments=moments, input_gradient=input_gradient)
        self.output: Buffer | None = None
        self.of_output: Buffer | None = None  # its gradient
        if loss is None:
            self.output = net.lower(self.layers, shape)
            assert self.output is not None
            self.of_output = net.buffer_like(self.output)
            self.of_input = net.way_back(self.of_output)
        else:
            self.of_input = net.lower(self.layers, shape, loss)
        net.reserve(WORK, net.lanes)  # vectors may be read beyond the last row
        self.arenas = allocate(net, self.layers)
        parts = [net.ops()] if loss is not None else [net.ops(backward=False), net.ops(forward=False)]
        self._programs = [assemble(ops, bases(self.arenas), dtype) for ops in parts]
        self._gram, self._nothing = no_gram(dtype), np.empty((0, 0), dtype)
        self._x = np.empty((0, 0), dtype)

    def forward(self, x: np.ndarray) -> np.ndarray:
        """The output for a mini-batch, a new array."""
        assert self.output is not None
        self._x = np.ascontiguousarray(x.reshape(len(x), -1), self.dtype)
        self._run(0, self._nothing, hyperparameters(self.dtype))
        return self._rows(self.output, len(x)).reshape(len(x), *self.output.shape).copy()

    def backward(self, gradient: np.ndarray, rate: Rate) -> np.ndarray | None:
        """Update the parameters from the gradient of the output; returns that of the input, if it is needed."""
        assert self.of_output is not None
        n = len(self._x)
        self._rows(self.of_output, n)[:] = gradient.reshape(n, -1)
        self._run(1, self._nothing, self._hyper(rate))
        return self._input_gradient(n)

    def step(self, x: np.ndarray, t: np.ndarray, rate: Rate) -> tuple[float, np.ndarray | None]:
        """The loss of a mini-batch, and all of the step; with the gradient of the input, if it is needed."""
        self._x = np.ascontiguousarray(x.reshape(len(x), -1), self.dtype)
        loss = self._run(0, np.require(t, self.dtype, ("C", "W")), self._hyper(rate))
        return loss, self._input_gradient(len(x))

    def write(self) -> None:
        """Put the parameters into the layers, as new arrays."""
        for slot in self.net.slots:
            setattr(self.layers[slot.layer], slot.name, slot.get(self.arenas[STATE]))

    def save(self) -> Any:
        """What `restore` needs to go back to this state."""
        return self.arenas[STATE].copy(), self.arenas[MOMENTS].copy()

    def restore(self, saved: Any) -> None:
        """Go back to the state that was saved."""
        self.arenas[STATE][:], self.arenas[MOMENTS][:] = saved
        put_copies(self.net, self.arenas)

    def moments(self) -> Moments:
        """As of `Engine`."""
        return {(self.first + i, name): kept for (i, name), kept in moments_of(self.net, self.arenas).items()}

    def _hyper(self, rate: Rate) -> Any:
        return hyperparameters(self.dtype, rate.lr, rate.momentum, rate.weight_decay, rate.optimizer,
                               self.net.sizes[STATE], rate.steps)

    def _run(self, part: int, targets: np.ndarray, hyper: Any) -> float:
        x, loss = self._x, np.zeros(1)
        n = len(x)
        data = Data(address(x), x.strides[0] // x.itemsize, targets, np.arange(n), False, 0, 0)
        small = n * self.net.cost.products < SMALL_STEP
        run(step.train, self._programs[part], data, self._gram, hyper, n, 0, n, loss, threads=1 if small else None)
        return float(loss[0])

    def _input_gradient(self, n: int) -> np.ndarray | None:
        if self.of_input is None or self.net.input is None:
            return None
        return self._rows(self.of_input, n).reshape(n, *self.shape).copy()

    def _rows(self, buffer: Buffer, n: int) -> np.ndarray:
        at = buffer.place.offset
        flat = self.arenas[WORK][at:at + n * buffer.row]
        return flat.reshape(n, buffer.row)[:, :buffer.columns]


class Mixed:
    """Trains segments, and the user's layers between them; see `fastnet.training.engine.Engine` for the methods."""

    name = "mixed"
    in_one_call = False

    def __init__(self, model: Any, x: np.ndarray, t: np.ndarray, options: FitOptions) -> None:
        self.model, self.x, self.t, self.options = model, x, t, options
        self.dtype, self.batch_size = np.dtype(model.dtype), min(options.batch_size, len(x))
        self.optimizer = ADAM if options.optimizer == "adam" else MOMENTUM if options.momentum else SGD
        self.own = [i for i, layer in enumerate(model.layers) if not any(i in part for part in segments(model))]
        self.descent = Descent(_Own(model, self.own), options)
        self.steps = 0
        self.check_interrupt: Callable[[], None] = lambda: None
        self._parts = self._pending()
        self._handed_over = False

    def epoch(self, lr: float, order: np.ndarray | None, stop: int, start: int = 0) -> np.ndarray:
        """As of `Engine`."""
        losses = []
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
        states = None if pending else [part.save() for part in self._segments()]
        return snapshot((*layers, self.model.loss), copy=True), dict(self.descent.moments), self.steps, states

    def restore(self, saved: Any) -> None:
        """As of `Engine`."""
        put_back, self.descent.moments, self.steps, states = saved
        self._handed_over = False
        self.descent.steps = self.steps
        put_back()
        if states is None:  # what the layers hold is where training started
            self._parts = self._pending()
        else:
            for part, state in zip(self._segments(), states, strict=True):
                part.restore(state)

    def write(self) -> None:
        """As of `Engine`."""
        if not self._handed_over:
            for part in self._segments():
                part.write()

    def hand_over(self) -> None:
        """Leave the rest of the training to the layers, which `write` has brought up to date."""
        self._handed_over = True

    def moments(self) -> Moments:
        """As of `Engine`."""
        found = dict(self.descent.moments)
        for part in self._segments():
            found.update(part.moments())
        return found

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """As of `Engine`: through the layers."""
        self.write()
        return outputs(self.model, x)

    def _segments(self) -> list[Segment]:
        return [part for part in self._parts if isinstance(part, Segment)]

    def _step(self, x: np.ndarray, t: np.ndarray, lr: float) -> float:
        o, parts = self.options, self._parts
        rate = Rate(lr, o.momentum, o.weight_decay, self.optimizer, self.steps)
        value: Any = x
        for i in range(len(parts)):
            if isinstance(parts[i], _Pending):
                parts[i] = self._compiled(parts[i], np.shape(value)[1:])
            if i < len(parts) - 1:
                value = parts[i].forward(np.asarray(value) if isinstance(parts[i], Segment) else shielded(value, parts[i]))
        last = parts[-1]
        if isinstance(last, Segment):
            loss, gradient = last.step(np.asarray(value), t, rate)
        else:
            loss = _checks.loss_value(last, last.forward(shielded(value, last), np.array(t)))
            gradient = last.backward()
        for part in reversed(parts[:-1]):
            gradient = part.backward(np.asarray(gradient), rate) if isinstance(part, Segment) else part.backward(gradient)
        self.descent.step(lr)
        self.steps += 1
        return loss

    def _compiled(self, part: _Pending, shape: tuple[int, ...]) -> Segment:
        layers = self.model.layers[part.layers.start:part.layers.stop]
        return Segment(layers, part.layers.start, self.dtype, self.batch_size, shape, MOMENTS_OF[self.optimizer],
                       part.layers.start > 0, self.model.loss if part.with_loss else None)

    def _pending(self) -> list[Any]:
        """Segments and layers of the user's in order, the loss or the segment with it last."""
        layers, loss, parts, at = list(self.model.layers), self.model.loss, [], 0
        with_loss = False
        for run_ in segments(self.model):
            with_loss = why_not_loss(loss) is None and run_.stop == len(layers)
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
