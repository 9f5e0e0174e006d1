"""Saved models: what comes back, what PyTorch makes of them, and which files are refused."""
import itertools
import json
import os
import sys

import numpy as np
import pytest

import fastnet
from fastnet import (
    ConvLayer,
    CrossEntropyLayer,
    FlattenLayer,
    FullLayer,
    LeakyReluLayer,
    MaxPoolLayer,
    MeanSquaredErrorLayer,
    ReluLayer,
    Sequential,
    SoftMaxLayer,
    TanhLayer,
    _architecture,
    one_hot,
    saving,
    to_torch,
)

numpy_format = pytest.importorskip("safetensors.numpy")


def network(dtype=np.float64, sizes=(7, 5, 3)):
    layers = [layer for a, b in itertools.pairwise(sizes) for layer in (FullLayer(a, b, dtype, a), ReluLayer())]
    return Sequential((*layers[:-1], SoftMaxLayer()), CrossEntropyLayer())


def convolutions(dtype=np.float64):
    return Sequential((ConvLayer(3, 4, 3, dtype, 0), ReluLayer(), MaxPoolLayer(2), ConvLayer(4, 5, 5, dtype, 1), MaxPoolLayer(3),
                       ReluLayer(), FlattenLayer(), FullLayer(5 * 1 * 2, 3, dtype, 2), SoftMaxLayer()), CrossEntropyLayer())


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "m.safetensors"
    network().save(path)
    return path


def rewritten(path, tensors=None, **metadata):
    """The file with other metadata, or other tensors, otherwise valid."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        old = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()} if tensors is None else tensors
    new = {**old, "sha256": saving._digest(tensors), **metadata}
    path.write_bytes(numpy_format.save(tensors, {k: v for k, v in new.items() if v is not None}))
    return path


def test_comes_back_to_the_bit(tmp_path, rng, dtype):
    model = network(dtype)
    model.fit(rng.standard_normal((20, 7)), one_hot(np.arange(20) % 3), 2, 0.1)
    state = np.random.get_state()[1].copy()
    model.save(tmp_path / "m.safetensors")
    again = fastnet.load(tmp_path / "m.safetensors")
    assert repr(again) == repr(model)
    assert again.history is None
    for mine, theirs in zip(model.layers, again.layers):
        if isinstance(mine, FullLayer):
            assert mine.W.dtype == theirs.W.dtype == dtype
            assert np.array_equal(mine.W, theirs.W)
            assert np.array_equal(mine.b, theirs.b)
    assert np.array_equal(np.random.get_state()[1], state)
    x = rng.standard_normal((9, 7))
    assert np.array_equal(model.predict_proba(x), again.predict_proba(x))
    again.fit(x, one_hot(np.arange(9) % 3), 1, 0.1)  # what was loaded can be written to


def test_convolutions_come_back_and_go_to_pytorch(tmp_path, rng, dtype):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    model = convolutions(dtype)
    model.layers[0].b = rng.standard_normal(4).astype(dtype)
    x = rng.standard_normal((6, 3, 7, 12)).astype(dtype)
    model.save(tmp_path / "m.safetensors")
    again = fastnet.load(tmp_path / "m.safetensors")
    assert repr(again) == repr(model)
    expected = model.predict_proba(x)
    assert np.array_equal(again.predict_proba(x), expected)
    module = model.to_torch()
    module.load_state_dict(load_file(tmp_path / "m.safetensors"))
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.tensor(x)).numpy(), expected, rtol=0, atol=20 * np.finfo(dtype).eps)


@pytest.mark.parametrize("layer", [LeakyReluLayer(0.2), TanhLayer()], ids=repr)
def test_other_activations_and_another_loss(tmp_path, rng, layer):
    torch = pytest.importorskip("torch")
    model = Sequential((FullLayer(4, 6, rng=0), layer, FullLayer(6, 2, rng=1)), MeanSquaredErrorLayer())
    x = rng.standard_normal((5, 4))
    expected = model.forward(x)
    model.save(tmp_path / "m.safetensors")
    again = fastnet.load(tmp_path / "m.safetensors")
    assert repr(again) == repr(model)
    assert np.array_equal(again.forward(x), expected)
    with torch.no_grad():
        np.testing.assert_allclose(model.to_torch()(torch.tensor(x)), expected, rtol=0, atol=1e-14)


def test_every_layer_and_loss_can_be_described():
    names = {name for name in fastnet.__all__ if name.endswith("Layer")}
    assert names == set(_architecture.LAYERS)
    losses = {"CrossEntropyLayer", "MeanSquaredErrorLayer"}
    assert names - losses == set(to_torch._MODULES)


def test_odd_weights_survive(tmp_path):
    model = network()
    model.layers[0].W = np.asfortranarray(np.arange(35.0).reshape(5, 7))
    model.layers[0].b = np.array([[np.nan, np.inf, -0.0, 5e-324, 1.0]])
    model.layers[2].W = np.arange(15, dtype=">f8").reshape(3, 5)
    model.save(tmp_path / "m.safetensors")
    again = fastnet.load(tmp_path / "m.safetensors")
    for i, name in ((0, "W"), (0, "b"), (2, "W")):
        a, b = (np.asarray(getattr(m.layers[i], name), np.float64) for m in (model, again))
        assert a.tobytes() == b.tobytes()


def test_an_old_file_stays_when_writing_fails(saved, monkeypatch):
    before = saved.read_bytes()

    def fails(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="no space left"):
        network(sizes=(2, 2)).save(saved)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize("place", [3, 9, 200, -1, -100])
def test_a_damaged_file_is_refused(saved, place):
    content = bytearray(saved.read_bytes())
    content[place] ^= 0x10
    saved.write_bytes(content)
    with pytest.raises(ValueError, match=r"fastnet.load: .*m.safetensors"):
        fastnet.load(saved)


@pytest.mark.parametrize("part", [0, 4, 100, 0.5, 0.99])
def test_a_cut_file_is_refused(saved, part):
    content = saved.read_bytes()
    saved.write_bytes(content[:int(part * len(content)) if part < 1 else part])
    with pytest.raises(ValueError, match=r"is damaged, or no safetensors file"):
        fastnet.load(saved)


def test_a_foreign_file_is_refused(tmp_path):
    path = tmp_path / "theirs.safetensors"
    path.write_bytes(numpy_format.save({"a": np.zeros(3)}, {"format": "pt"}))
    with pytest.raises(ValueError, match=r"not one that Sequential\.save wrote"):
        fastnet.load(path)


def test_nothing_but_fastnet_s_layers_is_made(saved):
    evil = [{"class": "os.system", "command": "true"}]
    with pytest.raises(ValueError, match="describes none of FullLayer"):
        fastnet.load(rewritten(saved, layers=json.dumps(evil)))


FULL = {"class": "FullLayer", "n_i": 7, "n_o": 5}


@pytest.mark.parametrize("layers, message", [
    ([FULL], "the layers ask for the tensors 0.bias, 0.weight, the file has 0.bias, 0.weight, 2"),
    ([FULL, {"class": "ReluLayer"}, {"class": "FullLayer", "n_i": 5, "n_o": 4}], r"must have shape \(4, 5\)"),
    ([FULL, {"class": "ReluLayer"}, {"class": "FullLayer", "n_i": 5, "n_o": "3"}], "must be a whole number"),
    ([FULL, {"class": "ReluLayer"}, {"class": "FullLayer", "n_i": 5}], "a FullLayer takes n_i, n_o, got"),
    ([FULL, {"class": "ReluLayer", "n": 1}, FULL], "a ReluLayer takes no arguments"),
    ([], "the layers ask for the tensors none, the file has 0.bias"),
])
def test_layers_that_do_not_fit_the_tensors(saved, layers, message):
    with pytest.raises(ValueError, match=f"cannot be turned into a model: .*{message}"):
        fastnet.load(rewritten(saved, layers=json.dumps(layers)))


def test_other_metadata_are_refused(saved):
    content = saved.read_bytes()
    for change, message in (({"version": "2"}, "format version 2"), ({"layers": "{"}, "cannot be turned into a model"),
                            ({"loss": None}, "not one that Sequential.save wrote"),
                            ({"tensors": {"0.weight": np.zeros((5, 7), np.int64)}}, "the layers ask for")):
        saved.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            fastnet.load(rewritten(saved, **change))


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*m\.safetensors"):
        fastnet.load(tmp_path / "m.safetensors")


class Mine(ReluLayer):
    pass


class Own(Sequential):
    pass


def test_classes_of_one_s_own_are_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    foreign = Sequential((FullLayer(2, 2), Mine(), SoftMaxLayer()), CrossEntropyLayer())
    with pytest.raises(TypeError, match=r"layers\[1\] is a Mine of test_saving"):
        foreign.save(path)
    with pytest.raises(TypeError, match="the model is a Own, a class of yours"):
        Own((FullLayer(2, 2), SoftMaxLayer()), CrossEntropyLayer()).save(path)
    assert not path.exists()


def test_without_safetensors(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match="pip install safetensors"):
        network().save(tmp_path / "m.safetensors")
    with pytest.raises(ImportError, match="pip install safetensors"):
        fastnet.load(tmp_path / "m.safetensors")


def test_pytorch_computes_the_same(tmp_path, rng, dtype):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    model = network(dtype, (7, 6, 5, 3))
    x = rng.standard_normal((11, 7)).astype(dtype)
    module = model.to_torch()
    assert [type(m).__name__ for m in module] == ["Linear", "ReLU", "Linear", "ReLU", "Linear", "Softmax"]
    with torch.no_grad():
        ours, theirs = model.forward(x), module(torch.tensor(x)).numpy()
    assert theirs.dtype == dtype
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=8 * np.finfo(dtype).eps)
    model.save(tmp_path / "m.safetensors")
    other = network(dtype, (7, 6, 5, 3)).to_torch()
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    other.load_state_dict(load_file(tmp_path / "m.safetensors"))
    with torch.no_grad():
        assert np.array_equal(other(torch.tensor(x)).numpy(), theirs)
    torch.nn.init.zeros_(module[0].weight)
    assert np.array_equal(model.forward(x), ours)  # the module has copies
