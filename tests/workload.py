"""Results of all public kernels and of some networks, as bytes: what disturbances and numbers of threads may not change."""
import hashlib

import numpy as np
from fastnet.kernels.runtime import pool
from kernel_calls import KERNELS, SIGNATURES, operands
from numpy_loop import clusters, network

from fastnet import ConvLayer, CrossEntropyLayer, FlattenLayer, FullLayer, MaxPoolLayer, ReluLayer, Sequential, SoftMaxLayer

SIZES = {"n": 65, "i": 130, "o": 70, "c": 5, "t": 18, "r": 12, "k": 12, "h": 3}
ENGINES = ("fused", "gram", "windows", "layers")


def of_kernels():
    """A digest for each kernel and dtype."""
    found = {}
    for name, signature in SIGNATURES.items():
        for dtype in (np.float32, np.float64):
            outputs, inputs = operands(np.random.default_rng(3), name, SIZES, dtype)
            result = KERNELS[name](*outputs, *inputs, *signature.numbers)
            outputs += [result.data] if name == "pack" else [np.array(result)] if result is not None else []
            found[name, np.dtype(dtype).name] = digest(outputs)
    return found


def of_networks():
    """A digest for each engine, for images, and for single batches."""
    x, t = clusters(200, 40, 5)
    found = {}
    for engine in ENGINES:
        model = network((40, 64, 5), np.float32)
        losses = model.fit(x, t, 3, 0.05, 32, engine=engine, momentum=0.9, shuffle=True, rng=1)
        found[engine] = digest([losses, *parameters(model), model.predict_proba(x)])
    model = Sequential((ConvLayer(1, 16, 3, dtype=np.float32, rng=0), ReluLayer(), MaxPoolLayer(2), FlattenLayer(),
                        FullLayer(144, 5, np.float32, 0), SoftMaxLayer()), CrossEntropyLayer())
    images = np.resize(x, (200, 1, 6, 6)).astype(np.float32)
    found["images"] = digest([model.fit(images, t, 2, 0.05, 32), *parameters(model)])
    model = network((40, 64, 5), np.float32)
    losses = [model.train_on_batch(x[first:first + 50], t[first:first + 50], 0.05) for first in range(0, 200, 50)]
    found["single batches"] = digest([np.array(losses), *parameters(model)])
    return found


def parameters(model):
    return [getattr(layer, name) for layer in model.layers if hasattr(layer, "W") for name in ("W", "b")]


def digest(arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()


def results():
    """All of them, every call divided among the threads."""
    pool._shared["least_work"] = pool._shared["alone_until"] = 0
    return {**of_kernels(), **of_networks()}
