"""The right layers of a small network, which record how a Sequential calls them."""

from __future__ import annotations

import itertools
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastnet.check._cases import drawn
from fastnet.check._observe import agree
from fastnet.check._reference import CLASSES, Sequential


@dataclass
class Result:
    """One quantity: the value of the folder's class, the right value, and the reason for the difference if it is known."""

    found: Any = None
    expected: Any = None
    slip: str | None = None
    error: BaseException | None = None
    wrong: bool = False


@dataclass
class Observed:
    """All quantities of a Sequential, and remarks about it."""

    results: dict[str, Result] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def wrong(self) -> list[str]:
        return [name for name, result in self.results.items() if result.wrong]

    def compare(self, name: str, found: Any, expected: Any, slips: dict[str, Callable[[], Any]]) -> None:
        if agree(found, expected, name):
            self.results.setdefault(name, Result(found, expected))
        elif not (name in self.results and self.results[name].wrong):
            self.results[name] = Result(found, expected, _first(slips, found), wrong=True)


def _first(slips: dict[str, Callable[[], Any]], found: Any) -> str | None:
    for text, variant in slips.items():
        try:
            value = variant()
        except Exception:  # the wrong numbers of this mistake do not exist here
            continue
        if (found is None and value is None) or (value is not None and agree(found, value, "the losses")):
            return text
    return None


class Parts:
    """The right layers of a small network, which record every call of their methods.

    Parameters
    ----------
    own : dict
        The folder's classes by name. The right layers are instances of these, too, for code that uses isinstance.
    widths : tuple of int
    relu : bool
        Whether a ReLU stands between the others.
    """

    def __init__(self, own: dict[str, type], widths: tuple[int, ...] = (6, 5, 3), relu: bool = True) -> None:
        self.events: list[tuple[Any, ...]] = []
        stack: list[Any] = []
        for n_i, n_o in itertools.pairwise(widths):
            full = _instance("FullLayer", own, n_i, n_o)
            full.W, full.b = drawn((n_o, n_i), n_i, 0.5), drawn((1, n_o), n_o, 0.1)
            stack += [full, _instance("ReluLayer", own)] if relu and n_o != widths[-1] else [full]
        self.layers = [*stack, _instance("SoftMaxLayer", own)]
        self.loss = _instance("CrossEntropyLayer", own)
        self.right = Sequential(tuple(self.layers), self.loss)
        for i, layer in enumerate([*self.layers, self.loss]):
            self._watch(layer, i)

    def _watch(self, layer: Any, i: int) -> None:
        for name in ("forward", "backward", "update_param"):
            method = getattr(layer, name)

            def spy(*args: Any, _method: Any = method, _name: str = name, **options: Any) -> Any:
                value = _method(*args, **options)
                self.events.append((_name, i, args or tuple(options.values()), value))
                return value

            setattr(layer, name, spy)
            if name == "update_param":
                layer.update_params = spy

    def parameters(self) -> np.ndarray:
        return np.concatenate([np.ravel(p) for layer in self.layers if hasattr(layer, "W") for p in (layer.W, layer.b)])


def _instance(name: str, own: dict[str, type], *arguments: int) -> Any:
    right = CLASSES[name]
    try:
        made = types.new_class(name, (right, own[name])) if name in own else right
    except TypeError:
        made = right
    layer = object.__new__(made)
    right.__init__(layer, *arguments)
    return layer


def attempt(seen: Observed, name: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too
        if not (name in seen.results and seen.results[name].wrong):
            seen.results[name] = Result(error=error, wrong=True)
        return None


def failed(seen: Observed, name: str) -> bool:
    return name in seen.results and seen.results[name].error is not None


def batch(n: int = 20) -> tuple[np.ndarray, np.ndarray]:
    x = drawn((n, 6), 3)
    return x, np.eye(3)[np.random.default_rng(5).integers(0, 3, n)]
