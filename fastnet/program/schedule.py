"""From ops to a program that can run: shared memory, a proof that reads find what they were written for, barriers, offsets.

`fastnet.program.builder.Builder` does it in this order:

1. `share_memory` lets a value take the memory of one that its op reads, where the op allows it (``overwrites``) and no later
   op reads that one.
2. `verify` walks through the ops and refuses a program in which a read would find another version than the one it names, in
   which an op works on memory that it does not declare, or in which an op that cannot work in place would have to.
3. `place_barriers` puts a barrier where a thread touches what another one wrote, or writes what another one read.
4. `verify_blocks` refuses a program that reads the images of a block of samples behind a barrier, where only those of the
   last block are left.
"""
from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastnet.kernels.codegen.beside import ensure_all
from fastnet.kernels.codegen.linking import AddressedKernel
from fastnet.kernels.program import gram, interpreter
from fastnet.kernels.program import ops as built_in
from fastnet.kernels.records import (
    DENSE,
    GATHER,
    GRAM_FIRST,
    MASK,
    MEAN_LOSS,
    OP,
    SAMPLES,
    SOFTMAX_CROSS_ENTROPY,
    UPDATE,
    UPDATE_BIAS,
)
from fastnet.kernels.runtime.pool import get_num_threads
from fastnet.program.memory import DATA, LOSSES, WORK, Matrix, Ref, Region

ALL = "all"
ROWS, COLUMNS, INPUTS, ONE = "rows", "columns", "inputs", "one"

# What kinds of ops other than CALL run; the second table, where an optimiser keeps something of the parameter
KERNELS = {GATHER: built_in.gather, DENSE: built_in.dense, MASK: built_in.mask, MEAN_LOSS: built_in.mean_loss,
           SOFTMAX_CROSS_ENTROPY: built_in.softmax_cross_entropy, UPDATE: built_in.update, UPDATE_BIAS: built_in.update_bias,
           GRAM_FIRST: gram.gram_first}
WITH_MOMENTS = {UPDATE: built_in.update_with_moments, UPDATE_BIAS: built_in.update_bias_with_moments}


class ProgramError(RuntimeError):
    """A program would not compute what its layers state: a fault of fastnet, never of the user's."""


@dataclass(eq=False)
class Op:
    """One op of a program, as long as addresses are not known.

    `reads` and `writes` say which part of which version one thread touches: `ROWS` (its samples), `COLUMNS` (its outputs),
    `INPUTS` (its inputs), `ONE` (the first thread does it alone) or `ALL`. `overwrites` names, for a value that is written,
    the one that is read whose memory it may take. `record` holds the other fields of `fastnet.kernels.records.OP`.
    """

    kind: int
    split: int = SAMPLES
    reads: dict[Ref, str] = field(default_factory=dict)
    writes: dict[Ref, str] = field(default_factory=dict)
    overwrites: dict[Ref, Ref] = field(default_factory=dict)
    rank: int = 0  # of updates: their order
    wait: bool = False  # whether a barrier stands before it
    record: dict[str, Any] = field(default_factory=dict)

    def touched(self) -> Iterator[tuple[Ref, str, bool]]:
        """Yield what the op reads and writes: the version, the part, and whether it is written."""
        yield from ((ref, part, False) for ref, part in self.reads.items())
        yield from ((ref, part, True) for ref, part in self.writes.items())

    def operands(self) -> Iterator[Ref]:
        """The versions whose addresses the kernel gets."""
        for value in self.record.values():
            if isinstance(value, Matrix):
                yield value.ref
            elif isinstance(value, Ref):
                yield value


Key = tuple[int, int]


def key(ref: Ref) -> Key:
    """What two references to the same version of the same contents have in common."""
    return id(ref.region), ref.version


def memory_of(region: Region, shared: Mapping[Region, Region]) -> Region:
    """The region whose memory it uses."""
    while region in shared:
        region = shared[region]
    return region


def share_memory(ops: list[Op], kept: Iterable[Ref] = ()) -> dict[Region, Region]:
    """Let values take the memory of those that their ops read last; returns the region that each of them shares.

    `kept` are versions that somebody reads when the ops have run.
    """
    shared: dict[Region, Region] = {}
    held = {key(ref) for ref in kept}
    for i, op in enumerate(ops):
        for new, old in op.overwrites.items():
            memory = memory_of(old.region, shared)
            if memory.arena != WORK or memory.lives or new.region.size > memory.size or key(old) in held:
                continue
            if any(key(ref) == key(old) for later in ops[i + 1:] for ref in later.reads):
                continue
            shared[new.region] = memory
    return shared


def verify(ops: list[Op], shared: Mapping[Region, Region] | None = None, kept: Iterable[Ref] = ()) -> None:
    """Prove that every read finds the version it names.

    Raises
    ------
    ProgramError
        If one does not, if an op touches memory that it does not declare, or works in place without being made for it.
    """
    shared = shared or {}
    contents: dict[Region, Key | None] = {}

    def found(ref: Ref) -> Key | None:
        memory = memory_of(ref.region, shared)
        if memory not in contents:
            contents[memory] = (id(memory), 0) if memory.lives else None
        return contents[memory]

    for number, op in enumerate(ops):
        what = f"op {number} of {len(ops)} (kind {op.kind})"
        declared = {key(ref) for ref in (*op.reads, *op.writes)}
        for ref in op.operands():
            if key(ref) not in declared:
                raise ProgramError(f"{what} works on a region of {ref.region.arena} that it does not declare")
        for ref in op.reads:
            if found(ref) != key(ref):
                raise ProgramError(f"{what} reads version {ref.version} of a region of {ref.region.arena}, which holds "
                                   "another one by then")
        for new in op.writes:
            if new.version and found(new) != (id(new.region), new.version - 1):
                raise ProgramError(f"{what} changes version {new.version - 1} of a region of {new.region.arena}, which "
                                   "holds another one by then")
            for old in op.reads:
                same = memory_of(old.region, shared) is memory_of(new.region, shared)
                follows = new.region is old.region and new.version == old.version + 1
                if same and not follows and op.overwrites.get(new) is not old:
                    raise ProgramError(f"{what} would overwrite its own input, which it does not declare")
        for new in op.writes:
            found(new)
            contents[memory_of(new.region, shared)] = key(new)
    for ref in kept:
        if found(ref) != key(ref):
            raise ProgramError(f"a result of the program, in {ref.region.arena}, is overwritten before it ends")


def place_barriers(ops: list[Op], shared: Mapping[Region, Region] | None = None) -> None:
    """Mark the ops before which all threads must wait (``wait``), for a program that is run over and over.

    Two ops may touch the same memory without a barrier between them if both only read it, or if each thread touches only its
    own part of it and that is the same part in both.
    """
    shared = shared or {}
    since: dict[Region, set[tuple[str, bool]]] = {}  # what was touched since the last barrier: (part, written)
    for _ in range(2):  # the second time round, what the end of the program left is seen at its beginning
        for op in ops:
            touched = [(memory_of(ref.region, shared), part, written) for ref, part, written in op.touched()]
            if op.wait or any(_conflict(since.get(at, set()), part, written) for at, part, written in touched):
                op.wait = True
                since = {}
            for at, part, written in touched:
                since.setdefault(at, set()).add((part, written))


def _conflict(before: Collection[tuple[str, bool]], part: str, written: bool) -> bool:
    return any((written or was_written) and (part != other or part == ALL) for other, was_written in before)


def verify_blocks(ops: list[Op]) -> None:
    """Prove that what holds one block of samples at a time is read in the run of ops that wrote it.

    Raises
    ------
    ProgramError
        If a barrier, or an op that is not shared out by samples, stands between.
    """
    run = 0
    written: dict[Key, int] = {}
    for number, op in enumerate(ops):
        run += op.wait or op.split != SAMPLES
        for ref in op.reads:
            if ref.region.of_block and written.get(key(ref)) != run:
                raise ProgramError(f"op {number} of {len(ops)} (kind {op.kind}) reads images of a block of samples behind a "
                                   "barrier")
        run += op.split != SAMPLES
        written.update((key(ref), run) for ref in op.writes if ref.region.of_block)


def lay_out(regions: Iterable[Region], shared: Mapping[Region, Region], lanes: int, sizes: dict[str, int]) -> None:
    """Give every region that shares no memory an offset in its arena, in whole vectors; `sizes` grows."""
    for region in regions:
        if region.inside is None and region.mirrors is None and region not in shared and region.arena in sizes:
            region.offset = sizes[region.arena]
            size = region.size if region.arena == LOSSES else -(-region.size // lanes) * lanes
            sizes[region.arena] += size
    for region, memory in shared.items():
        region.offset = memory.start


def _built_in(op: Op) -> AddressedKernel | None:
    return WITH_MOMENTS[op.kind] if "aux" in op.record and op.kind in WITH_MOMENTS else KERNELS.get(op.kind)


def assemble(ops: list[Op], bases: Mapping[str, int], dtype: np.dtype) -> np.ndarray:
    """The ops as an array of `OP`, with versions turned into addresses; `bases` says where each arena starts."""
    def address(ref: Ref) -> int:
        if ref.region.arena == DATA:
            return 0
        return bases[ref.region.arena] + ref.region.start * (8 if ref.region.arena == LOSSES else dtype.itemsize)

    kernels = {kernel: None for op in ops for kernel in (_built_in(op), *op.record.values())
               if isinstance(kernel, AddressedKernel)}
    ensure_all([(interpreter.steps.name, "none"), *((kernel.name, dtype.name) for kernel in kernels)], get_num_threads())
    program = np.zeros(len(ops), OP)
    last = len(ops)
    for i in reversed(range(len(ops))):
        op, record = ops[i], program[i]
        record["kind"], record["split"], record["wait"] = op.kind, op.split, op.wait
        if (kernel := _built_in(op)) is not None:
            record["kernel"] = kernel.address(dtype)
        for name, value in op.record.items():
            if isinstance(value, Matrix):
                record[name] = (address(value.ref), *value[1:])
            elif isinstance(value, Ref):
                record[name] = address(value)
            elif isinstance(value, AddressedKernel):
                record[name] = value.address(dtype)
            else:
                record[name] = value
        if "a" in op.record:
            record["from_data"] = op.record["a"].ref.region.arena == DATA
        if op.split != SAMPLES or (i + 1 < len(ops) and (ops[i + 1].wait or ops[i + 1].split != SAMPLES)):
            last = i + 1
        record["last"] = last
    return program
