"""Turns: the processes of a round are alive together, and compute one after the other, for some milliseconds each.

What the machine does to one of them it does to the others as well, so that it cancels in their ratio. Without turns, a
process runs for a second or more before the next one starts, and the machine may have changed.
"""
from __future__ import annotations

import random
import selectors
import socket
import sys
import threading
from collections.abc import Sequence

POSSIBLE = sys.platform != "win32"  # there, a child cannot inherit a socket by its number


class Turns:
    """Grants turns to child processes, each of which holds one end of a pair of sockets.

    A child asks when it is ready and whenever its slice is over, and closes its end when it has done all. Nobody gets a turn
    before all are ready.
    """

    def __init__(self, names: Sequence[str], seed: int):
        self._rng = random.Random(seed)
        pairs = [socket.socketpair() for _ in names]
        self._ours = [ours for ours, _ in pairs]
        self._theirs = {name: theirs for name, (_, theirs) in zip(names, pairs)}
        self._thread = threading.Thread(target=self._grant, daemon=True)

    def descriptor(self, name: str) -> int:
        """The child's end, to be passed on to it."""
        return self._theirs[name].fileno()

    def start(self) -> None:
        """Begin to grant turns; the children have been started."""
        for theirs in self._theirs.values():
            theirs.close()
        self._thread.start()

    def join(self) -> None:
        """Wait until all children have ended, and close what is open; also if some were never started."""
        if self._thread.ident is not None:
            self._thread.join()
        for end in (*self._ours, *self._theirs.values()):
            end.close()

    def _grant(self) -> None:
        with selectors.DefaultSelector() as selector:
            for ours in self._ours:
                selector.register(ours, selectors.EVENT_READ)
            waiting: set[socket.socket] = set()
            while len(waiting) < len(selector.get_map()):
                for key, _ in selector.select():
                    self._hear(selector, key.fileobj, waiting)  # type: ignore[arg-type]
        queue: list[socket.socket] = []
        while waiting:
            queue = [one for one in queue if one in waiting] or self._rng.sample(sorted(waiting, key=self._ours.index),
                                                                                  len(waiting))
            one = queue.pop(0)
            try:
                one.sendall(b"g")
                if not one.recv(1):
                    waiting.discard(one)
            except OSError:
                waiting.discard(one)

    @staticmethod
    def _hear(selector: selectors.BaseSelector, one: socket.socket, waiting: set[socket.socket]) -> None:
        try:
            asked = bool(one.recv(1))
        except OSError:
            asked = False
        if asked:
            waiting.add(one)
        else:  # it ended before it began
            waiting.discard(one)
            selector.unregister(one)
