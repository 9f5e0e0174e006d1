"""Batch normalisation: kernels beside naive, then the layer in both modes, then every engine beside the layers."""
import numpy as np
import pytest
from fastnet.kernels import batch_norm, naive
from helpers import filled, refuses

import fastnet
from fastnet import (
    BatchNormLayer,
    ConvLayer,
    CrossEntropyLayer,
    FlattenLayer,
    FullLayer,
    MaxPoolLayer,
    ReluLayer,
    Sequential,
    SoftMaxLayer,
    TanhLayer,
    gradcheck,
    one_hot,
)
from fastnet.layer import learned, parameters

SHAPES = [(1, 1), (2, 7), (9, 33), (1, 3, 2, 2), (4, 3, 5, 6), (40, 2, 1, 1), (3, 0), (300, 200)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernels_are_naive(shape, dtype, rng):
    x, dy = (3 + rng.standard_normal(shape).astype(dtype) for _ in range(2))
    gamma, beta = (rng.standard_normal((1, shape[1])).astype(dtype) for _ in range(2))
    tolerance = 2e4 * np.finfo(dtype).eps
    found, expected = ([filled(shape, d), *(filled((1, shape[1]), d) for _ in range(3))] for d in (dtype, np.float64))
    batch_norm.batch_norm_forward(*found, x, gamma, beta, 0.01)
    naive.batch_norm_forward(*expected, x, gamma, beta, 0.01)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
    mean, inv = found[1], found[3]
    y, right = filled(shape, dtype), filled(shape, np.float64)
    batch_norm.batch_norm_predict(y, x, gamma, beta, mean, inv)
    naive.batch_norm_predict(right, x, gamma, beta, mean, inv)
    np.testing.assert_allclose(y, right, rtol=tolerance, atol=tolerance)
    found, expected = ([filled(shape, d), *(filled((1, shape[1]), d) for _ in range(2))] for d in (dtype, np.float64))
    batch_norm.batch_norm_backward(*found, dy, x, gamma, mean, inv)
    naive.batch_norm_backward(*expected, dy, x, gamma, mean, inv)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1, len(x)))


@pytest.mark.parametrize("shape", [(6, 4), (3, 4, 2, 5)], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_gradient_is_the_numerical_one(shape, training, rng):
    layer = BatchNormLayer(4)
    layer.gamma, layer.beta = rng.standard_normal((1, 4)), rng.standard_normal((1, 4))
    layer.running_mean, layer.training = rng.standard_normal((1, 4)), training
    assert gradcheck(layer, rng.standard_normal(shape))


def test_running_statistics(rng):
    layer, x = BatchNormLayer(3), rng.standard_normal((5, 3, 2, 2)) + 4
    layer.forward(x)
    values = x.transpose(1, 0, 2, 3).reshape(3, -1)
    np.testing.assert_allclose(layer.running_mean, 0.1 * values.mean(axis=1)[None])
    np.testing.assert_allclose(layer.running_var, 0.9 + 0.1 * values.var(axis=1, ddof=1)[None])
    layer.training = False
    mean, var = layer.running_mean.copy(), layer.running_var.copy()
    y = layer.forward(x)
    np.testing.assert_allclose(y, (x - mean.reshape(1, 3, 1, 1)) / np.sqrt(var.reshape(1, 3, 1, 1) + 1e-5))
    assert np.array_equal(layer.running_mean, mean)


def test_one_value_per_channel_gives_beta(dtype):
    layer = BatchNormLayer(2, dtype=dtype)
    layer.beta = np.array([[3.0, 4.0]], dtype)
    assert np.array_equal(layer.forward(np.array([[7.0, -9.0]], dtype)), layer.beta)
    assert np.array_equal(layer.running_mean, [[0, 0]]) and np.array_equal(layer.running_var, [[1, 1]])
    assert np.array_equal(layer.backward(np.ones((1, 2), dtype)), np.zeros((1, 2)))


def test_mistakes(rng):
    layer = BatchNormLayer(3)
    with refuses(ValueError, r"takes rows of 3 columns, or images of 3 channels, but its input is x of shape \(2, 4\)", layer):
        layer.forward(np.ones((2, 4)))
    with refuses(RuntimeError, r"call forward\(\)", layer):
        layer.backward(np.ones((2, 3)))
    with refuses(ValueError, "momentum must be at most 1, got 1.5"):  # the running variance would become negative
        BatchNormLayer(3, momentum=1.5)


def build(where, dtype):
    rng = np.random.default_rng(3)
    layers = [FullLayer(9, 17, dtype, rng), BatchNormLayer(17, dtype=dtype), ReluLayer(), FullLayer(17, 3, dtype, rng)]
    if where == "everywhere":
        layers = [BatchNormLayer(9, dtype=dtype), *layers, BatchNormLayer(3, dtype=dtype)]
    return Sequential([*layers, SoftMaxLayer()], CrossEntropyLayer())


@pytest.mark.parametrize("where", ["behind the first", "everywhere"])
@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "weight_decay": 0.01}, {"optimizer": "adam", "lr": 0.01},
                                     {"momentum": 0.9, "nesterov": True, "lr": 0.02}], ids=lambda o: "-".join(o))
def test_compiled_training_is_that_of_the_layers(where, options, dtype):
    if "optimizer" in options:
        dtype = np.dtype(np.float64)  # the bias before this layer has a gradient of rounding errors, which Adam scales up
    rng = np.random.default_rng(4)
    x, t = rng.standard_normal((23, 9)).astype(dtype), one_hot(rng.integers(0, 3, 23), 3, dtype)
    options = {"epochs": 3, "lr": 0.05, "batch_size": 11, "validation": (x[:7], t[:7]), **options}  # the last has one sample
    plain = build(where, dtype)
    expected = plain.fit(x, t, engine="layers", **options)
    relative = {4: 2e-3, 8: 1e-9}[dtype.itemsize]
    engines = ["fused", "gram", "windows"] if where == "behind the first" and "optimizer" not in options else ["fused"]
    for engine in engines:
        compiled = build(where, dtype)
        np.testing.assert_allclose(compiled.fit(x, t, engine=engine, **options), expected, rtol=relative)
        np.testing.assert_allclose(compiled.history.val_losses, plain.history.val_losses, rtol=relative)
        for one, other in zip(compiled.layers, plain.layers, strict=True):
            for name in {*parameters(one), *learned(one)}:
                np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=relative, atol=10 * relative)


@pytest.mark.parametrize("options", [{}, {"optimizer": "adam", "shuffle": True, "rng": 1}, {"momentum": 0.9, "nesterov": True}])
def test_behind_convolutions_and_pools_every_engine_does_as_the_layers_do(options, dtype):
    """Images of the whole mini-batch are kept, in blocks and groups that do not divide it; the last batch is smaller."""
    rng, trained = np.random.default_rng(0), []
    x, t = rng.standard_normal((53, 2, 8, 9)).astype(dtype), one_hot(rng.integers(0, 3, 53), 3).astype(dtype)
    lr = 0.003 if "optimizer" in options else 0.1
    if options.get("optimizer") and dtype == np.float32:
        pytest.skip("the bias before it has a gradient of rounding errors, which Adam scales up")
    for engine in ("layers", "fused"):
        model = Sequential((ConvLayer(2, 5, 3, dtype, 0), BatchNormLayer(5, dtype=dtype), ReluLayer(), MaxPoolLayer(2),
                            BatchNormLayer(5, dtype=dtype), ConvLayer(5, 17, 3, dtype, 1, stride=2), ReluLayer(),
                            BatchNormLayer(17, dtype=dtype), FlattenLayer(), FullLayer(68, 3, dtype, 2),
                            BatchNormLayer(3, dtype=dtype), SoftMaxLayer()), CrossEntropyLayer())
        losses = model.fit(x, t, 3, lr, 37, engine=engine, validation=(x[:9], t[:9]), **options)
        assert model.history.engine == engine
        trained.append((model, losses))
    (plain, expected), (model, losses) = trained
    relative = 2e-3 if dtype == np.float32 else 1e-9
    np.testing.assert_allclose(losses, expected, rtol=relative)
    np.testing.assert_allclose(model.history.val_losses, plain.history.val_losses, rtol=relative)
    for one, other in zip(model.layers, plain.layers, strict=True):
        for name in {*parameters(one), *learned(one)}:
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=relative, atol=10 * relative)


def test_same_bits_behind_a_convolution_for_any_number_of_threads(dtype):
    rng, results = np.random.default_rng(0), []
    x, t = rng.standard_normal((45, 3, 12, 12)).astype(dtype), one_hot(rng.integers(0, 3, 45), 3).astype(dtype)
    before = fastnet.get_num_threads()
    try:
        for count in (1, 2, 3):
            fastnet.set_num_threads(count)
            model = Sequential((TanhLayer(), ConvLayer(3, 8, 3, dtype, 0), BatchNormLayer(8, dtype=dtype), ReluLayer(),
                                MaxPoolLayer(2), FlattenLayer(), FullLayer(288, 3, dtype, 2), SoftMaxLayer()),
                               CrossEntropyLayer())
            losses = model.fit(x, t, 2, 0.1, 33, engine="fused", momentum=0.9)
            results.append([losses.tobytes(), *(getattr(layer, name).tobytes() for layer in model.layers
                                                for name in learned(layer))])
    finally:
        fastnet.set_num_threads(before)
    assert all(result == results[0] for result in results)


def test_saved_and_loaded(tmp_path, rng):
    model = build("everywhere", np.dtype(np.float64))
    x = rng.standard_normal((23, 9))
    model.fit(x, one_hot(rng.integers(0, 3, 23), 3), 2, 0.1, 5)
    model.save(tmp_path / "m.safetensors")
    loaded = fastnet.load(tmp_path / "m.safetensors")
    assert np.array_equal(loaded.predict_proba(x), model.predict_proba(x))
    assert np.array_equal(loaded.layers[0].running_var, model.layers[0].running_var)


def test_a_loop_by_hand_keeps_the_running_statistics():
    rng = np.random.default_rng(4)
    x, t = rng.standard_normal((20, 9)), one_hot(rng.integers(0, 3, 20), 3)
    compiled, plain = build("everywhere", np.dtype(np.float64)), build("everywhere", np.dtype(np.float64))
    for first in range(0, 20, 5):
        rows = slice(first, first + 5)
        assert compiled.train_on_batch(x[rows], t[rows], 0.1) == pytest.approx(plain.forward(x[rows], t[rows]), rel=1e-9)
        plain.backward()
        plain.update_param(0.1)
        if first == 10:
            assert compiled.layers[0].x is not None  # computes what the last batch left, and changes nothing else
    np.testing.assert_allclose(compiled.layers[2].running_var, plain.layers[2].running_var, rtol=1e-9)
    np.testing.assert_allclose(compiled.predict_proba(x), plain.eval().forward(x), rtol=1e-8)
