"""The state of an optimiser after a call, from which the next call continues."""
from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.layer import parameters
from fastnet.program.runner import Moments


class OptimizerState:
    """Velocities, or Adam's moments and its count of steps, after a ``partial_fit``.

    Attributes
    ----------
    optimizer : str
        The name of the optimiser; empty before the first step.
    steps : int
        The number of mini-batches so far.
    moments : dict
        (V,), or Adam's (m, v), of each parameter, by the number of its layer and its name.
    """

    def __init__(self) -> None:
        self.optimizer, self.steps = "", 0
        self.moments: Moments = {}
        self._layers: tuple[Any, ...] = ()

    def fits(self, model: Any, optimizer: str) -> bool:
        """Return whether an optimiser can continue: it, the layers and their parameters' shapes must be the same."""
        layers = tuple(model.layers)
        if self.optimizer != optimizer or len(layers) != len(self._layers):
            return False
        if any(layer is not other for layer, other in zip(layers, self._layers, strict=True)):
            return False
        return all(name in parameters(layers[i]) and np.shape(getattr(layers[i], name)) == np.shape(kept)
                   for (i, name), arrays in self.moments.items() for kept in arrays)

    def keep(self, model: Any, optimizer: str, engine: Any) -> None:
        """Store an engine's state, or nothing if it has diverged."""
        moments = engine.moments()
        finite = all(np.isfinite(kept).all() for arrays in moments.values() for kept in arrays)
        self.optimizer, self._layers = optimizer, tuple(model.layers)
        self.moments, self.steps = (moments, engine.steps) if finite else ({}, 0)
