"""2019: losses in a list that grows from fit to fit"""
import numpy as np
from layers import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer
from layers.dataset import cifar100

(x_train, y_train), (x_test, y_test) = cifar100(24)
model = Sequential(layers=(FullLayer(3072, 20), ReluLayer(), FullLayer(20, 5), SoftMaxLayer()), loss=CrossEntropyLayer())
first = model.fit(x_train, y_train, epochs=3, lr=0.1, batch_size=8)
losses = model.fit(x_train, y_train, epochs=2, lr=0.05, batch_size=8)
assert first is losses
losses.append(np.mean(losses))
np.savez("result.npz", losses=losses, y_pred=model.predict(x_test))
