"""What the trials of a sweep share, made once."""
from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnet.sequential import Sequential
from fastnet.sweep.run.folds import held_out, rows_of
from fastnet.sweep.spec import Setting, Spec, Trial
from fastnet.training import FitOptions
from fastnet.training.first import first_outputs, gram_buffer, gram_matrix
from fastnet.training.loop import make_engine

Labelled = tuple[np.ndarray, np.ndarray]  # samples, one-hot targets

_FOLDS_KEPT = 2  # in memory: trials of a fold stand together


@dataclass(frozen=True)
class Part:
    """The data of one trial: all, or what a fold leaves to train on.

    `g` is X X.T of its samples x, `products` are X' X.T for `others`, the samples X' that are evaluated. `rows` says where
    all samples to train on, and all that are evaluated, stand in the data of the sweep: None for data of their own.
    """

    x: np.ndarray
    t: np.ndarray
    validation: Labelled | None
    test: Labelled | None
    g: np.ndarray | None
    others: tuple[np.ndarray, ...]
    products: tuple[np.ndarray, ...]
    rows: np.ndarray | None = None
    validation_rows: np.ndarray | None = None


class Shared:
    """The data, and what all trials need of it in Gram space: X X.T, and X' X.T for other data X'.

    Parameters
    ----------
    x, t : ndarray
        In the dtype of the networks.
    validation, test : (ndarray, ndarray) or None
        Samples and one-hot targets, in the same dtype.
    gram : bool
        Whether a trial will train in Gram space: the products are made now, on all cores.
    folds : int
        0, or how many parts of the data to hold out in turn: each is then the validation data of its trials. All their
        products are blocks of the one Gram matrix.
    """

    def __init__(self, x: np.ndarray, t: np.ndarray, validation: Labelled | None, test: Labelled | None, gram: bool,
                 folds: int = 0) -> None:
        self.x, self.t, self.validation, self.test = x, t, validation, test
        self._padded = gram_matrix(x).base if gram else None  # a view would lose the distance of its rows in a pickle
        self.others: list[np.ndarray] = [data[0] for data in (validation, test) if data is not None]
        self.products = [first_outputs(other, x) for other in self.others] if gram else []
        self.fold_of = held_out(t, folds) if folds else None
        self._parts = _Recent(_FOLDS_KEPT)

    def __getstate__(self) -> dict[str, Any]:  # without the parts cut out of it, which are cut out again on demand
        return {name: value for name, value in vars(self).items() if name != "_parts"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _parts=_Recent(_FOLDS_KEPT))

    @property
    def g(self) -> np.ndarray | None:
        """X X.T."""
        return None if self._padded is None else self._padded[:, :len(self.x)]

    def part(self, fold: int) -> Part:
        """The data of the trials of a fold; of all trials, if there are none."""
        return self._parts.of(fold, lambda: self._cut(fold))

    def _cut(self, fold: int) -> Part:
        if self.fold_of is None:
            return Part(self.x, self.t, self.validation, self.test, self.g, tuple(self.others), tuple(self.products))
        train, out = rows_of(self.fold_of, fold)
        x, held = np.ascontiguousarray(self.x[train]), np.ascontiguousarray(self.x[out])
        others = (held, *self.others)
        g = self.g
        cut = None if g is None else _block(g, train, train, gram_buffer(len(train), g.dtype))
        products = () if g is None else (
            _block(g, out, train, np.empty((len(out), len(train)), g.dtype)),
            *(np.ascontiguousarray(product[:, train]) for product in self.products))
        return Part(x, self.t[train], (held, self.t[out]), self.test, cut, others, products, train, out)


class Start:
    """A network with the weights that all trials of one seed start from. Training never changes it.

    Parameters
    ----------
    model : Sequential
    engines : dict
        What trains it, a name of ``ENGINES``, by setting.
    """

    def __init__(self, model: Sequential, engines: dict[Any, str]) -> None:
        self.model, self.engines = model, engines
        self._first = _Recent(_FOLDS_KEPT)
        self._whole = _Recent(1)

    def __getstate__(self) -> dict[str, Any]:  # without the caches, which are filled again on demand
        return {"model": self.model, "engines": self.engines}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["model"], state["engines"])  # type: ignore[misc]

    def engine(self, shared: Shared, part: Part, spec: Spec, trial: Trial) -> Any:
        """An engine for one trial."""
        name = self.engines[trial.setting]
        model = copy.deepcopy(self.model) if name == "layers" else self.model
        products: dict[str, Any] = {}
        if name == "gram":
            a0, of_others = self._first.of(trial.fold, lambda: self._first_outputs(shared, part))
            products = {"g": part.g, "a0": a0, "products": of_others}
        return make_engine(name, model, part.x, part.t, fit_options(spec, trial.setting), **products)

    def _first_outputs(self, shared: Shared, part: Part) -> tuple[np.ndarray, dict[int, Any]]:
        """X W_0.T, and the products that evaluate other data, with the same for those."""
        W = np.asarray(self.model.layers[0].W, part.x.dtype)
        whole, *rest = self._whole.of(0, lambda: [first_outputs(data, W) for data in (shared.x, *shared.others)])
        if part.rows is None:
            a0, outputs = whole, rest
        else:
            a0, outputs = whole[part.rows], [whole[part.validation_rows], *rest]
        return a0, {id(other): (other, output, product)
                    for other, output, product in zip(part.others, outputs, part.products, strict=True)}


def fit_options(spec: Spec, setting: Setting) -> FitOptions:
    """What the trials of a setting are asked for; each has its own rates and, if rows are shuffled, generator."""
    return FitOptions(spec.epochs, lambda epoch: 0.0, setting.batch_size, engine=spec.engine, optimizer=setting.optimizer,
                      momentum=setting.momentum, weight_decay=setting.weight_decay, shuffle=spec.shuffle,
                      nesterov=uses_nesterov(setting))


def uses_nesterov(setting: Setting) -> bool:
    """Whether its momentum, if it has one, is Nesterov's."""
    return bool(dict(setting).get("nesterov") and setting.momentum)


class _Recent:
    """A few things made on demand, by key; the one used longest ago goes first. Several threads share each."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._made: OrderedDict[Any, Any] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, key: Any, make: Callable[[], Any]) -> Any:
        with self._lock:
            if key not in self._made:
                self._made[key] = make()
                while len(self._made) > self.size:
                    self._made.popitem(last=False)
            self._made.move_to_end(key)
            return self._made[key]


def _block(g: np.ndarray, rows: np.ndarray, columns: np.ndarray, out: np.ndarray) -> np.ndarray:
    """g[rows][:, columns], gathered a few rows at a time."""
    for first in range(0, len(rows), 256):
        out[first:first + 256] = g[rows[first:first + 256]][:, columns]
    return out
