"""Dropout: masks beside NumPy's Philox, then the layer, its modes, and that all engines make the same masks."""
import copy
import pickle

import numpy as np
import pytest
from fastnet.kernels import dropout, naive
from helpers import filled, refuses

import fastnet
from fastnet import (
    CrossEntropyLayer,
    DropoutLayer,
    FullLayer,
    ReluLayer,
    Sequential,
    SoftMaxLayer,
    gradcheck,
    one_hot,
    sweep,
)

SHAPES = [(1, 1), (3, 8), (5, 13), (2, 3, 4, 5), (7,), (0, 4), (4, 0), (70, 600)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.9])
def test_masks_are_those_of_numpys_philox(shape, rate, dtype, rng):
    x = rng.standard_normal(shape).astype(dtype)
    y, mask, expected_y, expected = (filled(shape, dtype) for _ in range(4))
    dropout.dropout_forward(y, mask, x, rate, (1 << 62) + 5, 3)
    naive.dropout_forward(expected_y, expected, x, rate, (1 << 62) + 5, 3)
    assert np.array_equal(mask != 0, expected != 0)
    np.testing.assert_allclose(mask, expected, rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_allclose(y, expected_y, rtol=4 * np.finfo(dtype).eps)


def test_masks_do_not_depend_on_the_number_of_threads(rng):
    x = rng.standard_normal((64, 1024))
    masks = []
    for threads in (1, 2):
        before = fastnet.get_num_threads()
        fastnet.set_num_threads(threads)
        y, mask = filled(x.shape, float), filled(x.shape, float)
        dropout.dropout_forward(y, mask, x, 0.5, 1, 2)
        fastnet.set_num_threads(before)
        masks.append(mask)
    assert np.array_equal(*masks)


def test_the_rate_is_kept():
    mask = DropoutLayer(0.3, rng=0)
    mask.forward(np.ones((100, 1000)))
    assert abs(np.mean(mask.mask == 0) - 0.3) < 0.005  # 3 standard deviations are 0.0043
    assert mask.mask.mean() == pytest.approx(1, abs=0.01)


def test_layer(dtype, rng):
    layer = DropoutLayer(0.4, rng=3)
    x = rng.standard_normal((6, 9)).astype(dtype)
    y = layer.forward(x)
    assert y.dtype == dtype
    assert np.array_equal(y, x * layer.mask)
    dy = rng.standard_normal((6, 9)).astype(dtype)
    assert np.array_equal(layer.backward(dy), dy * layer.mask)
    first = layer.mask.copy()
    layer.forward(x)
    assert layer.calls == 2
    assert not np.array_equal(layer.mask, first)
    layer.calls = 0
    layer.forward(x)
    assert np.array_equal(layer.mask, first)
    layer.training = False
    assert np.array_equal(layer.forward(x), x)
    assert np.array_equal(layer.backward(dy), dy)
    assert layer.calls == 1


def test_seeds(rng):
    assert DropoutLayer(0.5, rng=4).seed == DropoutLayer(0.5, rng=4).seed == 4
    np.random.seed(1)
    one = DropoutLayer().seed
    np.random.seed(1)
    assert DropoutLayer().seed == one != DropoutLayer().seed
    generator = np.random.default_rng(0)
    assert DropoutLayer(rng=generator).seed != DropoutLayer(rng=generator).seed


def test_gradient_is_the_numerical_one(rng):
    assert gradcheck(DropoutLayer(0.3, rng=1), rng.standard_normal((5, 7)))


def test_mistakes():
    for rate in (1, -0.1):
        with refuses(ValueError, "rate must be at least 0 and below 1"):
            DropoutLayer(rate)
    layer = DropoutLayer(0.5)
    with refuses(RuntimeError, r"call forward\(\)", layer):
        layer.backward(np.ones((2, 2)))
    with refuses(TypeError, "calls must be a whole number", layer):
        layer.calls = 0.5
    with refuses(ValueError, r"calls must be below 2\*\*63", layer):
        layer.calls = 2**63
    with refuses(TypeError, "seed must be a whole number, got None"):  # NumPy's global state would decide
        DropoutLayer.from_settings(0.5, None, 0)


class Switch:
    """A user-defined layer that notes the modes it is called in."""

    seen: list = []  # of the class: what the instance holds is put back after a prediction  # noqa: RUF012

    def __init__(self):
        self.training = True

    def forward(self, x):
        self.seen.append(self.training)
        return x

    def backward(self, y_grad):
        return y_grad


def network(dtype=np.float64, extra=()):
    rng = np.random.default_rng(3)
    return Sequential((DropoutLayer(0.1, rng), FullLayer(9, 17, dtype, rng), ReluLayer(), DropoutLayer(0.4, rng), *extra,
                       FullLayer(17, 3, dtype, rng), SoftMaxLayer()), CrossEntropyLayer())


def data(dtype=np.float64):
    rng = np.random.default_rng(4)
    return rng.standard_normal((23, 9)).astype(dtype), one_hot(rng.integers(0, 3, 23), 3, dtype)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "shuffle": True, "rng": 1}, {"optimizer": "adam", "lr": 0.01}],
                         ids=lambda options: "-".join(options))
def test_engines_make_the_same_masks(options, dtype):
    x, t = data(dtype)
    relative = {4: 2e-5, 8: 1e-12}[dtype.itemsize]
    options = {"epochs": 3, "lr": 0.1, "batch_size": 5, "validation": (x[:7], t[:7]), **options}
    models = {engine: network(dtype) for engine in ("layers", "fused", "auto")}
    losses = {engine: model.fit(x, t, engine=engine, **options) for engine, model in models.items()}
    by_hand = network(dtype, extra=(Switch(),))
    losses["mixed"] = by_hand.fit(x, t, engine="mixed", **options)
    for engine, found in losses.items():
        np.testing.assert_allclose(found, losses["layers"], rtol=relative, err_msg=engine)
    for model in (models["fused"], by_hand):
        assert [layer.calls for layer in model.layers if isinstance(layer, DropoutLayer)] == [15, 15]
        np.testing.assert_allclose(model.history.val_losses, models["layers"].history.val_losses, rtol=relative)
    assert np.array_equal(models["fused"].layers[3].mask, models["layers"].layers[3].mask)  # of the last mini-batch


def test_a_second_fit_goes_on_with_new_masks():
    x, t = data()
    once, twice, other = network(), network(), network()
    whole = once.fit(x, t, 4, 0.1, 5)
    parts = np.concatenate([twice.fit(x, t, 2, 0.1, 5), twice.fit(x, t, 2, 0.1, 5, engine="layers")])
    np.testing.assert_allclose(parts, whole, rtol=1e-12)
    again = other.fit(x, t, 2, 0.0, 5)
    assert len(set(again)) == 2  # with a rate of 0, only the masks differ


def test_loops_by_hand():
    x, t = data()
    compiled, plain = network(), network()
    for first in range(0, 20, 5):
        rows = slice(first, first + 5)
        loss = compiled.train_on_batch(x[rows], t[rows], 0.1)
        assert loss == pytest.approx(plain.forward(x[rows], t[rows]), rel=1e-12)
        plain.backward()
        plain.update_param(0.1)
    assert compiled.layers[3].calls == plain.layers[3].calls == 4
    assert np.array_equal(compiled.layers[3].mask, plain.layers[3].mask)
    assert compiled.layers[3].calls == 4
    assert compiled.test_on_batch(x, t) == pytest.approx(plain.eval().forward(x, t), rel=1e-12)
    assert compiled.train_on_batch(x[:5], t[:5], 0.1) == pytest.approx(plain.train().forward(x[:5], t[:5]), rel=1e-12)


def test_modes_reach_user_defined_layers():
    x, t = data()
    switch = Switch()
    switch.seen.clear()
    model = network(extra=(switch,))
    model.fit(x, t, 1, 0.1, 23, validation=(x, t))
    assert switch.seen.count(False) == 1
    assert switch.seen[0] is True
    switch.seen.clear()
    model.predict(x)
    model.evaluate(x, t)
    model.train_on_batch(x, t, 0.1)
    model.forward(x)
    model.eval().forward(x)
    model.train().forward(x)
    assert switch.seen == [False, False, True, True, False, True]


def test_prediction_is_without_dropout_and_leaves_the_masks_alone():
    x, _ = data()
    model = network()
    probabilities = model.predict_proba(x)
    without = Sequential([layer for layer in model.layers if not isinstance(layer, DropoutLayer)], model.loss)
    assert np.array_equal(probabilities, without.predict_proba(x))
    assert model.layers[0].calls == 0
    model.eval()
    for same in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert not same.layers[0].training
        assert np.array_equal(same.forward(x), probabilities)
    assert model.train().layers[0].training


def test_sweeps_are_fits(tmp_path):
    x, t = data()

    def build(rng):
        return Sequential((FullLayer(9, 17, rng=rng), ReluLayer(), DropoutLayer(0.4, rng), FullLayer(17, 3, rng=rng),
                           SoftMaxLayer()), CrossEntropyLayer())

    for engine in ("fused", "layers"):
        options = {"batch_size": 5, "seeds": 2, "engine": engine}
        result = sweep.lr_sweep(build, x, t, [0.05, 0.1], epochs=4, **options)
        for i, lr in enumerate(result.lrs):
            for seed in (0, 1):
                expected = build(np.random.default_rng(seed)).fit(x, t, 4, lr, 5, engine=engine)
                assert np.array_equal(result.losses[i, seed], expected)
        file = tmp_path / f"{engine}.jsonl"
        sweep.lr_sweep(build, x, t, [0.05, 0.1], epochs=2, resume=file, keep_states=True, **options)
        resumed = sweep.lr_sweep(build, x, t, [0.05, 0.1], epochs=4, resume=file, keep_states=True, **options)
        assert np.array_equal(resumed.losses, result.losses)


def test_saving_keeps_the_masks_to_come(tmp_path):
    x, t = data()
    model = network()
    model.fit(x, t, 2, 0.1, 5)
    model.save(tmp_path / "m.safetensors")
    loaded = fastnet.load(tmp_path / "m.safetensors")
    assert np.array_equal(loaded.fit(x, t, 1, 0.1, 5), model.fit(x, t, 1, 0.1, 5))
