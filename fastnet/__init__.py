"""fastnet: the neural network of the course chapter, on kernels compiled by Numba.

The course's classes under the course's names, for networks of fully connected layers that train in seconds::

    from fastnet import CrossEntropyLayer, FullLayer, ReluLayer, Sequential, SoftMaxLayer

    model = Sequential((FullLayer(3072, 500), ReluLayer(), FullLayer(500, 5), SoftMaxLayer()), loss=CrossEntropyLayer())
    losses = model.fit(x_train, y_train, epochs=20, lr=0.1)
    labels = model.predict(x_test)

Names are imported when they are first used (:pep:`562`), so that tools which need no kernel start without Numba.
"""
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastnet._version import __version__

if TYPE_CHECKING:
    from fastnet import dataset as dataset
    from fastnet import sweep as sweep
    from fastnet.average_pool import AveragePoolLayer
    from fastnet.base.dtypes import get_default_dtype, set_default_dtype
    from fastnet.base.gradcheck import GradientReport, gradcheck
    from fastnet.batch_norm import BatchNormLayer
    from fastnet.callbacks import CSVLogger
    from fastnet.conv import ConvLayer
    from fastnet.cross_entropy import CrossEntropyLayer, one_hot
    from fastnet.dropout import DropoutLayer
    from fastnet.flatten import FlattenLayer
    from fastnet.full import FullLayer
    from fastnet.kernels.runtime.pool import get_num_threads, set_num_threads
    from fastnet.leaky_relu import LeakyReluLayer
    from fastnet.maxpool import MaxPoolLayer
    from fastnet.mean_squared_error import MeanSquaredErrorLayer
    from fastnet.relu import ReluLayer
    from fastnet.saving import load
    from fastnet.sequential import Sequential
    from fastnet.sigmoid import SigmoidLayer
    from fastnet.softmax import SoftMaxLayer
    from fastnet.tanh import TanhLayer
    from fastnet.training import EpochReport, Evaluation, History, Plan

__all__ = [
    "AveragePoolLayer",
    "BatchNormLayer",
    "CSVLogger",
    "ConvLayer",
    "CrossEntropyLayer",
    "DropoutLayer",
    "EpochReport",
    "Evaluation",
    "FlattenLayer",
    "FullLayer",
    "GradientReport",
    "History",
    "LeakyReluLayer",
    "MaxPoolLayer",
    "MeanSquaredErrorLayer",
    "Plan",
    "ReluLayer",
    "Sequential",
    "SigmoidLayer",
    "SoftMaxLayer",
    "TanhLayer",
    "__version__",
    "get_default_dtype",
    "get_num_threads",
    "gradcheck",
    "load",
    "one_hot",
    "set_default_dtype",
    "set_num_threads",
]

_MODULE_OF = {
    "AveragePoolLayer": "fastnet.average_pool",
    "BatchNormLayer": "fastnet.batch_norm",
    "CSVLogger": "fastnet.callbacks",
    "ConvLayer": "fastnet.conv",
    "CrossEntropyLayer": "fastnet.cross_entropy",
    "DropoutLayer": "fastnet.dropout",
    "EpochReport": "fastnet.training",
    "Evaluation": "fastnet.training",
    "FlattenLayer": "fastnet.flatten",
    "FullLayer": "fastnet.full",
    "GradientReport": "fastnet.base.gradcheck",
    "History": "fastnet.training",
    "MaxPoolLayer": "fastnet.maxpool",
    "Plan": "fastnet.training",
    "LeakyReluLayer": "fastnet.leaky_relu",
    "MeanSquaredErrorLayer": "fastnet.mean_squared_error",
    "ReluLayer": "fastnet.relu",
    "Sequential": "fastnet.sequential",
    "SigmoidLayer": "fastnet.sigmoid",
    "SoftMaxLayer": "fastnet.softmax",
    "TanhLayer": "fastnet.tanh",
    "get_default_dtype": "fastnet.base.dtypes",
    "get_num_threads": "fastnet.kernels.runtime.pool",
    "gradcheck": "fastnet.base.gradcheck",
    "load": "fastnet.saving",
    "one_hot": "fastnet.cross_entropy",
    "set_default_dtype": "fastnet.base.dtypes",
    "set_num_threads": "fastnet.kernels.runtime.pool",
}


if not TYPE_CHECKING:  # type checkers know the names above, and should know no others

    def __getattr__(name: str) -> Any:
        if name in _MODULE_OF:
            value = getattr(importlib.import_module(_MODULE_OF[name]), name)
        elif not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is not None:
            value = importlib.import_module(f"{__name__}.{name}")
        else:
            raise AttributeError(f"module 'fastnet' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _find_kernels_in_checkout() -> None:
    """Make the checkout's folder ``kernels`` importable as ``fastnet.kernels``, which is its place once installed."""
    root = Path(__file__).resolve().parent.parent
    folder = root / "kernels"
    if (root / "fastnet" / "kernels").exists() or not ((root / "pyproject.toml").exists() and folder.is_dir()):
        return
    spec = importlib.util.spec_from_file_location(f"{__name__}.kernels", folder / "__init__.py",
                                                  submodule_search_locations=[str(folder)])
    assert spec is not None and spec.loader is not None
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    globals()["kernels"] = module


_find_kernels_in_checkout()
