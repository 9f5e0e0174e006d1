"""
2019: the chapter's deliverable, smaller

With learning rate 10 the loss is very large after the first mini-batches, and no class is told from the others.
"""
import csv

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from layers import *
from layers.dataset import cifar100

seed = 1213351124
lrs = [0.1, 0.01, 0.3]
accuracy, curves = [], []
for lr in lrs:
    (x_train, y_train), (x_test, y_test) = cifar100(seed=seed)
    model = Sequential(layers=(FullLayer(32 * 32 * 3, 50), ReluLayer(), FullLayer(50, 5), SoftMaxLayer()), loss=CrossEntropyLayer())
    loss = model.fit(x_train, y_train, epochs=6, lr=lr)
    plt.plot(np.arange(len(loss)), loss, label="lr = " + str(lr))
    accuracy.append(np.mean(model.predict(x_test) == y_test))
    curves.append(loss)
plt.xlabel("Epoch")
plt.ylabel("Average training loss")
plt.legend()
plt.savefig("acc_lr.png")

with open("acc_results.csv", "w") as f:
    writer = csv.writer(f)
    for lr, acc in zip(lrs, accuracy):
        writer.writerow([lr, "{:.4f}".format(acc)])
np.savez("result.npz", x=x_train, curves=curves, table=np.array(open("acc_results.csv").read()))
