"""What a compiled fit leaves in the layers is computed when it is read, as if it had been there since the fit."""
import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
from helpers import same
from numpy_loop import numpy_fit

from fastnet import (
    ConvLayer,
    CrossEntropyLayer,
    FlattenLayer,
    FullLayer,
    MaxPoolLayer,
    MeanSquaredErrorLayer,
    ReluLayer,
    Sequential,
    SoftMaxLayer,
)

COMPILED = ["fused", "gram", "windows"]


def rows(n=30, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 12)), np.eye(3)[rng.integers(0, 3, n)]


def network(seed=1):
    return Sequential((FullLayer(12, 9, rng=seed), ReluLayer(), FullLayer(9, 3, rng=seed + 1), SoftMaxLayer()),
                      CrossEntropyLayer())


def images(seed=0):
    rng = np.random.default_rng(seed)
    model = Sequential((ConvLayer(2, 4, 3, rng=1), ReluLayer(), MaxPoolLayer(2), FlattenLayer(), FullLayer(36, 3, rng=2),
                        SoftMaxLayer()), CrossEntropyLayer())
    return model, rng.standard_normal((11, 2, 6, 7)), np.eye(3)[rng.integers(0, 3, 11)]


def left(model):
    """Everything that a batch leaves behind, read in an order in which nothing else would read it."""
    names = "W_grad", "b_grad", "x", "y", "t", "locs", "orig_shape"
    return [(i, name, getattr(part, name)) for i, part in reversed(list(enumerate((*model.layers, model.loss))))
            for name in names if hasattr(part, name)]


def assert_left_alike(model, other, tolerance):
    for (i, name, one), (j, same_name, two) in zip(left(model), left(other), strict=True):
        assert (i, name) == (j, same_name)
        assert np.shape(one) == np.shape(two), (i, name)
        np.testing.assert_allclose(one, two, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("engine", COMPILED)
@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"weight_decay": 0.01}, {"weight_decay": 10.0},
                                     {"shuffle": True, "rng": 3}], ids=str)
@pytest.mark.parametrize("batch_size", [7, 10, 50])
def test_as_layer_by_layer(engine, options, batch_size):
    x, t = rows()
    model, by_hand = network(), network()
    model.fit(x, t, 3, 0.1, batch_size, engine=engine, **options)
    by_hand.fit(x, t, 3, 0.1, batch_size, engine="layers", **options)
    assert_left_alike(model, by_hand, 1e-10)


def test_adam_and_another_loss():
    x, t = rows()
    for optimizer in ("sgd", "adam"):
        model, by_hand = (Sequential((FullLayer(12, 5, rng=1), ReluLayer(), FullLayer(5, 3, rng=2)), MeanSquaredErrorLayer())
                          for _ in range(2))
        model.fit(x, t, 2, 0.01, 8, engine="fused", optimizer=optimizer)
        by_hand.fit(x, t, 2, 0.01, 8, engine="layers", optimizer=optimizer)
        assert_left_alike(model, by_hand, 1e-10)


@pytest.mark.parametrize("stopped", [False, True])
def test_images(stopped):
    model, x, t = images()
    by_hand = copy.deepcopy(model)
    epochs = 3 if stopped else 2  # a fit that a callback ended leaves its last batch with the final parameters
    model.fit(x, t, epochs, 0.1, 4, callbacks=(lambda report: report.epoch == 1) if stopped else ())
    by_hand.fit(x, t, 2, 0.1, 4, engine="layers")
    if stopped:
        by_hand.forward(x[8:], t[8:])
        by_hand.backward()
    assert model.history.engine == "fused"
    assert_left_alike(model, by_hand, 1e-10)
    assert model.layers[2].locs.dtype == bool
    assert model.layers[3].orig_shape == (3, 4, 3, 3)


@pytest.mark.parametrize("engine", COMPILED)
def test_it_is_of_then_whatever_has_changed_since(engine):
    x, t = rows()
    model, by_hand = network(), network()
    model.fit(x, t, 2, 0.1, 8, engine=engine)
    by_hand.fit(x, t, 2, 0.1, 8, engine="layers")
    assert "W_grad" not in vars(model.layers[0])  # not computed yet
    first = model.layers[0]
    first.W[:] = 7
    x[:], t[:] = 5, 0
    model.layers[2].b = np.full((1, 3), 9.0)
    np.testing.assert_allclose(first.W_grad, by_hand.layers[0].W_grad, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(model.layers[-1].y, by_hand.layers[-1].y, rtol=1e-10)
    assert model.loss.x is model.layers[-1].y
    assert (first.W == 7).all()
    assert (model.layers[2].b == 9).all()


def test_what_is_assigned_stays():
    x, t = rows()
    model = network()
    model.fit(x, t, 1, 0.1, 8)
    model.layers[0].x = np.ones((2, 12))
    model.layers[2].W_grad = None
    assert model.layers[0].W_grad.shape == (9, 12)
    assert (model.layers[0].x == 1).all()
    assert model.layers[2].W_grad is None


def test_copies_and_pickles_are_whole_and_predictions_compute_nothing():
    x, t = rows()
    model, by_hand = network(), network()
    model.fit(x, t, 2, 0.1, 8)
    by_hand.fit(x, t, 2, 0.1, 8, engine="layers")
    model.predict(x)
    model.evaluate(x, t)
    assert "x" not in vars(model.layers[0])
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert_left_alike(other, by_hand, 1e-10)
    assert_left_alike(model, by_hand, 1e-10)


def test_an_error_in_a_later_call_does_not_lose_it():
    x, t = rows()
    model, by_hand = network(), network()
    model.fit(x, t, 2, 0.1, 8)
    by_hand.fit(x, t, 2, 0.1, 8, engine="layers")
    model.layers[2].n_i = 4  # the second layer fails, behind others that have read what was left
    for call in (lambda: model.forward(x, t), model.backward):
        with pytest.raises(ValueError, match="FullLayer"):
            call()
    model.layers[2].n_i = 9
    assert_left_alike(model, by_hand, 1e-10)


def test_a_loop_by_hand_goes_on_from_a_fit():
    x, t = rows()
    model = network()
    model.fit(x, t, 2, 0.1, 8)
    start = copy.deepcopy(model)
    for one in (model, start):
        one.update_param(0.05)  # once more along the gradients of the fit's last batch
        one.train_on_batch(x[:8], t[:8], 0.1)
        one.forward(x[8:16], t[8:16])
        one.backward()
        one.update_param(0.1)
    assert_left_alike(model, start, 0)
    assert all(same(one.W, other.W) for one, other in zip(model.layers[::2], start.layers[::2], strict=True)
               if isinstance(one, FullLayer))


def test_a_fit_by_layers_takes_its_place():
    x, t = rows()
    model = network()
    model.fit(x, t, 1, 0.1, 8)
    model.fit(x, t, 1, 0.1, 8, engine="layers")
    assert model.layers[0]._owner is None
    expected = numpy_fit(network(), x, t, 2, 0.1, 8)
    np.testing.assert_allclose(model.layers[0].W_grad, expected.gradients[0], rtol=1e-10, atol=1e-12)


def test_nothing_is_kept_alive():
    """Neither the model, which would wait for the garbage collector, nor the data."""
    x, t = rows()
    model = network()
    model.fit(x, t, 1, 0.1, 8)
    layers, data = [weakref.ref(part) for part in (*model.layers, model.loss)], weakref.ref(x)
    gc.disable()
    try:
        del model, x
        assert data() is None
        assert all(layer() is None for layer in layers)
    finally:
        gc.enable()
