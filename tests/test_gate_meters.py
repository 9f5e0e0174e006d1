"""The gate's meters: the processor's counter, played by a pipe where the machine has none, and what is said without it."""
import errno
import os
import platform
import struct
import sys

import pytest

from fastnet.gate import arguments, command, instructions, render
from fastnet.gate.probe import fastnet_gate_meters as meters


class Counter:
    """Stands for the C library: perf_event_open(2) gives the reading end of a pipe that holds these counts."""

    def __init__(self, counts):
        self.calls, self.reader = [], -1
        if counts is not None:
            self.reader, writer = os.pipe()
            os.write(writer, struct.pack(f"{len(counts)}q", *counts))
            os.close(writer)

    def syscall(self, number, attributes, *rest):
        self.calls.append((number.value, attributes.raw, [value.value for value in rest]))
        return self.reader


@pytest.fixture
def counter(monkeypatch):
    """Returns a function: the system offers a counter that shows these numbers one after the other, or None of them."""
    def offer(counts, machine="x86_64"):
        library = Counter(counts)
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.setattr(platform, "machine", lambda: machine)
        monkeypatch.setattr(meters.ctypes, "CDLL", lambda name: library)
        return library
    return offer


def test_instructions_are_those_of_the_cheapest_call(counter):
    library, calls = counter([100, 1150, 2000, 2900, 3000, 4400]), []
    assert meters.instructions(lambda: calls.append(0), calls=3) == 900
    assert len(calls) == 3
    with pytest.raises(OSError) as closed:
        os.fstat(library.reader)
    assert closed.value.errno == errno.EBADF


@pytest.mark.parametrize(("machine", "number"), [("x86_64", 298), ("aarch64", 241)])
def test_the_kernel_is_asked_for_user_instructions_of_this_thread(counter, machine, number):
    library = counter([0, 5], machine)
    meters.instructions(lambda: None, calls=1)
    (asked, attributes, rest), = library.calls
    assert (asked, rest) == (number, [0, -1, -1, 0])  # this thread, on any core, in no group, without flags
    kind, size, event, period, samples, reads, flags = struct.unpack_from("IIQQQQQ", attributes)
    assert (kind, size, event) == (0, len(attributes), 1)  # PERF_TYPE_HARDWARE, PERF_COUNT_HW_INSTRUCTIONS
    assert (period, samples, reads) == (0, 0, 0)  # counted, not sampled; a read gives the count alone
    assert flags == 0b1100000  # exclude_kernel, exclude_hv; neither disabled nor inherited
    assert not any(attributes[struct.calcsize("IIQQQQQ"):])


@pytest.mark.parametrize("counts", [None, [0] * 10], ids=["none is offered", "it stands still"])
def test_without_a_counter_nothing_is_counted(counter, counts):
    counter(counts)
    assert meters.instructions(lambda: None) is None


def test_other_systems_are_not_asked(counter, monkeypatch):
    library = counter([0, 5], machine="riscv64")
    assert meters.instructions(lambda: None, calls=1) is None
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not instructions.available() and not library.calls
    os.close(library.reader)


def test_a_real_counter_counts_more_for_more_work():
    if not instructions.available():
        pytest.skip("the system offers no counter")
    few, many = meters.instructions(lambda: sum(range(1000))), meters.instructions(lambda: sum(range(100_000)))
    assert 10 * few < many < 1000 * few


@pytest.mark.parametrize(("options", "offered", "said"), [
    ([], False, True), ([], True, False), (["--instructions", "off"], False, False)])
def test_the_verdict_says_that_instructions_were_not_counted(monkeypatch, options, offered, said):
    monkeypatch.setattr(instructions, "available", lambda: offered)
    args = command.parser("x").parse_args(["main", *options])
    measured = arguments.metrics(args)
    assert ("instructions" in measured) == (offered and not options)
    result = render.Result([], about={"base": "a", "head": "b", "uncounted": arguments.uncounted(args, measured)})
    text = render.to_markdown(result)
    assert ("Instructions were not counted: the system does not offer" in text) == said
