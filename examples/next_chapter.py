"""The assignment of the course's next chapter, as a course script: a small convolutional network on three classes.

The script imports the course's modules. Next to a folder ``layers`` of the course, it trains for over an hour. The
drop-in runs it unchanged on fastnet::

    python -m fastnet.dropin examples/next_chapter.py
    python -m fastnet.dropin examples/next_chapter.py --data synthetic      # without CIFAR-100

It prints the accuracy on the test images and draws the loss of each epoch in next_chapter.png.
"""
import argparse

import matplotlib
import numpy as np

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from layers.conv import ConvLayer
from layers.cross_entropy import CrossEntropyLayer
from layers.flatten import FlattenLayer
from layers.full import FullLayer
from layers.maxpool import MaxPoolLayer
from layers.relu import ReluLayer
from layers.sequential import Sequential
from layers.softmax import SoftMaxLayer

parser = argparse.ArgumentParser()
parser.add_argument("--data", default="cifar100", help="cifar100; with fastnet also synthetic or PATH.npz")
parser.add_argument("--epochs", type=int, default=15)
parser.add_argument("--images", type=int, default=2500, help="train on the first so many")
parser.add_argument("--plot", default="next_chapter.png")
arguments = parser.parse_args()

if arguments.data == "cifar100":
    from layers.dataset import cifar100

    (x_train, y_train), (x_test, y_test) = cifar100(0)
else:
    from layers.dataset import load

    (x_train, y_train), (x_test, y_test) = load(arguments.data, 0, n_classes=3)
x_train, x_test = (x.reshape(-1, 3, 32, 32) for x in (x_train, x_test))
x_train, y_train = x_train[:arguments.images], y_train[:arguments.images]

np.random.seed(0)
model = Sequential(layers=(ConvLayer(3, 16, 3), ReluLayer(), MaxPoolLayer(2),
                           ConvLayer(16, 32, 3), ReluLayer(), MaxPoolLayer(2),
                           FlattenLayer(),
                           FullLayer(32 * 8 * 8, y_train.shape[1]), SoftMaxLayer()),
                   loss=CrossEntropyLayer())
losses = model.fit(x_train, y_train, epochs=arguments.epochs, lr=0.1, batch_size=128)
accuracy = np.mean(model.predict(x_test) == y_test)
print(f"loss of the last epoch {losses[-1]:.4f}, test accuracy {accuracy:.4f}")

plt.plot(np.arange(1, arguments.epochs + 1), losses)
plt.xlabel("epoch")
plt.ylabel("average training loss")
plt.savefig(arguments.plot)
