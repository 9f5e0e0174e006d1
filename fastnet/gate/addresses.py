"""Address spaces: the processes of a round get the same one, and each round another one.

Where a process's code and data lie in memory decides which of them share cache lines, pages and entries of the branch
predictor. Linux draws the places at random for each process, so that equal code differs by some per cent from process to
process (Mytkowicz, Diwan, Hauswirth and Sweeney, *Producing wrong data without doing anything obviously wrong!*, ASPLOS
2009). A round draws them once for all of its sides: what the places do to one of them, they do to the others as well, and it
cancels in their ratio. The next round draws again, so that no verdict depends on one draw. Only Python itself, and what it
loads before the gate's plugin, keeps its place in all rounds.

Linux alone can do so. Elsewhere, and in a container that forbids it, the system draws the places of each process.
"""
from __future__ import annotations

import contextlib
import ctypes
import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence

_NO_RANDOMIZATION = 0x0040000  # ADDR_NO_RANDOMIZE in Linux's <sys/personality.h>
_QUERY = 0xFFFFFFFF
_PAGE = 4096  # bytes over which the start of the stack moves
_TEXTS = 1 << 15  # bytes of arguments and variables, which lie above the stack, are padded to a multiple of these
PADDING = "FASTNET_GATE_PADDING"


@contextlib.contextmanager
def shared() -> Iterator[bool]:
    """Start processes, from this thread and in this context, whose addresses are not random; yield whether it works."""
    personality = ctypes.CDLL(None).personality if sys.platform == "linux" else lambda wanted: -1
    before = personality(ctypes.c_ulong(_QUERY))
    works = before >= 0 and personality(ctypes.c_ulong(before | _NO_RANDOMIZATION)) >= 0
    try:
        yield works
    finally:
        if works:
            personality(ctypes.c_ulong(before))


def padding(command: Sequence[str], env: Mapping[str, str], number: int) -> dict[str, str]:
    """A variable that gives the stacks of all processes of a round the same start; their paths may differ in length."""
    if sys.platform != "linux":
        return {}
    texts = sum(len(os.fsencode(part)) + 1 for part in command)
    texts += sum(len(os.fsencode(name)) + len(os.fsencode(value)) + 2 for name, value in env.items())
    return {PADDING: "." * (-texts % _TEXTS + random.Random(number).randrange(_PAGE))}


def remarks() -> list[str]:
    """Return a note if a Linux system forbids shared addresses."""
    with shared() as works:
        pass
    return [] if works or sys.platform != "linux" else [
        "This system does not let the processes of a round have the same addresses, so the intervals are wider."]
