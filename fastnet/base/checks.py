"""Every check of shape, dtype and value, and every error text.

Each function returns the checked value in the form that its caller needs, or raises: ``TypeError`` for a wrong type,
``ValueError`` for a wrong shape or value, ``RuntimeError`` for calls in the wrong order. A message names the layer or
function that raises it (``who``), the expected and the received value, and what to do.
"""
from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet.base import dtypes, hints
from fastnet.base import foreign as _foreign
from fastnet.base.hints import NUMERIC
from fastnet.layer import foreign

SOFT_LABEL_ERROR = 1e-3  # the largest deviation from 1 of a sum of soft labels, which is that of float16


def whole_number(who: object, name: str, value: Any, why: str, least: int = 1) -> int:
    """Return ``value`` as an int, which must be at least `least`."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{who}: {name} must be a whole number, got {value!r} ({type(value).__name__}).") from None
    if number < least:
        raise ValueError(f"{who}: {name} must be at least {least}, got {number}. {why}")
    return number


def one_or_two(who: object, name: str, value: Any, why: str, least: int = 1) -> int | tuple[int, int]:
    """Return ``value``, for rows and columns, as an int that is at least `least`, or as a pair of such numbers."""
    if not isinstance(value, (tuple, list)):
        return whole_number(who, name, value, why, least)
    if len(value) != 2:
        raise ValueError(f"{who}: {name} must be a whole number or a pair (rows, columns), got {value!r}. {why}")
    rows, columns = (whole_number(who, f"{name}[{i}]", number, why, least) for i, number in enumerate(value))
    return rows, columns


def count(who: object, name: str, value: Any) -> int:
    """Return ``value``, a number or an array of one number, as an int, which must be at least 0 and fit in 64 bits."""
    try:
        number = operator.index(value.item() if isinstance(value, np.ndarray) else value)
    except (TypeError, ValueError):
        raise TypeError(f"{who}: {name} must be a whole number, got {value!r} ({type(value).__name__}).") from None
    if number < 0:
        raise ValueError(f"{who}: {name} must not be negative, got {number}.")
    if number >= 1 << 63:
        raise ValueError(f"{who}: {name} must be below 2**63, got {number}.")
    return number


def odd_number(who: object, name: str, value: Any, why: str) -> int:
    """Return ``value`` as an odd int, which must be at least 1."""
    number = whole_number(who, name, value, why)
    if number % 2 == 0:
        raise ValueError(f"{who}: {name} must be odd, got {number}. {why}")
    return number


def real(who: object, name: str, value: Any) -> float:
    """Return ``value``, a number but neither a string nor a bool, as a float."""
    try:
        if isinstance(value, (str, bytes, bool, np.bool_)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{who}: {name} must be a number, got {value!r} ({type(value).__name__}).") from None


def positive(who: object, name: str, value: Any, why: str) -> float:
    """Return ``value`` as a float, which must be finite and above 0."""
    number = real(who, name, value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{who}: {name} must be finite and above 0, got {number}. {why}")
    return number


def seed(who: object, value: Any) -> int:
    """Return ``value`` as an int, which must be at least 0."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{who}: a seed must be a whole number, got {value!r} ({type(value).__name__}).") from None
    if number < 0:
        raise ValueError(f"{who}: a seed must not be negative, got {number}.")
    return number


def truth(who: object, name: str, value: Any) -> bool:
    """Return ``value``, which is True, False, 1 or 0, as a bool."""
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise TypeError(f"{who}: {name} must be True or False, got {value!r} ({type(value).__name__}).")


def rate(who: object, value: Any, name: str = "the learning rate") -> float:
    """Return ``value`` as a float, which must be finite and at least 0."""
    number = float(value) if isinstance(value, (float, np.floating)) else real(who, name, value)
    if not 0 <= number < math.inf:
        hint = " Try 0.1." if name == "the learning rate" else " 0 switches it off."
        raise ValueError(f"{who}: {name} must be finite and not negative, got {number}.{hint}")
    return number


def generator(who: object, rng: Any) -> Any:
    """Return an object with a method ``normal``: a generator, a new one for a seed, or NumPy's global state for None."""
    if rng is None:
        return np.random
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool):
        return np.random.default_rng(seed(who, rng))
    if not isinstance(rng, (np.random.Generator, np.random.RandomState)):
        raise TypeError(f"{who}: rng must be a generator or a seed, got {rng!r}. Try numpy.random.default_rng(0).")
    return rng


def numbers(who: object, name: str, value: npt.ArrayLike) -> np.ndarray:
    """Return ``value`` as an array of real numbers, without a copy if it is one."""
    if value is None:
        raise TypeError(f"{who}: {name} must be an array, got None.")
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise TypeError(f"{who}: {name} must be an array without gaps, got a masked array with {np.ma.count_masked(value)} "
                        f"values masked. Fill them, for instance with {name}.filled(0), or drop those samples.")
    plain = _foreign.plain(who, name, value)
    try:
        array = np.asarray(plain)
    except ValueError as error:  # NumPy's words for a ragged list
        raise ValueError(f"{who}: {name} is not an array: {error} {hints.ragged(name, plain)}") from None
    if array.dtype.kind not in NUMERIC:
        given = type(value).__name__ if hints.is_no_array(array) else f"dtype {array.dtype}"
        hint = hints.not_numbers(name, plain, array)
        raise TypeError(f"{who}: {name} must hold real numbers, got {given}.{hint and ' ' + hint}")
    return array


def floats(who: object, name: str, value: npt.ArrayLike, dtype: np.dtype | None = None) -> np.ndarray:
    """Return ``value`` as native floats of ``dtype``, by default its own or the next larger; copy only if necessary."""
    if type(value) is np.ndarray and (value.dtype in dtypes.SUPPORTED if dtype is None else value.dtype == dtype):
        return value
    array = numbers(who, name, value)
    return np.asarray(array, dtype=dtype or dtypes.result_dtype(array))


def assigned(
    who: object, name: str, value: Any, shape: tuple[int, ...] | None, dtype: np.dtype
) -> np.ndarray:
    """Check an array that a user assigns to an attribute: keep a float array, convert others to ``dtype``."""
    array = numbers(who, name, value)
    if not (isinstance(value, np.ndarray) and array.dtype.kind == "f"):
        array = np.array(array, dtype=dtype)
    if shape is not None and array.shape != shape:
        if len(shape) == 2 and shape[0] == 1 and array.shape == shape[1:]:
            return array.reshape(shape)  # a bias as a plain vector
        raise ValueError(f"{who}: {name} must have shape {shape}, got {array.shape}."
                         + hints.transposed(name, array, shape))
    return array


def own_shape(who: object, name: str, array: np.ndarray, shape: tuple[int, ...], dtype: np.dtype,
              sizes: str = "n_o and n_i") -> np.ndarray:
    """Check an attribute just before its use, since the layer's sizes may have changed after its assignment."""
    if array.shape != shape:
        raise ValueError(
            f"{who}: {name} has shape {array.shape}, but the layer's {sizes} need {shape}. "
            f"Assign {name} again after you change {sizes.replace('and', 'or')}."
        )
    return np.asarray(array, dtype=dtype)


def nonempty(who: object, name: str, array: np.ndarray) -> None:
    """Check that an array is not empty."""
    if array.size == 0:
        what = "value per sample" if array.ndim > 1 and len(array) else "sample"
        raise ValueError(f"{who}: {name} is empty, its shape is {array.shape}. Give at least one {what}.")


def rows(who: object, name: str, array: np.ndarray, width: int | None = None) -> np.ndarray:
    """Check a batch: two dimensions, at least one row, and ``width`` columns if that is known."""
    expected = f"(n, {'n_classes' if width is None else width})"
    if array.ndim != 2:
        raise ValueError(f"{who}: {name} must have shape {expected}, got {array.shape}.{hints.as_rows(name, array.shape)}")
    if width is not None and array.shape[1] != width:
        raise ValueError(
            f"{who}: {name} must have shape {expected}, one row per sample, got {array.shape}."
            + hints.transposed(name, array, (array.shape[1], width))
        )
    nonempty(who, name, array)
    return array


def images(who: object, name: str, array: np.ndarray, channels: int | None = None,
           least: tuple[int, int] = (1, 1)) -> np.ndarray:
    """Check a batch of images: four dimensions, at least ``least`` rows and columns, ``channels`` if they are known."""
    expected = f"(n, {'c' if channels is None else channels}, r, k)"
    if array.ndim != 4:
        hint = hints.as_images(name, array.shape, channels)
        raise ValueError(f"{who}: {name} must be images of shape {expected}, got {array.shape}.{hint}")
    if channels is not None and array.shape[1] != channels:
        hint = f" Its channels seem to be last: np.transpose({name}, (0, 3, 1, 2))." if array.shape[3] == channels else ""
        raise ValueError(f"{who}: {name} must be images of {channels} channels, shape {expected}, got {array.shape}.{hint}")
    if array.size and (array.shape[2] < least[0] or array.shape[3] < least[1]):
        raise ValueError(f"{who}: {name} must be images of at least {least[0]} x {least[1]} pixels, got {array.shape}. "
                         "Pool less, or use larger images.")
    nonempty(who, name, array)
    return array


def image_shape(who: object, shape: tuple[int | None, ...] | None, channels: int | None = None,
                least: tuple[int, int] = (1, 1)) -> tuple[int | None, int | None, int | None]:
    """Check the shape of a sample for a layer of images, and return it as (c, r, k), with None for what is not known."""
    if shape is None:
        return channels, None, None
    expected = f"({'c' if channels is None else channels}, r, k)"
    if len(shape) != 3:
        square = hints.square_images(shape, channels)
        hint = f" Reshape pixels to images: np.reshape(x, (-1, {', '.join(map(str, square))}))." if square else ""
        raise ValueError(f"{who} takes images, of shape {expected} per sample, but its input has shape "
                         f"{_unknown_as_words(shape)}.{hint}")
    c, r, k = shape
    if channels is not None and c not in (None, channels):
        hint = " The channels seem to be last: np.transpose(x, (0, 3, 1, 2))." if k == channels else ""
        raise ValueError(f"{who} takes images of {channels} channels, but its input has {c}.{hint}")
    for side, needed in zip((r, k), least, strict=True):
        if side is not None and side < needed:
            raise ValueError(f"{who} takes images of at least {least[0]} x {least[1]} pixels, but its input has {r} x {k}. "
                             "Pool less before it, or use larger images.")
    return channels if c is None else c, r, k


def _unknown_as_words(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('?' if side is None else str(side) for side in shape)}{',' if len(shape) == 1 else ''})"


def channels(who: object, what: str, shape: tuple[int | None, ...], n: int) -> None:
    """Refuse samples that are neither rows of n columns nor images of n channels."""
    if len(shape) not in (1, 3) or shape[0] not in (None, n):
        raise ValueError(f"{who} takes rows of {n} columns, or images of {n} channels, but its input is {what}. Set its "
                         "argument n to that number.")


def same_shape(who: object, name: str, array: np.ndarray, other: str, shape: tuple[int, ...]) -> np.ndarray:
    """Check that a gradient has the shape of its array."""
    if array.shape != shape:
        raise ValueError(
            f"{who}: {name} must have the shape {shape} of {other}, got {array.shape}."
            + hints.transposed(name, array, shape)
        )
    return array


def computed(who: object, name: str, value: Any, after: str) -> Any:
    """Check that an earlier call has set an attribute."""
    if value is None:
        raise RuntimeError(f"{who}: {name} has not been computed; call {after}() first.")
    return value


def targets(who: object, name: str, value: npt.ArrayLike, shape: tuple[int, int | None], dtype: np.dtype) -> np.ndarray:
    """Check one-hot targets of ``shape`` (n, n_classes); n_classes is None if it is not known."""
    n, n_classes = shape
    array = numbers(who, name, value)
    expected = f"({n}, {'n_classes' if n_classes is None else n_classes})"
    if array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1 and n_classes not in (None, 1)):
        must = "must have shape" if n_classes == 1 else "must be one-hot, of shape"
        raise ValueError(f"{who}: {name} {must} {expected}, got labels of shape {array.shape}. "
                         f"{hints.one_hot(name, value, array, n_classes)}")
    if array.ndim != 2 or len(array) != n or n_classes not in (None, array.shape[1]):
        why = ""
        if array.ndim == 2 and len(array) == n:
            why = f" The network returns {n_classes} values per sample, one for each class."
        elif array.ndim == 2:
            why = " Give one row per sample." + hints.transposed(name, array, (n, n_classes or len(array)))
            if len(array) > n and n_classes in (None, array.shape[1]):
                why += f" If x was shortened, shorten {name} too: {name}[:{n}]."
        raise ValueError(f"{who}: {name} must have shape {expected}, got {array.shape}.{why}")
    with np.errstate(over="ignore"):  # as in `samples`
        return np.asarray(array, dtype=dtype)


def labels(who: object, value: npt.ArrayLike, n_classes: int | None) -> tuple[np.ndarray, int]:
    """Return class numbers, which start at 0, and the number of classes."""
    array = numbers(who, "labels", value)
    if array.ndim != 1:
        raise ValueError(f"{who}: labels must have shape (n,), got {array.shape}. {hints.one_label_each(value, array)}")
    nonempty(who, "labels", array)
    if array.dtype.kind == "f":
        raise TypeError(f"{who}: labels must be whole numbers, got dtype {array.dtype}. "
                        + hints.class_numbers(array, n_classes))
    least, most = int(array.min()), int(array.max())
    if n_classes is None:
        n_classes = most + 1
    else:
        n_classes = whole_number(who, "n_classes", n_classes, "It is the number of columns.")
    if least < 0 or most >= n_classes:
        raise ValueError(
            f"{who}: labels must lie between 0 and {n_classes - 1}, got {least} to {most}. "
            + hints.class_numbers(array, n_classes))
    return array.astype(np.intp), n_classes


def finite(who: object, name: str, array: np.ndarray, given: Any = None) -> None:
    """Check that an array, converted from `given`, has neither NaN nor inf; its minimum and maximum show both."""
    if array.dtype.kind == "f" and not (np.isfinite(array.min()) and np.isfinite(array.max())):
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        before = None if given is None else numbers(who, name, given)
        if before is not None and before.shape == array.shape and np.isfinite(before[where]):
            raise ValueError(f"{who}: {name}{list(where)} is {before[where]:g}, which {array.dtype} cannot hold. Scale "
                             f"{name} to about 1: np.divide({name}, np.max(np.abs({name}))).")
        raise ValueError(
            f"{who}: {name} must be finite, but {name}{list(where)} is {array[where]}. {hints.missing(name, given, array)}")


def samples_and_targets(
    who: object, model: Any, x: npt.ArrayLike, y: npt.ArrayLike, on_disk: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Check data for training or evaluation: return finite arrays in the dtype of the model.

    With ``on_disk``, a memory-mapped x of another dtype is not converted, since it may be larger than memory.
    """
    given = x, y
    if on_disk and isinstance(x, np.memmap) and x.dtype.kind in NUMERIC and x.dtype != model.dtype:
        samples(who, model, x[:1])
    else:
        x = samples(who, model, x)
    dtype = np.dtype(model.dtype or np.float64)
    if foreign(model.loss):  # which may compare the outputs with something of another shape
        t = targets_of_own_loss(who, "y", y, len(x), dtype)
    else:
        t = targets(who, "y", y, (len(x), model.output_width()), dtype)
    finite(who, "x", x, given[0])
    finite(who, "y", t, given[1])
    if model.compares_classes():
        probabilities(who, "y", t)
    return x, t


def targets_of_own_loss(who: object, name: str, value: npt.ArrayLike, n: int, dtype: np.dtype) -> np.ndarray:
    """Check targets for a user-defined loss: one element of any shape per sample, with at least one value."""
    array = numbers(who, name, value)
    if array.ndim < 2 or len(array) != n:
        hint = f" If the network gives one value per sample: np.reshape({name}, (-1, 1))." if array.ndim == 1 else ""
        raise ValueError(f"{who}: {name} must have shape ({n}, ...), one row per sample, got {array.shape}.{hint}")
    with np.errstate(over="ignore"):  # as in `samples`
        return np.asarray(array, dtype=dtype)


def probabilities(who: object, name: str, t: np.ndarray) -> None:
    """Check targets of a cross-entropy: each row is one-hot, or holds soft labels."""
    total = t.sum(axis=1)
    wrong = (np.abs(total - 1) > SOFT_LABEL_ERROR) | (t < 0).any(axis=1)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise ValueError(f"{who}: {name} must be one-hot, or soft labels: rows that sum to 1, none negative, since the loss "
                         f"is a cross-entropy. {name}[{i}] is {np.array2string(t[i], threshold=8, precision=4)}. "
                         + hints.soft_labels(name, t, i))


def schedule(who: object, lr: Any, epochs: int) -> Callable[[int], float]:
    """Return a function from epoch to learning rate, for a number (or a list of one), a list, or a function of the epoch."""
    if callable(lr):
        first = rate(who, lr(0))  # before training, so that it finds most mistakes before it changes anything
        return lambda epoch: rate(who, lr(epoch)) if epoch else first
    if np.ndim(lr) == 0:
        value = rate(who, lr)
        return lambda epoch: value
    values = [rate(who, value) for value in lr]
    if len(values) == 1:
        values *= epochs
    if len(values) != epochs:
        raise ValueError(f"{who}: lr holds {len(values)} rates for {epochs} epochs. Give one for each epoch, or a number.")
    return values.__getitem__


def fraction(who: object, name: str, value: Any) -> float:
    """Return ``value`` as a float, which must be at least 0 and below 1."""
    number = real(who, name, value)
    if not 0 <= number < 1:
        raise ValueError(f"{who}: {name} must be at least 0 and below 1, got {number}. 0 switches it off.")
    return number


def spread(who: object, initializer: str, fan_in: int, fan_out: int) -> float:
    """Return the standard deviation of the weights that an initializer draws."""
    name = choice(who, "initializer", initializer, ("glorot", "he"))
    return math.sqrt(2 / (fan_in + fan_out if name == "glorot" else fan_in))


def choice(who: object, name: str, value: Any, known: tuple[str, ...]) -> str:
    """Return ``value``, which must be one of the known words."""
    if value not in known:
        raise ValueError(f"{who}: {name} must be one of {', '.join(map(repr, known))}, got {value!r}.")
    return value


def callbacks(who: object, value: Any) -> tuple[Callable[..., Any], ...]:
    """Return one function or several as a tuple."""
    if value is None:
        return ()
    functions = (value,) if callable(value) or not isinstance(value, Iterable) else tuple(value)
    for function in functions:
        if not callable(function):
            raise TypeError(f"{who}: callbacks must be functions of the epoch's report, got {function!r}.")
    return functions


def pair(who: object, name: str, value: Any) -> tuple[Any, Any]:
    """Check a pair of samples and targets."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{who}: {name} must be a pair (x, y), got {type(value).__name__}.")
    return value[0], value[1]


def samples(who: object, model: Any, x: npt.ArrayLike) -> np.ndarray:
    """Check data for a model, one sample per row of its width, and convert them to its dtype."""
    with np.errstate(over="ignore"):  # `finite` names what the dtype cannot hold
        return floats(who, "x", batch(who, model, x), model.dtype)


def batch(who: object, model: Any, x: npt.ArrayLike) -> np.ndarray:
    """Check data for a model, one sample per row of its width, without a conversion: they may be larger than memory."""
    array = numbers(who, "x", x)
    width = model.input_width()
    if width is not None:
        rows(who, "x", array, width)
    elif array.ndim < 2:
        raise ValueError(f"{who}: x must have shape (n, ...), one sample per row, got {array.shape}.")
    nonempty(who, "x", array)
    model.check_sample(who, array.shape[1:])
    return array


def scores(who: object, array: np.ndarray) -> np.ndarray:
    """Check the output of a classifier: one row of class scores per sample."""
    if np.ndim(array) != 2:
        raise ValueError(
            f"{who}: the last layer must return a row of class scores per sample, got shape {np.shape(array)}. "
            "Call forward for any other output."
        )
    return array


def gradient_found(who: object, name: str, grad: Any, shape: tuple[int, ...]) -> None:
    """Check a gradient that a layer's backward has stored: it must be an array of the right shape."""
    if np.shape(grad) != shape or not isinstance(grad, np.ndarray):
        given = "None" if grad is None else f"{type(grad).__name__} of shape {np.shape(grad)}"
        raise ValueError(
            f"{who}: the gradient of {name} must be an array of its shape {shape}, got {given}. "
            + ("Let backward return it." if name == "x" else "Let backward assign it.")
        )


def gradient_there(who: object, layer: Any, name: str, grad: str) -> Any:
    """Return the gradient of a parameter, by the name that the layer's ``parameters`` states."""
    for attribute, what in ((name, "a parameter"), (grad, f"the gradient of {name}")):
        if not hasattr(layer, attribute):
            raise ValueError(f"{who}: its parameters() names {attribute} as {what}, but after backward it has no such "
                             "attribute. parameters() must map the names of learned attributes to those of their gradients.")
    return getattr(layer, grad)


def loss_value(loss: Any, value: Any) -> float:
    """Return the value of a loss's ``forward``, which must be one number, as a float."""
    try:
        return float(np.asarray(value).item())
    except (TypeError, ValueError):
        given = "None" if value is None else f"{type(value).__name__} of shape {np.shape(value)}"
        raise TypeError(f"{type(loss).__name__}: forward must return the loss of the batch, one number, got {given}. "
                        "Return, for instance, the mean over the samples.") from None


def gradient_scale(who: object, y_grad: Any) -> float:
    """Return the factor that a loss layer's backward takes: 1 for None, or the gradient with respect to the loss."""
    if y_grad is None:
        return 1.0
    if np.ndim(y_grad) != 0 or isinstance(y_grad, (str, bytes)):
        raise ValueError(
            f"{who}: the loss is one number, so y_grad must be None or a number, got shape {np.shape(y_grad)}. "
            "Call backward() without arguments."
        )
    return float(floats(who, "y_grad", y_grad))


def layers(who: object, stack: Any) -> Any:
    """Check a sequence of layers: at least one, and none of fastnet's twice."""
    if isinstance(stack, (str, bytes, dict, set)) or not hasattr(stack, "__iter__"):
        raise TypeError(f"{who}: layers must be a tuple or a list of layers, got {stack!r}.{hints.in_a_sequence(stack)}")
    stack = stack if isinstance(stack, (tuple, list)) else tuple(stack)
    if len(stack) == 0:
        raise ValueError(f"{who}: layers is empty. Give at least one layer, for instance (FullLayer(3072, 5),).")
    for i, layer in enumerate(stack):
        _interface(who, f"layers[{i}]", layer)
        first = next(j for j, other in enumerate(stack) if other is layer)
        if first < i and type(layer).__module__.startswith("fastnet."):
            raise ValueError(
                f"{who}: layers[{first}] and layers[{i}] are the same {layer!r}. A layer stores its last input, so use a "
                f"different object for each: write {type(layer).__name__}(...) twice."
            )
    return stack


def loss(who: object, layer: Any) -> Any:
    """Check a loss layer."""
    _interface(who, "loss", layer)
    return layer


def layer(who: object, name: str, subject: Any, target: Any) -> None:
    """Check that the forward of a layer, loss or model takes x and, if there is one, a target."""
    _interface(who, name, subject)
    given = 1 if target is None else 2
    try:
        inspect.signature(subject.forward).bind(*(None,) * given)
    except ValueError:  # a callable without a signature
        return
    except TypeError:
        wants, call = ("a target too", f"{who}(loss, x, target)") if given == 1 else ("no target", f"{who}(layer, x)")
        raise TypeError(f"{who}: forward of {name}, {subject!r}, takes {wants}: {call}.") from None


def _interface(who: object, name: str, layer: Any) -> None:
    if isinstance(layer, type):
        raise TypeError(
            f"{who}: {name} is the class {layer.__name__}, not a layer. Instantiate it: {layer.__name__}(...)."
        )
    for method in ("forward", "backward"):
        if not callable(getattr(layer, method, None)):
            raise TypeError(
                f"{who}: {name} is {layer!r}, which has no method {method}. A layer has forward and backward, "
                "and update_param if it learns."
            )


def width_given(who: object, shape: tuple[int | None, ...] | None, width: int) -> None:
    """Check the shape of a sample for a fully connected layer: ``width`` values in a row, or not known."""
    if shape is None or shape in ((width,), (None,)):
        return
    if len(shape) == 1:
        raise ValueError(f"{who} takes {width} values per sample, but its input has {shape[0]}.")
    raise ValueError(f"{who} takes a row of {width} values per sample, but its input has shape {_unknown_as_words(shape)}. "
                     "Put a FlattenLayer() before it.")


def width_before(who: object, i: int, layers: Sequence[Any], width: int | None, source: int | None) -> None:
    """Check that layer i takes as many values as its input has, which is the output of layers[source]."""
    wants = layers[i].n_i
    if width is None or wants == width:
        return
    other = "" if source is None or not hasattr(layers[source], "n_o") else f", or the n_o of layers[{source}] {wants}"
    raise ValueError(
        f"{who}: layers[{i}], {layers[i]!r}, takes {wants} values per sample, but "
        f"{'x has' if source is None else f'layers[{source}] returns'} {width}. Make the n_i of layers[{i}] {width}{other}."
    )
