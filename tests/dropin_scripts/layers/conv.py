import numpy as np


class ConvLayer(object):
    def __init__(self, n_i, n_o, h):
        self.n_i, self.n_o, self.h = n_i, n_o, h
        self.x = None
        self.W_grad = None
        self.b_grad = None
        self.W = np.random.normal(0, np.sqrt(2 / ((n_i + n_o) * h * h)), (n_o, n_i, h, h))
        self.b = np.zeros((1, n_o))

    def forward(self, x):
        self.x = x
        y = np.zeros((x.shape[0], self.n_o) + x.shape[2:]) + self.b.reshape(1, -1, 1, 1)
        for p, q, window in self.windows(x):
            y += np.einsum("oc,ncij->noij", self.W[:, :, p, q], window)
        return y

    def backward(self, y_grad):
        self.b_grad = np.sum(y_grad, axis=(0, 2, 3)).reshape(1, -1)
        self.W_grad = np.zeros(self.W.shape)
        pad = self.h // 2
        n, c, rows, cols = self.x.shape
        x_grad = np.zeros((n, c, rows + 2 * pad, cols + 2 * pad))
        for p, q, window in self.windows(self.x):
            self.W_grad[:, :, p, q] = np.einsum("noij,ncij->oc", y_grad, window)
            x_grad[:, :, p:p + rows, q:q + cols] += np.einsum("oc,noij->ncij", self.W[:, :, p, q], y_grad)
        return x_grad[:, :, pad:pad + rows, pad:pad + cols]

    def windows(self, x):
        pad = self.h // 2
        padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), "constant")
        for p in range(self.h):
            for q in range(self.h):
                yield p, q, padded[:, :, p:p + x.shape[2], q:q + x.shape[3]]

    def update_param(self, lr):
        self.W = self.W - lr * self.W_grad
        self.b = self.b - lr * self.b_grad
