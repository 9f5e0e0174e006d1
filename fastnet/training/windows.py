"""The compiled engine for small mini-batches: Gram space within a window of some hundred rows, one window after the other.

A mini-batch of 8 rows reads and writes all weights of the first layer for 8 rows' worth of work, so memory decides how
long it takes. Within a window the weights are not touched: A_0 = X W.T at its start and W -= D.T X at its end are products
of some hundred rows, which run at the multipliers' speed, and X X.T of so few rows costs little.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.kernels.fused import train
from fastnet.kernels.gemm import matmul, syrk
from fastnet.kernels.threads import run
from fastnet.training.gram import START, RowSpace, gram_buffer

ROWS = 256  # of a window: fewer move the weights more often, more cost a larger Gram matrix


class Windows(RowSpace):
    """As `GramSpace`, for rows of any number, in memory or on disk; the weights are formed after each window.

    Parameters
    ----------
    model, x, t, batch_size, momentum, decay
        See `Fused`.
    """

    name = "windows"

    def __init__(self, model: Any, x: np.ndarray, t: np.ndarray, batch_size: int, momentum: float = 0.0,
                 decay: float = 0.0) -> None:
        dtype = np.dtype(model.dtype)
        self.size = min(window_rows(batch_size), len(x))
        outputs = np.empty((self.size, model.layers[0].n_o), dtype)
        super().__init__(model, x, t, batch_size, momentum, decay, x[:0], gram_buffer(self.size, dtype), outputs)
        self.opened = 0  # where in the order the window starts whose rows are `rows`
        if momentum:
            self.v0, self.av = np.zeros_like(self.w0), np.empty_like(outputs)

    def epoch(self, lr: float, order: np.ndarray | None, stop: int, start: int = 0) -> np.ndarray:
        losses = np.empty(-(-(stop - start) // self.batch_size))
        rates = self._rates(lr)
        first = start
        while first < stop:
            self._close_if_done()
            if not len(self.rows):
                self._open(order, first)
            last = min(stop, self.opened + len(self.rows))
            self._train(order, first, last, rates, losses[(first - start) // self.batch_size:])
            first = last
            if first < stop:
                self.between()
        return losses

    @property
    def in_one_call(self) -> bool:
        return False

    def save(self) -> Any:
        """As it is between two epochs, when no window is half done."""
        self._close_if_done()
        return super().save(), self.w0, self.v0  # new ones are made in time

    def restore(self, saved: Any) -> None:
        super().restore(saved[0])
        self.w0, self.v0 = saved[1:]
        self._clear()

    def _open(self, order: np.ndarray | None, first: int) -> None:
        """A window from this place in the order on."""
        last = min(first + self.size, len(self.x))
        rows = self.x[first:last] if order is None else self.x[order[first:last]]
        if not self._direct() or order is not None:
            rows = np.ascontiguousarray(rows, self.dtype)
        matmul(self.a0[:len(rows)], rows, self.w0.T)
        if self.v0.size:
            matmul(self.av[:len(rows)], rows, self.v0.T)
        syrk(self.g[:len(rows), :len(rows)], rows)
        self.rows, self.opened = rows, first

    def _train(self, order: np.ndarray | None, first: int, last: int, rates: Any, losses: np.ndarray) -> None:
        """The mini-batches of rows first:last of the order, within the window."""
        opened, n = self.opened, len(self.rows)
        t = self.t[opened:opened + n] if order is None else self.t[order[opened:opened + n]]
        place, step = self.g.__array_interface__["data"][0], self.g.strides[0] // self.g.itemsize
        data = self._data(place, step, np.arange(n), False)._replace(targets=t)
        run(train, self.net, data, self._state(), rates, self.batch_size, first - opened, last - opened, losses,
            threads=self._threads())
        self.visited = last - opened

    def _close_if_done(self) -> None:
        """Form the weights that a window ends with; not before they are needed, as after the last one they may not be."""
        if not len(self.rows) or self.visited < len(self.rows):
            return
        W = super()._first_weights()
        if self.v0.size:
            self.v0 = super()._first_velocity()
        self.w0 = W
        self._clear()

    def _clear(self) -> None:
        self.rows, self.opened, self.visited = self.x[:0], 0, 0
        self.d[:], self.e[:], self.scales[:] = 0, 0, START

    def _first_weights(self) -> np.ndarray:
        self._close_if_done()
        return super()._first_weights() if len(self.rows) else self.w0.copy()

    def _first_velocity(self) -> np.ndarray:
        self._close_if_done()
        return super()._first_velocity() if len(self.rows) else self.v0.copy()

    def _first_output(self, x: np.ndarray) -> np.ndarray:
        h = np.empty((len(x), self.layers[0].n_o), self.dtype)
        matmul(h, np.asarray(x, self.dtype), self._first_weights().T, bias=self._bias(self.net.params, 0),
               relu=len(self.layers) > 1)
        return h

    def _step_work(self) -> int:
        return self.batch_size * sum(min(layer.n_i, self.size) * layer.n_o for layer in self.layers)


def window_rows(batch_size: int) -> int:
    """Rows of a window: whole mini-batches, one at least."""
    return max(1, round(ROWS / batch_size)) * batch_size
