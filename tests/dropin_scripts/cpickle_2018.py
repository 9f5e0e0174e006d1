"""2018: a dataset.py of Python 2, with cPickle and a print statement"""
import numpy as np
from layers import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer
from layers.dataset import cifar100

(x_train, y_train), (x_test, y_test) = cifar100(25)
model = Sequential(layers=(FullLayer(3072, 20), ReluLayer(), FullLayer(20, 5), SoftMaxLayer()), loss=CrossEntropyLayer())
loss = model.fit(x_train, y_train, epochs=3, lr=0.1, batch_size=8)
np.savez("result.npz", x=x_train, loss=loss, y_pred=model.predict(x_test))
