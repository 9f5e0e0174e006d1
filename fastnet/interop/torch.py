"""The conversion of a model to a PyTorch module."""
from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.interop import architecture
from fastnet.interop.safetensors import TENSORS, VECTORS
from fastnet.layer import learned


def to_torch(model: Any, kind: type) -> Any:
    """Make a ``torch.nn.Sequential``; the method ``to_torch`` of a model describes it."""
    try:
        import torch
    except ImportError:
        raise ImportError("Sequential.to_torch needs PyTorch, which is not installed: pip install torch.") from None

    architecture.describe("Sequential.to_torch", model, kind)  # refuses classes that nothing is known of
    modules: list[Any] = []
    for i, layer in enumerate(model.layers):
        if not hasattr(layer, "torch_module"):
            raise TypeError(f"Sequential.to_torch: layers[{i}] is a {type(layer).__name__}, which has no PyTorch form. Give "
                            "the class a method torch_module(nn) that returns one, nn being torch.nn.")
        of_images = any(getattr(behind, "needs_images", False) for behind in model.layers[i:])
        module = getattr(layer, "torch_module_of_images" if of_images else "", layer.torch_module)(torch.nn)
        for name in learned(layer):
            array, tensor = np.array(getattr(layer, name), layer.dtype), TENSORS.get(name, name)
            if getattr(module, tensor, None) is not None:
                value = torch.tensor(array if name not in VECTORS else array.reshape(-1))
                is_learned = isinstance(getattr(module, tensor), torch.nn.Parameter)
                setattr(module, tensor, torch.nn.Parameter(value) if is_learned else value)
        modules.append(module)
    return torch.nn.Sequential(*modules).eval()
