"""Arrays changed in place, masks made in forward, buffers that are filled."""
import numpy as np


class FullLayer:
    def __init__(self, n_i, n_o):
        self.x = None
        self.n_i, self.n_o = n_i, n_o
        self.W = np.random.normal(loc=0.0, scale=np.sqrt(2 / (n_i + n_o)), size=(n_o, n_i))
        self.b = np.zeros((1, n_o))
        self.W_grad = np.zeros_like(self.W)
        self.b_grad = np.zeros_like(self.b)

    def forward(self, x):
        self.x = x.copy()
        y = np.dot(x, self.W.transpose())
        y += self.b
        return y

    def backward(self, y_grad):
        np.dot(y_grad.T, self.x, out=self.W_grad)
        self.b_grad[0] = y_grad.sum(axis=0)
        return y_grad.dot(self.W)

    def update_param(self, lr):
        self.W -= lr * self.W_grad
        self.b -= lr * self.b_grad


class ReluLayer:
    def __init__(self):
        self.mask = None

    def forward(self, x):
        self.mask = x <= 0
        x[self.mask] = 0
        return x

    def backward(self, y_grad):
        y_grad[self.mask] = 0
        return y_grad

    def update_param(self, lr):
        pass


class SoftMaxLayer:
    def __init__(self):
        self.y = None

    def forward(self, x):
        y = x.copy()
        y -= y.max(axis=1, keepdims=True)
        np.exp(y, out=y)
        y /= y.sum(axis=1, keepdims=True)
        self.y = y
        return y.copy()

    def backward(self, y_grad):
        grad = y_grad * self.y
        total = grad.sum(axis=1, keepdims=True)
        grad -= self.y * total
        return grad

    def update_param(self, lr):
        pass


class CrossEntropyLayer:
    def __init__(self):
        self.x = None
        self.t = None

    def forward(self, x, t):
        self.x = x.copy()
        self.t = t.copy()
        logs = np.log(self.x)
        logs *= t
        return -logs.sum() / x.shape[0]

    def backward(self, y_grad=None):
        grad = self.t / self.x
        grad /= -self.x.shape[0]
        return grad


class Sequential:
    def __init__(self, layers, loss):
        self.layers = layers
        self.loss = loss

    def forward(self, x, target=None):
        x = np.array(x)
        for layer in self.layers:
            x = layer.forward(x)
        if target is None:
            return x
        else:
            return self.loss.forward(x, target)

    def backward(self):
        grad = self.loss.backward()
        i = len(self.layers) - 1
        while i >= 0:
            grad = self.layers[i].backward(grad)
            i -= 1
        return grad

    def update_param(self, lr):
        for layer in self.layers:
            layer.update_param(lr)

    def fit(self, x, y, epochs=10, lr=0.1, batch_size=128):
        losses = np.zeros(epochs)
        n = x.shape[0]
        for epoch in range(epochs):
            start = 0
            batches = 0
            while start < n:
                end = min(start + batch_size, n)
                losses[epoch] += self.forward(x[start:end], y[start:end])
                self.backward()
                self.update_param(lr)
                start = end
                batches += 1
            losses[epoch] /= batches
        return losses

    def predict(self, x):
        return np.argmax(self.forward(x), axis=1)


class MaxPoolLayer:
    def __init__(self, size=2):
        self.size = size
        self.locs = None

    def forward(self, x):
        s = self.size
        r, k = x.shape[2] // s, x.shape[3] // s
        cut = x[:, :, :r * s, :k * s]
        y = np.full((x.shape[0], x.shape[1], r, k), -np.inf)
        for p in range(s):
            for q in range(s):
                np.maximum(y, cut[:, :, p::s, q::s], out=y)
        self.locs = np.zeros_like(x)
        self.locs[:, :, :r * s, :k * s] = cut == np.repeat(np.repeat(y, s, axis=2), s, axis=3)
        return y

    def backward(self, y_grad):
        x_grad = np.zeros_like(self.locs)
        wide = np.repeat(np.repeat(y_grad, self.size, axis=2), self.size, axis=3)
        x_grad[:, :, :wide.shape[2], :wide.shape[3]] = wide
        x_grad *= self.locs
        return x_grad

    def update_param(self, lr):
        pass


class FlattenLayer:
    def __init__(self):
        self.orig_shape = None

    def forward(self, x):
        self.orig_shape = x.shape
        return x.flatten().reshape(x.shape[0], -1)

    def backward(self, y_grad):
        return np.reshape(y_grad, self.orig_shape)

    def update_param(self, lr):
        pass
