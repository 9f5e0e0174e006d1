"""X X.T of 8-bit images, beside sums of whole numbers."""
import os
import subprocess
import sys

import numpy as np
import pytest
from fastnet.kernels.gemm import pixel_gram, syrk
from fastnet.kernels.gemm.pixels import _MOST
from fastnet.kernels.runtime import pool
from numpy_loop import assert_same_training, network, numpy_fit
from other_cpus import innermost

from fastnet.training.first import gram_matrix

FORMULAS = {  # of x, and (p, o, q)
    "u": (lambda u: u, (1, 0, 1)),
    "u / 255": (lambda u: u / 255, (1, 0, 255)),
    "u / 255 - 0.5": (lambda u: u / 255 - 0.5, (2, -255, 510)),
    "u / 127.5 - 1": (lambda u: u / 127.5 - 1, (2, -255, 255)),
}


@pytest.fixture(autouse=True)
def threads_put_back():
    before = pool.get_num_threads()
    yield
    pool.set_num_threads(before)


def pixels(n, k, seed=0):
    u = np.random.default_rng(seed).integers(0, 256, (n, k))
    u[:, :k // 3] = 255 * (u[:, :k // 3] > 9)  # flat areas, at both ends: the largest sums
    return u


def exact(u, formula, dtype):
    """Sums of Python's numbers would be slow: these are below 2^53."""
    p, o, q = FORMULAS[formula][1]
    v = p * u + o
    return ((v @ v.T) / float(q * q)).astype(dtype)


def images(u, formula, dtype):
    return FORMULAS[formula][0](u).astype(dtype)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (2, 3), (7, 4), (63, 5), (64, 65), (65, 784), (193, 30), (450, 70), (9, 16384), (3, _MOST),
                                      (20, 3072), (130, 1025)])
@pytest.mark.parametrize("formula", FORMULAS)
def test_every_element_is_rounded_correctly(n, k, formula, dtype):
    u = pixels(n, k)
    base = np.full((n, n + 3), -7, dtype)
    assert pixel_gram(base[:, :n], images(u, formula, dtype))
    assert np.array_equal(base[:, :n], exact(u, formula, dtype))
    assert np.all(base[:, n:] == -7)


@pytest.mark.parametrize("formula", FORMULAS)
def test_scaled_in_float32(formula):
    """Some do the arithmetic in float32, whose last bits are others."""
    u = pixels(40, 60)
    x = FORMULAS[formula][0](u.astype(np.float32))
    assert x.dtype == np.float32
    g = np.empty((40, 40), np.float32)
    assert pixel_gram(g, x)
    assert np.array_equal(g, exact(u, formula, np.float32))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 0.1234567, 1e30, -0.61])
@pytest.mark.parametrize("place", [(0, 0), (11, 17), (39, 58)])
def test_one_other_number_is_enough(wrong, place, dtype):
    for formula in FORMULAS:
        x = images(pixels(40, 59), formula, dtype)
        x[place] = wrong
        g = np.full((40, 40), -7, dtype)
        assert not pixel_gram(g, x)
        assert np.all(g == -7)


def test_one_bit_is_enough(dtype):
    x = images(pixels(40, 59), "u / 255 - 0.5", dtype)
    x[20, 21] = np.nextafter(x[20, 21], dtype.type(1))
    assert not pixel_gram(np.empty((40, 40), dtype), x)


def test_formulas_are_not_mixed(dtype):
    u = pixels(40, 59)
    x = images(u, "u", dtype)
    x[30] = images(u[30], "u / 255", dtype)
    assert not pixel_gram(np.empty((40, 40), dtype), x)


@pytest.mark.parametrize(("n", "k"), [(0, 5), (5, 0), (3, _MOST + 1)])
def test_sizes_that_are_left_to_others(n, k, dtype):
    assert not pixel_gram(np.empty((n, n), dtype), np.zeros((n, k), dtype))


def test_only_black_and_one_pixel_late(dtype):
    """Zeros are of several formulas; the first that fits all of it is taken."""
    u = np.zeros((50, 20), int)
    u[49, 19] = 3
    for formula in ("u", "u / 255"):
        g = np.empty((50, 50), dtype)
        assert pixel_gram(g, images(u, formula, dtype))
        assert np.array_equal(g, exact(u, formula, dtype))


@pytest.mark.parametrize("layout", ["columns", "reversed", "apart", "odd bytes", "read-only"])
def test_layouts(layout, dtype):
    u = pixels(30, 40)
    x = images(u, "u / 255 - 0.5", dtype)
    if layout == "columns":
        x = np.asfortranarray(x)
    elif layout == "reversed":
        x, u = x[::-1, ::-1], u[::-1, ::-1]
    elif layout == "apart":
        x = np.repeat(np.repeat(x, 2, 0), 3, 1)[::2, ::3]
    elif layout == "odd bytes":
        raw = np.empty(x.nbytes + 1, np.uint8)[1:].view(np.uint8)
        moved = np.ndarray(x.shape, dtype, raw)
        moved[...], x = x, moved
    else:
        x.flags.writeable = False
    g = np.empty((30, 30), dtype)
    assert pixel_gram(g, x)
    assert np.array_equal(g, exact(u, "u / 255 - 0.5", dtype))


def test_same_bits_for_any_number_of_threads(dtype):
    u = pixels(300, 90)
    for count in (1, 2, 3, 5):
        pool.set_num_threads(count)
        assert np.array_equal(gram_matrix(images(u, "u / 255", dtype)), exact(u, "u / 255", dtype))


PROGRAM = """
import hashlib, sys
import numpy as np
from fastnet.kernels.gemm import pixels
u = np.random.default_rng(0).integers(0, 256, (70, 3000))
g = np.empty((70, 70), np.float32)
assert pixels.pixel_gram(g, (u / 255 - 0.5).astype(np.float32))
print(pixels.BYTE_PRODUCTS is None, hashlib.sha256(g.tobytes()).hexdigest())
"""


@pytest.mark.parametrize("cpu", ["haswell", "generic"])
def test_same_bits_without_the_instruction(cpu):
    found = []
    for settings in ({}, {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""}):
        done = subprocess.run([sys.executable, "-c", PROGRAM], env=os.environ | settings, capture_output=True, text=True,
                              check=True)
        found.append(done.stdout.split())
    assert found[1][0] == "True"
    assert found[0][1] == found[1][1]


@pytest.mark.parametrize(("triple", "cpu", "features", "instruction", "count"), [
    ("x86_64-linux-gnu", "alderlake", "+avx2,+fma,+avxvnni", r"vpdpbusd\b.*ymm", 12),
    ("x86_64-linux-gnu", "icelake-server", "", r"vpdpbusd\b.*zmm", 24),
    ("aarch64-linux-gnu", "neoverse-n1", "+aes,+crc,+fp-armv8,+lse,+neon,+sha2", r"sdot\b", 24),  # as Numba lists them
    ("arm64-apple-darwin", "apple-m1", "", r"sdot\b", 24),
    ("aarch64-linux-gnu", "cortex-a72", "+fp-armv8,+neon", r"smull", 48),
])
def test_the_cpu_s_products_are_used(triple, cpu, features, instruction, count):
    """The tile is compiled for CPUs that may differ from this one, and not run."""
    _, found = innermost(triple, cpu, features, instruction, "gemm.pixels", "code_tile", *["int64"] * 7)
    assert found == count


@pytest.mark.parametrize("engine", ["gram", "windows"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_training_is_the_loop_by_hand(engine, shuffle, dtype):
    rng = np.random.default_rng(3)
    u, labels = pixels(70, 90), rng.integers(0, 4, 70)
    x, t = images(u, "u / 255 - 0.5", dtype), np.eye(4, dtype=dtype)[labels]
    model = network([90, 20, 4], dtype)
    order = np.random.default_rng(1)
    orders = [order.permutation(70) for _ in range(3)] if shuffle else None
    expected = numpy_fit(model, x, t, 3, 0.1, 16, orders=orders)
    losses = model.fit(x, t, 3, 0.1, 16, engine=engine, shuffle=shuffle, rng=1)
    assert_same_training(model, losses, expected.parameters, expected.losses, {4: 1e-4, 8: 1e-11}[dtype.itemsize])


def test_exact_is_nearer_than_a_sum_of_products():
    u = pixels(60, 3072)
    x, exactly = images(u, "u / 255 - 0.5", np.float32), exact(u, "u / 255 - 0.5", np.float64)
    g, plain = np.empty((60, 60), np.float32), np.empty((60, 60), np.float32)
    assert pixel_gram(g, x)
    syrk(plain, x)
    assert np.abs(g - exactly).max() < np.abs(plain - exactly).max() / 4
