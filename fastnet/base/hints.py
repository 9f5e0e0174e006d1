"""The advice in error messages, chosen for the object that caused the error.

Each function returns a sentence, or an empty string without advice. The code in it is an expression in the name that the
message uses, and works directly on the object, be it an array, a list or a table. A test runs each of them.
"""
from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

NUMERIC = "biuf"  # kinds of dtype that are real numbers
TARGETS = ("labels", "y", "t")  # names of arguments that hold classes


def not_numbers(name: str, value: Any, array: np.ndarray) -> str:
    """Give advice for an object that NumPy converts to an array of something else than real numbers."""
    if is_no_array(array):
        return _no_array(name, value)
    if array.dtype.kind == "c":
        return f"Take its real part or its absolute value first: np.real({name}), np.abs({name})."
    if array.dtype.kind == "V" and array.dtype.names:
        return f"Make its fields columns: np.column_stack([{name}[field] for field in {name}.dtype.names])."
    if name in TARGETS and not _is_rows(array):
        return numbered(name, np.ravel(array), name if array.ndim == 1 else f"np.ravel({name})")
    for advice in (_dates, _parsed, _rows):
        if found := advice(name, value, array):
            return found
    wrong = next((place for place, item in np.ndenumerate(array) if _made(float, item) is None), None)
    item = None if wrong is None else array[wrong]
    item = item.item() if isinstance(item, np.generic) else item
    where = "" if wrong is None else f"{name}{list(wrong)} is {item!r}, which is no number. "
    return f"{where}Number each column of text, np.unique(column, return_inverse=True)[1], or drop it."


def is_no_array(array: np.ndarray) -> bool:
    """Return whether NumPy made a scalar of an object or of text."""
    return array.ndim == 0 and array.dtype.kind in "OUS"


def numbered(name: str, labels: Any, flat: str) -> str:
    """Say how to convert labels of any kind, the expression `flat`, to class numbers or, where needed, one-hot targets."""
    if _made(np.unique, labels) is None:  # labels of several types cannot be sorted
        flat = f"np.asarray({flat}, dtype=str)"
    numbers = f"np.unique({flat}, return_inverse=True)[1]"
    return f"Number the labels: {numbers}." if name == "labels" else f"Number the labels: fastnet.one_hot({numbers})."


def one_hot(name: str, value: Any, array: np.ndarray, n_classes: int | None) -> str:
    """Say how to convert numbers, one per sample, to targets of a network with `n_classes` outputs."""
    if n_classes == 1:
        return f"Make each a row: np.reshape({name}, (-1, 1))."
    if hasattr(value, "iloc") and array.ndim == 2:
        flat = f"{name}.iloc[:, 0]"
    else:
        flat = name if array.ndim == 1 else f"np.ravel({name})"
    if not np.isfinite(array).all():
        return f"Drop the samples whose label is missing; np.isfinite({flat}) is True for the others."
    if array.size and not (np.all(array == np.rint(array)) and 0 <= array.min() and array.max() < (n_classes or np.inf)):
        different = len(np.unique(array))
        if n_classes is not None and different > n_classes:
            return f"There are {different} different values. For classification, give the network one output per class. " \
                   "For regression, use a MeanSquaredErrorLayer() and a network with one output."
        flat = f"np.unique({flat}, return_inverse=True)[1]"
    elif array.dtype.kind == "f":
        flat = f"np.asarray({flat}, dtype=int)"
    return f"Convert them: fastnet.one_hot({flat}{'' if n_classes is None else f', {n_classes}'})."


def class_numbers(array: np.ndarray, n_classes: int | None) -> str:
    """Say how to convert labels, numbers in one dimension, to whole numbers from 0."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return "Drop the samples whose label is missing; np.isfinite(labels) is True for the others."
    if np.all(array == np.rint(array)) and array.min() >= 0 and array.max() < (n_classes or np.inf):
        return "Make them whole: np.asarray(labels, dtype=int)."
    different = len(np.unique(array))
    if n_classes is not None and different > n_classes:
        return f"There are {different} different labels, so there must be at least {different} classes."
    return "Renumber them: np.unique(labels, return_inverse=True)[1]."


def one_label_each(value: Any, array: np.ndarray) -> str:
    """Say how to convert labels in several dimensions to one dimension."""
    if array.ndim == 2 and array.shape[1] > 1:
        if np.all((array == 0) | (array == 1)) and np.all(array.sum(axis=1) == 1):
            return "They are one-hot already; convert them to class numbers: np.argmax(labels, axis=1)."
        return "Give one class number per sample; for scores, np.argmax(labels, axis=1)."
    return f"Flatten them: {'labels.iloc[:, 0]' if hasattr(value, 'iloc') else 'np.ravel(labels)'}."


def missing(name: str, value: Any, array: np.ndarray) -> str:
    """Say what to do about NaN and inf."""
    if name in TARGETS:
        return f"Drop such samples; np.isfinite({name}).all(axis=1) is True for the others."
    if hasattr(value, "fillna"):  # a table, perhaps with gaps that NumPy does not know
        only_gaps = not np.isinf(array).any()
        return f"Repair or drop such samples, for instance with {name}.fillna(0)" + (
            "." if only_gaps else ".replace([np.inf, -np.inf], 0).")
    if hasattr(value, "nan_to_num"):  # a tensor
        return f"Repair or drop such samples, for instance with {name}.nan_to_num(0, 0, 0)."
    return f"Repair or drop such samples, for instance with np.nan_to_num({name}, posinf=0, neginf=0)."


def soft_labels(name: str, t: np.ndarray, i: int) -> str:
    """Say what to do about targets of a cross-entropy whose row i does not hold probabilities."""
    total = t.sum(axis=1)
    if np.all(np.abs(t) == 1) and np.all((t > 0).sum(axis=1) == 1):
        return f"They seem to use -1 for 0; convert them: np.add({name}, 1) / 2."
    if np.any(t < 0):
        return "For regression, where targets may be negative, use MeanSquaredErrorLayer()."
    if np.all(total > 0) and np.allclose(total, total[0], rtol=1e-3):
        return (f"All rows sum to {total[0]:g}; divide them: np.divide({name}, {total[0]:g}). A learning rate larger by the "
                "same factor has the effect that you intended.")
    if np.all(total > 0):
        return f"Divide each row by its sum: np.divide({name}, np.reshape(np.sum({name}, axis=1), (-1, 1)))."
    return f"Drop the samples without a class; np.any({name}, axis=1) is True for the others."


def ragged(name: str, value: Any) -> str:
    """Say what to do about rows of different lengths."""
    lengths = _made(lambda: [len(row) for row in value])
    flat = _made(lambda: all(np.ndim(item) == 0 for row in value for item in row))
    if not lengths or not flat:
        return "Give every row the same number of values."
    return (f"Give every row the same number of values; they have {min(lengths)} to {max(lengths)}. To pad them with zeros: "
            f"np.array([np.pad(row, (0, {max(lengths)} - len(row))) for row in {name}]).")


def as_rows(name: str, shape: tuple[int, ...]) -> str:
    """Say how to convert samples to rows."""
    if len(shape) == 1:
        return f" One sample is a row: np.atleast_2d({name})."
    return f" Flatten each sample: {flattened(name, shape)}." if len(shape) > 2 else ""


def flattened(name: str, shape: tuple[int, ...]) -> str:
    """Return the code that makes a row of each sample; channels of an image come first in it, as in CIFAR's rows."""
    last = len(shape) == 4 and shape[3] in (1, 3, 4) and shape[1] not in (1, 3, 4)
    images = f"np.transpose({name}, (0, 3, 1, 2))" if last else name
    return f"np.reshape({images}, (len({name}), -1))"


def as_images(name: str, shape: tuple[int, ...], channels: int | None) -> str:
    """Say how to convert an array that does not have four dimensions to a batch of images."""
    if len(shape) == 2:
        square = square_images(shape[1:], channels)
        return f" Reshape pixels to images: np.reshape({name}, (-1, {', '.join(map(str, square))}))." if square else ""
    if len(shape) != 3:
        return ""
    if channels in (None, shape[0]):
        return f" Add an axis for samples: np.expand_dims({name}, 0)."
    return f" Add an axis for the channel: np.expand_dims({name}, 1)." if channels == 1 else ""


def square_images(shape: tuple[int | None, ...], channels: int | None) -> tuple[int, int, int] | None:
    """Return channels, rows and columns of square images with as many values as rows of this shape; None if none has."""
    for c in (channels,) if channels is not None else (3, 1):
        side = math.isqrt((shape[0] or 0) // c) if len(shape) == 1 else 0
        if side > 1 and c * side * side == shape[0]:
            return c, side, side
    return None


def transposed(name: str, array: np.ndarray, shape: tuple[int, ...]) -> str:
    """Give advice for a matrix that should have this shape."""
    if array.ndim == 2 and array.shape == shape[::-1]:
        return f" It looks transposed: use np.transpose({name})."
    return ""


def in_a_sequence(value: Any) -> str:
    """Give advice for an object that should be a sequence of layers."""
    if isinstance(value, dict):
        return " Pass its values: list(layers.values())."
    if isinstance(value, (set, frozenset)):
        return " A set has no order."
    return " Put it in brackets." if hasattr(value, "forward") else ""  # a single layer


def not_numeric_columns(name: str, table: Any, pandas: Any) -> str:
    """Give advice for a pandas table with columns that do not hold numbers."""
    if name in TARGETS and table.shape[1] == 1:
        return numbered(name, table.iloc[:, 0], f"{name}.iloc[:, 0]")
    types = pandas.api.types
    dates = [column for column, dtype in table.dtypes.items()
             if types.is_datetime64_any_dtype(dtype) or types.is_timedelta64_dtype(dtype)]
    if not dates and _made(table.astype, float) is not None:
        return f"Convert them: {name}.astype(float)."
    encoded = "" if dates else f" Or encode them: pandas.get_dummies({name})."
    return f"Drop them: {name}.select_dtypes(['number', 'bool']).{encoded}"


def _no_array(name: str, value: Any) -> str:
    """Give advice for an object that NumPy does not convert to an array of its elements."""
    for method in ("toarray", "todense"):  # sparse matrices
        if callable(getattr(value, method, None)):
            return f"Make it dense: {name}.{method}()."
    if isinstance(value, dict):
        columns = _made(lambda: np.column_stack(list(value.values())))
        return "" if columns is None else f"Make its values columns: np.column_stack(list({name}.values()))."
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        return "Give an array of numbers."
    return f"Make a list of it first: list({name})."


def _dates(name: str, value: Any, array: np.ndarray) -> str:
    for unit, kind, what in (("datetime64[s]", "M", "days since 1970"), ("timedelta64[s]", "m", "days")):
        there = array.dtype.kind == kind
        if not there and array.dtype.kind == "O":
            there = all(hasattr(item, "isoformat" if kind == "M" else "total_seconds") for item in array.flat)
        if there and _made(np.array, value, unit) is not None:
            return f"Convert dates to {what}: np.array({name}, dtype='{unit}').astype(float) / 86400."
    return ""


def _parsed(name: str, value: Any, array: np.ndarray) -> str:
    """Give advice for objects and text that hold numbers, or None."""
    numbers = _made(np.array, value, float)
    if numbers is None or numbers.dtype.kind != "f":
        return ""
    if np.isfinite(numbers).all():
        return f"Convert it to numbers: np.array({name}, dtype=float)."
    return f"Convert it to numbers, missing ones to 0: np.nan_to_num(np.array({name}, dtype=float), posinf=0, neginf=0)."


def _rows(name: str, value: Any, array: np.ndarray) -> str:
    """Give advice for an array of objects that are rows."""
    if not _is_rows(array):
        return ""
    stacked = _made(lambda: np.stack([np.asarray(row) for row in array]))
    if stacked is not None and stacked.dtype.kind in NUMERIC:
        return f"Stack its rows: np.stack([np.asarray(row) for row in {name}])."
    return ragged(name, list(array))


def _is_rows(array: np.ndarray) -> bool:
    return array.dtype.kind == "O" and array.ndim == 1 and array.size > 0 and all(np.ndim(row) > 0 for row in array)


def _made(attempt: Callable[..., Any], *given: Any) -> Any:
    """Return the result of an attempt, None if it fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return attempt(*given)
    except Exception:
        return None
