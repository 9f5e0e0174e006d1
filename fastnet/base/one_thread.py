"""The lock of a model or an estimator: other threads wait during short calls, and get an error during a fit."""
from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

Method = TypeVar("Method", bound=Callable[..., Any])


class OneThread:
    """A re-entrant lock that the methods of its object hold.

    No thread waits for a fit: it may take hours, and a callback of it may be waiting for that very thread.
    """

    __slots__ = ("__weakref__", "_fitting", "_lock")

    def __init__(self) -> None:
        self.free()
        _all.add(self)

    def free(self) -> None:
        """Reset the lock, without a holder."""
        self._lock, self._fitting = threading.RLock(), 0

    def enter(self, who: str, long: bool) -> None:
        """Acquire the lock; wait while another thread holds it for a short call.

        Raises
        ------
        RuntimeError
            If another thread holds it for a long call.
        """
        while not self._lock.acquire(timeout=0.1 if not self._fitting else 0):
            if self._fitting:
                raise RuntimeError(f"{who}: another thread is training this model, and only one thread at a time can use a "
                                   "model. Give each thread its own copy, for instance copy.deepcopy(model).")
        self._fitting += long

    def leave(self, long: bool) -> None:
        """Release the lock."""
        self._fitting -= long
        self._lock.release()

    def __reduce__(self) -> Any:
        return OneThread, ()  # a copy is free

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OneThread)  # locks do not make two models different

    __hash__ = object.__hash__


_all: weakref.WeakSet[OneThread] = weakref.WeakSet()


def _free_all() -> None:
    """Reset all locks in a child made by fork, which has none of the threads that held them."""
    for lock in list(_all):
        lock.free()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_all)


def one_thread(long: bool = False) -> Callable[[Method], Method]:
    """Decorate a method to hold its object's lock, ``_in_use``; `long` means that it trains."""

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
