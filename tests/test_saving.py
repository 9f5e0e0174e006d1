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
    new = {key: value for key, value in {**old, **metadata}.items() if value is not None}
    if "sha256" not in metadata:
        new["sha256"] = saving._digest({} if new["version"] == "1" else new, tensors)
    path.write_bytes(numpy_format.save(tensors, new))
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
    for change, message in (({"version": "3"}, "format version 3"), ({"layers": "{"}, "cannot be turned into a model"),
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


# --- damaged and hostile files ----------------------------------------------------------------------------------------


def leaky():
    return Sequential((FullLayer(3, 4, np.float32, 0), LeakyReluLayer(0.01), FullLayer(4, 2, np.float32, 1), SoftMaxLayer()),
                      CrossEntropyLayer())


def loads_the_same_or_is_refused(path, content, expected):
    """What every damaged file must do: one kind of error, with the file's name, or the model as it was saved."""
    path.write_bytes(content)
    try:
        model = fastnet.load(path)
    except ValueError as error:
        assert str(error).startswith(f"fastnet.load: {path}")
        return False
    assert repr(model) == repr(expected)
    for mine, theirs in zip(model.layers, expected.layers):
        assert not hasattr(mine, "W") or (np.array_equal(mine.W, theirs.W) and np.array_equal(mine.b, theirs.b))
    return True


def test_no_flipped_bit_makes_another_model(tmp_path):
    """Every bit in FASTNET_CASES, which a night has time for; otherwise a seeded draw of them."""
    path, model = tmp_path / "m.safetensors", leaky()
    model.save(path)
    content = path.read_bytes()
    n_bits = 8 * len(content)
    count = min(n_bits, int(os.environ.get("FASTNET_CASES", 600)))
    for bit in np.random.default_rng(0).permutation(n_bits)[:count]:
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        loads_the_same_or_is_refused(path, flipped, model)
    for cut in np.random.default_rng(1).permutation(len(content))[:count // 8]:
        assert not loads_the_same_or_is_refused(path, content[:cut], model)
    assert loads_the_same_or_is_refused(path, content, model)


def test_a_slope_that_changed_is_refused_and_was_not_in_version_1(tmp_path):
    path = tmp_path / "m.safetensors"
    leaky().save(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"0.01", b"0.41"))
    with pytest.raises(ValueError, match="is damaged: it does not hold what was saved"):
        fastnet.load(path)


def test_files_of_version_1_still_load(tmp_path, saved):
    expected = fastnet.load(saved)
    model = fastnet.load(rewritten(saved, version="1"))
    assert repr(model) == repr(expected) and np.array_equal(model.layers[0].W, expected.layers[0].W)


RELU, SOFTMAX, CROSS = ({"class": f"{name}Layer"} for name in ("Relu", "SoftMax", "CrossEntropy"))


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("changes, message", [
    ({"loss": RELU}, "describes none of CrossEntropyLayer, MeanSquaredErrorLayer"),
    ({"layers": [FULL, CROSS, {"class": "FullLayer", "n_i": 5, "n_o": 3}, SOFTMAX]}, "describes none of FullLayer"),
    ({"layers": {"class": "ReluLayer"}}, "the layers are a dict"),
    ({"layers": [[]]}, "describes none"), ({"layers": [{"class": []}]}, "describes none"),
    ({"layers": [{"class": "FullLayer", "n_i": 40_000, "n_o": 40_000}, RELU, {"class": "FullLayer", "n_i": 5, "n_o": 3}, SOFTMAX]},
     r"0\.weight must have shape \(40000, 40000\), as its layer says, got \(5, 7\)"),
    ({"layers": [{"class": "LeakyReluLayer", "slope": 10**400}]}, "the layers ask for"),
])
def test_other_kinds_of_models_are_refused(saved, version, changes, message):
    changes = {key: json.dumps(value) for key, value in changes.items()}
    with pytest.raises(ValueError, match=f"cannot be turned into a model: .*{message}"):
        fastnet.load(rewritten(saved, version=version, **changes))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "1" * 10_000, "1e999", "NaN", "null", '"x"', ""])
@pytest.mark.parametrize("key", ["layers", "loss"])
def test_any_json_ends_in_one_sentence(saved, key, text):
    with pytest.raises(ValueError, match=r"cannot be turned into a model: .+\.$"):
        fastnet.load(rewritten(saved, **{key: text}))


@pytest.mark.parametrize("slope", ["1e999", "NaN", "1" + 400 * "0", "-1", "true", '"1"', "[]"])
def test_slopes_that_are_none(tmp_path, slope):
    path = tmp_path / "m.safetensors"
    leaky().save(path)
    layers = json.dumps(_architecture.describe("", leaky())["layers"]).replace("0.01", slope)
    with pytest.raises(ValueError, match="cannot be turned into a model"):
        fastnet.load(rewritten(path, layers=layers))


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "BF16", "F16", "I8", "BOOL", "U64"])
def test_other_dtypes_are_refused(saved, dtype):
    size = {"F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "BOOL": 1, "BF16": 2, "F16": 2}.get(dtype, 8)
    header = json.dumps({"__metadata__": {"format": "fastnet", "version": "1", "layers": "[]", "loss": "{}", "sha256": ""},
                         "0.weight": {"dtype": dtype, "shape": [2], "data_offsets": [0, 2 * size]}}).encode()
    saved.write_bytes(len(header).to_bytes(8, "little") + header + bytes(2 * size))
    with pytest.raises(ValueError, match=r"^fastnet\.load: .*m\.safetensors"):
        fastnet.load(saved)


def test_a_loss_that_is_a_layer_is_not_saved(tmp_path):
    with pytest.raises(TypeError, match="loss is a ReluLayer, which is no loss"):
        Sequential((FullLayer(2, 2), SoftMaxLayer()), ReluLayer()).save(tmp_path / "m.safetensors")
