"""2019: a dataset.py that returns the classes as well; rates as a list of one; x, W and b changed in place."""
import layers.dataset
import layers.full
import numpy as np
from layers import CrossEntropyLayer, ReluLayer, Sequential, SoftMaxLayer

(x_train, y_train), (x_test, y_test), selected_cats = layers.dataset.cifar100(1213187844)

hidden = layers.full.FullLayer(3072, 20)
hidden.W *= 0.5
hidden.b[0, :] = 0.01
model = Sequential((hidden, ReluLayer(), layers.full.FullLayer(20, 5), SoftMaxLayer()), CrossEntropyLayer())
loss = model.fit(x_train, y_train, 4, [0.05], 16)
by_epoch = model.fit(x_train, y_train, 3, [0.05, 0.02, 0.01], 16)
y_predict = model.predict(x_test)
compare = y_predict == y_test
np.savez("result.npz", selected_cats=selected_cats, loss=loss, by_epoch=by_epoch, compare=compare)
