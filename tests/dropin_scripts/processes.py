"""2019: a learning rate per process, spawned, and a second script in a process of its own."""
import multiprocessing
import subprocess
import sys

import numpy as np
from layers import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer
from layers.dataset import cifar100


def train(lr):
    (x_train, y_train), _ = cifar100(2)
    model = Sequential((FullLayer(3072, 10), ReluLayer(), FullLayer(10, 5), SoftMaxLayer()), CrossEntropyLayer())
    return model.fit(x_train, y_train, epochs=3, lr=lr, batch_size=8), FullLayer.__module__


if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        results = pool.map(train, [0.01, 0.1])
    code = "from layers import FullLayer; print(FullLayer.__module__)"
    child = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    modules = {module for _, module in results} | {child.stdout.decode().strip()}
    assert modules in ({"layers.full"}, {"fastnet.full"}), modules
    np.savez("result.npz", losses=[losses for losses, _ in results])
