"""A layer that computes each output from one input, from two functions of numbers: all loops around them are made here.

A layer's kernel file states what its function is of one number, and its gradient::

    @jit
    def _value(x, slope):
        return x if x > 0 else cast_like(slope, x) * x

    @jit
    def _gradient(dy, y, slope):
        return dy if y > 0 else cast_like(slope, dy) * dy

    LEAKY_RELU = Elementwise(_value, _gradient)

and gets the kernels for arrays (from Python, and from a user's compiled code), the ones that a layer calls by hand, and the
ops of a compiled network. Both functions take one constant of the layer, 0 where it has none.
"""
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from fastnet.kernels.codegen.jit import jit
from fastnet.kernels.codegen.linking import AddressedKernel, op_kernel
from fastnet.kernels.compiled_calls import array_kernel, at, elements_of, finish, in_compiled_code, opened
from fastnet.kernels.gemm.blocking import partition
from fastnet.kernels.layout import by_rows, elements, flat, for_dtypes, line, make_ready, plain
from fastnet.kernels.records import context_at, input_row, op_at, row_of, vector_at
from fastnet.kernels.runtime.team import run
from numba import types

MANY = 1 << 18  # elements above which all threads share an array: for fewer, the call costs more than it saves
_BLOCK = 64  # elements: a thread's share is whole vectors, so that no bit depends on how many threads there are


class Elementwise:
    """The kernels of an element-wise layer.

    Parameters
    ----------
    value : compiled function ``(x, constant)``
        The output of one input.
    gradient : compiled function ``(dy, y, constant)``
        The gradient of one input, from that of its output and the output.

    Attributes
    ----------
    forward_entry, backward_entry : callable
        ``(y, x, constant)`` and ``(dx, dy, y, constant)`` for matrices of any layout, as a layer calls them. They return
        False, with nothing done, if the first is not of the shape of the others, not empty and without gaps, in C or Fortran
        order; see `for_dtypes` for when they raise TypeError.
    forward_op, backward_op : AddressedKernel
        C = value(A), and C = gradient(C, A), for samples of a compiled step; the constant is the op's `number`.
    """

    def __init__(self, value: Callable, gradient: Callable) -> None:
        def forward_loop(y, x, constant):
            for i in range(x.size):
                y[i] = value(x[i], constant)

        def backward_loop(dx, dy, y, constant):
            for i in range(y.size):
                dx[i] = gradient(dy[i], y[i], constant)

        forward, backward = (jit(_named(function, value)) for function in (forward_loop, backward_loop))

        def forward_entry(y, x, constant):
            if y.shape != x.shape or x.size == 0:
                return False
            if not by_rows(y):
                y, x = y.T, x.T
            if not by_rows(y):
                return False
            forward(line(y), line(x), constant)
            return True

        def backward_entry(dx, dy, y, constant):
            if dy.shape != y.shape or dx.shape != y.shape or y.size == 0:
                return False
            if not by_rows(dx):
                dx, dy, y = dx.T, dy.T, y.T
            if not by_rows(dx):
                return False
            backward(line(dx), line(dy), line(y), constant)
            return True

        def forward_op(op, context, start, stop, one):
            o, c = op_at(op), context_at(context)
            for i in range(start, stop):
                forward(row_of(o.c, i, o.n, one), input_row(o, c, i, one), o.number)

        def backward_op(op, context, start, stop, one):
            o = op_at(op)
            for i in range(start, stop):
                dx = row_of(o.c, i, o.n, one)
                backward(dx, dx, row_of(o.a, i, o.n, one), o.number)

        def forward_here(outcome, y, x, constant, one):
            if opened(outcome, 1, (y, x)):
                n = elements_of(x)
                forward(vector_at(at(y), n, one), vector_at(at(x), n, one), constant)
                finish(outcome, 1, (y, x))

        def backward_here(outcome, dx, dy, y, constant, one):
            if opened(outcome, 1, (dx, dy, y)):
                n = elements_of(y)
                backward(vector_at(at(dx), n, one), vector_at(at(dy), n, one), vector_at(at(y), n, one), constant)
                finish(outcome, 1, (dx, dy, y))

        def forward_part(thread, threads, sync, scratch, y, x, constant):
            start, stop = partition(y.size, _BLOCK, thread, threads), partition(y.size, _BLOCK, thread + 1, threads)
            forward(y[start:stop], x[start:stop], constant)

        def backward_part(thread, threads, sync, scratch, dx, dy, y, constant):
            start, stop = partition(y.size, _BLOCK, thread, threads), partition(y.size, _BLOCK, thread + 1, threads)
            backward(dx[start:stop], dy[start:stop], y[start:stop], constant)

        self._forward, self._backward = forward, backward
        self._forward_part, self._backward_part = (jit(_named(part, value)) for part in (forward_part, backward_part))
        self._forward_here = array_kernel(2, types.float64)(_named(forward_here, value))
        self._backward_here = array_kernel(3, types.float64)(_named(backward_here, value))
        self.forward_entry = for_dtypes(elements(1, 1, 1))(_named(forward_entry, value))
        self.backward_entry = for_dtypes(elements(1, 2, 1))(_named(backward_entry, value))
        self.forward_op, self.backward_op = op_kernel(_named(forward_op, value)), op_kernel(_named(backward_op, value))

    def forward(self, y: np.ndarray, x: np.ndarray, constant: float = 0.0) -> None:
        """Overwrite y, C-contiguous, with the function of x, of any layout; y may be x. Threads share large arrays."""
        if y.size > MANY:
            run(self._forward_part, flat(y), flat(plain(x)), float(constant))
        else:
            self._forward(flat(y), flat(plain(x)), float(constant))
        make_ready(self.forward_entry, y.dtype)

    def backward(self, dx: np.ndarray, dy: np.ndarray, y: np.ndarray, constant: float = 0.0) -> None:
        """Overwrite dx, C-contiguous, with the input's gradient, from arrays of any layout; dx may be dy.

        Threads share large arrays.
        """
        if y.size > MANY:
            run(self._backward_part, flat(dx), flat(plain(dy)), flat(plain(y)), float(constant))
        else:
            self._backward(flat(dx), flat(plain(dy)), flat(plain(y)), float(constant))
        make_ready(self.backward_entry, y.dtype)

    def compiled_forward(self, function: Callable) -> Callable:
        """Decorator: in compiled code, a call of the function is a call of `forward`."""
        return _calls(function, self._forward_here)

    def compiled_backward(self, function: Callable) -> Callable:
        """Decorator: in compiled code, a call of the function is a call of `backward`."""
        return _calls(function, self._backward_here)


def _calls(function: Callable, kernel: AddressedKernel) -> Callable:
    """A call of a function of arrays, and of a slope where it has one, is one of the kernel."""
    *arrays, last = inspect.signature(function).parameters
    if last == "slope":
        in_compiled_code(function, kernel, ":* ".join(arrays) + ":* slope")
    else:
        in_compiled_code(function, kernel, ":* ".join([*arrays, last]) + ":*", 0.0)
    return function


def _named(function: Callable, value: Any) -> Callable:
    """The function under a name of the layer's, by which its compiled code is kept and found."""
    function.__module__ = value.py_func.__module__
    function.__qualname__ = function.__name__
    return function
