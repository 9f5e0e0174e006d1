"""Layers in a row, with a loss at the end."""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet import _checks, _dtypes, training
from fastnet._state import parameters, unchanged_on_error
from fastnet.full import FullLayer
from fastnet.relu import ReluLayer
from fastnet.softmax import SoftMaxLayer


class Sequential:
    """A network: a stack of layers and a loss.

    Parameters
    ----------
    layers : tuple or list of layers
        At least one. A layer is one of fastnet's, or any object with ``forward(x)`` and ``backward(y_grad)``, and
        ``update_param(lr)`` (or ``update_params``) if it learns.
    loss : layer
        With ``forward(x, t)``, which returns a number, and ``backward()``: usually a ``CrossEntropyLayer()``.

    Attributes
    ----------
    layers, loss
        As given.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnet import CrossEntropyLayer, one_hot
    >>> model = Sequential((FullLayer(2, 2, rng=0), SoftMaxLayer()), loss=CrossEntropyLayer())
    >>> x = np.array([[-1.0, 0.5], [1.0, 0.5]])
    >>> losses = model.fit(x, one_hot([0, 1]), epochs=20, lr=1.0)
    >>> bool(losses[-1] < losses[0])
    True
    >>> model.predict(x)
    array([0, 1])
    """

    def __init__(self, layers: Iterable[Any], loss: Any) -> None:
        self.layers = _checks.layers("Sequential", layers)
        self.loss = _checks.loss("Sequential", loss)
        self.output_width()

    @property
    def dtype(self) -> np.dtype | None:
        """What the model computes in: the widest dtype of its fully connected layers; None if it has none."""
        weights = [layer.W for layer in self.layers if isinstance(layer, FullLayer)]
        biases = [layer.b for layer in self.layers if isinstance(layer, FullLayer)]
        return _dtypes.working(*weights, *biases) if weights else None

    def output_width(self) -> int | None:
        """Number of values the last layer gives per sample, None if a layer of unknown kind decides that.

        Raises
        ------
        ValueError
            If a fully connected layer does not take what the layers before it give.
        """
        width = source = None
        for i, layer in enumerate(self.layers):
            if isinstance(layer, FullLayer):
                _checks.width_before("Sequential", i, layer, width, source)
                width, source = layer.n_o, i
            elif not isinstance(layer, (ReluLayer, SoftMaxLayer)):
                width = None
        return width

    def forward(self, x: npt.ArrayLike, target: npt.ArrayLike | None = None) -> Any:
        """Pass x through all layers, and through the loss if there is a target.

        Parameters
        ----------
        x : array_like, shape (n, ...)
            One sample a row.
        target : array_like, shape (n, n_classes), optional
            One-hot targets.

        Returns
        -------
        ndarray or float
            The output of the last layer; with a target, the loss.
        """
        self.output_width()
        with unchanged_on_error((*self.layers, self.loss)):
            for layer in self.layers:
                x = layer.forward(x)
            return x if target is None else self.loss.forward(x, target)

    def backward(self) -> np.ndarray:
        """Pass the gradient of the loss back through all layers, which keep the gradients of their parameters.

        Returns
        -------
        ndarray
            Gradient of the loss with respect to the input of the last ``forward`` with a target.
        """
        with unchanged_on_error((*self.layers, self.loss)):
            grad = self.loss.backward()
            for layer in reversed(self.layers):
                grad = layer.backward(grad)
            return grad

    def update_param(self, lr: float) -> None:
        """Let every layer that learns step against its gradients.

        Parameters
        ----------
        lr : float
            The learning rate.
        """
        lr = _checks.rate("Sequential.update_param", lr)
        with unchanged_on_error(self.layers):
            for layer in self.layers:
                update = getattr(layer, "update_param", None) or getattr(layer, "update_params", None)
                if update is not None:
                    update(lr)

    def update_params(self, lr: float) -> None:
        """The chapter's other name of ``update_param``."""
        self.update_param(lr)

    def fit(
        self, x: npt.ArrayLike, y: npt.ArrayLike, epochs: int, lr: float, batch_size: int = 128, **options: Any
    ) -> np.ndarray:
        """Train with stochastic gradient descent.

        Parameters
        ----------
        x : array_like, shape (n, ...)
            One sample a row, finite. Batches are taken in the order of the rows: shuffle them first.
        y : array_like, shape (n, n_classes)
            One-hot targets, see :func:`fastnet.one_hot`.
        epochs : int
            How often to go through the data.
        lr : float
            The learning rate.
        batch_size : int
            Samples per step; the last batch of an epoch holds what is left.
        **options
            See :func:`fastnet.training.fit`.

        Returns
        -------
        ndarray, shape (epochs,)
            The mean of the batches' losses in each epoch, float64.

        Notes
        -----
        Interrupted by Ctrl-C or an error, the layers hold the last complete epoch.
        """
        return training.fit(self, x, y, epochs, lr, batch_size, **options)

    def predict(self, x: npt.ArrayLike) -> np.ndarray:
        """Return the number of the most probable class of each sample.

        Parameters
        ----------
        x : array_like, shape (n, ...)
            One sample a row.

        Returns
        -------
        ndarray of int, shape (n,)
        """
        with unchanged_on_error((*self.layers, self.loss)):
            return np.argmax(_checks.scores("Sequential.predict", self.forward(x)), axis=1)

    def summary(self) -> str:
        """Return a table of the layers: what goes in and out, and how many parameters are learned."""
        rows: list[tuple[str, ...]] = []
        before: int | None = None
        width: int | None = None
        total = 0
        for i, layer in enumerate(self.layers):
            if isinstance(layer, FullLayer):
                before, width = layer.n_i, layer.n_o
            elif isinstance(layer, (ReluLayer, SoftMaxLayer)):
                before = width
            else:
                before = width = None
            count = sum(getattr(layer, name).size for name in parameters(layer))
            rows.append((str(i), type(layer).__name__, _shape(before), _shape(width), f"{count:,}"))
            total += count
        dtype = "" if self.dtype is None else f" of {self.dtype}"
        table = _table(("", "layer", "input", "output", "parameters"), rows)
        return f"{table}\nloss: {type(self.loss).__name__}; {total:,} parameters{dtype}"

    def __repr__(self) -> str:
        layers = ",\n".join(f"    {layer!r}" for layer in self.layers)
        return f"{type(self).__name__}([\n{layers},\n], loss={self.loss!r})"


def _shape(width: int | None) -> str:
    return "(n, ...)" if width is None else f"(n, {width})"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[c]) for row in (head, *rows)) for c in range(len(head))]
    lines = []
    for row in (head, *rows):
        left = "  ".join(cell.ljust(w) for cell, w in zip(row[:-1], widths[:-1]))
        lines.append(f"{left}  {row[-1].rjust(widths[-1])}".rstrip())
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(lines)
