"""A model, or an estimator, serves one thread at a time: others wait for short calls, and are refused during a fit."""
from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

Method = TypeVar("Method", bound=Callable[..., Any])


class OneThread:
    """A lock that its owner's methods hold. It may be entered again by the thread that holds it.

    A fit may take hours, and may wait in a callback for the very thread that asks: nobody waits for one.
    """

    __slots__ = ("__weakref__", "_fitting", "_lock")

    def __init__(self) -> None:
        self.free()
        _all.add(self)

    def free(self) -> None:
        """Forget who holds it."""
        self._lock, self._fitting = threading.RLock(), 0

    def enter(self, who: str, long: bool) -> None:
        """Take the lock; wait for it while another thread holds it for a short call.

        Raises
        ------
        RuntimeError
            If another thread holds it for a long call.
        """
        while not self._lock.acquire(timeout=0.1 if not self._fitting else 0):
            if self._fitting:
                raise RuntimeError(f"{who}: another thread is training this model, and a model serves one thread at a time. "
                                   "Give each thread its own, for instance copy.deepcopy(model).")
        self._fitting += long

    def leave(self, long: bool) -> None:
        """Give the lock back."""
        self._fitting -= long
        self._lock.release()

    def __reduce__(self) -> Any:
        return OneThread, ()  # a copy is free

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OneThread)  # of two owners, nothing that matters

    __hash__ = object.__hash__


_all: weakref.WeakSet[OneThread] = weakref.WeakSet()


def _free_all() -> None:
    """In a child made by fork, the threads that held the locks are gone."""
    for lock in list(_all):
        lock.free()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_all)


def one_thread(long: bool = False) -> Callable[[Method], Method]:
    """Decorator: a method that holds its object's lock, ``_in_use``; `long` if it trains."""

    def decorate(method: Method) -> Method:
        name = method.__qualname__

        @functools.wraps(method)
        def alone(self: Any, *given: Any, **options: Any) -> Any:
            lock = self.__dict__.get("_in_use") or self.__dict__.setdefault("_in_use", OneThread())
            lock.enter(name, long)
            try:
                return method(self, *given, **options)
            finally:
                lock.leave(long)

        return alone  # type: ignore[return-value]

    return decorate
