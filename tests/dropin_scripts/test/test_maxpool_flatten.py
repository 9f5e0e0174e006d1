import unittest

import numpy as np
from layers.flatten import FlattenLayer
from layers.maxpool import MaxPoolLayer


class TestMaxPool(unittest.TestCase):
    def test_forward(self):
        x = np.arange(16, dtype="float64").reshape(1, 1, 4, 4)
        self.assertTrue(np.array_equal(MaxPoolLayer().forward(x), [[[[5, 7], [13, 15]]]]))

    def test_forward_of_sizes_that_do_not_divide(self):
        layer = MaxPoolLayer(size=2)
        self.assertEqual(layer.locs, None)
        out = layer.forward(np.arange(50, dtype="float64").reshape(1, 2, 5, 5))
        self.assertTrue(np.array_equal(out[0], [[[6, 8], [16, 18]], [[31, 33], [41, 43]]]))
        x_grad = layer.backward(np.ones(out.shape))
        self.assertEqual(x_grad.shape, (1, 2, 5, 5))
        self.assertEqual(np.sum(x_grad), 8)
        self.assertEqual(np.sum(x_grad[:, :, 4]) + np.sum(x_grad[:, :, :, 4]), 0)

    def test_backward_with_ties(self):
        layer = MaxPoolLayer(2)
        x = np.array([[[[1.0, 1.0, 0.0, 2.0], [0.0, 1.0, 2.0, 2.0]]]])
        layer.forward(x)
        x_grad = layer.backward(np.array([[[[3.0, 5.0]]]]))
        self.assertTrue(np.array_equal(x_grad, [[[[3, 3, 0, 5], [0, 3, 5, 5]]]]))


class TestFlatten(unittest.TestCase):
    def test_forward_and_backward(self):
        layer = FlattenLayer()
        x = np.arange(48, dtype="float64").reshape(2, 3, 2, 4)
        out = layer.forward(x)
        self.assertTrue(np.array_equal(out, np.arange(48).reshape(2, 24)))
        out[0, 0] = 100
        self.assertEqual(x[0, 0, 0, 0], 0)
        self.assertTrue(np.array_equal(layer.backward(x.reshape(2, 24)), x))


if __name__ == "__main__":
    unittest.main()
