"""Where a compiled engine may stand in: nowhere that a user's own code would have run."""
import copy
import pickle
import types
from unittest import mock

import numpy as np
import pytest
from numpy_loop import clusters

from fastnet import CrossEntropyLayer, FullLayer, LeakyReluLayer, ReluLayer, Sequential, SoftMaxLayer, TanhLayer
from fastnet.layer import overridden
from fastnet.training.eligibility import unsupported_layer_reason, unsupported_reason


def course(kind=Sequential, full=FullLayer, relu=ReluLayer, softmax=SoftMaxLayer, loss=CrossEntropyLayer):
    return kind((full(6, 5, rng=0), relu(), FullLayer(5, 3, rng=1), softmax()), loss=loss())


class Frozen(FullLayer):
    def update_param(self, lr):
        pass


class Renamed(FullLayer):
    """Changes nothing, but nobody can know that without running it."""


class Named(Sequential):
    """As many write it: only the construction is its own."""

    def __init__(self):
        super().__init__((FullLayer(6, 3, rng=0), SoftMaxLayer()), loss=CrossEntropyLayer())

    def fit(self, *args, **options):
        return super().fit(*args, **options)

    def evaluate(self, *args):
        return super().evaluate(*args)

    def accuracy(self):
        return 1


def replaced(part, name):
    model = course()
    owner = {"model": model, "loss": model.loss, "full": model.layers[0], "softmax": model.layers[-1]}[part]
    setattr(owner, name, types.MethodType(lambda self, *args: None, owner))
    return model


def subclass(base, **members):
    return type("Own", (base,), members)


INTERVENTIONS = {
    "subclass of a layer": (lambda: course(full=Frozen), "layers[0]: Frozen is a subclass of FullLayer"),
    "subclass that adds nothing": (lambda: course(full=Renamed), "layers[0]: Renamed is a subclass of FullLayer"),
    "subclass of ReLU": (lambda: course(relu=subclass(ReluLayer)), "layers[1]: Own is a subclass of ReluLayer"),
    "subclass of the loss": (lambda: course(loss=subclass(CrossEntropyLayer)), "loss: Own is a subclass of"),
    "foreign layer": (lambda: course(relu=lambda: types.SimpleNamespace(forward=abs, backward=abs)),
                      "layers[1]: SimpleNamespace is not a class that"),
    "layer's update": (lambda: replaced("full", "update_param"), "layers[0]: update_param of this FullLayer has been replaced"),
    "layer's forward": (lambda: replaced("softmax", "forward"), "layers[3]: forward of this SoftMaxLayer"),
    "loss's forward": (lambda: replaced("loss", "forward"), "loss: forward of this CrossEntropyLayer"),
    "loss's backward": (lambda: replaced("loss", "backward"), "loss: backward of this CrossEntropyLayer"),
    "model's update": (lambda: replaced("model", "update_param"), "update_param of this Sequential has been replaced"),
    "model's predict": (lambda: replaced("model", "predict"), "predict of this Sequential has been replaced"),
    **{f"Sequential with its own {name}": (lambda name=name: course(subclass(Sequential, **{name: lambda self, *_: None})),
                                           f"Own has its own {name}")
       for name in ("forward", "backward", "update_param", "update_params", "predict", "output_width")},
    "Sequential with a hook": (lambda: course(subclass(Sequential, __setattr__=object.__setattr__)),
                               "Own has its own __setattr__"),
    "Sequential with its own dtype": (lambda: course(subclass(Sequential, dtype=np.dtype(np.float64))), "Own has its own dtype"),
    "own layers": (lambda: course(subclass(Sequential, layers=property(
        lambda self: self.__dict__["stack"], lambda self, given: self.__dict__.update(stack=given)))),
        "Own has its own layers"),
}


@pytest.mark.parametrize("how", INTERVENTIONS)
def test_whatever_a_user_changed_is_seen_and_named(how):
    build, reason = INTERVENTIONS[how]
    assert reason in unsupported_reason(build())


def test_fit_explain_and_history_say_why():
    x, t = clusters(20, 6, 3)
    model = course(full=Frozen)
    why = "layers[0]: Frozen is a subclass of FullLayer"
    with pytest.raises(ValueError, match=r"engine='fused' cannot train this: layers\[0\]: Frozen is a subclass"):
        model.fit(x, t, 1, 0.1, engine="fused")
    assert why in str(model.explain(x, t, 1))
    before = model.layers[0].W.copy()
    model.fit(x, t, 1, 0.1)
    assert model.history.engine == "mixed"  # the other layers are compiled, this one runs as it is written
    assert why in model.history.why
    assert np.array_equal(model.layers[0].W, before)


@pytest.mark.parametrize(("klass", "name"), [
    (FullLayer, "forward"), (FullLayer, "update_param"), (FullLayer, "W"), (FullLayer, "dtype"), (ReluLayer, "backward"),
    (SoftMaxLayer, "forward"), (CrossEntropyLayer, "backward"), (Sequential, "update_param"), (Sequential, "forward"),
])
def test_methods_replaced_on_the_class_are_seen(klass, name):
    model = course()
    with mock.patch.object(klass, name, mock.DEFAULT):
        assert f"{klass.__name__}.{name} has been replaced" in unsupported_reason(model)
    assert unsupported_reason(model) is None


def test_hooks_added_to_the_class_are_seen():
    FullLayer.__setattr__ = object.__setattr__
    try:
        assert "FullLayer.__setattr__ has been replaced" in unsupported_reason(course())
    finally:
        del FullLayer.__setattr__
    assert unsupported_reason(course()) is None


@pytest.mark.parametrize("change", [
    lambda model: model, copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), lambda model: Named(),
])
def test_what_changes_nothing_that_runs_stays_compiled(change):
    model = change(course())
    model.note = model.layers[0].name = "mine"  # data that no method reads
    assert unsupported_reason(model) is None


@pytest.mark.parametrize("kind", [LeakyReluLayer, TanhLayer])
def test_inherited_methods_are_watched_as_well(kind):
    """Activations share their methods."""
    assert unsupported_layer_reason(kind()) is None
    for name in ("forward", "backward", "output_shape"):
        layer = kind()
        setattr(layer, name, types.MethodType(lambda self, x: x, layer))
        assert unsupported_layer_reason(layer) == f"{name} of this {kind.__name__} has been replaced"
        base = next(klass for klass in kind.__mro__ if name in vars(klass))
        for owner in {base, kind}:
            with mock.patch.object(owner, name, mock.DEFAULT):
                assert unsupported_layer_reason(kind()) == f"{owner.__name__}.{name} has been replaced"
        assert unsupported_layer_reason(kind()) is None


def test_changes_after_the_construction_are_seen():
    model = Sequential([FullLayer(4, 4, rng=0), ReluLayer(), FullLayer(4, 4, rng=1), SoftMaxLayer()], CrossEntropyLayer())
    model.layers[2] = model.layers[0]
    assert "layers[0] and layers[2] are the same FullLayer" in unsupported_reason(model)
    model.layers[2] = FullLayer(4, 4, np.float32, rng=1)
    assert "several dtypes (float32, float64)" in unsupported_reason(model)
    model.layers[2] = FullLayer(4, 4, rng=1)
    model.layers.insert(3, ReluLayer())
    assert unsupported_reason(model) is None
    model.layers.insert(3, SoftMaxLayer())
    assert unsupported_reason(model) is None
    del model.layers[3:]
    assert "CrossEntropyLayer only after SoftMaxLayer" in unsupported_reason(model)
    model.layers[0] = FullLayer(5, 4, rng=0)
    assert unsupported_reason(model, (7,)) == "FullLayer takes samples of 5 values, not of the shape (7,)"


def test_one_layer_can_be_asked_about():
    assert unsupported_layer_reason(FullLayer(2, 2, rng=0)) is None
    assert unsupported_layer_reason(Renamed(2, 2, rng=0)) == "Renamed is a subclass of FullLayer"
    assert overridden(ReluLayer(), FullLayer) == "ReluLayer is not FullLayer"
