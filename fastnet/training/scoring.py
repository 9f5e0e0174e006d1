"""How well a model does on data with known targets: its own outputs, its own loss."""
from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.base import checks
from fastnet.base.attributes import snapshot
from fastnet.base.modes import in_mode
from fastnet.layer import inherits, known_class
from fastnet.training.eligibility import of_images, why_not_compiled, why_not_loss, why_not_model
from fastnet.training.history import Evaluation
from fastnet.training.lazy import without_arrays
from fastnet.training.prediction import Predictor

_CHUNK = 4096  # rows that go through the layers at once when there is nothing to learn


def evaluate(model: Any, x: np.ndarray, t: np.ndarray) -> Evaluation:
    """Loss and accuracy of a model, by its own loss and by its own ``predict``, if it is of a class that has its own."""
    y = outputs(model, x)
    with in_mode(model, False):
        loss = loss_of(model.loss, y, t)
    if not inherits(model, known_class(model), "predict") and is_classes(t):
        return Evaluation(loss, float(np.mean(np.asarray(model.predict(x)) == t.argmax(1))))
    return Evaluation(loss, accuracy(y, t))


def accuracy(y: np.ndarray, t: np.ndarray) -> float:
    """Share of samples whose largest output is that of the target; NaN where the targets are not classes."""
    if np.shape(y) != t.shape or not is_classes(t):
        return float("nan")
    return float(np.mean(y.argmax(1) == t.argmax(1)))


def is_classes(t: np.ndarray) -> bool:
    """Whether targets are one-hot or soft labels: two classes at least, and rows of probabilities."""
    return (t.ndim == 2 and t.shape[1] > 1 and bool(np.all(t >= 0))
            and bool(np.all(np.abs(t.sum(axis=1) - 1) <= checks.SOFT_LABEL_ERROR)))


def loss_of(loss: Any, y: np.ndarray, t: np.ndarray) -> float:
    """What a loss layer says of these outputs and targets; what it remembers stays as it was."""
    if why_not_loss(loss) is None:
        return float(without_arrays(loss).forward(y, t))  # a copy, as the trials of a sweep may share the original
    restore = snapshot((loss,), copy=True)
    try:
        return checks.loss_value(loss, loss.forward(np.array(y), np.array(t)))
    finally:
        restore()


def outputs(model: Any, x: np.ndarray) -> np.ndarray:
    """What the last layer gives, a few thousand rows at a time; what the layers remember stays as it was."""
    if of_images(model.layers) and why_not_compiled(model, x.shape[1:]) is None:
        return Predictor(model, x)(x)
    restore = snapshot((*model.layers, model.loss), copy=True)
    own = why_not_model(model) is not None  # its forward may write into what it is given
    try:
        with in_mode(model, False):
            return np.concatenate([model.forward(converted(x[i:i + _CHUNK], model.dtype, copy=own))
                                   for i in range(0, len(x), _CHUNK)])
    finally:
        restore()


def converted(x: np.ndarray, dtype: np.dtype | None, copy: bool = False) -> np.ndarray:
    """Rows of data in the dtype of the model; rows that are so already are copied only if that is asked for."""
    return np.array(x, dtype, copy=True) if copy else np.asarray(x, dtype)
