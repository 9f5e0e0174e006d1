"""Whether a user-defined layer can reach other layers of its network, which segments then must not compile."""
import contextvars
import functools
import sys
import threading
import types
import weakref

import numpy as np
import pytest

from fastnet import CrossEntropyLayer, FullLayer, Sequential, SoftMaxLayer, one_hot
from fastnet.training.reaching import reaches

STATE = types.SimpleNamespace(model=None)
VARIABLE = contextvars.ContextVar("VARIABLE", default=None)
LOCAL = threading.local()
HELD = types.ModuleType("held_by_tests")
HELD.inner = types.ModuleType("held_by_tests.inner")


KEEPERS = {}


def kept(keep):
    """Decorator: ``keep(reader, model)`` puts the model where the class reads it. The class itself does not refer to it."""
    def register(klass):
        KEEPERS[klass] = keep
        return klass

    return register


@kept(lambda reader, model: None)
class Reader:
    """Gives back its input, and in its backward pass notes the sum of the weights of the network's first layer."""

    def __init__(self):
        self.sums = []

    def forward(self, x):
        return x

    def backward(self, y_grad):
        found = self.read()
        self.sums.append(float((found.layers[0] if hasattr(found, "layers") else found).W.sum()))
        return y_grad


@kept(lambda reader, model: setattr(reader, "first", model.layers[0]))
class Attribute(Reader):
    def read(self):
        return self.first


@kept(lambda reader, model: setattr(ClassAttribute, "held", [model]))
class ClassAttribute(Reader):
    held = ()

    def read(self):
        return self.held[0]


@kept(lambda reader, model: setattr(reader, "get", lambda: model))
class Closure(Reader):
    def read(self):
        return self.get()


@kept(lambda reader, model: setattr(reader, "get", functools.partial(getattr, model, "layers")))
class Partial(Reader):
    def read(self):
        return self.get()[0]


@kept(lambda reader, model: setattr(reader, "get", weakref.ref(model)))
class Reference(Reader):
    def read(self):
        return self.get()


@kept(lambda reader, model: setattr(reader, "model", weakref.proxy(model)))
class Proxy(Reader):
    def read(self):
        return self.model


@kept(lambda reader, model: setattr(STATE, "model", model))
class Global(Reader):
    def read(self):
        return STATE.model


@kept(lambda reader, model: setattr(STATE, "model", model))
class GlobalByName(Reader):
    def read(self):
        return globals()["STATE"].model


@kept(lambda reader, model: setattr(HELD, "model", model))
class OfModule(Reader):
    def read(self):
        return HELD.model


@kept(lambda reader, model: setattr(HELD, "model", model))
class OfModuleByName(Reader):
    def read(self):
        return vars(HELD)["model"]


@kept(lambda reader, model: setattr(HELD.inner, "model", model))
class OfInnerModule(Reader):
    def read(self):
        return HELD.inner.model


@kept(lambda reader, model: setattr(HELD, "model", model))
class LocalImport(Reader):
    def read(self):
        import held_by_tests

        return held_by_tests.model


@kept(lambda reader, model: setattr(HELD.inner, "model", model))
class LocalFromImport(Reader):
    def read(self):
        from held_by_tests.inner import model

        return model


@kept(lambda reader, model: setattr(HELD, "model", model))
class OfModules(Reader):
    def read(self):
        return sys.modules["held_by_tests"].model


@kept(lambda reader, model: VARIABLE.set(model))
class OfContext(Reader):
    def read(self):
        return VARIABLE.get()


@kept(lambda reader, model: setattr(LOCAL, "model", model))
class OfThread(Reader):
    def read(self):
        return LOCAL.model


FORMS = [klass for klass in KEEPERS if klass is not Reader]


@pytest.fixture(autouse=True)
def places(monkeypatch):
    monkeypatch.setitem(sys.modules, "held_by_tests", HELD)
    monkeypatch.setitem(sys.modules, "held_by_tests.inner", HELD.inner)
    yield
    STATE.model = None
    VARIABLE.set(None)
    for place in (HELD, HELD.inner, LOCAL):
        vars(place).pop("model", None)
    ClassAttribute.held = ()


def network(klass):
    rng, reader = np.random.default_rng(0), klass()
    model = Sequential([FullLayer(9, 300, rng=rng), reader, FullLayer(300, 3, rng=rng), SoftMaxLayer()], CrossEntropyLayer())
    KEEPERS[klass](reader, model)
    return model, reader


@pytest.mark.parametrize("klass", FORMS)
def test_a_layer_that_reads_another_sees_the_weights_of_its_mini_batch(klass):
    rng = np.random.default_rng(1)
    x, t = rng.standard_normal((200, 9)), one_hot(rng.integers(0, 3, 200))
    seen = []
    for engine in ("auto", "layers"):
        model, reader = network(klass)
        model.fit(x, t, 2, 0.5, 32, engine=engine)
        seen.append(reader.sums)
    assert len(set(seen[1])) == 14
    np.testing.assert_allclose(*seen, rtol=1e-12)


@pytest.mark.parametrize("klass", FORMS)
def test_it_is_found(klass):
    model, reader = network(klass)
    assert reaches(reader, model)


def test_a_layer_that_reads_no_other_is_not_found():
    model, reader = network(Reader)
    assert not reaches(reader, model)


def test_a_proxy_whose_object_is_gone():
    model, reader = network(Reader)
    reader.gone = weakref.proxy(network(Reader)[0])
    assert not reaches(reader, model)
