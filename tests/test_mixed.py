"""Compiled segments with layers of the user's between them: what layer-by-layer training gives, each called once a batch."""
import numpy as np
import own_code as own
import pytest
from helpers import refuses

from fastnet import CrossEntropyLayer, FullLayer, LeakyReluLayer, ReluLayer, Sequential, SoftMaxLayer, one_hot
from fastnet.layer import parameters
from fastnet.training.mixed import segments, unsupported_mixed_reason


class Counted(own.Gain):
    """Counts its calls."""

    def __init__(self, width, rng):
        super().__init__(width, rng)
        self.calls = [0, 0, 0]

    def forward(self, x):
        self.calls[0] += 1
        return super().forward(x)

    def backward(self, y_grad):
        self.calls[1] += 1
        return super().backward(y_grad)

    def update_param(self, lr):
        self.calls[2] += 1
        super().update_param(lr)


class Squares:
    """A loss of the user's."""

    def forward(self, x, t):
        self.x, self.t = x, t
        return float(np.mean((x - t) ** 2))

    def backward(self):
        return 2 * (self.x - self.t) / self.x.size


def stacks(dtype):
    rng = np.random.default_rng(7)

    def full(n_i, n_o):
        return FullLayer(n_i, n_o, dtype, rng)

    return {
        "in the middle": lambda: [full(9, 17), ReluLayer(), Counted(17, rng), full(17, 6), ReluLayer(), full(6, 3), SoftMaxLayer()],
        "first": lambda: [Counted(9, rng), full(9, 6), LeakyReluLayer(), full(6, 3), SoftMaxLayer()],
        "before the softmax": lambda: [full(9, 6), ReluLayer(), full(6, 3), Counted(3, rng), SoftMaxLayer()],
        "last": lambda: [full(9, 6), ReluLayer(), full(6, 3), SoftMaxLayer(), own.Centre()],
        "several": lambda: [own.Centre(), full(9, 6), own.Noise(6, rng), Counted(6, rng), full(6, 5), own.Buffered(5, rng),
                            ReluLayer(), full(5, 3), SoftMaxLayer()],
        "frozen": lambda: [full(9, 6), ReluLayer(), own.Frozen(6, 6, dtype, rng), full(6, 3), SoftMaxLayer()],
        "softmax inside": lambda: [full(9, 6), SoftMaxLayer(), full(6, 3), SoftMaxLayer()],
    }


def samples(dtype, n=23):
    rng = np.random.default_rng(5)
    return rng.standard_normal((n, 9)).astype(dtype), one_hot(rng.integers(0, 3, n), 3, dtype)


@pytest.mark.parametrize("where", ["in the middle", "first", "before the softmax", "last", "several", "frozen"])
@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "weight_decay": 0.01}, {"shuffle": True, "rng": 3},
                                     {"optimizer": "adam", "lr": 0.01}], ids=lambda options: "-".join(options))
@pytest.mark.parametrize("own_loss", [False, True])
@pytest.mark.filterwarnings("ignore:fit. the update of")
def test_mixed_training_is_that_of_the_layers(where, options, own_loss, dtype):
    loss = Squares if own_loss or where == "last" else CrossEntropyLayer
    compiled, plain = (Sequential(stacks(dtype)[where](), loss()) for _ in range(2))
    x, t = samples(dtype)
    given = {"epochs": 3, "lr": 0.05, "batch_size": 5, "validation": (x[:7], t[:7]), **options}
    losses = compiled.fit(x, t, engine="mixed", **given)
    expected = plain.fit(x, t, engine="layers", **given)
    assert compiled.history.engine == "mixed"
    relative = {4: 1e-4, 8: 1e-10}[dtype.itemsize]
    np.testing.assert_allclose(losses, expected, rtol=relative)
    np.testing.assert_allclose(compiled.history.val_losses, plain.history.val_losses, rtol=relative)
    for one, other in zip(compiled.layers, plain.layers, strict=True):
        for name in parameters(one):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=relative, atol=10 * relative)
        if isinstance(one, Counted):
            assert one.calls == other.calls


def test_auto_chooses_segments_and_says_why():
    x, t = samples(np.float64, 200)
    rng = np.random.default_rng(0)
    model = Sequential([FullLayer(9, 300, rng=rng), ReluLayer(), FullLayer(300, 300, rng=rng), ReluLayer(), own.Noise(300, rng),
                        FullLayer(300, 3, rng=rng), SoftMaxLayer()], CrossEntropyLayer())
    text = str(model.explain(x, t, 3))
    assert "-> mixed: only segments of it can be compiled: layers[4]: Noise is not a class" in text
    model.fit(x, t, 2)
    assert model.history.engine == "mixed"


def test_where_segments_are():
    assert segments(Sequential(stacks(np.float64)["in the middle"](), CrossEntropyLayer())) == [range(0, 2), range(3, 7)]
    assert segments(Sequential(stacks(np.float64)["several"](), CrossEntropyLayer())) == [
        range(1, 2), range(4, 5), range(6, 9)]
    assert segments(Sequential(stacks(np.float64)["softmax inside"](), CrossEntropyLayer())) == [range(0, 4)]
    assert segments(Sequential(stacks(np.float64)["in the middle"](), Squares())) == [range(0, 2), range(3, 7)]


class Tied:
    """Reads another layer's weights, which segments keep elsewhere."""

    def __init__(self, other):
        self.other = other

    def forward(self, x):
        return x * self.other.W.mean()

    def backward(self, y_grad):
        return y_grad * self.other.W.mean()


def test_layers_that_look_at_others_are_trained_layer_by_layer():
    first = FullLayer(9, 6, rng=0)
    model = Sequential([first, Tied(first), FullLayer(6, 3, rng=1), SoftMaxLayer()], CrossEntropyLayer())
    assert unsupported_mixed_reason(model) == "layers[1], Tied may look at other layers"
    with refuses(ValueError, "engine='mixed' cannot train this: layers.1., Tied may look at other layers", model):
        model.fit(*samples(np.float64), 2, engine="mixed")
    whole = Sequential([FullLayer(9, 3, rng=0), SoftMaxLayer()], CrossEntropyLayer())
    with refuses(ValueError, "engine='mixed' cannot train this: all its layers are fastnet's", whole):
        whole.fit(*samples(np.float64), 2, engine="mixed")


def test_callbacks_that_look_at_the_model_see_the_parameters_of_their_epoch():
    x, t = samples(np.float64, 200)
    model, plain = (Sequential([FullLayer(9, 300, rng=0), own.Noise(300, np.random.default_rng(1)), FullLayer(300, 3, rng=2),
                                SoftMaxLayer()], CrossEntropyLayer()) for _ in range(2))
    seen, expected = [], []
    model.fit(x, t, 2, callbacks=lambda report: seen.append(model.layers[0].W.copy()))
    plain.fit(x, t, 2, engine="layers", callbacks=lambda report: expected.append(plain.layers[0].W.copy()))
    assert model.history.engine == "mixed"
    np.testing.assert_allclose(seen, expected, rtol=1e-10, atol=1e-12)


class Failing(own.Gain):
    """Raises in its seventh backward."""

    calls = 0

    def backward(self, y_grad):
        self.calls += 1
        if self.calls == 7:
            raise RuntimeError("seven")
        return super().backward(y_grad)


def test_an_error_leaves_the_last_whole_epoch():
    x, t = samples(np.float64, 20)
    rng = np.random.default_rng(0)
    layers = [FullLayer(9, 6, rng=1), Failing(6, rng), FullLayer(6, 3, rng=2), SoftMaxLayer()]
    model = Sequential(layers, CrossEntropyLayer())
    rng = np.random.default_rng(0)
    plain = Sequential([FullLayer(9, 6, rng=1), own.Gain(6, rng), FullLayer(6, 3, rng=2), SoftMaxLayer()], CrossEntropyLayer())
    with pytest.raises(RuntimeError, match="seven"):
        model.fit(x, t, 3, 0.1, 5, engine="mixed")
    plain.fit(x, t, 1, 0.1, 5, engine="layers")
    for one, other in zip(model.layers, plain.layers, strict=True):
        for name in parameters(one):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-10, atol=1e-12)


class Passing:
    """A layer of the user's that does something else from its second mini-batch on."""

    def __init__(self, forward=lambda x: x, backward=lambda y_grad: y_grad):
        self.passes, self.calls = (forward, backward), [0, 0]

    def forward(self, x):
        self.calls[0] += 1
        return self.passes[0](x) if self.calls[0] > 1 else x

    def backward(self, y_grad):
        self.calls[1] += 1
        return self.passes[1](y_grad) if self.calls[1] > 1 else y_grad


WRONG = {  # the memory of a segment has room for the mini-batch alone
    "twice the rows": ({"forward": lambda x: np.concatenate([x, x])}, r"forward of layers\[1\], Passing: output must have shape \(8, 6\)"),
    "fewer rows": ({"forward": lambda x: x[1:]}, r"output must have shape \(8, 6\), got \(7, 6\)"),
    "fewer columns": ({"forward": lambda x: x[:, :2]}, r"output must have shape \(8, 6\), got \(8, 2\)"),
    "complex": ({"forward": lambda x: x + 1j}, "output must hold real numbers, got dtype complex128"),
    "nothing": ({"forward": lambda x: None}, "output must be an array, got None"),
    "no return": ({"backward": lambda g: None}, r"backward of layers\[1\], Passing: x_grad must be an array, got None"),
    "transposed": ({"backward": lambda g: g.T}, r"x_grad must have shape \(8, 6\), got \(6, 8\)"),
    "a sum": ({"backward": lambda g: g.sum(1, keepdims=True)}, r"x_grad must have shape \(8, 6\), got \(8, 1\)"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_a_layer_returns_must_fit_the_compiled_layers_beside_it(kind):
    passes, words = WRONG[kind]
    x, t = np.random.default_rng(0).normal(size=(32, 5)), one_hot(np.arange(32) % 3)
    layers = FullLayer(5, 6, rng=0), Passing(**passes), FullLayer(6, 3, rng=0), SoftMaxLayer()
    with refuses((ValueError, TypeError), words):
        Sequential(layers, CrossEntropyLayer()).fit(x, t, 2, 0.1, 8, engine="mixed")


def test_what_a_loss_returns_must_fit_too():
    class Short(Squares):
        def backward(self):
            return super().backward()[:1]

    x, t = np.ones((12, 5)), np.ones((12, 3))
    with refuses(ValueError, r"backward of the loss, Short: x_grad must have shape \(6, 3\), got \(1, 3\)"):
        Sequential((FullLayer(5, 6), ReluLayer(), FullLayer(6, 3)), Short()).fit(x, t, 1, 0.1, 6, engine="mixed")
