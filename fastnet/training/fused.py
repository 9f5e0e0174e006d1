"""The compiled engine: whole epochs in one call of `kernels.fused.train`, weights kept packed during the fit."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet.full import FullLayer
from fastnet.kernels import fused as kernel
from fastnet.kernels.gemm import Packed, matmul, pack, vector_lanes
from fastnet.kernels.softmax import softmax_forward
from fastnet.kernels.threads import run

_CHUNK_WORK = 40e9  # operations in one call, some fractions of a second: Ctrl-C is heard between calls
_CONVERTED_BYTES = 1 << 26  # rows of another dtype are converted so many at a time, if they lie on disk
_SMALL_STEP = 1 << 18  # multiply-adds a step below which a second thread costs more than it gains


class Fused:
    """Trains a copy of a network's parameters; `write` puts them into its layers.

    Parameters
    ----------
    model : Sequential
        FullLayer, then any number of (ReluLayer, FullLayer), then SoftMaxLayer, with a CrossEntropyLayer.
    x : ndarray, shape (n, n_i)
        In the model's dtype, or on disk in any.
    t : ndarray, shape (n, n_classes)
    batch_size : int
    momentum, decay : float
    """

    name = "fused"

    def __init__(self, model: Any, x: np.ndarray, t: np.ndarray, batch_size: int, momentum: float = 0.0,
                 decay: float = 0.0) -> None:
        self.layers: list[FullLayer] = [layer for layer in model.layers if isinstance(layer, FullLayer)]
        self.dtype = np.dtype(model.dtype)
        self.x, self.t = x, np.require(t, self.dtype, ("C", "W"))  # a read-only t would be another type to compile for
        self.batch_size = min(batch_size, len(x))
        self.momentum, self.decay = momentum, decay
        self.between: Callable[[], None] = lambda: None  # called between the calls of a long epoch; may raise
        self.net = self._net()
        outputs, columns = np.empty((0, 0), self.dtype), np.empty((0, 0, 0), self.dtype)
        self.no_gram = kernel.Gram(False, outputs, outputs, columns, columns, np.ones(5), 0)

    # --- what training needs ----------------------------------------------------------------------------------------

    def epoch(self, lr: float, order: np.ndarray | None, stop: int, start: int = 0) -> np.ndarray:
        """Train on rows start:stop of an order (None: as they are) and return the losses of the batches."""
        n = len(self.x)
        shuffled = order is not None
        order = np.arange(n) if order is None else order
        losses = np.empty(-(-(stop - start) // self.batch_size))
        rates = self._rates(lr)
        for first in range(start, stop, self._chunk()):
            last = min(stop, first + self._chunk())
            data, gram, keep = self._source(order, shuffled, first, last)
            run(kernel.train, self.net, data, gram, rates, self.batch_size, first, last,
                losses[(first - start) // self.batch_size:], threads=self._threads())
            del keep
            if last < stop:
                self.between()
        return losses

    @property
    def in_one_call(self) -> bool:
        """Whether an epoch is one call, so that nothing can interrupt it halfway."""
        return self._chunk() >= len(self.x)

    def save(self) -> Any:
        """What `restore` needs to go back to this state."""
        return self.net.params.copy(), self.net.velocity.copy(), self._backs()

    def restore(self, saved: Any) -> None:
        """Go back to the state that was saved."""
        self.net.params[:], self.net.velocity[:] = saved[0], saved[1]
        for layer, back in zip(range(1, len(self.layers)), saved[2], strict=True):
            self._back(layer)[:] = back

    def write(self) -> None:
        """Put the parameters into the model's layers, as new arrays."""
        for number, layer in enumerate(self.layers):
            if number > 0 or self.has_first_weights:
                layer.W = self._unpacked(self.net.params, number)
            layer.b = self._bias(self.net.params, number)[None].copy()

    def velocities(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of W and b of every layer."""
        return [(self._unpacked(self.net.velocity, number), self._bias(self.net.velocity, number)[None].copy())
                for number in range(len(self.layers))]

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """The softmax's output for other data, with the parameters of now; x is kept in mind, so pass the same array."""
        p = self._logits_after(self._first_output(x))
        softmax_forward(p, p)
        return p

    # --- the first layer: what kernels in Gram space do differently ---------------------------------------------------

    has_first_weights = True

    def _first_output(self, x: np.ndarray) -> np.ndarray:
        h = np.empty((len(x), self.layers[0].n_o), self.dtype)
        matmul(h, np.asarray(x, self.dtype), self._packed(0), bias=self._bias(self.net.params, 0),
               relu=len(self.layers) > 1)
        return h

    def _source(self, order: np.ndarray, shuffled: bool, first: int, last: int) -> tuple[Any, Any, Any]:
        """Data for rows first:last of the order, the Gram state, and the array that must live meanwhile."""
        x, row_at_first = self.x, 0
        if not self._direct():
            x = x[order[first:last]] if shuffled else x[first:last]
            x, shuffled, row_at_first = np.ascontiguousarray(x, self.dtype), False, first
        step = x.strides[0] // x.itemsize
        place = x.__array_interface__["data"][0] - row_at_first * x.strides[0]
        return self._data(place, step, order, shuffled), self.no_gram, x

    def _data(self, place: int, step: int, order: np.ndarray, shuffled: bool) -> Any:
        return kernel.Data(place, step, self.t, order, shuffled, self._rows_at, self._spread(self._source_width()))

    def _rates(self, lr: float) -> Any:
        return kernel.Rates(*(self.dtype.type(v) for v in (lr, self.momentum, self.decay)))

    def _direct(self) -> bool:
        """Whether the kernel can read the rows of x where they lie."""
        return self.x.dtype == self.dtype and readable_rows(self.x)

    # --- sizes and places ---------------------------------------------------------------------------------------------

    def _net(self) -> Any:
        width = vector_lanes(self.dtype)
        table = np.zeros((len(self.layers), kernel.COLUMNS), np.int64)
        in_params, in_work = 0, width  # work[0] is 1, for column sums
        for number, layer in enumerate(self.layers):
            padded = -(-layer.n_o // width) * width
            row = table[number]
            row[kernel.N_IN], row[kernel.N_OUT] = layer.n_i, layer.n_o
            row[kernel.LD] = self._spread(layer.n_o) if number < len(self.layers) - 1 else layer.n_o
            row[kernel.W], in_params = in_params, in_params + padded * (
                layer.n_i if number > 0 or self.has_first_weights else 0)
            row[kernel.B], in_params = in_params, in_params + padded
            if number > 0:
                row[kernel.BACK], in_work = in_work, in_work + layer.n_o * -(-layer.n_i // width) * width
            for buffer in (kernel.H, kernel.DA):
                row[buffer], in_work = in_work, in_work + -(-self.batch_size * row[kernel.LD] // width) * width
        in_work += width  # vectors may be read beyond the last row
        self._rows_at = in_work
        in_work += self.batch_size * self._spread(self._source_width())
        net = kernel.Net(table, _zeros(in_params, self.dtype),
                         _zeros(in_params if self.momentum else 0, self.dtype), _zeros(in_work, self.dtype),
                         np.zeros(self.batch_size))
        net.work[0] = 1
        for number, layer in enumerate(self.layers):
            W = np.asarray(layer.W, self.dtype)
            if number > 0 or self.has_first_weights:
                packed = pack(W.T).data.ravel()
                net.params[table[number, kernel.W]:][:packed.size] = packed
            if number > 0:
                packed = pack(W).data.ravel()
                net.work[table[number, kernel.BACK]:][:packed.size] = packed
            net.params[table[number, kernel.B]:][:layer.n_o] = layer.b[0]
        return net

    def _spread(self, columns: int) -> int:
        """How far apart to lay rows: whole vectors, but not a multiple of 1 KiB, at which they share L1 cache sets."""
        width = vector_lanes(self.dtype)
        padded = -(-columns // width) * width
        return padded + (width if padded * self.dtype.itemsize % 1024 == 0 else 0)

    def _source_width(self) -> int:
        return self.x.shape[1]

    def _step_work(self) -> int:
        return self.batch_size * sum(layer.n_i * layer.n_o for layer in self.layers)

    def _threads(self) -> int | None:
        """How many for `run`."""
        return 1 if self._step_work() < _SMALL_STEP else None

    def _chunk(self) -> int:
        """Rows that one call trains on."""
        rows = _CHUNK_WORK * self.batch_size // (6 * self._step_work())
        if not self._direct():
            rows = min(rows, _CONVERTED_BYTES // (self.x.shape[1] * self.dtype.itemsize))
        return max(1, int(rows) // self.batch_size) * self.batch_size

    def _bias(self, flat: np.ndarray, number: int) -> np.ndarray:
        at = self.net.table[number, kernel.B]
        return flat[at:at + self.layers[number].n_o]

    def _columns(self, flat: np.ndarray, number: int) -> np.ndarray:
        """The weights' vector columns, (vectors, n_i, LANES)."""
        width = vector_lanes(self.dtype)
        layer, at = self.layers[number], self.net.table[number, kernel.W]
        vectors = -(-layer.n_o // width)
        return flat[at:at + vectors * layer.n_i * width].reshape(vectors, layer.n_i, width)

    def _packed(self, number: int) -> Packed:
        layer = self.layers[number]
        return Packed(self._columns(self.net.params, number), (layer.n_i, layer.n_o))

    def _unpacked(self, flat: np.ndarray, number: int) -> np.ndarray:
        columns, layer = self._columns(flat, number), self.layers[number]
        return np.ascontiguousarray(columns.transpose(0, 2, 1).reshape(-1, layer.n_i)[:layer.n_o])

    def _back(self, number: int) -> np.ndarray:
        layer, at = self.layers[number], self.net.table[number, kernel.BACK]
        width = vector_lanes(self.dtype)
        return self.net.work[at:at + layer.n_o * -(-layer.n_i // width) * width]

    def _backs(self) -> list[np.ndarray]:
        return [self._back(number).copy() for number in range(1, len(self.layers))]

    def _logits_after(self, h: np.ndarray) -> np.ndarray:
        for number in range(1, len(self.layers)):
            z = np.empty((len(h), self.layers[number].n_o), self.dtype)
            matmul(z, h, self._packed(number), bias=self._bias(self.net.params, number),
                   relu=number < len(self.layers) - 1)
            h = z
        return h


def readable_rows(x: np.ndarray) -> bool:
    """Whether the kernel can read rows of its dtype: neighbours, each where elements of its size can be."""
    return x.flags.aligned and x.strides[1] == x.itemsize and x.strides[0] % x.itemsize == 0


def _zeros(size: int, dtype: np.dtype) -> np.ndarray:
    """Zeros that start on a cache line's boundary."""
    extra = 64 // dtype.itemsize
    flat = np.zeros(size + extra, dtype)
    skip = -(flat.__array_interface__["data"][0] // dtype.itemsize) % extra
    return flat[skip:skip + size]
