"""The three forms in which a compiled fit trains a fully connected first layer: with weights W, or in Gram space.

======== ============ ================================================================================================
engine   form         what it does
======== ============ ================================================================================================
fused    `Primal`     trains W like that of every other layer; the step reads rows of the data X
gram     `Gram`       forms W only at the end; the step reads rows of G = X X.T (n, n)
windows  `BlockGram`  does the same for a window of about 256 rows at a time; the step reads the window's Gram matrix
======== ============ ================================================================================================

The mathematics is in ``fastnet/kernels/program/gram.py``. A form lowers the first layer, yields the data that each call of
the compiled step reads, and returns the layer's weights.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from fastnet.kernels.gemm import Packed, matmul, pixel_gram, syrk, vector_lanes
from fastnet.kernels.gemm.sparse import BLOCK
from fastnet.kernels.program import gram as kernel
from fastnet.kernels.records import GRAM_FIRST, GRAM_UPDATE, TEAM
from fastnet.program.builder import ALL, COLUMNS, Builder, Value
from fastnet.program.memory import DATA, Ref, Region

WINDOW = 256  # rows of a window: with fewer, W is read and written more often; with more, the Gram matrix costs more
START = (1.0, 0.0, 0.0, 1.0, 1.0)  # the scales while W is W_0 and V is V_0

_CHUNK_WORK = 40e9  # operations in one call, which take a fraction of a second: Ctrl-C takes effect between calls
_CONVERTED_BYTES = 1 << 26  # size of the rows that a call converts, if their dtype is another one


class Source(NamedTuple):
    """The data that one call of the compiled step reads."""

    rows: np.ndarray  # (m, columns), in the network's dtype, each row contiguous
    row_at: int  # position of the first of these rows in the order
    targets: np.ndarray
    order: np.ndarray
    gathered: bool  # whether `order` is another order than that of the rows
    first: int  # the call trains on positions first:last of the order
    last: int
    gram: kernel.Gram | None


class Primal:
    """The first layer, trained by the ops of every other fully connected layer.

    Parameters
    ----------
    x : ndarray, shape (n, columns)
        The data, in the network's dtype or, on disk, in any dtype.
    dtype : dtype
    batch_size : int
    """

    name = "fused"

    def __init__(self, x: np.ndarray, dtype: np.dtype, batch_size: int) -> None:
        self.x, self.dtype, self.batch_size = x, dtype, batch_size
        self.gram = None

    @property
    def columns(self) -> int:
        """The number of columns of a source's rows."""
        return self.x.shape[1]

    def chunk(self, work: float) -> int:
        """Return the number of rows, of whole batches, that one call trains on if a step has `work` multiply-adds."""
        rows = _CHUNK_WORK * self.batch_size // (6 * max(1.0, work))
        if not self.direct:
            rows = min(rows, _CONVERTED_BYTES // max(1, self.columns * self.dtype.itemsize))
        return max(1, int(rows) // self.batch_size) * self.batch_size

    @property
    def direct(self) -> bool:
        """Whether the kernel can read the rows of x without a copy."""
        return self.x.dtype == self.dtype and readable_rows(self.x)

    def sources(self, targets: np.ndarray, order: np.ndarray | None, start: int, stop: int, chunk: int) -> Iterator[Source]:
        """Yield the source of each call, to train on positions start:stop of the order. None is the order of the rows."""
        rows = np.arange(len(self.x)) if order is None else order
        for first in range(start, stop, chunk):
            last = min(stop, first + chunk)
            if self.direct:
                yield Source(self.x, 0, targets, rows, order is not None, first, last, self.gram)
            else:
                x = self.x[first:last] if order is None else self.x[order[first:last]]
                yield Source(np.ascontiguousarray(x, self.dtype), first, targets, rows, False, first, last, self.gram)

    def save(self) -> Any:
        """Return None: the engine saves the weights, which are in its arenas."""

    def restore(self, saved: Any) -> None:
        """Do nothing, for the same reason."""


class GramSpace:
    """The first layer in Gram space: its weights W and velocity V as combinations of rows of X.

    Parameters
    ----------
    layer : FullLayer
    dtype : dtype
    momentum : bool
        Whether the optimiser has a velocity.
    rows : ndarray, shape (m, n_i)
        All rows of x, or a window of them.
    g, a0 : ndarray, shape (m, m) and (m, n_o)
        The products of these rows with each other, and with W_0.T.
    """

    name = ""

    def __init__(self, layer: Any, dtype: np.dtype, momentum: bool, rows: np.ndarray, g: np.ndarray,
                 a0: np.ndarray) -> None:
        self.layer, self.dtype, self.rows, self.g, self.a0 = layer, dtype, rows, g, a0
        width = vector_lanes(dtype)
        self.w0 = np.asarray(layer.W, dtype)
        self.v0 = self.av = np.empty((0, 0), dtype)  # empty for a velocity that starts from 0
        columns = (-(-layer.n_o // width), len(g), width)
        self.d = np.zeros(columns, dtype)
        self.bits = np.zeros((-(-len(g) // BLOCK), columns[0] * width), np.int64)
        self.e = np.zeros(columns if momentum else (0, 0, 0), dtype)
        self.scales = np.array(START)
        self.visited = 0  # rows of D, from the top, that may not be 0
        self.gradient: Value | None = None  # dA of the last batch

    @property
    def columns(self) -> int:
        """The number of columns of a source's rows."""
        return len(self.g)

    def lower(self, net: Builder, x: Value) -> Value:
        """Add the layer's ops, which read and update only the bias and D, no weights."""
        n_o, D = self.layer.n_o, Ref(Region(DATA, 0, lives=True))  # the kernel finds D in its argument `gram`
        b, y = net.parameter("b", (1, n_o), vector=True), net.value(n_o)
        net.cost.products += self.columns * n_o
        net.forward(GRAM_FIRST, split=TEAM, reads={x: ALL, b.now: COLUMNS, D: COLUMNS}, writes={y: COLUMNS},
                    c=y.mat, a=x.mat, bias=b.now, aux=D, n=n_o)

        def backward(dy: Value) -> None:
            self.gradient = dy
            next_D = D.overwritten()
            update = kernel.gram_update_with_velocity if self.e.size else kernel.gram_update
            net.update(GRAM_UPDATE, split=TEAM, reads={dy: COLUMNS}, writes={next_D: COLUMNS}, kernel=update, b=dy.mat,
                       aux=next_D, n=n_o, rank=1)
            net.update_bias(b, dy)

        net.on_backward(backward)
        return y

    @property
    def state(self) -> kernel.Gram:
        """The state that the kernel reads and updates."""
        return kernel.Gram(self.a0, self.av, self.d, self.bits, self.e, self.scales, self.visited)

    def weights(self) -> np.ndarray:
        """Return W as a new array."""
        return self._combined(self.d, self.scales[kernel.W_W], self.scales[kernel.W_V], -self.scales[kernel.D_SCALE])

    def velocity(self) -> np.ndarray:
        """Return V as a new array."""
        return self._combined(self.e, self.scales[kernel.V_W], self.scales[kernel.V_V], 1.0)

    def _combined(self, columns: np.ndarray, of_w0: float, of_v0: float, of_rows: float) -> np.ndarray:
        """Return of_w0 W_0 + of_v0 V_0 + of_rows D.T X, with `columns` as D."""
        n, n_o = len(self.rows), self.layer.n_o
        d = columns.transpose(1, 0, 2).reshape(columns.shape[1], -1)[:n, :n_o]
        W = self.w0.copy() if of_w0 == 1 else self.dtype.type(of_w0) * self.w0
        if self.v0.size and of_v0 != 0:
            W += self.dtype.type(of_v0) * self.v0
        matmul(W, d.T, self.rows, alpha=of_rows, beta=1.0)
        return W

    def before_step(self, lr: float, decay: float) -> Callable[[np.ndarray], np.ndarray] | None:
        """Return a function that returns the present W, for `Engine.last_batch`; None if `undone` can compute it later."""
        if not self.e.size and lr * decay != 1:
            return None
        W = self.weights()
        return lambda x: W

    def undone(self, W: np.ndarray, dA: np.ndarray, lr: float, decay: float) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function from a batch's x to W before that batch's step W = (1 - lr decay) W - lr dA.T x.

        It saves a second product of all rows of X, which forms W.
        """
        W, dA, shrink = W.copy(), dA.copy(), 1 - lr * decay

        def before(x: np.ndarray) -> np.ndarray:
            was = W.copy()
            matmul(was, dA.T, x, alpha=lr / shrink, beta=1 / shrink)
            return was

        return before

    def save(self) -> Any:
        """Return a copy of the state, for `restore`."""
        return self.d.copy(), self.bits.copy(), self.e.copy(), self.scales.copy(), self.visited

    def restore(self, saved: Any) -> None:
        """Restore a saved state."""
        self.d[:], self.bits[:], self.e[:], self.scales[:], self.visited = saved


class Gram(GramSpace):
    """Gram space over all rows: X W_0.T and X X.T are computed at the start, and W at the end.

    Parameters
    ----------
    layer, dtype, momentum
        See `GramSpace`.
    x : ndarray, shape (n, n_i)
        The data, in the network's dtype.
    g : ndarray, shape (n, n), optional
        X X.T from `gram_matrix`. Models trained on the same x can share it.
    a0 : ndarray, shape (n, n_o), optional
        X W_0.T. Models that start from the same weights can share it, too.
    products : dict, optional
        For other data X' to evaluate, id(X'): (X', X' W_0.T, X' X.T). The same models can share it.
    """

    name = "gram"

    def __init__(self, layer: Any, dtype: np.dtype, momentum: bool, x: np.ndarray, batch_size: int, *,
                 g: np.ndarray | None = None, a0: np.ndarray | None = None,
                 products: dict[int, Any] | None = None) -> None:
        super().__init__(layer, dtype, momentum, x, gram_matrix(x) if g is None else g,
                         first_outputs(x, np.asarray(layer.W, dtype)) if a0 is None else a0)
        self.batch_size = batch_size
        self._products: dict[int, tuple[Any, np.ndarray, np.ndarray]] = {} if products is None else products

    def chunk(self, work: float) -> int:
        """Return the number of rows that one call trains on, as `Primal.chunk` does."""
        return max(1, int(_CHUNK_WORK // (6 * max(1.0, work)))) * self.batch_size

    def sources(self, targets: np.ndarray, order: np.ndarray | None, start: int, stop: int, chunk: int) -> Iterator[Source]:
        """Yield the source of each call, as `Primal.sources` does, with rows of G."""
        rows = np.arange(len(self.rows)) if order is None else order
        for first in range(start, stop, chunk):
            last = min(stop, first + chunk)
            yield Source(self.g, 0, targets, rows, order is not None, first, last, self.state)
        self.visited = max(self.visited, stop if order is None else len(self.rows))

    def output(self, x: np.ndarray, rows: slice, out: np.ndarray, bias: np.ndarray) -> None:
        """Compute w_w X' W_0.T - d_scale (X' X.T) D + b for rows of other data X'; both products are computed only once."""
        if id(x) not in self._products:  # the entry holds x, so that no other object gets its id
            other = np.asarray(x, self.dtype)
            with_w0, with_x = np.empty((len(x), len(self.w0)), self.dtype), np.empty((len(x), len(self.rows)), self.dtype)
            matmul(with_w0, other, self.w0.T)
            matmul(with_x, other, self.rows.T)
            self._products[id(x)] = x, with_w0, with_x
        _, with_w0, with_x = self._products[id(x)]
        out[...] = self.dtype.type(self.scales[kernel.W_W]) * with_w0[rows]
        matmul(out, with_x[rows], Packed(self.d, (len(self.rows), out.shape[1])), alpha=-self.scales[kernel.D_SCALE],
               beta=1.0, bias=bias)


class BlockGram(GramSpace):
    """Gram space over one window of rows at a time, for any number of rows, in memory or on disk.

    A step on 8 rows reads and writes all weights of the first layer for 8 rows of arithmetic, so that its time is the
    memory's. Within a window no step reads the weights: A_0 = X W.T at its start and W -= D.T X at its end are products of
    about 256 rows, which run at FMA peak, and X X.T of so few rows costs little.
    """

    name = "windows"

    def __init__(self, layer: Any, dtype: np.dtype, momentum: bool, x: np.ndarray, batch_size: int) -> None:
        self.x, self.batch_size = x, batch_size
        self.size = min(window_rows(batch_size), len(x))
        outputs = np.empty((self.size, layer.n_o), dtype)
        super().__init__(layer, dtype, momentum, x[:0], gram_buffer(self.size, dtype), outputs)
        self.opened = 0  # position in the order at which the present window starts
        if momentum:
            self.v0, self.av = np.zeros_like(self.w0), np.empty_like(outputs)

    def chunk(self, work: float) -> int:
        """Return the number of rows of a window, the most that a call trains on."""
        return self.size

    def sources(self, targets: np.ndarray, order: np.ndarray | None, start: int, stop: int, chunk: int) -> Iterator[Source]:
        """Yield the source of each call, a window or the rest of one, as `Primal.sources` does."""
        first = start
        while first < stop:
            self._close_if_done()
            if not len(self.rows):
                self._open(order, first)
            opened, n = self.opened, len(self.rows)
            last = min(stop, opened + n)
            t = targets[opened:opened + n] if order is None else targets[order[opened:opened + n]]
            yield Source(self.g, 0, t, np.arange(n), False, first - opened, last - opened, self.state)
            self.visited = last - opened
            first = last

    def _open(self, order: np.ndarray | None, first: int) -> None:
        """Open a window that starts at a position in the order."""
        last = min(first + self.size, len(self.x))
        rows = self.x[first:last] if order is None else self.x[order[first:last]]
        if not (self.x.dtype == self.dtype and readable_rows(self.x)) or order is not None:
            rows = np.ascontiguousarray(rows, self.dtype)
        matmul(self.a0[:len(rows)], rows, self.w0.T)
        if self.v0.size:
            matmul(self.av[:len(rows)], rows, self.v0.T)
        products_of_rows(self.g[:len(rows), :len(rows)], rows)
        self.rows, self.opened = rows, first

    def _close_if_done(self) -> None:
        """Form the weights after a finished window. That is done only when they are needed, as the last may not be."""
        if not len(self.rows) or self.visited < len(self.rows):
            return
        W = super().weights()
        if self.v0.size:
            self.v0 = super().velocity()
        self.w0 = W
        self._clear()

    def _clear(self) -> None:
        self.rows, self.opened, self.visited = self.x[:0], 0, 0
        self.d[:], self.bits[:], self.e[:], self.scales[:] = 0, 0, 0, START

    def weights(self) -> np.ndarray:
        self._close_if_done()
        return super().weights() if len(self.rows) else self.w0.copy()

    def velocity(self) -> np.ndarray:
        self._close_if_done()
        return super().velocity() if len(self.rows) else self.v0.copy()

    def save(self) -> Any:
        """Return the state between two epochs, when no window is unfinished."""
        self._close_if_done()
        return self.w0, self.v0  # no later step writes into these arrays

    def restore(self, saved: Any) -> None:
        self.w0, self.v0 = saved
        self._clear()

    def output(self, x: np.ndarray, rows: slice, out: np.ndarray, bias: np.ndarray) -> None:
        """Compute X' W.T + b for rows of other data X'."""
        if rows.start == 0:
            self._now = self.weights()
        matmul(out, np.asarray(x[rows], self.dtype), self._now.T, bias=bias)


def readable_rows(x: np.ndarray) -> bool:
    """Return whether a kernel can read the rows without a copy: aligned, contiguous, and whole elements apart."""
    return x.flags.aligned and x.strides[1] == x.itemsize and x.strides[0] % x.itemsize == 0


def gram_matrix(x: np.ndarray) -> np.ndarray:
    """Return X X.T (n, n)."""
    g = gram_buffer(len(x), x.dtype)
    products_of_rows(g, x)
    return g


def products_of_rows(g: np.ndarray, x: np.ndarray) -> None:
    """Compute G = X X.T, without rounding errors if X holds 8-bit images."""
    if not pixel_gram(g, x):
        syrk(g, x)


def gram_buffer(n: int, dtype: np.dtype) -> np.ndarray:
    """Return an uninitialised array (n, n) whose rows are so far apart that they do not evict each other from L1 cache."""
    row = n + (vector_lanes(dtype) if n * dtype.itemsize % 1024 == 0 else 0)
    return np.empty((n, row), dtype)[:, :n]


def first_outputs(x: np.ndarray, W: np.ndarray) -> np.ndarray:
    """Return X W.T (n, n_o)."""
    a0 = np.empty((len(x), len(W)), x.dtype)
    matmul(a0, x, W.T)
    return a0


def window_rows(batch_size: int) -> int:
    """Return the number of rows of a window: whole mini-batches, at least one."""
    return max(1, round(WINDOW / batch_size)) * batch_size
