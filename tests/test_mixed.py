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
