import numpy as np


class MaxPoolLayer(object):
    def __init__(self, size=2):
        self.size = size
        self.locs = None

    def forward(self, x):
        n, c, rows, cols = x.shape
        s, r, k = self.size, rows // self.size, cols // self.size
        windows = x[:, :, :r * s, :k * s].reshape(n, c, r, s, k, s)
        y = windows.max(axis=(3, 5))
        self.locs = np.zeros(x.shape)
        largest = windows == y[:, :, :, None, :, None]
        self.locs[:, :, :r * s, :k * s] = largest.reshape(n, c, r * s, k * s)
        return y

    def backward(self, y_grad):
        rows, cols = y_grad.shape[2] * self.size, y_grad.shape[3] * self.size
        x_grad = np.zeros(self.locs.shape)
        x_grad[:, :, :rows, :cols] = np.repeat(np.repeat(y_grad, self.size, axis=2), self.size, axis=3)
        return x_grad * self.locs

    def update_param(self, lr):
        pass
