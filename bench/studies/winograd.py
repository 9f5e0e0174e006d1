"""Winograd's F(2 x 2, 3 x 3) for pooled convolutions in float32: its time beside a plain sum's, its error beside PyTorch's.

    python -m bench.studies.winograd

Images are as behind a ReLU (normal numbers, the negative ones 0), or of a large mean, where differences cancel. Errors are
root mean squares over the pooled output, relative to that of the float64 result; times are CPU times of one thread for one
image.
"""
from __future__ import annotations

import time
from typing import Any

import numpy as np
from fastnet.kernels import naive
from fastnet.kernels.conv import image as conv_image
from fastnet.kernels.conv import pack_filters, winograd
from fastnet.kernels.gemm import vector_lanes
from numba import njit

from bench.harness.peers import is_installed

SHAPES = ((16, 16, 32), (16, 24, 32), (32, 16, 64), (64, 8, 128), (20, 10, 40))  # channels in, side, channels out
_REPEATS, _ROUNDS = 50, 15


@njit
def _plain(times: int, y: Any, bits: Any, x: Any, filters: Any, bias: Any, memory: Any, side: int, c: int, n_o: int,
           zero: float) -> None:
    for _ in range(times):
        conv_image.pooled_conv(y.ctypes.data, side // 2 * n_o, bits.ctypes.data, bias.size, x.ctypes.data, (side + 2) * c,
                               filters.ctypes.data, bias.ctypes.data, side, side, c, n_o, 3, 1, zero)


@njit
def _filters(times: int, y: Any, bits: Any, x: Any, filters: Any, bias: Any, memory: Any, side: int, c: int, n_o: int,
             zero: float) -> None:
    for _ in range(times):
        winograd.winograd_filters(memory.ctypes.data, filters.ctypes.data, c, n_o, zero)


@njit
def _winograd(times: int, y: Any, bits: Any, x: Any, filters: Any, bias: Any, memory: Any, side: int, c: int, n_o: int,
              zero: float) -> None:
    for _ in range(times):
        winograd.winograd_conv(y.ctypes.data, side // 2 * n_o, bits.ctypes.data, bias.size, x.ctypes.data,
                                           (side + 2) * c, memory.ctypes.data, bias.ctypes.data, side, side, c, n_o, 1, zero)


def aligned(a: np.ndarray) -> np.ndarray:
    """A float32 copy that starts on a cache line's boundary, with a vector behind it."""
    flat = np.zeros(a.size + 48, np.float32)
    flat = flat[-(flat.ctypes.data // 4) % 16:]
    flat[:a.size] = a.ravel()
    return flat


def study(c: int, side: int, n_o: int, mean: float, rng: np.random.Generator) -> tuple[list[float], list[float]]:
    """Microseconds of a plain sum, of Winograd's transformation of filters and of the rest; errors of all, PyTorch's too."""
    image = np.maximum(rng.standard_normal((1, c, side, side)), 0).astype(np.float32) + np.float32(mean)
    W = (0.1 * rng.standard_normal((n_o, c, 3, 3))).astype(np.float32)
    b, zero = (0.1 * rng.standard_normal((1, n_o))).astype(np.float32), np.float32(0)
    lanes, half = vector_lanes(np.float32), side // 2
    frame = np.zeros((side + 2, side + 2, c), np.float32)
    frame[1:-1, 1:-1] = image[0].transpose(1, 2, 0)
    filters = pack_filters(W.transpose(2, 3, 1, 0).reshape(-1, n_o))
    bias = np.zeros(filters.shape[0] * lanes, np.float32)
    bias[:n_o] = b
    memory = aligned(np.zeros(winograd.memory_size(c, n_o, lanes), np.float32))
    exact = np.empty((1, n_o, half, half))
    naive.conv_pool_forward(exact, np.empty(exact.shape, np.uint8), image, W, b, 1)
    seconds, found = [], []
    for function in (_plain, _filters, _winograd):
        y, bits = aligned(np.zeros((half, half, n_o))), np.zeros(half * half * bias.size, np.uint8)
        arguments = y, bits, aligned(frame), aligned(filters), bias, memory, side, c, n_o, zero
        function(1, *arguments)
        taken = []
        for _ in range(_ROUNDS):
            started = time.thread_time()
            function(_REPEATS, *arguments)
            taken.append((time.thread_time() - started) / _REPEATS)
        seconds.append(1e6 * min(taken))
        if function is not _filters:
            found.append(y[:exact.size].reshape(half, half, n_o).transpose(2, 0, 1)[None])
    if is_installed("torch"):
        import torch

        full = torch.nn.functional.conv2d(*map(torch.from_numpy, (image, W, b[0])), padding=1)
        found.append(torch.nn.functional.max_pool2d(torch.relu(full), 2).numpy())
    return seconds, [float(np.sqrt(np.mean((a - exact) ** 2) / np.mean(exact ** 2))) for a in found]


def main() -> None:
    print("channels, pixels       mean   plain sum   Winograd (filters, once a batch)   errors: plain, Winograd, PyTorch")
    for c, side, n_o in SHAPES:
        for mean in (0.0, 10.0):
            seconds, errors = study(c, side, n_o, mean, np.random.default_rng(0))
            print(f"{c:3d} -> {n_o:3d}, {side:2d} x {side:2d}  {mean:6.0f}   {seconds[0]:6.2f} us   {seconds[2]:6.2f} us "
                  f"({seconds[1]:5.2f})   {'  '.join(f'{e:.2e}' for e in errors)}", flush=True)


if __name__ == "__main__":
    main()
