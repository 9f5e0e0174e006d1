"""The ways in which other editions of the course call ``fit``.

The template says ``fit(x, y, epochs=10, lr=0.1, batch_size=128)``, which is the signature of :meth:`fastnet.Sequential.fit`.
Scripts of 2018 say ``fit(x, y, x_test, y_test, epochs, lr, batch_size)`` and take two arrays of losses back. Some scripts
shorten x and leave y as it was, which a loop over slices never notices: :mod:`fastnet.dropin` accepts that.
"""
from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

_Fit = TypeVar("_Fit", bound=Callable[..., Any])
_FORM_2018 = ("x_test", "y_test", "epochs", "lr", "batch_size")

cuts_targets = False  # whether rows of y beyond those of x are dropped; fastnet.dropin sets it


def every_form(fit: _Fit) -> _Fit:
    """Let a method ``fit(self, x, y, epochs, lr, batch_size, *, validation, ...)`` be called in the form of 2018 as well.

    That form is recognised by its test data: an array in third place, or the keywords ``x_test`` and ``y_test``. It
    returns ``(train_losses, test_losses)``, both of shape (epochs,).
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
        raise TypeError(f"Sequential.fit: got {len(args) + 2} arguments without a name, expected at most 7. {usage}")
    given = dict(zip(_FORM_2018, args))
    twice = [name for name in given if name in options]
    if twice:
        raise TypeError(f"Sequential.fit: {twice[0]} is given twice, by place and by name. {usage}")
    given.update(options)
    x_test, y_test = given.pop("x_test", None), given.pop("y_test", None)
    if x_test is None or y_test is None:
        raise TypeError(f"Sequential.fit: x_test and y_test belong together, but one of them is missing. {usage}")
    if given.pop("validation", None) is not None:
        raise TypeError("Sequential.fit: validation and x_test with y_test are the same; give one of them.")
    losses = fit(model, x, y, validation=(x_test, y_test), **given)
    test_losses = np.full(len(losses), np.nan)  # as the losses: nan for epochs that were not run
    measured = model.history.val_losses
    test_losses[: len(measured)] = measured
    return losses, test_losses


def _is_data(value: Any) -> bool:
    """Whether an argument is samples, not a number of epochs."""
    try:
        return np.ndim(value) >= 2
    except ValueError:  # a ragged list
        return False


def _cut(x: Any, y: Any) -> Any:
    """y without the rows that x has no samples for."""
    try:
        n, rows = len(x), len(y)
    except TypeError:  # a number, or None: fit says what is wrong
        return y
    if n >= rows:
        return y
    print(f"fastnet.dropin: fit was given {rows} targets for {n} samples; it uses the first {n}, y[:{n}]", file=sys.stderr)
    return y[:n]
