"""Each pass of a layer: tried with what is given, then checked, converted and tried again."""
import numpy as np
import pytest
from helpers import laid_out

from fastnet import (
    AveragePoolLayer,
    BatchNormLayer,
    ConvLayer,
    CrossEntropyLayer,
    DropoutLayer,
    FlattenLayer,
    FullLayer,
    LeakyReluLayer,
    MaxPoolLayer,
    MeanSquaredErrorLayer,
    ReluLayer,
    SigmoidLayer,
    SoftMaxLayer,
    TanhLayer,
)
from fastnet.base.buffers import FAST
from fastnet.base.passes import Checked, Refused, run_pass

LAYERS = {
    "full": (lambda k, dtype: k(FullLayer)(7, 5, dtype, 0), (6, 7)),
    "relu": (lambda k, dtype: k(ReluLayer)(), (6, 7)),
    "relu, many": (lambda k, dtype: k(ReluLayer)(), (6, 150)),
    "leaky relu": (lambda k, dtype: k(LeakyReluLayer)(0.1), (6, 7)),
    "tanh of images": (lambda k, dtype: k(TanhLayer)(), (2, 3, 4, 5)),
    "sigmoid": (lambda k, dtype: k(SigmoidLayer)(), (6, 7)),
    "softmax": (lambda k, dtype: k(SoftMaxLayer)(), (6, 7)),
    "batch norm": (lambda k, dtype: k(BatchNormLayer)(7, dtype=dtype), (6, 7)),
    "dropout": (lambda k, dtype: k(DropoutLayer)(0.5, 0), (6, 7)),
    "conv": (lambda k, dtype: k(ConvLayer)(3, 2, 3, dtype, 0), (2, 3, 4, 5)),
    "maxpool": (lambda k, dtype: k(MaxPoolLayer)(2), (2, 3, 4, 5)),
    "average pool": (lambda k, dtype: k(AveragePoolLayer)(2), (2, 3, 4, 5)),
    "flatten": (lambda k, dtype: k(FlattenLayer)(), (2, 3, 4, 5)),
}


def itself(klass):
    return klass


def watched(klass):
    """A subclass for which every pass makes its checks, since it hooks its attributes."""
    class Watched(klass):
        def __setattr__(self, name, value):
            super().__setattr__(name, value)

    assert klass in FAST and Watched not in FAST
    return Watched


LAYOUTS = ["C", "F", "strided", "reversed", "read-only", "unaligned"]


def arranged(a, layout):
    if layout != "unaligned":
        return laid_out(a, layout)
    view = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", LAYERS)
def test_with_and_without_checks_equal_bits(name, layout, dtype, rng):
    make, shape = LAYERS[name]
    plain, checked = make(itself, dtype), make(watched, dtype)
    for _ in range(2):  # the first call may compile
        x = arranged(rng.standard_normal(shape).astype(dtype), layout)
        y, right = plain.forward(x), checked.forward(x)
        dy = arranged(rng.standard_normal(y.shape).astype(dtype), layout)
        dx, dx_right = plain.backward(dy), checked.backward(dy)
        plain.update_param(0.5)
        checked.update_param(0.5)
        for a, b in ((y, right), (dx, dx_right)):
            assert a.dtype == b.dtype == dtype and a.strides == b.strides
            assert np.array_equal(a, b)
        assert vars(plain).keys() == vars(checked).keys()
        for key, value in vars(plain).items():
            assert np.array_equal(value, vars(checked)[key]) if isinstance(value, np.ndarray) else True


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("klass", [CrossEntropyLayer, MeanSquaredErrorLayer])
def test_losses_with_and_without_checks_equal_bits(klass, layout, dtype, rng):
    plain, checked = klass(), watched(klass)()
    for _ in range(2):
        x = arranged(rng.uniform(0.1, 1, (6, 7)).astype(dtype), layout)
        t = arranged(np.eye(7, dtype=dtype)[:6], layout)
        assert plain.forward(x, t) == checked.forward(x, t)
        assert np.array_equal(plain.backward(), checked.backward())
        assert np.array_equal(plain.backward(2.0), checked.backward(2))
        assert plain.x is checked.x is x and plain.t is checked.t is t


@pytest.mark.parametrize("slope", [1, np.float32(0.5), np.array(0.25), True])
def test_a_slope_of_any_kind(slope):
    layer = LeakyReluLayer()
    layer.slope = slope
    assert np.array_equal(layer.forward(np.array([[-2.0, 4.0]])), [[-2 * float(slope), 4]])
    assert np.array_equal(layer.backward(np.array([[1.0, 1.0]])), [[float(slope), 1]])


def test_a_layer_too_wide_for_its_compiled_call(rng):
    layer, x = FullLayer(2, 9000, rng=0), rng.standard_normal((5, 2))
    for _ in range(2):
        np.testing.assert_allclose(layer.forward(x), x @ layer.W.T, rtol=1e-12)
        layer.backward(np.ones((5, 9000)))
        np.testing.assert_allclose(layer.W_grad, np.tile(x.sum(0), (9000, 1)), rtol=1e-12)


def test_an_error_changes_nothing(rng):
    layer, x = FullLayer(3, 2, rng=0), rng.standard_normal((4, 3))
    layer.forward(x)
    layer.backward(np.ones((4, 2)))
    before = dict(vars(layer))
    for wrong in (lambda: layer.forward(np.ones((4, 5))), lambda: layer.backward(np.ones((3, 2))),
                  lambda: layer.update_param(-1.0), lambda: layer.update_param(float("nan"))):
        with pytest.raises(ValueError, match=r"^FullLayer\(3, 2\): "):
            wrong()
    assert vars(layer).keys() == before.keys() and all(vars(layer)[name] is before[name] for name in before)


def test_a_pass_is_computed_again_only_if_it_was_refused():
    layer, seen = ReluLayer(), []

    def compute(layer, given, held):
        seen.append((given, type(held)))
        if given < 0:
            raise Refused
        held["y"] = np.full((1, 1), float(given))
        return given

    def check(layer, given):
        return abs(given), Checked(layer, slope=1)

    assert run_pass(layer, compute, check, 1) == 1 and layer.y == 1
    assert run_pass(layer, compute, check, -2) == 2 and layer.y == 2
    assert run_pass(watched(ReluLayer)(), compute, check, 3) == 3
    assert seen == [(1, dict), (-2, dict), (2, Checked), (3, Checked)]
