"""Layers, losses and models as users write them, with every habit that a training engine could overlook."""
import types

import numpy as np

from fastnet import ConvLayer, CrossEntropyLayer, FullLayer, ReluLayer, Sequential, TanhLayer


class Centre:
    """Writes into what it is given, on the way forward and on the way back; learns nothing."""

    def forward(self, x):
        x -= x.mean(axis=0)
        return x

    def backward(self, y_grad):
        y_grad -= y_grad.mean(axis=0)
        return y_grad


class Gain:
    """Parameters under names of its own, said by `parameters` and `decays`; updated in place."""

    decays = ("beta",)

    def __init__(self, width, rng):
        self.gamma, self.beta = 1 + 0.1 * rng.standard_normal(width), 0.1 * rng.standard_normal(width)

    def parameters(self):
        return {"gamma": "dgamma", "beta": "dbeta"}

    def forward(self, x):
        self.x = x
        return self.gamma * x + self.beta

    def backward(self, y_grad):
        self.dgamma, self.dbeta = (y_grad * self.x).sum(axis=0), y_grad.sum(axis=0)
        return y_grad * self.gamma

    def update_param(self, lr):
        np.clip(self.dgamma, -0.1, 0.1, out=self.dgamma)
        self.gamma -= lr * self.dgamma
        self.beta -= lr * self.dbeta


class Hidden:
    """Parameters that nobody can find: in a dict, and updated under the chapter's other name."""

    def __init__(self, width, rng):
        self.held = {"scale": 1 + 0.1 * rng.standard_normal(width), "change": None}

    def forward(self, x):
        self.x = x
        return x * self.held["scale"]

    def backward(self, y_grad):
        self.held["change"] = (y_grad * self.x).sum(axis=0)
        return y_grad * self.held["scale"]

    def update_params(self, lr):
        self.held["scale"] -= lr * self.held["change"]


class Buffered:
    """Keeps its arrays and writes into them: output, gradients and parameters."""

    def __init__(self, width, rng):
        self.basis, self.basis_grad = np.eye(width) + 0.1 * rng.standard_normal((width, width)), np.zeros((width, width))
        self.b, self.b_grad = np.zeros(width), np.zeros(width)
        self.out = np.empty((0, width))

    def forward(self, x):
        if len(self.out) != len(x):
            self.out = np.empty(x.shape)
        self.x = x
        np.matmul(x, self.basis, out=self.out)
        self.out += self.b
        return self.out

    def backward(self, y_grad):
        self.basis_grad[...] = self.x.T @ y_grad
        self.b_grad[...] = y_grad.sum(axis=0)
        return y_grad @ self.basis.T

    def update_param(self, lr):
        self.basis -= lr * self.basis_grad
        self.b -= lr * self.b_grad


class Slotted:
    """No __dict__ to look into."""

    __slots__ = ("K", "K_grad", "x")

    def __init__(self, width, rng):
        self.K = 1 + 0.1 * rng.standard_normal(width)

    def parameters(self):
        return {"K": "K_grad"}

    def forward(self, x):
        self.x = x
        return x * self.K

    def backward(self, y_grad):
        self.K_grad = (y_grad * self.x).sum(axis=0)
        return y_grad * self.K

    def update_param(self, lr):
        self.K = self.K - lr * self.K_grad


class Noise:
    """Draws anew in every pass, from a generator of its own."""

    def __init__(self, width, rng):
        self.rng = np.random.default_rng(int(rng.integers(1000)))

    def forward(self, x):
        return x + 0.01 * self.rng.standard_normal(x.shape)

    def backward(self, y_grad):
        return y_grad


class Frozen(FullLayer):
    def update_param(self, lr):
        pass


class Clipped(FullLayer):
    def update_param(self, lr):
        self.W_grad, self.b_grad = np.clip(self.W_grad, -0.05, 0.05), np.clip(self.b_grad, -0.05, 0.05)
        super().update_param(lr)


class Scaled(FullLayer):
    """Takes 2-d and 3-d samples, as its own forward flattens them."""

    def forward(self, x):
        return super().forward(0.5 * np.reshape(x, (len(x), -1)))

    def backward(self, y_grad):
        return 0.5 * super().backward(y_grad)


class Leaky(ReluLayer):
    def backward(self, y_grad):
        return super().backward(y_grad) + 0.1 * y_grad


class Halved(TanhLayer):
    def forward(self, x):
        return super().forward(0.5 * x)

    def backward(self, y_grad):
        return 0.5 * super().backward(y_grad)


class FrozenFilters(ConvLayer):
    def update_param(self, lr):
        pass


class Average:
    """Pools by the mean."""

    def forward(self, x):
        n, c, r, k = x.shape
        return x.reshape(n, c, r // 2, 2, k // 2, 2).mean(axis=(3, 5))

    def backward(self, y_grad):
        return np.repeat(np.repeat(y_grad, 2, axis=2), 2, axis=3) / 4


class Residual:
    """A layer made of layers."""

    def __init__(self, width, rng):
        self.inner = FullLayer(width, width, rng=rng)

    def forward(self, x):
        return x + self.inner.forward(x)

    def backward(self, y_grad):
        return y_grad + self.inner.backward(y_grad)

    def update_param(self, lr):
        self.inner.update_param(lr)


class OffByOne(CrossEntropyLayer):
    def forward(self, x, t):
        return super().forward(x, t) + 1


class Squares:
    """Mean squared error, written into its arguments."""

    def forward(self, x, t):
        x -= t
        self.d = x
        t *= 0
        return (self.d ** 2).mean()

    def backward(self):
        return 2 * self.d / self.d.size


class FrozenFirst(Sequential):
    def update_param(self, lr):
        for layer in self.layers[1:]:
            if hasattr(layer, "update_param"):
                layer.update_param(lr)


class Shifted(Sequential):
    """Prepares its input, in place."""

    def forward(self, x, target=None):
        x *= 0.5
        return super().forward(x, target)


class ClippedModel(Sequential):
    def backward(self):
        for layer in self.layers:
            if hasattr(layer, "W_grad") and layer.W_grad is not None:
                layer.W_grad = np.clip(layer.W_grad, -0.1, 0.1)
        grad = super().backward()
        for layer in self.layers:
            if isinstance(layer, FullLayer):
                layer.W_grad = np.clip(layer.W_grad, -0.05, 0.05)
        return grad


class LastClass(Sequential):
    def predict(self, x):
        return np.full(len(x), 2)


class Named(Sequential):
    """Nothing of it runs in training."""

    def __init__(self, layers, loss):
        super().__init__(layers, loss)
        self.name = "mine"


# --- methods replaced on an instance or a class -----------------------------------------------------------------------


def half_step(layer, lr):
    """In place of FullLayer's update_param."""
    layer.W = layer.W - 0.5 * lr * layer.W_grad
    layer.b = layer.b - 0.5 * lr * layer.b_grad


def replace(owner, name, wrap):
    """Replace a method of an instance by one made of it; copies of the instance keep it, bound to themselves."""
    setattr(owner, name, types.MethodType(wrap, owner))


def doubled(name):
    """A replacement that multiplies what the class's method returns."""
    def method(self, *args):
        return 2 * getattr(type(self), name)(self, *args)

    return method
