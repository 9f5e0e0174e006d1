"""Public kernels called from compiled code of a user's own: the same names, arguments and results as in Python."""
import runpy
from pathlib import Path

import numpy as np
import pytest
from fastnet.kernels import cross_entropy, full, gemm, relu, sgd, softmax
from helpers import filled, laid_out
from numba import njit

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "one_compiled_function.py"


@njit
def network(outputs, x, t, W, b, lr):
    """All kernels of a layer of softmax units, forward, backward and step."""
    z, y, p, dp, dz, dr, dx, dW, db, new_W = outputs
    full.full_forward(z, x, W, b)
    relu.relu_forward(y, z)
    softmax.softmax_forward(p, y)
    loss = cross_entropy.cross_entropy_forward(p, t)
    cross_entropy.cross_entropy_backward(dp, p, t)
    softmax.softmax_backward(dz, dp, p)
    relu.relu_backward(dr, dz, y)
    full.full_backward_input(dx, dr, W)
    full.full_backward_weights(dW, dr, x)
    full.full_backward_bias(db, dr)
    sgd.sgd_update(new_W, W, dW, lr)
    return loss


@njit
def products(c, d, e, f, s, a, b, bias, row):
    gemm.matmul(c, a, b)
    gemm.matmul(d, a, b, alpha=0.5, beta=2.0, bias=bias, relu=True)
    gemm.matmul(e, a, b, bias=row)
    gemm.matmul(f, a, b, 2.0)
    gemm.syrk(s, a)


def strided(shape, dtype):
    return np.full((2 * shape[0], 2 * shape[1]), np.nan, dtype)[::2, ::2]


@pytest.mark.parametrize(("layout", "dtype"), [("C", np.float32), ("strided", np.float64)])
def test_a_step_of_a_network(layout, dtype, rng):
    n, n_i, n_o = 9, 21, 6
    shapes = [(n, n_i), (n, n_o), (n_o, n_i), (1, n_o)]
    x, t, W, b = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    t = np.eye(n_o, dtype=dtype)[np.arange(n) % n_o]
    inputs = [laid_out(a, layout) for a in (x, t, W, b)]
    forms = [(n, n_o)] * 6 + [(n, n_i), (n_o, n_i), (1, n_o), (n_o, n_i)]
    make = {"C": filled, "F": lambda s, d: filled(s[::-1], d).T, "strided": strided}[layout]
    outputs, expected = tuple(make(form, dtype) for form in forms), tuple(filled(form, dtype) for form in forms)
    loss = network(outputs, *inputs, 0.3)
    assert loss == pytest.approx(network.py_func(expected, x, t, W, b, 0.3), rel=1e-5)
    for a, right in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(a, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("layout", "out", "dtype"), [("C", "C", np.float64), ("reversed", "strided", np.float32)])
def test_products(layout, out, dtype, rng):
    make = {"C": lambda s: np.ones(s, dtype), "strided": lambda s: np.ones((2 * s[0], 2 * s[1]), dtype)[::2, ::2]}[out]
    for m, n, k in ((1, 1, 1), (5, 3, 2), (70, 133, 300), (3, 50, 0)):
        a, b, bias = (laid_out(rng.standard_normal(s).astype(dtype), layout) for s in ((m, k), (k, n), (1, n)))
        forms = [(m, n)] * 4 + [(m, m)]
        results, expected = [make(form) for form in forms], [np.ones(form, dtype) for form in forms]
        products(*results, a, b, bias, bias[0])
        products.py_func(*expected, a, b, bias, bias[0])
        for got, right in zip(results, expected, strict=True):
            np.testing.assert_allclose(got, right, rtol=1e-4, atol=1e-4)
        assert np.array_equal(results[0], expected[0])


def test_arrays_of_any_number_of_dimensions(rng):
    @njit
    def both(y, dx, x):
        relu.relu_forward(y, x)
        relu.relu_backward(dx, x, y)

    x = rng.standard_normal((2, 3, 4, 5))
    for given in (x, x.transpose(3, 2, 1, 0)):
        y, dx = np.empty_like(given), np.empty_like(given)
        both(y, dx, given)
        assert np.array_equal(y, np.maximum(given, 0))
        assert np.array_equal(np.abs(dx), np.where(given > 0, given, 0))


def test_the_example_trains():
    losses = runpy.run_path(str(EXAMPLE))["main"]()
    assert losses[-1] < 0.1 * losses[0]
