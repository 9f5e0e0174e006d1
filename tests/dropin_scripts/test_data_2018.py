"""2018, the next chapter: images, one-hot test labels, test data given to fit, two arrays of losses back."""
import numpy as np
from layers.conv import ConvLayer
from layers.cross_entropy import CrossEntropyLayer
from layers.dataset import cifar100
from layers.flatten import FlattenLayer
from layers.full import FullLayer
from layers.maxpool import MaxPoolLayer
from layers.relu import ReluLayer
from layers.sequential import Sequential
from layers.softmax import SoftMaxLayer

(x_train, y_train), (x_test, y_test) = cifar100(1213076538)

layer1 = ConvLayer(3, 4, 3)
relu1 = ReluLayer()
layer2 = MaxPoolLayer(2)
layer3 = FlattenLayer()
layer4 = FullLayer(4 * 16 * 16, y_train.shape[1])
softmax = SoftMaxLayer()
loss = CrossEntropyLayer()

model = Sequential((layer1, relu1, layer2, layer3, layer4, softmax), loss)
n_epochs, lr, batch_size = 3, 0.05, 10
by_place = model.fit(x_train, y_train, x_test, y_test, n_epochs, lr, batch_size)
train_loss, test_loss = model.fit(x_train, y_train, x_test, y_test, epochs=2, lr=lr, batch_size=batch_size)

y_pred = model.predict(x_test)
accuracy = np.mean(y_pred == np.argmax(y_test, axis=1))
print("Train loss", train_loss, "Test loss", test_loss, "Accuracy", accuracy)
np.savez("result.npz", x=x_train, y_test=y_test, by_place=by_place, train_loss=train_loss, test_loss=test_loss, y_pred=y_pred)
