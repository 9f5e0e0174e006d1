"""One compiled step per call, for hand-written loops: ``train_on_batch`` and ``test_on_batch``.

Between two calls the parameters stay in the packed form of the compiled step, and the layers' attributes are lazy. When one
is read, the lazy source materialises the parameters, and computes the results of the last batch (x, y and the gradients)
layer by layer from that batch and the current parameters.
"""
from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet.base import checks
from fastnet.base.attributes import FloatArray, settle, snapshot
from fastnet.base.buffers import FAST, Buffered
from fastnet.base.modes import in_mode
from fastnet.kernels.gemm.sparse import sparse_kernel
from fastnet.kernels.layout import make_ready
from fastnet.kernels.program import on_batch as kernel
from fastnet.kernels.records import JOB, Data
from fastnet.kernels.runtime.pool import UNLIMITED, start_workers, thread_context
from fastnet.layer import learned, trained
from fastnet.program.runner import address, new_job
from fastnet.training.eligibility import unsupported_reason
from fastnet.training.engine import Engine
from fastnet.training.first import readable_rows
from fastnet.training.lazy import LazySource, kept_arrays

_methods = operator.attrgetter("forward", "backward", "update_param", "update_params")
_methods_of_loss = operator.attrgetter("forward", "backward")


def train_on_batch(model: Any, x: Any, t: Any, lr: float) -> float:
    """Take one step of gradient descent; :meth:`fastnet.Sequential.train_on_batch` describes it."""
    runner = _runner(model)
    if runner is not None and isinstance(lr, (float, np.floating)) and 0 <= lr < np.inf and runner.takes(x, t):
        return runner.step(x, t, float(lr))
    who = "Sequential.train_on_batch"
    lr = checks.rate(who, lr)
    x, t = _batch(who, model, x, t)
    if runner is not None and runner.resumes(x, t):
        return runner.step(x, t, lr)
    settle((*model.layers, model.loss))
    if _compiles(model, x):
        runner = OnBatch(model, x, t)
        if runner.takes(x, t):
            return runner.step(x, t, lr)
        settle(runner.parts)
    put_back = snapshot((*model.layers, model.loss), copy=True)
    try:
        with in_mode(model, True):
            loss = model.forward(x, t)
            model.backward()
            model.update_param(lr)
    except BaseException:
        put_back()
        raise
    return float(loss)


def test_on_batch(model: Any, x: npt.ArrayLike, t: npt.ArrayLike) -> float:
    """Compute the loss of a batch without changing anything; :meth:`fastnet.Sequential.test_on_batch` describes it."""
    x, t = _batch("Sequential.test_on_batch", model, x, t)
    put_back = snapshot((*model.layers, model.loss), copy=True)
    try:
        with in_mode(model, False):
            return float(model.forward(x, t))
    finally:
        put_back()


class OnBatch(LazySource):
    """The compiled step of a model, and the lazy source of its parameters.

    Parameters
    ----------
    model : Sequential
        A model that compiled engines may train, with `Buffered` layers only.
    x : ndarray, shape (n, ...)
    t : ndarray, shape (n, n_outputs)
        A first batch, which gives only the shapes.
    """

    def __init__(self, model: Any, x: np.ndarray, t: np.ndarray) -> None:
        self.model, self.layers, self.loss = model, tuple(model.layers), model.loss
        self.engine = Engine(model, x, t, len(x))
        super().__init__((*self.layers, self.loss), self.engine.write)
        self.dtype, self.shape, self.outputs, self.most = self.engine.dtype, x.shape[1:], t.shape[1], len(x)
        self.last: tuple[np.ndarray, np.ndarray] | None = None
        classes = dict.fromkeys(map(type, (*self.layers, model)))
        self.methods: list[tuple[type, Any, Any]] = [(klass, _methods, _methods(klass)) for klass in classes]
        self.methods.append((type(self.loss), _methods_of_loss, _methods_of_loss(type(self.loss))))
        self._record()
        self.take()

    def takes(self, x: Any, t: Any) -> bool:
        """Return whether a batch has the expected form, and the model is still the one that was compiled."""
        if not (type(x) is np.ndarray and type(t) is np.ndarray and x.dtype == t.dtype == self.dtype and self.holds
                and x.shape[1:] == self.shape and t.ndim == 2 and 0 < len(x) == len(t) <= self.most
                and t.shape[1] == self.outputs and t.flags.carray and _readable(x)):
            return False
        model = self.model
        if tuple(model.layers) != self.layers or model.loss is not self.loss or len(model.__dict__) != self.of_model:
            return False
        for part, attributes in zip(self.parts, self.attributes, strict=True):
            if part.__dict__ != attributes:  # a parameter was assigned, or a method, or a size
                return False
        for klass, methods, before in self.methods:
            if methods(klass) != before:
                return False
        return True

    def resumes(self, x: np.ndarray, t: np.ndarray) -> bool:
        """Do what `takes` does and, if the layers hold the parameters again, pack these first."""
        if not self.holds:
            same = (tuple(self.model.layers) == self.layers and self.model.loss is self.loss and len(x) <= self.most
                    and list(map(_settings, self.parts)) == self.attributes)
            if not same or not _compiles(self.model, x) or self.model.dtype != self.dtype:
                return False
            self.engine.program.read()
            self.take()
        return self.takes(x, t)

    def step(self, x: np.ndarray, t: np.ndarray, lr: float) -> float:
        """Train on one batch, and return its loss before the step."""
        self.last = x, t
        rows = x if x.ndim == 2 else x.reshape(len(x), -1)
        while not kernel.step_entry(rows, t, lr, self.record_at, thread_context()):
            start_workers()
            sparse_kernel.expect(self.dtype)
        return float(self.loss_of_batch[0])

    def leave(self) -> None:
        """Materialise the results of the last batch by running it layer by layer with the current parameters."""
        self.release()
        newer = [{name: part.__dict__[name] for name in names if name in part.__dict__}
                 for part, names in zip(self.parts, self.names, strict=True)]
        if self.last is None:
            for part, old in zip(self.parts, self.before, strict=True):
                part.__dict__.update(old)
        else:
            for part in self.parts:
                for name in trained(part).keys() - learned(part).keys():  # counters: their values before the batch
                    setattr(part, name, max(0, getattr(part, name) - 1))
            with in_mode(self.model, True):
                self.model.forward(*self.last)
                self.model.backward()
        for part, kept in zip(self.parts, newer, strict=True):
            part.__dict__.update(kept)

    def _record(self) -> None:
        """Write down what the kernel wants to know, see `fastnet.kernels.program.on_batch`."""
        engine = self.engine
        make_ready(kernel.step_entry, self.dtype)
        self.kept = commands, order = engine.commands(), np.arange(self.most)
        data = Data(0, 0, np.empty((0, self.outputs), self.dtype), order, False, *engine.gathered_rows())
        self.record = record = np.zeros(1, kernel.RECORD)
        job = new_job(commands, self.dtype, data, engine.program.hyperparameters())
        for name in JOB.names:
            record[name] = job[name]
        self.record_at, self.loss_of_batch = address(record), record["loss"]
        record["losses"] = self.record_at + kernel.LOSS
        record["function"], record["most"] = kernel.step_function(), engine.program.threads or UNLIMITED
        record["work"] = engine.program.work
        sparse_kernel.expect(self.dtype)

    def take(self) -> None:
        """Do what `LazySource.take` does."""
        super().take()
        self.of_model = len(self.model.__dict__)


def _settings(part: Any) -> dict[str, Any]:
    """Return a layer's attributes except arrays: sizes, and any that the user added."""
    return {name: value for name, value in part.__dict__.items() if name not in kept_arrays(part)}


def _readable(x: np.ndarray) -> bool:
    """Return whether the kernel can read the samples in place."""
    return readable_rows(x) if x.ndim == 2 else x.flags.c_contiguous and x.flags.aligned


def _runner(model: Any) -> OnBatch | None:
    owner = getattr(model.loss, "_owner", None)
    return owner if isinstance(owner, OnBatch) and owner.model is model else None


def _compiles(model: Any, x: np.ndarray) -> bool:
    parts = (*model.layers, model.loss)
    return (all(isinstance(part, Buffered) and type(part) in FAST for part in parts)
            and all(getattr(layer, name).shape == kept.shape(layer)
                    for layer in model.layers for name, kept in vars(type(layer)).items()
                    if isinstance(kept, FloatArray) and kept.shape is not None and not kept.optional)
            and unsupported_reason(model, x.shape[1:]) is None)


def _batch(who: str, model: Any, x: npt.ArrayLike, t: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x = checks.samples(who, model, x)
    dtype = np.dtype(model.dtype or np.float64)
    t = checks.targets(who, "t", t, (len(x), model.output_width()), dtype)
    if not _readable(x):
        x = np.array(x, order="C")
    return x, np.require(t, dtype, ("C", "W"))
