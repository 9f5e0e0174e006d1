"""The step of gradient descent."""
import numpy as np
import pytest
from fastnet.kernels.sgd import sgd_update

from bench.harness.elementwise import CASES, compete, laid_out, name_of
from bench.harness.race import sizes

WEIGHTS = [(shape, "C") for shape in sizes((500, 3072), tiny=(5, 7))]


@pytest.mark.parametrize("case", WEIGHTS + CASES[1:], ids=name_of)
def test_update(race, rng, dtype, case):
    shape, layout = case
    W, dW = (laid_out(rng.standard_normal(shape).astype(dtype), layout) for _ in range(2))
    lr = dtype.type(0.1)

    def with_numpy(out):
        np.multiply(dW, lr, out=out)
        np.subtract(W, out, out=out)

    compete(race, sgd_update, (W, dW, lr), with_numpy, flops=2 * W.size, layout=layout)
