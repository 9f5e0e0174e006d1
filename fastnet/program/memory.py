"""What the ops of a program work on: regions of memory, and the versions of their contents.

A `Region` is a part of an arena, a flat array of the program's. A `Ref` is one version of its contents: the first write
makes version 0, each later write the next one (of parameters and data, version 0 is what they hold before the program runs).
Ops name the versions that they read and write, so `fastnet.program.schedule.verify` can tell whether a read finds the
contents that it was written for. A `Value` is a version of rows of numbers, one row a sample.
"""
from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastnet.kernels.gemm import pack

if TYPE_CHECKING:
    from fastnet.program.builder import Builder

# Arenas: flat arrays of the network's dtype, but for `losses`, which is float64
STATE, MOMENTS, WORK, LOSSES = "state", "moments", "work", "losses"
DATA = "data"  # no arena: the rows of the mini-batch, in the data or gathered


@dataclass(eq=False)
class Region:
    """A part of an arena.

    Parameters
    ----------
    arena : str
    size : int
        In elements.
    lives : bool
        Whether it holds something before the program runs: a parameter, the data, a constant.
    of_block : bool
        Whether it holds one block of samples at a time, so that it can only be read where it was written: before the next
        barrier.
    inside : Region, optional
        The region whose memory it lies in, between that one's values. Its contents have their own versions.
    mirrors : Region, optional
        The region of another arena that has the same offset.
    """

    arena: str
    size: int
    lives: bool = False
    of_block: bool = False
    inside: Region | None = None
    mirrors: Region | None = None
    offset: int | None = None  # from the arena's beginning, in elements; set by `fastnet.program.schedule.lay_out`

    @property
    def start(self) -> int:
        """The offset, once the program has been laid out."""
        if self.inside is not None:
            return self.inside.start
        if self.mirrors is not None:
            return self.mirrors.start
        assert self.offset is not None, "the program has not been laid out"
        return self.offset


@dataclass(eq=False)
class Ref:
    """One version of what a region holds."""

    region: Region
    version: int = 0

    def overwritten(self) -> Ref:
        """The version that an op leaves which changes this one in place."""
        return Ref(self.region, self.version + 1)


class Matrix(NamedTuple):
    """An operand by rows, as `fastnet.kernels.records.Mat`, as long as addresses are not known."""

    ref: Ref
    row: int
    col: int = 1
    vec: int = 0


@dataclass(eq=False)
class Value(Ref):
    """One version of rows of values, a row for each sample of a mini-batch."""

    columns: int = 0
    row: int = 0  # distance of rows, in elements
    lanes: int = 1
    shape: tuple[int, ...] = ()  # of a sample's values

    @property
    def mat(self) -> Matrix:
        """The rows as operand or result of an op."""
        return Matrix(self, self.row, 1, self.lanes)

    def overwritten(self) -> Any:
        """The version that an op leaves which changes this one in place, laid out alike."""
        return replace(self, version=self.version + 1)

    def as_rows(self, net: Builder) -> Value:
        """The value itself. Images, and what a layer has left to its successor to compute, make rows of themselves."""
        return self

    def flattened(self) -> Value:
        """The same version of the same rows, each sample of which is now a row of values."""
        return replace(self, shape=(self.columns,))

    @property
    def kind(self) -> str:
        """What a layer must be able to take (its attribute ``takes``) to be given this and not plain rows."""
        return "rows"


@dataclass(eq=False)
class Parameter:
    """A parameter of a layer: which attribute it is, and where and how it lies.

    A matrix W (n_o, n_i) is kept as W.T in vector columns [vector][input][lane], see ``fastnet/kernels/README.md``; a vector
    b (1, n_o) unchanged. `copies` are copies for the backward pass: of a matrix, W itself in vector columns.
    """

    layer: int
    name: str
    shape: tuple[int, ...]
    lanes: int
    vector: bool = False
    packing: Any = None  # of other parameters: an object with `size(shape)`, `pack(array, flat)`, `unpack(flat, shape)`
    copies: list[Ref] = field(default_factory=list)
    learned: bool = True  # by gradient descent; False for other state, such as running statistics
    counts: bool = False  # whether it is one whole number, an int64

    def __post_init__(self) -> None:
        self.region = Region(STATE, self.size, lives=True)
        self.now = Ref(self.region)
        self.next = self.now.overwritten()  # as a step leaves it

    @property
    def is_matrix(self) -> bool:
        return self.packing is None and not self.vector

    @property
    def size(self) -> int:
        """Elements that it takes."""
        if self.packing is not None:
            return self.packing.size(self.shape)
        if self.counts:
            return self.lanes
        n_o = self.shape[0] if self.is_matrix else self.shape[1]
        return -(-n_o // self.lanes) * self.lanes * (self.shape[1] if self.is_matrix else 1)

    def mat(self, ref: Ref) -> Matrix:
        """W.T (n_i, n_o), now or after the step, as operand or result of a product."""
        return Matrix(ref, self.lanes, 1, self.shape[1] * self.lanes)

    def put(self, flat: np.ndarray, value: Any) -> None:
        """Write the parameter into an arena."""
        at = self.region.start
        if self.counts:
            flat[at:at + self.size].view(np.int64)[0] = value
            return
        value = np.asarray(value, flat.dtype)
        if self.packing is not None:
            self.packing.pack(value, flat[at:at + self.size])
        elif self.is_matrix:
            packed = pack(value.T).data.ravel()
            flat[at:at + packed.size] = packed
        else:
            flat[at:at + value.size] = value.ravel()

    def put_copies(self, state: np.ndarray, work: np.ndarray) -> None:
        """Make the copies anew from the parameter itself."""
        for ref in self.copies:
            value, at = self.get(state), ref.region.start
            packed = pack(value).data.ravel() if self.packing is None else self.packing.copy(value)
            work[at:at + packed.size] = packed

    def get(self, flat: np.ndarray) -> Any:
        """Read the parameter, or what lies like it, from an arena: a new array, or an int."""
        at = self.region.start
        if self.counts:
            return int(flat[at:at + self.size].view(np.int64)[0])
        if self.packing is not None:
            return self.packing.unpack(flat[at:at + self.size], self.shape)
        if not self.is_matrix:
            return flat[at:at + self.shape[1]].reshape(self.shape).copy()
        n_o, n_i = self.shape
        columns = flat[at:at + self.size].reshape(-1, n_i, self.lanes)
        return np.ascontiguousarray(columns.transpose(0, 2, 1).reshape(-1, n_i)[:n_o])
