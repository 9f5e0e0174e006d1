"""Random stacks of all exported layers, and the same networks in plain NumPy, which shares no code with fastnet.

What is drawn: stacks of 1 to 7 layers, each of a class drawn evenly from all that fastnet exports, in any order, as long as it
takes what the layers before it give (images of 1 to 3 channels and sides of 1 to 8, or rows of 1 to 20 values; widths from 1;
filters and windows of sides that are even, odd, or differ, which overlap, touch or leave gaps, and do not divide the images);
a loss drawn evenly from the exported ones; 1 to 30 samples with inputs of standard normal scale; one-hot targets, in a fifth
of the cases soft labels, or any numbers where the loss takes them. A layer that is exported is drawn without being named here:
its arguments are drawn by their names and annotations. One without a NumPy reference below is its own reference, run by hand.
"""
import inspect
import os
from dataclasses import dataclass, field

import numpy as np

import fastnet

CASES = int(os.environ.get("FASTNET_CASES", "1000"))  # 100000 for a night

_EXPORTED = [getattr(fastnet, name) for name in fastnet.__all__ if name.endswith("Layer")]
LOSSES = [kind for kind in _EXPORTED if "t" in inspect.signature(kind.forward).parameters]
LAYERS = [kind for kind in _EXPORTED if kind not in LOSSES]


def arguments(kind, rng, shape, dtype):
    """Arguments for a layer that is given samples of this shape, by their names; an unknown one is drawn by its type."""
    def sides(low, high):
        """A number, or a pair of them where the argument may be one."""
        pair = "tuple" in str(parameter.annotation) and rng.random() < 0.3
        return tuple(map(int, rng.integers(low, high, 2))) if pair else int(rng.integers(low, high))

    drawn = {
        "n_i": lambda: shape[0], "n": lambda: shape[0], "n_o": lambda: int(rng.integers(1, 13)),
        "h": lambda: int(rng.choice([1, 2, 3, 3, 4, 5])), "size": lambda: sides(1, 4),
        "stride": lambda: parameter.default if rng.random() < 0.4 else sides(1, 4),
        "padding": lambda: str(rng.choice(["same", "valid"])) if rng.random() < 0.6 else sides(0, 4),
        "slope": lambda: float(rng.choice([0.0, 0.01, 0.3, 1.5])), "rate": lambda: float(rng.uniform(0, 0.8)),
        "rng": lambda: int(rng.integers(1 << 30)), "dtype": lambda: dtype,
    }
    given = {}
    of_init = inspect.signature(kind.__init__).parameters  # of a class that inherits it, Python 3.10 shows that of __new__
    for name, parameter in [*of_init.items()][1:]:
        if name in drawn:
            given[name] = drawn[name]()
        elif parameter.default is inspect.Parameter.empty:
            given[name] = int(rng.integers(1, 4)) if "int" in str(parameter.annotation) else float(rng.uniform(0.1, 0.9))
    return given


def layer(rng, shape, dtype):
    """A layer that takes samples of this shape, and the shape of what it gives."""
    while True:
        kind = LAYERS[rng.integers(len(LAYERS))]
        try:
            made = kind(**arguments(kind, rng, shape, dtype))
            given = made.forward(np.zeros((2, *shape), dtype)).shape[1:]
        except ValueError:
            continue
        for name in ("b", "gamma", "beta", "running_mean"):
            if hasattr(made, name):
                setattr(made, name, (0.2 * rng.standard_normal(getattr(made, name).shape)).astype(dtype))
        fresh = kind.__new__(kind)  # it has not seen a batch
        new = {"x": None, "y": None, "orig_shape": None, "locs": None, "mask": None, "x_shape": None,
               "calls": 0}
        fresh.__dict__.update(vars(made) | {name: value for name, value in new.items() if name in vars(made)})
        return fresh, given


@dataclass
class Case:
    """One network, its data, and how it is trained."""

    model: object
    x: np.ndarray
    t: np.ndarray
    options: dict
    dtype: np.dtype
    orders: list = field(default_factory=list)

    def __str__(self):
        names = [repr(layer) for layer in (*self.model.layers, self.model.loss)]
        return f"{self.x.shape} {self.dtype}: {' '.join(names)} with {self.options}"


def case(seed):
    """The case of a seed."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(np.float32 if rng.random() < 0.1 else np.float64)
    images = rng.random() < 0.4
    shape = (*rng.integers(1, 4, 1), *rng.integers(1, 9, 2)) if images else (rng.integers(1, 21),)
    data_shape = shape = tuple(map(int, shape))
    layers = []
    for _ in range(rng.integers(1, 8)):
        made, shape = layer(rng, shape, dtype)
        layers.append(made)
    while len(shape) != 1:
        flatten = fastnet.FlattenLayer()
        shape = (int(np.prod(shape)),)
        layers.append(flatten)
    if rng.random() < 0.5:  # as most networks end
        layers += [fastnet.FullLayer(shape[0], c := int(rng.integers(1, 6)), dtype=dtype, rng=int(rng.integers(1 << 30)))]
        shape = (c,)
        layers += [fastnet.ReluLayer()] * (rng.random() < 0.3) + [fastnet.SoftMaxLayer()] * (rng.random() < 0.8)
    loss = LOSSES[rng.integers(len(LOSSES))]()
    n = int(rng.integers(1, 31))
    x = rng.standard_normal((n, *data_shape)).astype(dtype)
    t = np.eye(shape[0])[rng.integers(0, shape[0], n)]
    if rng.random() < 0.2:
        t = 0.8 * t + 0.2 * rng.dirichlet(np.ones(shape[0]), n)
    elif not isinstance(loss, fastnet.CrossEntropyLayer) and rng.random() < 0.5:
        t = rng.standard_normal(t.shape)
    options = {"epochs": int(rng.integers(1, 4)), "lr": float(10 ** rng.uniform(-2.5, -0.3)),
               "batch_size": int(rng.integers(1, n + 3)) if rng.random() < 0.7 else max(1, n - 1)}
    if rng.random() < 0.2:
        options["lr"] = [options["lr"] * 0.5 ** epoch for epoch in range(options["epochs"])]
    if rng.random() < 0.3:
        options["momentum"] = float(rng.choice([0.5, 0.9]))
        if rng.random() < 0.5:
            options["nesterov"] = True
    elif rng.random() < 0.4:
        options |= {"optimizer": str(rng.choice(["adam", "rmsprop"])), "lr": 0.003}
    if rng.random() < 0.3:
        options["weight_decay"] = float(rng.choice([0.01, 0.1]))
    if rng.random() < 0.3:
        options |= {"shuffle": True, "rng": int(rng.integers(1 << 30))}
    return Case(fastnet.Sequential(layers, loss=loss), x, t.astype(dtype), options, dtype)


# --- the same in NumPy ------------------------------------------------------------------------------------------------


class Network:
    """A copy of a model's parameters in float64, trained by hand.

    With `noise`, a generator, all that layers compute has rounding errors as large as those of `dtype`, also within a layer
    what it subtracts or sums up: a result that should be 0 is then as far from it as it may be in that dtype.
    """

    def __init__(self, model, noise=None, dtype=np.float32):
        self.noise, self.eps = noise, np.finfo(dtype).eps
        self.layers = [REFERENCES.get(type(layer).__name__, Itself)(layer) for layer in model.layers]
        self.loss = REFERENCES[type(model.loss).__name__](model.loss) if type(model.loss).__name__ in REFERENCES else Itself(
            model.loss)
        for layer in self.layers:
            layer.rounded = self.rounded
        self.kept, self.steps, self.losses, self.batch_losses, self.batches = {}, 0, [], [], []

    def output(self, x, training=True):
        for layer in self.layers:
            x = self.rounded(layer.forward(x) if training else layer.predict(x))
            if np.shape(getattr(layer, "y", None)) == x.shape:
                layer.y = x  # a saturated output may be 1 to rounding, and its gradient 0
        return x

    def rounded(self, a):
        return a if self.noise is None else a * (1 + self.eps * self.noise.standard_normal(a.shape))

    def step(self, x, t, lr, momentum=0.0, weight_decay=0.0, optimizer="sgd", nesterov=False):
        """The loss before it."""
        loss = self.loss.forward(self.output(x), t)
        dy = self.loss.backward()
        for layer in reversed(self.layers):
            dy = self.rounded(layer.backward(self.rounded(dy)))
        self.steps += 1
        for i, layer in enumerate(self.layers):
            for name, (value, gradient) in layer.learned().items():
                change = gradient + (weight_decay * value if name == "W" else 0.0)
                if optimizer == "adam":
                    m, v = self.kept.get((i, name), (0.0, 0.0))
                    m, v = 0.9 * m + 0.1 * change, 0.999 * v + 0.001 * change * change
                    self.kept[i, name] = m, v
                    change = m / (1 - 0.9 ** self.steps) / (np.sqrt(v / (1 - 0.999 ** self.steps)) + 1e-8)
                elif optimizer == "rmsprop":
                    v = self.kept[i, name] = 0.99 * self.kept.get((i, name), 0.0) + 0.01 * change * change
                    change = change / (np.sqrt(v) + 1e-8)
                elif momentum:
                    velocity = self.kept[i, name] = momentum * self.kept.get((i, name), 0.0) + change
                    change = change + momentum * velocity if nesterov else velocity
                layer.change(name, self.rounded(value - lr * change))
        return loss

    def fit(self, x, t, *, epochs, lr, batch_size, shuffle=False, rng=None, **of_step):
        orders = np.random.default_rng(rng) if shuffle else None
        for epoch in range(epochs):
            rate = lr[epoch] if isinstance(lr, list) else lr
            order = orders.permutation(len(x)) if shuffle else np.arange(len(x))
            batches = [(rate, rows) for rows in np.split(order, range(batch_size, len(x), batch_size))]
            losses = [self.step(x[rows], t[rows], rate, **of_step) for rate, rows in batches]
            self.losses.append(np.mean(losses))
            self.batch_losses += losses
            self.batches += batches
        return np.array(self.losses)


class Plain:
    """What references without parameters share."""

    def __init__(self, layer):
        self.layer = layer

    def predict(self, x):
        """The output in prediction: that of training, but for layers that differ."""
        return self.forward(x)

    def learned(self):
        return {}


class Itself(Plain):
    """A layer without a reference: the layer, run by hand."""

    def __init__(self, layer):
        import copy

        super().__init__(copy.deepcopy(layer))

    def forward(self, *arrays):
        return self.layer.forward(*arrays)

    def backward(self, *arrays):
        return self.layer.backward(*arrays)

    def learned(self):
        named = fastnet.layer.parameters(self.layer)
        return {name: (getattr(self.layer, name), getattr(self.layer, gradient)) for name, gradient in named.items()}

    def change(self, name, value):
        setattr(self.layer, name, value)


class Learning(Plain):
    def __init__(self, layer):
        self.layer, self.W, self.b = layer, np.array(layer.W, float), np.array(layer.b, float).reshape(-1)

    def learned(self):
        return {"W": (self.W, self.dW), "b": (self.b, self.db)}

    def change(self, name, value):
        setattr(self, name, value)


class Full(Learning):
    def forward(self, x):
        self.x = x
        return x @ self.W.T + self.b

    def backward(self, dy):
        self.dW, self.db = self.rounded(dy).T @ self.x, self.rounded(dy).sum(axis=0)
        return self.rounded(dy) @ self.W


def windows(x, high, wide, down, right):
    """A view (n, c, rows, columns, high, wide) of the windows of images, `down` and `right` apart."""
    return np.lib.stride_tricks.sliding_window_view(x, (high, wide), axis=(2, 3))[:, :, ::down, ::right]


def pair(value):
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


class Conv(Learning):
    def __init__(self, layer):
        super().__init__(layer)
        given, half = layer.padding, self.W.shape[2] // 2
        self.padding = pair({"same": half, "valid": 0}.get(given, given) if isinstance(given, str) else given)
        self.steps = pair(layer.stride)

    def patches(self):
        return windows(self.padded, *self.W.shape[2:], *self.steps)

    def forward(self, x):
        above, left = self.padding
        self.padded = np.pad(x, ((0, 0), (0, 0), (above, above), (left, left)))
        return np.einsum("ncijpq,ocpq->noij", self.patches(), self.W) + self.b[:, None, None]

    def backward(self, dy):
        self.dW = np.einsum("noij,ncijpq->ocpq", self.rounded(dy), self.patches())
        self.db = self.rounded(dy).sum(axis=(0, 2, 3))
        (above, left), (down, right), h = self.padding, self.steps, self.W.shape[2]
        dx, (rows, columns) = np.zeros_like(self.padded), dy.shape[2:]
        for p, q in np.ndindex(h, h):
            dx[:, :, p:p + down * rows:down, q:q + right * columns:right][:, :, :rows, :columns] += np.einsum(
                "noij,oc->ncij", dy, self.W[:, :, p, q])
        return dx[:, :, above:dx.shape[2] - above, left:dx.shape[3] - left]


class MaxPool(Plain):
    def __init__(self, layer):
        super().__init__(layer)
        self.size = pair(layer.size)
        self.steps = pair(getattr(layer, "stride", layer.size))

    def forward(self, x):
        self.x = x
        return windows(x, *self.size, *self.steps).max(axis=(4, 5))

    def weights(self, values, p, q):
        """What of a window's gradient goes to its value (p, q)."""
        return values[..., p, q] == values.max(axis=(4, 5))

    def backward(self, dy):
        values, dx = windows(self.x, *self.size, *self.steps), np.zeros_like(self.x)
        (down, right), (rows, columns) = self.steps, dy.shape[2:]
        for p, q in np.ndindex(*self.size):
            to = dx[:, :, p:p + down * rows:down, q:q + right * columns:right][:, :, :rows, :columns]
            to += self.weights(values, p, q) * dy
        return dx


class Flatten(Plain):
    def forward(self, x):
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dy):
        return dy.reshape(self.shape)


class Relu(Plain):
    def forward(self, x):
        self.y = np.maximum(x, 0)
        return self.y

    def backward(self, dy):
        return np.where(self.y > 0, dy, 0 * dy)


class LeakyRelu(Plain):
    def forward(self, x):
        self.x = x
        return np.where(x > 0, x, self.layer.slope * x)

    def backward(self, dy):
        return np.where(self.x > 0, dy, self.layer.slope * dy)


class Tanh(Plain):
    def forward(self, x):
        self.y = np.tanh(x)
        return self.y

    def backward(self, dy):
        return dy * (1 - self.y**2)


class Sigmoid(Plain):
    def forward(self, x):
        with np.errstate(over="ignore"):
            self.y = 1 / (1 + np.exp(-x))
        return self.y

    def backward(self, dy):
        return dy * self.y * (1 - self.y)


class Dropout(Plain):
    def __init__(self, layer):
        super().__init__(layer)
        self.calls = layer.calls

    def forward(self, x):
        rows = x.reshape(len(x), int(np.prod(x.shape[1:])))
        bits = [np.random.Philox(key=self.layer.seed, counter=((i << 64) + (self.calls << 128) - 1) % (1 << 256)).random_raw(
            -(-rows.shape[1] // 2)) for i in range(len(rows))]
        halves = np.array(bits)[:, :, None] >> np.array([0, 32], np.uint64) & np.uint64(0xFFFFFFFF)
        kept = halves.reshape(len(x), -1)[:, :rows.shape[1]] >= self.layer.rate * 2**32
        self.mask = np.where(kept, 1 / (1 - self.layer.rate), 0).reshape(x.shape)
        self.calls += 1
        return x * self.mask

    def predict(self, x):
        return x

    def backward(self, dy):
        return dy * self.mask


class BatchNorm(Plain):
    def __init__(self, layer):
        super().__init__(layer)
        self.gamma, self.beta, self.mean, self.var = (np.array(getattr(layer, name), float).reshape(-1) for name in (
            "gamma", "beta", "running_mean", "running_var"))

    def along(self, x, a):
        return a.reshape(1, -1, *[1] * (x.ndim - 2))

    def forward(self, x):
        self.axes = (0, *range(2, x.ndim))
        mean, var, count = self.rounded(x.mean(axis=self.axes)), x.var(axis=self.axes), x.size // len(self.gamma)
        self.inv = self.along(x, self.rounded(1 / np.sqrt(var + self.layer.eps)))
        self.z = self.rounded((x - self.along(x, mean)) * self.inv)
        if count > 1:
            m = self.layer.momentum
            self.mean, self.var = (1 - m) * self.mean + m * mean, (1 - m) * self.var + m * var * count / (count - 1)
        return self.along(x, self.gamma) * self.z + self.along(x, self.beta)

    def predict(self, x):
        z = (x - self.along(x, self.mean)) / np.sqrt(self.along(x, self.var) + self.layer.eps)
        return self.along(x, self.gamma) * z + self.along(x, self.beta)

    def backward(self, dy):
        self.dgamma, self.dbeta = self.rounded(dy * self.z).sum(axis=self.axes), self.rounded(dy).sum(axis=self.axes)
        dz = self.rounded(dy * self.along(dy, self.gamma))
        means = [self.along(dy, self.rounded(a.mean(axis=self.axes))) for a in (dz, self.rounded(dz * self.z))]
        return self.inv * (dz - means[0] - self.z * means[1])

    def learned(self):
        return {"gamma": (self.gamma, self.dgamma), "beta": (self.beta, self.dbeta)}

    def change(self, name, value):
        setattr(self, name, value)


class AveragePool(MaxPool):
    def forward(self, x):
        self.x = x
        return windows(x, *self.size, *self.steps).mean(axis=(4, 5))

    def weights(self, values, p, q):
        return 1 / np.prod(self.size)


class SoftMax(Plain):
    def forward(self, x):
        e = np.exp(x - x.max(axis=1, keepdims=True))
        self.y = e / e.sum(axis=1, keepdims=True)
        return self.y

    def backward(self, dy):
        return self.y * (dy - self.rounded(dy * self.y).sum(axis=1, keepdims=True))


class CrossEntropy(Plain):
    def forward(self, p, t):
        self.p, self.t = p, t
        return -np.where(t == 0, np.where(p >= 0, 0, np.nan), t * np.log(np.where(t == 0, 1, p))).sum() / len(p)

    def backward(self):
        return np.where(self.t == 0, 0, -self.t / np.where(self.t == 0, 1, self.p)) / len(self.p)


class MeanSquaredError(Plain):
    def forward(self, x, t):
        self.x, self.t = x, t
        return np.mean((x - t) ** 2)

    def backward(self):
        return 2 * (self.x - self.t) / self.x.size


REFERENCES = {f"{kind.__name__}Layer": kind for kind in (Full, Conv, MaxPool, Flatten, Relu, LeakyRelu, Tanh, Sigmoid, Dropout, BatchNorm,
                                                         AveragePool, SoftMax,
                                                         CrossEntropy, MeanSquaredError)}
