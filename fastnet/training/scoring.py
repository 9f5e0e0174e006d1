"""Loss and accuracy of a model on data with known targets."""
from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.base import checks
from fastnet.base.attributes import snapshot
from fastnet.base.modes import in_mode
from fastnet.layer import inherits, known_class
from fastnet.training.eligibility import of_images, unsupported_loss_reason, unsupported_model_reason, unsupported_reason
from fastnet.training.history import Evaluation
from fastnet.training.lazy import without_arrays
from fastnet.training.prediction import Predictor

_CHUNK = 4096  # rows per forward pass in prediction


def evaluate(model: Any, x: np.ndarray, t: np.ndarray) -> Evaluation:
    """Compute the loss of a model, and its accuracy, by the model's ``predict`` if its class overrides that."""
    y = outputs(model, x)
    with in_mode(model, False):
        loss = loss_of(model.loss, y, t)
    if not inherits(model, known_class(model), "predict") and is_classes(t):
        return Evaluation(loss, float(np.mean(np.asarray(model.predict(x)) == t.argmax(1))))
    return Evaluation(loss, accuracy(y, t))


def accuracy(y: np.ndarray, t: np.ndarray) -> float:
    """Compute the share of samples whose largest output is at the target's class; NaN if the targets are not classes."""
    if np.shape(y) != t.shape or not is_classes(t):
        return float("nan")
    return float(np.mean(y.argmax(1) == t.argmax(1)))


def is_classes(t: np.ndarray) -> bool:
    """Return whether targets are one-hot or soft labels: rows of probabilities of at least two classes."""
    return (t.ndim == 2 and t.shape[1] > 1 and bool(np.all(t >= 0))
            and bool(np.all(np.abs(t.sum(axis=1) - 1) <= checks.SOFT_LABEL_ERROR)))


def loss_of(loss: Any, y: np.ndarray, t: np.ndarray) -> float:
    """Compute a loss of outputs and targets without changing the values that the loss layer stores."""
    if unsupported_loss_reason(loss) is None:
        return float(without_arrays(loss).forward(y, t))  # a copy, as the trials of a sweep may share the original
    restore = snapshot((loss,), copy=True)
    try:
        return checks.loss_value(loss, loss.forward(np.array(y), np.array(t)))
    finally:
        restore()


def outputs(model: Any, x: np.ndarray) -> np.ndarray:
    """Compute the last layer's output, a few thousand rows at a time, without changing the values that layers store."""
    if of_images(model.layers) and unsupported_reason(model, x.shape[1:]) is None:
        return Predictor(model, x)(x)
    restore = snapshot((*model.layers, model.loss), copy=True)
    own = unsupported_model_reason(model) is not None  # its forward may write into its input
    try:
        with in_mode(model, False):
            return np.concatenate([model.forward(converted(x[i:i + _CHUNK], model.dtype, copy=own))
                                   for i in range(0, len(x), _CHUNK)])
    finally:
        restore()


def converted(x: np.ndarray, dtype: np.dtype | None, copy: bool = False) -> np.ndarray:
    """Convert rows of data to the dtype of the model; rows of that dtype are copied only with ``copy``."""
    return np.array(x, dtype, copy=True) if copy else np.asarray(x, dtype)
