import numpy as np


class FullLayer(object):
    def __init__(self, n_i, n_o):
        self.x = None
        self.W_grad = None
        self.b_grad = None
        self.n_i = n_i
        self.n_o = n_o
        self.W = np.random.normal(0, np.sqrt(2 / (n_i + n_o)), (n_o, n_i))
        self.b = np.zeros((1, n_o))

    def forward(self, x):
        self.x = x
        return np.dot(x, self.W.T) + self.b

    def backward(self, y_grad):
        self.W_grad = np.dot(y_grad.T, self.x)
        self.b_grad = np.sum(y_grad, axis=0, keepdims=True)
        return np.dot(y_grad, self.W)

    def update_param(self, lr):
        self.W = self.W - lr * self.W_grad
        self.b = self.b - lr * self.b_grad
