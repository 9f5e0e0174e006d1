"""Numbers to compare with, and a layer's attributes under each of their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def numbers(shape: tuple[int, ...], seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape) * scale


def copy_weights(layer: Any, reference: Any) -> None:
    """Give a layer the reference's weights, in arrays of its own."""
    for name in ("W", "b"):
        if hasattr(reference, name):
            setattr(layer, name, getattr(reference, name).copy())


def gradient_of(layer: Any, name: str) -> Any:
    """A gradient under either of its names: the chapter says w_grad, the tests say W_grad."""
    grad = getattr(layer, f"{name}_grad", None)
    return getattr(layer, f"{name.lower()}_grad", None) if grad is None else grad


def updater(layer: Any) -> Callable[[float], None]:
    return getattr(layer, "update_param", None) or layer.update_params


def copy_gradients(layer: Any, reference: Any) -> None:
    """Give a layer the reference's gradients, under the names it has for them."""
    for name in ("W", "b"):
        for attribute in {f"{name}_grad", f"{name.lower()}_grad"}:
            if hasattr(reference, name) and hasattr(layer, attribute):
                setattr(layer, attribute, getattr(reference, f"{name}_grad").copy())
