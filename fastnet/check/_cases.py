"""The inputs on which the check runs each layer. The chapters allow all of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastnet.check._reference import CLASSES, NAMES, NEXT


class Case(NamedTuple):
    """The arguments of a layer's constructor, and its batches: (x, y_grad), or (z, t) for the loss."""

    arguments: tuple[int, ...]
    batches: tuple[tuple[np.ndarray, np.ndarray], ...]


def drawn(shape: tuple[int, ...], seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Return normally distributed numbers, the same in every run."""
    return np.random.default_rng(seed).standard_normal(shape) * scale


def name_of(stem: str) -> str:
    return {**NAMES, **NEXT}[stem]


def cases(stem: str, images: bool = False) -> list[Case]:
    """Return the cases of a layer. The first case is small enough for the report.

    Parameters
    ----------
    stem : str
        The name of the layer's module.
    images : bool
        Whether the folder has layers for images, so that ReLU gets images, too.
    """
    if stem == "cross_entropy":
        return _losses()
    small = np.array([[1.0, -2.0], [0.0, 3.0], [2.0, 1.0]])
    shapes: dict[str, list[tuple[tuple[int, ...], list[Any]]]] = {
        "full": [
            ((2, 3), [small, small - 1]),
            ((7, 4), [(5, 7), (6, 7), (6, 7)]),
            ((1, 1), [(1, 1), (2, 1)]),
            ((2, 6), [(3, 2)]),
            ((4, 4), [(4, 4), (2, 4)]),
        ],
        "relu": [
            ((), [small, small - 1]),
            ((), [(5, 7), (6, 7), (6, 7)]),
            ((), [(1, 4)]),
            ((), [np.array([[0.0, -0.0, 1e-3], [-5.0, 1e3, 0.0]])]),
            *([((), [(2, 3, 3, 5)])] if images else []),
        ],
        "softmax": [
            ((), [small, small[:, ::-1] / 2]),
            ((), [2 * drawn((5, 7)), (6, 7), (6, 7)]),
            ((), [(3, 2)]),
            ((), [(1, 4)]),
            ((), [drawn((4, 3), 2) - 4]),
            ((), [(4, 4)]),
        ],
        "conv": [
            ((1, 1, 3), [(1, 1, 3, 3)]),
            ((1, 2, 3), [(2, 1, 3, 6)]),
            ((2, 3, 3), [(2, 2, 5, 4), (3, 2, 5, 4), (3, 2, 5, 4)]),
            ((3, 2, 5), [(2, 3, 6, 6)]),
            ((2, 2, 1), [(1, 2, 3, 3)]),
        ],
        "maxpool": [
            ((2,), [(1, 1, 4, 4)]),
            ((2,), [(2, 3, 4, 6), (3, 3, 4, 6), (3, 3, 4, 6)]),
            ((2,), [(1, 2, 5, 7)]),
            ((3,), [(2, 1, 6, 7)]),
            ((2,), [(1, 2, 7, 4)]),
            ((2,), [np.maximum(np.round(drawn((2, 2, 6, 6))), 0)]),
        ],
        "flatten": [((), [np.arange(8.0).reshape(1, 2, 2, 2)]), ((), [(2, 3, 4, 5), (3, 3, 4, 5)]), ((), [(2, 2, 5, 3)])],
    }
    made = []
    for arguments, batches in shapes[stem]:
        xs = [drawn(x, i) if isinstance(x, tuple) else x for i, x in enumerate(batches)]
        layer = CLASSES[name_of(stem)](*arguments)
        outputs = [np.shape(layer.forward(x)) for x in xs]
        made.append(Case(arguments, tuple((x, drawn(s, 10 + i)) for i, (x, s) in enumerate(zip(xs, outputs)))))
    rounded = tuple((x, np.round(2 * g) + (np.round(2 * g) == 0)) for x, g in made[0].batches)
    return [Case(made[0].arguments, tuple((np.round(x), g) for x, g in rounded)), *made[1:]]


def _losses() -> list[Case]:
    z = np.array([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]])
    made = [Case((), ((z, np.eye(3)[[0, 2]]), (z[:1], np.eye(3)[[1]])))]
    for n, classes in ((6, 4), (1, 2), (3, 5)):
        batches = []
        for i in range(3):
            z = np.exp(drawn((n + (i > 0), classes), i))
            batches.append((z / z.sum(axis=1, keepdims=True), np.eye(classes)[(np.arange(len(z)) + i) % classes]))
        made.append(Case((), tuple(batches)))
    return made
