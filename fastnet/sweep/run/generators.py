"""A training function that is suspended between its epochs, in its own thread and with its own random states."""
from __future__ import annotations

import contextlib
import queue
import random
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

END: Any = object()  # what comes after the last report


class Suspended:
    """The reports of a training function, one at a time.

    The function runs in its own thread: a mode that it sets for its thread while it is suspended, such as
    ``torch.no_grad()`` around a ``yield``, is no other's. The global generators of random numbers are its own while it runs,
    and put back after.

    Parameters
    ----------
    reports : callable
        Returns the iterator over the reports.
    seed : int
        The global generators begin with it.
    """

    def __init__(self, reports: Callable[[], Iterator[Any]], seed: int) -> None:
        self.ended = False
        self._reports, self._seed = reports, seed
        self._states: dict[str, Any] | None = None
        self._asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def next(self) -> Any:
        """The next report; `END` after the last one. Errors of the function are raised here."""
        if self.ended:
            return END
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="fastnet-sweep-train", daemon=True)
            self._thread.start()
        before = _states()
        if self._states is None:
            _seed(self._seed)
        else:
            _set_states(self._states)
        try:
            self._asked.put(True)
            answer, error = self._answers.get()
            self._states = _states()
        finally:
            _set_states(before)
        if error is not None:
            self.ended = True
            raise error
        self.ended = answer is END
        return answer

    def close(self) -> None:
        """End the function where it is suspended, as if its generator were closed."""
        if self._thread is not None and not self.ended:
            self._asked.put(False)
            self._thread.join()
        self.ended = True

    def _run(self) -> None:
        reports = None
        try:
            if not self._asked.get():
                return
            reports = iter(self._reports())
            for report in reports:
                self._answers.put((report, None))
                if not self._asked.get():
                    return
            self._answers.put((END, None))
        except BaseException as error:
            self._answers.put((None, error))
        finally:
            with contextlib.suppress(Exception):
                getattr(reports, "close", lambda: None)()


def _torch() -> Any:
    """PyTorch, if the user's code has imported it."""
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "get_rng_state") else None


def _states() -> dict[str, Any]:
    found: dict[str, Any] = {"random": random.getstate(), "numpy": np.random.get_state()}
    torch = _torch()
    if torch is not None:
        found["torch"] = torch.get_rng_state()
        if torch.cuda.is_available():
            found["cuda"] = torch.cuda.get_rng_state_all()
    return found


def _set_states(states: dict[str, Any]) -> None:
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
