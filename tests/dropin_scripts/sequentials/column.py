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

    def fit(self, x, y, *args, x_test=None, y_test=None, epochs=10, lr=0.1, batch_size=128):
        """2019: fit(x, y, epochs, lr, batch_size); 2018: fit(x, y, x_test, y_test, epochs, lr, batch_size)"""
        args = list(args)
        if args and np.ndim(args[0]) > 1:
            x_test, y_test = args.pop(0), args.pop(0)
        epochs, lr, batch_size = args + [epochs, lr, batch_size][len(args):]
        rates = np.ravel(lr) if np.size(lr) > 1 else np.repeat(lr, epochs)
        losses, test_losses = np.zeros(epochs), np.zeros(epochs)
        for epoch in range(epochs):
            losses[epoch] = self.epoch(x, y, rates[epoch], batch_size)
            if x_test is not None:
                test_losses[epoch] = self.forward(x_test, y_test)
        return losses if x_test is None else (losses, test_losses)

    def predict(self, x):
        return np.argmax(self.forward(x), axis=1).reshape(-1, 1)
