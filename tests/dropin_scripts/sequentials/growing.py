import numpy as np


class Sequential(object):
    def __init__(self, layers, loss):
        self.layers = layers
        self.loss = loss
        self.losses = []

    def forward(self, x, target=None):
        for layer in self.layers:
            x = layer.forward(x)
        return x if target is None else self.loss.forward(x, target)

    def backward(self):
        grad = self.loss.backward()
        for layer in reversed(self.layers):
            grad = layer.backward(grad)
        return grad

    def update_param(self, lr):
        for layer in self.layers:
            layer.update_param(lr)

    def epoch(self, x, y, lr, batch_size):
        losses = []
        for i in range(0, len(x), batch_size):
            losses.append(self.forward(x[i:i + batch_size], y[i:i + batch_size]))
            self.backward()
            self.update_param(lr)
        return np.mean(losses)

    def fit(self, x, y, epochs=10, lr=0.1, batch_size=128):
        for epoch in range(epochs):
            self.losses.append(self.epoch(x, y, lr, batch_size))
        return self.losses

    def predict(self, x):
        return np.argmax(self.forward(x), axis=1)
