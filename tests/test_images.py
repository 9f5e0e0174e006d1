"""Networks of images: every engine beside the loop by hand, in any order of layers, whatever the blocks and the threads."""
import numpy as np
import pytest
from fastnet.kernels.runtime import pool
from numpy_images import network, numpy_fit, parameters, pictures

from fastnet import (
    ConvLayer,
    CrossEntropyLayer,
    FlattenLayer,
    FullLayer,
    LeakyReluLayer,
    MaxPoolLayer,
    Sequential,
    SoftMaxLayer,
    TanhLayer,
    gradcheck,
)
from fastnet.program import images

COURSE = ["conv 16 3", "relu", "pool 2", "conv 32 3", "relu", "pool 2", "flatten"]
STACKS = {  # with the shape of an image
    "the course's": (COURSE, (3, 12, 12)),
    "pool before ReLU, sides that do not divide": (
        ["conv 5 3", "pool 2", "relu", "conv 7 5", "pool 2", "flatten", "full 20", "relu"], (2, 9, 11)),
    "no ReLU": (["conv 4 3", "pool 2", "flatten"], (1, 4, 5)),
    "without pools": (["conv 5 3", "relu", "conv 7 5", "conv 3 1", "relu", "pool 3", "flatten"], (2, 7, 8)),
    "pool first": (["pool 2", "relu", "conv 20 3", "flatten", "relu"], (1, 8, 8)),
    "ReLU first": (["relu", "conv 3 3", "pool 2", "flatten"], (2, 4, 4)),
    "nothing but rows": (["flatten", "full 9", "relu"], (1, 5, 3)),
    "no convolution": (["relu", "pool 3", "flatten"], (2, 7, 8)),
    "large filters on few pixels": (["conv 3 7", "relu", "relu", "pool 1", "conv 3 3", "relu", "pool 4", "flatten"], (1, 5, 8)),
    "one row": (["conv 17 3", "relu", "pool 1", "flatten"], (2, 1, 6)),
}
LOSS, WEIGHT = {4: 2e-4, 8: 1e-10}, {4: 2e-4, 8: 1e-10}


@pytest.fixture(autouse=True)
def threads_put_back():
    before = pool.get_num_threads()
    yield
    pool.set_num_threads(before)


def assert_same(model, losses, expected, dtype):
    of_losses, of_weights = expected
    np.testing.assert_allclose(losses, of_losses, rtol=LOSS[dtype.itemsize])
    for one, other in zip(parameters(model), of_weights, strict=True):
        assert one.dtype == dtype
        np.testing.assert_allclose(one, other, atol=WEIGHT[dtype.itemsize] * np.abs(other).max(), rtol=0)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("engine", ["fused", "layers"])
def test_training_is_the_loop_by_hand(stack, engine, dtype):
    words, shape = STACKS[stack]
    x, t = (a.astype(dtype) for a in pictures(19, shape, 3))
    for batch_size, options in ((8, {}), (19, {"momentum": 0.9, "weight_decay": 0.01}), (1, {"weight_decay": 0.1})):
        model = network(words, shape, 3, dtype)
        expected = numpy_fit(model, x, t, 4, 0.05, batch_size, **options)
        losses = model.fit(x, t, epochs=4, lr=0.05, batch_size=batch_size, engine=engine, **options)
        assert model.history.engine == engine
        assert_same(model, losses, expected, dtype)


@pytest.mark.parametrize("activation", [LeakyReluLayer, TanhLayer])
def test_layers_of_values_between_images(activation, dtype):
    """Images become rows and images again, in the middle of a block."""
    x, t = (a.astype(dtype) for a in pictures(19, (2, 6, 6), 3))
    trained = []
    for engine in ("fused", "layers"):
        rng = np.random.default_rng(0)
        model = Sequential((ConvLayer(2, 4, 3, dtype, rng), activation(), MaxPoolLayer(), ConvLayer(4, 3, 3, dtype, rng),
                            activation(), FlattenLayer(), FullLayer(27, 3, dtype, rng), SoftMaxLayer()), CrossEntropyLayer())
        trained.append((model, model.fit(x, t, epochs=4, lr=0.05, batch_size=8, engine=engine)))
        assert model.history.engine == engine
    (model, losses), (other, of_layers) = trained
    assert_same(model, losses, (of_layers, parameters(other)), dtype)


@pytest.mark.parametrize("stack", ["the course's", "without pools"])
def test_auto_is_compiled_and_shuffles_as_the_layers_do(stack, dtype):
    words, shape = STACKS[stack]
    x, t = (a.astype(dtype) for a in pictures(30, shape, 3))
    trained = []
    for engine in ("auto", "layers"):
        model = network(words, shape, 3, dtype)
        losses = model.fit(x, t, epochs=3, lr=[0.1, 0.05, 0.01], batch_size=7, shuffle=True, rng=1, momentum=0.5,
                           validation=(x[:9], t[:9]), engine=engine)
        trained.append((model, losses))
    (model, losses), (plain, expected) = trained
    assert model.history.engine == "fused"
    assert_same(model, losses, (expected, parameters(plain)), dtype)
    np.testing.assert_allclose(model.history.val_losses, plain.history.val_losses, rtol=LOSS[dtype.itemsize])
    for ours, theirs in zip(model.layers, plain.layers, strict=True):  # what a loop by hand leaves in the layers
        for name in ("x", "y", "W_grad", "b_grad"):
            if hasattr(ours, name):
                assert getattr(ours, name).shape == getattr(theirs, name).shape


def test_same_bits_for_any_number_of_threads(dtype):
    x, t = (a.astype(dtype) for a in pictures(45, (3, 16, 16), 3))
    results = []
    for count in (1, 2, 3, 5):
        pool.set_num_threads(count)
        for options in ({}, {"momentum": 0.9, "shuffle": True, "rng": 1}):
            model = network([*COURSE[:4], *COURSE[4:], "full 40", "relu"], (3, 16, 16), 3, dtype)
            losses = model.fit(x, t, epochs=2, lr=0.1, batch_size=33, engine="fused", **options)
            results.append([a.tobytes() for a in (losses, *parameters(model), model.predict_proba(x))])
    assert all(result == results[i % 2] for i, result in enumerate(results))


@pytest.mark.parametrize("stack", ["the course's", "without pools"])
def test_blocks_of_samples_do_not_matter_but_for_rounding(stack, dtype, monkeypatch):
    words, shape = STACKS[stack]
    x, t = (a.astype(dtype) for a in pictures(40, shape, 3))
    expected = None
    for groups, size in ((16, 1 << 19), (1, 1 << 30), (3, 1 << 30), (1, 1), (3, 1)):
        monkeypatch.setattr(images, "GROUPS", groups)
        monkeypatch.setattr(images, "_BLOCK_BYTES", size)
        model = network(words, shape, 3, dtype)
        losses = model.fit(x, t, epochs=2, lr=0.1, batch_size=23, engine="fused")
        expected = expected or (losses, parameters(model))
        assert_same(model, losses, expected, dtype)


def test_equal_maxima_get_the_whole_gradient_in_every_engine(dtype):
    """Whole numbers everywhere: many windows have several maxima, also above 0, and rounding decides none."""
    x, t = pictures(24, (2, 8, 8), 3)
    x = np.rint(x).astype(dtype)
    for order in (["relu", "pool 2"], ["pool 2", "relu"], ["relu", "pool 3"], ["pool 2"]):
        model = network(["conv 6 3", *order, "flatten"], (2, 8, 8), 3, dtype)
        conv = model.layers[0]
        conv.W, conv.b = np.rint(2 * conv.W), np.rint(10 * conv.b)
        start = parameters(model)
        expected = numpy_fit(model, x, t, 1, 0.01, 24)
        for engine in ("fused", "layers"):
            conv.W, conv.b, model.layers[-2].W, model.layers[-2].b = start
            losses = model.fit(x, t, epochs=1, lr=0.01, batch_size=24, engine=engine)
            assert_same(model, losses, expected, dtype)


def test_data_on_disk_integers_and_odd_layouts(dtype, tmp_path):
    x, t = pictures(20, (3, 8, 9), 3)
    x = np.clip(40 * x + 100, 0, 255).astype(np.uint8)
    disk = np.memmap(tmp_path / "x", np.uint8, "w+", shape=x.shape)
    disk[...] = x
    options = {"epochs": 2, "lr": 1e-4, "batch_size": 6, "shuffle": True, "rng": 1}
    results = []
    for data in (x.astype(dtype), disk, x, np.asfortranarray(x.astype(dtype)), np.repeat(x, 2, axis=0)[::2],
                 x.astype(dtype).transpose(0, 1, 3, 2).copy().transpose(0, 1, 3, 2)):
        model = network(COURSE[:3] + ["flatten"], (3, 8, 9), 3, dtype)
        losses = model.fit(data, t, engine="fused", **options)
        results.append([a.tobytes() for a in (losses, *parameters(model))])
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("stack", STACKS)
def test_prediction_is_that_of_the_layers(stack, dtype):
    words, shape = STACKS[stack]
    x, t = (a.astype(dtype) for a in pictures(21, shape, 3))
    model = network(words, shape, 3, dtype)
    p = model.predict_proba(x)
    np.testing.assert_allclose(p, model.forward(x), rtol=1e-4 if dtype == np.float32 else 1e-11)
    assert np.array_equal(model.predict(x), p.argmax(1))
    assert model.evaluate(x, t).accuracy == np.mean(p.argmax(1) == t.argmax(1))
    assert np.array_equal(model.predict_proba(x[:1]), p[:1])


def test_prediction_in_chunks(dtype, monkeypatch):
    x, _ = (a.astype(dtype) for a in pictures(21, (3, 8, 8), 3))
    model = network(COURSE[:3] + ["flatten"], (3, 8, 8), 3, dtype)
    p = model.predict_proba(x)
    monkeypatch.setattr("fastnet.training.prediction._PREDICTED_BYTES", 5 * x[0].nbytes)
    assert np.array_equal(model.predict_proba(x), p)


def test_overflow_is_seen(dtype):
    x, t = (a.astype(dtype) for a in pictures(20, (3, 8, 8), 3))
    model = network(COURSE[:3] + ["flatten"], (3, 8, 8), 3, dtype)
    losses = model.fit(1e4 * x, t, epochs=3, lr=1e8, batch_size=5, engine="fused", on_divergence="ignore")
    assert not np.isfinite(losses[-1])


def test_interrupted_it_holds_the_last_complete_epoch(dtype):
    x, t = (a.astype(dtype) for a in pictures(20, (3, 8, 8), 3))
    model, other = (network(COURSE[:3] + ["flatten"], (3, 8, 8), 3, dtype) for _ in range(2))

    def stop(report):
        if report.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(x, t, epochs=5, lr=0.1, batch_size=5, engine="fused", callbacks=stop)
    other.fit(x, t, epochs=2, lr=0.1, batch_size=5, engine="fused")
    for one, expected in zip(parameters(model), parameters(other), strict=True):
        np.testing.assert_allclose(one, expected, rtol=1e-3 if dtype == np.float32 else 1e-10, atol=1e-6)


def test_explain_shows_what_is_computed_together():
    x, t = pictures(20, (3, 12, 12), 3)
    text = str(network(COURSE, (3, 12, 12), 3).explain(x, t, epochs=2, batch_size=8))
    assert "ConvLayer(3, 16, 3) + ReluLayer() + MaxPoolLayer(2) of 12 x 12 pixels: 0.12 MFLOP a sample forward, 0.03 back" in text
    assert "gram" in text
    assert "its first layer is not fully connected" in text


def test_the_compiled_engine_is_chosen_whatever_the_size():
    for n, batch_size, epochs in ((10, 1, 1), (300, 128, 1), (2500, 128, 15), (2500, 2500, 100)):
        x, t = np.zeros((n, 3, 12, 12), np.float32), np.eye(3)[np.arange(n) % 3]
        plan = network(COURSE, (3, 12, 12), 3, np.float32).explain(x, t, epochs=epochs, batch_size=batch_size)
        assert plan.chosen == "fused"


def test_summary_has_the_shapes_of_images():
    text = network(COURSE, (3, 12, 12), 3).summary()
    assert "(n, 3, ?, ?)" in text
    assert "(n, 16, ?, ?)" in text
    assert "ConvLayer" in text


def test_what_does_not_fit_together_is_refused_before_anything_is_computed():
    x, t = pictures(10, (3, 12, 12), 3)
    with pytest.raises(ValueError, match=r"layers\[1\], ConvLayer\(3, 32, 3\) takes images of 3 channels, but its input has 16"):
        Sequential([ConvLayer(3, 16, 3), ConvLayer(3, 32, 3)], loss=CrossEntropyLayer())
    model = network(COURSE, (3, 12, 12), 3)
    before = [a.copy() for a in parameters(model)]
    with pytest.raises(ValueError, match=r"layers\[7\], FullLayer\(288, 3\).*takes 288 values per sample, but layers\[6\] returns 512\. Make the n_i of layers\[7\] 512\.$"):
        model.fit(*pictures(10, (3, 16, 16), 3), epochs=1, lr=0.1)
    with pytest.raises(ValueError, match=r"takes images of 3 channels, but its input has 1\.$"):
        model.fit(x[:, :1], t, epochs=1, lr=0.1)
    with pytest.raises(ValueError, match=r"takes images of 3 channels, but its input has 12. .*np.transpose\(x, \(0, 3, 1, 2\)\)"):
        model.fit(x.transpose(0, 2, 3, 1), t, epochs=1, lr=0.1)
    with pytest.raises(ValueError, match=r"takes images, of shape \(3, r, k\) per sample, but its input has shape \(432,\). Reshape .* np.reshape\(x, \(-1, 3, 12, 12\)\)"):
        model.predict(x.reshape(10, -1))
    with pytest.raises(ValueError, match=r"at least 2 x 2 pixels, but its input has 1 x 12"):
        model.fit(x[:, :, :1], t, epochs=1, lr=0.1)
    assert all(np.array_equal(a, b) for a, b in zip(parameters(model), before, strict=True))


def test_gradients_of_a_whole_network(rng):
    x, t = pictures(3, (2, 6, 6), 3)
    assert gradcheck(network(["conv 4 3", "relu", "pool 2", "flatten"], (2, 6, 6), 3), x, t)


def test_losses_are_pytorch_s():
    torch = pytest.importorskip("torch")
    x, t = pictures(40, (3, 12, 12), 3)
    model = network(COURSE, (3, 12, 12), 3)
    modules = []
    for layer in model.layers:
        if hasattr(layer, "h"):
            modules.append(torch.nn.Conv2d(layer.n_i, layer.n_o, layer.h, padding=layer.h // 2, dtype=torch.float64))
        elif hasattr(layer, "n_i"):
            modules.append(torch.nn.Linear(layer.n_i, layer.n_o, dtype=torch.float64))
        elif hasattr(layer, "size"):
            modules.append(torch.nn.MaxPool2d(layer.size))
        elif type(layer).__name__ == "ReluLayer":
            modules.append(torch.nn.ReLU())
        elif type(layer).__name__ == "FlattenLayer":
            modules.append(torch.nn.Flatten())
        if hasattr(layer, "W"):
            with torch.no_grad():
                modules[-1].weight.copy_(torch.from_numpy(layer.W))
                modules[-1].bias.copy_(torch.from_numpy(layer.b[0]))
    net, losses = torch.nn.Sequential(*modules), []
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):
        of_batches = []
        for first in range(0, 40, 16):
            rows = slice(first, first + 16)
            loss = torch.nn.functional.cross_entropy(net(torch.from_numpy(x[rows])), torch.from_numpy(t[rows]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            of_batches.append(loss.item())
        losses.append(np.mean(of_batches))
    np.testing.assert_allclose(model.fit(x, t, epochs=3, lr=0.1, batch_size=16), losses, rtol=1e-5)
