"""The compiled engine whose first layer is trained in Gram space: see kernels/gram.py for the mathematics."""
from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.kernels import fused as kernel
from fastnet.kernels.gemm import Packed, matmul, syrk, vector_lanes
from fastnet.kernels.gram import D_SCALE, V_V, V_W, W_V, W_W
from fastnet.training.fused import Fused

START = (1.0, 0.0, 0.0, 1.0, 1.0)  # the scales while W is W_0 and V is V_0


class RowSpace(Fused):
    """What the engines in Gram space share: the first layer's state, in terms of rows of X.

    Parameters
    ----------
    model, x, t, batch_size, momentum, decay
        See `Fused`.
    rows : ndarray, shape (n, n_i)
        All of x, or some of it.
    g, a0 : ndarray, shape (n, n) and (n, n_o)
        The products of those rows with each other, and with W_0.T.
    """

    has_first_weights = False

    def __init__(self, model: Any, x: np.ndarray, t: np.ndarray, batch_size: int, momentum: float, decay: float,
                 rows: np.ndarray, g: np.ndarray, a0: np.ndarray) -> None:
        self.rows, self.g, self.a0 = rows, g, a0
        super().__init__(model, x, t, batch_size, momentum, decay)
        first, width = self.layers[0], vector_lanes(self.dtype)
        self.w0 = np.asarray(first.W, self.dtype)
        self.v0 = self.av = np.empty((0, 0), self.dtype)  # of a velocity that starts from 0
        columns = (-(-first.n_o // width), len(g), width)
        self.d = np.zeros(columns, self.dtype)
        self.e = np.zeros(columns if momentum else (0, 0, 0), self.dtype)
        self.scales = np.array(START)
        self.visited = 0

    def write(self) -> None:
        super().write()
        self.layers[0].W = self._first_weights()

    def velocities(self) -> list[tuple[np.ndarray, np.ndarray]]:
        rest = [(self._unpacked(self.net.velocity, number), self._bias(self.net.velocity, number)[None].copy())
                for number in range(1, len(self.layers))]
        return [(self._first_velocity(), self._bias(self.net.velocity, 0)[None].copy()), *rest]

    def _first_weights(self) -> np.ndarray:
        return self._combined(self.d, self.scales[W_W], self.scales[W_V], -self.scales[D_SCALE])

    def _first_velocity(self) -> np.ndarray:
        return self._combined(self.e, self.scales[V_W], self.scales[V_V], 1.0)

    def _combined(self, columns: np.ndarray, of_w0: float, of_v0: float, of_rows: float) -> np.ndarray:
        """of_w0 W_0 + of_v0 V_0 + of_rows D.T X, a fresh array."""
        n, n_o = len(self.rows), self.layers[0].n_o
        d = columns.transpose(1, 0, 2).reshape(columns.shape[1], -1)[:n, :n_o]
        W = self.w0.copy() if of_w0 == 1 else self.dtype.type(of_w0) * self.w0
        if self.v0.size and of_v0 != 0:
            W += self.dtype.type(of_v0) * self.v0
        matmul(W, d.T, self.rows, alpha=of_rows, beta=1.0)
        return W

    def _state(self) -> Any:
        return kernel.Gram(True, self.a0, self.av, self.d, self.e, self.scales, self.visited)

    def _source_width(self) -> int:
        return len(self.g)


class GramSpace(RowSpace):
    """As `Fused`; X W_0.T and X X.T are made at the start, W at the end.

    Parameters
    ----------
    model, x, t, batch_size, momentum, decay
        See `Fused`. x is in the model's dtype.
    g : ndarray, shape (n, n), optional
        X X.T as `gram_matrix` makes it, to be shared by all models trained on the same x.
    a0 : ndarray, shape (n, n_o), optional
        X W_0.T, to be shared by all models that start from the same weights.
    products : dict, optional
        For other data X' to evaluate, id(X'): (X', X' W_0.T, X' X.T), to be shared by the same models.
    """

    name = "gram"

    def __init__(self, model: Any, x: np.ndarray, t: np.ndarray, batch_size: int, momentum: float = 0.0,
                 decay: float = 0.0, g: np.ndarray | None = None, a0: np.ndarray | None = None,
                 products: dict[int, Any] | None = None) -> None:
        super().__init__(model, x, t, batch_size, momentum, decay, x, gram_matrix(x) if g is None else g,
                         first_outputs(x, np.asarray(model.layers[0].W, x.dtype)) if a0 is None else a0)
        self._products: dict[int, tuple[Any, np.ndarray, np.ndarray]] = {} if products is None else products

    def epoch(self, lr: float, order: np.ndarray | None, stop: int, start: int = 0) -> np.ndarray:
        losses = super().epoch(lr, order, stop, start)
        self.visited = max(self.visited, stop if order is None else len(self.x))
        return losses

    def save(self) -> Any:
        return super().save(), self.d.copy(), self.e.copy(), self.scales.copy(), self.visited

    def restore(self, saved: Any) -> None:
        super().restore(saved[0])
        self.d[:], self.e[:], self.scales[:], self.visited = saved[1:]

    def _first_output(self, x: np.ndarray) -> np.ndarray:
        """relu(w_w X' W_0.T - d_scale (X' X.T) D + b): the two products are made once for a data set."""
        if id(x) not in self._products:  # the entry holds x, so that its id stays its own
            rows = np.asarray(x, self.dtype)
            with_w0, with_x = np.empty((len(x), len(self.w0)), self.dtype), np.empty((len(x), len(self.x)), self.dtype)
            matmul(with_w0, rows, self.w0.T)
            matmul(with_x, rows, self.x.T)
            self._products[id(x)] = x, with_w0, with_x
        _, with_w0, with_x = self._products[id(x)]
        h = self.dtype.type(self.scales[W_W]) * with_w0
        matmul(h, with_x, Packed(self.d, (len(self.x), h.shape[1])), alpha=-self.scales[D_SCALE], beta=1.0,
               bias=self._bias(self.net.params, 0), relu=len(self.layers) > 1)
        return h

    def _source(self, order: np.ndarray, shuffled: bool, first: int, last: int) -> tuple[Any, Any, Any]:
        place, step = self.g.__array_interface__["data"][0], self.g.strides[0] // self.g.itemsize
        return self._data(place, step, order, shuffled), self._state(), None

    def _direct(self) -> bool:
        return True


def gram_matrix(x: np.ndarray) -> np.ndarray:
    """X X.T (n, n)."""
    g = gram_buffer(len(x), x.dtype)
    syrk(g, x)
    return g


def gram_buffer(n: int, dtype: np.dtype) -> np.ndarray:
    """Room for n x n numbers, the rows so far apart that they do not evict each other from the L1 cache."""
    row = n + (vector_lanes(dtype) if n * dtype.itemsize % 1024 == 0 else 0)
    return np.empty((n, row), dtype)[:, :n]


def first_outputs(x: np.ndarray, W: np.ndarray) -> np.ndarray:
    """X W.T (n, n_o)."""
    a0 = np.empty((len(x), len(W)), x.dtype)
    matmul(a0, x, W.T)
    return a0
