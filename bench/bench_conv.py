"""The convolutional layer's kernels, layer by layer, beside PyTorch's and the naive twins."""
import numpy as np
import pytest
from fastnet.kernels import conv, naive

from bench.harness.peers import is_installed
from bench.harness.race import sizes

# n, n_i, n_o, side of the images, stride, padding; filters of 3 x 3
SHAPES = sizes((128, 3, 16, 32, 1, 1), (128, 16, 32, 16, 1, 1), (32, 64, 128, 8, 1, 1), (128, 16, 32, 16, 1, 0),
               (128, 3, 32, 32, 2, 1), (128, 32, 64, 16, 2, 1), tiny=(2, 3, 5, 4, 2, 1))


@pytest.fixture(params=SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def data(request, dtype, rng):
    n, n_i, n_o, side, *window = request.param
    out = (side + 2 * window[1] - 3) // window[0] + 1
    shapes = {"x": (n, n_i, side, side), "W": (n_o, n_i, 3, 3), "b": (1, n_o), "dy": (n, n_o, out, out)}
    arrays = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    words = "" if window == [1, 1] else f", stride {window[0]}, padding {window[1]}"
    return arrays, {"shape": f"{n}x{n_i}-{n_o}x{side}x{side}{words}", "layout": "C", "dtype": dtype,
                    "flops": 18 * n * n_i * n_o * out * out, "window": window}


def compete(race, kernel, out_shape, arguments, with_torch, facts):
    dtype, arguments = facts["dtype"], (*arguments, *facts.pop("window"))
    ours, twin, expected = np.empty(out_shape, dtype), np.empty(out_shape), np.empty(out_shape)
    getattr(naive, kernel)(expected, *arguments)

    def fastnet():
        getattr(conv, kernel)(ours, *arguments)
        return ours

    def naive_twin():
        getattr(naive, kernel)(twin, *arguments)
        return twin

    contenders = {"fastnet": fastnet, "naive": naive_twin}
    if is_installed("torch"):
        contenders["torch"] = with_torch
    race(contenders, expected=expected, kernel=kernel, tolerance=1000 * float(np.finfo(dtype).eps),
         nbytes=ours.nbytes + sum(a.nbytes for a in arguments[:-2]), **facts)


def tensors(a):
    import torch

    return torch, {name: torch.from_numpy(array) for name, array in a.items()}


def test_forward(race, data):
    a, facts = data
    window = facts["window"]

    def with_torch():
        torch, t = tensors(a)
        return torch.nn.functional.conv2d(t["x"], t["W"], t["b"][0], *window).numpy()

    compete(race, "conv_forward", a["dy"].shape, (a["x"], a["W"], a["b"]), with_torch, facts)


def test_backward_input(race, data):
    a, facts = data
    window = facts["window"]

    def with_torch():
        torch, t = tensors(a)
        return torch.nn.grad.conv2d_input(a["x"].shape, t["W"], t["dy"], *window).numpy()

    compete(race, "conv_backward_input", a["x"].shape, (a["dy"], a["W"]), with_torch, facts)


def test_backward_weights(race, data):
    a, facts = data
    window = facts["window"]

    def with_torch():
        torch, t = tensors(a)
        return torch.nn.grad.conv2d_weight(t["x"], a["W"].shape, t["dy"], *window).numpy()

    compete(race, "conv_backward_weights", a["W"].shape, (a["dy"], a["x"]), with_torch, facts)
