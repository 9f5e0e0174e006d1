import numpy as np

from .relu import ReluLayer


class Dropout(ReluLayer):
    """A layer of one's own: a ReLU that drops a fixed half of its outputs."""

    def __init__(self, n):
        super().__init__()
        self.kept = 2.0 * (np.arange(n) % 2)

    def forward(self, x):
        return super().forward(x) * self.kept

    def backward(self, y_grad):
        return super().backward(y_grad * self.kept)
