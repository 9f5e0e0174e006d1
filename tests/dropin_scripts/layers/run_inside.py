"""A script that lies inside the folder, and names its modules without the folder."""
import numpy as np
from cross_entropy import CrossEntropyLayer
from dataset import cifar100, onehot
from full import FullLayer
from relu import ReluLayer
from sequential import Sequential
from softmax import SoftMaxLayer

(x_train, y_train), (x_test, y_test) = cifar100(1212149859)
model = Sequential(layers=(FullLayer(32 * 32 * 3, 25), ReluLayer(), FullLayer(25, 5), SoftMaxLayer()),
                   loss=CrossEntropyLayer())
loss = model.fit(x_train, y_train, epochs=5, lr=0.05, batch_size=16)
pred = model.predict(x_test)
index_0 = np.where(y_test == 0)[0]
np.savez("result.npz", x=x_train, loss=loss, pred=pred[index_0], t=onehot(y_test))
