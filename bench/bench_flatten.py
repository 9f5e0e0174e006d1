"""Images to rows: a copy, beside NumPy's."""
import numpy as np
import pytest
from fastnet.kernels.flatten import flatten_forward

from bench.harness.race import sizes


@pytest.mark.parametrize("shape", sizes((128, 32, 8, 8), tiny=(2, 3, 4, 4)), ids=str)
def test_forward(race, rng, dtype, shape):
    x = rng.standard_normal(shape).astype(dtype)
    ours = np.empty((len(x), x[0].size), dtype)

    def fastnet():
        flatten_forward(ours, x)
        return ours

    race({"fastnet": fastnet, "numpy": lambda: x.reshape(len(x), -1).copy()}, expected=x.reshape(len(x), -1),
         kernel="flatten_forward", tolerance=0, flops=x.size, nbytes=2 * x.nbytes, dtype=dtype, shape=str(shape), layout="C")
