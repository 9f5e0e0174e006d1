"""Public kernels called from compiled code of a user's own: the same names, arguments and results as in Python."""
import runpy
from pathlib import Path

import numpy as np
import pytest
from fastnet.kernels import conv, cross_entropy, full, gemm, maxpool, relu, sgd, softmax
from helpers import filled, laid_out
from kernel_calls import KERNELS, SIGNATURES, operands, sizes_of
from numba import njit
from numba.core.errors import TypingError

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


def test_every_public_kernel_is_here():
    assert set(KERNELS) == set(SIGNATURES)


def strided_nd(a):
    """The numbers of an array, each axis of which has steps of two elements."""
    base = np.zeros([2 * side for side in a.shape], a.dtype)
    base[(slice(None, None, 2),) * a.ndim] = a
    return base[(slice(None, None, 2),) * a.ndim]


def caller_of(kernel, count):
    """A function compiled by Numba that calls a kernel with so many arguments."""
    if count == 1:
        return njit(lambda a: kernel(a))
    if count == 2:
        return njit(lambda a, b: kernel(a, b))
    if count == 3:
        return njit(lambda a, b, c: kernel(a, b, c))
    if count == 4:
        return njit(lambda a, b, c, d: kernel(a, b, c, d))
    if count == 6:
        return njit(lambda a, b, c, d, e, f: kernel(a, b, c, d, e, f))
    return njit(lambda a, b, c, d, e, f, g, h: kernel(a, b, c, d, e, f, g, h))


SEVERAL = {"n": 4, "i": 21, "o": 6, "c": 2, "t": 3, "r": 7, "k": 6, "h": 3}


@pytest.mark.parametrize("name", SIGNATURES)
def test_equal_bits_in_both_worlds(name, rng):
    """Also where one size is 0."""
    function, numbers = KERNELS[name], SIGNATURES[name].numbers
    compiled = None
    for sizes in (SEVERAL, *({**SEVERAL, letter: 0} for letter in sizes_of(name) if letter != "h")):
        outputs, inputs = operands(rng, name, sizes, np.float32)
        given, results = [strided_nd(a) for a in inputs], [strided_nd(a) for a in outputs]
        expected = [a.copy() for a in outputs]  # contiguous, as some kernels want it in Python
        compiled = compiled or caller_of(function, len(given) + len(results) + len(numbers))
        right, got = function(*expected, *given, *numbers), compiled(*results, *given, *numbers)
        if name == "pack":
            assert np.array_equal(got.data, right.data)
            right, got = right.shape, got.shape
        assert got == right or np.isnan([got, right]).all(), sizes
        for a, b in zip(results, expected, strict=True):
            assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), sizes


@njit
def bias_gradient(db, dy):
    conv.conv_backward_bias(db, dy)


def test_read_only_and_unaligned_arrays(rng):
    """Kernels that are compiled once for all callers take them, too: as they are, or a copy."""
    dy = rng.standard_normal((2, 3, 5, 4))
    conv.conv_backward_bias(expected := np.empty((1, 3)), dy)
    unaligned, result = (np.ndarray(a.shape, a.dtype, np.zeros(a.nbytes + 1, np.uint8), 1) for a in (dy, expected))
    unaligned[...] = dy
    dy.flags.writeable = False
    for given in (dy, unaligned, np.asfortranarray(dy)):
        result[...] = np.nan
        bias_gradient(result, given)
        assert np.array_equal(result, expected)


def test_arguments_that_cannot_be_taken(rng):
    @njit
    def all_at_once(y, x, locs, pooled, image):
        relu.relu_forward(x=x, y=y)
        maxpool.maxpool_forward(pooled, locs, image, size=(2, 2))

    y, x, image = np.empty((3, 4)), rng.standard_normal((3, 4)), rng.standard_normal((2, 1, 4, 6))
    locs, pooled = np.empty(image.shape, bool), np.empty((2, 1, 2, 3))
    all_at_once(y, x, locs, pooled, image)
    assert np.array_equal(y, np.maximum(x, 0))
    with pytest.raises(ValueError, match="relu_forward got arrays whose shapes do not fit each other; expected y and x of one shape"):
        all_at_once(y[:2], x, locs, pooled, image)
    for place, wrong in ((locs[:1], pooled), (locs, pooled[:, :, :1]), (locs[:, :, :3], pooled), (locs, pooled[1:])):
        with pytest.raises(ValueError, match=r"maxpool_forward got .* do not fit each other; expected y \(n, c, R, K\), x \(n, c, r, k\)"):
            all_at_once(y, x, place, wrong, image)
    with pytest.raises(TypingError, match=r"relu_forward takes arrays of one dtype, float32 or float64, got: array\(float64"):
        all_at_once(y, x.astype(np.float32), locs, pooled, image)
    with pytest.raises(TypingError, match=r"got array\(float64, 3d, C\) for an array of 4 dimensions"):
        all_at_once(y, x, locs, pooled[0], image)
    y.flags.writeable = False
    with pytest.raises(TypingError, match="relu_forward writes to an array that is read-only here"):
        all_at_once(y, x, locs, pooled, image)
    with pytest.raises(TypingError, match="relu_forward: missing a required argument"):
        njit(lambda a: relu.relu_forward(a))(x)


def test_a_copy_that_finds_no_memory_is_an_error(rng):
    """It must not leave the result unwritten without a word."""
    x = np.lib.stride_tricks.as_strided(rng.standard_normal(1), (1 << 40, 1 << 17), (0, 0))
    with pytest.raises(MemoryError, match="cross_entropy_forward had not enough memory"):
        njit(lambda p, t: cross_entropy.cross_entropy_forward(p, t))(x, x)


@pytest.mark.parametrize("n", [1, 3, 4])
def test_few_samples_have_equal_bits_too(n, dtype, rng):
    """One to three are computed without packing the weights."""
    n_i, n_o = 300, 70
    x, W, b, dy = (rng.standard_normal(shape).astype(dtype) for shape in ((n, n_i), (n_o, n_i), (1, n_o), (n, n_o)))
    forms = (n, n_o), (n, n_i), (n_o, n_i), (1, n_o)
    results, expected = ([np.empty(form, dtype) for form in forms] for _ in range(2))
    few_samples(*results, x, W, b, dy)
    few_samples.py_func(*expected, x, W, b, dy)
    for a, right in zip(results, expected, strict=True):
        assert np.array_equal(a, right)


@njit
def few_samples(y, dx, dW, db, x, W, b, dy):
    full.full_forward(y, x, W, b)
    full.full_backward(dx, dW, db, dy, x, W)


def test_packed_operands(rng):
    @njit
    def twice(c, d, a, packed, b, bias):
        gemm.matmul(c, a, packed, 2.0, 0.0, bias, True)
        gemm.matmul(d, a, gemm.pack(b), alpha=2.0, bias=bias, relu=True)

    a, b, bias = rng.standard_normal((5, 300)), rng.standard_normal((300, 21)), rng.standard_normal((1, 21))
    c, d, expected = np.empty((5, 21)), np.empty((2, 5, 42))[0, :, ::2], np.empty((5, 21))
    twice(c, d, a, gemm.pack(b), b, bias)
    gemm.matmul(expected, a, b, 2.0, 0.0, bias, True)
    assert np.array_equal(c, expected)
    assert np.array_equal(d, expected)


def test_the_example_trains():
    losses = runpy.run_path(str(EXAMPLE))["main"]()
    assert losses[-1] < 0.1 * losses[0]
