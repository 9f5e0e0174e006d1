"""The choice of ``Sequential``: fastnet's class, or the folder's class with fastnet's layers."""

from __future__ import annotations

from typing import Any

import fastnet
from fastnet.dropin._ask import ask
from fastnet.dropin._local import Source


def choose(local: Source) -> Any:
    """Return fastnet's class, unless a script could notice the difference from the folder's class.

    A script may use methods that only the folder's class has, or rely on the return values of its ``fit`` and ``predict``.
    fastnet finds this out before training.

    Parameters
    ----------
    local : Source
        The folder's ``sequential.py``, or its single file with all layers.
    """
    if local.path is None or "Sequential" not in local.defined():
        return fastnet.Sequential
    answer = ask("sequential", local.path)
    if "failed" in answer:
        local.say(f"Sequential is fastnet's, because that of {local.path} does not work: {answer['failed']}")
        return fastnet.Sequential
    if answer["own"] is None:
        return fastnet.Sequential
    local.say(f"Sequential is that of {local.path}, with fastnet's layers, because {answer['own']}")
    return local.value("Sequential")
