"""Leaky ReLU and its derivative."""
import numpy as np
import pytest
from fastnet.kernels.leaky_relu import leaky_relu_backward, leaky_relu_forward

from bench.harness.elementwise import CASES, compete, laid_out, name_of

SLOPE = 0.1


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_forward(race, rng, dtype, case):
    shape, layout = case
    x = laid_out(rng.standard_normal(shape).astype(dtype), layout)
    slope = x.dtype.type(SLOPE)
    compete(race, leaky_relu_forward, (x, SLOPE), lambda y: np.maximum(x, slope * x, out=y), flops=x.size, layout=layout)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_backward(race, rng, dtype, case):
    shape, layout = case
    dy, y = (laid_out(rng.standard_normal(shape).astype(dtype), layout) for _ in range(2))
    slope = dy.dtype.type(SLOPE)
    compete(race, leaky_relu_backward, (dy, y, SLOPE),
            lambda dx: np.copyto(dx, np.where(y > 0, dy, slope * dy)), flops=dy.size, layout=layout)
