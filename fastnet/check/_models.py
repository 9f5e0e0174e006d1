"""What is tried of Sequential, and of the folder's own networks."""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

import fastnet
from fastnet.check._common import copy_weights, numbers, updater
from fastnet.check._probe import Own, Probe


def _ours(name: str) -> Any:
    return getattr(fastnet, name)


def sequential(probe: Probe, own: Own) -> None:
    """The folder's Sequential with fastnet's layers: what is wrong here is wrong in Sequential."""
    widths = ((6, 5, 3), (6, 3), (6, 5, 4, 3))
    for w in widths:
        compare_model(probe, _network(_ours, w), functools.partial(_wrapped, own, w),
                      f"Sequential of {2 * len(w) - 2} of fastnet's layers", numbers((20, 6)), 3)


def _wrapped(own: Own, widths: tuple[int, ...]) -> Any:
    """fastnet's network in the folder's Sequential."""
    inner = _network(_ours, widths)
    return own("Sequential")(tuple(inner.layers), inner.loss)


def network(probe: Probe, own: Own) -> None:
    """The folder's own network, all of it, trained."""
    reference = _network(_ours, (6, 5, 3))
    compare_model(probe, reference, lambda: _network(own, (6, 5, 3), reference), "the whole network", numbers((20, 6)), 3)


def images(probe: Probe, own: Own) -> None:
    """The next chapter's network, all of it, trained."""
    reference = _images(_ours)
    compare_model(probe, reference, lambda: _images(own, reference), "the whole network of the next chapter",
                  numbers((10, 2, 6, 6)), 3)


def _network(own: Own, widths: tuple[int, ...], reference: Any = None) -> Any:
    layers: list[Any] = []
    for n_i, n_o in itertools.pairwise(widths):
        layers += [own("FullLayer")(n_i, n_o), own("ReluLayer")()]
    return _model(own, [*layers[:-1], own("SoftMaxLayer")()], reference)


def _images(own: Own, reference: Any = None) -> Any:
    layers = [own("ConvLayer")(2, 3, 3), own("ReluLayer")(), own("MaxPoolLayer")(2), own("FlattenLayer")(),
              own("FullLayer")(27, 3), own("SoftMaxLayer")()]
    return _model(own, layers, reference)


def _model(own: Own, layers: list[Any], reference: Any) -> Any:
    """A model with drawn weights, or with the reference's."""
    for i, layer in enumerate(layers):
        if reference is not None:
            copy_weights(layer, reference.layers[i])
        elif hasattr(layer, "W"):
            layer.W = numbers(layer.W.shape, i, 0.5)
    return own("Sequential")(tuple(layers), own("CrossEntropyLayer")())


def compare_model(probe: Probe, reference: Any, make: Callable[[], Any], what: str, x: np.ndarray, classes: int) -> None:
    """forward, backward, update_param, predict and fit of a model that ``make`` gives the reference's weights."""
    t = np.eye(classes)[np.arange(len(x)) % classes]
    with probe.scenario():
        with probe.step(what):
            model = make()
        y, loss, x_grad = reference.forward(x), reference.forward(x, t), reference.backward()
        reference.update_param(0.1)
        with probe.step(f"forward(x), {what}"):
            found = model.forward(x.copy())
        probe.same("the output", found, y)
        with probe.step(f"forward(x, target), {what}"):
            found = model.forward(x.copy(), t.copy())
        probe.same("the loss", found, loss, len(x))
        with probe.step(f"backward(), {what}"):
            found = model.backward()
        probe.same("the gradient of x", found, x_grad, len(x))
        with probe.step(f"update_param(0.1), {what}"):
            updater(model)(0.1)
        probe.same("W of the first layer", model.layers[0].W, reference.layers[0].W)
        _copy_model(model, reference)
        labels = reference.predict(x)
        with probe.step(f"predict(x), {what}"):
            found = model.predict(x.copy())
        probe.same("the array of labels", found, labels)
        _compare_fit(probe, model, reference, what, x, t)


def _compare_fit(probe: Probe, model: Any, reference: Any, what: str, x: np.ndarray, t: np.ndarray) -> None:
    """A short training run, whose last batch is smaller than the others."""
    epochs, lr, batch_size = 4, 0.2, 8
    whole = len(x) - len(x) % batch_size
    without_rest = copy.deepcopy(reference).fit(x[:whole], t[:whole], epochs, lr, batch_size, progress=False)
    losses = reference.fit(x, t, epochs, lr, batch_size, progress=False)
    of_2018 = "x_test" in inspect.signature(model.fit).parameters
    with probe.step(f"fit of {len(x)} samples, {epochs} epochs, lr {lr}, batches of {batch_size}, {what}"):
        if of_2018:
            found, _ = model.fit(x.copy(), t.copy(), x.copy(), t.copy(), epochs=epochs, lr=lr, batch_size=batch_size)
        else:
            found = model.fit(x.copy(), t.copy(), epochs=epochs, lr=lr, batch_size=batch_size)
    agree = probe.same("the array of losses", found, losses)
    if not agree and np.shape(found) == (epochs,) and np.allclose(found, without_rest):
        probe.problem("these are the losses of a fit that leaves out the last, smaller batch")
    probe.same("W of the first layer after fit", model.layers[0].W, reference.layers[0].W)


def _copy_model(model: Any, reference: Any) -> None:
    for layer, source in zip(model.layers, reference.layers):
        copy_weights(layer, source)
