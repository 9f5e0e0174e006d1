"""How ``fit`` runs: a plan chooses an engine, a loop over epochs drives it.

=================  =====================================================================================
``plan``           estimates what each engine would take, and chooses
``loop``           epochs: order of the data, rates, validation, callbacks, early ends; the same for all
``layerwise``      the reference engine, for any layers
``engine``         the compiled engine, for layers that lower to ops (:mod:`fastnet.lowering`)
``first``          how it trains the first layer: with its weights, in Gram space, or in windows of some hundred rows
=================  =====================================================================================
"""
from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet import _checks
from fastnet.cross_entropy import one_hot
from fastnet.full import FullLayer
from fastnet.training import scoring
from fastnet.training.first import readable_rows
from fastnet.training.history import EpochReport, Evaluation, History
from fastnet.training.loop import Options, train
from fastnet.training.plan import ENGINES, Plan, plan

__all__ = ["EpochReport", "Evaluation", "History", "Plan", "evaluate", "explain", "fit"]


def fit(
    model: Any, x: npt.ArrayLike, y: npt.ArrayLike, epochs: int, lr: Any, batch_size: int = 128, *,
    engine: str = "auto", validation: tuple[npt.ArrayLike, npt.ArrayLike] | None = None, shuffle: bool = False,
    rng: Any = None, momentum: float = 0.0, weight_decay: float = 0.0, early_stop: int | None = None,
    callbacks: Callable[[EpochReport], Any] | Sequence[Callable[[EpochReport], Any]] = (),
    progress: bool | None = None, on_divergence: str = "stop",
) -> np.ndarray:
    """Train a :class:`fastnet.Sequential`; its method ``fit`` describes the arguments."""
    who = "Sequential.fit"
    epochs = _checks.whole_number(who, "epochs", epochs, "It is how often to go through the data.")
    batch_size = _checks.whole_number(who, "batch_size", batch_size, "128 is usual.")
    _checks.choice(who, "engine", engine, ("auto", *ENGINES))
    _checks.choice(who, "on_divergence", on_divergence, ("stop", "raise", "ignore"))
    shuffle, generator = _checks.truth(who, "shuffle", shuffle), _checks.generator(who, rng)
    options = Options(
        epochs=epochs, lr=_checks.schedule(who, lr, epochs), batch_size=batch_size,
        validation=_validation(who, model, validation), rng=_of_orders(generator) if shuffle else None,
        progress=sys.stderr is not None and sys.stderr.isatty() if progress is None
        else _checks.truth(who, "progress", progress),
        callbacks=_checks.callbacks(who, callbacks), momentum=_checks.fraction(who, "momentum", momentum),
        decay=_checks.rate(who, weight_decay, "weight_decay"),
        early_stop=None if early_stop is None else _checks.whole_number(
            who, "early_stop", early_stop, "It is how many epochs to wait for a better loss."),
        on_divergence=on_divergence)
    _check_weights(model)
    on_disk = isinstance(x, np.memmap)  # and perhaps larger than memory
    x, t = _checks.samples_and_targets(who, model, x, y, on_disk=True)
    if x.ndim == 2 and not on_disk and not readable_rows(x):
        x = np.ascontiguousarray(x)
    how = plan(model, x, epochs, batch_size, engine=engine, shuffle=shuffle, momentum=options.momentum,
               decay=options.decay, scored=0 if options.validation is None else len(options.validation[0]))
    return train(model, x, t, options, how)


def explain(
    model: Any, x: npt.ArrayLike, y: npt.ArrayLike, epochs: int, batch_size: int = 128, *, engine: str = "auto",
    validation: tuple[npt.ArrayLike, npt.ArrayLike] | None = None, shuffle: bool = False, momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> Plan:
    """The plan of a fit, which prints as a table; see :meth:`fastnet.Sequential.explain`."""
    who = "Sequential.explain"
    _checks.choice(who, "engine", engine, ("auto", *ENGINES))
    epochs = _checks.whole_number(who, "epochs", epochs, "It is how often to go through the data.")
    batch_size = _checks.whole_number(who, "batch_size", batch_size, "128 is usual.")
    shuffle = _checks.truth(who, "shuffle", shuffle)
    _check_weights(model)
    to_score = _validation(who, model, validation)
    x, _ = _checks.samples_and_targets(who, model, x, y, on_disk=True)
    return plan(model, x, epochs, batch_size, engine=engine, shuffle=shuffle,
                momentum=_checks.fraction(who, "momentum", momentum),
                decay=_checks.rate(who, weight_decay, "weight_decay"), scored=0 if to_score is None else len(to_score[0]))


def evaluate(model: Any, x: npt.ArrayLike, y: npt.ArrayLike) -> Evaluation:
    """Loss and accuracy of a model; see :meth:`fastnet.Sequential.evaluate`."""
    return scoring.evaluate(model, *labelled("Sequential.evaluate", model, x, y))


def _check_weights(model: Any) -> None:
    """That weights are of the shapes which their layers' sizes ask for: compiled engines go by the sizes."""
    for layer in model.layers:
        if isinstance(layer, FullLayer):
            for name, shape in (("W", (layer.n_o, layer.n_i)), ("b", (1, layer.n_o))):
                array = getattr(layer, name)
                _checks.own_shape(layer, name, array, shape, array.dtype)


def _validation(who: str, model: Any, given: Any) -> tuple[np.ndarray, np.ndarray] | None:
    if given is None:
        return None
    return labelled(who, model, *_checks.pair(who, "validation", given))


def labelled(who: str, model: Any, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Samples with one-hot targets, or with labels, as the course's test data have them."""
    width = model.output_width()
    if np.ndim(y) == 1 and width is not None:
        y = one_hot(_checks.labels(who, y, width)[0], width)
    return _checks.samples_and_targets(who, model, x, y)


def _of_orders(rng: Any) -> Any:
    """The generator of the epochs' orders: the one given, or one that NumPy's global state decides, as for the weights."""
    return np.random.default_rng(np.random.randint(2**31)) if rng is np.random else rng
