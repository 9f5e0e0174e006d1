"""The choice of an engine for a fit, by an estimate of its arithmetic, memory traffic, memory and time.

The estimate is a model, from the costs that layers state when they lower, and from nominal rates of the kind of CPU. It
measures nothing, so that the same fit uses the same engine, and returns the same bits, every time on a machine.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastnet.base.system import available_memory
from fastnet.kernels.runtime.pool import get_num_threads
from fastnet.kernels.simd import VECTOR_BITS
from fastnet.layer import learned, output_shape
from fastnet.program.builder import Builder, Unsupported
from fastnet.program.runner import MOMENTS_OF, optimizer_of
from fastnet.training.eligibility import unsupported_reason
from fastnet.training.first import window_rows
from fastnet.training.mixed import segments, unsupported_mixed_reason
from fastnet.training.options import COMPILED, NAMES, FitOptions

# Nominal rates of one core; only their ratios matter. float32 operations per second; float64 has half of it.
_FLOPS = {512: 95e9, 256: 80e9, 128: 20e9}[VECTOR_BITS]
_BYTES = 45e9  # a second and core, from the last-level cache
_STEP = 6e-6  # two barriers and the small loops of a step
_CALL = 100e-6  # waking the threads for a product
_LAYER_CALL = 150e-6  # a layer's share of a step run layer by layer
_SURELY_FREE = 1 << 25  # bytes; asking the system for less takes longer than a short fit may
_SEGMENT_CALL = 40e-6  # running a segment's program once, in a network with layers of the user's


@dataclass(frozen=True)
class Estimate:
    """The cost of a fit with one engine."""

    name: str
    setup_flops: float
    epoch_flops: float
    epoch_bytes: float
    memory: float
    seconds: float
    refused: str | None = None  # the reason why the engine cannot be used
    parts: tuple[str, ...] = ()  # the parts of the cost, line by line

    @classmethod
    def no(cls, name: str, why: str) -> Estimate:
        """Return the estimate of an engine that cannot do the job."""
        return cls(name, 0, 0, 0, 0, float("inf"), why)


@dataclass(frozen=True)
class Plan:
    """The engines' estimates and the choice among them."""

    estimates: tuple[Estimate, ...]
    chosen: str
    why: str
    threads: int
    net: Builder | None = field(default=None, repr=False, compare=False)  # the program of the fused engine, if it has one

    def __str__(self) -> str:
        lines = [f"{'engine':8s} {'set-up':>10s} {'an epoch':>10s} {'moved':>10s} {'memory':>10s} {'all epochs':>11s}",
                 f"{'':8s} {'GFLOP':>10s} {'GFLOP':>10s} {'GB/epoch':>10s} {'MB':>10s} {'estimated':>11s}"]
        for e in self.estimates:
            lines.append(f"{e.name:8s} {e.setup_flops / 1e9:10.2f} {e.epoch_flops / 1e9:10.2f} "
                         f"{e.epoch_bytes / 1e9:10.2f} {e.memory / 1e6:10.1f} "
                         + (f"{_seconds(e.seconds):>11s}" if e.refused is None else f"  no: {e.refused}"))
        lines += [f"  {line}" for e in self.estimates if e.name == self.chosen for line in e.parts]
        return "\n".join([*lines, f"-> {self.chosen}: {self.why} ({self.threads} threads)"])


def plan(model: Any, x: np.ndarray, options: FitOptions, *, models: int = 1, mixed: bool = True) -> Plan:
    """Estimate all engines and choose one.

    Parameters
    ----------
    model : Sequential
    x : ndarray, shape (n, ...)
    options : FitOptions
        If its engine is not ``"auto"``, the plan chooses that engine.
    models : int
        The number of models that share data.
    mixed : bool
        Whether the plan may choose the engine of that name.

    Raises
    ------
    ValueError
        If the engine in `options` cannot do this job; the message says why.
    """
    refused = unsupported_reason(model, x.shape[1:], lowered=False)
    layers = _layers(model, x, options)
    net = None
    if not refused:
        try:
            job = _Job.of(model, x, options, models)
            estimates, net = [layers, _fused(job), _gram(job, x, options.resumes(model)), _windows(job)], job.net
        except Unsupported as reason:
            refused = str(reason)
    if refused:
        estimates = [layers, *(Estimate.no(name, refused) for name in COMPILED), _mixed(model, x, options, layers, mixed)]
    possible = [e for e in estimates if e.refused is None]
    best = min(possible, key=lambda e: e.seconds)
    why = "the lowest estimated time" if len(possible) > 1 else f"no other engine supports this: {refused}"
    if best.name == "mixed":
        why = f"only segments of it can be compiled: {refused}"
    if options.engine != "auto":
        named = next((e for e in estimates if e.name == options.engine),
                     Estimate.no(options.engine, "all its layers are fastnet's, so that it has only one segment"))
        if named.refused:
            raise ValueError(f"Sequential.fit: engine={options.engine!r} cannot train this: {named.refused}. "
                             'Use engine="auto", or "layers", which trains anything.')
        best, why = named, "chosen by the argument engine"
    return Plan(tuple(estimates), best.name, why, get_num_threads(), net)


@dataclass(frozen=True)
class _Job:
    """The numbers of a fit. Those of the network come from its layers, see `fastnet.program.builder.Cost`."""

    n: int
    columns: int  # of x
    first: int  # units of a fully connected first layer, 0 if there is none
    operations: float  # of all layers, for a sample
    parameters: float
    parameter_traffic: float
    outputs: float  # elements of all buffers, for a sample
    widest: int
    batch: int
    epochs: int
    itemsize: int
    moments: int  # arrays like the parameters that the optimiser keeps
    optimizer: str
    shuffle: bool
    models: int
    scored: int
    parts: tuple[str, ...]
    net: Builder  # of the network

    @classmethod
    def of(cls, model: Any, x: np.ndarray, options: FitOptions, models: int) -> _Job:
        batch = min(options.batch_size, len(x))
        moments = MOMENTS_OF[optimizer_of(options.optimizer, options.momentum, options.nesterov)]
        net = Builder(model.dtype, batch, moments=moments).lower(list(model.layers), x.shape[1:], model.loss)
        first = net.cost.first
        return cls(len(x), int(np.prod(x.shape[1:])), first, net.cost.operations, net.cost.parameters,
                   net.cost.parameter_traffic, net.cost.outputs, net.cost.widest, batch, options.epochs,
                   np.dtype(model.dtype).itemsize, moments, options.optimizer, options.shuffle, models,
                   0 if options.validation is None else len(options.validation[0]), tuple(net.cost.parts), net)

    @property
    def steps(self) -> int:
        """Number of mini-batches per epoch."""
        return -(-self.n // self.batch)

    @property
    def first_weights(self) -> int:
        """Weights of a fully connected first layer."""
        return self.columns * self.first

    @property
    def rest(self) -> float:
        """Operations of the other layers, for a sample."""
        return self.operations - 4 * self.first_weights

    @property
    def rest_traffic(self) -> float:
        """Parameters of the other layers that a step reads and writes, counted as often as it does."""
        return self.parameter_traffic - 3 * self.first_weights

    @property
    def rest_parameters(self) -> float:
        """Parameters of the other layers, and all biases."""
        return self.parameters - self.first_weights

    @property
    def kept(self) -> float:
        """Elements in memory in addition to the engine's: the final weights, and the last batch's results in the layers.

        These are the final W, the one before the last step, and W_grad when it is read; with momentum the velocity and the
        sum of both; inputs, outputs and their gradients.
        """
        return (3 + 2 * self.moments) * self.parameters + 2 * self.batch * (self.columns + self.outputs)

    @property
    def buffers(self) -> float:
        """Elements of the buffers for one batch, but for the source's rows, and of the outputs of validation data."""
        return self.batch * self.outputs + 2 * self.scored * self.widest

    def seconds(self, flops: float, moved: float, steps: int) -> float:
        cores = get_num_threads()
        rate = _FLOPS * (4 / self.itemsize) * cores
        # a step of few rows leaves multipliers idle: there its time is that of the bytes
        return flops / rate + moved / (_BYTES * cores) + steps * _STEP


def _fused(j: _Job) -> Estimate:
    flops = j.n * j.operations
    velocities = 3 * j.moments * (j.first_weights or j.parameters)
    moved = j.itemsize * (j.steps * (j.parameter_traffic + velocities) + 2 * j.n * j.columns)
    state = 2 * (1 + j.moments) * j.parameters + 2 * j.rest_parameters  # twice: also that of the previous epoch
    memory = j.itemsize * (state + j.kept + j.buffers + j.batch * j.columns)
    return Estimate("fused", 0, flops, moved, memory, j.epochs * j.seconds(flops, moved, j.steps), parts=j.parts)


def _no_row_space(j: _Job) -> str | None:
    if not j.first:
        return "its first layer is not fully connected"
    return None if j.optimizer == "sgd" else f"{NAMES[j.optimizer]} changes weights by more than combinations of samples"


def _gram(j: _Job, x: np.ndarray, resumes: bool) -> Estimate:
    why = _no_row_space(j)
    if isinstance(x, np.memmap):
        why = why or "x is memory-mapped, and this engine wants all of it at once"
    elif resumes and j.moments:
        why = why or "its velocity starts from 0, and here one goes on from an earlier call"
    if why:
        return Estimate.no("gram", why)
    n, d, h = j.n, j.columns, j.first
    shared = n * n * d + 2 * n * d * h  # X X.T, of which only half is computed, and X W_0.T
    setup = shared / j.models + 2 * n * d * h
    flops = n * (2 * n * h + j.rest)
    moved = j.itemsize * (j.steps * (n * h * (5 if j.moments else 1) + j.rest_traffic) + n * n * (3 if j.shuffle else 1))
    first = 1.0 if j.shuffle else 0.5  # in the first epoch half of D is still 0
    seconds = (j.seconds(setup, 0, 0) + j.seconds(first * flops, first * moved, j.steps)
               + (j.epochs - 1) * j.seconds(flops, moved, j.steps))
    state = 2 * (1 + j.moments) * (n * h + j.rest_parameters) + 2 * j.rest_parameters
    memory = j.itemsize * (n * n + 2 * n * h + state + j.kept + j.buffers + j.batch * n + j.scored * (n + h))
    refused = None
    if memory > _SURELY_FREE and memory > available_memory() / 2:
        refused = f"it needs {memory / 1e9:.1f} GB, more than half of what is free"
    return Estimate("gram", setup, flops, moved, memory, seconds, refused)


def _windows(j: _Job) -> Estimate:
    why = _no_row_space(j)
    if why:
        return Estimate.no("windows", why)
    w, d, h = min(window_rows(j.batch), j.n), j.columns, j.first
    products = 2 + 2 * j.moments  # with W, before a window and after it; the same with V
    flops = j.n * (2 * products * j.first_weights + w * d + w * h + j.rest)  # half of X X.T; half of D is still 0
    moved = j.itemsize * (-(-j.n // w) * 3 * products * j.first_weights + j.steps * (w * h // 2 + j.rest_traffic))
    state = (1 + j.moments) * (2 * j.first_weights + 4 * j.rest_parameters + w * h) + 2 * j.rest_parameters
    memory = j.itemsize * (state + j.kept + j.buffers + w * (w + 2 * d + (1 + j.moments) * h))
    slow = 1.2 * flops + j.n * w * d  # products of so few rows pack W for each window; X X.T runs at half the speed
    seconds = j.epochs * (j.seconds(slow, moved, j.steps) + -(-j.n // w) * products * _CALL)
    return Estimate("windows", 0, flops, moved, memory, seconds)


def _mixed(model: Any, x: np.ndarray, options: FitOptions, layers: Estimate, allowed: bool) -> Estimate:
    why = unsupported_mixed_reason(model) if allowed else "a sweep's trials do not share a user's layers"
    if why:
        return Estimate.no("mixed", why)
    parts = segments(model)
    own = len(model.layers) - sum(map(len, parts))
    steps = options.epochs * -(-len(x) // min(options.batch_size, len(x)))
    calls = steps * (2 * len(parts) * _SEGMENT_CALL + own * _LAYER_CALL)
    work = layers.seconds - steps * _LAYER_CALL * len(model.layers)
    memory = 2 * layers.memory  # the arenas, and what the layers hold
    return Estimate("mixed", 0, layers.epoch_flops, layers.epoch_bytes, memory, work + calls)


def _layers(model: Any, x: np.ndarray, options: FitOptions) -> Estimate:
    sizes = [getattr(layer, name).size for layer in model.layers for name in learned(layer)]
    weights = sum(sizes)
    itemsize = np.dtype(model.dtype or np.float64).itemsize
    batch = min(options.batch_size, len(x))
    steps = -(-len(x) // batch)
    products, values = _of_samples(model, x.shape[1:])
    flops, moved = 6.0 * len(x) * products, (7.0 * steps * weights + 4.0 * len(x) * values) * itemsize
    cores = get_num_threads()
    seconds = options.epochs * (flops / (_FLOPS * 4 / itemsize * cores * 0.6) + moved / (_BYTES * cores)
                                + steps * _LAYER_CALL * len(model.layers))
    # the previous epoch's and the current W, W_grad; for one layer at a time, a new one of each
    moments = MOMENTS_OF[optimizer_of(options.optimizer, options.momentum, options.nesterov)]
    memory = itemsize * ((3 + 2 * moments) * weights + 2 * max(sizes, default=0)
                         + (2 + options.shuffle) * batch * x[:1].size + 4 * batch * values)
    return Estimate("layers", 0, flops, moved, memory, seconds)


def _of_samples(model: Any, shape: tuple[int, ...]) -> tuple[float, float]:
    """Return multiply-adds of a forward pass and elements of all values, for a sample, as far as layers state them."""
    products = values = 0.0
    known: Any = shape
    for layer in model.layers:
        known = output_shape(layer, known)
        if known is None or None in known:
            known = None
        else:
            values += float(np.prod(known))
        if hasattr(layer, "multiply_adds") and (known is not None or not getattr(layer, "needs_images", False)):
            products += layer.multiply_adds(known or ())
    return products, values


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.1f} ms"
