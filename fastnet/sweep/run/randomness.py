"""The global generators of random numbers, which belong to the process: one trial at a time has them."""
from __future__ import annotations

import contextlib
import os
import random
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

_within = threading.local()


class Turns:
    """Whose turn it is to draw from the global generators: of ``random``, NumPy and, if it is imported, PyTorch.

    Trials in several threads of a process wait for each other. A sweep that a trial runs inside has that trial's turn.
    """

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Forget whose turn it is."""
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def taken(self, seed: int, states: dict[str, Any] | None = None) -> Iterator[None]:
        """Let the generators begin with a seed, or go on from their `states`, and put them back at the end."""
        with self._lock, inside():
            before = current()
            if states is None:
                _seed(seed)
            else:
                _put(states)
            try:
                yield
            finally:
                _put(before)

    def __reduce__(self) -> Any:  # in another process
        return turns, ()


_of_process = Turns()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_of_process.renew)  # the thread whose turn it was is not in the child


def turns() -> Turns:
    """The turns of the process; new ones for a sweep that a trial runs inside."""
    return Turns() if getattr(_within, "a_trial", False) else _of_process


@contextlib.contextmanager
def inside() -> Iterator[None]:
    """Say that this thread runs what a trial runs."""
    before, _within.a_trial = getattr(_within, "a_trial", False), True
    try:
        yield
    finally:
        _within.a_trial = before


def current() -> dict[str, Any]:
    """The states of the generators."""
    found: dict[str, Any] = {"random": random.getstate(), "numpy": np.random.get_state()}
    torch = _torch()
    if torch is not None:
        found["torch"] = torch.get_rng_state()
        if torch.cuda.is_available():
            found["cuda"] = torch.cuda.get_rng_state_all()
    return found


def _torch() -> Any:
    """PyTorch, if the user's code has imported it."""
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "get_rng_state") else None


def _put(states: dict[str, Any]) -> None:
    random.setstate(states["random"])
    np.random.set_state(states["numpy"])
    torch = _torch()
    if torch is not None and "torch" in states:
        torch.set_rng_state(states["torch"])
        if "cuda" in states:
            torch.cuda.set_rng_state_all(states["cuda"])


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch = _torch()
    if torch is not None:
        torch.manual_seed(seed)
