"""A loop of `partial_fit` takes the steps of one `fit`: momentum, and Adam's moments and count, go on."""
import copy
import pickle

import numpy as np
import pytest
from helpers import refuses
from numpy_loop import clusters, network, parameters

import fastnet
from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer
from fastnet.training.options import ENGINES

OPTIMIZERS = [{}, {"momentum": 0.9}, {"momentum": 0.8, "weight_decay": 0.01}, {"optimizer": "adam", "weight_decay": 0.01}]


class Doubled:
    """A user's layer, which has the model trained in compiled segments around it."""

    def forward(self, x):
        return 2 * x

    def backward(self, dy):
        return 2 * dy


class Scaled:
    """A user's layer that learns."""

    def __init__(self):
        self.s = np.ones((1, 7))

    def forward(self, x):
        self.x = x
        return self.s * x

    def backward(self, dy):
        self.s_grad = (self.x * dy).sum(axis=0, keepdims=True)
        return self.s * dy

    def update_param(self, lr):
        self.s -= lr * self.s_grad


def with_layer(extra):
    model = network((6, 7, 3))
    return Sequential((*model.layers[:2], extra, *model.layers[2:]), CrossEntropyLayer())


MODELS = {"fused": lambda: network((6, 7, 3)), "mixed": lambda: with_layer(Doubled()), "learns": lambda: with_layer(Scaled()),
          "wide": lambda: network((300, 40, 3))}


@pytest.mark.parametrize("options", OPTIMIZERS, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_a_loop_of_single_epochs_is_one_fit(name, options):
    model = MODELS[name]()
    once = copy.deepcopy(model)
    x, t = clusters(50, 300 if name == "wide" else 6, 3)
    rates = [0.05, 0.05, 0.02, 0.02]
    losses = [model.partial_fit(x, t, rate, 8, **options) for rate in rates]
    np.testing.assert_allclose(losses, once.fit(x, t, 4, rates, 8, engine="layers", **options), rtol=1e-10)
    for one, other in zip(parameters(model), parameters(once), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", OPTIMIZERS, ids=str)
@pytest.mark.parametrize(("engine", "other"), [(a, b) for a in ENGINES for b in ENGINES if "layers" in (a, b) or a == b])
def test_every_engine_goes_on_from_every_other(engine, other, options):
    """With validation data, which an engine also evaluates in the middle."""
    from fastnet import training
    from fastnet.training.resuming import OptimizerState

    model = with_layer(Doubled()) if "mixed" in (engine, other) else network((6, 7, 3))
    once, (x, t), state = copy.deepcopy(model), clusters(41, 6, 3), OptimizerState()
    given = {"lr": 0.05, "batch_size": 8, "validation": (x[:9], t[:9]), "progress": False, **options}
    losses, scores = [], []
    for name in (engine, other, engine):
        if (name in ("gram", "windows") and options.get("optimizer")) or (name in ("gram", "windows", "fused") and len(model.layers) > 4):
            return
        if name == "gram" and losses and options.get("momentum"):
            with pytest.raises(ValueError, match="velocity starts from 0, and here one goes on"):
                training.fit(model, x, t, epochs=2, engine=name, state=state, **given)
            return
        losses.extend(training.fit(model, x, t, epochs=2, engine=name, state=state, **given))
        assert model.history.engine == name
        scores.extend(model.history.val_losses)
    np.testing.assert_allclose(losses, once.fit(x, t, 6, engine="layers", **given), rtol=1e-9)
    np.testing.assert_allclose(scores, once.history.val_losses, rtol=1e-9)


def test_shuffled_with_one_generator():
    model, (x, t) = network((6, 7, 3)), clusters(50, 6, 3)
    once, rng = copy.deepcopy(model), np.random.default_rng(3)
    losses = [model.partial_fit(x, t, 0.05, 8, momentum=0.9, shuffle=True, rng=rng) for _ in range(3)]
    expected = once.fit(x, t, 3, 0.05, 8, momentum=0.9, shuffle=True, rng=np.random.default_rng(3))
    np.testing.assert_allclose(losses, expected, rtol=1e-10)


def test_what_starts_from_0():
    """A fit, another optimiser, another layer, another shape, and None."""
    x, t = clusters(50, 6, 3)

    def after(change, **options):
        model = network((6, 7, 3))
        model.partial_fit(x, t, 0.05, 8, momentum=0.9)
        change(model)
        fresh = copy.deepcopy(model)
        fresh.optimizer_state = None
        options = options or {"momentum": 0.9}
        return model.partial_fit(x, t, 0.05, 8, **options) == fresh.partial_fit(x, t, 0.05, 8, **options)

    def another_layer(model):
        model.layers = (FullLayer(6, 7, rng=8), *model.layers[1:])

    def another_width(model):
        model.layers[0].n_o = model.layers[2].n_i = 5
        model.layers[0].W, model.layers[0].b, model.layers[2].W = np.ones((5, 6)) / 9, np.zeros((1, 5)), np.ones((3, 5))

    assert not after(lambda model: None)
    assert after(lambda model: model.fit(x, t, 1, 0.05, 8, momentum=0.9))
    assert after(lambda model: None, optimizer="adam")
    assert after(another_layer)
    assert after(another_width)
    assert after(lambda model: setattr(model, "optimizer_state", None))


def test_weights_from_elsewhere_keep_the_velocity():
    """Assigned parameters, of another dtype too, are where it goes on."""
    x, t = clusters(50, 6, 3)
    models = [network((6, 7, 3)) for _ in range(2)]
    for model in models:
        model.partial_fit(x, t, 0.05, 8, momentum=0.9)
        model.layers[0].W = model.layers[0].W / 2
    models[1].layers[0].W = models[1].layers[0].W.tolist()
    losses = [model.partial_fit(x, t, 0.05, 8, momentum=0.9) for model in models]
    assert losses[0] == losses[1]


def test_a_copy_goes_on_by_itself():
    x, t = clusters(50, 6, 3)
    model = network((6, 7, 3))
    model.partial_fit(x, t, 0.01, 8, optimizer="adam")
    others = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    losses = [[m.partial_fit(x, t, 0.01, 8, optimizer="adam") for _ in range(2)] for m in (model, *others)]
    assert losses[0] == losses[1] == losses[2]


@pytest.mark.filterwarnings("ignore:fit. diverged")
def test_errors_and_divergence():
    x, t = clusters(50, 6, 3)
    model = network((6, 7, 3))
    model.partial_fit(x, t, 0.05, 8, momentum=0.9)
    with refuses(ValueError, r"Sequential.partial_fit: momentum must be at least 0 and below 1", model):
        model.partial_fit(x, t, 0.05, 8, momentum=1.5)
    with refuses(ValueError, r"Sequential.partial_fit: x must have shape", model):
        model.partial_fit(x.T, t, 0.05, 8)
    held = copy.deepcopy(model.layers)
    assert not np.isfinite(model.partial_fit(x, t, 1e200, 8, momentum=0.9)) or not np.isfinite(model.layers[0].W).all()
    for layer, good in zip(model.layers, held, strict=True):
        if isinstance(layer, FullLayer):
            layer.W, layer.b = good.W, good.b
    assert np.isfinite(model.partial_fit(x, t, 0.05, 8, momentum=0.9))


def test_single_batches_in_between():
    """`train_on_batch` knows no momentum; what it leaves is where `partial_fit` goes on."""
    model = Sequential((FullLayer(6, 7, rng=0), ReluLayer(), FullLayer(7, 3, rng=1), SoftMaxLayer()), CrossEntropyLayer())
    x, t = clusters(50, 6, 3)
    model.partial_fit(x, t, 0.05, 8, momentum=0.9)
    model.train_on_batch(x[:8], t[:8], 0.05)
    assert np.isfinite(model.partial_fit(x, t, 0.05, 8, momentum=0.9))
    assert fastnet.Sequential(model.layers, model.loss).optimizer_state is None
