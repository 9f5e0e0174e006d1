"""Saved models: what comes back, what PyTorch makes of them, and which files are refused."""
import inspect
import itertools
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

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
    one_hot,
)
from fastnet.base.attributes import FloatArray
from fastnet.base.buffers import Buffered
from fastnet.interop import architecture
from fastnet.interop import safetensors as safetensors_file
from fastnet.layer import known

numpy_format = pytest.importorskip("safetensors.numpy")


def network(dtype=np.float64, sizes=(7, 5, 3)):
    layers = [layer for a, b in itertools.pairwise(sizes) for layer in (FullLayer(a, b, dtype, a), ReluLayer())]
    return Sequential((*layers[:-1], SoftMaxLayer()), CrossEntropyLayer())


def convolutions(dtype=np.float64):
    return Sequential((ConvLayer(3, 4, 3, dtype, 0), ReluLayer(), MaxPoolLayer((3, 2), stride=(1, 2)),
                       ConvLayer(4, 5, 4, dtype, 1, stride=(1, 2), padding=2), MaxPoolLayer(3), ReluLayer(), FlattenLayer(),
                       FullLayer(5 * 2 * 1, 3, dtype, 2), SoftMaxLayer()), CrossEntropyLayer())


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "m.safetensors"
    network().save(path)
    return path


def rewritten(path, tensors=None, **metadata):
    """The file with other metadata, or other tensors, otherwise valid, and sealed anew."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        old = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()} if tensors is None else tensors
    new = {k: v for k, v in {**old, **metadata}.items() if v is not None and k != "sha256"}
    if new["version"] == "1":
        path.write_bytes(numpy_format.save(tensors, {**new, "sha256": safetensors_file._digest(tensors)}))
    else:
        path.write_bytes(safetensors_file._sealed(tensors, new))
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
    layers = [getattr(fastnet, name) for name in fastnet.__all__ if name.endswith("Layer")]
    assert len(layers) >= 10
    for kind in layers:
        assert kind.settings is not None and architecture._classes()[kind.__name__] is kind
        is_loss = "t" in inspect.signature(kind.forward).parameters
        assert is_loss or hasattr(kind, "torch_module")


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
    with pytest.raises(ValueError, match=r"describes none of .*FullLayer"):
        fastnet.load(rewritten(saved, layers=json.dumps(evil)))


FULL = {"class": "FullLayer", "n_i": 7, "n_o": 5}


@pytest.mark.parametrize("layers, message", [
    ([FULL], "the layers need the tensors 0.bias, 0.weight, but the file has 0.bias, 0.weight, 2"),
    ([FULL, {"class": "ReluLayer"}, {"class": "FullLayer", "n_i": 5, "n_o": 4}], r"must have shape \(4, 5\)"),
    ([FULL, {"class": "ReluLayer"}, {"class": "FullLayer", "n_i": 5, "n_o": "3"}], "must be a whole number"),
    ([FULL, {"class": "ReluLayer"}, {"class": "FullLayer", "n_i": 5}], "a FullLayer takes n_i, n_o, got"),
    ([FULL, {"class": "ReluLayer", "n": 1}, FULL], "a ReluLayer takes no arguments"),
    ([], "the layers need the tensors none, but the file has 0.bias"),
])
def test_layers_that_do_not_fit_the_tensors(saved, layers, message):
    with pytest.raises(ValueError, match=f"cannot be turned into a model: .*{message}"):
        fastnet.load(rewritten(saved, layers=json.dumps(layers)))


def test_other_metadata_are_refused(saved):
    content = saved.read_bytes()
    for change, message in (({"version": "3"}, "format version 3"), ({"layers": "{"}, "cannot be turned into a model"),
                            ({"loss": None}, "not one that Sequential.save wrote"),
                            ({"tensors": {"0.weight": np.zeros((5, 7), np.int64)}}, "the layers need")):
        saved.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            fastnet.load(rewritten(saved, **change))


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*m\.safetensors"):
        fastnet.load(tmp_path / "m.safetensors")


# --- hostile files ------------------------------------------------------------------------------------------------------


def test_every_flipped_bit_is_noticed(tmp_path, rng):
    """One bit of each byte, chosen by a seed; all of them were tried once."""
    path = tmp_path / "m.safetensors"
    Sequential((FullLayer(2, 1, rng=0), LeakyReluLayer(0.01)), MeanSquaredErrorLayer()).save(path)
    content = path.read_bytes()
    for place, bit in enumerate(rng.integers(0, 8, len(content))):
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"^fastnet\.load: .*m\.safetensors .*$"):
            fastnet.load(path)


def test_every_cut_is_noticed(saved):
    content = saved.read_bytes()
    for size in range(0, len(content), 7):
        saved.write_bytes(content[:size])
        with pytest.raises(ValueError, match="is damaged, or no safetensors file"):
            fastnet.load(saved)


def test_files_of_version_1_are_read(saved):
    expected = [layer.W for layer in fastnet.load(saved).layers if isinstance(layer, FullLayer)]
    rewritten(saved, version="1")
    for W, layer in zip(expected, fastnet.load(saved).layers[::2]):
        assert np.array_equal(W, layer.W)
    content = bytearray(saved.read_bytes())
    content[-3] ^= 4
    saved.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged: its content differs from the saved one"):
        fastnet.load(saved)


def test_files_without_strides_are_read(tmp_path, rng):
    """As they were written before layers had any."""
    model = Sequential((ConvLayer(1, 2, 3, rng=0), MaxPoolLayer(2), FlattenLayer(), FullLayer(8, 2, rng=1)), CrossEntropyLayer())
    model.save(path := tmp_path / "m.safetensors")
    described = [{"class": "ConvLayer", "n_i": 1, "n_o": 2, "h": 3}, {"class": "MaxPoolLayer", "size": 2},
                 {"class": "FlattenLayer"}, {"class": "FullLayer", "n_i": 8, "n_o": 2}]
    again = fastnet.load(rewritten(path, layers=json.dumps(described)))
    assert repr(again) == repr(model)
    x = rng.standard_normal((3, 1, 4, 5))
    assert np.array_equal(again.forward(x), model.forward(x))


NUMBER = "a" * 500
RELU = {"class": "ReluLayer"}


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize(("change", "message"), [
    ({"loss": json.dumps(RELU)}, "forward of the loss, ReluLayer.*takes no target"),
    ({"loss": json.dumps({"class": "SoftMaxLayer"})}, "takes no target"),
    ({"loss": "[]"}, r"\[\] describes none of"),
    ({"loss": "null"}, "None describes none of"),
    ({"layers": "{}"}, "its layers are not a list"),
    ({"layers": "7"}, "its layers are not a list"),
    ({"layers": json.dumps([{"class": "CrossEntropyLayer"}]), "tensors": {}}, "takes a target too"),
    ({"layers": json.dumps([{"class": ["FullLayer"]}])}, "describes none of"),
    ({"layers": json.dumps([{"class": "Sequential"}])}, "describes none of"),
    ({"layers": json.dumps([RELU, {"class": NUMBER}])}, "describes none of"),
    ({"layers": "[" * 100_000}, "nested too deeply"),
    ({"layers": "[" + "9" * 5000 + "]"}, "cannot be turned into a model"),
    ({"layers": json.dumps([{"class": "LeakyReluLayer", "slope": 10 ** 400}]), "tensors": {}}, "cannot be turned"),
    ({"layers": json.dumps([{"class": "LeakyReluLayer", "slope": float("nan")}]), "tensors": {}}, "cannot be turned"),
    ({"layers": json.dumps([{"class": "MaxPoolLayer", "size": "2"}]), "tensors": {}}, "must be a whole number"),
    ({"layers": json.dumps([{"class": "FullLayer", "n_i": 7.0, "n_o": 5}])}, "must be a whole number"),
    ({"layers": json.dumps([{"class": "FullLayer", "n_i": 10 ** 30, "n_o": 5}])}, "the layers need|must have shape"),
    ({"layers": json.dumps([RELU])}, "the layers need the tensors none"),
    ({"layers": json.dumps([]), "tensors": {}}, "layers is empty"),
])
def test_wrong_models_are_one_sentence(saved, change, message, version):
    with pytest.raises(ValueError, match=message) as info:
        fastnet.load(rewritten(saved, version=version, **change))
    text = str(info.value)
    assert "cannot be turned into a model" in text and "\n" not in text and len(text) < 1000


def test_a_tensor_of_eight_bits_is_one_sentence(saved):
    content = saved.read_bytes()
    start = content.index(b'{"__metadata__"')
    header = json.loads(content[start:start + int.from_bytes(content[:8], "little")])
    header["__metadata__"]["version"] = "1"
    header["2.weight"] |= {"dtype": "F8_E4M3", "data_offsets": [header["2.weight"]["data_offsets"][0]] * 2}
    header["2.weight"]["data_offsets"][1] += 15
    text = json.dumps(header).encode()
    saved.write_bytes(len(text).to_bytes(8, "little") + text + content[-464:][:header["2.weight"]["data_offsets"][1]])
    with pytest.raises(ValueError, match=r"m\.safetensors (cannot be turned into a model|is damaged)"):
        fastnet.load(saved)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited as Linux does")
def test_no_memory_is_taken_for_what_the_file_does_not_have(saved):
    """719 bytes that describe a layer of 12 GB; the limit leaves some 600 MB beyond what the imports take."""
    huge = [{"class": "FullLayer", "n_i": 40_000, "n_o": 40_000}, {"class": "ConvLayer", "n_i": 4000, "n_o": 4000, "h": 9}]
    for i, layer in enumerate(huge):
        for version in ("1", "2"):
            rewritten(saved, {"0.weight": np.zeros((1, 1)), "0.bias": np.zeros(1)}, layers=json.dumps([layer]), version=version)
            os.rename(saved, saved.with_name(f"{i}{version}.safetensors"))
            network().save(saved)
    program = textwrap.dedent("""
        import resource, sys
        import fastnet, fastnet.interop.safetensors, safetensors.numpy
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 600_000_000,) * 2)
        for path in sys.argv[1:]:
            try:
                fastnet.load(path)
            except ValueError as error:
                print(error)
    """)
    paths = sorted(str(path) for path in saved.parent.glob("[01][12].safetensors"))
    result = subprocess.run([sys.executable, "-c", program, *paths], text=True, capture_output=True, timeout=120,
                            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])})
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("must have shape") == len(paths) == 4, result.stdout


# --- classes that fastnet knows through `known` ---------------------------------------------------------------------------


@known
class Scaled(Buffered):
    """A layer as a new file of fastnet's would have it: nothing else names it."""

    settings = ("n", "factor")
    gamma = FloatArray(shape=lambda layer: (layer.n,), optional=False)

    def __init__(self, n, factor=2.0):
        self.n, self.factor, self.gamma = n, factor, np.ones(n)

    def forward(self, x):
        return x * self.gamma * self.factor

    def backward(self, y_grad):
        return y_grad * self.gamma * self.factor


@known
class Plain:
    """The same with an ordinary array, and without a base class."""

    settings = ("n",)

    def __init__(self, n):
        self.n, self.gain, self.gain_grad = n, np.ones((n, 1)), None

    def forward(self, x):
        return x * self.gain.T

    def backward(self, y_grad):
        return y_grad * self.gain.T


def test_a_new_layer_needs_no_entry_anywhere(tmp_path, rng):
    path, x = tmp_path / "m.safetensors", rng.standard_normal((5, 4))
    model = Sequential((FullLayer(4, 3, rng=0), Scaled(3, 0.5), Plain(3)), MeanSquaredErrorLayer())
    model.layers[1].gamma, model.layers[2].gain = rng.standard_normal(3), rng.standard_normal((3, 1))
    model.save(path)
    assert np.array_equal(fastnet.load(path).forward(x), model.forward(x))
    description = {"class": "Scaled", "n": 10 ** 9, "factor": 1.0}
    with pytest.raises(ValueError, match=r"must have shape \(1000000000,\)"):
        fastnet.load(rewritten(path, {"0.weight": np.zeros(3)}, layers=json.dumps([description])))
    pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"layers\[1\] is a Scaled, which has no PyTorch form"):
        model.to_torch()


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
