"""2019: a cifar100 that takes the number of classes"""
import numpy as np
from layers import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer
from layers.dataset import cifar100

(x_train, y_train), (x_test, y_test) = cifar100(26, 3)
model = Sequential(layers=(FullLayer(3072, 20), ReluLayer(), FullLayer(20, 3), SoftMaxLayer()), loss=CrossEntropyLayer())
loss = model.fit(x_train, y_train, epochs=5, lr=0.1, batch_size=8)
np.savez("result.npz", x=x_train, y_test=y_test, loss=loss, y_pred=model.predict(x_test))
