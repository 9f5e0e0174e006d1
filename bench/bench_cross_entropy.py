"""Cross-entropy of one-hot targets, and its gradient."""
import numpy as np
import pytest
from fastnet.kernels import naive
from fastnet.kernels.cross_entropy import cross_entropy_backward, cross_entropy_forward

from bench.harness.elementwise import compete, laid_out, name_of
from bench.harness.race import sizes

CASES = [(shape, layout) for shape in sizes((128, 5), (2500, 100), tiny=(3, 4)) for layout in sizes("C", "F", tiny="F")]


def targets(rng, dtype, case):
    (n, classes), layout = case
    p = np.exp(rng.standard_normal((n, classes)))
    t = np.eye(classes)[rng.integers(0, classes, n)]
    return tuple(laid_out(a.astype(dtype), layout) for a in (p / p.sum(axis=1, keepdims=True), t))


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_forward(race, rng, dtype, case):
    p, t = targets(rng, dtype, case)
    race({"fastnet": lambda: cross_entropy_forward(p, t), "numpy": lambda: -np.sum(t * np.log(p)) / len(p),
          "naive": lambda: naive.cross_entropy_forward(p, t)},
         expected=naive.cross_entropy_forward(p, t), tolerance=100 * np.finfo(dtype).eps,
         kernel="cross_entropy_forward", shape="x".join(map(str, p.shape)),
         layout=case[1], dtype=dtype, flops=2 * p.size, nbytes=2 * p.nbytes)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_backward(race, rng, dtype, case):
    p, t = targets(rng, dtype, case)

    def with_numpy(dp):
        np.divide(t, p, out=dp)
        dp /= -len(p)

    compete(race, cross_entropy_backward, (p, t), with_numpy, flops=2 * p.size, layout=case[1])
