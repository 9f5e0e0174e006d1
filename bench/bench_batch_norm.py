"""Batch normalisation and its gradient."""
import numpy as np
import pytest
from fastnet.kernels import naive
from fastnet.kernels.batch_norm import batch_norm_backward, batch_norm_forward

from bench.harness.race import sizes

SHAPES = sizes((128, 500), (128, 16, 32, 32), tiny=(3, 5))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("way", ["forward", "backward"])
def test_batch_norm(race, rng, dtype, shape, way):
    x, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    gamma, beta = (rng.standard_normal((1, shape[1])).astype(dtype) for _ in range(2))
    mean, var, inv, dgamma, dbeta = (np.empty((1, shape[1]), dtype) for _ in range(5))
    out, expected, axes = np.empty(shape, dtype), np.empty(shape), (0, *range(2, len(shape)))
    naive.batch_norm_forward(expected, mean, var, inv, x, gamma, beta, 1e-5)
    if way == "backward":
        naive.batch_norm_backward(expected, dgamma, dbeta, dy, x, gamma, mean, inv)

    def fastnet():
        if way == "forward":
            batch_norm_forward(out, mean, var, inv, x, gamma, beta, 1e-5)
        else:
            batch_norm_backward(out, dgamma, dbeta, dy, x, gamma, mean, inv)
        return out

    def numpy():
        m, w, g, b = (a.reshape(1, -1, *[1] * (len(shape) - 2)) for a in (mean, inv, gamma, beta))
        if way == "forward":
            m = x.mean(axis=axes, keepdims=True)
            return (x - m) / np.sqrt(x.var(axis=axes, keepdims=True) + dtype.type(1e-5)) * g + b
        z = (x - m) * w
        return g * w * (dy - dy.mean(axis=axes, keepdims=True) - z * (dy * z).mean(axis=axes, keepdims=True))

    race({"fastnet": fastnet, "numpy": numpy}, expected=expected, kernel=f"batch_norm_{way}",
         tolerance=1000 * float(np.finfo(dtype).eps), flops=8 * x.size, nbytes=3 * x.nbytes, dtype=dtype,
         shape="x".join(map(str, shape)), layout="C")
