"""2018: four classes, drawn with replacement; three learning rates, one after the other, on the same model."""
import numpy as np
from layers import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer
from layers.dataset import cifar100

(x_train, y_train), (x_test, y_test) = cifar100(1212356299)

model = Sequential(layers=(FullLayer(3072, 50), ReluLayer(), FullLayer(50, 4), SoftMaxLayer()), loss=CrossEntropyLayer())

accuracies = np.zeros((3,))
losses = []
for i, rate in enumerate([0.01, 0.001, 0.1]):
    losses.append(model.fit(x_train, y_train, lr=rate, epochs=5))
    y_predict = model.predict(x_test)
    count = 0
    for j in range(np.size(y_test)):
        if y_predict[j] == y_test[j]:
            count += 1
    accuracies[i] = (100.0 * count) / np.shape(y_predict)[0]

print("Accuracies:", accuracies, "%")
np.savez("result.npz", x=x_train, y=y_train, losses=losses, accuracies=accuracies)
