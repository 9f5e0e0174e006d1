"""Layers state their passes, and a builder makes ops of them: from a network to the program that trains it.

Each of fastnet's layers has a method ``lower(net, x)``. It gets a `Builder` and the `Value` of its input, asks for a value
for its output and for its parameters, adds the ops of its forward pass, registers a function that adds those of the backward
pass, and returns the value of its output. The loss does the same last and returns the gradient of its input. ::

    def lower(self, net, x):                                   # of a layer y = f(x) without parameters
        y = net.like(x)
        net.forward(CALL, reads={x: ROWS}, writes={y: ROWS}, kernel=TANH.forward_op, c=y.mat, a=x.mat, n=x.columns)

        def backward(dy):                                      # the gradient of y, from which that of x is made
            dx = dy.overwritten()                              # the op changes it in place
            net.backward(CALL, reads={y: ROWS, dy: ROWS}, writes={dx: ROWS}, kernel=TANH.backward_op, c=dx.mat, a=y.mat,
                         n=x.columns)
            return dx

        net.on_backward(backward)
        return y

A layer that leaves a part of its work to its successor returns a value that only such a successor takes: its `kind` has to
be among the successor's ``takes``. Any other successor is given `Value.as_rows`, which does that work. So nothing is left
undone on trust. What the builder has made is verified before it runs, see `fastnet.program.schedule`.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fastnet.kernels.gemm import vector_lanes
from fastnet.kernels.records import CALL, GATHER, MEAN_LOSS, SAMPLES, TEAM, UPDATE_BIAS
from fastnet.kernels.runtime.pool import get_num_threads
from fastnet.kernels.simd import MR
from fastnet.program.memory import DATA, LOSSES, MOMENTS, STATE, WORK, Matrix, Parameter, Ref, Region, Value
from fastnet.program.schedule import (
    ALL,
    COLUMNS,
    INPUTS,
    ONE,
    ROWS,
    Op,
    key,
    lay_out,
    place_barriers,
    share_memory,
    verify,
    verify_blocks,
)

__all__ = ["ALL", "COLUMNS", "INPUTS", "ONE", "ROWS", "Builder", "Cost", "Op", "Unsupported", "Value", "spread"]

ROWS_ONLY = frozenset({"rows"})


class Unsupported(Exception):
    """A network has no compiled form; the message says why, for ``model.explain``."""


@dataclass
class Cost:
    """What a step of training takes, for the plan."""

    first: int = 0  # outputs of a fully connected first layer, which may be trained in Gram space
    operations: float = 0.0  # for a sample; a multiply-add counts two
    products: float = 0.0  # multiply-adds of the forward pass, for a sample
    parameters: float = 0.0  # elements
    outputs: float = 0.0  # elements of all values, for a sample
    widest: int = 0  # elements of the largest of them, for a sample
    parameter_traffic: float = 0.0  # elements read and written in a step, whatever the batch size
    parts: list[str] = field(default_factory=list)  # of networks of images: what is computed together, in words

    def add(self, **amounts: float) -> None:
        """Add to some of the amounts."""
        for name, amount in amounts.items():
            setattr(self, name, getattr(self, name) + amount)


class Builder:
    """Builds the program of a network, or of some neighbouring layers of one.

    Parameters
    ----------
    dtype : dtype
        float32 or float64.
    rows : int
        Samples that the values hold: the batch size.
    moments : int
        Arrays like the parameters that the optimiser has: 0, 1 (momentum), 2 (Nesterov, RMSprop) or 3 (Adam).
    forward_only : bool
        For predictions: no backward pass, no updates.
    input_gradient : bool
        Whether somebody needs the gradient of the input.
    first : object, optional
        Trains a fully connected first layer in its own way, see ``fastnet/training/first.py``.
    """

    def __init__(self, dtype: np.dtype, rows: int, *, moments: int = 0, forward_only: bool = False,
                 input_gradient: bool = False, first: Any = None) -> None:
        self.dtype, self.rows, self.moments = np.dtype(dtype), rows, moments
        self.forward_only, self.input_gradient, self.first = forward_only, input_gradient, first
        self.lanes = vector_lanes(self.dtype)
        self._sizes: dict[str, int] | None = None  # of the arenas, once the program is laid out
        self.parameters: list[Parameter] = []
        self.regions: list[Region] = []
        self.one = self.reserve(WORK, self.lanes, lives=True)  # its first element is 1, for column sums
        self.layers: list[Any] = []
        self.loss: Any = None
        self._last = 0  # the last layer whose output is not laid out as its input: it is handed out as it lies
        self.cost = Cost()
        self.threads: int | None = None  # at most so many may run the program; None for any number
        self.samples_of_block: int | None = None  # of images, once a layer has asked for it
        self.block: tuple[int, int] | None = None  # images of the whole mini-batch: samples of a block, blocks of a group
        self.fused: set[int] = set()  # numbers of layers that are done in the ops of a layer before them
        self.layer = 0  # number of the layer that is lowered now
        self.input: Value | None = None
        self.output: Value | None = None  # the output of the last layer; kept if there is no loss behind it
        self.gradient: Value | None = None  # of the output, where it comes from outside
        self.of_input: Value | None = None  # the gradient of the input, if it is needed
        self._forward: list[Op] = []
        self._backward: list[Op] = []
        self._updates: list[Op] = []
        self._tape: list[Callable[[Any], Value | None]] = []
        self._shared: dict[Region, Region] = {}

    # --- what layers ask for --------------------------------------------------------------------------------------------

    def value(self, columns: int, shape: tuple[int, ...] | None = None) -> Value:
        """Rows of so many values, a little apart, so that they do not share sets of the L1 cache.

        `shape` says what a row means, an image for instance; by default it is (columns,).
        """
        row = columns if self.layer >= self._last else spread(columns, self.lanes, self.dtype.itemsize)
        return self._rows(columns, row, shape or (columns,))

    def like(self, x: Value) -> Value:
        """Rows laid out as those of another value: an output of the same shape, or a gradient."""
        return self._rows(x.columns, x.row, x.shape)

    def _rows(self, columns: int, row: int, shape: tuple[int, ...]) -> Value:
        self.cost.outputs += columns
        self.cost.widest = max(self.cost.widest, columns)
        ref = self.reserve(WORK, -(-self.rows * row // self.lanes) * self.lanes)
        return Value(ref.region, 0, columns, row, self.lanes, shape)

    def losses(self) -> Ref:
        """Each row's loss (float64); their mean becomes the mini-batch's."""
        ref = self.reserve(LOSSES, self.rows)
        self.update(MEAN_LOSS, split=TEAM, reads={ref: ONE}, aux=ref, rank=-1)
        return ref

    def reserve(self, arena: str, size: int, **of_region: Any) -> Ref:
        """A region of so many elements."""
        assert self._sizes is None, "the program has been laid out"
        region = Region(arena, size, **of_region)
        self.regions.append(region)
        return Ref(region)

    def parameter(self, name: str, shape: tuple[int, ...], *, vector: bool = False, packing: Any = None) -> Parameter:
        """A parameter of the layer that is lowered now."""
        parameter = Parameter(self.layer, name, shape, self.lanes, vector, packing)
        self.regions.append(parameter.region)
        self.parameters.append(parameter)
        self.cost.parameters += float(np.prod(shape))
        return parameter

    def state(self, name: str, shape: tuple[int, ...] = (1, 1), *, counts: bool = False) -> Parameter:
        """What training changes in the layer besides parameters: a row of numbers, or one whole number.

        A program of the forward pass alone asks for it, too, as both share the arena.
        """
        parameter = Parameter(self.layer, name, shape, self.lanes, vector=True, learned=False, counts=counts)
        self.regions.append(parameter.region)
        self.parameters.append(parameter)
        return parameter

    def copy_for_backward(self, W: Parameter, size: int) -> Ref:
        """A copy of a parameter in the layout that the backward pass reads; the op that updates it makes the copy anew."""
        copy = self.reserve(WORK, size, lives=True)
        W.copies.append(copy)
        return copy

    def moments_of(self, parameter: Parameter) -> dict[str, Ref]:
        """The operand ``aux`` of an update: where the optimiser keeps a velocity or gradient. Empty without one."""
        if not self.moments:
            return {}
        return {"aux": self.reserve(MOMENTS, parameter.size, lives=True, mirrors=parameter.region).overwritten()}

    def forward(self, kind: int, **op: Any) -> Op:
        """Add an op to the forward pass; returns it, for a following layer that is fused with it (ReLU)."""
        return self._add(self._forward, kind, op)

    def backward(self, kind: int, **op: Any) -> Op:
        """Add an op to the backward pass."""
        return self._add(self._backward, kind, op)

    def update(self, kind: int, **op: Any) -> Op:
        """Add an op that changes parameters. Those of the first layer run last but for biases."""
        return self._add(self._updates, kind, op)

    def update_bias(self, b: Parameter, dy: Value) -> None:
        """Add the op that updates a bias from the gradient of what it was added to (3.10)."""
        kept = self.moments_of(b)
        self.update(UPDATE_BIAS, split=TEAM, reads={dy: COLUMNS, self.one: ALL},
                    writes={b.next: COLUMNS} | dict.fromkeys(kept.values(), COLUMNS),
                    c=Matrix(b.next, 0), a=Matrix(self.one, 0, 0), b=dy.mat, n=b.shape[1], rank=2, **kept)

    def on_backward(self, function: Callable[[Any], Value | None]) -> None:
        """Have a function add the backward pass of the layer: from the gradient of its output to that of its input.

        It returns None if nobody needs that, as of the data.
        """
        self._tape.append(function)

    def needs_gradient(self, x: Value) -> bool:
        """Whether the gradient of this input of the layer is needed."""
        return not self.is_input(x) or self.input_gradient

    def is_input(self, x: Value) -> bool:
        """Whether these are the data."""
        return self.input is not None and x.region is self.input.region

    def shares_evenly(self, columns: int) -> bool:
        """Whether threads get about as much to do of so many columns, in whole vectors, as of the samples, in tiles.

        Both give the same bits, so the number of threads may decide.
        """
        def excess(units: int) -> float:
            return -(-units // threads) * threads / units

        threads = get_num_threads()
        return excess(-(-columns // self.lanes)) < 1.03 * excess(-(-self.rows // MR))

    def writer_of(self, x: Value, *kinds: Any) -> Op | None:
        """The last op of the forward pass, if it wrote `x` and is of one of these kinds or runs one of these kernels."""
        last = self._forward[-1] if self._forward else None
        if last is None or all(key(ref) != key(x) for ref in last.writes):
            return None
        return last if (last.record.get("kernel") if last.kind == CALL else last.kind) in kinds else None

    # --- the program --------------------------------------------------------------------------------------------------

    def lower(self, layers: list[Any], shape: tuple[int, ...], loss: Any = None) -> Builder:
        """Add the ops of all layers, for samples of this shape, then those of the loss and of the backward pass.

        Without a loss, `output` is kept for whoever runs the program, and the backward pass starts from `gradient`, which he
        writes.
        """
        columns = int(np.prod(shape))
        x: Value = Value(Region(DATA, 0, lives=True), 0, columns, columns, self.lanes, shape)
        self.input, self.layers, self.loss = x, layers, loss
        gradient: Value | None
        self._last = max((i for i, layer in enumerate(layers) if not getattr(layer, "keeps_layout", False)), default=0)
        for self.layer, layer in enumerate(layers):
            lower = getattr(layer, "lower", None)
            if lower is None:
                raise Unsupported(f"layers[{self.layer}]: {type(layer).__name__} has no compiled form")
            x = lower(self, self._taken(layer, x))
        if self.forward_only:
            self.output = x.as_rows(self)
            self._tape.clear()
            return self
        if loss is None:
            self.output = x.as_rows(self)
            self.gradient = gradient = self.like(self.output)
        else:
            x = self._taken(loss, x)
            if len(x.shape) != 1:
                raise Unsupported(f"the loss takes rows of values, and is given samples of shape {x.shape}")
            gradient = loss.lower(self, x)
        while self._tape:  # which refers to the layers: nothing of it stays
            assert gradient is not None
            gradient = self._tape.pop()(gradient)
        self.of_input = gradient
        return self

    def _taken(self, layer: Any, x: Value) -> Value:
        """The value as a layer takes it."""
        return x if x.kind in getattr(layer, "takes", ROWS_ONLY) else x.as_rows(self)

    def ops(self, *, forward: bool = True, backward: bool = True, gathered: bool = False,
            source_columns: int = 0) -> list[Op]:
        """All ops in order, verified and with barriers, or those of the forward pass (with the loss), or the others, alone.

        With `gathered`, each batch's rows are copied from the source first.
        """
        assert self.input is not None
        self.sizes  # noqa: B018 - lays the program out, and so decides which memory is shared
        first = [Op(GATHER, TEAM, writes={self.input: ROWS}, record={"k": source_columns, "a": self.input.mat})]
        ops = [*first * gathered, *self._parts(forward, backward)]
        ops = [replace(op) for op in ops]
        place_barriers(ops, self._shared)
        verify_blocks(ops)
        return ops

    @property
    def sizes(self) -> dict[str, int]:
        """Elements of each arena. The first who asks has the program verified and laid out."""
        if self._sizes is None:
            program, kept = self._program(), self._kept()
            self._shared = share_memory(program, kept)
            verify(program, self._shared, kept)
            self._sizes = {STATE: 0, WORK: 0, LOSSES: 0}
            lay_out(self.regions, self._shared, self.lanes, self._sizes)
        return self._sizes

    def _parts(self, forward: bool, backward: bool) -> list[Op]:
        updates = sorted(self._updates, key=lambda op: op.rank)
        return [*self._forward * forward, *[*self._backward, *updates] * backward]

    def _program(self) -> list[Op]:
        """All ops, and what is done between the passes by whoever runs them apart: reads the output, writes its gradient."""
        if self.gradient is None or self.output is None:
            return self._parts(True, True)
        outside = Op(CALL, reads={self.output: ROWS}, writes={self.gradient: ROWS})
        return [*self._parts(True, False), outside, *self._parts(False, True)]

    def _kept(self) -> list[Ref]:
        """What is read when the program has run."""
        if self.forward_only and self.output is not None:
            return [self.output]
        return [self.of_input] if self.of_input is not None else []

    def _add(self, to: list[Op], kind: int, given: dict[str, Any]) -> Op:
        names = "split", "reads", "writes", "overwrites", "rank", "wait"
        op = Op(kind, **{name: given.pop(name) for name in names if name in given}, record=given)
        if self.block and op.split == SAMPLES:  # threads take the same samples in all runs of ops
            op.record["block"], op.record["group"] = self.block
        to.append(op)
        return op


def spread(columns: int, lanes: int, itemsize: int) -> int:
    """How far apart to lay rows: whole vectors, but not a multiple of 1 KiB, at which they share L1 cache sets."""
    padded = -(-columns // lanes) * lanes
    return padded + (lanes if padded * itemsize % 1024 == 0 else 0)
