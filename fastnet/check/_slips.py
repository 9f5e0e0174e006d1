"""Common mistakes ("slips"), each with a function that computes the wrong numbers that it causes.

The check names a slip only if it explains every wrong value of its quantity, in all batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from fastnet.check._image_slips import FROM_BATCH_BEFORE, IMAGE_SLIPS, PARAMETER_SLIPS, Row, Variant, again
from fastnet.check._observe import Step, agree


def named(stem: str, quantity: str, steps: Iterable[Step]) -> str | None:
    """Return the slip that explains the wrong values of a quantity; None if none does.

    Parameters
    ----------
    stem : str
    quantity : str
    steps : iterable of Step
    """
    wrong = [step for step in steps if step.error is None and quantity in step.wrong()]
    if not wrong:
        return None
    for remark in wrong[0].remarks:
        if quantity == "the output" and remark.startswith(("the next forward", "the output is a view")):
            return remark
    for about, text, variant in (*SLIPS[stem], *_general(quantity)):
        if about == quantity and all(_explains(variant, step, quantity) for step in wrong):
            return text
    return None


def _explains(variant: Variant, step: Step, quantity: str) -> bool:
    if step.found[quantity] is None:
        return False
    try:
        with np.errstate(all="ignore"):
            value = variant(step)
    except Exception:  # the variant does not exist for these shapes
        return False
    found = step.found[quantity]
    return agree(found, value, quantity) or (np.size(value) == 1 and np.size(found) == 1 and agree(np.ravel(found), np.ravel(value)))


def _sum_before(quantity: str) -> Variant:
    def variant(c: Step) -> Any:
        total, step = c.expected[quantity], c.before
        while step is not None:
            total, step = total + step.expected[quantity], step.before
        return total

    return variant


def _general(quantity: str) -> list[Row]:
    """Return the slips that any quantity can have."""

    def of(change: Callable[[Any, Step], Any]) -> Variant:
        return lambda c: change(c.expected[quantity], c)

    rows: list[tuple[str, Callable[[Any, Step], Any]]] = [
        ("the sign is reversed", lambda e, c: -e),
        ("it is divided by the number of samples n, which the equation does not do", lambda e, c: e / len(c.x)),
        ("it is multiplied by the number of samples n", lambda e, c: e * len(c.x)),
        ("it is divided by n twice", lambda e, c: e / len(c.x) ** 2),
        ("it is the transpose of the right matrix", lambda e, c: e.T),
        ("it is all zeros", lambda e, c: np.zeros_like(e)),
        ("it is y_grad, unchanged", lambda e, c: c.g),
        ("it is x, unchanged", lambda e, c: c.x),
        ("it is half of what it should be", lambda e, c: e / 2),
        ("it is twice what it should be", lambda e, c: e * 2),
        ("it is one less than it should be", lambda e, c: e - 1),
        ("it is one more than it should be", lambda e, c: e + 1),
        ("only the first sample is used", lambda e, c: np.concatenate([e[:1], np.zeros_like(e[1:])])),
        ("the last sample is left out", lambda e, c: np.concatenate([e[:-1], np.zeros_like(e[-1:])])),
    ]
    return [(quantity, "the gradient is added to that of earlier batches; each backward must start from 0", _sum_before(quantity)),
            (quantity, "it is that of the previous batch", lambda c: again(c).expected[quantity])] * (
                "grad" in quantity) + [(quantity, text, of(change)) for text, change in rows]


def _softmax(x: Any, axis: Any = 1) -> Any:
    e = np.exp(x - x.max())
    return e / e.sum(axis=axis, keepdims=True)



SLIPS: dict[str, list[Row]] = {
    "full": [
        ("the output", "the bias b is left out", lambda c: c.x @ c.W.T),
        ("the output", "the bias b is subtracted", lambda c: c.x @ c.W.T - c.b),
        ("the output", "the bias b is added twice", lambda c: c.x @ c.W.T + 2 * c.b),
        ("the output", "W is used without its transpose: x W", lambda c: c.x @ c.W + c.b),
        ("the output", "the output is transposed", lambda c: (c.x @ c.W.T + c.b).T),
        ("the output", "the output is multiplied by b", lambda c: (c.x @ c.W.T) * c.b),
        ("the gradient of x", "W is transposed: y_grad W.T", lambda c: c.g @ c.W.T),
        ("the gradient of x", "it is transposed", lambda c: (c.g @ c.W).T),
        ("the gradient of x", "the bias b is added to the gradient", lambda c: c.g @ c.W + c.b),
        ("the gradient of x", "it is a mean over the samples", lambda c: c.g @ c.W / len(c.x)),
        ("W_grad", "the factors are exchanged: x.T y_grad, the transpose", lambda c: c.x.T @ c.g),
        ("W_grad", "y_grad is not transposed", lambda c: c.g @ c.x),
        ("W_grad", "it is averaged over the batch; the loss has the factor 1/n already", lambda c: c.g.T @ c.x / len(c.x)),
        ("W_grad", FROM_BATCH_BEFORE, lambda c: c.g.T @ again(c).x),
        ("W_grad", "only one sample counts: the last", lambda c: c.g[-1:].T @ c.x[-1:]),
        ("W_grad", "only one sample counts: the first", lambda c: c.g[:1].T @ c.x[:1]),
        ("W_grad", "the last sample is left out of the sum", lambda c: c.g[:-1].T @ c.x[:-1]),
        ("W_grad", "the first sample is left out of the sum", lambda c: c.g[1:].T @ c.x[1:]),
        ("W_grad", "y_grad is left out", lambda c: np.ones_like(c.g).T @ c.x),
        ("W_grad", "x is left out", lambda c: c.g.T @ np.ones_like(c.x)),
        ("W_grad", "W is added to it", lambda c: c.g.T @ c.x + c.W),
        ("b_grad", "it is a mean over the batch; the equation has a sum", lambda c: c.g.mean(axis=0)),
        ("b_grad", "the sum runs over the outputs of each sample (axis 1); it runs over the samples (axis 0)", lambda c: c.g.sum(axis=1)),
        ("b_grad", "the mean over the outputs of each sample is taken; the equation has a sum over the samples", lambda c: c.g.mean(axis=1)),
        ("b_grad", "everything is summed into one number; the sum runs over the samples (axis 0) only", lambda c: c.g.sum()),
        ("b_grad", "everything is averaged into one number", lambda c: c.g.mean()),
        ("b_grad", "it is y_grad, not yet summed over the samples", lambda c: c.g),
        ("b_grad", "it is the sum of x", lambda c: c.x.sum(axis=0)),
        ("b_grad", "only the first sample counts", lambda c: c.g[0]),
        ("b_grad", "only the last sample counts", lambda c: c.g[-1]),
        ("b_grad", "the first sample is left out of the sum", lambda c: c.g[1:].sum(axis=0)),
        ("b_grad", "the last sample is left out of the sum", lambda c: c.g[:-1].sum(axis=0)),
        ("b_grad", "the largest value is taken; the equation has a sum", lambda c: c.g.max(axis=0)),
        ("b_grad", "a product is taken; the equation has a sum", lambda c: c.g.prod(axis=0)),
        ("b_grad", "b is a factor of it; the derivative with respect to b is 1", lambda c: c.g.sum(axis=0) * c.b),
        ("b_grad", "it is ones, without y_grad", lambda c: np.ones(c.g.shape[1])),
        *PARAMETER_SLIPS],
    "relu": [
        ("the output", "the minimum is taken: min(x, 0)", lambda c: np.minimum(c.x, 0)),
        ("the output", "negative values pass; they become 0", lambda c: c.x),
        ("the output", "the absolute value is taken", lambda c: np.abs(c.x)),
        ("the output", "it is the mask x > 0, not x there", lambda c: c.x > 0),
        ("the output", "it is the mask x >= 0, not x there", lambda c: c.x >= 0),
        ("the output", "values below 1 become 1: max(x, 1)", lambda c: np.maximum(c.x, 1)),
        ("the output", "the threshold is 1, not 0", lambda c: c.x * (c.x > 1)),
        ("the output", "the threshold is -1, not 0", lambda c: np.maximum(c.x, -1)),
        ("the output", "the sign of x is exchanged: max(-x, 0)", lambda c: np.maximum(-c.x, 0)),
        ("the gradient of x", "the gradient passes at x = 0: `>=` for `>`", lambda c: c.g * (c.x >= 0)),
        ("the gradient of x", "the mask comes from y_grad, not from x", lambda c: c.g * (c.g > 0)),
        ("the gradient of x", "the mask comes from y_grad, not from x: max(y_grad, 0)", lambda c: np.maximum(c.g, 0)),
        ("the gradient of x", "the mask is left out: y_grad passes everywhere", lambda c: c.g),
        ("the gradient of x", "y_grad is left out: it is the mask alone", lambda c: c.x > 0),
        ("the gradient of x", "y_grad is left out: it is the mask x >= 0 alone", lambda c: c.x >= 0),
        ("the gradient of x", "the mask is reversed: it passes where x <= 0", lambda c: c.g * (c.x <= 0)),
        ("the gradient of x", "the mask is reversed: it passes where x < 0", lambda c: c.g * (c.x < 0)),
        ("the gradient of x", "y_grad is multiplied by y, not by the mask", lambda c: c.g * np.maximum(c.x, 0)),
        ("the gradient of x", "y_grad is multiplied by x, not by the mask", lambda c: c.g * c.x),
        ("the gradient of x", "the threshold is 1, not 0", lambda c: c.g * (c.x > 1)),
        ("the gradient of x", "the threshold is -1, not 0", lambda c: c.g * (c.x > -1)),
        ("the gradient of x", "the threshold is -1, not 0", lambda c: c.g * (c.x >= -1)),
        ("the gradient of x", "it is max(x, 0), the forward pass", lambda c: np.maximum(c.x, 0)),
        ("the gradient of x", "the mask passes where x is not 0", lambda c: c.g * (c.x != 0)),
        ("the gradient of x", "it is y_grad plus the mask; they are multiplied", lambda c: c.g + (c.x > 0)),
        ("the gradient of x", "the mask is that of the previous batch", lambda c: c.g * (again(c).x > 0))],
    "softmax": [
        ("the output", "the sum runs over the samples (axis 0); it runs over the classes (axis 1)", lambda c: _softmax(c.x, 0)),
        ("the output", "the sum runs over the samples (axis 0); it runs over the classes (axis 1)",
         lambda c: (e := np.exp(c.x - c.x.max(axis=1, keepdims=True))) / e.sum(axis=0, keepdims=True)),
        ("the output", "everything is summed; the sum runs over the classes of each sample (axis 1)", lambda c: _softmax(c.x, None)),
        ("the output", "everything is summed; the sum runs over the classes of each sample (axis 1)",
         lambda c: (e := np.exp(c.x - c.x.max(axis=1, keepdims=True))) / e.sum()),
        ("the output", "the division by the sum is missing", lambda c: np.exp(c.x)),
        ("the output", "the division by the sum is missing", lambda c: np.exp(c.x - c.x.max(axis=1, keepdims=True))),
        ("the output", "the division by the sum is missing", lambda c: np.exp(c.x - c.x.max())),
        ("the output", "the maximum is taken over the samples (axis 0): each row needs one number for all of its classes",
         lambda c: (e := np.exp(c.x - c.x.max(axis=0, keepdims=True))) / e.sum(axis=1, keepdims=True)),
        ("the output", "it is divided by the mean, not by the sum", lambda c: _softmax(c.x) * c.x.shape[1]),
        ("the output", "it is divided by the largest, not by the sum",
         lambda c: (e := np.exp(c.x)) / e.max(axis=1, keepdims=True)),
        ("the output", "the sign of the exponent is reversed", lambda c: _softmax(-c.x)),
        ("the output", "exp is missing", lambda c: c.x / c.x.sum(axis=1, keepdims=True)),
        ("the output", "exp is missing, after the maximum is subtracted",
         lambda c: (y := c.x - c.x.max(axis=1, keepdims=True)) / y.sum(axis=1, keepdims=True)),
        ("the output", "it is the logarithm of the softmax", lambda c: np.log(_softmax(c.x))),
        ("the output", "it is multiplied by the sum, not divided", lambda c: (e := np.exp(c.x - c.x.max(axis=1, keepdims=True)))
         * e.sum(axis=1, keepdims=True)),
        ("the gradient of x", "the Jacobian lacks its diagonal: -z sum(y_grad z)", lambda c: -_z(c) * _gz(c)),
        ("the gradient of x", "only the diagonal of the Jacobian is used: y_grad z", lambda c: c.g * _z(c)),
        ("the gradient of x", "only z (1 - z) of the Jacobian is used, its diagonal", lambda c: c.g * _z(c) * (1 - _z(c))),
        ("the gradient of x", "the sum runs over the samples (axis 0); it runs over the classes (axis 1)",
         lambda c: _z(c) * (c.g - (c.g * _z(c)).sum(axis=0, keepdims=True))),
        ("the gradient of x", "everything is summed; the sum runs over the classes of each sample (axis 1)",
         lambda c: _z(c) * (c.g - (c.g * _z(c)).sum())),
        ("the gradient of x", "a mean is taken over the classes; the equation has a sum",
         lambda c: _z(c) * (c.g - (c.g * _z(c)).mean(axis=1, keepdims=True))),
        ("the gradient of x", "the two parts are added; the second is subtracted", lambda c: _z(c) * (c.g + _gz(c))),
        ("the gradient of x", "the factor z is missing", lambda c: c.g - _gz(c)),
        ("the gradient of x", "y_grad is not multiplied by z in the sum", lambda c: _z(c) * (c.g - c.g.sum(axis=1, keepdims=True))),
        ("the gradient of x", "the sum over the classes is missing", lambda c: _z(c) * (c.g - c.g * _z(c))),
        ("the gradient of x", "the second part lacks its factor z", lambda c: c.g * _z(c) - _gz(c)),
        ("the gradient of x", "it passes y_grad on: the Jacobian is missing", lambda c: c.g),
        ("the gradient of x", "it is z - y_grad, the gradient of softmax and cross-entropy together", lambda c: _z(c) - c.g),
        ("the gradient of x", "y_grad is left out: it is the sum of the Jacobian", lambda c: _z(c) * (1 - _z(c).sum(axis=1, keepdims=True))),
        ("the gradient of x", "z is that of the previous batch", lambda c: (z := again(c).expected["the output"])
         * (c.g - (c.g * z).sum(axis=1, keepdims=True))),
        ("the gradient of x", "the layer's input is used in the place of its output z",
         lambda c: c.x * (c.g - (c.g * c.x).sum(axis=1, keepdims=True))),
        ("the gradient of x", "exp(y) is used in the place of the output z: it was kept before the division",
         lambda c: (e := np.exp(c.x - c.x.max(axis=1, keepdims=True))) * (c.g - (c.g * e).sum(axis=1, keepdims=True)))],
    "cross_entropy": [
        ("the loss", "the minus sign is missing", lambda c: -c.expected["the loss"]),
        ("the loss", "the factor 1/n is missing: it is a sum over the batch, not a mean", lambda c: c.expected["the loss"] * len(c.x)),
        ("the loss", "it is divided by the number of classes, not of samples", lambda c: c.expected["the loss"] * len(c.x) / c.x.shape[1]),
        ("the loss", "it is the mean over all elements, divided by the number of classes as well", lambda c: c.expected["the loss"] / c.x.shape[1]),
        ("the loss", "it is one number for each sample; the mean over the batch is missing", lambda c: -(c.g * np.log(c.x)).sum(axis=1)),
        ("the loss", "it is a number for each class; all are summed", lambda c: -(c.g * np.log(c.x)).sum(axis=0) / len(c.x)),
        ("the loss", "the logarithm is missing", lambda c: -np.sum(c.g * c.x) / len(c.x)),
        ("the loss", "the logarithm is missing, and the sign is reversed", lambda c: np.sum(c.g * c.x) / len(c.x)),
        ("the loss", "the logarithm has base 2; log is the natural one", lambda c: c.expected["the loss"] / np.log(2)),
        ("the loss", "the logarithm has base 10; log is the natural one", lambda c: c.expected["the loss"] / np.log(10)),
        ("the loss", "t is left out: the logarithms of all classes are summed", lambda c: -np.log(c.x).sum() / len(c.x)),
        ("the loss", "z and t are exchanged: z log t", lambda c: -np.sum(c.x * np.log(c.g)) / len(c.x)),
        ("the loss", "it has the terms of two classes: (1 - t) log(1 - z) is added",
         lambda c: -np.sum(c.g * np.log(c.x) + (1 - c.g) * np.log(1 - c.x)) / len(c.x)),
        ("the loss", "it is the logarithm of the mean, not the mean of the logarithms", lambda c: -np.log((c.g * c.x).sum() / len(c.x))),
        ("the loss", "it is divided by the number of samples less one", lambda c: c.expected["the loss"] * len(c.x) / (len(c.x) - 1)),
        ("the loss", "the largest is taken, not the mean", lambda c: -np.log((c.g * c.x).sum(axis=1)).min()),
        ("the loss", "it is a squared error", lambda c: np.mean((c.x - c.g) ** 2)),
        ("the gradient of x", "the minus sign is missing", lambda c: -c.expected["the gradient of x"]),
        ("the gradient of x", "the factor 1/n is missing", lambda c: -c.g / c.x),
        ("the gradient of x", "it is divided by the number of classes, not of samples", lambda c: -c.g / c.x / c.x.shape[1]),
        ("the gradient of x", "it is divided by the number of samples and of classes", lambda c: -c.g / c.x / c.x.size),
        ("the gradient of x", "it is z - t, the gradient of softmax and cross-entropy together", lambda c: c.x - c.g),
        ("the gradient of x", "it is (z - t) / n, the gradient of softmax and cross-entropy together", lambda c: (c.x - c.g) / len(c.x)),
        ("the gradient of x", "the division by z is missing", lambda c: -c.g / len(c.x)),
        ("the gradient of x", "t is multiplied by z, not divided", lambda c: -c.g * c.x / len(c.x)),
        ("the gradient of x", "t is left out: -1/z", lambda c: -1 / c.x / len(c.x)),
        ("the gradient of x", "z and t are exchanged: -z/t", lambda c: -c.x / c.g / len(c.x)),
        ("the gradient of x", "it has the terms of two classes: (1 - t) / (1 - z) is added",
         lambda c: -(c.g / c.x - (1 - c.g) / (1 - c.x)) / len(c.x)),
        ("the gradient of x", "z is squared", lambda c: -c.g / c.x**2 / len(c.x)),
        ("the gradient of x", "t is that of the batch before", lambda c: -again(c).g / c.x / len(c.x))],
    **IMAGE_SLIPS,
    "sequential": [],
}


def _z(c: Step) -> Any:
    return c.expected["the output"]


def _gz(c: Step) -> Any:
    return (c.g * _z(c)).sum(axis=1, keepdims=True)
