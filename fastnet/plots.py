"""Pictures of networks and their results: curves, confusion matrix, accuracies, images, weights.

Every function returns a Matplotlib figure. A notebook shows it; ``figure.savefig("name.png")`` writes it to a file.
fastnet imports Matplotlib when it draws the first one.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet.base import checks

_BLUE, _ORANGE, _RED, _GREY = "#0072b2", "#e69f00", "#d55e00", "0.5"  # distinguishable with any kind of colour blindness
_WRITTEN = 20  # a confusion matrix of up to so many classes shows its counts


def curves(history: Any) -> Any:
    """Draw the loss and accuracy of one fit against the epoch.

    Parameters
    ----------
    history : History
        A model's ``history``.

    Returns
    -------
    matplotlib.figure.Figure
        A panel with training and validation loss and, with validation data, one with the validation accuracy. A dot marks
        the epoch with the lowest validation loss: training beyond it no longer helps.

    Raises
    ------
    ValueError
        If no epoch has been run.
    """
    if not history.losses:
        raise ValueError("plots.curves: the history has no epochs. Call fit first.")
    validated = bool(np.isfinite(history.val_accuracies).any())
    figure = _picture((8 if validated else 5, 3.4))
    panels = np.atleast_1d(figure.subplots(1, 1 + validated))
    epochs = np.arange(1, len(history.losses) + 1)
    marker = "o" if len(epochs) < 3 else None
    losses = np.where(np.isfinite(history.losses), history.losses, np.nan)
    panels[0].plot(epochs, losses, color=_BLUE, marker=marker, label="training")
    values = np.where(np.isfinite(history.val_losses), history.val_losses, np.nan)
    if np.isfinite(values).any():
        panels[0].plot(epochs[:len(values)], values, color=_ORANGE, ls="--", marker=marker, label="validation")
        best = int(np.nanargmin(values))
        panels[0].plot(epochs[best], values[best], "o", color=_ORANGE, label=f"lowest: epoch {best + 1}")
    if validated:
        panels[1].plot(epochs[:len(values)], history.val_accuracies, color=_ORANGE, ls="--", marker=marker,
                       label="validation")
        panels[1].set(xlabel="epoch", ylabel="accuracy", ylim=(0, 1))
    panels[0].set(xlabel="epoch", ylabel="loss")
    if history.stopped.startswith("diverged"):
        panels[0].set_title(f"diverged in epoch {len(epochs)}", color=_RED, fontsize="medium")
    for panel in panels:
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small")
    panels[0].set_ylim(bottom=0)
    return figure


def confusion_matrix(labels: npt.ArrayLike, predicted: npt.ArrayLike, class_names: Sequence[str] | None = None) -> Any:
    """Draw how often the network predicted each class for each true class.

    Parameters
    ----------
    labels, predicted : array_like of int, shape (n,)
        The true and the predicted classes, as class numbers, one-hot rows or probabilities.
    class_names : sequence of str, optional
        ``class_names[label]`` is the name of a class.

    Returns
    -------
    matplotlib.figure.Figure
        One row per true class, one column per predicted class. Numbers are counts; colours are shares of the row.
    """
    labels, predicted, names = _classes("plots.confusion_matrix", labels, predicted, class_names)
    k = len(names)
    counts = np.zeros((k, k), int)
    np.add.at(counts, (labels, predicted), 1)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = 2.4 + 0.42 * min(max(k, 4), 25)
    figure = _picture((size + 0.6, size))
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    small = "small" if k <= 30 else 5
    axes.set_xticks(range(k), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=small)
    axes.set_yticks(range(k), names, fontsize=small)
    axes.set(xlabel="predicted", ylabel="true class")
    if k <= _WRITTEN:
        for i, j in np.ndindex(k, k):
            if counts[i, j]:
                axes.text(j, i, f"{counts[i, j]}", ha="center", va="center", fontsize="small",
                          color="white" if shares[i, j] > 0.6 else "black")
    axes.set_title(f"{np.trace(counts)} of {len(labels)} right: {np.trace(counts) / len(labels):.1%}", fontsize="medium")
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    return figure


def class_accuracy(labels: npt.ArrayLike, predicted: npt.ArrayLike, class_names: Sequence[str] | None = None) -> Any:
    """Draw the accuracy within each class, with its 95% interval (Wilson's).

    Parameters
    ----------
    labels, predicted, class_names
        As in :func:`confusion_matrix`.

    Returns
    -------
    matplotlib.figure.Figure
        One bar per class that occurs, and lines for the accuracy over all samples and for chance.
    """
    labels, predicted, names = _classes("plots.class_accuracy", labels, predicted, class_names)
    present = [c for c in range(len(names)) if (labels == c).any()]
    right = [int((predicted[labels == c] == c).sum()) for c in present]
    total = [int((labels == c).sum()) for c in present]
    share = np.array(right) / total
    low, high = np.transpose([wilson(r, n) for r, n in zip(right, total)])
    figure = _picture((6.5, 1.4 + 0.3 * len(present)))
    axes = figure.subplots()
    axes.barh(range(len(present)), share, color=_BLUE, alpha=0.6)
    axes.errorbar(share, range(len(present)), xerr=[np.maximum(share - low, 0), np.maximum(high - share, 0)], fmt="none",
                  ecolor="black", capsize=3, lw=1, label="95% interval")
    axes.axvline(sum(right) / sum(total), color=_ORANGE, label=f"all: {sum(right) / sum(total):.3f}")
    axes.axvline(1 / len(names), color=_GREY, ls=":", label=f"chance: {1 / len(names):.3g}")
    axes.set_yticks(range(len(present)), [f"{names[c]} ({n})" for c, n in zip(present, total)], fontsize="small")
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="accuracy")
    figure.legend(loc="outside upper right", ncols=3, fontsize="small", frameon=False)
    return figure


def images(
    x: npt.ArrayLike, labels: npt.ArrayLike | None = None, class_names: Sequence[str] | None = None, *, n: int = 40,
    shape: tuple[int, int, int] | None = None,
) -> Any:
    """Draw samples as images.

    Parameters
    ----------
    x : array_like, shape (n, d) or (n, channels, rows, columns)
        Pixels: bytes, or floats within -0.5 .. 0.5 or 0 .. 1. Other values are scaled from their minimum to their maximum.
    labels : array_like of int, optional
        With labels, each class has its own row of images.
    class_names : sequence of str, optional
    n : int
        The largest number of images to draw.
    shape : (channels, rows, columns), optional
        The shape of one image. By default fastnet assumes a square one of three channels or one.

    Returns
    -------
    matplotlib.figure.Figure
    """
    pixels = _pixels("plots.images", x, shape)
    n = checks.whole_number("plots.images", "n", n, "It is the number of images.")
    if labels is None:
        return _grid(pixels[:n], [""] * n, columns=10)
    numbers, _, names = _classes("plots.images", labels, labels, class_names)
    present = np.unique(numbers)[:n]
    each = max(1, n // len(present))
    margin = 0.2 + 0.08 * max(len(names[c]) for c in present)
    rows = _many_axes(len(present), each, (0.75, 0.75), left=margin)
    figure = rows[0, 0].figure
    for c, row in zip(present, rows):
        chosen = pixels[np.flatnonzero(numbers == c)[:each]]
        for axes, image in zip(row, [*chosen, *[None] * (each - len(chosen))]):
            _show(axes, image)
        row[0].set_ylabel(names[c], rotation=0, ha="right", va="center", fontsize="small")
    return figure


def mistakes(
    x: npt.ArrayLike, labels: npt.ArrayLike, probabilities: npt.ArrayLike, class_names: Sequence[str] | None = None, *,
    n: int = 20, shape: tuple[int, int, int] | None = None,
) -> Any:
    """Draw the misclassified images with the highest predicted probability.

    Parameters
    ----------
    x, class_names, n, shape
        As in :func:`images`.
    labels : array_like of int, shape (n,)
        The true classes.
    probabilities : array_like, shape (n, n_classes)
        The return value of ``model.predict_proba(x)``.

    Returns
    -------
    matplotlib.figure.Figure
        The title of each image names the true class, then the predicted one with its probability.
    """
    pixels = _pixels("plots.mistakes", x, shape)
    p = checks.numbers("plots.mistakes", "probabilities", probabilities)
    truth, predicted, names = _classes("plots.mistakes", labels, p, class_names)
    wrong = np.flatnonzero(predicted != truth)
    wrong = wrong[np.argsort(-p[wrong, predicted[wrong]], kind="stable")][:n]
    if not len(wrong):
        figure = _picture((5, 1))
        figure.text(0.5, 0.5, f"All {len(truth)} are right.", ha="center", va="center")
        return figure
    titles = [f"{_short(names[truth[i]])}\nnot {_short(names[predicted[i]])} ({p[i, predicted[i]]:.0%})" for i in wrong]
    return _grid(pixels[wrong], titles, columns=5)


def weights(
    model: Any, *, n: int = 40, shape: tuple[int, int, int] | None = None, initial: npt.ArrayLike | None = None,
) -> Any:
    """Draw the weights of the first layer's units as images, or a convolution's filters.

    Parameters
    ----------
    model : Sequential
        Its first layer is a FullLayer or a ConvLayer.
    n : int
        The largest number of units to draw; fastnet draws those with the largest weights, the largest first.
    shape : (channels, rows, columns), optional
        The shape of one image, for a FullLayer. By default fastnet assumes a square one of three channels or one.
    initial : array_like, optional
        The weights before training, for instance ``model.layers[0].W.copy()``. With them, fastnet draws the change of the
        weights. In a large layer the random initial weights hide what training changed.

    Returns
    -------
    matplotlib.figure.Figure
        Grey is a weight (or a change) of 0. Each picture is scaled by its largest value. A unit responds most to an image
        that is bright where its weights are bright, in the same colours, and dark where they are dark.
    """
    W = getattr(model.layers[0], "W", None)
    if W is None or np.ndim(W) not in (2, 4):
        raise ValueError(f"plots.weights: the first layer must have weights W, of a FullLayer or a ConvLayer; "
                         f"layers[0] is {model.layers[0]!r}.")
    W = np.asarray(W, np.float64)
    if initial is not None:
        before = checks.numbers("plots.weights", "initial", initial)
        W = W - checks.same_shape("plots.weights", "initial", before, "the weights", W.shape)
    if W.ndim == 2:
        W = W.reshape(len(W), *image_shape("plots.weights", W.shape[1], shape))
    if W.shape[1] not in (1, 3):
        W = W.mean(axis=1, keepdims=True)
    flat = W.reshape(len(W), -1)
    largest = np.argsort(-np.linalg.norm(flat, axis=1), kind="stable")[:n]
    scale = np.maximum(np.abs(flat).max(axis=1), np.finfo(float).tiny)
    pictures = 0.5 + 0.5 * W / scale[:, None, None, None]
    return _grid(pictures[largest].transpose(0, 2, 3, 1), [""] * len(largest), columns=10)


def wilson(right: int, total: int) -> tuple[float, float]:
    """Compute Wilson's 95% interval of a share: (low, high)."""
    z = 1.959964
    p = right / total
    middle = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return middle - half, middle + half


def image_shape(who: str, width: int, shape: tuple[int, int, int] | None = None) -> tuple[int, int, int]:
    """Return channels, rows and columns of an image of `width` values: `shape`, or those of a square image."""
    if shape is not None:
        if len(shape) != 3 or math.prod(shape) != width:
            raise ValueError(f"{who}: shape must be (channels, rows, columns) with a product of {width}, the values per "
                             f"sample; got {shape}.")
        return shape
    for channels in (1, 3):
        side = math.isqrt(width // channels)
        if channels * side * side == width:
            return channels, side, side
    raise ValueError(f"{who}: {width} values per sample are no square image. Give shape=(channels, rows, columns).")


def looks_like_images(width: int) -> bool:
    """Return whether a row of `width` values may be a square image of three channels or one, at least 4 pixels wide."""
    return width >= 16 and any(math.isqrt(width // c) ** 2 * c == width for c in (1, 3))


def _picture(size: tuple[float, float], layout: Any = "constrained") -> Any:
    from fastnet.base.figure import Picture

    return Picture(figsize=size, layout=layout)


def _classes(who: str, labels: Any, predicted: Any, names: Any) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Convert both to class numbers, and return them with a name for each class."""
    wide = [np.shape(a)[1] for a in (labels, predicted) if np.ndim(a) == 2]
    labels, predicted = (checks.numbers(who, "labels", a) for a in (labels, predicted))
    labels, predicted = (a.argmax(axis=1) if a.ndim == 2 else a for a in (labels, predicted))
    if labels.shape != predicted.shape:
        raise ValueError(f"{who}: there are {len(labels)} labels but {len(predicted)} predictions. Give one for each.")
    labels, predicted = (checks.labels(who, a, None)[0] for a in (labels, predicted))
    k = max(int(labels.max()), int(predicted.max())) + 1
    if names is None:
        names = [str(c) for c in range(max([k, *wide]))]
    if len(names) < k:
        raise ValueError(f"{who}: there are {len(names)} class names, but labels go up to {k - 1}. Give one per class.")
    return labels, predicted, [str(name) for name in names]


def _pixels(who: str, x: npt.ArrayLike, shape: tuple[int, int, int] | None) -> np.ndarray:
    """Convert images to Matplotlib's form: (n, rows, columns, channels) within 0 .. 1."""
    array = checks.numbers(who, "x", x)
    if array.ndim == 2:
        array = array.reshape(len(array), *image_shape(who, array.shape[1], shape))
    if array.ndim != 4 or array.shape[1] not in (1, 3):
        raise ValueError(f"{who}: x must have shape (n, d) or (n, channels, rows, columns) with 1 or 3 channels, got "
                         f"{np.shape(x)}.")
    checks.nonempty(who, "x", array)
    low, high = float(array.min()), float(array.max())
    if array.dtype == np.uint8:
        low, high = 0.0, 255.0
    elif -0.5 <= low < 0 and high <= 0.5:
        low, high = -0.5, 0.5
    elif 0 <= low and high <= 1:
        low, high = 0.0, 1.0
    return ((array - low) / ((high - low) or 1)).clip(0, 1).transpose(0, 2, 3, 1)


def _grid(pictures: np.ndarray, titles: Sequence[str], columns: int) -> Any:
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    titled = any(titles)
    all_axes = _many_axes(rows, columns, (1.5, 1.75) if titled else (0.8, 0.8), above=0.4 if titled else 0.0).ravel()
    figure = all_axes[0].figure
    for axes, picture, title in zip(all_axes, pictures, titles):
        _show(axes, picture)
        axes.set_title(title, fontsize="x-small")
    for axes in all_axes[len(pictures):]:
        _show(axes, None)
    return figure


def _many_axes(rows: int, columns: int, cell: tuple[float, float], left: float = 0.0, above: float = 0.0) -> np.ndarray:
    """Make axes of a size in inches, with a margin left of each row and above each axes; constrained layout is too slow."""
    width, height = left + columns * cell[0], rows * cell[1]
    figure = _picture((width, height), layout="none")
    gap = 0.06
    return figure.subplots(rows, columns, squeeze=False, gridspec_kw={
        "left": (left + gap) / width, "right": 1 - gap / width, "bottom": gap / height, "top": 1 - (above + gap) / height,
        "wspace": 0.08, "hspace": 0.08 + above / (cell[1] - above)})


def _show(axes: Any, picture: np.ndarray | None) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if picture is not None:
        axes.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def _short(name: str) -> str:
    return name if len(name) <= 14 else name[:13] + "…"
