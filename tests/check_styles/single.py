"""float32 throughout, matrix operators, short names, helper methods, several values in one assignment."""
import numpy as np

F = np.float32


def _rows(a):
    return a.sum(axis=1, keepdims=True)


class FullLayer:
    def __init__(self, n_i, n_o):
        self.W = np.random.normal(0, (2 / (n_i + n_o)) ** 0.5, (n_o, n_i)).astype(F)
        self.b = np.zeros((1, n_o), F)

    def forward(self, x):
        self.x = np.asarray(x, F)
        return self._affine(self.x)

    def _affine(self, x):
        return x @ self.W.astype(F).T + self.b.astype(F)

    def backward(self, y_grad):
        dy = np.asarray(y_grad, F)
        self.W_grad, self.b_grad = dy.T @ self.x, np.sum(dy, 0, keepdims=True)
        return dy @ self.W.astype(F)

    def update_param(self, lr):
        self.W, self.b = self.W - lr * self.W_grad, self.b - lr * self.b_grad


class ReluLayer:
    def forward(self, x):
        self.y = np.clip(x, 0, None).astype(F)
        return self.y

    def backward(self, y_grad):
        return np.sign(self.y) * y_grad

    def update_param(self, lr):
        ...


class SoftMaxLayer:
    def forward(self, x):
        e = np.exp((x - x.max(1, keepdims=True)).astype(F))
        self.p = e / _rows(e)
        return self.p

    def backward(self, y_grad):
        return self.p * (y_grad - _rows(y_grad * self.p))

    def update_param(self, lr):
        ...


class CrossEntropyLayer:
    def forward(self, x, t):
        self.saved = (x, t)
        return float(np.mean(-np.sum(t * np.log(np.maximum(x, 1e-12)), axis=1)))

    def backward(self, y_grad=None):
        x, t = self.saved
        return np.where(t > 0, -t / x, 0) / x.shape[0]


class Sequential:
    def __init__(self, layers, loss):
        self.layers, self.loss = layers, loss

    def forward(self, x, target=None):
        y = x
        for layer in self.layers:
            y = layer.forward(y)
        return self.loss.forward(y, target) if target is not None else y

    def backward(self):
        g = self.loss.backward()
        for layer in list(self.layers)[::-1]:
            g = layer.backward(g)
        return g

    def update_param(self, lr):
        [layer.update_param(lr) for layer in self.layers]

    def _step(self, x, t, lr):
        loss = self.forward(x, t)
        self.backward()
        self.update_param(lr)
        return loss

    def fit(self, x, y, epochs=10, lr=0.1, batch_size=128):
        starts = range(0, x.shape[0], batch_size)
        return np.array([np.mean([self._step(x[s:s + batch_size], y[s:s + batch_size], lr) for s in starts])
                         for _ in range(epochs)])

    def predict(self, x):
        return np.argmax(self.forward(x), 1)


class MaxPoolLayer:
    def __init__(self, size=2):
        self.size, self.locs = size, None

    def forward(self, x):
        s, (n, c, h, w) = self.size, x.shape
        h, w = h // s, w // s
        blocks = x[:, :, :h * s, :w * s].reshape(n, c, h, s, w, s)
        y = blocks.max(5).max(3)
        self.locs = np.zeros(x.shape, F)
        self.locs[:, :, :h * s, :w * s] = (blocks == y[:, :, :, None, :, None]).reshape(n, c, h * s, w * s)
        return y

    def backward(self, y_grad):
        g = np.kron(y_grad, np.ones((self.size, self.size)))
        out = np.zeros(self.locs.shape)
        out[..., :g.shape[2], :g.shape[3]] = g
        return out * self.locs

    def update_param(self, lr):
        ...


class FlattenLayer:
    def forward(self, x):
        self.orig_shape = x.shape
        return np.array(x.reshape(len(x), -1))

    def backward(self, y_grad):
        return y_grad.reshape(*self.orig_shape)

    def update_param(self, lr):
        ...
