"""Whatever a user wrote runs: `fit` is a loop by hand over forward, backward and update_param, or it raises.

The property test at the end draws networks of fastnet's layers and of others (`own_code`), with overrides in every place,
and compares `fit` with that loop.
"""
import contextlib
import copy
import functools
import warnings
import weakref
from unittest import mock

import numpy as np
import own_code as own
import pytest

from fastnet import (
    ConvLayer,
    CrossEntropyLayer,
    CSVLogger,
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
from fastnet.base.attributes import settle
from fastnet.layer import decaying, output_shape, parameters, updater
from fastnet.sweep import lr_sweep
from fastnet.training.reaching import reaches

CASES, PARTS = 2000, 20  # of the property test; a part's number and a case's seed say what failed
COMPILED = ("fused", "gram", "windows")


def small(*layers, loss=None, kind=Sequential):
    return kind([*layers], loss or CrossEntropyLayer())


def samples(n=12, n_i=4, n_o=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, n_i)), np.eye(n_o)[rng.integers(0, n_o, n)]


# --- what a layer of the user's is given and asked --------------------------------------------------------------------


class Channels:
    """As a convolution has it: n_i is no number of values per sample."""

    def __init__(self):
        self.n_i = 3

    def forward(self, x):
        self.shape = x.shape
        return x.mean(axis=(2, 3))

    def backward(self, y_grad):
        return np.broadcast_to(y_grad[:, :, None, None] / np.prod(self.shape[2:]), self.shape)


def test_n_i_is_a_width_of_fully_connected_layers_only():
    x, t = np.random.default_rng(0).standard_normal((8, 3, 4, 4)), np.eye(3)[[0, 1, 2, 0, 1, 2, 0, 1]]
    model = small(Channels(), FullLayer(3, 3, rng=0), SoftMaxLayer())
    model.fit(x, t, 2, 0.1, 4)
    assert model.predict(x).shape == (8,)
    assert model.evaluate(x, t).accuracy == np.mean(model.predict(x) == t.argmax(1))
    assert "Channels is not a class that the compiled engines support" in str(model.explain(x, t, 2))
    scaled = small(own.Scaled(48, 3, rng=0), SoftMaxLayer())  # whose forward flattens images
    scaled.fit(x, t, 2, 0.1, 4)
    assert scaled.predict(x).shape == (8,)


@pytest.mark.parametrize("layer", [own.Centre(), own.replace])
def test_data_of_the_caller_are_never_written_to(layer):
    x, t = samples()
    if layer is own.replace:
        layer = FullLayer(4, 4, rng=1)
        own.replace(layer, "forward", lambda self, x: np.multiply(x, 0.5, out=x))
        own.replace(layer, "backward", lambda self, y_grad: 0.5 * y_grad)
        own.replace(layer, "update_param", lambda self, lr: None)
    model = small(layer, FullLayer(4, 3, rng=0), loss=own.Squares())
    before = x.copy(), t.copy()
    model.fit(x, t, 2, 0.1, 5, validation=(x, t))
    model.predict(x)
    model.evaluate(x, t)
    model.forward(x, t)
    assert np.array_equal(x, before[0])
    assert np.array_equal(t, before[1])
    Shifted = small(FullLayer(4, 3, rng=0), SoftMaxLayer(), kind=own.Shifted)
    Shifted.fit(x, t, 2, 0.1, 5, validation=(x, t))
    Shifted.predict(x)
    assert np.array_equal(x, before[0])


def test_a_layer_that_writes_in_place_does_not_spoil_relu():
    x, t = samples()
    layers = FullLayer(4, 5, rng=0), ReluLayer(), own.Centre(), FullLayer(5, 3, rng=1), SoftMaxLayer()
    model = small(*layers)
    model.forward(x, t)
    assert np.array_equal(layers[1].y, np.maximum(layers[0].forward(x), 0))


def test_what_layers_remember_stays_in_predict_even_if_they_write_into_it():
    class Running:
        def __init__(self):
            self.mean, self.seen = np.zeros(4), [0]

        def forward(self, x):
            self.mean *= 0.9
            self.mean += 0.1 * x.mean(axis=0)
            self.seen[0] += len(x)
            return x - self.mean

        def backward(self, y_grad):
            return y_grad

    x, t = samples()
    model = small(Running(), FullLayer(4, 3, rng=0), SoftMaxLayer())
    model.fit(x, t, 1, 0.1, 5)
    layer = model.layers[0]
    mean, kept, seen = layer.mean, layer.mean.copy(), layer.seen
    model.predict(x)
    model.evaluate(x, t)
    assert layer.mean is mean
    assert layer.seen is seen
    assert np.array_equal(mean, kept)
    assert seen == [12]


# --- momentum, decay --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "what"), [({"momentum": 0.5}, "momentum"), ({"weight_decay": 0.1}, "weight_decay"),
                                               ({"momentum": 0.5, "weight_decay": 0.1}, "momentum and weight_decay")])
@pytest.mark.parametrize(("kind", "names"), [(own.Hidden, r"held\['scale'\]"), (own.Residual, r"inner\.W, inner\.b")])
def test_parameters_that_momentum_cannot_reach_are_trained_and_named(options, what, kind, names):
    x, t = samples()
    layer = kind(4, np.random.default_rng(0))
    model = small(layer, FullLayer(4, 3, rng=0), SoftMaxLayer())
    before = [array.copy() for array in held(layer)]
    with pytest.warns(RuntimeWarning, match=rf"layers\[0\], {kind.__name__}, changes {names}, which {what} cannot reach"):
        model.fit(x, t, 1, 0.1, 5, **options)
    assert not all(map(np.array_equal, before, held(layer)))


def test_no_warning_without_reason():
    x, t = samples()
    for layer in (own.Gain(4, np.random.default_rng(0)), own.Slotted(4, np.random.default_rng(0)), own.Centre(),
                  own.Buffered(4, np.random.default_rng(0)), own.Frozen(4, 4, rng=0)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            small(layer, FullLayer(4, 3, rng=0), SoftMaxLayer()).fit(x, t, 2, 0.1, 5, momentum=0.9, weight_decay=0.1)


def test_which_parameters_decay():
    class Many:
        def __init__(self, **names):
            for name in names:
                setattr(self, name, np.ones(1))
                setattr(self, f"{name}_grad", np.zeros(1))

    names = dict.fromkeys(["W", "b", "b1", "b_out", "bias", "Bias_2", "beta", "basis", "B0ther", "K"])
    assert decaying(Many(**names)) == {"W", "beta", "basis", "B0ther", "K"}
    assert decaying(FullLayer(2, 2)) == {"W"}
    layer = Many(W=1, b=1)
    layer.decays = ("b",)
    assert decaying(layer) == {"b"}
    layer.decays = "b"
    assert decaying(layer) == {"b"}
    layer.decays = ("weights",)
    with pytest.raises(ValueError, match="Many: decays names weights, but its parameters are W, b"):
        decaying(layer)


def test_parameters_that_are_not_there():
    class Misspelt(own.Gain):
        def parameters(self):
            return {"gamma": "d_gamma", "beta": "dbeta"}

    x, t = samples()
    model = small(Misspelt(4, np.random.default_rng(0)), FullLayer(4, 3, rng=0), SoftMaxLayer())
    before = model.layers[0].gamma.copy(), model.layers[0].beta.copy()
    with pytest.raises(ValueError, match=r"layers\[0\], Misspelt: its parameters\(\) names d_gamma as the gradient of gamma"):
        model.fit(x, t, 1, 0.1, 5, momentum=0.9)
    assert all(map(np.array_equal, before, (model.layers[0].gamma, model.layers[0].beta)))


def test_methods_of_the_same_name_for_another_purpose():
    class Torchlike(own.Buffered):
        def parameters(self):
            return [self.basis, self.b]

        def output_shape(self):
            return "anything"

        def decays(self):
            return True

    layer = Torchlike(4, np.random.default_rng(0))
    assert parameters(layer) == {"basis": "basis_grad", "b": "b_grad"}
    assert decaying(layer) == {"basis"}
    assert output_shape(layer, (4,)) is None


# --- the model's own loss ---------------------------------------------------------------------------------------------


class MeanSquare:
    def forward(self, x, t):
        self.d = x - t
        return float((self.d ** 2).mean())

    def backward(self):
        return 2 * self.d / self.d.size


def test_evaluation_is_by_the_model_s_own_loss():
    x, _ = samples()
    target = x[:, :1] - 0.5 * x[:, 1:2]
    model = small(FullLayer(4, 1, rng=0), loss=MeanSquare())
    losses = model.fit(x, target, 40, 0.1, 5, validation=(x, target), early_stop=3)
    assert model.history.stopped == "all epochs done"
    assert losses[-1] < losses[0]
    assert model.history.val_losses[-1] == pytest.approx(float(((model.forward(x) - target) ** 2).mean()))
    found = model.evaluate(x, target)
    assert found.loss == model.history.val_losses[-1]
    assert np.isnan(found.accuracy)  # of no classes


def test_evaluation_sees_a_subclass_of_the_loss():
    x, t = samples()
    plain, one_more = (small(FullLayer(4, 3, rng=0), SoftMaxLayer(), loss=loss)
                       for loss in (CrossEntropyLayer(), own.OffByOne()))
    assert one_more.evaluate(x, t).loss == pytest.approx(plain.evaluate(x, t).loss + 1)
    assert one_more.evaluate(x, t).accuracy == plain.evaluate(x, t).accuracy
    before = dict(vars(one_more.loss))
    one_more.evaluate(x, t)
    assert vars(one_more.loss) == before


def test_accuracy_is_by_the_model_s_own_predict():
    x, t = samples()
    model = small(FullLayer(4, 3, rng=0), SoftMaxLayer(), kind=own.LastClass)
    model.fit(x, t, 1, 0.1, 5, validation=(x, t))
    assert model.history.val_accuracies == [model.evaluate(x, t).accuracy] == [t[:, 2].mean()]


@pytest.mark.parametrize("value", [None, [1.0, 2.0], "low"])
def test_a_loss_that_is_no_number(value):
    class Odd(MeanSquare):
        def forward(self, x, t):
            super().forward(x, t)
            return value

    x, t = samples()
    with pytest.raises(TypeError, match="Odd: forward must return the loss of the batch, one number, got"):
        small(FullLayer(4, 3, rng=0), loss=Odd()).fit(x, t, 1, 0.1)


# --- what else can be changed about a model ---------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [True, np.True_, np.bool_(True)])
def test_callbacks_may_answer_as_numpy_does(answer):
    x, t = samples()
    model = small(FullLayer(4, 3, rng=0), SoftMaxLayer())
    losses = model.fit(x, t, 3, 0.1, callbacks=lambda report: answer)
    assert np.isnan(losses[1:]).all()
    assert model.history.stopped == "callback after epoch 1"
    assert np.isfinite(model.fit(x, t, 3, 0.1, callbacks=lambda report: report.loss)).all()


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "weight_decay": 0.01}])
def test_the_same_layer_in_two_places_shares_its_parameters(options):
    x, t = samples(n_i=3)
    stack = [FullLayer(3, 3, rng=0), ReluLayer(), FullLayer(3, 3, rng=1), SoftMaxLayer()]
    model = small(*stack)
    model.layers[2] = model.layers[0]
    by_hand = copy.deepcopy(model)
    model.fit(x, t, 2, 0.1, 12, **options)
    assert model.history.engine == "layers"
    assert "layers[0] and layers[2] are the same FullLayer" in model.history.why
    momentum, decay = options.get("momentum", 0), options.get("weight_decay", 0)
    velocity = {"W": 0, "b": 0}
    for _ in range(2):
        by_hand.forward(x, t)
        by_hand.backward()
        layer = by_hand.layers[0]
        for name, shrinks in (("W", decay), ("b", 0)):
            velocity[name] = momentum * velocity[name] + getattr(layer, f"{name}_grad") + shrinks * getattr(layer, name)
        for name in velocity:
            setattr(layer, name, getattr(layer, name) - 0.1 * velocity[name])
            setattr(layer, name, getattr(layer, name) - 0.1 * velocity[name])
    assert np.allclose(model.layers[0].W, by_hand.layers[0].W, rtol=1e-12)
    assert np.allclose(model.layers[0].b, by_hand.layers[0].b, rtol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_the_chapter_s_other_name_may_be_the_one_with_a_version_of_its_own(momentum):
    class OtherName(FullLayer):
        def update_params(self, lr):
            pass

    class OtherModel(Sequential):
        def update_params(self, lr):
            self.layers[-2].update_param(lr)

    x, t = samples()
    for first, kind in ((OtherName(4, 3, rng=0), Sequential), (FullLayer(4, 3, rng=0), OtherModel)):
        model = small(first, FullLayer(3, 3, rng=1), SoftMaxLayer(), kind=kind)
        before = first.W.copy(), model.layers[1].W.copy()
        model.fit(x, t, 2, 0.1, 5, momentum=momentum)
        assert np.array_equal(first.W, before[0])
        assert not np.array_equal(model.layers[1].W, before[1])
    assert updater(own.Hidden(2, np.random.default_rng(0))).__name__ == "update_params"
    assert updater(own.Frozen(2, 2)).__name__ == "update_param"
    assert updater(own.Centre()) is None


def test_a_loss_of_one_s_own_may_compare_other_shapes():
    class Likelihood:
        """Of one target under a normal distribution whose mean and spread the network gives."""

        def forward(self, x, t):
            self.s, self.d = np.exp(x[:, 1:]), t - x[:, :1]
            return float(np.mean(x[:, 1:] + 0.5 * (self.d / self.s) ** 2))

        def backward(self):
            return np.hstack([-self.d / self.s ** 2, 1 - (self.d / self.s) ** 2]) / len(self.d)

    x, _ = samples(n=30)
    model = small(FullLayer(4, 2, rng=0), loss=Likelihood())
    target = x[:, :1] + np.random.default_rng(1).standard_normal((30, 1))
    losses = model.fit(x, target, 10, 0.02, 10, validation=(x, target))
    assert losses[-1] < losses[0]
    assert np.isnan(model.evaluate(x, target).accuracy)
    with pytest.raises(ValueError, match=r"y must have shape \(30, ...\), .* got \(30,\)\. .*np.reshape\(y, \(-1, 1\)\)"):
        model.fit(x, x[:, 0], 1, 0.1)


# --- functions between epochs -----------------------------------------------------------------------------------------


def course():
    return small(FullLayer(4, 6, rng=0), ReluLayer(), FullLayer(6, 3, rng=1), SoftMaxLayer())


def seen_by_callbacks(engine, momentum):
    (x, t), model, seen = samples(), course(), []
    model.fit(x, t, 4, lambda epoch: 0.1 + 0 * model.layers[0].W[0, 0], 5, engine=engine, momentum=momentum,
              callbacks=lambda report: seen.append((*model.evaluate(x, t), model.layers[0].W.sum())))
    assert model.history.engine == engine
    return seen


@pytest.mark.parametrize("engine", COMPILED)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_callbacks_see_the_parameters_of_their_epoch(engine, momentum):
    seen = seen_by_callbacks(engine, momentum)
    assert np.allclose(seen_by_callbacks("layers", momentum), seen, rtol=1e-10)
    assert len({loss for loss, *_ in seen}) == 4


def changed_by_a_callback(model, change, **options):
    def after(report):
        if report.epoch != 1:
            return
        if change == "in place":
            model.layers[0].W[np.abs(model.layers[0].W) < 0.3] = 0
        elif change == "assigned":
            model.layers[2].b = np.full((1, 3), 0.5)
        elif change == "method":
            own.replace(model.layers[0], "update_param", own.half_step)
        else:
            model.layers[1] = own.Leaky()

    losses = model.fit(*samples(), 4, 0.1, 5, callbacks=after, **options)
    return losses, model.layers[0].W, model.layers[2].W, model.layers[2].b


@pytest.mark.parametrize("engine", ["layers", *COMPILED])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("change", ["in place", "assigned", "method", "layer"])
def test_callbacks_may_change_the_model(engine, momentum, change):
    by_hand, model = course(), course()
    by_hand.forward = Sequential.forward.__get__(by_hand)  # which has it run layer by layer
    expected = changed_by_a_callback(by_hand, change, momentum=momentum)
    found = changed_by_a_callback(model, change, momentum=momentum, engine=engine)
    assert all(np.allclose(a, b, rtol=1e-10) for a, b in zip(expected, found))
    assert model.history.engine == "layers"
    assert engine == "layers" or "after epoch 2" in model.history.why


def test_what_a_step_left_behind_is_not_shown_as_if_it_were_of_now():
    x, t = samples()
    model = course()
    model.fit(x, t, 1, 0.1)
    found = []
    model.fit(x, t, 2, 0.1, engine="fused", callbacks=lambda report: found.append((model.layers[0].W_grad, model.loss.x)))
    assert found[0] == (None, None)
    assert found[1][0] is model.layers[0].W_grad is not None


def test_which_functions_reach_a_model(tmp_path):
    model, kept, other = course(), [], course()

    class Holder:
        def __init__(self, held):
            self.held = held

        def __call__(self, report):
            kept.append(report.loss)

    def outer(inner):
        return lambda report: inner(report)

    for function in (lambda report: model, Holder({"deep": [model.layers[0]]}), Holder(model.loss).__call__,
                     functools.partial(print, model), outer(lambda report: model.predict), lambda report, m=model: m,
                     lambda report: GLOBALS["model"], Holder(weakref.ref(model))):
        GLOBALS["model"] = model
        assert reaches(function, model)
        GLOBALS.clear()
    for function in (print, kept.append, lambda report: kept.append(report.loss), Holder([1, "a", np.ones(3)]),
                     CSVLogger(tmp_path / "log.csv"), lambda report: np.isfinite(report.loss), lambda report: other.layers):
        assert not reaches(function, model)


GLOBALS = {}


def test_sweeps_train_what_a_user_wrote():
    x, t = samples()

    def build(rng):
        return small(own.Frozen(4, 5, rng=rng), ReluLayer(), own.Clipped(5, 3, rng=rng), SoftMaxLayer(),
                     kind=own.ClippedModel)

    result = lr_sweep(build, x, t, [0.1, 0.5], epochs=3, batch_size=5, seeds=2, validation=(x, t))
    for i, lr in enumerate(result.lrs):
        for seed in range(2):
            model = build(np.random.default_rng(seed))
            losses = model.fit(x, t, 3, lr, 5, validation=(x, t))
            assert np.array_equal(result.losses[i, seed], losses)
            assert np.array_equal(result.val_losses[i, seed], model.history.val_losses)


def test_sweeps_refuse_what_they_would_not_run():
    x, t = samples()

    class Augmenting(Sequential):
        def fit(self, x, *args, **options):
            return super().fit(x + 1, *args, **options)

    with pytest.raises(TypeError, match="lr_sweep: Augmenting has its own fit, which a sweep does not call"):
        lr_sweep(lambda rng: small(FullLayer(4, 3, rng=rng), SoftMaxLayer(), kind=Augmenting), x, t, [0.1], epochs=1)

    def closure(rng):
        model = small(FullLayer(4, 3, rng=rng), SoftMaxLayer())
        model.layers[0].update_param = lambda lr: model.layers[0].W.__isub__(lr * model.layers[0].W_grad)
        return model

    with pytest.raises(TypeError, match=r"layers\[0\].update_param is a function that .* Bind it with types.MethodType"):
        lr_sweep(closure, x, t, [0.1], epochs=1)


# --- networks with interventions --------------------------------------------------------------------------------------

FOREIGN = (own.Gain, own.Hidden, own.Buffered, own.Slotted, own.Noise, own.Residual)
PARAMETERS = {  # of each class: parameter, gradient, whether it decays
    FullLayer: (("W", "W_grad", True), ("b", "b_grad", False)),
    ConvLayer: (("W", "W_grad", True), ("b", "b_grad", False)),
    own.Gain: (("gamma", "dgamma", False), ("beta", "dbeta", True)),
    own.Buffered: (("basis", "basis_grad", True), ("b", "b_grad", False)),
    own.Slotted: (("K", "K_grad", True),),
}


class Case:
    """A network, data and options, decided by a seed."""

    def __init__(self, seed):
        self.rng = rng = np.random.default_rng(seed)
        self.interventions = []
        self.patches = []
        self.dtype = np.dtype(rng.choice([np.float64, np.float64, np.float64, np.float32]))
        self.n, self.n_i, self.n_o = int(rng.integers(1, 13)), int(rng.integers(1, 6)), int(rng.integers(2, 4))
        self.strange = rng.random() < 0.7  # the others are networks that compiled engines know
        self.classes = rng.random() < 0.6
        self.images = rng.random() < 0.1
        self.model = self._model()
        self.options = self._options()

    def intervenes(self, probability, what):
        hit = self.strange and self.rng.random() < probability
        if hit:
            self.interventions.append(what)
        return hit

    def full(self, n_i, n_o):
        kind = FullLayer
        if self.intervenes(0.2, "a subclass of FullLayer"):
            kind = (own.Frozen, own.Clipped, own.Scaled)[self.rng.integers(3)]
        layer = kind(n_i, n_o, dtype=self.dtype, rng=self.rng)
        layer.b = (0.1 * self.rng.standard_normal((1, n_o))).astype(self.dtype)
        if self.intervenes(0.1, "FullLayer's update on the instance"):
            own.replace(layer, "update_param", own.half_step)
        if self.intervenes(0.05, "FullLayer's backward on the instance"):
            own.replace(layer, "backward", own.doubled("backward"))
        return layer

    def activation(self):
        kind = (ReluLayer, ReluLayer, LeakyReluLayer, TanhLayer, None)[self.rng.integers(5)]
        if self.intervenes(0.1, "a subclass of an activation"):
            kind = (own.Leaky, own.Halved)[self.rng.integers(2)]
        if kind is None:
            return []
        layer = kind()
        for name in ("forward", "backward"):
            if self.intervenes(0.05, f"the {name} of an activation on the instance"):
                own.replace(layer, name, own.doubled(name))
        return [layer]

    def convolutions(self):
        """From images (2, 4, 4) to rows of 12."""
        kind = own.FrozenFilters if self.intervenes(0.3, "a subclass of ConvLayer") else ConvLayer
        pool = own.Average if self.intervenes(0.2, "a foreign layer") else MaxPoolLayer
        layers = [kind(2, 3, 3, dtype=self.dtype, rng=self.rng), *self.activation(), pool(), FlattenLayer()]
        if self.intervenes(0.1, "ConvLayer's backward on the instance"):
            own.replace(layers[0], "backward", own.doubled("backward"))
        return layers

    def others(self, width):
        """Some foreign layers."""
        found = []
        while self.intervenes(0.2, "a foreign layer"):
            kind = (own.Centre, *FOREIGN)[self.rng.integers(len(FOREIGN) + 1)]
            found.append(kind() if kind is own.Centre else kind(width, self.rng))
        return found

    def _model(self):
        rng, width, layers = self.rng, self.n_i, self.convolutions() if self.images else self.others(self.n_i)
        if self.images:
            width = 12
        if rng.random() < 0.1:
            layers.append(ReluLayer())
        for _ in range(int(rng.integers(0, 3))):
            n_o = int(rng.integers(1, 7))
            layers += [self.full(width, n_o), *self.activation(), *self.others(n_o)]
            width = n_o
        layers.append(self.full(width, self.n_o))
        if self.classes:
            layers.append(SoftMaxLayer())
            loss = own.OffByOne() if self.intervenes(0.1, "a subclass of CrossEntropyLayer") else CrossEntropyLayer()
            if self.intervenes(0.1, "the loss's forward on the instance"):
                own.replace(loss, "forward", own.doubled("forward"))
        else:
            layers += self.others(self.n_o)
            loss = own.Squares() if self.intervenes(0.5, "a foreign loss") else MeanSquaredErrorLayer()
        kind = own.Named if rng.random() < 0.2 else Sequential
        if self.intervenes(0.25, "a model of the user's"):
            kind = (own.FrozenFirst, own.Shifted, own.ClippedModel, own.LastClass)[rng.integers(4)]
        model = kind(layers if rng.random() < 0.5 else tuple(layers), loss)
        if self.intervenes(0.05, "the model's backward on the instance"):
            own.replace(model, "backward", own.doubled("backward"))
        if self.intervenes(0.05, "FullLayer.update_param on the class"):
            self.patches.append(mock.patch.object(FullLayer, "update_param", own.half_step))
        if self.classes and self.intervenes(0.05, "SoftMaxLayer.forward on the class"):
            plain = SoftMaxLayer.forward
            self.patches.append(mock.patch.object(SoftMaxLayer, "forward", lambda layer, x: plain(layer, 0.5 * x)))
        return model

    def data(self, n):
        x = self.rng.standard_normal((n, 2, 4, 4) if self.images else (n, self.n_i)).astype(self.rng.choice([np.float64, np.float32]))
        if self.classes:
            return x, np.eye(self.n_o, dtype=self.rng.choice([np.float64, np.int64]))[self.rng.integers(0, self.n_o, n)]
        return x, self.rng.standard_normal((n, self.n_o))

    def _options(self):
        rng = self.rng
        self.x, self.t = self.data(self.n)
        options = {"epochs": int(rng.integers(1, 4)), "batch_size": int(rng.choice([1, 3, 5, 20])),
                   "lr": 0.05 if self.classes else 0.01, "momentum": float(rng.choice([0, 0, 0.5, 0.9])),
                   "weight_decay": float(rng.choice([0, 0, 0.01]))}
        if rng.random() < 0.15 and self.dtype == np.float64:
            options.update(optimizer="adam", momentum=0.0, lr=0.01)
        elif rng.random() < 0.3:
            options["lr"] = [0.05 / (1 + epoch) for epoch in range(options["epochs"])]
        if rng.random() < 0.3:
            options.update(shuffle=True, rng=int(rng.integers(100)))
        if rng.random() < 0.3:
            options["validation"] = self.data(int(rng.integers(1, 5)))
        if not self.interventions:
            options["engine"] = str(rng.choice(["auto", "layers", *COMPILED]))
            if options["engine"] in ("gram", "windows") and ("optimizer" in options or not isinstance(
                    self.model.layers[0], FullLayer)):
                options["engine"] = "fused"  # those two are for gradient descent and for a fully connected first layer
        return options


# --- the loop by hand -------------------------------------------------------------------------------------------------


class Loop:
    """Trains a model as its user would write it, layer after layer."""

    def __init__(self, case):
        self.model, self.options, self.dtype = copy.deepcopy(case.model), case.options, case.dtype
        self.x, self.t = case.x.astype(self.dtype), case.t.astype(self.dtype)
        self.own_model = type(self.model) not in (Sequential, own.Named) or "backward" in vars(self.model)
        self.velocity, self.steps = {}, 0
        self.losses, self.validation = [], []

    def run(self):
        options, n = self.options, len(self.x)
        orders = np.random.default_rng(options.get("rng"))
        for epoch in range(options["epochs"]):
            lr = options["lr"][epoch] if isinstance(options["lr"], list) else options["lr"]
            order = orders.permutation(n) if options.get("shuffle") else np.arange(n)
            of_batches = []
            for first in range(0, n, options["batch_size"]):
                rows = order[first:first + options["batch_size"]]
                of_batches.append(self.forward(self.model, self.x[rows], self.t[rows]))
                self.backward()
                self.update(lr)
            self.losses.append(np.mean(of_batches))
            if "validation" in options:
                x, t = (a.astype(self.dtype) for a in options["validation"])
                self.validation.append(self.forward(copy.deepcopy(self.model), x, t))
                self._take_random_numbers(len(x))
        return self

    def forward(self, model, x, t):
        if self.own_model:
            return float(model.forward(x.copy(), t.copy()))
        for layer in model.layers:
            x = layer.forward(np.array(x))  # a copy, as the layer may write into it
        return float(model.loss.forward(np.array(x), t.copy()))

    def backward(self):
        if self.own_model:
            self.model.backward()
            return
        grad = self.model.loss.backward()
        for layer in reversed(self.model.layers):
            grad = layer.backward(grad)

    def update(self, lr):
        kept, adam = [], "optimizer" in self.options
        self.steps += 1
        if self.options["momentum"] or self.options["weight_decay"] or adam:
            for place, layer in enumerate(self.model.layers):
                kind = next((kind for kind in (FullLayer, ConvLayer) if isinstance(layer, kind)), type(layer))
                for name, grad, decays in PARAMETERS.get(kind, ()):
                    value = getattr(layer, grad)
                    change = np.array(value) + decays * self.options["weight_decay"] * getattr(layer, name)
                    if adam:
                        m, v = self.velocity.get((place, name), (0, 0))
                        m, v = self.velocity[place, name] = 0.9 * m + 0.1 * change, 0.999 * v + 0.001 * change ** 2
                        change = m / (1 - 0.9 ** self.steps) / (np.sqrt(v / (1 - 0.999 ** self.steps)) + 1e-8)
                    else:
                        change = self.options["momentum"] * self.velocity.get((place, name), 0) + change
                        self.velocity[place, name] = change
                    kept.append((layer, grad, value))
                    setattr(layer, grad, change.astype(value.dtype))
        if self.own_model:
            self.model.update_param(lr)
        else:
            for layer in self.model.layers:
                update = getattr(layer, "update_param", None) or getattr(layer, "update_params", None)
                if update:
                    update(lr)
        for layer, grad, value in kept:
            setattr(layer, grad, value)

    def _take_random_numbers(self, rows):
        """Validation draws noise as well."""
        width = None
        for layer in self.model.layers:
            if isinstance(layer, FullLayer):
                width = layer.n_o
            if isinstance(layer, own.Noise):
                layer.rng.standard_normal((rows, width or self.x.shape[1]))


def held(value):
    """All arrays in an object, in layers within it and in dicts."""
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, (list, tuple)):
        return [array for inner in value for array in held(inner)]
    if isinstance(value, dict):
        return [array for name in sorted(value) if value[name] is not None for array in held(value[name])]
    settle([value])  # what a fit leaves behind is computed when somebody asks for it
    slots = {name: getattr(value, name, None) for name in getattr(type(value), "__slots__", ()) if not name.startswith("_")}
    return held({**getattr(value, "__dict__", {}), **slots}) if hasattr(value, "forward") else []


def assert_same(one, other, dtype):
    assert len(one) == len(other)
    for a, b in zip(one, other):
        assert a.shape == b.shape
        assert np.allclose(a, b, rtol=2e-3 if dtype == np.float32 else 1e-8, atol=2e-4 if dtype == np.float32 else 1e-9)


@pytest.mark.filterwarnings("ignore:fit. the update of layers:RuntimeWarning")
@pytest.mark.parametrize("part", range(PARTS))
def test_fit_is_the_loop_by_hand(part):
    engines = set()
    for seed in range(part * CASES // PARTS, (part + 1) * CASES // PARTS):
        case = Case(seed)
        given = copy.deepcopy((case.x, case.t, case.options))
        with contextlib.ExitStack() as stack:
            for patch in case.patches:
                stack.enter_context(patch)
            expected = Loop(case).run()
            losses = case.model.fit(case.x, case.t, progress=False, **case.options)
            context = f"case {seed}: {case.interventions}, {case.options}, {case.model!r}"
            engines.add(case.model.history.engine)
            assert (case.model.history.engine in ("layers", "mixed")) == bool(
                case.interventions or case.options.get("engine") == "layers"), context
            try:
                assert_same([losses], [np.array(expected.losses)], case.dtype)
                assert_same(held(case.model.layers), held(expected.model.layers), case.dtype)
                assert_same([np.array(case.model.history.val_losses)], [np.array(expected.validation)], case.dtype)
                assert_same(held(list(given)), held([case.x, case.t, case.options]), case.dtype)
            except AssertionError as error:
                raise AssertionError(context) from error
    assert engines >= {"layers", "fused", "mixed"}
