"""The compiled engine: a network's program, and the arrays it works on; whole epochs in one call of the kernel."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet.kernels import step
from fastnet.kernels.structs import ADAM, MOMENTUM, SGD, Data, Hyperparameters
from fastnet.kernels.threads import run
from fastnet.lowering import DATA, LOSSES, MOMENTS, STATE, WORK, Buffer, Lowering, assemble, spread
from fastnet.training.first import Gram, Plain, RowSpace, Source, Windowed, no_gram
from fastnet.training.last_batch import Parameters, ParametersBefore

WAYS: dict[str, Any] = {way.name: way for way in (Plain, Gram, Windowed)}

SMALL_STEP = 1 << 18  # multiply-adds a step below which a second thread costs more than it gains
_PREDICTED_ROWS = 1024  # rows that go through the network at once when there is nothing to learn
_PREDICTED_BYTES = 1 << 24  # and their size
MOMENTS_OF = {SGD: 0, MOMENTUM: 1, ADAM: 3}  # arrays like the parameters that an optimiser keeps
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # of Adam (Kingma & Ba 2015)


class Engine:
    """Trains a copy of a network's parameters; `write` puts them into its layers.

    Parameters
    ----------
    model : Sequential
        Of layers that have a lowering.
    x : ndarray, shape (n, ...)
        In the model's dtype, or on disk in any.
    t : ndarray, shape (n, n_outputs)
    batch_size : int
    momentum, weight_decay : float
    optimizer : {"sgd", "adam"}
    way : str
        How the first layer is trained, a name of ``WAYS``.
    **shared
        What models trained on the same data share, see `Gram`.

    Raises
    ------
    Unsupported
        If the network has no lowering.
    """

    def __init__(self, model: Any, x: np.ndarray, t: np.ndarray, batch_size: int, momentum: float = 0.0,
                 weight_decay: float = 0.0, optimizer: str = "sgd", way: str = "fused", **shared: Any) -> None:
        self.model, self.dtype = model, np.dtype(model.dtype)
        self.batch_size = min(batch_size, len(x))
        self.momentum, self.weight_decay = momentum, weight_decay
        self.optimizer = ADAM if optimizer == "adam" else MOMENTUM if momentum else SGD
        self.steps = 0  # mini-batches so far
        self.check_interrupt: Callable[[], None] = lambda: None  # called between the calls of a long epoch; may raise
        self.t = np.require(t, self.dtype, ("C", "W"))  # a read-only t would be another type to compile for
        shape = x.shape[1:]
        x = x if x.ndim == 2 else x.reshape(len(x), -1)
        self.way = (Plain(x, self.dtype, self.batch_size) if way == "fused" else
                    WAYS[way](model.layers[0], self.dtype, bool(momentum), x, self.batch_size, **shared))
        self.name = way
        self.net = Lowering(self.dtype, self.batch_size, moments=MOMENTS_OF[self.optimizer],
                            first=self.way if isinstance(self.way, RowSpace) else None)
        self.net.lower(list(model.layers), shape, model.loss)
        self._rows_row = spread(self.way.columns, self.net.lanes, self.dtype.itemsize)
        self._rows = self.net.reserve(WORK, self.net.lanes)  # vectors may be read beyond the last row
        self._rows = self.net.reserve(WORK, self.batch_size * self._rows_row)
        self._arenas = allocate(self.net, list(model.layers))
        self._programs: dict[bool, np.ndarray] = {}
        self._predictor: Predictor | None = None

    # --- what training needs ----------------------------------------------------------------------------------------

    def epoch(self, lr: float, order: np.ndarray | None, stop: int, start: int = 0) -> np.ndarray:
        """Train on rows start:stop of an order (None: as they are) and return the losses of the batches."""
        losses = np.empty(-(-(stop - start) // self.batch_size))
        done = 0
        for source in self.way.sources(self.t, order, start, stop, self._chunk()):
            batches = -(-(source.last - source.first) // self.batch_size)
            run(step.train, self._program(source.gathered), self._data(source), source.gram, self._hyper(lr),
                self.batch_size, source.first, source.last, losses[done:done + batches], threads=self._threads())
            done += batches
            self.steps += batches
            if done < len(losses):
                self.check_interrupt()
        return losses

    def last_batch(self, lr: float, order: np.ndarray | None, start: int) -> tuple[float, ParametersBefore]:
        """Train on the rows from `start` on, the last batch of a fit, and put the parameters into the layers.

        Returns the loss, and a function of the batch's x that gives the parameters from before this step.
        """
        state, slots, way = self._arenas[STATE].copy(), self.net.slots, self.way
        first = way.before_step(lr, self.weight_decay) if isinstance(way, RowSpace) else None
        loss = self.epoch(lr, order, len(self.t), start)[0]
        self.write()
        if first is None and isinstance(way, RowSpace):
            first = way.undone(self.model.layers[0].W, self._rows_of(way.gradient, len(self.t) - start), lr,
                               self.weight_decay)

        def before(x: np.ndarray) -> Parameters:
            found = {(slot.layer, slot.name): slot.get(state) for slot in slots}
            if first is not None:
                found[0, "W"] = first(x)
            return found

        return loss, before

    def read(self) -> None:
        """Take the parameters from the model's layers again."""
        for slot in self.net.slots:
            slot.put(self._arenas[STATE], np.asarray(getattr(self.model.layers[slot.layer], slot.name), self.dtype))
        put_copies(self.net, self._arenas)

    @property
    def in_one_call(self) -> bool:
        """Whether an epoch is one call, so that nothing can interrupt it halfway."""
        return not isinstance(self.way, Windowed) and self._chunk() >= len(self.t)

    def save(self) -> Any:
        """What `restore` needs to go back to this state."""
        return self.way.save(), self._arenas[STATE].copy(), self._arenas[MOMENTS].copy(), self.steps

    def restore(self, saved: Any) -> None:
        """Go back to the state that was saved."""
        of_way, state, moments, self.steps = saved
        self.way.restore(of_way)
        self._arenas[STATE][:], self._arenas[MOMENTS][:] = state, moments
        put_copies(self.net, self._arenas)

    def write(self) -> None:
        """Put the parameters into the model's layers, as new arrays."""
        for slot in self.net.slots:
            setattr(self.model.layers[slot.layer], slot.name, slot.get(self._arenas[STATE]))
        if isinstance(self.way, RowSpace):
            self.model.layers[0].W = self.way.weights()

    def moments(self) -> dict[tuple[int, str], tuple[np.ndarray, ...]]:
        """What the optimiser keeps of each parameter, by its layer's number and its name: (V,) or Adam's (m, v)."""
        found = moments_of(self.net, self._arenas)
        if self.net.moments and isinstance(self.way, RowSpace):
            found[0, "W"] = (self.way.velocity(),)
        return found

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """The last layer's output for other data, with the parameters of now; x is kept in mind, so pass the same array."""
        if self._predictor is None:
            self._predictor = Predictor(self.model, x, self._arenas[STATE], self.way)
        return self._predictor(x)

    # --- sizes and places, for whoever runs single steps: `training.on_batch` -------------------------------------------

    def program(self) -> np.ndarray:
        """The ops of a step on rows that lie where they are."""
        return self._program(False)

    def room_for_rows(self) -> tuple[int, int]:
        """Where a batch's rows are copied to, if they have to be: an address, and their distance in elements."""
        return address(self._arenas[WORK][self._rows.offset:]), self._rows_row

    def threads(self) -> int | None:
        """How many threads a step is worth; None for all."""
        return self._threads()

    def _program(self, gathered: bool) -> np.ndarray:
        if gathered not in self._programs:
            ops = self.net.ops(gathered=gathered, source_columns=self.way.columns)
            self._programs[gathered] = assemble(ops, bases(self._arenas), self.dtype)
        return self._programs[gathered]

    def _data(self, source: Source) -> Data:
        step_ = source.rows.strides[0] // source.rows.itemsize
        return Data(address(source.rows) - source.row_at * source.rows.strides[0], step_, source.targets, source.order,
                    source.gathered, address(self._arenas[WORK][self._rows.offset:]), self._rows_row)

    def _rows_of(self, buffer: Buffer | None, n: int) -> np.ndarray:
        """The first n rows of a buffer."""
        assert buffer is not None
        at = buffer.place.offset
        return self._arenas[WORK][at:at + n * buffer.row].reshape(n, buffer.row)[:, :buffer.columns]

    def _hyper(self, lr: float) -> Hyperparameters:
        return hyperparameters(self.dtype, lr, self.momentum, self.weight_decay, self.optimizer, self.net.sizes[STATE],
                               self.steps)

    def _work(self) -> float:
        """Multiply-adds of the way forward in a step."""
        return self.batch_size * self.net.cost.products

    def _threads(self) -> int | None:
        """How many for `run`."""
        return 1 if self._work() < SMALL_STEP else self.net.threads

    def _chunk(self) -> int:
        """Rows that one call trains on."""
        return self.way.chunk(self._work())


class Predictor:
    """The way forward alone, some rows at a time, from parameters that training changes.

    Parameters
    ----------
    model : Sequential
    x : ndarray, shape (n, ...)
        Some data of the shape that will come.
    state : ndarray
        The parameters' arena.
    way : Plain or RowSpace
        Where the first layer's output comes from.
    """

    def __init__(self, model: Any, x: np.ndarray, state: np.ndarray, way: Any) -> None:
        self.dtype, self.way = state.dtype, way
        self.in_row_space = isinstance(way, RowSpace)
        self.rows = max(1, min(_PREDICTED_ROWS, len(x), _PREDICTED_BYTES // (x[:1].size * self.dtype.itemsize)))
        self.net = Lowering(self.dtype, self.rows, forward_only=True, first=way if self.in_row_space else None)
        self.output = self.net.lower(list(model.layers), x.shape[1:])
        self.net.reserve(WORK, self.net.lanes)
        self._arenas = {STATE: state, MOMENTS: state[:0], WORK: _zeros(self.net.sizes[WORK], self.dtype),
                        LOSSES: np.zeros(0)}
        ops = self.net.ops()
        self._first = ops[0] if self.in_row_space else None  # computed by the way, not by its op
        self._program = assemble(ops[1:] if self.in_row_space else ops, bases(self._arenas), self.dtype)
        self._none = np.empty((0, 0), self.dtype), np.zeros(1, np.int64), no_gram(self.dtype), np.empty(1)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The last layer's output for x, a new array."""
        assert self.output is not None
        out = np.empty((len(x), self.output.columns), self.dtype)
        found = self._rows_of(self.output)
        for first in range(0, len(x), self.rows):
            rows = slice(first, min(first + self.rows, len(x)))
            n = rows.stop - first
            batch = x[rows]
            if self._first is None:
                batch = np.ascontiguousarray(batch.reshape(n, -1), self.dtype)
            else:
                self._first_output(x, rows)
            self._run(batch, n)
            out[rows] = found[:n]
        if self.net.on_output is not None:
            self.net.on_output(out, out)
        return out

    def _first_output(self, x: np.ndarray, rows: slice) -> None:
        assert self._first is not None
        y, slot = next(iter(self._first["writes"])), self.net.slots[0]
        bias = self._arenas[STATE][slot.place.offset:slot.place.offset + slot.shape[1]]
        self.way.output(x, rows, self._rows_of(y)[:rows.stop - rows.start], bias, bool(self._first.get("relu", 0)))

    def _run(self, batch: np.ndarray, n: int) -> None:
        targets, order, gram, losses = self._none
        data = Data(address(batch), batch.strides[0] // batch.itemsize, targets, order, False, 0, 0)
        small = n * self.net.cost.products < SMALL_STEP
        run(step.train, self._program, data, gram, hyperparameters(self.dtype), self.rows, 0, n, losses,
            threads=1 if small else self.net.threads)

    def _rows_of(self, buffer: Any) -> np.ndarray:
        at = buffer.place.offset
        flat = self._arenas[WORK][at:at + self.rows * buffer.row]
        return flat.reshape(self.rows, buffer.row)[:, :buffer.columns]


def outputs(model: Any, x: np.ndarray) -> np.ndarray:
    """What the last layer of a network that has a lowering gives for x."""
    dtype = np.dtype(model.dtype)
    net = Lowering(dtype, 1, forward_only=True)
    net.lower(list(model.layers), x.shape[1:])
    return Predictor(model, x, allocate(net, list(model.layers))[STATE], None)(x)


def hyperparameters(dtype: np.dtype, lr: float = 0.0, momentum: float = 0.0, weight_decay: float = 0.0,
                    optimizer: int = SGD, moments: int = 0, steps: int = 0) -> Hyperparameters:
    """The record that kernels take, numbers of the network's dtype."""
    number = dtype.type
    return Hyperparameters(number(lr), number(momentum), number(weight_decay), optimizer, moments, steps,
                           number(BETA_1), number(BETA_2), number(EPSILON))


def allocate(net: Lowering, layers: list[Any]) -> dict[str, np.ndarray]:
    """The arenas of a program, with the layers' parameters in them."""
    sizes, dtype = net.sizes, net.dtype
    arenas = {STATE: _zeros(sizes[STATE], dtype), MOMENTS: _zeros(net.moments * sizes[STATE], dtype),
              WORK: _zeros(sizes[WORK], dtype), LOSSES: np.zeros(sizes[LOSSES])}
    arenas[WORK][0] = 1
    for slot in net.slots:
        slot.put(arenas[STATE], np.asarray(getattr(layers[slot.layer], slot.name), dtype))
    put_copies(net, arenas)
    return arenas


def moments_of(net: Lowering, arenas: dict[str, np.ndarray]) -> dict[tuple[int, str], tuple[np.ndarray, ...]]:
    """What the optimiser keeps of each parameter: (V,), or Adam's (m, v), behind the gradient."""
    if not net.moments:
        return {}
    size, arena = net.sizes[STATE], arenas[MOMENTS]
    kept = [arena] if net.moments == 1 else [arena[size:], arena[2 * size:]]
    return {(slot.layer, slot.name): tuple(slot.get(flat) for flat in kept) for slot in net.slots}


def put_copies(net: Lowering, arenas: dict[str, np.ndarray]) -> None:
    """Make the copies of parameters that the way back reads anew."""
    for slot in net.slots:
        slot.put_copies(arenas[STATE], arenas[WORK])


def bases(arenas: dict[str, np.ndarray]) -> dict[str, int]:
    """Where the arenas start, for `fastnet.lowering.assemble`."""
    return {DATA: 0, **{name: address(array) for name, array in arenas.items()}}


def address(array: np.ndarray) -> int:
    """Of an array's first element."""
    return array.__array_interface__["data"][0]


def _zeros(size: int, dtype: np.dtype) -> np.ndarray:
    """Zeros that start on a cache line's boundary."""
    extra = 64 // dtype.itemsize
    flat = np.zeros(size + extra, dtype)
    skip = -(address(flat) // dtype.itemsize) % extra
    return flat[skip:skip + size]
