"""What is tried of each layer of both chapters."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastnet
from fastnet.check._common import copy_gradients, copy_weights, gradient_of, numbers, updater
from fastnet.check._models import sequential
from fastnet.check._probe import Check, Own, Probe


def compare_layer(
    probe: Probe, own: Own, name: str, arguments: tuple[Any, ...], x: np.ndarray, differences: bool = True
) -> None:
    """One layer with fastnet's weights: forward, backward, update, another batch, gradients by differences."""
    call = f"{name}({', '.join(map(str, arguments))})"
    reference = getattr(fastnet, name)(*arguments)
    learned = [p for p in ("W", "b") if hasattr(reference, p)]
    with probe.scenario():
        with probe.step(f"{call}"):
            layer = own(name)(*arguments)
        for p in learned:
            found, expected = np.shape(getattr(layer, p, 0)), getattr(reference, p).shape
            probe.holds(found == expected, f"{p} has shape {found}, expected {expected}")
        copy_weights(layer, reference)
        _compare_passes(probe, layer, reference, call, x, learned)
        _compare_passes(probe, layer, reference, call, np.concatenate([x, x[:1] + 0.25]), learned)
        if differences:
            _compare_differences(probe, layer, f"{call}, x {x.shape}", x)


def _compare_passes(probe: Probe, layer: Any, reference: Any, call: str, x: np.ndarray, learned: list[str]) -> None:
    y = reference.forward(x)
    y_grad = numbers(y.shape, 1)
    x_grad = reference.backward(y_grad)
    given, given_grad = x.copy(), y_grad.copy()
    with probe.step(f"{call}.forward(x), x {x.shape}"):
        found = layer.forward(given)
    probe.same("the output", found, y, len(x))
    probe.untouched("x", given, x)
    with probe.step(f"{call}.backward(y_grad), x {x.shape}"):
        found = layer.backward(given_grad)
    probe.same("the gradient of x", found, x_grad, len(x))
    probe.untouched("y_grad", given_grad, y_grad)
    for p in learned:
        probe.same(f"{p}_grad", gradient_of(layer, p), getattr(reference, f"{p}_grad"), len(x))
    copy_gradients(layer, reference)  # so that each call is judged by itself
    reference.update_param(0.5)
    with probe.step(f"{call}.update_param(0.5)"):
        updater(layer)(0.5)
    for p in learned:
        probe.same(p, getattr(layer, p, None), getattr(reference, p))
    copy_weights(layer, reference)


def _compare_differences(probe: Probe, layer: Any, what: str, x: np.ndarray, target: np.ndarray | None = None) -> None:
    with probe.step(f"gradients by differences, {what}"):
        report = fastnet.gradcheck(layer, x, target, max_elements=12)
    for array in report.arrays:
        probe.holds(array.ok, str(array))


def full(probe: Probe, own: Own) -> None:
    for n, n_i, n_o in ((5, 7, 4), (1, 1, 1), (3, 2, 6)):
        compare_layer(probe, own, "FullLayer", (n_i, n_o), numbers((n, n_i)))
    with probe.scenario():
        np.random.seed(0)
        with probe.step("FullLayer(300, 200)"):
            W = np.asarray(own("FullLayer")(300, 200).W, np.float64)
        spread, expected = np.std(W), np.sqrt(2 / 500)
        probe.holds(abs(spread / expected - 1) < 0.1,
                    f"W has the standard deviation {spread:.4g}, expected {expected:.4g}: sqrt(2 / (n_i + n_o)) (3.12)")


def relu(probe: Probe, own: Own) -> None:
    compare_layer(probe, own, "ReluLayer", (), numbers((5, 7)))
    compare_layer(probe, own, "ReluLayer", (), np.array([[0.0, -0.0, 1e-300], [-5.0, 1e6, 0.0]]), differences=False)
    compare_layer(probe, own, "ReluLayer", (), numbers((2, 3, 4, 4)))


def softmax(probe: Probe, own: Own) -> None:
    compare_layer(probe, own, "SoftMaxLayer", (), numbers((5, 7), scale=2))
    compare_layer(probe, own, "SoftMaxLayer", (), numbers((3, 2)))
    compare_layer(probe, own, "SoftMaxLayer", (), numbers((4, 3)) + [[1000.0], [-1000.0], [0.0], [700.0]], differences=False)


def cross_entropy(probe: Probe, own: Own) -> None:
    for n, classes in ((6, 4), (1, 2), (3, 5)):
        z = np.exp(numbers((n, classes)))
        z /= z.sum(axis=1, keepdims=True)
        t = np.eye(classes)[np.arange(n) % classes]
        reference = fastnet.CrossEntropyLayer()
        loss, grad = reference.forward(z, t), reference.backward()
        with probe.scenario():
            with probe.step("CrossEntropyLayer()"):
                layer = own("CrossEntropyLayer")()
            given, given_t = z.copy(), t.copy()
            with probe.step(f"CrossEntropyLayer().forward(z, t), z {z.shape}"):
                found = layer.forward(given, given_t)
            probe.same("the loss", found, loss, n)
            probe.untouched("z", given, z)
            probe.untouched("t", given_t, t)
            with probe.step(f"CrossEntropyLayer().backward(), z {z.shape}"):
                found = layer.backward()
            probe.same("the gradient of z", found, grad, n)
            _compare_differences(probe, layer, f"CrossEntropyLayer(), z {z.shape}", z, t)


def conv(probe: Probe, own: Own) -> None:
    cases = (((1, 1, 3), (1, 1, 3, 3)), ((2, 3, 3), (2, 2, 5, 4)), ((3, 2, 5), (2, 3, 6, 6)), ((2, 2, 1), (1, 2, 3, 3)))
    for arguments, shape in cases:
        compare_layer(probe, own, "ConvLayer", arguments, numbers(shape))


def maxpool(probe: Probe, own: Own) -> None:
    for size, shape in ((2, (2, 3, 4, 6)), (2, (1, 2, 5, 7)), (3, (2, 1, 6, 7))):
        compare_layer(probe, own, "MaxPoolLayer", (size,), numbers(shape))
    ties = np.maximum(np.round(numbers((2, 2, 6, 6))), 0)
    compare_layer(probe, own, "MaxPoolLayer", (2,), ties, differences=False)


def flatten(probe: Probe, own: Own) -> None:
    compare_layer(probe, own, "FlattenLayer", (), numbers((2, 3, 4, 5)))
    x = numbers((2, 3, 2, 2))
    with probe.scenario():
        with probe.step("FlattenLayer().forward(x)"):
            y = own("FlattenLayer")().forward(x)
        probe.holds(not np.shares_memory(x, y), "the output is a view of x: a change of one changes the other. Copy it")


CHAPTER: dict[str, tuple[str, Check]] = {
    "full": ("FullLayer", full), "relu": ("ReluLayer", relu), "softmax": ("SoftMaxLayer", softmax),
    "cross_entropy": ("CrossEntropyLayer", cross_entropy), "sequential": ("Sequential", sequential),
}
NEXT_CHAPTER: dict[str, tuple[str, Check]] = {
    "conv": ("ConvLayer", conv), "maxpool": ("MaxPoolLayer", maxpool), "flatten": ("FlattenLayer", flatten),
}
LAYERS = CHAPTER | NEXT_CHAPTER
