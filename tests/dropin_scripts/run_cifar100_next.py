"""2019, the next chapter: three classes as images, two convolutions."""
import numpy as np
from layers import (ConvLayer, CrossEntropyLayer, FlattenLayer, FullLayer, MaxPoolLayer, ReluLayer, Sequential,
                    SoftMaxLayer)
from layers.dataset import cifar100

model = Sequential(layers=(ConvLayer(3, 4, 3),
                           ReluLayer(),
                           MaxPoolLayer(),
                           ConvLayer(4, 8, 3),
                           ReluLayer(),
                           MaxPoolLayer(),
                           FlattenLayer(),
                           FullLayer(8 * 8 * 8, 3),
                           SoftMaxLayer()),
                   loss=CrossEntropyLayer())
(x_train, y_train), (x_test, y_test) = cifar100(1213187844)
np.random.seed(5)
for layer in model.layers:
    if hasattr(layer, "W"):
        layer.W = np.random.normal(0, 0.1, layer.W.shape)
loss = model.fit(x_train, y_train, 3, 0.1, 6)
print(loss)
np.savez("result.npz", x=x_train, loss=loss, y_pred=model.predict(x_test), W=model.layers[3].W)
