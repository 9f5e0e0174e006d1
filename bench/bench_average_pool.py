"""Average pooling and its gradient."""
import numpy as np
import pytest
from fastnet.kernels import naive
from fastnet.kernels.average_pool import average_pool_backward, average_pool_forward

from bench.harness.race import sizes

SHAPES = sizes((128, 16, 32, 32), tiny=(2, 1, 4, 4))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("way", ["forward", "backward"])
def test_average_pool(race, rng, dtype, shape, way):
    n, c, r, k = shape
    pooled = n, c, r // 2, k // 2
    x, dy = rng.standard_normal(shape).astype(dtype), rng.standard_normal(pooled).astype(dtype)
    out = np.empty(pooled if way == "forward" else shape, dtype)
    expected = np.empty(out.shape)
    twin = getattr(naive, f"average_pool_{way}")
    given = x if way == "forward" else dy
    twin(expected, given, 2)

    def fastnet():
        (average_pool_forward if way == "forward" else average_pool_backward)(out, given, 2)
        return out

    def numpy():
        if way == "forward":
            return x.reshape(n, c, r // 2, 2, k // 2, 2).mean(axis=(3, 5))
        return np.repeat(np.repeat(dy / 4, 2, axis=2), 2, axis=3)

    race({"fastnet": fastnet, "numpy": numpy}, expected=expected, kernel=f"average_pool_{way}",
         tolerance=100 * float(np.finfo(dtype).eps), flops=x.size, nbytes=x.nbytes + dy.nbytes, dtype=dtype,
         shape="x".join(map(str, shape)), layout="C")
