"""How a learning rate changes over the epochs: what it is multiplied by."""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from fastnet.sweep.spec import CONSTANT

NAMED: dict[str, Callable[[int, int], float]] = {
    "cosine": lambda epoch, epochs: 0.5 * (1 + math.cos(math.pi * epoch / epochs)),
    "linear": lambda epoch, epochs: 1 - epoch / epochs,
    "step": lambda epoch, epochs: 1.0 if 4 * epoch < 3 * epochs else 0.1,
}


def multipliers(schedule: Any, epochs: int, who: str) -> tuple[tuple[str, tuple[float, ...]], ...]:
    """The schedules by name, each as what it multiplies the rate by in every epoch; none for a constant rate.

    Parameters
    ----------
    schedule : str, callable, or dict of these
        A name, ``"constant"``, ``"cosine"``, ``"linear"`` or ``"step"``, or a function of the epoch, from 0.
    epochs : int
    who : str
        Who complains.
    """
    if not isinstance(schedule, Mapping):
        schedule = {schedule if isinstance(schedule, str) else getattr(schedule, "__name__", "schedule"): schedule}
    if not schedule:
        raise ValueError(f"{who}: schedule is an empty dict. {_how()}")
    return tuple((str(name), _values(who, name, how, epochs)) for name, how in schedule.items())


def _values(who: str, name: Any, how: Any, epochs: int) -> tuple[float, ...]:
    if how == CONSTANT:
        return ()
    if isinstance(how, str):
        if how not in NAMED:
            raise ValueError(f"{who}: there is no schedule {how!r}. {_how()}")
        return tuple(NAMED[how](epoch, epochs) for epoch in range(epochs))
    if not callable(how):
        raise TypeError(f"{who}: schedule {name!r} must be a name or a function, got {how!r}. {_how()}")
    found = tuple(float(how(epoch)) for epoch in range(epochs))
    bad = next((epoch for epoch, factor in enumerate(found) if not (math.isfinite(factor) and factor >= 0)), None)
    if bad is not None:
        raise ValueError(f"{who}: schedule {name!r} multiplies the rate by {found[bad]} in epoch {bad}. "
                         "It must be finite and not negative.")
    return found


def _how() -> str:
    return f"Give {', '.join(map(repr, (CONSTANT, *NAMED)))}, or a function of the epoch that returns a factor."
