"""fastnet: the neural network of the course chapter, on kernels compiled by Numba.

The course's classes under the course's names, for networks of fully connected layers that train in seconds::

    from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer

    model = Sequential((FullLayer(3072, 500), ReluLayer(), FullLayer(500, 5), SoftMaxLayer()), loss=CrossEntropyLayer())
    losses = model.fit(x_train, y_train, epochs=20, lr=0.1)
    labels = model.predict(x_test)
"""
from fastnet import _checks

_checks.own_kernels()  # before anything imports one

from fastnet._dtypes import get_default_dtype, set_default_dtype  # noqa: E402
from fastnet.cross_entropy import CrossEntropyLayer, one_hot  # noqa: E402
from fastnet.full import FullLayer  # noqa: E402
from fastnet.gradcheck import GradientReport, gradcheck  # noqa: E402
from fastnet.relu import ReluLayer  # noqa: E402
from fastnet.sequential import Sequential  # noqa: E402
from fastnet.softmax import SoftMaxLayer  # noqa: E402

__version__ = "0.1.0"

__all__ = [
    "CrossEntropyLayer",
    "FullLayer",
    "GradientReport",
    "ReluLayer",
    "Sequential",
    "SoftMaxLayer",
    "__version__",
    "get_default_dtype",
    "gradcheck",
    "one_hot",
    "set_default_dtype",
]
