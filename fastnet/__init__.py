"""fastnet: the neural network of the course chapter, on kernels compiled by Numba.

The course's classes under the course's names, for networks of fully connected layers that train in seconds::

    from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer

    model = Sequential((FullLayer(3072, 500), ReluLayer(), FullLayer(500, 5), SoftMaxLayer()), loss=CrossEntropyLayer())
    losses = model.fit(x_train, y_train, epochs=20, lr=0.1)
    labels = model.predict(x_test)
"""
from fastnet._dtypes import get_default_dtype, set_default_dtype
from fastnet._version import __version__
from fastnet.cross_entropy import CrossEntropyLayer, one_hot
from fastnet.full import FullLayer
from fastnet.gradcheck import GradientReport, gradcheck
from fastnet.relu import ReluLayer
from fastnet.sequential import Sequential
from fastnet.softmax import SoftMaxLayer
from fastnet.training import EpochReport, Evaluation, History, Plan
from kernels.threads import get_num_threads, set_num_threads

__all__ = [
    "CrossEntropyLayer",
    "EpochReport",
    "Evaluation",
    "FullLayer",
    "GradientReport",
    "History",
    "Plan",
    "ReluLayer",
    "Sequential",
    "SoftMaxLayer",
    "__version__",
    "get_default_dtype",
    "get_num_threads",
    "gradcheck",
    "one_hot",
    "set_default_dtype",
    "set_num_threads",
]
