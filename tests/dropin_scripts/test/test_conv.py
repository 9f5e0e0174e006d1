import unittest

import numpy as np
from layers.conv import ConvLayer


def counted(*shape):
    return np.arange(np.prod(shape), dtype="float64").reshape(shape)


class TestConv(unittest.TestCase):
    def layer(self, n_i, n_o, h):
        layer = ConvLayer(n_i, n_o, h)
        layer.W, layer.b = counted(n_o, n_i, h, h), counted(1, n_o)
        return layer

    def test_init(self):
        layer = ConvLayer(2, 3, 5)
        self.assertEqual(layer.W.shape, (3, 2, 5, 5))
        self.assertEqual(layer.b.shape, (1, 3))

    def test_forward(self):
        out = self.layer(1, 1, 3).forward(counted(1, 1, 3, 3))
        self.assertTrue(np.allclose(out, [[[[58, 100, 70], [132, 204, 132], [70, 100, 58]]]]))

    def test_forward_two_inputs(self):
        out = self.layer(2, 1, 3).forward(counted(1, 2, 4, 4))
        self.assertEqual(out.shape, (1, 1, 4, 4))
        self.assertTrue(np.allclose(out[0, 0, 0], [1196, 1796, 1916, 1264]))
        self.assertTrue(np.allclose(out[0, 0, 3], [1424, 2072, 2156, 1380]))

    def test_forward_two_outputs(self):
        out = self.layer(2, 2, 3).forward(counted(1, 2, 4, 4))
        self.assertEqual(out.shape, (1, 2, 4, 4))
        self.assertTrue(np.allclose(out[0, 1, 0], [2709, 4173, 4509, 3065]))

    def test_backward(self):
        for sizes, shape in (((1, 1, 3), (1, 1, 8, 8)), ((2, 1, 3), (1, 2, 4, 4)), ((2, 2, 3), (1, 2, 4, 4)),
                             ((5, 3, 3), (2, 5, 3, 3)), ((2, 5, 5), (2, 2, 8, 8))):
            for made in (np.ones, lambda shape: counted(*shape)):
                self.compare(self.layer(*sizes), counted(*shape), made)

    def compare(self, layer, x, made):
        """differences of the outputs, for x, W and b, each changed in place"""
        h = 0.001
        out = layer.forward(x)
        y_grad = made(out.shape)
        grads = [(x, layer.backward(y_grad)), (layer.W, layer.W_grad), (layer.b, layer.b_grad)]
        for array, grad in grads:
            for index in np.ndindex(array.shape):
                old = array[index]
                array[index] = old + h
                difference = np.sum((layer.forward(x) - out) * y_grad) / h
                array[index] = old
                self.assertTrue(np.allclose(difference, grad[index]), (index, difference, grad[index]))


if __name__ == "__main__":
    unittest.main()
