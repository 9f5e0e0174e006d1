class FlattenLayer(object):
    def __init__(self):
        self.orig_shape = None

    def forward(self, x):
        self.orig_shape = x.shape
        return x.reshape(x.shape[0], -1).copy()

    def backward(self, y_grad):
        return y_grad.reshape(self.orig_shape)

    def update_param(self, lr):
        pass
