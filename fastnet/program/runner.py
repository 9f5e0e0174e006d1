"""A program with all that it needs to run: its memory, its commands, its threads."""
from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.kernels.gemm.sparse import sparse_kernel
from fastnet.kernels.program import interpreter
from fastnet.kernels.program.gram import Gram
from fastnet.kernels.program.ops import bias_corrected
from fastnet.kernels.records import ADAM, JOB, MOMENTUM, NESTEROV, RMSPROP, SCALES, SGD, Data, Hyperparameters
from fastnet.kernels.runtime.pool import run_at
from fastnet.program.builder import Builder, Value
from fastnet.program.memory import DATA, LOSSES, MOMENTS, STATE, WORK
from fastnet.program.schedule import assemble

SMALL_STEP = 1 << 18  # multiply-adds a step below which a second thread costs more than it gains
# Arrays like the parameters that an optimiser has: the velocity, or the gradient and what it keeps
MOMENTS_OF = {SGD: 0, MOMENTUM: 1, ADAM: 3, NESTEROV: 2, RMSPROP: 2}
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # of Adam (Kingma & Ba 2015)
ALPHA = 0.99  # of RMSprop (Tieleman & Hinton 2012; this value is PyTorch's)

Moments = dict[tuple[int, str], tuple[np.ndarray, ...]]  # by the layer's number and the parameter's name


class CompiledProgram:
    """Runs the ops of a network, or of some neighbouring layers of one, on a copy of their parameters.

    Parameters
    ----------
    net : Builder
        Whose ``lower`` has been called.
    state : ndarray, optional
        The parameters of another program of the same layers, to be shared with it. By default those of the layers.
    """

    def __init__(self, net: Builder, state: np.ndarray | None = None) -> None:
        self.net, self.dtype, self.layers = net, net.dtype, net.layers
        self.rows_of_batch = net.rows
        sizes = net.sizes
        self.arenas = {STATE: _zeros(sizes[STATE], self.dtype) if state is None else state,
                       MOMENTS: _zeros(net.moments * sizes[STATE], self.dtype),
                       WORK: _zeros(sizes[WORK] + net.lanes, self.dtype),  # vectors may be read beyond the last row
                       LOSSES: np.zeros(sizes[LOSSES])}
        self.arenas[WORK][net.one.region.start] = 1
        self.bases = {DATA: 0, **{name: address(array) for name, array in self.arenas.items()}}
        self._commands: dict[Any, np.ndarray] = {}
        if state is None:
            self.read()

    @property
    def threads(self) -> int | None:
        """How many threads a step on a whole batch is worth; None for all."""
        return self.threads_for(self.rows_of_batch)

    @property
    def work(self) -> int:
        """About how many multiply-adds a step takes for each sample."""
        return 3 * int(self.net.cost.products)

    def threads_for(self, rows: int) -> int | None:
        """How many threads a step on so many rows is worth; None for all."""
        return 1 if rows * self.net.cost.products < SMALL_STEP else self.net.threads

    def commands(self, **parts: Any) -> np.ndarray:
        """The ops that `Builder.ops` gives for these arguments, ready to run."""
        chosen = tuple(parts.items())
        if chosen not in self._commands:
            self._commands[chosen] = assemble(self.net.ops(**parts), self.bases, self.dtype)
        return self._commands[chosen]

    def run(self, commands: np.ndarray, data: Data, hyper: Hyperparameters, losses: np.ndarray, *, first: int = 0,
            last: int | None = None, gram: Gram | None = None) -> None:
        """Run commands for rows first:last of the data, a batch at a time; `losses` gets a number for each batch."""
        last = len(data.order) if last is None else last
        job = new_job(commands, self.dtype, data, hyper)
        job["batch_size"], job["start"], job["stop"], job["losses"] = self.rows_of_batch, first, last, address(losses)
        if gram is not None:
            for name, array in (("a0", gram.a0), ("av", gram.av), ("d", gram.d), ("bits", gram.bits), ("e", gram.e)):
                job[name] = address(array) if array.size else 0
            job["a0_row"], job["av_row"] = gram.a0.shape[1], gram.av.shape[1]
            job["d_rows"], job["visited"] = gram.d.shape[1], gram.visited
            for name, value in zip(SCALES, gram.scales, strict=True):
                job[name] = value
        sparse_kernel.expect(self.dtype, (last - first) * self.work)
        run_at(interpreter.steps.address(), job.ctypes.data, self.threads_for(min(self.rows_of_batch, last - first)))
        if gram is not None:
            gram.scales[:] = [job[name] for name in SCALES]

    def values(self, value: Value, n: int) -> np.ndarray:
        """The first n rows of a value, as they lie."""
        at = value.region.start
        return self.arenas[WORK][at:at + n * value.row].reshape(n, value.row)[:, :value.columns]

    # --- parameters -------------------------------------------------------------------------------------------------

    def read(self) -> None:
        """Take the parameters from the layers."""
        for parameter in self.net.parameters:
            parameter.put(self.arenas[STATE], getattr(self.layers[parameter.layer], parameter.name))
        self._make_copies()

    def write(self) -> None:
        """Put the parameters into the layers, as new arrays."""
        for parameter in self.net.parameters:
            setattr(self.layers[parameter.layer], parameter.name, parameter.get(self.arenas[STATE]))

    def save(self) -> tuple[np.ndarray, np.ndarray]:
        """What `restore` needs to go back to this state."""
        return self.arenas[STATE].copy(), self.arenas[MOMENTS].copy()

    def restore(self, saved: tuple[np.ndarray, np.ndarray]) -> None:
        """Go back to the state that was saved."""
        self.arenas[STATE][:], self.arenas[MOMENTS][:] = saved
        self._make_copies()

    def moments(self) -> Moments:
        """What the optimiser keeps of each parameter: a velocity, RMSprop's v, or Adam's m and v."""
        if not self.net.moments:
            return {}
        return {(p.layer, p.name): tuple(p.get(flat) for flat in self._kept()) for p in self.net.parameters if p.learned}

    def put_moments(self, moments: Moments) -> None:
        """Let the optimiser go on from what `moments` gave; from 0 where that says nothing."""
        if self.net.moments:
            for parameter in self.net.parameters:
                for flat, kept in zip(self._kept(), moments.get((parameter.layer, parameter.name), ()), strict=False):
                    parameter.put(flat, kept)

    def _kept(self) -> list[np.ndarray]:
        """Where the optimiser's arrays start; those of all but plain momentum lie behind the gradient."""
        size, arena = self.net.sizes[STATE], self.arenas[MOMENTS]
        return [arena[i * size:] for i in range(int(self.net.moments > 1), self.net.moments)]

    def hyperparameters(self, lr: float = 0.0, momentum: float = 0.0, weight_decay: float = 0.0, optimizer: int = SGD,
                        steps: int = 0) -> Hyperparameters:
        """The record that kernels take, numbers of the network's dtype."""
        number = self.dtype.type
        return Hyperparameters(number(lr), number(momentum), number(weight_decay), optimizer, self.net.sizes[STATE], steps,
                               number(BETA_1), number(ALPHA if optimizer == RMSPROP else BETA_2), number(EPSILON))

    def _make_copies(self) -> None:
        for parameter in self.net.parameters:
            parameter.put_copies(self.arenas[STATE], self.arenas[WORK])


def optimizer_of(name: str, momentum: float, nesterov: bool = False) -> int:
    """The kernels' number of an optimiser."""
    if name != "sgd":
        return {"adam": ADAM, "rmsprop": RMSPROP}[name]
    return (NESTEROV if nesterov else MOMENTUM) if momentum else SGD


def new_job(commands: np.ndarray, dtype: np.dtype, data: Data, hyper: Hyperparameters) -> np.ndarray:
    """The record that `interpreter.steps` takes, but for the rows and where to write the losses.

    It holds addresses: who runs it keeps the arrays.
    """
    job = np.zeros((), JOB)
    job["ops"], job["count"], job["double"] = address(commands), len(commands), dtype.itemsize == 8
    job["source"], job["source_row"], job["gathered"] = data.source, data.source_row, data.gathered
    job["targets"], job["targets_row"] = address(data.targets), data.targets.shape[1]
    job["order"], job["rows"], job["rows_row"] = address(data.order), data.rows, data.rows_row
    for name in Hyperparameters._fields:
        job[name] = getattr(hyper, name)
    if hyper.optimizer == ADAM:
        job["correct"] = bias_corrected.address()
    return job


def address(array: np.ndarray) -> int:
    """Address of an array's first element."""
    return array.__array_interface__["data"][0]


def _zeros(size: int, dtype: np.dtype) -> np.ndarray:
    """Zeros that start on a cache line's boundary."""
    extra = 64 // dtype.itemsize
    flat = np.zeros(size + extra, dtype)
    skip = -(address(flat) // dtype.itemsize) % extra
    return flat[skip:skip + size]
