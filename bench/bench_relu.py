"""ReLU and its mask."""
import numpy as np
import pytest
from fastnet.kernels.relu import relu_backward, relu_forward

from bench.harness.elementwise import CASES, compete, laid_out, name_of


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_forward(race, rng, dtype, case):
    shape, layout = case
    x = laid_out(rng.standard_normal(shape).astype(dtype), layout)
    compete(race, relu_forward, (x,), lambda y: np.maximum(x, 0, out=y), flops=x.size, layout=layout)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_backward(race, rng, dtype, case):
    shape, layout = case
    dy, y = (laid_out(rng.standard_normal(shape).astype(dtype), layout) for _ in range(2))
    compete(race, relu_backward, (dy, y), lambda dx: np.multiply(dy, y > 0, out=dx), flops=dy.size, layout=layout)
