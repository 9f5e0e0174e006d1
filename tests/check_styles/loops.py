"""Explicit loops over samples, classes and pixels."""
import math

import numpy as np


class FullLayer:
    def __init__(self, n_i, n_o):
        self.n_i = n_i
        self.n_o = n_o
        self.W = np.zeros((n_o, n_i))
        std = math.sqrt(2.0 / (n_i + n_o))
        for j in range(n_o):
            self.W[j] = np.random.normal(0, std, n_i)
        self.b = np.zeros((1, n_o))

    def forward(self, x):
        self.x = x
        y = np.zeros((len(x), self.n_o))
        for i in range(len(x)):
            for j in range(self.n_o):
                y[i, j] = np.sum(x[i] * self.W[j]) + self.b[0, j]
        return y

    def backward(self, y_grad):
        x_grad = np.zeros(self.x.shape)
        self.W_grad = np.zeros(self.W.shape)
        self.b_grad = np.zeros(self.b.shape)
        for i in range(len(y_grad)):
            for j in range(self.n_o):
                x_grad[i] += y_grad[i, j] * self.W[j]
                self.W_grad[j] += y_grad[i, j] * self.x[i]
                self.b_grad[0, j] += y_grad[i, j]
        return x_grad

    def update_param(self, lr):
        for j in range(self.n_o):
            self.W[j] -= lr * self.W_grad[j]
            self.b[0, j] -= lr * self.b_grad[0, j]


class ReluLayer:
    def __init__(self):
        self.y = None

    def forward(self, x):
        self.y = np.zeros(x.shape)
        for index in np.ndindex(x.shape):
            if x[index] > 0:
                self.y[index] = x[index]
        return self.y

    def backward(self, y_grad):
        x_grad = np.zeros(y_grad.shape)
        for index in np.ndindex(y_grad.shape):
            if self.y[index] > 0:
                x_grad[index] = y_grad[index]
        return x_grad

    def update_param(self, lr):
        pass


class SoftMaxLayer:
    def __init__(self):
        self.y = None

    def forward(self, x):
        self.y = np.zeros(x.shape)
        for i in range(x.shape[0]):
            largest = max(x[i])
            total = 0.0
            for j in range(x.shape[1]):
                self.y[i, j] = math.exp(x[i, j] - largest)
                total += self.y[i, j]
            self.y[i] /= total
        return self.y

    def backward(self, y_grad):
        x_grad = np.zeros(y_grad.shape)
        for i in range(y_grad.shape[0]):
            for j in range(y_grad.shape[1]):
                for k in range(y_grad.shape[1]):
                    if j == k:
                        x_grad[i, j] += y_grad[i, k] * self.y[i, j] * (1 - self.y[i, k])
                    else:
                        x_grad[i, j] -= y_grad[i, k] * self.y[i, j] * self.y[i, k]
        return x_grad

    def update_param(self, lr):
        pass


class CrossEntropyLayer:
    def __init__(self):
        self.x = None
        self.t = None

    def forward(self, x, t):
        self.x = x
        self.t = t
        loss = 0.0
        for i in range(x.shape[0]):
            for j in range(x.shape[1]):
                if t[i, j] != 0:
                    loss -= t[i, j] * math.log(x[i, j])
        return loss / x.shape[0]

    def backward(self, y_grad=None):
        grad = np.zeros(self.x.shape)
        for i in range(self.x.shape[0]):
            for j in range(self.x.shape[1]):
                grad[i, j] = -self.t[i, j] / (self.x.shape[0] * self.x[i, j])
        return grad


class Sequential:
    def __init__(self, layers, loss):
        self.layers = layers
        self.loss = loss

    def forward(self, x, target=None):
        for i in range(len(self.layers)):
            x = self.layers[i].forward(x)
        if target is not None:
            return self.loss.forward(x, target)
        return x

    def backward(self):
        grad = self.loss.backward()
        for i in range(len(self.layers) - 1, -1, -1):
            grad = self.layers[i].backward(grad)
        return grad

    def update_param(self, lr):
        for i in range(len(self.layers)):
            self.layers[i].update_param(lr)

    def fit(self, x, y, epochs=10, lr=0.1, batch_size=128):
        losses = []
        for epoch in range(epochs):
            total = 0.0
            count = 0
            start = 0
            for start in range(0, len(x), batch_size):
                total += self.forward(x[start:start + batch_size], y[start:start + batch_size])
                self.backward()
                self.update_param(lr)
                count += 1
            losses.append(total / count)
        return losses

    def predict(self, x):
        y = self.forward(x)
        labels = np.zeros(len(x), dtype=int)
        for i in range(len(y)):
            best = 0
            for j in range(y.shape[1]):
                if y[i, j] > y[i, best]:
                    best = j
            labels[i] = best
        return labels


class ConvLayer:
    def __init__(self, n_i, n_o, h):
        self.n_i, self.n_o, self.h = n_i, n_o, h
        self.W = np.random.normal(0, np.sqrt(2.0 / ((n_i + n_o) * h * h)), (n_o, n_i, h, h))
        self.b = np.zeros((1, n_o))

    def forward(self, x):
        p = self.h // 2
        self.x = x
        self.padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)), "constant")
        n, c, rows, cols = x.shape
        y = np.zeros((n, self.n_o, rows, cols))
        for s in range(n):
            for o in range(self.n_o):
                for i in range(rows):
                    for j in range(cols):
                        y[s, o, i, j] = np.sum(self.padded[s, :, i:i + self.h, j:j + self.h] * self.W[o]) + self.b[0, o]
        return y

    def backward(self, y_grad):
        p = self.h // 2
        n, c, rows, cols = self.x.shape
        self.W_grad = np.zeros(self.W.shape)
        self.b_grad = np.zeros(self.b.shape)
        x_grad = np.zeros(self.padded.shape)
        for s in range(n):
            for o in range(self.n_o):
                self.b_grad[0, o] += np.sum(y_grad[s, o])
                for i in range(rows):
                    for j in range(cols):
                        self.W_grad[o] += y_grad[s, o, i, j] * self.padded[s, :, i:i + self.h, j:j + self.h]
                        x_grad[s, :, i:i + self.h, j:j + self.h] += y_grad[s, o, i, j] * self.W[o]
        return x_grad[:, :, p:p + rows, p:p + cols]

    def update_param(self, lr):
        self.W = self.W - lr * self.W_grad
        self.b = self.b - lr * self.b_grad


class MaxPoolLayer:
    def __init__(self, size=2):
        self.size = size
        self.locs = None

    def forward(self, x):
        s = self.size
        n, c, rows, cols = x.shape
        y = np.zeros((n, c, rows // s, cols // s))
        self.locs = np.zeros(x.shape)
        for i in range(rows // s):
            for j in range(cols // s):
                window = x[:, :, i * s:(i + 1) * s, j * s:(j + 1) * s]
                y[:, :, i, j] = np.max(window, axis=(2, 3))
                self.locs[:, :, i * s:(i + 1) * s, j * s:(j + 1) * s] = window == y[:, :, i, j][:, :, None, None]
        return y

    def backward(self, y_grad):
        s = self.size
        x_grad = np.zeros(self.locs.shape)
        for i in range(y_grad.shape[2]):
            for j in range(y_grad.shape[3]):
                x_grad[:, :, i * s:(i + 1) * s, j * s:(j + 1) * s] = y_grad[:, :, i, j][:, :, None, None]
        return x_grad * self.locs

    def update_param(self, lr):
        pass


class FlattenLayer:
    def __init__(self):
        self.orig_shape = None

    def forward(self, x):
        self.orig_shape = x.shape
        n = x.shape[0]
        y = np.zeros((n, x.shape[1] * x.shape[2] * x.shape[3]))
        for i in range(n):
            y[i] = x[i].ravel()
        return y

    def backward(self, y_grad):
        x_grad = np.zeros(self.orig_shape)
        for i in range(len(y_grad)):
            x_grad[i] = y_grad[i].reshape(self.orig_shape[1:])
        return x_grad

    def update_param(self, lr):
        pass
