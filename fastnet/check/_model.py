"""The check of a folder's Sequential with the right layers, which judges each method separately."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from fastnet.check._fit import RATE, observe_fit
from fastnet.check._observe import numbers_of, updater
from fastnet.check._parts import Observed, Parts, Result, attempt, batch, failed
from fastnet.check._reference import Sequential


def observe_model(klass: Any, own: dict[str, type]) -> Observed:
    """Try every method of a Sequential.

    Parameters
    ----------
    klass : type
    own : dict
        The folder's classes by name.
    """
    seen = Observed()
    state = np.random.get_state()
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for widths, relu in (((6, 5, 3), True), ((6, 3), True), ((6, 5, 3), False)):
            _forward(seen, klass, own, widths, relu)
            _backward_and_update(seen, klass, own, widths, relu)
        _predict(seen, klass, own)
        observe_fit(seen, _made, klass, own)
    np.random.set_state(state)
    return seen


_BEHIND = {
    "forward": ("the output", "the loss"),
    "backward": ("the gradient of x",),
    "update_param": ("the updated parameters",),
}


def _made(seen: Observed, klass: Any, parts: Parts, apart: str) -> Any:
    """Make the folder's model of right layers, and replace its wrong methods by right ones, except the one to check."""
    model = attempt(seen, "the layers", lambda: klass(tuple(parts.layers), parts.loss))
    if model is None:
        return None
    held = getattr(model, "layers", None)
    if not isinstance(held, (list, tuple)) or [id(layer) for layer in held] != [id(layer) for layer in parts.layers]:
        seen.results.setdefault("the layers", Result(_kinds(held), _kinds(parts.layers),
                                                     "self.layers does not hold the layers that __init__ got", wrong=True))
        model.layers = tuple(parts.layers)
    if getattr(model, "loss", parts.loss) is not parts.loss:
        seen.results.setdefault("the layers", Result(type(model.loss).__name__, type(parts.loss).__name__,
                                                     "self.loss is not the loss that __init__ got", wrong=True))
        model.loss = parts.loss
    for method, names in _BEHIND.items():
        if method != apart and any(name in seen.wrong() for name in names):
            for name in (method, "update_params") if method == "update_param" else (method,):
                setattr(model, name, getattr(parts.right, name))
    seen.results.setdefault("the layers", Result("as given", "as given"))
    return model


def _kinds(layers: Any) -> str:
    return (
        ", ".join(type(layer).__name__ for layer in layers) if isinstance(layers, (list, tuple)) else type(layers).__name__
    )


def _forward(seen: Observed, klass: Any, own: dict[str, type], *widths: Any) -> None:
    x, t = batch(7)
    parts, right = Parts(own, *widths), Parts(own, *widths).right
    model = _made(seen, klass, parts, "forward")
    if model is None:
        return
    y = right.forward(x)
    loss = right.loss.forward(y, t)
    found = attempt(seen, "the output", lambda: model.forward(x.copy()))
    if not failed(seen, "the output"):
        seen.compare("the output", found, y, {
            "forward returns nothing": lambda: None,
            "the last layer is left out": lambda: Sequential(right.layers[:-1], None).forward(x),
            "the first layer is left out": lambda: Sequential(right.layers[1:], None).forward(x),
            "the layers are not used: it is x": lambda: x,
            "only the last layer is used, on x itself": lambda: right.layers[-1].forward(x),
            "only the first layer is used": lambda: right.layers[0].forward(x)})
    found = attempt(seen, "the loss", lambda: model.forward(x.copy(), t.copy()))
    if not failed(seen, "the loss"):
        seen.compare("the loss", found, loss, {
            "with a target, forward must return the loss, not the output": lambda: y,
            "with a target, forward returns nothing": lambda: None,
            "the loss is that of x, not of the last layer's output": lambda: right.loss.forward(x[:, :3], t),
            "the sign of the loss is reversed": lambda: -loss,
            "output and target are exchanged": lambda: right.loss.forward(t, y)})


def _backward_and_update(seen: Observed, klass: Any, own: dict[str, type], *widths: Any) -> None:
    x, t = batch(7)
    parts, other = Parts(own, *widths), Parts(own, *widths)
    other.right.forward(x, t)
    grad = other.right.backward()
    model = _made(seen, klass, parts, "backward")
    if model is None:
        return
    forward = parts.right.forward if "the loss" in seen.wrong() or "the output" in seen.wrong() else model.forward
    if attempt(seen, "the loss", lambda: forward(x.copy(), t.copy())) is None:
        return
    del parts.events[:]
    found = attempt(seen, "the gradient of x", model.backward)
    if not failed(seen, "the gradient of x"):
        called = [i for name, i, _, _ in parts.events if name == "backward"]
        seen.compare("the gradient of x", found, grad, {
            "backward returns nothing": lambda: None,
            "the sign is reversed": lambda: -grad,
            f"backward of the layers is called in the order {called}; it must be {list(range(len(parts.layers), -1, -1))}":
                lambda: found if called != list(range(len(parts.layers), -1, -1)) else None,
            "each layer must get the gradient that the layer above it returned": lambda: found})
    update, after = Parts(own, *widths), Parts(own, *widths)
    after.right.forward(x, t)
    after.right.backward()
    after.right.update_param(RATE)
    model = _made(seen, klass, update, "update_param")
    update.right.forward(x, t)
    update.right.backward()
    before = update.parameters()
    del update.events[:]
    attempt(seen, "the updated parameters", lambda: updater(model)(RATE))
    if failed(seen, "the updated parameters"):
        return
    steps = [
        (i, args[0] if args else None)
        for name, i, args, _ in update.events
        if name == "update_param" and i < len(update.layers)
    ]
    learning = [i for i, layer in enumerate(update.layers) if hasattr(layer, "W")]
    left_out = [i for i in learning if i not in {i for i, _ in steps}]
    found = update.parameters()
    seen.compare("the updated parameters", found, after.parameters(), {
        "no layer is updated": lambda: before if not steps else None,
        f"these layers are not updated: {left_out}": lambda: found if left_out else None,
        "layers are updated more than once": lambda: found if len(steps) != len({i for i, _ in steps}) else None,
        f"the layers get the learning rate {[lr for _, lr in steps][:1]}, not {RATE}":
            lambda: found if any(lr != RATE for _, lr in steps) else None})


def _predict(seen: Observed, klass: Any, own: dict[str, type]) -> None:
    x, _ = batch(11)
    parts = Parts(own)
    y = parts.right.forward(x)
    labels = y.argmax(axis=1)
    model = _made(seen, klass, parts, "predict")
    if model is None:
        return
    found = attempt(seen, "the labels", lambda: model.predict(x.copy()))
    if failed(seen, "the labels"):
        return
    array = numbers_of(found)
    if array is not None and array.shape == (len(x), 1):
        seen.remarks.append(
            "predict returns labels of shape (n, 1): compared with labels of shape (n,), they broadcast to (n, n)"
        )
        found = array[:, 0]
    if isinstance(found, list):
        found = np.asarray(found)
    seen.compare("the labels", found, labels, {
        "predict returns nothing": lambda: None,
        "it returns the outputs; the label is the place of the largest (argmax)": lambda: y,
        "argmax runs over the samples (axis 0); it runs over the classes (axis 1)": lambda: y.argmax(axis=0),
        "argmax runs over everything; it runs over the classes (axis 1)": lambda: y.argmax(),
        "it is the class of the smallest output: argmin": lambda: y.argmin(axis=1),
        "it is the largest output, not its place": lambda: y.max(axis=1),
        "labels start at 0, not at 1": lambda: labels + 1,
        "it is one-hot; the label is a number": lambda: np.eye(3)[labels],
        "it rounds the outputs, as for two classes": lambda: y > 0.5})
