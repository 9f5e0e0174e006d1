"""The PyTorch module that computes what a model computes."""
from __future__ import annotations

from typing import Any

import numpy as np

from fastnet import _architecture


def to_torch(model: Any) -> Any:
    """Make a ``torch.nn.Sequential``; the method ``to_torch`` of a model describes it."""
    try:
        import torch
    except ImportError:
        raise ImportError("Sequential.to_torch needs PyTorch, which is not installed: pip install torch.") from None

    described = _architecture.describe("Sequential.to_torch", model)["layers"]
    modules: list[Any] = []
    for layer, description in zip(model.layers, described):
        module = _MODULES[description["class"]](torch.nn, layer)
        if hasattr(layer, "running_mean"):
            if any(getattr(behind, "needs_images", False) for behind in model.layers[len(modules):]):
                module = torch.nn.BatchNorm2d(layer.n, layer.eps, layer.momentum)
            module.weight, module.bias = (_parameter(torch, a.reshape(-1), layer.dtype) for a in (layer.gamma, layer.beta))
            module.running_mean, module.running_var = (
                torch.tensor(np.array(a.reshape(-1), layer.dtype)) for a in (layer.running_mean, layer.running_var))
        if hasattr(layer, "W"):
            module.weight = _parameter(torch, layer.W, layer.dtype)
            module.bias = _parameter(torch, layer.b.reshape(-1), layer.dtype)
        modules.append(module)
    return torch.nn.Sequential(*modules).eval()


def _parameter(torch: Any, array: np.ndarray, dtype: np.dtype) -> Any:
    return torch.nn.Parameter(torch.tensor(np.array(array, dtype)))  # a copy: training the one does not change the other


_MODULES: dict[str, Any] = {
    "FullLayer": lambda nn, layer: nn.Linear(layer.n_i, layer.n_o, device="meta"),
    "ConvLayer": lambda nn, layer: nn.Conv2d(layer.n_i, layer.n_o, layer.h, padding=layer.h // 2, device="meta"),
    "MaxPoolLayer": lambda nn, layer: nn.MaxPool2d(layer.size),
    "FlattenLayer": lambda nn, layer: nn.Flatten(),
    "ReluLayer": lambda nn, layer: nn.ReLU(),
    "LeakyReluLayer": lambda nn, layer: nn.LeakyReLU(layer.slope),
    "TanhLayer": lambda nn, layer: nn.Tanh(),
    "SigmoidLayer": lambda nn, layer: nn.Sigmoid(),
    "BatchNormLayer": lambda nn, layer: nn.BatchNorm1d(layer.n, layer.eps, layer.momentum),
    "AveragePoolLayer": lambda nn, layer: nn.AvgPool2d(layer.size),
    "DropoutLayer": lambda nn, layer: nn.Dropout(layer.rate),
    "SoftMaxLayer": lambda nn, layer: nn.Softmax(dim=1),
}
