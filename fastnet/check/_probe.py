"""The record of a comparison, written as it goes, so that it survives whatever the code compared does."""

from __future__ import annotations

import contextlib
import json
import os
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import numpy as np

from fastnet.check._compare import difference


class Probe:
    """Calls a participant's code step by step and notes what differs.

    Each event is a line of JSON: ``{"subject"}`` when a layer's turn begins, ``{"step"}`` before each call (null while
    fastnet works, which nobody is to blame for), ``{"problem", "step"}``, ``{"note"}``, and ``{"done"}`` with the number of
    comparisons.

    Parameters
    ----------
    events : text file
        Where the events go.
    folder : str
        The participant's folder, to name lines in it.
    """

    def __init__(self, events: TextIO, folder: str) -> None:
        self.events, self.folder = events, folder
        self.current: str | None = None
        self.compared = 0
        self.clean = True  # nothing has differed so far

    def emit(self, **event: Any) -> None:
        self.events.write(json.dumps(event) + "\n")
        self.events.flush()

    @contextlib.contextmanager
    def subject(self, name: str) -> Iterator[None]:
        """The turn of one layer: all its scenarios."""
        self.compared = 0
        self.emit(subject=name)
        with self.scenario():
            yield
        self.emit(done=self.compared)

    @contextlib.contextmanager
    def scenario(self) -> Iterator[None]:
        """Steps that build on each other: the first that raises ends them."""
        try:
            yield
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit as well: it is the participant's
            if self.current is None and not isinstance(error, SystemExit):
                raise  # not in their code
            message = " ".join(str(error).split())[:200]
            self.problem(f"raises {type(error).__name__}: {message}{_of_python_2(error)}{self._line(error)}")
        finally:
            self.current = None

    @contextlib.contextmanager
    def step(self, text: str) -> Iterator[None]:
        """A call of the participant's code."""
        self.current = text
        self.emit(step=text)
        yield
        self.emit(step=None)

    def problem(self, text: str) -> None:
        self.clean = False
        self.emit(problem=text, step=self.current)

    def same(self, name: str, found: Any, expected: Any, n: int | None = None) -> bool:
        """Compare a result of the current step."""
        self.compared += 1
        text = difference(name, found, expected, n)
        if text is not None:
            self.problem(text)
        return text is None

    def untouched(self, name: str, array: np.ndarray, before: np.ndarray) -> None:
        """That a call left its argument alone."""
        self.compared += 1
        if not np.array_equal(array, before, equal_nan=True):
            self.problem(f"writes into {name}, which it was given")

    def holds(self, true: bool, otherwise: str) -> None:
        """Anything else that must be so."""
        self.compared += 1
        if not true:
            self.problem(otherwise)

    def _line(self, error: BaseException) -> str:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(self.folder)]
        return f" ({os.path.relpath(frames[-1].filename, self.folder)}, line {frames[-1].lineno})" if frames else ""


def _of_python_2(error: BaseException) -> str:
    names = {"xrange", "raw_input", "unicode", "long", "reduce", "cPickle"}
    return ", a name of Python 2" if getattr(error, "name", None) in names else ""


Own = Callable[[str], Any]  # gives the folder's class, or function, of a name
Check = Callable[[Probe, Own], None]
