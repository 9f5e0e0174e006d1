"""The gradient of the mean squared error."""
import numpy as np
import pytest
from fastnet.kernels.mean_squared_error import mean_squared_error_backward

from bench.harness.elementwise import CASES, compete, laid_out, name_of


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_backward(race, rng, dtype, case):
    shape, layout = case
    x, t = (laid_out(rng.standard_normal(shape).astype(dtype), layout) for _ in range(2))
    scale = x.dtype.type(2 / x.size)
    compete(race, mean_squared_error_backward, (x, t), lambda dx: np.multiply(x - t, scale, out=dx), flops=2 * x.size,
            layout=layout)
