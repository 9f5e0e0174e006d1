"""How each public kernel is called: the shapes of its arguments, from the sizes of a layer."""
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from fastnet.kernels import naive

from fastnet import kernels

SIZES = "nioctrkh"  # samples; inputs, outputs of a layer of rows; channels in, channels out, rows, columns, side of a filter


class Signature(NamedTuple):
    """The arguments of a kernel, in their order: arrays that it writes, arrays that it reads, numbers.

    Each array is a word with a letter for each axis: one of `SIZES`; "1"; R and K, of a pooled image; F, all values of one
    image. A question mark makes it an array of truth values.
    """

    outputs: str
    inputs: str
    numbers: tuple = ()
    contiguous: bool = False  # whether the outputs have to be, when the kernel is called from Python

    def arrays(self, sizes: dict[str, int]) -> tuple[list[tuple], list[tuple]]:
        """Pairs (shape, whether it holds truth values) of the outputs and of the inputs."""
        known = {**sizes, "1": 1, "R": sizes["r"] // 2, "K": sizes["k"] // 2, "F": sizes["c"] * sizes["r"] * sizes["k"]}
        return tuple([(tuple(known[letter] for letter in word.rstrip("?")), word.endswith("?")) for word in words.split()]
                     for words in (self.outputs, self.inputs))


SIGNATURES = {
    "full_forward": Signature("no", "ni oi 1o"),
    "full_backward": Signature("ni oi 1o", "no ni oi"),
    "full_backward_input": Signature("ni", "no oi"),
    "full_backward_weights": Signature("oi", "no ni"),
    "full_backward_bias": Signature("1o", "no"),
    "relu_forward": Signature("ni", "ni", contiguous=True),
    "relu_backward": Signature("ni", "ni ni", contiguous=True),
    "leaky_relu_forward": Signature("ni", "ni", (0.1,), contiguous=True),
    "leaky_relu_backward": Signature("ni", "ni ni", (0.1,), contiguous=True),
    "sigmoid_forward": Signature("ni", "ni", contiguous=True),
    "sigmoid_backward": Signature("ni", "ni ni", contiguous=True),
    "dropout_forward": Signature("ni ni", "ni", (0.4, 5, 3), contiguous=True),
    "dropout_backward": Signature("ni", "ni ni", contiguous=True),
    "batch_norm_forward": Signature("ncrk 1c 1c 1c", "ncrk 1c 1c", (0.1,), contiguous=True),
    "batch_norm_predict": Signature("ncrk", "ncrk 1c 1c 1c 1c", contiguous=True),
    "batch_norm_backward": Signature("ncrk 1c 1c", "ncrk ncrk 1c 1c 1c", contiguous=True),
    "average_pool_forward": Signature("ncRK", "ncrk", (2,), contiguous=True),
    "average_pool_backward": Signature("ncrk", "ncRK", (2,), contiguous=True),
    "tanh_forward": Signature("ni", "ni", contiguous=True),
    "tanh_backward": Signature("ni", "ni ni", contiguous=True),
    "softmax_forward": Signature("ni", "ni", contiguous=True),
    "softmax_backward": Signature("ni", "ni ni"),
    "cross_entropy_forward": Signature("", "ni ni"),
    "cross_entropy_backward": Signature("ni", "ni ni"),
    "mean_squared_error_forward": Signature("", "ni ni"),
    "mean_squared_error_backward": Signature("ni", "ni ni"),
    "sgd_update": Signature("oi", "oi oi", (0.3,), contiguous=True),
    "conv_forward": Signature("ntrk", "ncrk tchh 1t", contiguous=True),
    "conv_backward": Signature("ncrk tchh 1t", "ntrk ncrk tchh", contiguous=True),
    "conv_backward_input": Signature("ncrk", "ntrk tchh", contiguous=True),
    "conv_backward_weights": Signature("tchh", "ntrk ncrk"),
    "conv_backward_bias": Signature("1t", "ntrk"),
    "maxpool_forward": Signature("ncRK ncrk?", "ncrk", (2,), contiguous=True),
    "maxpool_backward": Signature("ncrk", "ncRK ncrk?", (2,), contiguous=True),
    "flatten_forward": Signature("nF", "ncrk", contiguous=True),
    "flatten_backward": Signature("ncrk", "nF", contiguous=True),
    "matmul": Signature("no", "ni io"),
    "syrk": Signature("nn", "ni"),  # the rows of its output are contiguous
    "pack": Signature("", "io"),
}


def sizes_of(name: str) -> list[str]:
    """The letters of the sizes that a kernel's arguments have."""
    found = set(SIGNATURES[name].outputs + SIGNATURES[name].inputs)
    parts = {"R": "r", "K": "k", "F": "crk"}
    return [size for size in SIZES if size in found or any(size in parts[letter] for letter in found & parts.keys())]


def public_kernels() -> dict[str, Callable]:
    """Functions of fastnet.kernels that can be called from Python and have a naive twin."""
    found = {}
    for module in pkgutil.walk_packages(kernels.__path__, "fastnet.kernels."):
        for name, function in vars(importlib.import_module(module.name)).items():
            if (inspect.isfunction(function) and function.__module__ == module.name != naive.__name__
                    and not name.startswith("_") and hasattr(naive, name)):
                found[name] = function
    return found


KERNELS = public_kernels()


def operands(rng: np.random.Generator, name: str, sizes: dict[str, int], dtype: type) -> tuple[list, list]:
    """Arrays to call a kernel with: outputs full of NaN, inputs of both signs.

    Those of a cross-entropy are above 0, and so are probabilities of a softmax.
    """
    positive = name.startswith("cross_entropy")
    outputs, inputs = SIGNATURES[name].arrays(sizes)

    def drawn(shape: tuple, places: bool) -> np.ndarray:
        if places:
            return rng.random(shape) < 0.4
        values = rng.standard_normal(shape)
        return (np.abs(values) + 0.1 if positive else values).astype(dtype)

    return ([rng.random(shape) < 0.5 if places else np.full(shape, np.nan, dtype) for shape, places in outputs],
            [drawn(*argument) for argument in inputs])
