"""Common mistakes in the layers of the next chapter and in updates, each with the wrong numbers that it causes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet.check._cases import name_of
from fastnet.check._observe import LR, Step
from fastnet.check._reference import CLASSES

Variant = Callable[[Step], Any]
Row = tuple[str, str, Variant]  # the quantity, the mistake, and the function that computes its wrong numbers

FROM_BATCH_BEFORE = "x is that of an earlier batch: forward does not store its input each time"


def again(step: Step) -> Step:
    assert step.before is not None
    return step.before


def _of_layer(stem: str, what: str, **change: Callable[[Step], Any]) -> Variant:
    """Return a function that computes a quantity of the right layer for another x, g, W or b."""

    def variant(c: Step) -> Any:
        layer: Any = CLASSES[name_of(stem)](*c.case.arguments)
        given = {name: change[name](c) if name in change else getattr(c, name) for name in ("x", "g", "W", "b")}
        if hasattr(layer, "W"):
            layer.W, layer.b = given["W"], given["b"]
        y = layer.forward(given["x"])
        return y if what == "the output" else (x_grad if (x_grad := layer.backward(given["g"])) is not None
                                               and what == "the gradient of x" else getattr(layer, what))

    return variant


PARAMETER_SLIPS: list[Row] = [
    (p, text, variant)
    for p in ("W", "b")
    for text, variant in (
        ("the update is added; to lower the loss it is subtracted", lambda c, p=p: 2 * getattr(c, p) - c.expected[p]),
        ("the learning rate is left out", lambda c, p=p: getattr(c, p) - (getattr(c, p) - c.expected[p]) / LR),
        ("the parameter is not updated", lambda c, p=p: getattr(c, p)),
        ("the parameter is replaced by its step", lambda c, p=p: getattr(c, p) - c.expected[p]),
        ("the parameter is replaced by the negative of its step", lambda c, p=p: c.expected[p] - getattr(c, p)),
        ("the step is divided by the learning rate, not multiplied",
         lambda c, p=p: getattr(c, p) - (getattr(c, p) - c.expected[p]) / LR**2),
        ("the learning rate counts twice", lambda c, p=p: getattr(c, p) - (getattr(c, p) - c.expected[p]) * LR),
        ("the step is divided by the number of samples", lambda c, p=p: getattr(c, p) - (getattr(c, p) - c.expected[p]) / len(c.x)),
        ("the parameter shrinks as well: it is multiplied", lambda c, p=p: getattr(c, p) * (getattr(c, p) - c.expected[p])),
        ("the sign of the parameter is reversed", lambda c, p=p: c.expected[p] - 2 * getattr(c, p)),
        ("the update happens twice", lambda c, p=p: 2 * c.expected[p] - getattr(c, p)),
    )
]

IMAGE_SLIPS: dict[str, list[Row]] = {
    "conv": [
        ("the output", "the bias b is left out", _of_layer("conv", "the output", b=lambda c: 0 * c.b)),
        ("the output", "the bias b is subtracted", _of_layer("conv", "the output", b=lambda c: -c.b)),
        ("the output", "the filter is turned by 180 degrees: a convolution, where a cross-correlation is meant",
         _of_layer("conv", "the output", W=lambda c: c.W[:, :, ::-1, ::-1])),
        ("the output", "rows and columns of the filter are exchanged", _of_layer("conv", "the output", W=lambda c: c.W.swapaxes(2, 3))),
        ("the output", "only the last input channel counts: the sum over the channels is missing", _of_layer(
            "conv", "the output", x=lambda c: np.where(np.arange(c.x.shape[1])[:, None, None] < c.x.shape[1] - 1, 0, c.x))),
        ("the output", "only the first input channel counts: the sum over the channels is missing", _of_layer(
            "conv", "the output", x=lambda c: np.where(np.arange(c.x.shape[1])[:, None, None] > 0, 0, c.x))),
        ("the output", "b is added once for each input channel", _of_layer("conv", "the output", b=lambda c: c.b * c.x.shape[1])),
        ("the gradient of x", "the filter is not turned: it must be, by 180 degrees, in the backward pass",
         _of_layer("conv", "the gradient of x", W=lambda c: c.W[:, :, ::-1, ::-1])),
        ("the gradient of x", "rows and columns of the filter are exchanged", _of_layer("conv", "the gradient of x", W=lambda c: c.W.swapaxes(2, 3))),
        ("the gradient of x", "only the last output channel counts: the sum over the channels is missing", _of_layer(
            "conv", "the gradient of x", g=lambda c: np.where(np.arange(c.g.shape[1])[:, None, None] < c.g.shape[1] - 1, 0, c.g))),
        ("W_grad", "it is turned by 180 degrees", lambda c: c.expected["W_grad"][:, :, ::-1, ::-1]),
        ("W_grad", "rows and columns are exchanged", lambda c: c.expected["W_grad"].swapaxes(2, 3)),
        ("W_grad", "it is averaged over the batch; the loss has the factor 1/n already", lambda c: c.expected["W_grad"] / len(c.x)),
        ("W_grad", FROM_BATCH_BEFORE, _of_layer("conv", "W_grad", x=lambda c: again(c).x)),
        ("W_grad", "only the last sample counts: the sum over the batch is missing",
         _of_layer("conv", "W_grad", x=lambda c: c.x[-1:], g=lambda c: c.g[-1:])),
        ("W_grad", "only the first sample counts: the sum over the batch is missing",
         _of_layer("conv", "W_grad", x=lambda c: c.x[:1], g=lambda c: c.g[:1])),
        ("b_grad", "it is a mean over samples, rows and columns; the equation has a sum", lambda c: c.g.mean(axis=(0, 2, 3))),
        ("b_grad", "it is averaged over the batch; the loss has the factor 1/n already", lambda c: c.g.sum(axis=(0, 2, 3)) / len(c.x)),
        ("b_grad", "everything is summed into one number", lambda c: c.g.sum()),
        ("b_grad", "only the last sample counts", lambda c: c.g[-1].sum(axis=(1, 2))),
        ("b_grad", "the sum over rows and columns is missing", lambda c: c.g.sum(axis=0)),
        *PARAMETER_SLIPS],
    "maxpool": [
        ("the output", "the mean of each window is taken, not its largest value", lambda c: _windows(c).mean(axis=(3, 5))),
        ("the output", "the smallest value of each window is taken, not the largest", lambda c: _windows(c).min(axis=(3, 5))),
        ("the output", "the values of each window are summed", lambda c: _windows(c).sum(axis=(3, 5))),
        ("the output", "the first value of each window is taken, not the largest", lambda c: _windows(c)[:, :, :, 0, :, 0]),
        ("the gradient of x", "of equal largest values only the first gets the gradient; each of them gets all of it", lambda c: _pooled(c, "first")),
        ("the gradient of x", "equal largest values share the gradient; each of them gets all of it", lambda c: _pooled(c, "share")),
        ("the gradient of x", "every value of a window gets the gradient, not the largest alone", lambda c: _pooled(c, "all")),
        ("the gradient of x", "every value of a window gets an equal share, as for a mean", lambda c: _pooled(c, "all") / c.case.arguments[0] ** 2),
        ("the gradient of x", "y_grad is left out: it is the mask of the largest values", lambda c: _pooled(c, "mask")),
        ("the gradient of x", "the gradient goes to all values but the largest", lambda c: _pooled(c, "all") - c.expected["the gradient of x"])],
    "flatten": [
        ("the output", "the channels come last: (n, r, k, c) is flattened", lambda c: c.x.transpose(0, 2, 3, 1).reshape(len(c.x), -1)),
        ("the output", "columns come before rows", lambda c: c.x.swapaxes(2, 3).reshape(len(c.x), -1)),
        ("the output", "the whole batch becomes one row", lambda c: c.x.reshape(1, -1)),
        ("the output", "the batch is flattened as well", lambda c: c.x.ravel()),
        ("the output", "it is transposed", lambda c: c.x.reshape(len(c.x), -1).T),
        ("the output", "values are read in Fortran's order", lambda c: c.x.reshape((len(c.x), -1), order="F")),
        ("the gradient of x", "it is not reshaped", lambda c: c.g),
        ("the gradient of x", "values are read in Fortran's order", lambda c: c.g.reshape(c.x.shape, order="F"))],
}


def _windows(c: Step) -> Any:
    s = c.case.arguments[0]
    n, channels, rows, columns = c.x.shape
    r, k = rows // s, columns // s
    return c.x[:, :, : r * s, : k * s].reshape(n, channels, r, s, k, s)


def _pooled(c: Step, how: str) -> Any:
    windows = _windows(c)
    n, channels, r, s, k, _ = windows.shape
    mask = (windows == windows.max(axis=(3, 5), keepdims=True)).astype(float)
    flat = mask.transpose(0, 1, 2, 4, 3, 5).reshape(n, channels, r, k, s * s)
    if how == "first":
        flat = flat * (flat.cumsum(axis=-1) == 1)
    if how == "share":
        flat = flat / flat.sum(axis=-1, keepdims=True)
    if how == "all":
        flat = np.ones_like(flat)
    spread = flat.reshape(n, channels, r, k, s, s).transpose(0, 1, 2, 4, 3, 5)
    out = np.zeros(c.x.shape)
    weight = 1 if how == "mask" else c.g[:, :, :, None, :, None]
    out[:, :, : r * s, : k * s] = (spread * weight).reshape(n, channels, r * s, k * s)
    return out
