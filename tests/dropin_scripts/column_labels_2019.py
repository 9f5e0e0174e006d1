"""2019: predict gives a column, and so are the labels that it is compared with"""
import numpy as np
from layers import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer
from layers.dataset import cifar100

(x_train, y_train), (x_test, y_test) = cifar100(21)
model = Sequential(layers=(FullLayer(3072, 20), ReluLayer(), FullLayer(20, 5), SoftMaxLayer()), loss=CrossEntropyLayer())
loss = model.fit(x_train, y_train, epochs=8, lr=0.1, batch_size=8)
score = np.mean(model.predict(x_test) == y_test.reshape(-1, 1))
print("score", score)
np.savez("result.npz", loss=loss, score=score)
