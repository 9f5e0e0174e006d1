"""The logistic sigmoid and its derivative."""
import numpy as np
import pytest
from fastnet.kernels.sigmoid import sigmoid_backward, sigmoid_forward

from bench.harness.elementwise import CASES, compete, laid_out, name_of


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_forward(race, rng, dtype, case):
    shape, layout = case
    x = laid_out(rng.standard_normal(shape).astype(dtype), layout)
    compete(race, sigmoid_forward, (x,), lambda y: np.divide(1, 1 + np.exp(-x), out=y), flops=20 * x.size, layout=layout)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_backward(race, rng, dtype, case):
    shape, layout = case
    dy, y = (laid_out(rng.standard_normal(shape).astype(dtype), layout) for _ in range(2))
    compete(race, sigmoid_backward, (dy, y), lambda dx: np.multiply(dy, y * (1 - y), out=dx), flops=3 * dy.size,
            layout=layout)
