"""The compiled forward pass of a network, for prediction."""
from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.kernels.records import Data
from fastnet.program.builder import Builder, Value
from fastnet.program.memory import STATE
from fastnet.program.runner import CompiledProgram, address
from fastnet.training.first import GramSpace

_PREDICTED_ROWS = 1024  # the largest number of rows per pass
_PREDICTED_BYTES = 1 << 24  # their largest size


class Predictor:
    """The forward pass for a few rows at a time, with parameters that training changes.

    Parameters
    ----------
    model : Sequential
    x : ndarray, shape (n, ...)
        Data of the shape to predict for.
    state : ndarray, optional
        The parameters of a program that trains the model. By default they are those of its layers.
    form : Primal or GramSpace, optional
        The source of the first layer's output.
    """

    def __init__(self, model: Any, x: np.ndarray, state: np.ndarray | None = None, form: Any = None) -> None:
        self.dtype, self.form = np.dtype(model.dtype), form
        self.first_output: Value | None = None  # the value that the form computes, without an op
        self.rows = max(1, min(_PREDICTED_ROWS, len(x), _PREDICTED_BYTES // (x[:1].size * self.dtype.itemsize)))
        net = Builder(self.dtype, self.rows, forward_only=True, first=self if isinstance(form, GramSpace) else None)
        self.program = CompiledProgram(net.lower(list(model.layers), x.shape[1:]), state)
        self._targets = np.empty((0, 0), self.dtype)

    def lower(self, net: Builder, x: Value) -> Value:
        """Lower the first layer, whose output is computed in Gram space before the program runs."""
        self._bias = net.parameter("b", (1, self.form.layer.n_o), vector=True)
        y = net.value(self.form.layer.n_o)
        y.region.lives = True
        self.first_output = y
        return y

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Compute the last layer's output for x, a new array."""
        output = self.program.net.output
        assert output is not None
        out = np.empty((len(x), output.columns), self.dtype)
        found, order, losses = self.program.values(output, self.rows), np.arange(self.rows), np.empty(1)
        for first in range(0, len(x), self.rows):
            rows = slice(first, min(first + self.rows, len(x)))
            n = rows.stop - first
            batch = x[rows]
            if self.first_output is None:
                batch = np.ascontiguousarray(batch.reshape(n, -1), self.dtype)
            else:
                bias = self.program.arenas[STATE][self._bias.region.start:][:self.form.layer.n_o]
                self.form.output(x, rows, self.program.values(self.first_output, n), bias)
            data = Data(address(batch), batch.strides[0] // batch.itemsize, self._targets, order, False, 0, 0)
            self.program.run(self.program.commands(), data, self.program.hyperparameters(), losses, last=n)
            out[rows] = found[:n]
        return out
