"""Shared memory, the verifier and barriers of compiled programs, on programs of a few ops and by mutation of real ones."""
import itertools

import numpy as np
import pytest
from fastnet.kernels.records import TEAM

from fastnet import (
    ConvLayer,
    CrossEntropyLayer,
    FlattenLayer,
    FullLayer,
    LeakyReluLayer,
    MaxPoolLayer,
    MeanSquaredErrorLayer,
    ReluLayer,
    SoftMaxLayer,
    TanhLayer,
)
from fastnet.program.builder import Builder
from fastnet.program.memory import WORK, Ref, Region
from fastnet.program.schedule import (
    ALL,
    COLUMNS,
    ONE,
    ROWS,
    Op,
    ProgramError,
    key,
    memory_of,
    place_barriers,
    share_memory,
    verify,
    verify_blocks,
)


def ref(size=8, **of_region):
    return Ref(Region(WORK, size, **of_region))


def op(reads=(), writes=(), **others):
    return Op(0, reads=dict.fromkeys(reads, ROWS), writes=dict.fromkeys(writes, ROWS), **others)


def test_barriers_stand_where_threads_meet():
    """Not between two ops on the same samples or the same columns, nor between two readers; also round the end."""
    def waits(*parts):
        ops = [Op(0, reads=reads, writes=writes) for reads, writes in parts]
        place_barriers(ops)
        return [int(o.wait) for o in ops]

    h, y = ref(), ref()
    assert waits(({}, {h: ROWS}), ({h: ROWS}, {y: ROWS})) == [0, 0]
    assert waits(({}, {h: COLUMNS}), ({h: ROWS}, {})) == [1, 1]  # and before it is written again
    assert waits(({h: ALL}, {}), ({h: ROWS}, {}), ({h: ONE}, {})) == [0, 0, 0]
    assert waits(({}, {h: ALL})) == [1]  # all threads write all of it


def test_a_read_must_find_the_version_it_names():
    x, y, z = ref(lives=True), ref(), ref()
    verify([op([x], [y]), op([y], [z])])
    with pytest.raises(ProgramError, match="another one"):
        verify([op([y], [z]), op([x], [y])])  # read before it is written
    changed = y.overwritten()
    verify([op([x], [y]), op([y], [z]), op([y], [changed]), op([changed], [])])
    with pytest.raises(ProgramError, match="another one"):
        verify([op([x], [y]), op([y], [changed]), op([y], [z])])
    with pytest.raises(ProgramError, match="changes version 0"):
        verify([op([x], [changed])])  # there is nothing to change
    with pytest.raises(ProgramError, match="before it ends"):
        verify([op([x], [y]), op([y], [changed])], kept=[y])


def test_an_op_declares_what_it_works_on():
    x, y = ref(lives=True), ref()
    verify([op([x], [y], record={"aux": y, "packed": x})])
    with pytest.raises(ProgramError, match="does not declare"):
        verify([op([], [y], record={"aux": y, "packed": x})])


def test_memory_is_shared_where_no_later_op_reads_it():
    x, y, z = ref(lives=True), ref(), ref()
    last = [op([x], [y]), op([y], [z], overwrites={z: y})]
    assert share_memory(last) == {z.region: y.region}
    verify(last, share_memory(last))
    again = [*last, op([y], [])]
    assert share_memory(again) == {}
    with pytest.raises(ProgramError, match="another one"):
        verify(again, {z.region: y.region})
    assert share_memory(last, kept=[y]) == {}
    of_data = [op([x], [z], overwrites={z: x})]
    assert share_memory(of_data) == {}  # what lives on is not written over
    with pytest.raises(ProgramError, match="overwrite its own input"):
        verify([op([x], [y]), op([y], [z])], {z.region: y.region})


def test_images_of_a_block_are_read_before_the_next_barrier():
    x, y = ref(of_block=True), ref()
    verify_blocks([op([], [x]), op([x], [y])])
    for between in (op([], [], wait=True), Op(0, TEAM)):
        with pytest.raises(ProgramError, match="behind a barrier"):
            verify_blocks([op([], [x]), between, op([x], [y])])


STACKS = {
    "course": ((6,), (FullLayer(6, 5, rng=0), ReluLayer(), FullLayer(5, 3, rng=0), SoftMaxLayer()), CrossEntropyLayer()),
    "relu before softmax": ((6,), (FullLayer(6, 3, rng=0), ReluLayer(), SoftMaxLayer()), CrossEntropyLayer()),
    "softmax inside": ((6,), (SoftMaxLayer(), FullLayer(6, 4, rng=0), TanhLayer(), SoftMaxLayer(), LeakyReluLayer(),
                              FullLayer(4, 3, rng=0), SoftMaxLayer()), MeanSquaredErrorLayer()),
    "images": ((2, 8, 8), (ConvLayer(2, 3, 3, rng=0), ReluLayer(), ReluLayer(), MaxPoolLayer(2), ReluLayer(),
                           ConvLayer(3, 2, 3, rng=0), MaxPoolLayer(3), ReluLayer(), TanhLayer(), FlattenLayer(),
                           FullLayer(2, 3, rng=0), SoftMaxLayer()), CrossEntropyLayer()),
    "plain convolution": ((2, 6, 6), (ReluLayer(), ConvLayer(2, 3, 3, rng=0), ReluLayer(), FlattenLayer(),
                                      FullLayer(108, 3, rng=0), ReluLayer(), SoftMaxLayer()), CrossEntropyLayer()),
}
OPTIMIZERS = {"sgd": 0, "momentum": 1, "rmsprop": 2, "adam": 3}


def built(stack, moments=0):
    shape, layers, loss = STACKS[stack]
    net = Builder(np.dtype(float), 4, moments=moments).lower(list(layers), shape, loss)
    program = net._program()
    return program, share_memory(program, net._kept()), net._kept()


@pytest.mark.parametrize(("stack", "moments"), list(itertools.product(STACKS, OPTIMIZERS.values())))
def test_every_declared_read_is_needed(stack, moments):
    """Without any one of them, the verifier refuses the program."""
    program, shared, kept = built(stack, moments)
    verify(program, shared, kept)
    taken = 0
    for o in program:
        for at, part in list(o.reads.items()):
            del o.reads[at]
            if any(key(other) == key(at) for other in o.operands()):
                with pytest.raises(ProgramError):
                    verify(program, shared, kept)
                taken += 1
            else:  # what it changes in place it is given as the version that it makes
                assert any(new.region is at.region and new.version == at.version + 1 for new in o.writes)
            o.reads[at] = part
    assert taken > 5


@pytest.mark.parametrize("stack", STACKS)
def test_no_op_works_in_place_that_is_not_made_for_it(stack):
    """Whatever an op writes, laid over anything that it or a later op reads, is refused."""
    program, shared, kept = built(stack)
    tried = 0
    for i, o in enumerate(program):
        for new in o.writes:
            for later in program[i:]:
                for old in later.reads:
                    apart = memory_of(old.region, shared) is not memory_of(new.region, shared)
                    written_before = any(key(old) == key(w) for before in program[:i] for w in before.writes)
                    if new.version or not apart or not (written_before or old.region.lives) or new.region in shared:
                        continue
                    with pytest.raises(ProgramError):
                        verify(program, {**shared, new.region: memory_of(old.region, shared)}, kept)
                    tried += 1
    assert tried > 10
