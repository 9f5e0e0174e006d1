"""2019: a deeper network, the template's defaults, the losses of all mini-batches reshaped as if they were there."""
import numpy as np
from layers.cross_entropy import CrossEntropyLayer
from layers.dataset import cifar100
from layers.full import FullLayer
from layers.relu import ReluLayer
from layers.sequential import Sequential
from layers.softmax import SoftMaxLayer


class Better(object):
    def __init__(self, widths, epochs):
        self.epochs = epochs
        layers = []
        for n_i, n_o in zip(widths[:-1], widths[1:]):
            layers += [FullLayer(n_i, n_o), ReluLayer()]
        layers[-1] = SoftMaxLayer()
        self.model = Sequential(tuple(layers), CrossEntropyLayer())

    def train(self, x, y):
        loss = self.model.fit(x, y)
        return np.mean(np.reshape(loss, (self.epochs, -1)), axis=1)

    def test(self, x, y):
        out = np.reshape(self.model.predict(x), (x.shape[0], 1))
        return np.mean(out == np.reshape(y, (x.shape[0], 1)))


(x_train, y_train), (x_test, y_test) = cifar100(1213391684)
better = Better([3072, 40, 30, 5], 10)
loss = better.train(x_train, y_train)
score = better.test(x_test, y_test)
print("Accuracy:", score)
np.savez("result.npz", loss=loss, score=score, W=better.model.layers[2].W)
