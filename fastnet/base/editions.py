"""The ways in which scripts of other years of the course call ``fit``.

The course's template has ``fit(x, y, epochs=10, lr=0.1, batch_size=128)``, the signature of :meth:`fastnet.Sequential.fit`.
2018 scripts call ``fit(x, y, x_test, y_test, epochs, lr, batch_size)`` and expect two arrays of losses. Some scripts shorten
x but not y, which a loop over slices never notices: :mod:`fastnet.dropin` accepts that.
"""
from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

_Fit = TypeVar("_Fit", bound=Callable[..., Any])
_FORM_2018 = ("x_test", "y_test", "epochs", "lr", "batch_size")

cuts_targets = False  # whether `fit` drops rows of y beyond those of x; fastnet.dropin sets it


def every_form(fit: _Fit) -> _Fit:
    """Decorate a method ``fit(self, x, y, epochs, lr, batch_size, *, validation, ...)`` to accept the 2018 signature, too.

    Test data tell that it is the 2018 signature: an array as the third argument, or the keywords ``x_test`` and ``y_test``.
    The method then returns ``(train_losses, test_losses)``, both of shape (epochs,).
    """

    @functools.wraps(fit)
    def wrapper(self: Any, x: Any, y: Any, *args: Any, **options: Any) -> Any:
        if cuts_targets:
            y = _cut(x, y)
        if not ("x_test" in options or "y_test" in options or (args and _is_data(args[0]))):
            return fit(self, x, y, *args, **options)
        return _fit_2018(fit, self, x, y, args, options)

    return cast(_Fit, wrapper)


def _fit_2018(
    fit: Callable[..., Any], model: Any, x: Any, y: Any, args: tuple[Any, ...], options: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    usage = "Call fit(x, y, epochs, lr, batch_size) or, as in 2018, fit(x, y, x_test, y_test, epochs, lr, batch_size)."
    if len(args) > len(_FORM_2018):
        raise TypeError(f"Sequential.fit: got {len(args) + 2} positional arguments, expected at most 7. {usage}")
    given = dict(zip(_FORM_2018, args))
    twice = [name for name in given if name in options]
    if twice:
        raise TypeError(f"Sequential.fit: got {twice[0]} twice, by position and by name. {usage}")
    given.update(options)
    x_test, y_test = given.pop("x_test", None), given.pop("y_test", None)
    if x_test is None or y_test is None:
        raise TypeError(f"Sequential.fit: x_test and y_test belong together, but one of them is missing. {usage}")
    if given.pop("validation", None) is not None:
        raise TypeError("Sequential.fit: validation and (x_test, y_test) mean the same; pass only one of them.")
    losses = fit(model, x, y, validation=(x_test, y_test), **given)
    test_losses = np.full(len(losses), np.nan)  # nan for epochs that were not run, as in the losses
    measured = model.history.val_losses
    test_losses[: len(measured)] = measured
    return losses, test_losses


def _is_data(value: Any) -> bool:
    """Return whether an argument holds samples, and is not a number of epochs."""
    try:
        return np.ndim(value) >= 2
    except ValueError:  # a ragged list
        return False


def _cut(x: Any, y: Any) -> Any:
    """Return y without the rows for which x has no samples."""
    try:
        n, rows = len(x), len(y)
    except TypeError:  # a number, or None: fit raises the right error
        return y
    if n >= rows:
        return y
    print(f"fastnet.dropin: fit got {rows} targets for {n} samples; it uses the first {n}, y[:{n}]", file=sys.stderr)
    return y[:n]
