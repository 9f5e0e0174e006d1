"""A training function that is suspended between its epochs, in its own thread and with its own random states."""
from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from fastnet.sweep.run import randomness

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
    turns : Turns
        Whose turn it is to have them.
    """

    def __init__(self, reports: Callable[[], Iterator[Any]], seed: int, turns: randomness.Turns) -> None:
        self.ended = False
        self._reports, self._seed, self._turns = reports, seed, turns
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
        with self._turns.taken(self._seed, self._states):
            self._asked.put(True)
            answer, error = self._answers.get()
            self._states = randomness.current()
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
            with randomness.inside():
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
