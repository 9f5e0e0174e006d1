"""np.einsum wherever it goes; biases of shape (n_o,); gradients under the chapter's name, w_grad."""
import numpy as np


class FullLayer(object):
    def __init__(self, n_i, n_o):
        self.W = np.sqrt(2 / (n_i + n_o)) * np.random.randn(n_o, n_i)
        self.b = np.zeros(n_o)

    def forward(self, x):
        self.x = x
        return np.einsum("bi,oi->bo", x, self.W) + self.b

    def backward(self, y_grad):
        self.w_grad = np.einsum("bo,bi->oi", y_grad, self.x)
        self.b_grad = np.einsum("bo->o", y_grad)
        return np.einsum("bo,oi->bi", y_grad, self.W)

    def update_params(self, lr):
        self.W = self.W - lr * self.w_grad
        self.b = self.b - lr * self.b_grad


class ReluLayer(object):
    def forward(self, x):
        self.passes = x > 0
        return np.where(self.passes, x, 0)

    def backward(self, y_grad):
        return np.where(self.passes, y_grad, 0)

    def update_params(self, lr):
        return None


class SoftMaxLayer(object):
    def forward(self, x):
        shifted = x - np.max(x, axis=1)[:, np.newaxis]
        exps = np.exp(shifted)
        self.z = exps / np.einsum("bk->b", exps)[:, None]
        return self.z

    def backward(self, y_grad):
        jacobian = np.einsum("bj,jk->bjk", self.z, np.eye(self.z.shape[1])) - np.einsum("bj,bk->bjk", self.z, self.z)
        return np.einsum("bj,bjk->bk", y_grad, jacobian)

    def update_params(self, lr):
        return None


class CrossEntropyLayer(object):
    def forward(self, x, t):
        self.x, self.t = x, t
        return -np.einsum("bk,bk->", t, np.log(x)) / len(x)

    def backward(self, y_grad=None):
        return -(1 / len(self.x)) * self.t / self.x


class Sequential(object):
    def __init__(self, layers, loss):
        self.layers = list(layers)
        self.loss = loss

    def forward(self, x, target=None):
        out = x
        for layer in self.layers:
            out = layer.forward(out)
        if target is None:
            return out
        return self.loss.forward(out, target)

    def backward(self):
        g = self.loss.backward()
        for layer in self.layers[::-1]:
            g = layer.backward(g)
        return g

    def update_params(self, lr):
        for layer in self.layers:
            layer.update_params(lr)

    def fit(self, x, y, epochs=10, lr=0.1, batch_size=128):
        n_batches = int(np.ceil(len(x) / batch_size))
        history = np.zeros(epochs)
        for e in range(epochs):
            for k in range(n_batches):
                rows = slice(k * batch_size, (k + 1) * batch_size)
                history[e] += self.forward(x[rows], y[rows]) / n_batches
                self.backward()
                self.update_params(lr)
        return history

    def predict(self, x):
        return self.forward(x).argmax(axis=1)


class ConvLayer(object):
    def __init__(self, n_i, n_o, h):
        self.h = h
        self.W = np.random.normal(0, np.sqrt(2 / (n_i * h * h + n_o * h * h)), size=(n_o, n_i, h, h))
        self.b = np.zeros(n_o)

    def patches(self, x):
        p = (self.h - 1) // 2
        wide = np.pad(x, [(0, 0), (0, 0), (p, p), (p, p)], mode="constant")
        return np.lib.stride_tricks.sliding_window_view(wide, (self.h, self.h), axis=(2, 3))

    def forward(self, x):
        self.cols = self.patches(x)
        return np.einsum("ncijpq,ocpq->noij", self.cols, self.W) + self.b[None, :, None, None]

    def backward(self, y_grad):
        self.w_grad = np.einsum("noij,ncijpq->ocpq", y_grad, self.cols)
        self.b_grad = np.einsum("noij->o", y_grad)
        return np.einsum("noijpq,ocpq->ncij", self.patches(y_grad), self.W[:, :, ::-1, ::-1])

    def update_params(self, lr):
        self.W = self.W - lr * self.w_grad
        self.b = self.b - lr * self.b_grad
