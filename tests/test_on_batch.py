"""train_on_batch: the steps of a hand-written loop, and layers that hold what they should whenever somebody looks."""
import copy
import pickle

import numpy as np
import pytest
from helpers import one_hot_rows

from fastnet import (
    ConvLayer,
    CrossEntropyLayer,
    FlattenLayer,
    FullLayer,
    LeakyReluLayer,
    MaxPoolLayer,
    MeanSquaredErrorLayer,
    ReluLayer,
    Sequential,
    SoftMaxLayer,
    TanhLayer,
)
from fastnet.training import on_batch


def network(dtype=np.float64, full=FullLayer):
    return Sequential((full(7, 6, dtype=dtype, rng=0), ReluLayer(), full(6, 3, dtype=dtype, rng=1), SoftMaxLayer()),
                      CrossEntropyLayer())


def batches(rng, dtype=np.float64, sizes=(9, 9, 4, 9, 1)):
    return [(rng.standard_normal((n, 7)).astype(dtype), one_hot_rows(rng, n, 3, dtype)) for n in sizes]


def by_hand(model, x, t, lr):
    loss = model.forward(x, t)
    model.backward()
    model.update_param(lr)
    return loss


def assert_same_parameters(a, b, tolerance=1e-12):
    for one, other in zip(a.layers, b.layers, strict=True):
        if isinstance(one, FullLayer):
            np.testing.assert_allclose(one.W, other.W, rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(one.b, other.b, rtol=tolerance, atol=tolerance)


def test_steps_are_those_of_a_loop_by_hand(dtype, rng):
    model, other = network(dtype), network(dtype)
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    for i, (x, t) in enumerate(batches(rng, dtype)):
        loss = model.train_on_batch(x, t, dtype.type(0.1 * (i + 1)) if i % 2 else 0.1 * (i + 1))
        assert "W" not in vars(model.layers[0])  # still packed
        assert type(loss) is float
        assert loss == pytest.approx(by_hand(other, x, t, 0.1 * (i + 1)), rel=tolerance)
        assert isinstance(on_batch._runner(model), on_batch.OnBatch)
    assert_same_parameters(model, other, tolerance)


def test_attributes_are_true_between_steps(rng):
    model, other = network(), network()
    for x, t in batches(rng):
        model.train_on_batch(x, t, 0.2)
        by_hand(other, x, t, 0.2)
        assert_same_parameters(model, other)
        kept = model.layers[0].W
        before = kept.copy()
    other.forward(x, t)  # with the parameters of now
    other.backward()
    for one, right in zip(model.layers, other.layers, strict=True):
        for name, value in vars(right).items():
            np.testing.assert_allclose(getattr(one, name), value, rtol=1e-10, atol=1e-12)
    assert model.layers[0].x is x
    assert model.loss.t is t
    model.train_on_batch(x, t, 0.2)
    assert np.array_equal(kept, before)


def test_what_is_changed_between_steps_counts(rng):
    model, other = network(), network()
    (x, t), *_ = batches(rng)
    for each, step in ((model, Sequential.train_on_batch), (other, by_hand)):
        step(each, x, t, 0.1)
        each.layers[0].W[0, 0] += 1
        step(each, x, t, 0.1)
        each.layers[2].b = np.ones(3)
        step(each, x, t, 0.1)
        each.layers[0].W = np.ones((6, 7))
        each.layers[0].update_param(0.0)
        step(each, x, t, 0.1)
    assert_same_parameters(model, other)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_and_other_methods_see_the_parameters_of_now(copied, rng):
    model, other = network(), network()
    for x, t in batches(rng):
        model.train_on_batch(x, t, 0.2)
        by_hand(other, x, t, 0.2)
        twin = copied(model)
        assert_same_parameters(twin, other)
        np.testing.assert_allclose(model.predict_proba(x), other.predict_proba(x))
        assert model.test_on_batch(x, t) == pytest.approx(other.forward(x, t))
    np.testing.assert_allclose(model.fit(x, t, epochs=2, lr=0.1, progress=False),
                               other.fit(x, t, epochs=2, lr=0.1, progress=False))
    assert model.train_on_batch(x, t, 0.1) == pytest.approx(by_hand(other, x, t, 0.1))
    assert_same_parameters(model, other)


def test_test_on_batch_changes_nothing(rng):
    model = network()
    (x, t), (x2, t2), *_ = batches(rng)
    by_hand(model, x, t, 0.1)
    held = [dict(vars(part)) for part in (*model.layers, model.loss)]
    loss = model.test_on_batch(x2, t2)
    for part, before in zip((*model.layers, model.loss), held, strict=True):
        assert all(vars(part)[name] is value for name, value in before.items())
    assert model.forward(x2, t2) == pytest.approx(loss)


def test_overrides_are_honoured(rng):
    class Frozen(FullLayer):
        def update_param(self, lr):
            pass

    (x, t), *_ = batches(rng)
    model, other = network(full=Frozen), network()
    model.train_on_batch(x, t, 0.5)
    assert_same_parameters(model, other)
    model = network()
    model.train_on_batch(x, t, 0.5)  # compiled, and then no longer
    W = model.layers[2].W.copy()
    model.layers[2].update_param = lambda lr: None
    first = model.layers[0].W.copy()
    model.train_on_batch(x, t, 0.5)
    assert np.array_equal(model.layers[2].W, W)
    assert not np.array_equal(model.layers[0].W, first)


def test_a_class_that_is_changed_between_steps(rng, monkeypatch):
    (x, t), *_ = batches(rng)
    model = network()
    model.train_on_batch(x, t, 0.5)
    called = []
    forward = FullLayer.forward
    monkeypatch.setattr(FullLayer, "forward", lambda self, x: called.append(1) or forward(self, x))
    model.train_on_batch(x, t, 0.5)
    assert len(called) >= 2


def test_input_of_any_kind(rng):
    (x, t), *_ = batches(rng)
    model, other = network(), network()
    for given, target in ((x.tolist(), t.astype(int)), (np.asfortranarray(x), t), (x.astype(">f8"), t[:, ::1]), (x, t)):
        assert model.train_on_batch(given, target, 0.1) == pytest.approx(by_hand(other, x, t, 0.1))
    assert_same_parameters(model, other)


def test_mistakes(rng):
    model, untouched = network(), network()
    (x, t), *_ = batches(rng)
    with pytest.raises(ValueError, match="train_on_batch: the learning rate must be finite"):
        model.train_on_batch(x, t, -1.0)
    with pytest.raises(ValueError, match=r"train_on_batch: x must have shape \(n, 7\)"):
        model.train_on_batch(x[:, :4], t, 0.1)
    with pytest.raises(ValueError, match=r"train_on_batch: t must have shape"):
        model.train_on_batch(x, t[:3], 0.1)
    with pytest.raises(ValueError, match="test_on_batch: t must be one-hot"):
        model.test_on_batch(x, np.argmax(t, axis=1))
    assert_same_parameters(model, untouched)


def network_of_images():
    return Sequential((ConvLayer(2, 3, 3, rng=0), ReluLayer(), MaxPoolLayer(2), FlattenLayer(), FullLayer(12, 3, rng=1),
                       SoftMaxLayer()), CrossEntropyLayer())


def network_of_numbers():
    return Sequential((FullLayer(7, 5, rng=0), LeakyReluLayer(0.2), FullLayer(5, 4, rng=1), TanhLayer(),
                       FullLayer(4, 2, rng=2)), MeanSquaredErrorLayer())


@pytest.mark.parametrize(("make", "shape", "outputs"), [(network_of_images, (2, 4, 5), 3), (network_of_numbers, (7,), 2)])
def test_images_and_regression(make, shape, outputs, rng):
    model, other = make(), make()
    for n in (6, 6, 2):
        x = rng.standard_normal((n, *shape))
        t = one_hot_rows(rng, n, 3) if outputs == 3 else rng.standard_normal((n, outputs))
        assert model.train_on_batch(x, t, 0.1) == pytest.approx(by_hand(other, x, t, 0.1))
        assert "W" not in vars(model.layers[0])  # compiled
    other.forward(x, t)
    other.backward()
    for one, right in zip((*model.layers, model.loss), (*other.layers, other.loss), strict=True):
        for name, value in vars(right).items():
            if isinstance(value, str):
                assert getattr(one, name) == value
            else:
                np.testing.assert_allclose(getattr(one, name), value, rtol=1e-9, atol=1e-12, err_msg=name)


def test_a_setting_that_is_changed_between_steps(rng):
    model, other = network_of_numbers(), network_of_numbers()
    x, t = rng.standard_normal((6, 7)), rng.standard_normal((6, 2))
    for slope in (0.2, 0.4, 0.4):
        for each, step in ((model, Sequential.train_on_batch), (other, by_hand)):
            each.layers[1].slope = slope
            step(each, x, t, 0.1)
    assert_same_parameters(model, other)
