"""Which class ``Sequential`` is: fastnet's, or the folder's own around fastnet's layers."""

from __future__ import annotations

from typing import Any

import fastnet
from fastnet.dropin._ask import ask
from fastnet.dropin._local import Source


def choose(local: Source) -> Any:
    """fastnet's class, unless a script could see that the folder's own is another one.

    A script may use methods that only its own class has, or count on what its ``fit`` and ``predict`` return. That is found
    out before anything is trained.

    Parameters
    ----------
    local : Source
        The folder's ``sequential.py``, or its single file.
    """
    if local.path is None or "Sequential" not in local.defined():
        return fastnet.Sequential
    answer = ask("sequential", local.path)
    if "failed" in answer:
        local.say(f"Sequential is fastnet's; that of {local.path} cannot be used: {answer['failed']}")
        return fastnet.Sequential
    if answer["own"] is None:
        return fastnet.Sequential
    local.say(f"Sequential is that of {local.path}, around fastnet's layers, since {answer['own']}")
    return local.value("Sequential")
