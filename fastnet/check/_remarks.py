"""Remarks on results that the course accepts, but that could be better: unstable formulas, other readings of (3.12)."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.check._observe import numbers_of

READINGS = (
    (
        (2 / 500) ** 0.25,
        "the weights are drawn with the variance sqrt(2 / (n_i + n_o)); in (3.12) that is meant as the standard deviation",
    ),
    (2 / 500, "the weights are drawn with the standard deviation 2 / (n_i + n_o); in (3.12) it is the square root of that"),
)


def initial(klass: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Return W and b of a FullLayer(300, 200), always drawn from the same seed; None if the constructor fails."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        layer = klass(300, 200)
        W, b = numbers_of(layer.W), numbers_of(layer.b)
        return None if W is None or b is None else (W, b)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return None
    finally:
        np.random.set_state(state)


def unstable(stem: str, klass: Any) -> list[str]:
    """Return remarks on how a layer fails for extreme values, such as those of raw pixels or of a saturated network."""
    with np.errstate(all="ignore"):
        try:
            if stem == "softmax":
                x = np.array([[1000.0, 999.0], [500.0, 501.0]])
                if not np.isfinite(np.asarray(klass().forward(x.copy()), np.float64)).all():
                    return [
                        "not stable: scores of 1000, as raw pixels give, become nan; subtract the largest score of "
                        "each row (3.16)"
                    ]
                x = np.array([[0.0, 1.0], [2000.0, 2001.0]])
                if not np.isfinite(np.asarray(klass().forward(x.copy()), np.float64)).all():
                    return [
                        "not stable: it subtracts one maximum of the whole batch, so a row 750 below it becomes nan; "
                        "subtract the largest score of each row"
                    ]
            if stem == "cross_entropy":
                loss = klass().forward(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[1.0, 0.0], [0.0, 1.0]]))
                if not np.isfinite(loss):
                    return ["not stable: a probability of exactly 0 gives nan, though its t is 0: 0 log 0 is 0"]
        except Exception as error:
            return [f"not stable: extreme values raise {type(error).__name__}"]
    return []


def is_double(value: Any) -> bool:
    """Return whether a result is float64 or a Python number."""
    return getattr(value, "dtype", np.dtype(float)) == np.float64
