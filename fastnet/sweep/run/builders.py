"""The functions that build the networks of a sweep."""
from __future__ import annotations

import inspect
import pickle
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastnet.layer import parameters
from fastnet.sequential import Sequential
from fastnet.sweep.run.randomness import turns
from fastnet.training.eligibility import unsupported_copies_reason


class Builders:
    """The functions that build networks, watched: what they return is fresh, and decided by the seed."""

    def __init__(self, build: Any) -> None:
        builders = dict(build) if isinstance(build, Mapping) else {"": build}
        if not builders:
            raise ValueError("lr_sweep: build is an empty dict. Give at least one function that builds a network.")
        for name, function in builders.items():
            if not isinstance(name, str) or (isinstance(build, Mapping) and not name):
                raise TypeError(f"lr_sweep: the keys of build must be names, got {name!r}.")
            if isinstance(function, Sequential) or not callable(function):
                raise TypeError(f"lr_sweep: {_who(name)} must be a function that builds a network, got {function!r}. "
                                "Write: def build(rng): return Sequential(...).")
        self.functions: dict[str, Callable[[np.random.Generator], Any]] = builders
        self.turns = turns()
        self._seen: list[weakref.ref[Any]] = []

    @property
    def names(self) -> tuple[str, ...]:
        """Of the builders; an empty one if there is only one function."""
        return tuple(self.functions)

    def build(self, name: str, seed: int) -> Sequential:
        """A network with the weights of a seed.

        The global generators are seeded for the call and put back, so that layers made without `rng` have these too.
        """
        with self.turns.taken(seed):
            model = self._called(name, np.random.default_rng(seed))
        if not isinstance(model, Sequential):
            raise TypeError(f"lr_sweep: {_who(name)} must return a fastnet.Sequential, got {model!r}.")
        reason = unsupported_copies_reason(model)
        if reason is not None:
            raise TypeError(f"lr_sweep: {reason}.")
        self._refuse_known(name, model)
        return model

    def _called(self, name: str, rng: np.random.Generator) -> Any:
        function = self.functions[name]
        try:
            inspect.signature(function).bind(rng)
        except TypeError:
            raise TypeError(f"lr_sweep: {_who(name)} must take one argument, the generator to draw weights from. Write: "
                            "def build(rng): return Sequential(...), with FullLayer(3072, 500, rng=rng).") from None
        except ValueError:  # a callable whose signature cannot be seen
            pass
        return function(rng)

    def first(self, name: str, seeds: tuple[int, ...], shuffle: bool) -> Sequential:
        """The network of the first seed, after a look at the function: the seed, and nothing else, decides the weights."""
        model, again = self.build(name, seeds[0]), self.build(name, seeds[0])
        if not _equal_weights(model, again):
            raise ValueError(
                f"lr_sweep: {_who(name)} gave two networks of different weights for the same seed, {seeds[0]}. "
                "Draw them from its argument: FullLayer(3072, 500, rng=rng).")
        other = self.build(name, seeds[1]) if len(seeds) > 1 and not shuffle else None
        if other is not None and _equal_weights(model, other) and not _draws_elsewhere(model, other):
            raise ValueError(
                f"lr_sweep: {_who(name)} gave seeds {seeds[0]} and {seeds[1]} the same first weights, and the rows are not "
                "shuffled: all seeds would train alike, and say nothing about chance. Draw the weights from its argument, "
                "FullLayer(3072, 500, rng=rng), and seed nothing inside. If they are to be the same, because they are "
                "loaded, give shuffle=True or seeds=1.")
        return model

    def _refuse_known(self, name: str, model: Sequential) -> None:
        parts = [model, *(layer for layer in model.layers if parameters(layer))]
        known = [part for part in (ref() for ref in self._seen) if part is not None]
        for part in parts:
            if any(part is other for other in known):
                what = "network" if part is model else f"layer {part!r}"
                raise ValueError(
                    f"lr_sweep: {_who(name)} returned the same {what} twice; what one trial learns would leak into the "
                    "next. Make new layers in every call.")
            try:
                self._seen.append(weakref.ref(part))
            except TypeError:  # a user's layer with __slots__
                continue


def _equal_weights(model: Sequential, other: Sequential) -> bool:
    """Whether all weights are the same."""
    return all(np.array_equal(getattr(layer, attribute), getattr(twin, attribute))
               for layer, twin in zip(model.layers, other.layers) for attribute in parameters(layer))


def _draws_elsewhere(model: Sequential, other: Sequential) -> bool:
    """Whether layers without weights differ, as those do that keep a generator (dropout), or there are no weights."""
    rest = [(layer, twin) for layer, twin in zip(model.layers, other.layers) if not parameters(layer)]
    try:
        return len(rest) == len(model.layers) or any(pickle.dumps(layer) != pickle.dumps(twin) for layer, twin in rest)
    except Exception:  # a user's layer that cannot be pickled
        return True


def _who(name: str) -> str:
    return f"build[{name!r}]" if name else "build"
