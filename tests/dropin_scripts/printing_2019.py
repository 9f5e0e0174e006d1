"""2019: a fit with an argument of its own"""
import numpy as np
from layers import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer
from layers.dataset import cifar100

(x_train, y_train), (x_test, y_test) = cifar100(23)
model = Sequential(layers=(FullLayer(3072, 20), ReluLayer(), FullLayer(20, 5), SoftMaxLayer()), loss=CrossEntropyLayer())
loss = model.fit(x_train, y_train, epochs=5, lr=0.1, batch_size=8, print_output=True)
np.savez("result.npz", loss=loss, y_pred=model.predict(x_test))
