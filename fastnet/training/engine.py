"""The compiled engine, which trains a whole epoch in one call of a kernel."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet.kernels.records import Data, Hyperparameters
from fastnet.program.builder import Builder, spread
from fastnet.program.memory import STATE, WORK
from fastnet.program.runner import MOMENTS_OF, CompiledProgram, Moments, address, optimizer_of
from fastnet.training.first import BlockGram, Gram, GramSpace, Primal, Source
from fastnet.training.history import Evaluation
from fastnet.training.lazy import LastBatch, Parameters, ParametersBefore, present_parameters
from fastnet.training.prediction import Predictor
from fastnet.training.scoring import accuracy, converted, loss_of

FORMS: dict[str, Any] = {form.name: form for form in (Primal, Gram, BlockGram)}


class Engine:
    """Trains a copy of a network's parameters; `write` copies them into its layers.

    Parameters
    ----------
    model : Sequential
        A network whose layers all lower to ops.
    x : ndarray, shape (n, ...)
        The data, in the model's dtype or, on disk, in any dtype.
    t : ndarray, shape (n, n_outputs)
    batch_size : int
    momentum, weight_decay : float
    optimizer : {"sgd", "adam", "rmsprop"}
    form : str
        The form in which the first layer is trained, a name of ``FORMS``.
    nesterov : bool
        Whether the momentum is Nesterov's.
    net : Builder, optional
        The network's program for the form ``"fused"``, if a plan has made it.
    **shared
        Arrays that models trained on the same data share, see `Gram`.

    Raises
    ------
    Unsupported
        If a layer cannot be lowered.
    """

    def __init__(self, model: Any, x: np.ndarray, t: np.ndarray, batch_size: int, momentum: float = 0.0,
                 weight_decay: float = 0.0, optimizer: str = "sgd", form: str = "fused",
                 net: Builder | None = None, *, nesterov: bool = False, **shared: Any) -> None:
        self.model, self.dtype = model, np.dtype(model.dtype)
        self.batch_size = min(batch_size, len(x))
        self.momentum, self.weight_decay = momentum, weight_decay
        self.optimizer = optimizer_of(optimizer, momentum, nesterov)
        self.steps = 0  # the number of mini-batches so far
        self.check_interrupt: Callable[[], None] = lambda: None  # called between the calls of a long epoch; may raise
        self.x = x
        self.t = np.require(t, self.dtype, ("C", "W"))  # a read-only t would be another type to compile for
        shape = x.shape[1:]
        x = x if x.ndim == 2 else x.reshape(len(x), -1)
        self.form = (Primal(x, self.dtype, self.batch_size) if form == "fused" else
                    FORMS[form](model.layers[0], self.dtype, bool(momentum), x, self.batch_size, **shared))
        self.name = form
        if net is None or isinstance(self.form, GramSpace):
            net = Builder(self.dtype, self.batch_size, moments=MOMENTS_OF[self.optimizer],
                          first=self.form if isinstance(self.form, GramSpace) else None)
            net.lower(list(model.layers), shape, model.loss)
        self._rows_row = spread(self.form.columns, net.lanes, self.dtype.itemsize)
        net.reserve(WORK, net.lanes)  # vectors may be read beyond the last row
        self._rows = net.reserve(WORK, self.batch_size * self._rows_row)
        self.program = CompiledProgram(net)
        self._predictor: Predictor | None = None

    # --- what training needs ----------------------------------------------------------------------------------------

    def epoch(self, lr: float, order: np.ndarray | None, stop: int, start: int = 0) -> np.ndarray:
        """Train on positions start:stop of an order, by default that of the rows; return the loss of each batch."""
        losses = np.empty(-(-(stop - start) // self.batch_size))
        done = 0
        for source in self.form.sources(self.t, order, start, stop, self._chunk()):
            batches = -(-(source.last - source.first) // self.batch_size)
            self.program.run(self.commands(source.gathered), self._data(source), self._hyper(lr),
                             losses[done:done + batches], first=source.first, last=source.last, gram=source.gram)
            done += batches
            self.steps += batches
            if done < len(losses):
                self.check_interrupt()
        return losses

    def last_batch(self, lr: float, order: np.ndarray | None, start: int) -> float:
        """Train on the rows from `start` on, the last batch of a fit, and give the layers a lazy source of its results.

        The source computes inputs, outputs and gradients when they are read, from the parameters before this step.
        """
        loss, before = self._last_batch(lr, order, start)
        self._leave(order, start, before)
        return loss

    def leave(self, order: np.ndarray | None, start: int) -> None:
        """Copy the parameters into the layers, and give these a lazy source of the results of the batch from `start` on."""
        self.write()
        now = present_parameters(self.model)
        self._leave(order, start, lambda _: now)

    def _leave(self, order: np.ndarray | None, start: int, parameters: ParametersBefore) -> None:
        rows = slice(start, None) if order is None else order[start:]
        LastBatch(self.model, converted(self.x[rows], self.dtype, copy=True), np.array(self.t[rows]), parameters)

    def _last_batch(self, lr: float, order: np.ndarray | None, start: int) -> tuple[float, ParametersBefore]:
        state, parameters, form = self.program.arenas[STATE].copy(), self.program.net.parameters, self.form
        first = form.before_step(lr, self.weight_decay) if isinstance(form, GramSpace) else None
        loss = self.epoch(lr, order, len(self.t), start)[0]
        self.write()
        if first is None and isinstance(form, GramSpace):
            assert form.gradient is not None
            first = form.undone(self.model.layers[0].W, self.program.values(form.gradient, len(self.t) - start), lr,
                               self.weight_decay)

        def before(x: np.ndarray) -> Parameters:
            found = {(p.layer, p.name): p.get(state) for p in parameters}
            if first is not None:
                found[0, "W"] = first(x)
            return found

        return loss, before

    @property
    def in_one_call(self) -> bool:
        """Whether an epoch is one call, which Ctrl-C cannot interrupt."""
        return not isinstance(self.form, BlockGram) and self._chunk() >= len(self.t)

    def save(self) -> Any:
        """Return the state, for `restore`."""
        return self.form.save(), *self.program.save(), self.steps

    def restore(self, saved: Any) -> None:
        """Restore a saved state."""
        of_form, state, moments, self.steps = saved
        self.form.restore(of_form)
        self.program.restore((state, moments))

    state, set_state = save, restore  # for sweeps: another engine can continue from a saved state

    def write(self) -> None:
        """Put the parameters into the model's layers, as new arrays."""
        self.program.write()
        if isinstance(self.form, GramSpace):
            self.model.layers[0].W = self.form.weights()

    def moments(self) -> Moments:
        """Return the optimiser's arrays by the number of a layer and the name of a parameter: a velocity, v, or m and v."""
        found = self.program.moments()
        if self.program.net.moments and isinstance(self.form, GramSpace):
            found[0, "W"] = (self.form.velocity(),)
        return found

    def resume(self, moments: Moments, steps: int) -> None:
        """Continue from the moments and the number of steps of another engine that trained the same parameters."""
        self.program.put_moments(moments)
        if isinstance(self.form, BlockGram) and (0, "W") in moments:
            self.form.v0 = np.array(moments[0, "W"][0], self.dtype)
        self.steps = steps

    @property
    def parts(self) -> list[Any]:
        """The layers whose arrays the engine keeps, and the loss."""
        return [*self.model.layers, self.model.loss]

    def score(self, x: np.ndarray, t: np.ndarray) -> Evaluation:
        """Return the present network's loss and accuracy on other data."""
        y = self.probabilities(x)
        return Evaluation(loss_of(self.model.loss, y, t.astype(y.dtype, copy=False)), accuracy(y, t))

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """Return the last layer's output for other data, with the current parameters. Pass the same array each time."""
        if self._predictor is None:
            self._predictor = Predictor(self.model, x, self.program.arenas[STATE], self.form)
        return self._predictor(x)

    # --- for callers that run single steps: `training.on_batch` ---------------------------------------------------------

    def commands(self, gathered: bool = False) -> np.ndarray:
        """Return the commands of a step that reads the source's rows directly, or `gathered` in another order."""
        return self.program.commands(gathered=gathered, source_columns=self.form.columns)

    def gathered_rows(self) -> tuple[int, int]:
        """Return the address to which a batch's gathered rows are copied, and the distance of two rows in elements."""
        return address(self.program.arenas[WORK][self._rows.region.start:]), self._rows_row

    def _data(self, source: Source) -> Data:
        step_ = source.rows.strides[0] // source.rows.itemsize
        return Data(address(source.rows) - source.row_at * source.rows.strides[0], step_, source.targets, source.order,
                    source.gathered, *self.gathered_rows())

    def _hyper(self, lr: float) -> Hyperparameters:
        return self.program.hyperparameters(lr, self.momentum, self.weight_decay, self.optimizer, self.steps)

    def _chunk(self) -> int:
        """Return the number of rows that one call trains on."""
        return self.form.chunk(self.batch_size * self.program.net.cost.products)
