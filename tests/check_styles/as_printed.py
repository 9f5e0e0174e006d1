"""The chapter's formulas to the letter: one maximum of the whole batch (3.16), a Jacobian a sample (3.17), b as a number,
a small number inside the logarithm, labels as a column, Python 2's habits."""
from __future__ import division

import numpy as np


class FullLayer(object):
    def __init__(self, n_i, n_o):
        super(FullLayer, self).__init__()
        self.n_i = n_i
        self.n_o = n_o
        variance = np.sqrt(2 / (n_i + n_o))
        self.W = np.random.normal(0, variance, (n_o, n_i))
        self.b = 0
        self.x = None

    def forward(self, x):
        self.x = x
        return np.dot(x, self.W.T) + self.b

    def backward(self, y_grad):
        self.W_grad = 0
        self.b_grad = 0
        for i in range(y_grad.shape[0]):
            g = y_grad[i].reshape(1, -1)
            self.W_grad = self.W_grad + np.dot(g.T, self.x[i].reshape(1, -1))
            self.b_grad = self.b_grad + g
        return np.dot(y_grad, self.W)

    def update_param(self, lr):
        self.b = self.b - lr * self.b_grad
        self.W = self.W - lr * self.W_grad


class ReluLayer(object):
    def __init__(self):
        self.x = None

    def forward(self, x):
        self.x = x
        return x * (x > 0)

    def backward(self, y_grad):
        derivative = np.zeros(self.x.shape)
        derivative[self.x > 0] = 1
        return y_grad * derivative

    def update_param(self, lr):
        pass


class SoftMaxLayer(object):
    def __init__(self):
        self.y = None

    def forward(self, x):
        x = x - np.max(x)
        e = np.exp(x)
        total = np.sum(e, axis=1).reshape(-1, 1)
        self.y = e / total
        return self.y

    def backward(self, y_grad):
        grads = []
        for i in range(len(y_grad)):
            z = self.y[i].reshape(1, -1)
            jacobian = np.diag(self.y[i]) - np.dot(z.T, z)
            grads.append(np.dot(y_grad[i], jacobian))
        return np.array(grads)

    def update_param(self, lr):
        pass


class CrossEntropyLayer(object):
    def __init__(self):
        self.x = None
        self.t = None

    def forward(self, x, t):
        self.x = x
        self.t = t
        n_b = x.shape[0]
        return -1 / n_b * np.sum(np.sum(t * np.log(x + 1e-9), axis=1))

    def backward(self, y_grad=None):
        n_b = self.x.shape[0]
        return -1 / n_b * (self.t / self.x)


class Sequential(object):
    def __init__(self, layers, loss):
        super(Sequential, self).__init__()
        self.layers = layers
        self.loss = loss
        self.out = None

    def forward(self, x, target=None):
        out = x
        for layer in self.layers:
            out = layer.forward(out)
        self.out = out
        if target is not None:
            out = self.loss.forward(out, target)
        return out

    def backward(self):
        gradient = self.loss.backward()
        for layer in reversed(self.layers):
            gradient = layer.backward(gradient)
        return gradient

    def update_param(self, lr):
        for layer in self.layers:
            layer.update_param(lr)

    def fit(self, x, y, epochs=10, lr=0.1, batch_size=128):
        n = x.shape[0]
        avg_loss = []
        for epoch in range(epochs):
            batch_losses = []
            for i in range(0, n, batch_size):
                x_batch = x[i:i + batch_size]
                y_batch = y[i:i + batch_size]
                batch_losses.append(self.forward(x_batch, y_batch))
                self.backward()
                self.update_param(lr)
            avg_loss.append(sum(batch_losses) / len(batch_losses))
        return np.array(avg_loss)

    def predict(self, x):
        y = self.forward(x)
        return np.argmax(y, axis=1).reshape(-1, 1)


class ConvLayer(object):
    def __init__(self, n_i, n_o, h):
        self.n_i, self.n_o, self.h = n_i, n_o, h
        self.W = np.random.randn(n_o, n_i, h, h) * np.sqrt(2 / (n_i + n_o))
        self.b = np.zeros((1, n_o))

    def forward(self, x):
        self.x = x
        pad = self.h // 2
        padded = np.zeros((x.shape[0], x.shape[1], x.shape[2] + 2 * pad, x.shape[3] + 2 * pad))
        padded[:, :, pad:pad + x.shape[2], pad:pad + x.shape[3]] = x
        self.padded = padded
        y = np.zeros((x.shape[0], self.n_o, x.shape[2], x.shape[3]))
        for o in range(self.n_o):
            for p in range(self.h):
                for q in range(self.h):
                    for c in range(self.n_i):
                        y[:, o] += self.W[o, c, p, q] * padded[:, c, p:p + x.shape[2], q:q + x.shape[3]]
            y[:, o] += self.b[0, o]
        return y

    def backward(self, y_grad):
        pad = self.h // 2
        rows, cols = self.x.shape[2], self.x.shape[3]
        self.W_grad = np.zeros(self.W.shape)
        self.b_grad = np.sum(y_grad, axis=(0, 2, 3)).reshape(1, -1)
        grad = np.zeros(self.padded.shape)
        for o in range(self.n_o):
            for c in range(self.n_i):
                for p in range(self.h):
                    for q in range(self.h):
                        self.W_grad[o, c, p, q] = np.sum(y_grad[:, o] * self.padded[:, c, p:p + rows, q:q + cols])
                        grad[:, c, p:p + rows, q:q + cols] += self.W[o, c, p, q] * y_grad[:, o]
        return grad[:, :, pad:pad + rows, pad:pad + cols]

    def update_param(self, lr):
        self.W = self.W - lr * self.W_grad
        self.b = self.b - lr * self.b_grad


class MaxPoolLayer(object):
    def __init__(self, size=2):
        self.size = size
        self.locs = None

    def forward(self, x):
        n, c, rows, cols = x.shape
        out = np.zeros((n, c, rows // self.size, cols // self.size))
        self.locs = np.zeros(x.shape)
        for s in range(n):
            for k in range(c):
                for i in range(rows // self.size):
                    for j in range(cols // self.size):
                        r0, c0 = i * self.size, j * self.size
                        window = x[s, k, r0:r0 + self.size, c0:c0 + self.size]
                        out[s, k, i, j] = np.max(window)
                        self.locs[s, k, r0:r0 + self.size, c0:c0 + self.size] = window == np.max(window)
        return out

    def backward(self, y_grad):
        grad = np.zeros(self.locs.shape)
        n, c, rows, cols = y_grad.shape
        for i in range(rows):
            for j in range(cols):
                for p in range(self.size):
                    for q in range(self.size):
                        r, k = i * self.size + p, j * self.size + q
                        grad[:, :, r, k] = self.locs[:, :, r, k] * y_grad[:, :, i, j]
        return grad

    def update_param(self, lr):
        pass


class FlattenLayer(object):
    def __init__(self):
        self.orig_shape = None

    def forward(self, x):
        self.orig_shape = x.shape
        out = np.copy(x)
        return out.reshape((x.shape[0], x.shape[1] * x.shape[2] * x.shape[3]))

    def backward(self, y_grad):
        return y_grad.reshape(self.orig_shape)

    def update_param(self, lr):
        pass
