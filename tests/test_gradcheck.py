"""gradcheck: finds wrong gradients, names the worst element, and leaves its subject alone."""
import types

import numpy as np
import pytest
from helpers import one_hot_rows, refuses

from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer, gradcheck


class Wrong(FullLayer):
    """One element of one gradient is wrong."""

    def backward(self, y_grad):
        dx = super().backward(y_grad)
        self.W_grad[1, 2] += 0.01
        return dx


def test_names_the_worst_element(rng):
    report = gradcheck(Wrong(4, 3, rng=0), rng.standard_normal((5, 4)))
    assert not report
    assert not report.ok
    assert (report.worst.name, report.worst.index) == ("W", (1, 2))
    assert report.worst.analytic - report.worst.numeric == pytest.approx(0.01, abs=1e-7)
    assert [a.ok for a in report.arrays] == [True, False, True]
    lines = str(report).splitlines()
    assert lines[0] == "gradients differ, most at W"
    assert "W: WRONG, 12 of 12 elements; worst at W[1, 2]: backward gives" in lines[2]
    assert repr(report) == str(report)


def test_in_a_model_it_names_the_layer(rng):
    model = Sequential([FullLayer(4, 4, rng=0), ReluLayer(), Wrong(4, 3, rng=1), SoftMaxLayer()], CrossEntropyLayer())
    report = gradcheck(model, rng.standard_normal((5, 4)), one_hot_rows(rng, 5, 3))
    assert (report.worst.name, report.worst.index) == ("layers[2].W", (1, 2))
    assert str(gradcheck(FullLayer(4, 3), np.ones((2, 4)))).startswith("gradients agree\n  x: ok, 8 of 8 elements; worst")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_leaves_its_subject_alone(dtype, rng):
    layer, x = FullLayer(4, 3, dtype=dtype), rng.standard_normal((5, 4)).astype(dtype)
    before, state = dict(vars(layer)), np.random.get_state()[1].copy()
    assert gradcheck(layer, x)  # in float64, whatever the layer's own type: float32 would be too coarse
    assert all(vars(layer)[name] is value for name, value in before.items())
    assert np.array_equal(np.random.get_state()[1], state)


def test_large_arrays_are_sampled(rng):
    report = gradcheck(FullLayer(40, 30), rng.standard_normal((2, 40)), max_elements=25)
    assert [(a.checked, a.size) for a in report.arrays] == [(25, 80), (25, 1200), (25, 30)]
    assert "W: ok, 25 of 1200 elements" in str(report)


def test_corners_are_left_out():
    report = gradcheck(ReluLayer(), [[0, 1, -1]])
    assert report
    assert report.arrays[0].kinks == 1
    assert "2 of 3 elements, 1 at a corner left out" in str(report)
    assert "nothing to check, 1 of 1 elements at a corner" in str(gradcheck(ReluLayer(), [0.0]))


class Dropout:
    """Draws anew in every call, from NumPy's global state or a generator of its own."""

    def __init__(self, rng=None):
        self.rng = rng

    def forward(self, x):
        self.mask = (self.rng or np.random).random(x.shape)
        return x * (self.mask > 0.5)

    def backward(self, y_grad):
        return y_grad * (self.mask > 0.5)


def test_random_layers():
    for layer in (Dropout(), Dropout(np.random.default_rng(0))):
        assert gradcheck(layer, np.ones((3, 4)))


class Forgetful(FullLayer):
    def backward(self, y_grad):
        super().backward(y_grad)


class Flat(FullLayer):
    def backward(self, y_grad):
        dx = super().backward(y_grad)
        self.__dict__["b_grad"] = self.b_grad.ravel()
        return dx


class Lost(FullLayer):
    def backward(self, y_grad):
        dx = super().backward(y_grad)
        self.b_grad[0, 1] = np.nan
        return dx


def test_gradients_that_are_none_misshapen_or_nan(rng):
    x = rng.standard_normal((5, 4))
    for layer, match in ((Forgetful(4, 3), r"gradient of x must be an array of its shape \(5, 4\), got None. Let backward"),
                         (Flat(4, 3), r"gradient of b must be an array of its shape \(1, 3\), got ndarray of shape \(3,\)")):
        with refuses(ValueError, match, layer):
            gradcheck(layer, x)
    report = gradcheck(Lost(4, 3), x)
    assert not report
    assert (report.worst.name, report.worst.index) == ("b", (0, 1))


def test_mistakes(rng):
    model = Sequential([FullLayer(4, 3), SoftMaxLayer()], CrossEntropyLayer())
    with refuses(TypeError, r"a model needs a target: gradcheck\(model, x, target\)", model):
        gradcheck(model, np.ones((2, 4)))
    with refuses(TypeError, "x must hold real numbers", model):
        gradcheck(model.layers[0], [["a"]])
    with refuses(ValueError, "max_elements must be at least 1", model):
        gradcheck(model.layers[0], np.ones((2, 4)), max_elements=0)
    with refuses(TypeError, r"forward of the subject, CrossEntropyLayer\(\), takes a target too: gradcheck\(loss, x, target"):
        gradcheck(CrossEntropyLayer(), np.ones((2, 4)))
    with refuses(TypeError, r"forward of the subject, FullLayer\(4, 3\), takes no target: gradcheck\(layer, x\)"):
        gradcheck(model.layers[0], np.ones((2, 4)), np.ones((2, 3)))
    with refuses(TypeError, "the subject is .*which has no method backward"):
        gradcheck(types.SimpleNamespace(forward=abs), np.ones((2, 4)))
    with refuses(TypeError, "the subject is the class FullLayer, not a layer"):
        gradcheck(FullLayer, np.ones((2, 4)))


@pytest.mark.parametrize(("options", "error", "match"), [
    ({"atol": -1}, ValueError, "atol must be finite and not negative, got -1"),
    ({"rtol": np.nan}, ValueError, "rtol must be finite and not negative, got nan"),
    ({"atol": np.inf}, ValueError, "atol must be finite"),
    ({"atol": 0, "rtol": 0}, ValueError, "atol and rtol are both 0"),
    ({"step": 0}, ValueError, "step must be finite and above 0, got 0"),
    ({"step": -1e-5}, ValueError, "step must be finite and above 0"),
    ({"step": "1e-5"}, TypeError, "step must be a number, got '1e-5'"),
    ({"seed": -1}, ValueError, "a seed must not be negative, got -1"),
    ({"seed": "x"}, TypeError, "a seed must be a whole number, got 'x'"),
])
def test_no_option_lets_a_wrong_layer_pass(options, error, match):
    layer = Wrong(4, 3, rng=0)
    with refuses(error, f"gradcheck: {match}", layer):
        gradcheck(layer, np.ones((2, 4)), **options)
    assert not gradcheck(layer, np.ones((2, 4)))
