"""2019: a model that saves and loads itself, without a path"""
import numpy as np
from layers import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer
from layers.dataset import cifar100

(x_train, y_train), (x_test, y_test) = cifar100(22)
model = Sequential(layers=(FullLayer(3072, 20), ReluLayer(), FullLayer(20, 5), SoftMaxLayer()), loss=CrossEntropyLayer())
loss = model.fit(x_train, y_train, epochs=5, lr=0.1, batch_size=8)
model.save()
for layer in model.layers:
    if hasattr(layer, "W"):
        layer.W = layer.W * 0
model.load()
np.savez("result.npz", loss=loss, y_pred=model.predict(x_test), W=model.layers[0].W)
