import unittest

import numpy as np
from layers.cross_entropy import CrossEntropyLayer
from layers.relu import ReluLayer
from layers.softmax import SoftMaxLayer


class TestRelu(unittest.TestCase):
    def test_forward(self):
        out = ReluLayer().forward(np.array([[1.0, -2.0, 0.0], [-0.5, 3.0, 2.0]]))
        self.assertTrue(np.array_equal(out, [[1, 0, 0], [0, 3, 2]]))

    def test_backward(self):
        layer = ReluLayer()
        layer.forward(np.array([[1.0, -2.0, 0.0]]))
        self.assertTrue(np.array_equal(layer.backward(np.array([[5.0, 6.0, 7.0]])), [[5, 0, 0]]))


class TestSoftMax(unittest.TestCase):
    def test_forward(self):
        out = SoftMaxLayer().forward(np.array([[1.0, 2.0, 3.0], [1000.0, 1000.0, -1000.0]]))
        e = np.exp([1, 2, 3])
        self.assertTrue(np.allclose(out, [e / e.sum(), [0.5, 0.5, 0]]))

    def test_backward(self):
        layer, h = SoftMaxLayer(), 1e-6
        x, y_grad = np.array([[0.1, 0.5, -0.2]]), np.array([[1.0, -2.0, 0.5]])
        value = np.sum(layer.forward(x) * y_grad)
        x_grad = layer.backward(y_grad)
        for j in range(3):
            moved = np.sum(SoftMaxLayer().forward(x + h * np.eye(3)[j]) * y_grad)
            self.assertAlmostEquals((moved - value) / h, x_grad[0, j], 5)


class TestCrossEntropy(unittest.TestCase):
    def setUp(self):
        self.x = np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
        self.t = np.array([[0, 1, 0], [1, 0, 0]])

    def test_forward(self):
        self.assertAlmostEquals(CrossEntropyLayer().forward(self.x, self.t), -(np.log(0.5) + np.log(0.1)) / 2)

    def test_backward(self):
        layer = CrossEntropyLayer()
        layer.forward(self.x, self.t)
        self.assertTrue(np.allclose(layer.backward(), [[0, -1, 0], [-5, 0, 0]]))


if __name__ == "__main__":
    unittest.main()
