"""scikit-learn's lists of weights, and the network that they stand for; for `fastnet.estimator`."""
from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from fastnet import CrossEntropyLayer, DropoutLayer, FullLayer, Sequential, SoftMaxLayer
from fastnet.estimator.rules import ACTIVATIONS


class Hidden(NamedTuple):
    """What follows each hidden layer."""

    activation: str = ""
    dropout: float = 0.0
    seed: int = 0  # of the masks


class Shown(NamedTuple):
    """One layer's parameters, and what the lists show of them: views of the same memory."""

    W: np.ndarray
    b: np.ndarray
    coef: Any
    intercept: Any


class Weights:
    """The lists ``coefs_`` and ``intercepts_`` of an estimator, and its network.

    Both may be changed, in place or by assignment, and what was changed last counts: `pull` brings what the layers hold into
    the lists, `push` brings what was put into the lists into the layers.
    """

    def __init__(self, hidden: Hidden = Hidden(), network: Sequential | None = None) -> None:  # noqa: B008 - immutable
        self.hidden, self.network = hidden, network
        self.coefs: list[Any] | None = None
        self.intercepts: list[Any] | None = None
        self._shown: list[Shown] = []
        if network is not None:
            self._show()

    def pull(self) -> None:
        """Let the lists show the layers' parameters, but for what was put into the lists."""
        for i, layer in enumerate(self.layers()):
            if i >= len(self._shown) or (layer.W is self._shown[i].W and layer.b is self._shown[i].b):
                continue
            before = self._shown[i]
            self._shown[i] = _shown(layer)
            for values, old, new in ((self.coefs, before.coef, self._shown[i].coef),
                                     (self.intercepts, before.intercept, self._shown[i].intercept)):
                if values is not None and i < len(values) and values[i] is old:
                    values[i] = new

    def push(self, activation: str, dropout: float, n_classes: int | None) -> Sequential:
        """The network with the parameters in the lists; a new one if they, or what follows, are of another network.

        Raises
        ------
        AttributeError
            If there are no parameters yet.
        ValueError
            If their shapes do not fit each other.
        """
        if self.coefs is None or self.intercepts is None:
            raise AttributeError("MLPClassifier has no weights yet; call fit first.")
        self.pull()
        hidden = self.hidden._replace(activation=activation, dropout=dropout)
        if self.network is not None and hidden == self.hidden and not self._changed():
            return self.network
        sizes = _sizes(self.coefs, self.intercepts, n_classes)
        if (self.network is None or hidden != self.hidden
                or [(layer.n_i, layer.n_o) for layer in self.layers()] != list(pairwise(sizes))):
            dtypes = [np.asarray(array).dtype for array in (*self.coefs, *self.intercepts)]
            self.network = network(sizes, hidden, np.float32 if set(dtypes) == {np.dtype(np.float32)} else np.float64)
            self.hidden = hidden
            self._shown = []
        for i, layer in enumerate(self.layers()):
            if not self._shown or self.coefs[i] is not self._shown[i].coef:
                layer.W = np.asarray(self.coefs[i]).T
            if not self._shown or self.intercepts[i] is not self._shown[i].intercept:
                layer.b = np.asarray(self.intercepts[i]).reshape(1, -1)
        self._show()
        return self.network

    def layers(self) -> list[FullLayer]:
        """The layers with parameters."""
        return [] if self.network is None else [layer for layer in self.network.layers if isinstance(layer, FullLayer)]

    def _changed(self) -> bool:
        """Whether something was put into the lists."""
        assert self.coefs is not None and self.intercepts is not None
        return (not len(self.coefs) == len(self.intercepts) == len(self._shown)
                or any(coef is not shown.coef or intercept is not shown.intercept
                       for coef, intercept, shown in zip(self.coefs, self.intercepts, self._shown, strict=True)))

    def _show(self) -> None:
        """Let the lists, which keep being the same ones, show the layers' parameters."""
        self._shown = [_shown(layer) for layer in self.layers()]
        coefs, intercepts = [shown.coef for shown in self._shown], [shown.intercept for shown in self._shown]
        if self.coefs is None or self.intercepts is None:
            self.coefs, self.intercepts = coefs, intercepts
        self.coefs[:], self.intercepts[:] = coefs, intercepts

    def __getstate__(self) -> dict[str, Any]:
        self.pull()
        lists = None if self.network is not None and not self._changed() else (self.coefs, self.intercepts)
        return {"hidden": self.hidden, "network": self.network, "lists": lists}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["hidden"], state["network"])  # type: ignore[misc]
        if state["lists"] is not None:
            self.coefs, self.intercepts = state["lists"]


def network(sizes: tuple[int, ...], hidden: Hidden, dtype: Any, parameters: Any = ()) -> Sequential:
    """FullLayers of these sizes, each but the last with what follows it, and a softmax; parameters are pairs (W, b)."""
    follow = ACTIVATIONS[hidden.activation]
    layers: list[Any] = []
    for i, (n_i, n_o) in enumerate(pairwise(sizes)):
        full = FullLayer(1, 1, dtype, rng=0)
        full.n_i, full.n_o = n_i, n_o  # whose weights are drawn elsewhere, and not twice
        if parameters:
            full.W, full.b = parameters[i]
        layers.append(full)
        if i < len(sizes) - 2:
            layers += [] if follow is None else [follow()]
            layers += [DropoutLayer(hidden.dropout, hidden.seed + i)] if hidden.dropout else []
    return Sequential((*layers, SoftMaxLayer()), CrossEntropyLayer())


def _shown(layer: FullLayer) -> Shown:
    W, b = layer.W, layer.b
    return Shown(W, b, W.T, b.reshape(-1))


def _sizes(coefs: list[Any], intercepts: list[Any], n_classes: int | None) -> tuple[int, ...]:
    """Number of values before the first layer and after each."""
    if not coefs or len(coefs) != len(intercepts):
        raise ValueError(f"MLPClassifier: coefs_ and intercepts_ must hold an array for each layer, got {len(coefs)} and "
                         f"{len(intercepts)}.")
    sizes = [np.shape(coefs[0])[0] if np.ndim(coefs[0]) == 2 else 0]
    for i, (coef, intercept) in enumerate(zip(coefs, intercepts, strict=True)):
        if np.ndim(coef) != 2 or np.shape(coef)[0] != sizes[-1] or np.size(coef) == 0:
            raise ValueError(f"MLPClassifier: coefs_[{i}] must have shape ({sizes[-1] or 'n_features'}, n_out), got "
                             f"{np.shape(coef)}.")
        sizes.append(np.shape(coef)[1])
        if np.size(intercept) != sizes[-1]:
            raise ValueError(f"MLPClassifier: intercepts_[{i}] must have shape ({sizes[-1]},) as coefs_[{i}] has "
                             f"{sizes[-1]} columns, got {np.shape(intercept)}.")
    if n_classes is not None and sizes[-1] != n_classes:
        hint = ""
        if sizes[-1] == 1 and n_classes == 2:
            hint = (" Of a logistic output, the second column is what a softmax needs: coefs_[-1] = np.pad(coefs_[-1], "
                    "((0, 0), (1, 0))), intercepts_[-1] = np.pad(intercepts_[-1], (1, 0)).")
        raise ValueError(f"MLPClassifier: coefs_[{len(coefs) - 1}] must have {n_classes} columns, one for each class, got "
                         f"{np.shape(coefs[-1])}.{hint}")
    return tuple(sizes)
