import unittest

import numpy as np
from layers.full import FullLayer


class TestFull(unittest.TestCase):
    def setUp(self):
        self.layer = FullLayer(2, 3)
        self.layer.W = np.array(((1, 2, 3), (4, 5, 6)), "float64").T
        self.layer.b = np.array(((2, 4, 6),), "float64")

    def test_init(self):
        np.random.seed(0)
        layer = FullLayer(200, 100)
        self.assertEqual(layer.W.shape, (100, 200))
        self.assertEqual(np.abs(layer.b).sum(), 0)
        self.assertAlmostEquals(np.std(layer.W), np.sqrt(2.0 / 300), 2)

    def test_forward(self):
        out = self.layer.forward(np.array([[1, 2], [-1, 1]]))
        self.assertTrue(np.allclose(out, [[11, 16, 21], [5, 7, 9]]))

    def test_update_param(self):
        x, y_grad = np.array([[1, 2]]), np.ones((1, 3))
        value = np.sum(self.layer.forward(x))
        self.layer.backward(y_grad)
        for _ in range(10):
            self.layer.update_param(0.1)
            new_value = np.sum(self.layer.forward(x))
            self.layer.backward(y_grad)
            self.assertTrue(new_value < value)
            value = new_value

    def test_backward(self):
        x, y_grad, h = np.array([[1, 2]]), np.ones((1, 3)), 0.0001
        out = self.layer.forward(x)
        x_grad = self.layer.backward(y_grad)
        for j in range(2):
            moved = x + h * np.eye(2)[j]
            self.assertAlmostEquals(np.sum(self.layer.forward(moved) - out) / h, x_grad[0][j])
        for name in ("W", "b"):
            grad, old = getattr(self.layer, name + "_grad"), getattr(self.layer, name)
            for index in np.ndindex(old.shape):
                new = np.copy(old)
                new[index] += h
                setattr(self.layer, name, new)
                self.assertAlmostEquals(np.sum(self.layer.forward(x) - out) / h, grad[index])
            setattr(self.layer, name, old)


if __name__ == "__main__":
    unittest.main()
