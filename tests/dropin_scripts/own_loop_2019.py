"""2019: a training loop of one's own, shuffled, with decaying rates, weights frozen and gradients looked at."""
import numpy as np
from layers import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer
from layers.dataset import cifar100, onehot, scale

(x_train, y_train), (x_test, y_test) = cifar100(7)
assert onehot(y_test).shape == (len(y_test), 5)
assert abs(scale(np.full((1, 3072), 255))).max() == 0.5

model = Sequential((FullLayer(3072, 30), ReluLayer(), FullLayer(30, 5), SoftMaxLayer()), CrossEntropyLayer())
first = model.layers[0].W.copy()
losses, norms = [], []
for epoch in range(4):
    order = np.random.permutation(len(x_train))
    for i in range(0, len(order), 8):
        rows = order[i:i + 8]
        losses.append(model.forward(x_train[rows], target=y_train[rows]))
        grad = model.backward()
        norms.append([np.linalg.norm(grad), np.linalg.norm(model.layers[0].W_grad), np.linalg.norm(model.layers[2].b_grad)])
        if epoch < 2:
            model.layers[0].W_grad = np.zeros_like(model.layers[0].W_grad)
        model.update_param(0.05 * 0.5 ** epoch)
    if epoch == 1:
        assert np.array_equal(model.layers[0].W, first)
np.savez("result.npz", losses=losses, norms=norms, y_test=y_test, scores=model.forward(x_test))
