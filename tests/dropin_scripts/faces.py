"""The next chapter on other data: a loader of one's own; x is shortened, y is not, as a loop over slices allows."""
import numpy as np
from layers.conv import ConvLayer
from layers.cross_entropy import CrossEntropyLayer
from layers.dataset import fer2013
from layers.flatten import FlattenLayer
from layers.full import FullLayer
from layers.maxpool import MaxPoolLayer
from layers.relu import ReluLayer
from layers.sequential import Sequential
from layers.softmax import SoftMaxLayer

np.random.seed(3)
(train_x, train_y), (val_x, val_y), (test_x, test_y) = fer2013()
# Since the network is slow, train on the first 48 images
train_x = train_x[0:48, :, :, :]

net = Sequential(layers=(ConvLayer(n_i=1, n_o=4, h=3),
                         ReluLayer(),
                         MaxPoolLayer(size=2),
                         ConvLayer(n_i=4, n_o=8, h=3),
                         ReluLayer(),
                         MaxPoolLayer(size=2),
                         FlattenLayer(),
                         FullLayer(n_i=3 * 3 * 8, n_o=3),
                         SoftMaxLayer()),
                 loss=CrossEntropyLayer())
loss = net.fit(x=train_x, y=train_y, epochs=6, lr=0.1, batch_size=16)
accuracy = np.mean(net.predict(val_x) == val_y)
print("Validation accuracy:", accuracy)
np.savez("result.npz", loss=loss, accuracy=accuracy, test=net.forward(test_x))
