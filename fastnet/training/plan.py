"""Chooses how a fit runs: what each engine would compute, move and keep in memory, and so how long it would take.

The estimate is a model, made of the network's sizes and of nominal rates of the kind of CPU. Nothing is measured, so that
the same fit chooses the same engine, and gives the same bits, every time on a machine.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fastnet._system import available_memory
from fastnet.kernels.simd import VECTOR_BITS
from fastnet.kernels.threads import get_num_threads
from fastnet.training.eligibility import why_not_compiled
from fastnet.training.engine import WAYS, Engine
from fastnet.training.first import window_rows
from fastnet.training.layerwise import Layerwise

# Nominal rates of one core; only their ratios matter. float32 operations a second, half of it for float64.
_FLOPS = {512: 95e9, 256: 55e9, 128: 20e9}[VECTOR_BITS]
_BYTES = 45e9  # a second and core, from the last-level cache
_STEP = 6e-6  # two barriers and the small loops of a step
_CALL = 100e-6  # waking the threads for a product
_LAYER_CALL = 150e-6  # a layer's share of a step run layer by layer


@dataclass(frozen=True)
class Estimate:
    """What one engine would take for a fit."""

    name: str
    setup_flops: float
    epoch_flops: float
    epoch_bytes: float
    memory: float
    seconds: float
    refused: str | None = None  # why it can't be used


@dataclass(frozen=True)
class Plan:
    """The engines' estimates and the choice among them."""

    estimates: tuple[Estimate, ...]
    chosen: str
    why: str
    threads: int

    def __str__(self) -> str:
        lines = [f"{'engine':8s} {'set-up':>10s} {'an epoch':>10s} {'moved':>10s} {'memory':>10s} {'all epochs':>11s}",
                 f"{'':8s} {'GFLOP':>10s} {'GFLOP':>10s} {'GB/epoch':>10s} {'MB':>10s} {'estimated':>11s}"]
        for e in self.estimates:
            lines.append(f"{e.name:8s} {e.setup_flops / 1e9:10.2f} {e.epoch_flops / 1e9:10.2f} "
                         f"{e.epoch_bytes / 1e9:10.2f} {e.memory / 1e6:10.1f} "
                         + (f"{_seconds(e.seconds):>11s}" if e.refused is None else f"  no: {e.refused}"))
        return "\n".join([*lines, f"-> {self.chosen}: {self.why} ({self.threads} threads)"])


ENGINES: dict[str, Callable[..., Any]] = {"layers": Layerwise, **{way: partial(Engine, way=way) for way in WAYS}}


def plan(model: Any, x: np.ndarray, epochs: int, batch_size: int, *, engine: str = "auto", shuffle: bool = False,
         momentum: float = 0.0, decay: float = 0.0, models: int = 1, scored: int = 0) -> Plan:
    """Estimate all engines and choose one.

    Parameters
    ----------
    model : Sequential
    x : ndarray, shape (n, n_i)
    epochs, batch_size : int
    engine : str
        ``"auto"`` for the fastest, or a name, which then decides.
    shuffle, momentum, decay
        As in ``fit``.
    models : int
        How many models share what can be shared.
    scored : int
        Rows of validation data.

    Raises
    ------
    ValueError
        If the engine that was named cannot do this job; the message says why.
    """
    batch_size = min(batch_size, len(x))
    refused = why_not_compiled(model) or (None if x.ndim == 2 else "x has more than two dimensions")
    estimates = [_layers(model, x, epochs, batch_size, bool(momentum))]
    if refused:
        estimates += [Estimate(name, 0, 0, 0, 0, float("inf"), refused) for name in list(ENGINES)[1:]]
    else:
        widths = [model.layers[0].n_i, *(layer.n_o for layer in model.layers if hasattr(layer, "n_o"))]
        sizes = _Sizes(len(x), widths, batch_size, epochs, np.dtype(model.dtype).itemsize, bool(momentum), bool(decay),
                       shuffle, models, scored)
        estimates += [_fused(sizes), _gram(sizes, x), _windows(sizes)]
    possible = [e for e in estimates if e.refused is None]
    best = min(possible, key=lambda e: e.seconds)
    why = f"nothing else trains this: {refused}" if refused else "the least estimated time"
    if engine != "auto":
        named = next(e for e in estimates if e.name == engine)
        if named.refused:
            raise ValueError(f"Sequential.fit: engine={engine!r} cannot train this: {named.refused}. "
                             'Use engine="auto", or "layers", which trains anything.')
        best, why = named, "asked for"
    return Plan(tuple(estimates), best.name, why, get_num_threads())


@dataclass(frozen=True)
class _Sizes:
    n: int
    widths: list[int]
    batch: int
    epochs: int
    itemsize: int
    momentum: bool
    decay: bool
    shuffle: bool
    models: int
    scored: int

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return -(-self.n // self.batch)

    @property
    def first(self) -> int:
        """Weights of the first layer."""
        return self.widths[0] * self.widths[1]

    @property
    def rest(self) -> int:
        """Weights of the other layers."""
        return sum(a * b for a, b in zip(self.widths[1:], self.widths[2:]))

    @property
    def kept(self) -> int:
        """Numbers in memory beside the engine's: the weights written out, and what the last batch leaves in the layers.

        That is W, W_grad and the W it makes; with momentum the velocity and the sum of both; inputs, outputs and their
        gradients.
        """
        weights = self.first + self.rest
        return (3 + 2 * self.momentum) * weights + 2 * self.batch * (self.widths[0] + 2 * sum(self.widths[1:]))

    @property
    def buffers(self) -> int:
        """Numbers in the buffers for one batch, but for the source's rows, and in the outputs of validation data."""
        return 2 * self.batch * sum(self.widths[1:]) + 2 * self.scored * max(self.widths[1:])

    def seconds(self, flops: float, moved: float, steps: int) -> float:
        cores = get_num_threads()
        rate = _FLOPS * (4 / self.itemsize) * cores
        # a step of few rows leaves multipliers idle: there its time is that of the bytes
        return flops / rate + moved / (_BYTES * cores) + steps * _STEP


def _fused(s: _Sizes) -> Estimate:
    flops = s.n * (4 * s.first + 6 * s.rest)
    moved = s.itemsize * (s.steps * (3 * s.first + 6 * s.rest + (3 * s.first if s.momentum else 0))
                          + 2 * s.n * s.widths[0])
    state = 2 * (1 + s.momentum) * (s.first + s.rest) + 2 * s.rest  # twice: as it was an epoch ago, too
    memory = s.itemsize * (state + s.kept + s.buffers + s.batch * s.widths[0])
    return Estimate("fused", 0, flops, moved, memory, s.epochs * s.seconds(flops, moved, s.steps))


def _gram(s: _Sizes, x: np.ndarray) -> Estimate:
    n, d, h = s.n, s.widths[0], s.widths[1]
    shared = n * n * d + 2 * n * d * h  # X X.T, of which only half is computed, and X W_0.T
    setup = shared / s.models + 2 * n * d * h
    flops = n * (2 * n * h + 6 * s.rest)
    moved = s.itemsize * (s.steps * (n * h * (5 if s.momentum else 1) + 6 * s.rest) + n * n * (3 if s.shuffle else 1))
    first = 1.0 if s.shuffle else 0.5  # in the first epoch half of D is still 0
    seconds = (s.seconds(setup, 0, 0) + s.seconds(first * flops, first * moved, s.steps)
               + (s.epochs - 1) * s.seconds(flops, moved, s.steps))
    state = 2 * (1 + s.momentum) * (n * h + s.rest) + 2 * s.rest
    memory = s.itemsize * (n * n + 2 * n * h + state + s.kept + s.buffers + s.batch * n + s.scored * (n + h))
    refused = None
    if isinstance(x, np.memmap):
        refused = "x is memory-mapped, and this engine wants all of it at once"
    elif memory > available_memory() / 2:
        refused = f"it needs {memory / 1e9:.1f} GB, more than half of what is free"
    return Estimate("gram", setup, flops, moved, memory, seconds, refused)


def _windows(s: _Sizes) -> Estimate:
    w, d, h = min(window_rows(s.batch), s.n), s.widths[0], s.widths[1]
    products = 2 + 2 * s.momentum  # with W, before a window and after it; the same with V
    flops = s.n * (2 * products * s.first + w * d + w * h + 6 * s.rest)  # half of X X.T; half of D is still 0
    moved = s.itemsize * (-(-s.n // w) * 3 * products * s.first + s.steps * (w * h // 2 + 6 * s.rest))
    state = (1 + s.momentum) * (2 * s.first + 4 * s.rest + w * h) + 2 * s.rest
    memory = s.itemsize * (state + s.kept + s.buffers + w * (w + 2 * d + (1 + s.momentum) * h))
    slow = 1.2 * flops + s.n * w * d  # products of so few rows pack W for each window; X X.T runs at half the speed
    seconds = s.epochs * (s.seconds(slow, moved, s.steps) + -(-s.n // w) * products * _CALL)
    return Estimate("windows", 0, flops, moved, memory, seconds)


def _layers(model: Any, x: np.ndarray, epochs: int, batch_size: int, momentum: bool) -> Estimate:
    sizes = [(layer.n_i, layer.n_o) for layer in model.layers if hasattr(layer, "n_i") and hasattr(layer, "n_o")]
    weights = sum(n_i * n_o for n_i, n_o in sizes)
    itemsize = np.dtype(model.dtype or np.float64).itemsize
    steps = -(-len(x) // batch_size)
    flops, moved = 6.0 * len(x) * weights, 7.0 * steps * weights * itemsize
    cores = get_num_threads()
    seconds = epochs * (flops / (_FLOPS * 4 / itemsize * cores * 0.6) + moved / (_BYTES * cores)
                        + steps * _LAYER_CALL * len(model.layers))
    # W of an epoch ago and of now, W_grad; for one layer at a time, a new one of each
    memory = itemsize * ((3 + 2 * momentum) * weights + 2 * max((n_i * n_o for n_i, n_o in sizes), default=0)
                         + 2 * batch_size * (x[:1].size + 2 * sum(n_o for _, n_o in sizes)))
    return Estimate("layers", 0, flops, moved, memory, seconds)


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.1f} ms"
