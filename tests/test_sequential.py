"""Sequential: against a network written by hand, training, layers of a user's own, then error texts."""
import copy
import pickle
from itertools import pairwise

import numpy as np
import pytest
from helpers import LAYOUTS, laid_out, one_hot_rows, refuses, same

import fastnet
from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer, gradcheck


def network(widths=(7, 6, 3), dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    layers = []
    for n_i, n_o in pairwise(widths):
        layers += [FullLayer(n_i, n_o, dtype=dtype, rng=rng), ReluLayer()]
    return Sequential((*layers[:-1], SoftMaxLayer()), loss=CrossEntropyLayer())


def data(n=20, n_i=7, n_classes=3, dtype=np.float64):
    rng = np.random.default_rng(1)
    return rng.standard_normal((n, n_i)).astype(dtype), one_hot_rows(rng, n, n_classes, dtype)


def parameters(model):
    return [a for layer in model.layers if isinstance(layer, FullLayer) for a in (layer.W, layer.b)]


def train_by_hand(parameters, x, t, epochs, lr, batch_size):
    """The chapter's network in plain NumPy; returns the epoch losses and the trained parameters."""
    Ws, bs = [W.copy() for W in parameters[::2]], [b.copy() for b in parameters[1::2]]
    losses = []
    for _ in range(epochs):
        batch_losses = []
        for start in range(0, len(x), batch_size):
            hs, T = [x[start:start + batch_size]], t[start:start + batch_size]
            for W, b in zip(Ws[:-1], bs[:-1], strict=True):
                hs.append(np.maximum(hs[-1] @ W.T + b, 0))
            z = hs[-1] @ Ws[-1].T + bs[-1]
            p = np.exp(z - z.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            batch_losses.append(-np.sum(T * np.log(p)) / len(T))
            d = (p - T) / len(T)
            for k in reversed(range(len(Ws))):
                dW, db, d = d.T @ hs[k], d.sum(axis=0, keepdims=True), (d @ Ws[k]) * (hs[k] > 0)
                Ws[k], bs[k] = Ws[k] - lr * dW, bs[k] - lr * db
        losses.append(np.mean(batch_losses))
    return np.array(losses), [a for pair in zip(Ws, bs, strict=True) for a in pair]


@pytest.mark.parametrize("widths", [(7, 3), (7, 6, 3), (7, 6, 5, 4, 3)])
@pytest.mark.parametrize("batch_size", [1, 7, 20, 1000])
def test_fit_is_the_network_written_by_hand(widths, batch_size):
    model, (x, t) = network(widths), data()
    losses, trained = train_by_hand(parameters(model), x, t, 3, 0.1, batch_size)
    found = model.fit(x, t, epochs=3, lr=0.1, batch_size=batch_size)
    assert found.shape == (3,)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, losses, rtol=1e-12)
    for a, b in zip(parameters(model), trained, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


def test_loop_written_by_hand_is_fit():
    """As the chapter's deliverable asks for: forward, backward, update_param for each batch."""
    model, (x, t) = network(), data()
    fitted = copy.deepcopy(model)
    expected = fitted.fit(x, t, epochs=2, lr=0.1, batch_size=8)
    for epoch in range(2):
        losses = []
        for start in range(0, 20, 8):
            losses.append(model.forward(x[start:start + 8], t[start:start + 8]))
            model.backward()
            model.update_params(0.1)
        assert np.mean(losses) == pytest.approx(expected[epoch], rel=1e-12)
    for layer, other in zip(model.layers, fitted.layers, strict=True):
        for name, value in vars(layer).items():  # also x, y and the gradients of the last batch
            np.testing.assert_allclose(getattr(other, name), value, rtol=1e-10, atol=1e-13, err_msg=name)


def test_fit_in_float32_stays_there():
    model, (x, t) = network(dtype=np.float32), data()
    expected, _ = train_by_hand([a.astype(np.float64) for a in parameters(model)], x, t, 5, 0.1, 8)
    np.testing.assert_allclose(model.fit(x, t, 5, 0.1, 8), expected, rtol=1e-5)
    held = [v for layer in model.layers for v in vars(layer).values() if isinstance(v, np.ndarray)]
    assert {a.dtype for a in held} == {np.dtype(np.float32)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_and_type_of_the_data_do_not_matter(layout):
    x, t = data()
    x = np.round(4 * x)
    expected = network().fit(x, t, 2, 0.1, 8)
    for kind in ("<f8", ">f4", "i2"):
        given = laid_out(x.astype(kind), layout)
        before = given.copy()
        assert np.array_equal(network().fit(given, laid_out(t, layout), 2, 0.1, 8), expected)
        assert np.array_equal(given, before)


def test_a_seeded_run_is_the_same_twice():
    np.random.seed(4)
    first = Sequential([FullLayer(7, 3), SoftMaxLayer()], CrossEntropyLayer()).fit(*data(), 3, 0.1)
    np.random.seed(4)
    assert np.array_equal(first, Sequential([FullLayer(7, 3), SoftMaxLayer()], CrossEntropyLayer()).fit(*data(), 3, 0.1))


def test_gradients_of_a_whole_network_are_the_numerical_ones():
    model, (x, t) = network((7, 6, 5, 3)), data(6)
    report = gradcheck(model, x, t)
    assert report
    names = [f"layers[{i}].{name}" for i in (0, 2, 4) for name in "Wb"]
    assert [a.name for a in report.arrays] == ["x", *names]


def test_forward_predict_and_backward():
    model, (x, t) = network(), data()
    p = model.forward(x)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    loss = model.forward(x, t)
    assert type(loss) is float
    assert loss == pytest.approx(-np.log(p[t == 1]).mean())
    assert model.backward().shape == x.shape
    labels = model.predict(x)
    assert labels.dtype.kind == "i"
    assert np.array_equal(labels, p.argmax(axis=1))


def test_layers_in_a_list_can_grow():
    model = Sequential([FullLayer(7, 4)], loss=CrossEntropyLayer())
    model.layers += [ReluLayer(), FullLayer(4, 3), SoftMaxLayer()]
    assert model.forward(data()[0]).shape == (20, 3)
    assert Sequential((layer for layer in model.layers), model.loss).layers == tuple(model.layers)


class Scale:
    """A layer as a student writes it: one factor per column, updated in place, the chapter's other spellings."""

    def __init__(self, n):
        self.s = np.linspace(0.5, 1.5, n)

    def forward(self, x):
        self.x = x
        return x * self.s

    def backward(self, y_grad):
        self.s_grad = (y_grad * self.x).sum(axis=0)
        return y_grad * self.s

    def update_params(self, lr):
        self.s -= lr * self.s_grad


class Square:
    """A layer with nothing to learn, and no update_param."""

    def forward(self, x):
        self.x = x
        return x * x

    def backward(self, y_grad):
        return 2 * self.x * y_grad


def test_layers_of_a_user_s_own():
    model = Sequential([FullLayer(7, 6, rng=0), Scale(6), Square(), FullLayer(6, 3, rng=1), SoftMaxLayer()],
                       loss=CrossEntropyLayer())
    x, t = data()
    assert gradcheck(model, x, t)
    factors = model.layers[1].s.copy()
    losses = model.fit(x, t, epochs=20, lr=0.1, batch_size=5)
    assert losses[-1] < losses[0]
    assert not np.array_equal(model.layers[1].s, factors)
    assert "1  Scale         (n, 6)    (n, ...)           6" in model.summary()


class Interrupt(ReluLayer):
    """Stands for Ctrl-C in the middle of an epoch."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        if self.calls == 8:
            raise KeyboardInterrupt
        return super().forward(x)


def test_interrupted_fit_leaves_the_last_complete_epoch():
    x, t = data()
    interrupted, expected = (
        Sequential([FullLayer(7, 6, rng=0), Scale(6), relu, FullLayer(6, 3, rng=1), SoftMaxLayer()], CrossEntropyLayer())
        for relu in (Interrupt(), ReluLayer())
    )
    expected.fit(x, t, epochs=2, lr=0.1, batch_size=8, engine="layers")  # 3 batches an epoch: the interrupt is in the third
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit(x, t, epochs=5, lr=0.1, batch_size=8, engine="layers")
    interrupted.layers[2].calls = 0
    for layer, other in zip(interrupted.layers, expected.layers, strict=True):
        assert all(same(value, vars(layer)[name]) for name, value in vars(other).items())


def test_pickle_and_deepcopy_of_a_fitted_model():
    model, (x, t) = network(), data()
    model.fit(x, t, 2, 0.1, 8)
    copies = pickle.loads(pickle.dumps(model)), copy.deepcopy(model)
    further = model.fit(x, t, 2, 0.1, 8)
    for other in copies:
        assert np.array_equal(other.fit(x, t, 2, 0.1, 8), further)
        assert np.array_equal(other.predict(x), model.predict(x))


def test_a_diverged_run_shows_as_one():
    model, (x, t) = network(), data()
    with np.errstate(all="ignore"), pytest.warns(RuntimeWarning, match="diverged in epoch 1"):
        losses = model.fit(1e200 * x, t, epochs=3, lr=1e200)
    assert not np.isfinite(losses[-1])


def test_summary_and_repr():
    model = network((3072, 500, 5), np.float32)
    assert model.summary().splitlines() == [
        "   layer         input      output    parameters",
        "-  ------------  ---------  --------  ----------",
        "0  FullLayer     (n, 3072)  (n, 500)   1,536,500",
        "1  ReluLayer     (n, 500)   (n, 500)           0",
        "2  FullLayer     (n, 500)   (n, 5)         2,505",
        "3  SoftMaxLayer  (n, 5)     (n, 5)             0",
        "loss: CrossEntropyLayer; 1,539,005 parameters of float32",
    ]
    assert eval(repr(model), {**vars(fastnet), "float32": np.float32}).summary() == model.summary()


@pytest.mark.parametrize(("layers", "error", "match"), [
    ((), ValueError, "layers is empty"),
    (FullLayer(2, 2), TypeError, "must be a tuple or a list of layers"),
    ((FullLayer(2, 2), ReluLayer), TypeError, r"layers\[1\] is the class ReluLayer.*Instantiate it: ReluLayer\("),
    ((FullLayer(2, 2), "relu"), TypeError, r"layers\[1\] is 'relu', which has no method forward"),
    ((FullLayer(2, 3), ReluLayer(), FullLayer(4, 2)), ValueError,
     r"layers\[2\], FullLayer\(4, 2\), takes 4 values per sample, but layers\[0\] returns 3. Make the n_i"),
    ([ReluLayer()] * 2, ValueError, r"layers\[0\] and layers\[1\] are the same ReluLayer\(\)"),
])
def test_construction_mistakes(layers, error, match):
    with pytest.raises(error, match="Sequential: .*" + match):
        Sequential(layers, CrossEntropyLayer())


def test_loss_mistakes():
    with pytest.raises(TypeError, match="loss is the class CrossEntropyLayer"):
        Sequential([FullLayer(2, 2)], CrossEntropyLayer)
    with pytest.raises(TypeError, match="loss is None, which has no method forward"):
        Sequential([FullLayer(2, 2)], None)


@pytest.mark.parametrize(("change", "error", "match"), [
    ({"y": np.zeros(20, int)}, ValueError, r"labels of shape \(20,\). Convert them: fastnet.one_hot\(y, 3\)"),
    ({"y": np.zeros((20, 1), int)}, ValueError, r"fastnet.one_hot\(np.ravel\(y\), 3\)"),
    ({"y": np.eye(4)[np.zeros(20, int)]}, ValueError, r"y must have shape \(20, 3\), got \(20, 4\).*3 values per sample"),
    ({"y": np.eye(3)}, ValueError, r"y must have shape \(20, 3\), got \(3, 3\). Give one row per sample"),
    ({"y": np.full((20, 3), np.nan)}, ValueError, r"y must be finite, but y\[0, 0\] is nan"),
    ({"y": None}, TypeError, "y must be an array, got None"),
    ({"x": np.zeros(7)}, ValueError, r"x must have shape \(n, 7\), got \(7,\)"),
    ({"x": np.zeros((20, 2, 7))}, ValueError, "Flatten each sample"),
    ({"x": np.zeros((20, 8))}, ValueError, r"x must have shape \(n, 7\), one row per sample, got \(20, 8\)"),
    ({"x": np.zeros((0, 7)), "y": np.zeros((0, 3))}, ValueError, "x is empty"),
    ({"x": np.full((20, 7), np.inf)}, ValueError, r"x must be finite, but x\[0, 0\] is inf"),
    ({"x": np.full((20, 7), "cat")}, TypeError, "x must hold real numbers"),
    ({"x": np.zeros((20, 7), complex)}, TypeError, "x must hold real numbers, got dtype complex128"),
    ({"x": np.zeros((20, 7), object)}, TypeError, "x must hold real numbers, got dtype object"),
    ({"x": [[1.0] * 7] * 19 + [[1.0]]}, ValueError, "x is not an array"),
    ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
    ({"epochs": 2.5}, TypeError, "epochs must be a whole number, got 2.5"),
    ({"lr": -0.1}, ValueError, "the learning rate must be finite and not negative, got -0.1"),
    ({"lr": np.nan}, ValueError, "the learning rate must be finite and not negative, got nan"),
    ({"lr": None}, TypeError, "the learning rate must be a number, got None"),
    ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
    ({"batch_size": "all"}, TypeError, "batch_size must be a whole number, got 'all'"),
])
def test_fit_mistakes(change, error, match):
    model, (x, t) = network(), data()
    model.fit(x, t, 1, 0.1)
    arguments = {"x": x, "y": t, "epochs": 1, "lr": 0.1, **change}
    with refuses(error, "Sequential.fit: .*" + match, model):
        model.fit(**arguments)


def test_fit_names_the_first_bad_number():
    model, (x, t) = network(), data()
    x[3, 2] = x[5, 1] = np.nan
    with refuses(ValueError, r"x\[3, 2\] is nan", model):
        model.fit(x, t, 1, 0.1)
    assert np.isnan(model.forward(x)[3]).all()  # forward lets it through


def test_call_mistakes_change_no_layer():
    model, (x, t) = network(), data()
    with refuses(RuntimeError, r"x has not been computed; call forward\(\) first", model):
        model.backward()
    with refuses(RuntimeError, "W_grad has not been computed", model):
        model.update_param(0.1)
    model.forward(x, t)
    with refuses(ValueError, "Convert them: fastnet.one_hot", model):
        model.forward(x + 1, t.argmax(axis=1))
    with refuses(ValueError, r"x must have shape \(n, 7\)", model):
        model.predict(x[:, 1:])
    with refuses(ValueError, "x is empty", model):
        model.predict(x[:0])
    model.layers[2].n_i = 5
    with refuses(ValueError, r"layers\[2\], FullLayer\(5, 3\), takes 5 values per sample, but layers\[0\] returns 6", model):
        model.forward(x)
    model.layers[2].n_i = 6
    model.layers[2].W_grad = np.ones((3, 6))
    with refuses(RuntimeError, "W_grad has not been computed", model):  # the first layer's
        model.update_param(0.1)
    with refuses(ValueError, "not negative", model):
        model.update_param(-1)


def test_predict_needs_rows_of_scores():
    model = Sequential([ReluLayer()], CrossEntropyLayer())
    with refuses(ValueError, r"a row of class scores per sample, got shape \(2, 3, 4\)", model):
        model.predict(np.ones((2, 3, 4)))
