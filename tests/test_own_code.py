"""Whatever a user wrote runs: `fit` is a loop by hand over forward, backward and update_param, or it raises.

The property test at the end draws networks of fastnet's layers and of others (`own_code`), with overrides in every place,
and compares `fit` with that loop.
"""
import contextlib
import copy
import warnings
from unittest import mock

import numpy as np
import own_code as own
import pytest

from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer

CASES, PARTS = 2000, 20  # of the property test; a part's number and a case's seed say what failed
COMPILED = ("fused", "gram", "windows")

# --- networks with interventions --------------------------------------------------------------------------------------

FOREIGN = (own.Gain, own.Hidden, own.Buffered, own.Slotted, own.Noise, own.Residual)
PARAMETERS = {  # of each class: parameter, gradient, whether it decays
    FullLayer: (("W", "W_grad", True), ("b", "b_grad", False)),
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
        self.classes = not self.strange or rng.random() < 0.6
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

    def others(self, width):
        """Some foreign layers."""
        found = []
        while self.intervenes(0.2, "a foreign layer"):
            kind = (own.Centre, *FOREIGN)[self.rng.integers(len(FOREIGN) + 1)]
            found.append(kind() if kind is own.Centre else kind(width, self.rng))
        return found

    def _model(self):
        rng, width, layers = self.rng, self.n_i, self.others(self.n_i)
        for _ in range(int(rng.integers(0, 3))):
            n_o = int(rng.integers(1, 7))
            relu = own.Leaky() if self.intervenes(0.1, "a subclass of ReluLayer") else ReluLayer()
            if self.intervenes(0.05, "ReluLayer's forward on the instance"):
                own.replace(relu, "forward", own.doubled("forward"))
            layers += [self.full(width, n_o), relu, *self.others(n_o)]
            width = n_o
        layers.append(self.full(width, self.n_o))
        if self.classes:
            layers.append(SoftMaxLayer())
            loss = own.OffByOne() if self.intervenes(0.1, "a subclass of CrossEntropyLayer") else CrossEntropyLayer()
            if self.intervenes(0.1, "the loss's forward on the instance"):
                own.replace(loss, "forward", own.doubled("forward"))
        else:
            layers += self.others(self.n_o)
            self.interventions.append("a foreign loss")
            loss = own.Squares()
        kind = own.Named if rng.random() < 0.2 else Sequential
        if self.intervenes(0.25, "a model of the user's"):
            kind = (own.FrozenFirst, own.Shifted, own.ClippedModel, own.LastClass)[rng.integers(4)]
        model = kind(layers if rng.random() < 0.5 else tuple(layers), loss)
        if self.intervenes(0.05, "the model's backward on the instance"):
            own.replace(model, "backward", own.doubled("backward"))
        if self.intervenes(0.05, "FullLayer.update_param on the class"):
            self.patches.append(mock.patch.object(FullLayer, "update_param", own.half_step))
        if self.intervenes(0.05, "SoftMaxLayer.forward on the class"):
            plain = SoftMaxLayer.forward
            self.patches.append(mock.patch.object(SoftMaxLayer, "forward", lambda layer, x: plain(layer, 0.5 * x)))
        return model

    def data(self, n):
        x = self.rng.standard_normal((n, self.n_i)).astype(self.rng.choice([np.float64, np.float32]))
        if self.classes:
            return x, np.eye(self.n_o, dtype=self.rng.choice([np.float64, np.int64]))[self.rng.integers(0, self.n_o, n)]
        return x, self.rng.standard_normal((n, self.n_o))

    def _options(self):
        rng = self.rng
        self.x, self.t = self.data(self.n)
        options = {"epochs": int(rng.integers(1, 4)), "batch_size": int(rng.choice([1, 3, 5, 20])), "lr": 0.05,
                   "momentum": float(rng.choice([0, 0, 0.5, 0.9])), "weight_decay": float(rng.choice([0, 0, 0.01]))}
        if rng.random() < 0.3:
            options["lr"] = [0.05 / (1 + epoch) for epoch in range(options["epochs"])]
        if rng.random() < 0.3:
            options.update(shuffle=True, rng=int(rng.integers(100)))
        if rng.random() < 0.3:
            options["validation"] = self.data(int(rng.integers(1, 5)))
        if not self.interventions:
            options["engine"] = str(rng.choice(["auto", "layers", *COMPILED]))
        return options


# --- the loop by hand -------------------------------------------------------------------------------------------------


class Loop:
    """Trains a model as its user would write it, layer after layer."""

    def __init__(self, case):
        self.model, self.options, self.dtype = copy.deepcopy(case.model), case.options, case.dtype
        self.x, self.t = case.x.astype(self.dtype), case.t.astype(self.dtype)
        self.own_model = type(self.model) not in (Sequential, own.Named) or "backward" in vars(self.model)
        self.velocity = {}
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
        kept = []
        if self.options["momentum"] or self.options["weight_decay"]:
            for place, layer in enumerate(self.model.layers):
                kind = FullLayer if isinstance(layer, FullLayer) else type(layer)
                for name, grad, decays in PARAMETERS.get(kind, ()):
                    value = getattr(layer, grad)
                    change = np.array(value) + decays * self.options["weight_decay"] * getattr(layer, name)
                    change = self.velocity[place, name] = self.options["momentum"] * self.velocity.get((place, name), 0) + change
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
    slots = {name: getattr(value, name, None) for name in getattr(type(value), "__slots__", ())}
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
            assert (case.model.history.engine == "layers") == bool(
                case.interventions or case.options.get("engine") == "layers"), context
            try:
                assert_same([losses], [np.array(expected.losses)], case.dtype)
                assert_same(held(case.model.layers), held(expected.model.layers), case.dtype)
                assert_same([np.array(case.model.history.val_losses)], [np.array(expected.validation)], case.dtype)
                assert_same(held(list(given)), held([case.x, case.t, case.options]), case.dtype)
            except AssertionError as error:
                raise AssertionError(context) from error
    assert engines >= {"layers", "fused"}
