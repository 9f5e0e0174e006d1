"""How ``fit`` runs."""
from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet import _checks
from fastnet.training import layerwise


def fit(model: Any, x: npt.ArrayLike, y: npt.ArrayLike, epochs: int, lr: float, batch_size: int = 128) -> np.ndarray:
    """Train a :class:`fastnet.Sequential`; its method ``fit`` describes the arguments."""
    x, y, epochs, lr, batch_size = _checks.fit("Sequential.fit", model, x, y, epochs, lr, batch_size)
    return layerwise.train(model, x, y, epochs, lr, batch_size)
