import numpy as np


class Sequential(object):
    def __init__(self, layers, loss):
        self.layers = layers
        self.loss = loss

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

    def fit(self, x, y, epochs=10, lr=0.1, batch_size=128, print_output=False):
        losses = np.zeros(epochs)
        for epoch in range(epochs):
            losses[epoch] = self.epoch(x, y, lr, batch_size)
            if print_output:
                print("epoch", epoch + 1, "loss", losses[epoch])
        return losses

    def predict(self, x):
        return np.argmax(self.forward(x), axis=1)
