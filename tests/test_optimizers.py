"""RMSprop and Nesterov's momentum: every engine beside the equations by hand, sweeps, and a user-defined layer."""
import copy

import numpy as np
import pytest
from helpers import refuses

from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer, one_hot, sweep
from fastnet.layer import parameters

RULES = {"nesterov": {"momentum": 0.9, "nesterov": True, "lr": 0.03}, "rmsprop": {"optimizer": "rmsprop", "lr": 0.003}}


class Counted(FullLayer):
    """A user-defined layer: it keeps a network from being compiled as a whole."""

    def forward(self, x):
        return super().forward(x)


def network(dtype, kind=FullLayer):
    rng = np.random.default_rng(3)
    return Sequential((FullLayer(9, 17, dtype, rng), ReluLayer(), kind(17, 3, dtype, rng), SoftMaxLayer()), CrossEntropyLayer())


def data(dtype):
    rng = np.random.default_rng(4)
    return rng.standard_normal((23, 9)).astype(dtype), one_hot(rng.integers(0, 3, 23), 3, dtype)


def by_hand(model, x, t, rule, lr, decay, epochs=3, batch_size=5):
    """PyTorch's SGD(nesterov=True) and RMSprop, written out."""
    kept, losses = {}, []
    for _ in range(epochs):
        of_batches = []
        for first in range(0, len(x), batch_size):
            of_batches.append(model.forward(x[first:first + batch_size], t[first:first + batch_size]))
            model.backward()
            for layer in model.layers:
                for name, grad in parameters(layer).items():
                    W, last = getattr(layer, name), kept.get((id(layer), name), 0.0)
                    g = getattr(layer, grad) + (decay * W if name == "W" else 0)
                    if rule == "nesterov":
                        last = 0.9 * last + g
                        step = g + 0.9 * last
                    else:
                        last = 0.99 * last + 0.01 * g * g
                        step = g / (np.sqrt(last) + 1e-8)
                    kept[id(layer), name] = last
                    setattr(layer, name, W - lr * step)
        losses.append(np.mean(of_batches))
    return np.array(losses)


@pytest.mark.parametrize("engine", ["layers", "fused", "gram", "windows", "mixed"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_engines(rule, engine, decay, dtype):
    x, t = data(dtype)
    model = network(dtype, Counted if engine == "mixed" else FullLayer)
    reference = network(np.dtype(np.float64))
    for ours, theirs in zip(model.layers, reference.layers, strict=True):
        for name in parameters(ours):
            setattr(theirs, name, getattr(ours, name).astype(float))
    options = {**RULES[rule], "weight_decay": decay, "engine": engine}
    if rule == "rmsprop" and engine in ("gram", "windows"):
        with refuses(ValueError, "RMSprop changes weights by more than combinations of samples"):
            model.fit(x, t, 3, batch_size=5, **options)
        return
    expected = by_hand(reference, x.astype(float), t.astype(float), rule, options["lr"], decay)
    losses = model.fit(x, t, 3, batch_size=5, **options)
    assert model.history.engine == engine
    relative = {4: 3e-4, 8: 1e-10}[dtype.itemsize]
    np.testing.assert_allclose(losses, expected, rtol=relative)
    for ours, theirs in zip(model.layers, reference.layers, strict=True):
        for name in parameters(ours):
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=relative, atol=10 * relative)


@pytest.mark.parametrize("rule", RULES)
def test_a_callback_that_changes_the_model_goes_on_with_what_the_optimizer_keeps(rule):
    x, t = data(np.float64)

    def run(engine):
        model = network(np.float64)

        def halve(report):
            if report.epoch == 0:
                model.layers[2].W = model.layers[2].W / 2

        return model.fit(x, t, 4, batch_size=5, engine=engine, callbacks=halve, **RULES[rule])

    np.testing.assert_allclose(run("fused"), run("layers"), rtol=1e-10)


@pytest.mark.parametrize("rule", RULES)
def test_sweeps(rule):
    x, t = data(np.float64)
    options = {name: value for name, value in RULES[rule].items() if name != "lr"}
    result = sweep.lr_sweep(lambda rng: network(np.float64), x, t, [0.003, 0.01], epochs=3, batch_size=5, seeds=1, **options)
    for i, lr in enumerate(result.lrs):
        model = network(np.float64)
        engine = next(iter(result.settings_engines.values()))
        assert np.array_equal(result.losses[i, 0], model.fit(x, t, 3, lr, 5, engine=engine, **options))
    trained = result.best_model(lr=0.01)
    assert np.array_equal(trained.layers[0].W, model.layers[0].W)


def test_mistakes():
    x, t = data(np.float64)
    model = copy.copy(network(np.float64))
    with refuses(ValueError, "nesterov=True needs a momentum"):
        model.fit(x, t, 1, nesterov=True)
    with refuses(ValueError, "nesterov=True needs a momentum"):
        model.fit(x, t, 1, nesterov=True, optimizer="adam")
    with refuses(ValueError, "optimizer='rmsprop', which has none"):
        model.fit(x, t, 1, momentum=0.9, optimizer="rmsprop")
