import unittest

import numpy as np
from layers.cross_entropy import CrossEntropyLayer
from layers.full import FullLayer
from layers.relu import ReluLayer
from layers.sequential import Sequential
from layers.softmax import SoftMaxLayer


class TestSequential(unittest.TestCase):
    def setUp(self):
        np.random.seed(4)
        self.parts = [FullLayer(5, 10), ReluLayer(), FullLayer(10, 2), SoftMaxLayer()]
        self.loss = CrossEntropyLayer()
        self.model = Sequential(self.parts, self.loss)
        self.x = np.array([[0.5, 0.2, 0.1, 0.3, 0.7], [0.3, 0.1, 0.05, 0.8, 0.9]])
        self.y = np.array([[0, 1], [1, 0]])

    def test_forward(self):
        out = self.x
        for layer in self.parts:
            out = layer.forward(out)
        self.assertTrue(np.array_equal(self.model.forward(self.x), out))
        self.assertAlmostEquals(self.model.forward(self.x, self.y), self.loss.forward(out, self.y))

    def test_backward(self):
        h = 0.0001
        out = self.model.forward(self.x, self.y)
        grads = self.model.backward()
        for index in np.ndindex(self.x.shape):
            moved = np.copy(self.x)
            moved[index] += h
            self.assertAlmostEquals((self.model.forward(moved, self.y) - out) / h, grads[index], 3)

    def test_fit_and_predict(self):
        losses = self.model.fit(self.x, self.y, epochs=60, lr=0.5, batch_size=1)
        self.assertEqual(np.shape(losses), (60,))
        self.assertTrue(losses[-1] < 0.2 * losses[0])
        self.assertTrue(np.array_equal(self.model.predict(self.x), [1, 0]))


if __name__ == "__main__":
    unittest.main()
