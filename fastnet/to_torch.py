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

    _architecture.describe("Sequential.to_torch", model)  # refuses classes that nothing is known of
    modules = []
    for i, layer in enumerate(model.layers):
        if not hasattr(layer, "torch_module"):
            raise TypeError(f"Sequential.to_torch: layers[{i}] is a {type(layer).__name__}, which has no PyTorch form. Give "
                            "the class a method torch_module(nn) that returns one, nn being torch.nn.")
        module = layer.torch_module(torch.nn)
        if hasattr(layer, "W"):
            module.weight = _parameter(torch, layer.W, layer.dtype)
            module.bias = _parameter(torch, layer.b.reshape(-1), layer.dtype)
        modules.append(module)
    return torch.nn.Sequential(*modules)


def _parameter(torch: Any, array: np.ndarray, dtype: np.dtype) -> Any:
    return torch.nn.Parameter(torch.tensor(np.array(array, dtype)))  # a copy: training the one does not change the other
