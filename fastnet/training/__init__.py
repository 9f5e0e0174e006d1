"""Training: a plan chooses an engine, and a loop over epochs runs it.

=================  =====================================================================================
``options``        the arguments of a fit: one record, checked once
``plan``           estimates the cost of each engine, and chooses one
``resuming``       the state of an optimiser, for the next ``partial_fit``
``loop``           epochs: order of the data, rates, validation, callbacks, early stop; the same for all engines
``layerwise``      the reference engine, for any layers
``engine``         the compiled engine, for layers that lower to ops (:mod:`fastnet.program`)
``first``          how it trains the first layer: by its weights, or in Gram space over all rows or windows of them
=================  =====================================================================================
"""
from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet.base import checks
from fastnet.layer import learned
from fastnet.training import scoring
from fastnet.training.first import readable_rows
from fastnet.training.history import EpochReport, Evaluation, History
from fastnet.training.loop import train
from fastnet.training.options import FitOptions, labelled
from fastnet.training.plan import Plan, plan
from fastnet.training.resuming import OptimizerState

__all__ = ["EpochReport", "Evaluation", "History", "Plan", "FitOptions", "OptimizerState", "evaluate", "explain", "fit",
           "labelled", "partial_fit"]


def fit(model: Any, x: npt.ArrayLike, y: npt.ArrayLike, who: str = "Sequential.fit", **given: Any) -> np.ndarray:
    """Train a :class:`fastnet.Sequential`; its method ``fit`` describes the arguments.

    With a `state` it continues from there, and stores the optimiser's new state there.
    """
    options = FitOptions.checked(who, model, **given)
    x, t = _data(who, model, x, y)
    model.optimizer_state = None
    return train(model, x, t, options, plan(model, x, options))


def partial_fit(model: Any, x: npt.ArrayLike, y: npt.ArrayLike, **given: Any) -> float:
    """Train for one epoch, continuing from the last call; see :meth:`fastnet.Sequential.partial_fit`."""
    before = model.optimizer_state
    state = OptimizerState() if before is None else copy.copy(before)
    try:
        return float(fit(model, x, y, "Sequential.partial_fit", epochs=1, progress=False, state=state, **given)[0])
    finally:
        model.optimizer_state = state if state.optimizer else before


def explain(model: Any, x: npt.ArrayLike, y: npt.ArrayLike, **given: Any) -> Plan:
    """Return the plan of a fit, which prints as a table; see :meth:`fastnet.Sequential.explain`."""
    who = "Sequential.explain"
    options = FitOptions.checked(who, model, lr=0.0, **given)
    return plan(model, _data(who, model, x, y)[0], options)


def _data(who: str, model: Any, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Check the samples and targets of a fit; memory-mapped samples stay on disk."""
    _check_weights(model)
    on_disk = isinstance(x, np.memmap)  # and perhaps larger than memory
    x, t = checks.samples_and_targets(who, model, x, y, on_disk=True)
    return np.ascontiguousarray(x) if x.ndim == 2 and not on_disk and not readable_rows(x) else x, t


def evaluate(model: Any, x: npt.ArrayLike, y: npt.ArrayLike) -> Evaluation:
    """Compute loss and accuracy of a model; see :meth:`fastnet.Sequential.evaluate`."""
    return scoring.evaluate(model, *labelled("Sequential.evaluate", model, x, y))


def _check_weights(model: Any) -> None:
    """Check that weights have the shapes of their layers' sizes, which the compiled engines rely on."""
    for layer in model.layers:
        for name, kept in learned(layer).items():
            array = getattr(layer, name)
            checks.own_shape(layer, name, array, kept.shape(layer), array.dtype, kept.sizes)
