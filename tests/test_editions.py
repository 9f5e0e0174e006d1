"""Forms of fit that scripts of other editions use."""
import inspect

import numpy as np
import pytest
from helpers import one_hot_rows, refuses

from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer
from fastnet.base import editions


def network():
    layers = (FullLayer(6, 5, rng=1), ReluLayer(), FullLayer(5, 3, rng=2), SoftMaxLayer())
    return Sequential(layers, CrossEntropyLayer())


@pytest.fixture
def data(rng):
    x, x_test = rng.standard_normal((30, 6)), rng.standard_normal((9, 6))
    return x, one_hot_rows(rng, 30, 3), x_test, one_hot_rows(rng, 9, 3)


def test_the_templates_defaults(data):
    x, y, _, _ = data
    a, b = network(), network()
    losses = a.fit(x, y)
    assert losses.shape == (10,)
    np.testing.assert_array_equal(losses, b.fit(x, y, 10, 0.1, 128))
    assert str(inspect.signature(Sequential.fit)).startswith("(self, x: 'npt.ArrayLike', y: 'npt.ArrayLike', epochs: 'int' = 10, lr: 'Any' = 0.1, batch_size: 'int' = 128")


def test_a_list_of_one_rate_serves_all_epochs(data):
    x, y, _, _ = data
    np.testing.assert_array_equal(network().fit(x, y, 4, [0.2]), network().fit(x, y, 4, 0.2))
    np.testing.assert_array_equal(network().fit(x, y, 4, np.array([0.2])), network().fit(x, y, 4, 0.2))
    with pytest.raises(ValueError, match="lr holds 3 rates for 4 epochs"):
        network().fit(x, y, 4, [0.2, 0.1, 0.1])


@pytest.mark.parametrize("labels", [False, True], ids=["one-hot", "labels"])
def test_the_form_of_2018(data, labels):
    x, y, x_test, t_test = data
    y_test = t_test.argmax(axis=1) if labels else t_test
    # its losses are those of today's form, its test losses those of a model evaluated after each epoch
    step = network()
    losses, test_losses = [], []
    for _ in range(4):
        losses.append(step.fit(x, y, 1, 0.3, 8, progress=False)[0])
        test_losses.append(step.forward(x_test, t_test))
    calls = (
        lambda model: model.fit(x, y, x_test, y_test, 4, 0.3, 8),
        lambda model: model.fit(x, y, x_test, y_test, epochs=4, lr=0.3, batch_size=8),
        lambda model: model.fit(x, y, x_test, y_test, 4, lr=0.3, batch_size=8),
        lambda model: model.fit(x=x, y=y, x_test=x_test, y_test=y_test, epochs=4, lr=[0.3], batch_size=8),
        lambda model: model.fit(x, y, x_test.tolist(), y_test=y_test, epochs=4, lr=0.3, batch_size=8, engine="layers"),
    )
    for call in calls:
        train, test = call(network())
        assert train.shape == test.shape == (4,) and train.dtype == test.dtype == np.float64
        np.testing.assert_allclose(train, losses, rtol=0, atol=1e-12)
        np.testing.assert_allclose(test, test_losses, rtol=0, atol=1e-12)
    train, test = network().fit(x, y, x_test, y_test)
    assert train.shape == test.shape == (10,)


def test_the_form_of_2018_ended_early(data):
    train, test = network().fit(*data, 5, 0.1, callbacks=lambda report: report.epoch == 1)
    assert np.isnan(train[2:]).all() and np.isnan(test[2:]).all() and np.isfinite(test[:2]).all()


def test_mistakes_in_the_form_of_2018(data):
    x, y, x_test, y_test = data
    model = network()
    with refuses(TypeError, "x_test and y_test belong together.*as in 2018", model):
        model.fit(x, y, x_test)
    with refuses(TypeError, "x_test and y_test belong together", model):
        model.fit(x, y, y_test=y_test, epochs=3)
    with refuses(TypeError, "got epochs twice", model):
        model.fit(x, y, x_test, y_test, 5, epochs=5)
    with refuses(TypeError, "got 8 positional arguments", model):
        model.fit(x, y, x_test, y_test, 5, 0.1, 128, 1)
    with refuses(TypeError, r"validation and \(x_test, y_test\) mean the same", model):
        model.fit(x, y, x_test, y_test, validation=(x_test, y_test))
    with refuses(ValueError, "x must have shape", model):
        model.fit(x, y, x_test[:, :4], y_test)


def test_more_targets_than_samples(data, monkeypatch, capsys):
    x, y, _, _ = data
    model = network()
    with refuses(ValueError, r"y must have shape \(20, 3\), got \(30, 3\).*shorten y too: y\[:20\]", model):
        model.fit(x[:20], y)
    with refuses(ValueError, r"y must have shape \(30, 3\), got \(20, 3\). Give one row per sample.$", model):
        model.fit(x, y[:20])
    monkeypatch.setattr(editions, "cuts_targets", True)  # as fastnet.dropin does
    np.testing.assert_array_equal(model.fit(x[:20], y, 3), network().fit(x[:20], y[:20], 3))
    assert "fit got 30 targets for 20 samples; it uses the first 20, y[:20]" in capsys.readouterr().err
    with pytest.raises(ValueError, match="Give one row per sample"):
        model.fit(x, y[:20])
    with pytest.raises(TypeError, match="must be an array, got None"):
        model.fit(x, None)
