"""A counterexample: three lines of code that show a fault, tested before the check prints them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnet.check._cases import Case, name_of
from fastnet.check._observe import agree
from fastnet.check._reference import CLASSES

_SMALL = ([[1, 2]], [[1, -2], [3, 0]], [[1, 2], [3, 5]], [[1, 0, -2], [-1, 2, 0]])


def show(stem: str, klass: Any, quantity: str, tried: Sequence[Case]) -> list[str]:
    """Return lines of code with their output and the right output; none if no small example shows the fault.

    Parameters
    ----------
    stem : str
    klass : type
        The folder's class.
    quantity : str
        The name of the wrong quantity.
    tried : sequence of Case
        The cases in which it is wrong.
    """
    name = name_of(stem)
    for build, calls in _examples(stem, quantity):
        found, expected = _printed(build, calls, {name: klass}), _printed(build, calls, {name: CLASSES[name]})
        if expected is not None and not (isinstance(found, np.ndarray) and agree(found, expected, quantity)):
            return [f"import numpy as np; from layers.{stem} import {name}", build,
                    f"{calls}  # {_text(found)}; right: {_text(expected)}"]
    return []


def _examples(stem: str, quantity: str) -> list[tuple[str, str]]:
    name, made = name_of(stem), []
    for x in _SMALL:
        if stem == "cross_entropy":
            z = {1: [[0.5, 0.25, 0.25]], 2: [[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]]}[len(x)]
            t = [[0, 1, 0], [1, 0, 0]][: len(x)]
            run = f"layer.forward(np.array({z}), np.array({t}))"
            made.append(
                (f"layer = {name}()", f"print({run})" if quantity == "the loss" else f"{run}; print(layer.backward())")
            )
            continue
        if stem in ("full", "relu", "softmax"):
            given, width = f"np.array({[[float(v) for v in row] for row in x]})", len(x[0])
            build = f"layer = {name}()"
            if stem == "full":
                W = [[float(i + width * j + 1) for i in range(width)] for j in range(width + 1)]
                build = f"layer = FullLayer({width}, {width + 1}); layer.W = np.array({W}); layer.b = layer.b * 0 + 1"
                width += 1
            g = f"np.array({[[float((i + 2 * j) % 3 + 1) for i in range(width)] for j in range(len(x))]})"
        else:
            c = 2 if len(x) > 1 else 1
            shape = (len(x), c, 4, 4) if stem != "conv" else (len(x), c, 3, 3)
            given = f"np.arange({np.prod(shape)}.0).reshape{shape} % 7"
            build = f"layer = {name}({'2' if stem == 'maxpool' else ''})"
            after = {"maxpool": (len(x), c, 2, 2), "flatten": (len(x), c * 16), "conv": (len(x), c + 1, 3, 3)}[stem]
            if stem == "conv":
                n_w = c * (c + 1) * 9
                build = (f"layer = ConvLayer({c}, {c + 1}, 3); layer.b = layer.b * 0 + 1; "
                         f"layer.W = np.arange({n_w}.0).reshape({c + 1}, {c}, 3, 3) % 5")
            g = f"np.arange({np.prod(after)}.0).reshape{after} % 5 + 1"
        forward, both = f"layer.forward({given})", f"layer.forward({given}); layer.backward({g})"
        calls = {
            "the output": f"print({forward})",
            "the gradient of x": f"{forward}; print(layer.backward({g}))",
            "W_grad": f"{both}; print(layer.W_grad)",
            "b_grad": f"{both}; print(layer.b_grad)",
            "W": f"{both}; layer.update_param(0.5); print(layer.W)",
            "b": f"{both}; layer.update_param(0.5); print(layer.b)",
        }
        if quantity in calls:
            made.append((build, calls[quantity]))
            if "grad" in quantity:
                made.append((build, f"{both}; {calls[quantity]}"))
    return made


_MODEL = {
    "the output": "print(model.forward(x))",
    "the loss": "print(model.forward(x, t))",
    "the gradient of x": "model.forward(x, t); print(model.backward())",
    "the labels": "print(model.predict(x))",
    "the updated parameters": "model.forward(x, t); model.backward(); model.update_param(0.5); print(model.layers[0].W)",
    "the batches": "print(model.fit(x, t, epochs=2, lr=0.5, batch_size=2))",
    "the losses": "print(model.fit(x, t, epochs=2, lr=0.5, batch_size=2))",
}


def show_model(klass: Any, quantity: str) -> list[str]:
    """Do what `show` does, for a Sequential of fastnet's layers."""
    if quantity not in _MODEL:
        return []
    build = (
        "full = FullLayer(2, 2); full.W = np.array([[1.0, 0.0], [0.0, 2.0]]); "
        "x = np.array([[1.0, 2.0], [0.5, 0.0], [2.0, 1.0]]); "
        "t = np.eye(2)[[1, 0, 1]]; model = Sequential((full, SoftMaxLayer()), CrossEntropyLayer())"
    )
    calls = _MODEL[quantity]
    found, expected = (_printed(build, calls, {**CLASSES, "Sequential": c}) for c in (klass, CLASSES["Sequential"]))
    if expected is None or (isinstance(found, np.ndarray) and agree(found, expected, "the losses")):
        return []
    return ["import numpy as np; from fastnet import *; from layers.sequential import Sequential", build,
            f"{calls}  # {_text(found)}; right: {_text(expected)}"]


def _printed(build: str, calls: str, names: dict[str, Any]) -> Any:
    """Return what the lines print: an array, or the exception's text."""
    out: list[Any] = []
    scope = {"np": np, "print": out.append, **names}
    state = np.random.get_state()
    np.random.seed(0)
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(build, scope)
            exec(calls, scope)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"{type(error).__name__}"
    finally:
        np.random.set_state(state)
    value = out[-1] if out else None
    try:
        return None if value is None else np.array(value, np.float64)
    except (TypeError, ValueError):
        return str(value)[:60]


def _text(value: Any) -> str:
    if not isinstance(value, np.ndarray):
        return str(value)
    text = np.array2string(value, precision=4, separator=", ", threshold=16, edgeitems=2, suppress_small=True)
    return " ".join(text.split())[:200]
