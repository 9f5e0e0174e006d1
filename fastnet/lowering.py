"""Layers lower to ops: from a network to the program that `fastnet.kernels.step.train` runs for every mini-batch.

Each of fastnet's layers has a method ``lower(net, x)``. It gets a `Lowering` and the `Buffer` of its input, asks for room
for its output, its parameters and what else it needs, adds ops to the way forward, registers a function that adds those
of the way back, and returns the buffer of its output. The loss does the same last and returns that of the gradient. ::

    def lower(self, net, x):                                   # of a layer y = f(x) without parameters
        y = net.buffer(x.columns)
        net.forward(CALL, reads={x: ROWS}, writes={y: ROWS}, kernel=tanh_op, c=y.mat, a=x.mat, n=x.columns)

        def backward(dy):                                      # the gradient of y, which becomes that of x
            net.backward(CALL, reads={y: ROWS}, writes={dy: ROWS}, kernel=tanh_grad_op, c=dy.mat, a=y.mat, n=x.columns)
            return dy

        net.on_backward(backward)
        return y

An op says which part of a buffer or parameter one thread reads or writes: `ROWS` (its samples), `COLUMNS` (its outputs),
`INPUTS` (its inputs), `ONE` (the first thread does it alone) or `ALL`. `place_barriers` puts a barrier wherever a
thread touches what another one wrote, or writes what another one read, and nowhere else.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fastnet.kernels.gemm import pack, vector_lanes
from fastnet.kernels.linking import AddressedKernel
from fastnet.kernels.simd import MR
from fastnet.kernels.structs import GATHER, MEAN_LOSS, OP, SAMPLES, TEAM, UPDATE_BIAS
from fastnet.kernels.threads import get_num_threads

ALL = "all"
ROWS, COLUMNS, INPUTS, ONE = "rows", "columns", "inputs", "one"

# Arenas: flat arrays of the network's dtype, but for `losses`, which is float64
STATE, MOMENTS, WORK, LOSSES = "state", "moments", "work", "losses"
DATA = "data"  # no arena: the batch's rows, wherever they are


class Unsupported(Exception):
    """A network has no lowering; the message says why, for ``model.explain``."""


class Place(NamedTuple):
    """Where something starts: in which arena, and how many elements from its beginning."""

    arena: str
    offset: int


class Matrix(NamedTuple):
    """`fastnet.kernels.structs.Mat`, as long as addresses are not known."""

    place: Place
    row: int
    col: int = 1
    vec: int = 0


@dataclass(frozen=True, eq=False)
class Buffer:
    """Room for one row of values a sample of a mini-batch."""

    place: Place
    columns: int
    row: int  # distance of rows
    lanes: int
    shape: tuple[int, ...]  # of a sample's values

    @property
    def mat(self) -> Matrix:
        """The rows as operand or result of a product."""
        return Matrix(self.place, self.row, 1, self.lanes)

    def as_rows(self, net: Lowering) -> Buffer:
        """The buffer itself: images are something else, see ``fastnet/image_lowering.py``."""
        return self

    def flatten(self) -> Buffer:
        """Let the samples be mere rows of values from now on; it stays the same buffer, which barriers know it by."""
        object.__setattr__(self, "shape", (self.columns,))
        return self

    def relu(self, net: Lowering) -> Buffer | None:
        """None: rows have no op of their own for ReLU."""
        return None


@dataclass(frozen=True, eq=False)
class Slot:
    """A parameter of a layer: which attribute it is, and where and how it lies.

    A matrix W (n_o, n_i) is kept as W.T in vector columns [vector][input][lane], see ``fastnet/kernels/README.md``; a vector
    b (1, n_o) as it is. With `copy`, W itself stands in vector columns there too.
    """

    layer: int
    name: str
    place: Place
    shape: tuple[int, ...]
    lanes: int
    vector: bool = False
    copy: list[Place] = field(default_factory=list)
    packing: Any = None  # of other parameters: an object with `size(shape)`, `pack(array, flat)`, `unpack(flat, shape)`

    @property
    def is_matrix(self) -> bool:
        return self.packing is None and not self.vector

    @property
    def size(self) -> int:
        """Elements that it takes."""
        if self.packing is not None:
            return self.packing.size(self.shape)
        n_o = self.shape[0] if self.is_matrix else self.shape[1]
        return -(-n_o // self.lanes) * self.lanes * (self.shape[1] if self.is_matrix else 1)

    @property
    def mat(self) -> Matrix:
        """W.T (n_i, n_o) as operand or result of a product."""
        return Matrix(self.place, self.lanes, 1, self.shape[1] * self.lanes)

    def put(self, flat: np.ndarray, value: np.ndarray) -> None:
        """Write the parameter into an arena."""
        at = self.place.offset
        if self.packing is not None:
            self.packing.pack(value, flat[at:at + self.size])
        elif self.is_matrix:
            packed = pack(value.T).data.ravel()
            flat[at:at + packed.size] = packed
        else:
            flat[at:at + value.size] = value.ravel()

    def put_copies(self, state: np.ndarray, work: np.ndarray) -> None:
        """Make the copies anew from the parameter itself."""
        for place in self.copy:
            value = self.get(state)
            packed = pack(value).data.ravel() if self.packing is None else self.packing.copy(value)
            work[place.offset:place.offset + packed.size] = packed

    def get(self, flat: np.ndarray) -> np.ndarray:
        """Read the parameter, or what lies like it, from an arena: a new array."""
        at = self.place.offset
        if self.packing is not None:
            return self.packing.unpack(flat[at:at + self.size], self.shape)
        if not self.is_matrix:
            return flat[at:at + self.shape[1]].reshape(self.shape).copy()
        n_o, n_i = self.shape
        columns = flat[at:at + self.size].reshape(-1, n_i, self.lanes)
        return np.ascontiguousarray(columns.transpose(0, 2, 1).reshape(-1, n_i)[:n_o])


@dataclass
class Cost:
    """What a step of training takes, for the plan."""

    operations: float = 0.0  # for a sample; a multiply-add counts two
    products: float = 0.0  # multiply-adds of the way forward, for a sample
    parameters: float = 0.0  # elements
    outputs: float = 0.0  # elements of all buffers, for a sample
    widest: int = 0  # elements of the largest of them, for a sample
    parameter_traffic: float = 0.0  # elements read and written in a step, whatever the batch size
    parts: list[str] = field(default_factory=list)  # of networks of images: what is computed together, in words

    def add(self, **amounts: float) -> None:
        """Add to some of the amounts."""
        for name, amount in amounts.items():
            setattr(self, name, getattr(self, name) + amount)


class Lowering:
    """Builds the program of a network, or of some neighbouring layers of one.

    Parameters
    ----------
    dtype : dtype
        float32 or float64.
    rows : int
        Samples that the buffers hold: the batch size.
    moments : int
        Arrays like the parameters that the optimiser keeps: 0, 1 (momentum) or 3 (Adam).
    forward_only : bool
        For predictions: no way back, no updates.
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
        self.sizes = {STATE: 0, WORK: self.lanes, LOSSES: 0}  # work[0] is 1, for column sums
        self.slots: list[Slot] = []
        self.layers: list[Any] = []
        self._last = 0  # the last layer whose output is not laid out as its input: what it gives is handed out as it lies
        self.cost = Cost()
        self.threads: int | None = None  # at most so many may run the program; None for any number
        self.absorbed: set[int] = set()  # numbers of layers that are done in the ops of a layer before them
        self.layer = 0  # number of the layer that is lowered now
        self.input: Buffer | None = None
        self.on_output: Callable[[np.ndarray, np.ndarray], None] | None = None  # last of all, when predicting: (y, x)
        self._forward: list[dict[str, Any]] = []
        self._backward: list[dict[str, Any]] = []
        self._updates: list[dict[str, Any]] = []
        self._tape: list[Callable[[Any], Buffer | None]] = []

    # --- what layers ask for --------------------------------------------------------------------------------------------

    def buffer(self, columns: int, shape: tuple[int, ...] | None = None) -> Buffer:
        """Room for rows of so many values, a little apart, so that they do not share sets of the L1 cache.

        `shape` says what a row means, an image for instance; by default it is (columns,).
        """
        row = columns if self.layer >= self._last else spread(columns, self.lanes, self.dtype.itemsize)
        self.cost.outputs += columns
        self.cost.widest = max(self.cost.widest, columns)
        return Buffer(self.reserve(WORK, -(-self.rows * row // self.lanes) * self.lanes), columns, row, self.lanes,
                      shape or (columns,))

    def buffer_like(self, x: Buffer) -> Buffer:
        """Room for the gradient of a buffer, laid out as that is."""
        self.cost.outputs += x.columns
        return Buffer(self.reserve(WORK, -(-self.rows * x.row // self.lanes) * self.lanes), x.columns, x.row, self.lanes,
                      x.shape)

    def losses(self) -> Place:
        """Room for each row's loss (float64); their mean becomes the mini-batch's."""
        place = self.reserve(LOSSES, self.rows)
        self.update(MEAN_LOSS, split=TEAM, reads={place: ONE}, aux=place, rank=-1)
        return place

    def reserve(self, arena: str, size: int) -> Place:
        """Room for so many elements."""
        place = Place(arena, self.sizes[arena])
        self.sizes[arena] += -(-size // self.lanes) * self.lanes if arena != LOSSES else size
        return place

    def parameter(self, name: str, shape: tuple[int, ...], *, vector: bool = False, packing: Any = None) -> Slot:
        """A parameter of the layer that is lowered now."""
        slot = Slot(self.layer, name, Place(STATE, self.sizes[STATE]), shape, self.lanes, vector, packing=packing)
        self.reserve(STATE, slot.size)
        self.slots.append(slot)
        self.cost.parameters += float(np.prod(shape))
        return slot

    def copy_for_backward(self, slot: Slot) -> Matrix:
        """W itself in vector columns, beside W.T; the op that updates W makes it anew."""
        n_o, n_i = slot.shape
        place = self.reserve(WORK, n_o * -(-n_i // self.lanes) * self.lanes)
        slot.copy.append(place)
        return Matrix(place, self.lanes, 1, n_o * self.lanes)

    def forward(self, kind: int, **op: Any) -> dict[str, Any]:
        """Add an op to the way forward; returns it, for a following layer that joins it (ReLU)."""
        return self._add(self._forward, kind, op)

    def backward(self, kind: int, **op: Any) -> dict[str, Any]:
        """Add an op to the way back."""
        return self._add(self._backward, kind, op)

    def update(self, kind: int, **op: Any) -> dict[str, Any]:
        """Add an op that changes parameters. Those of the first layer run last but for biases."""
        return self._add(self._updates, kind, op)

    def update_bias(self, slot: Slot, dy: Buffer) -> None:
        """Add the op that updates a bias from the gradient of what it was added to (3.10)."""
        self.update(UPDATE_BIAS, split=TEAM, reads={dy: COLUMNS}, writes={slot: COLUMNS}, c=Matrix(slot.place, 0),
                    a=Matrix(Place(WORK, 0), 0, 0), b=dy.mat, aux=self.gradient_of(slot), n=slot.shape[1], rank=2)

    def on_backward(self, function: Callable[[Any], Buffer | None]) -> None:
        """Have a function add the way back through the layer: from the gradient of its output to that of its input.

        It returns None if nobody needs that, as of the data.
        """
        self._tape.append(function)

    def needs_gradient(self, x: Buffer) -> bool:
        """Whether the gradient of this input of the layer is needed."""
        return x is not self.input or self.input_gradient

    def shares_evenly(self, columns: int) -> bool:
        """Whether threads get about as much to do of so many columns, in whole vectors, as of the samples, in tiles.

        Both give the same bits, so the number of threads may decide.
        """
        def excess(units: int) -> float:
            return -(-units // threads) * threads / units

        threads = get_num_threads()
        return excess(-(-columns // self.lanes)) < 1.03 * excess(-(-self.rows // MR))

    def gradient_of(self, slot: Slot) -> Place | int:
        """Where the optimiser keeps the parameter's velocity or gradient; 0 without one."""
        return Place(MOMENTS, slot.place.offset) if self.moments else 0

    def writer_of(self, x: Buffer, *kinds: int) -> dict[str, Any] | None:
        """The last op of the way forward, if it wrote `x` and is of one of these kinds: it may be asked for more."""
        last = self._forward[-1] if self._forward else None
        return last if last is not None and x in last["writes"] and last["kind"] in kinds else None

    # --- the program --------------------------------------------------------------------------------------------------

    def lower(self, layers: list[Any], shape: tuple[int, ...], loss: Any = None) -> Buffer | None:
        """Lower all layers, for samples of this shape, then the loss and the way back.

        Returns the last buffer: the outputs, or the gradient of the input.
        """
        columns = int(np.prod(shape))
        x = self.input = Buffer(Place(DATA, 0), columns, columns, self.lanes, shape)
        self.layers = layers
        self._last = max((i for i, layer in enumerate(layers) if not getattr(layer, "keeps_shape", False)), default=0)
        for self.layer, layer in enumerate(layers):
            lower = getattr(layer, "lower", None)
            if lower is None:
                raise Unsupported(f"layers[{self.layer}]: {type(layer).__name__} has no lowering")
            x = lower(self, x if getattr(layer, "takes_images", False) else x.as_rows(self))
        x = x.as_rows(self)
        if self.forward_only:
            self._tape.clear()
        if self.forward_only or loss is None:
            return x
        gradient: Buffer | None = loss.lower(self, x)
        return self.way_back(gradient)

    def way_back(self, gradient: Buffer | None) -> Buffer | None:
        """Add the way back from the gradient of the output; returns the gradient of the input, if it is needed."""
        while self._tape:  # which refers to the layers: nothing of it stays
            assert gradient is not None
            gradient = self._tape.pop()(gradient)
        return gradient

    def ops(self, *, forward: bool = True, backward: bool = True, gathered: bool = False,
            source_columns: int = 0) -> list[dict[str, Any]]:
        """All ops in order, with barriers, or those of the way forward (with the loss), or those behind it, alone.

        With `gathered`, each batch's rows are copied from the source first.
        """
        updates = sorted(self._updates, key=lambda op: op["rank"])
        ops = [*self._forward] * forward + [*self._backward, *updates] * backward
        if gathered and self.input is not None:
            copy = {"kind": GATHER, "split": TEAM, "reads": {}, "writes": {self.input: ROWS}, "k": source_columns}
            ops = [copy, *ops]
        else:  # the data are never written
            ops = [{**op, "reads": {at: part for at, part in op["reads"].items() if at is not self.input}} for op in ops]
        return place_barriers(ops)

    def _add(self, to: list[dict[str, Any]], kind: int, op: dict[str, Any]) -> dict[str, Any]:
        record = {"split": SAMPLES, "reads": {}, "writes": {}, "rank": 0, **op, "kind": kind}
        record["from_data"] = int(isinstance(record.get("a"), Matrix) and record["a"].place.arena == DATA)
        to.append(record)
        return record


def spread(columns: int, lanes: int, itemsize: int) -> int:
    """How far apart to lay rows: whole vectors, but not a multiple of 1 KiB, at which they share L1 cache sets."""
    padded = -(-columns // lanes) * lanes
    return padded + (lanes if padded * itemsize % 1024 == 0 else 0)


def place_barriers(ops: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mark the ops before which all threads must wait (``wait``), for a program that is run over and over.

    Two ops may touch the same thing without a barrier between them if both only read it, or if each thread touches only
    its own part of it and that is the same part in both.
    """
    waits = [bool(op.get("wait")) for op in ops]  # some ops ask for a barrier
    since: dict[Any, set[tuple[str, bool]]] = {}  # what was touched since the last barrier: (part, written)
    for _ in range(2):  # the second time round, what the end of the program left is seen at its beginning
        for i, op in enumerate(ops):
            touched = [(at, part, False) for at, part in op["reads"].items()]
            touched += [(at, part, True) for at, part in op["writes"].items()]
            if waits[i] or any(_conflict(since.get(at, set()), part, written) for at, part, written in touched):
                waits[i] = True
                since = {}
            for at, part, written in touched:
                since.setdefault(at, set()).add((part, written))
    return [{**op, "wait": int(wait)} for op, wait in zip(ops, waits, strict=True)]


def _conflict(before: set[tuple[str, bool]], part: str, written: bool) -> bool:
    return any((written or was_written) and (part != other or part == ALL) for other, was_written in before)


def assemble(ops: list[dict[str, Any]], bases: Mapping[str, int], dtype: np.dtype) -> np.ndarray:
    """The program as an array of `OP`, with places turned into addresses."""
    def address(place: Place | int) -> int:
        if isinstance(place, int) or place.arena == DATA:
            return 0
        return bases[place.arena] + place.offset * (8 if place.arena == LOSSES else dtype.itemsize)

    program = np.zeros(len(ops), OP)
    last = len(ops)
    for i in reversed(range(len(ops))):
        op, record = ops[i], program[i]
        for name, value in op.items():
            if name in ("reads", "writes", "rank"):
                continue
            if isinstance(value, Matrix):
                record[name] = (address(value.place), *value[1:])
            elif isinstance(value, AddressedKernel):
                record[name] = value.address(dtype)
            else:
                record[name] = address(value) if isinstance(value, Place) else value
        if op["split"] != SAMPLES or (i + 1 < len(ops) and (ops[i + 1]["wait"] or ops[i + 1]["split"] != SAMPLES)):
            last = i + 1
        record["last"] = last
    return program
