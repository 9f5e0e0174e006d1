"""What the trials of a sweep share, made once."""
from __future__ import annotations

import copy
import threading
from typing import Any

import numpy as np

from fastnet.sequential import Sequential
from fastnet.sweep.spec import Spec
from fastnet.training.engine import Engine
from fastnet.training.first import first_outputs, gram_matrix
from fastnet.training.layerwise import Layerwise
from fastnet.training.plan import ENGINES

Labelled = tuple[np.ndarray, np.ndarray]  # samples, one-hot targets


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
    """

    def __init__(self, x: np.ndarray, t: np.ndarray, validation: Labelled | None, test: Labelled | None,
                 gram: bool) -> None:
        self.x, self.t, self.validation, self.test = x, t, validation, test
        self._padded = gram_matrix(x).base if gram else None  # a view would lose the distance of its rows in a pickle
        self.others: list[np.ndarray] = [data[0] for data in (validation, test) if data is not None]
        self.products = [first_outputs(other, x) for other in self.others] if gram else []


    @property
    def g(self) -> np.ndarray | None:
        """X X.T."""
        return None if self._padded is None else self._padded[:, :len(self.x)]


class Start:
    """A network with the weights that all trials of one seed start from. Training never changes it.

    Parameters
    ----------
    model : Sequential
    engine : str
        What trains it: a name of ``ENGINES``.
    """

    def __init__(self, model: Sequential, engine: str) -> None:
        self.model, self.engine_name = model, engine
        self._first: tuple[np.ndarray, dict[int, Any]] | None = None
        self._making = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:  # what is made of it is made again where it is needed
        return {"model": self.model, "engine_name": self.engine_name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["model"], state["engine_name"])  # type: ignore[misc]

    def engine(self, shared: Shared, spec: Spec) -> Any:
        """An engine for one trial."""
        common = shared.x, shared.t, spec.batch_size, spec.momentum, spec.weight_decay
        if self.engine_name == "layers":
            return Layerwise(copy.deepcopy(self.model), *common)
        if self.engine_name == "gram":
            a0, products = self._first_outputs(shared)
            return Engine(self.model, *common, way="gram", g=shared.g, a0=a0, products=products)
        return ENGINES[self.engine_name](self.model, *common)

    def _first_outputs(self, shared: Shared) -> tuple[np.ndarray, dict[int, Any]]:
        """X W_0.T, and the products that evaluate other data, with the same for those."""
        with self._making:
            if self._first is None:
                W = self.model.layers[0].W
                W = np.asarray(W, shared.x.dtype)
                products = {id(other): (other, first_outputs(other, W), product)
                            for other, product in zip(shared.others, shared.products, strict=True)}
                self._first = first_outputs(shared.x, W), products
            return self._first
