"""The engine made of ops gives the bits of the engines before it. This file goes with them."""
import numpy as np
import pytest
from numpy_loop import clusters, network

from fastnet.training.engine import Engine
from fastnet.training.fused import Fused
from fastnet.training.gram import GramSpace
from fastnet.training.windows import Windows

BEFORE = {"fused": Fused, "gram": GramSpace, "windows": Windows}


@pytest.mark.parametrize("way", BEFORE)
@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 0.0), (0.0, 0.1), (0.8, 0.05)])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("widths", "n", "batch_size"), [
    ([7, 3], 20, 5), ([33, 16, 5], 40, 7), ([300, 129, 3], 90, 41), ([40, 65, 17, 9, 4], 61, 16), ([5, 1, 2], 9, 1)])
def test_same_bits(way, momentum, decay, shuffle, widths, n, batch_size, dtype):
    x, t = (a.astype(dtype) for a in clusters(n, widths[0], widths[-1]))
    old, new = network(widths, dtype), network(widths, dtype)
    before = BEFORE[way](old, x, t, batch_size, momentum, decay)
    engine = Engine(new, x, t, batch_size, momentum, decay, way=way)
    for epoch in range(3):
        order = np.random.default_rng(epoch).permutation(n) if shuffle else None
        assert before.epoch(0.1, order, n).tobytes() == engine.epoch(0.1, order, n).tobytes()
    assert before.probabilities(x).tobytes() == engine.probabilities(x).tobytes()
    before.write()
    engine.write()
    for a, b in zip(old.layers[::2], new.layers[::2], strict=True):
        if hasattr(a, "W"):
            assert a.W.tobytes() == b.W.tobytes()
            assert a.b.tobytes() == b.b.tobytes()
    if momentum:
        found = engine.velocities()
        for i, (of_w, of_b) in enumerate(before.velocities()):
            assert of_w.tobytes() == found[2 * i, "W"].tobytes()
            assert of_b.tobytes() == found[2 * i, "b"].tobytes()
