"""The fully connected layer's products beside NumPy's and the naive twin's."""
import numpy as np
import pytest
from fastnet.kernels import full, naive

from bench.harness.race import sizes

SHAPES = sizes((128, 3072, 500), (128, 500, 5), tiny=(3, 7, 5))  # n, n_i, n_o: the course's two layers
LAYOUTS = sizes("C", "F", tiny="F")  # of what is read
CASES = [(*shape, "C") for shape in SHAPES] + [(*SHAPES[0], layout) for layout in LAYOUTS if layout != "C"]


@pytest.fixture(params=CASES, ids=lambda case: "x".join(map(str, case[:3])) + f"-{case[3]}")
def data(request, dtype, rng):
    n, n_i, n_o, layout = request.param
    shapes = {"x": (n, n_i), "W": (n_o, n_i), "b": (1, n_o), "dy": (n, n_o)}
    arrays = {name: np.array(rng.standard_normal(shape), dtype, order=layout) for name, shape in shapes.items()}
    yield arrays, {"shape": f"{n}x{n_o}x{n_i}", "layout": layout, "dtype": dtype, "flops": 2 * n * n_i * n_o}


def compete(race, kernel, out_shape, arguments, with_numpy, facts):
    """Ours, NumPy in the same dtype, the naive twin in float64; each into an array of its own."""
    dtype = facts["dtype"]
    ours, theirs, twin = (np.empty(out_shape, dtype) for _ in range(3))
    expected = np.empty(out_shape)
    getattr(naive, kernel)(expected, *arguments)

    def fastnet():
        getattr(full, kernel)(ours, *arguments)
        return ours

    def numpy():
        with_numpy(theirs)
        return theirs

    def naive_twin():
        getattr(naive, kernel)(twin, *arguments)
        return twin

    race({"fastnet": fastnet, "numpy": numpy, "naive": naive_twin}, expected=expected, kernel=kernel,
         tolerance=100 * np.finfo(dtype).eps, nbytes=ours.nbytes + sum(a.nbytes for a in arguments), **facts)


def test_forward(race, data):
    a, facts = data

    def with_numpy(out):
        np.matmul(a["x"], a["W"].T, out=out)
        out += a["b"]

    compete(race, "full_forward", a["dy"].shape, (a["x"], a["W"], a["b"]), with_numpy, facts)


def test_backward_input(race, data):
    a, facts = data
    compete(race, "full_backward_input", a["x"].shape, (a["dy"], a["W"]),
            lambda out: np.matmul(a["dy"], a["W"], out=out), facts)


def test_backward_weights(race, data):
    a, facts = data
    compete(race, "full_backward_weights", a["W"].shape, (a["dy"], a["x"]),
            lambda out: np.matmul(a["dy"].T, a["x"], out=out), facts)


def test_backward_bias(race, data):
    a, facts = data
    compete(race, "full_backward_bias", a["b"].shape, (a["dy"],),
            lambda out: np.sum(a["dy"], axis=0, keepdims=True, out=out), {**facts, "flops": a["dy"].size})
