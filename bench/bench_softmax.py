"""Softmax of rows, and the product of a gradient with its Jacobian."""
import numpy as np
import pytest
from fastnet.kernels.softmax import softmax_backward, softmax_forward

from bench.harness.elementwise import CASES, compete, laid_out, name_of
from bench.harness.race import sizes

CLASSES = [(shape, "C") for shape in sizes((128, 5), (2500, 100), tiny=(3, 4))] + CASES[1:]


@pytest.mark.parametrize("case", CLASSES, ids=name_of)
def test_forward(race, rng, dtype, case):
    shape, layout = case
    x = laid_out(rng.standard_normal(shape).astype(dtype), layout)

    def with_numpy(y):
        np.subtract(x, x.max(axis=1, keepdims=True), out=y)
        np.exp(y, out=y)
        y /= y.sum(axis=1, keepdims=True)

    compete(race, softmax_forward, (x,), with_numpy, flops=5 * x.size, layout=layout)


@pytest.mark.parametrize("case", CLASSES, ids=name_of)
def test_backward(race, rng, dtype, case):
    shape, layout = case
    dy = laid_out(rng.standard_normal(shape).astype(dtype), layout)
    y = np.exp(rng.standard_normal(shape)).astype(dtype)
    y = laid_out(y / y.sum(axis=1, keepdims=True), layout)

    def with_numpy(dx):
        np.multiply(y, dy - (dy * y).sum(axis=1, keepdims=True), out=dx)

    compete(race, softmax_backward, (dy, y), with_numpy, flops=4 * y.size, layout=layout)
