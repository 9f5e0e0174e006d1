"""A step of the course's next network by hand, call by call: the time of each layer, and what its products need at FMA peak.

    python -m bench.studies.image_loop              # bench_images' cifar in float32, all threads

Dense counts the operations as the layer is written; the floor counts those that are left: Winograd's 16 for 36 in float32, a
quarter of the way back behind a pool of 2. Times are medians of a call by the clock: quote them from a quiet machine.
"""
from __future__ import annotations

import time

import numpy as np
from fastnet.kernels.conv.winograd import LEAST_CHANNELS

from bench.bench_images import CIFAR, RATE
from bench.harness import image_peers as peers
from bench.harness import machine
from fastnet import ConvLayer

BATCH, STEPS = 128, 60


def main() -> None:
    x, t, weights = peers.workload(CIFAR, BATCH, np.float32)
    model = peers.fastnet_model(weights)
    taken: dict[str, list[float]] = {}
    dense, floor = {}, {}
    for _ in range(STEPS + 5):
        a, seconds = x, {}
        for i, layer in enumerate(model.layers):
            name = f"{i} {layer} forward"
            if isinstance(layer, ConvLayer):
                dense[name] = 18.0 * layer.n_i * layer.n_o * a[:, 0].size
                floor[name] = dense[name] * (16 / 36 if layer.n_i >= LEAST_CHANNELS else 1)
                back = f"{i} {layer} backward"
                dense[back], floor[back] = 2 * dense[name], dense[name] / 2
            start = time.perf_counter()
            a = layer.forward(a)
            seconds[name] = time.perf_counter() - start
        model.loss.forward(a, t)
        a = model.loss.backward()
        for i, layer in reversed(list(enumerate(model.layers))):
            start = time.perf_counter()
            a = layer.backward(a)
            seconds[f"{i} {layer} backward"] = time.perf_counter() - start
        start = time.perf_counter()
        model.update_param(RATE)
        seconds["update_param"] = time.perf_counter() - start
        for name, value in seconds.items():
            taken.setdefault(name, []).append(value)
    peak = machine.fma_peak("float32")
    print("| call | us | dense, of the peak | floor, of the time |\n| --- | ---: | ---: | ---: |")
    for name, values in taken.items():
        median = float(np.median(values[5:]))
        shares = (f"{dense[name] / peak / median:.0%}", f"{floor[name] / peak / median:.0%}") if name in dense else ("", "")
        print(f"| {name} | {1e6 * median:.0f} | {shares[0]} | {shares[1]} |")
    print(f"| all | {1e6 * sum(float(np.median(values[5:])) for values in taken.values()):.0f} | | "
          f"{sum(floor.values()) / peak * 1e6:.0f} us |")


if __name__ == "__main__":
    main()
