"""Learning rates and seeds, from lists and from texts."""
from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

_HOW = 'Give a list such as [0.01, 0.1, 1], or a string: "0.01,0.1,1", "1e-3:10:log13" or "0.1:1:lin10".'
_RANGE = re.compile(r"([^:]+):([^:]+):(log|lin)(\d+)")


def rates(lrs: Any) -> tuple[float, ...]:
    """Learning rates from a list, a number, or a grid text.

    Parameters
    ----------
    lrs : iterable of float, float, or str
        A text holds rates and ranges, separated by commas. ``"1e-3:10:log13"`` is 13 rates from 0.001 to 10 with equal
        ratios, ``"0.1:1:lin10"`` 10 rates with equal differences; their values are rounded to 6 digits.

    Returns
    -------
    tuple of float
        In the order given.

    Raises
    ------
    ValueError, TypeError
        If there is no rate, one is not finite and above 0, one comes twice, or the text cannot be read.

    Examples
    --------
    >>> rates("0.01:1:log3, 5")
    (0.01, 0.1, 1.0, 5.0)
    """
    return checked_rates(lrs, "rates")


def checked_rates(lrs: Any, who: str) -> tuple[float, ...]:
    """As `rates`, with the name of who complains."""
    if isinstance(lrs, str):
        found = [rate for part in lrs.split(",") if part.strip() for rate in _part(who, part.strip(), lrs)]
    elif isinstance(lrs, Iterable):
        found = [_rate(who, value) for value in lrs]
    else:
        found = [_rate(who, lrs)]
    if not found:
        raise ValueError(f"{who}: lrs holds no learning rate, got {lrs!r}. {_HOW}")
    known: dict[str, float] = {}  # by 6 digits, with which rates are shown and asked for
    for rate in found:
        other = known.get(f"{rate:.6g}")
        known[f"{rate:.6g}"] = rate
        if other is not None:
            which = f"{rate:g} twice" if other == rate else f"{other!r} and {rate!r}, which are the same to 6 digits"
            raise ValueError(f"{who}: lrs holds {which}. Give each learning rate once; `seeds` repeats trials.")
    return tuple(found)


def is_automatic(lrs: Any) -> bool:
    """Whether the rates are to be found."""
    return isinstance(lrs, str) and lrs.strip() == "auto"


def values(who: str, name: str, given: Any, checked: Callable[[Any], Any]) -> tuple[Any, ...]:
    """One number, or several that differ, each checked."""
    several = given if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    found = tuple(checked(value) for value in several)
    twice = [(one, other) for at, one in enumerate(found) for other in found[:at] if one == other]
    if not found or twice:
        same = f" {twice[0][1]!r} and {twice[0][0]!r} are equal." if twice else ""
        raise ValueError(f"{who}: {name} must hold each value once, and at least one, got {given!r}.{same}")
    return found


def seeds(value: Any, who: str) -> tuple[int, ...]:
    """Seeds from their number, 0, 1, 2, ..., or from a list."""
    if not isinstance(value, Iterable):
        return tuple(range(_whole(who, value, least=1)))
    if isinstance(value, str):
        raise TypeError(f"{who}: seeds must be a number or a list of whole numbers, got the text {value!r}.")
    found = tuple(_whole(who, seed, least=0) for seed in value)
    if not found or len(set(found)) < len(found):
        raise ValueError(f"{who}: seeds must hold each seed once, and at least one, got {list(found)}.")
    return found


def _part(who: str, part: str, text: str) -> list[float]:
    if ":" not in part:
        return [_rate(who, part)]
    match = _RANGE.fullmatch(part.replace(" ", ""))
    if not match:
        raise ValueError(f"{who}: cannot read {part!r} in the grid {text!r}. {_HOW}")
    first, last, count = _rate(who, match[1]), _rate(who, match[2]), int(match[4])
    if count < 1 or (count == 1 and first != last):
        raise ValueError(f"{who}: the grid {part!r} asks for {count} rates from {first:g} to {last:g}. "
                         "Ask for 2 or more.")
    between = np.geomspace if match[3] == "log" else np.linspace
    return [float(f"{rate:.6g}") for rate in between(first, last, count)]


def _rate(who: str, value: Any) -> float:
    try:
        rate = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{who}: a learning rate must be a number, got {value!r}. {_HOW}") from None
    if not (math.isfinite(rate) and rate > 0) or isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{who}: a learning rate must be finite and above 0, got {value!r}. {_HOW}")
    return rate


def _whole(who: str, value: Any, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise ValueError(f"{who}: seeds must be a number of seeds, 1 or more, or a list of whole numbers from 0, "
                         f"got {value!r}.")
    return number
