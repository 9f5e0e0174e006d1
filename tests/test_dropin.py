"""Unchanged course scripts and tests on fastnet: each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastnet
from fastnet import dropin
from fastnet.dropin import _command

ROOT = Path(fastnet.__file__).parent.parent


def python(*arguments, cwd):
    """Run Python on a folder of a course participant's; return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


# A script in the course's style: imports from layers, its own training loop, a look at the layers' gradients.
SCRIPT = """
import sys
import numpy as np
import layers.FullLayer
from layers import ReluLayer, SoftMaxLayer
from layers.cross_entropy import CrossEntropyLayer
from layers.sequential import Sequential

epochs, lr = int(sys.argv[1]), float(sys.argv[2])
data = np.load("data.npz")
x, y = data["x"], data["y"]
np.random.seed(1)
model = Sequential(
    (layers.FullLayer(30, 20), ReluLayer(), layers.FullLayer(20, 4), SoftMaxLayer()), CrossEntropyLayer()
)
losses, norms = [], []
for epoch in range(epochs):
    batches = []
    for start in range(0, len(x), 16):
        batches.append(model.forward(x[start:start + 16], y[start:start + 16]))
        model.backward()
        norms.append(np.sum(model.layers[0].W_grad ** 2))
        model.update_param(lr)
    losses.append(np.mean(batches))
np.savez("result.npz", losses=losses, norms=norms, W=model.layers[0].W, labels=model.predict(x))
print(__name__, sys.argv, layers.FullLayer.__module__)
"""


def twin(x, y, epochs, lr):
    """The same network and loop in plain NumPy."""
    np.random.seed(1)
    W1 = np.random.normal(0, np.sqrt(2 / 50), size=(20, 30))
    W2 = np.random.normal(0, np.sqrt(2 / 24), size=(4, 20))
    b1, b2 = np.zeros((1, 20)), np.zeros((1, 4))

    def forward(x):
        hidden = np.maximum(x @ W1.T + b1, 0)
        scores = hidden @ W2.T + b2
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        return hidden, p / p.sum(axis=1, keepdims=True)

    losses, norms = [], []
    for _ in range(epochs):
        batches = []
        for start in range(0, len(x), 16):
            xb, t = x[start : start + 16], y[start : start + 16]
            hidden, p = forward(xb)
            batches.append(-np.sum(t * np.log(p)) / len(xb))
            d2 = (p - t) / len(xb)
            d1 = (d2 @ W2) * (hidden > 0)
            dW1 = d1.T @ xb
            norms.append(np.sum(dW1**2))
            W2, b2 = W2 - lr * d2.T @ hidden, b2 - lr * d2.sum(axis=0, keepdims=True)
            W1, b1 = W1 - lr * dW1, b1 - lr * d1.sum(axis=0, keepdims=True)
        losses.append(np.mean(batches))
    return losses, norms, W1, forward(x)[1].argmax(axis=1)


@pytest.fixture
def course(tmp_path):
    """A participant's folder, with a slow network of their own in ``layers``."""
    layers = tmp_path / "layers"
    layers.mkdir()
    (layers / "__init__.py").write_text("raise RuntimeError('the local package was imported')\n")
    (layers / "full.py").write_text("raise RuntimeError('the local module was imported')\n")
    (layers / "dropout.py").write_text("from .relu import ReluLayer\nclass DropoutLayer(ReluLayer):\n    pass\n")
    (layers / "extra").mkdir()
    (layers / "extra" / "__init__.py").write_text("")
    (layers / "extra" / "norm.py").write_text("from ..full import FullLayer\n")
    return tmp_path


def test_an_unchanged_script_gives_the_losses_of_a_numpy_twin(course, tmp_path_factory):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 30)), np.eye(4)[rng.integers(0, 4, 60)]
    work = tmp_path_factory.mktemp("work")
    np.savez(work / "data.npz", x=x, y=y)
    script = course / "run.py"
    script.write_text(SCRIPT)
    done = python("-m", "fastnet.dropin", script, "15", "0.3", cwd=work)
    assert done.stdout.split() == ["__main__", f"['{script}',", "'15',", "'0.3']", "fastnet.full"]
    assert f"fastnet.dropin: 'layers' is fastnet, not {course / 'layers'}" in done.stderr
    result = np.load(work / "result.npz")
    losses, norms, W, labels = twin(x, y, 15, 0.3)
    np.testing.assert_allclose(result["losses"], losses, rtol=0, atol=1e-12)
    np.testing.assert_allclose(result["norms"], norms, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(result["W"], W, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(result["labels"], labels)
    assert losses[-1] < losses[0] / 2, "the test is about a network that learns"


SPELLINGS = """
import importlib, pickle, sys
import fastnet, fastnet.dataset, fastnet.base.gradcheck, fastnet.training.plan

import layers
assert layers.full.FullLayer is fastnet.FullLayer and layers.dataset.synthetic is fastnet.dataset.synthetic
import layers.full
import layers.FullLayer
import layers.ReluLayer as Relu
import layers.softmax as softmax
import layers.base.gradcheck
import layers.training.plan as plan
from layers import *
from layers import FullLayer, ReluLayer, SoftMaxLayer, CrossEntropyLayer, Sequential, cross_entropy
from layers.full import FullLayer as Full
from layers.sequential import Sequential
from layers.dataset import cifar100

assert layers.FullLayer is FullLayer is Full is layers.full.FullLayer is fastnet.FullLayer
assert layers.ReluLayer is Relu is ReluLayer
assert softmax.SoftMaxLayer is fastnet.SoftMaxLayer and cross_entropy.one_hot is fastnet.one_hot
assert layers.FullLayer(3, 2).n_o == 2 and isinstance(layers.FullLayer(3, 2), FullLayer)
assert cifar100 is layers.dataset.cifar100 and plan is sys.modules["fastnet.training.plan"]
assert type(pickle.loads(pickle.dumps(FullLayer(3, 2)))) is FullLayer
assert importlib.import_module("layers.full").FullLayer is fastnet.full.FullLayer

# fastnet itself is what it was
assert callable(fastnet.gradcheck) and fastnet.full.__spec__.name == fastnet.full.__name__ == "fastnet.full"
assert "layers" in sys.modules and layers.__name__ == "layers" and "FullLayer" in dir(layers)

# what fastnet does not have comes from the local folder, on top of fastnet
from layers.dropout import DropoutLayer
from layers.extra.norm import FullLayer as Normed
assert issubclass(DropoutLayer, fastnet.ReluLayer) and Normed is fastnet.FullLayer

for statement, error, text in (
    ("import layers.nothing", ModuleNotFoundError, "layers.nothing"),
    ("from layers import Nothing", ImportError, "Nothing"),
    ("layers.Nothing", AttributeError, "(fastnet by fastnet.dropin) has no attribute 'Nothing'"),
    ("from layers.FullLayer import FullLayer", ImportError, "FullLayer"),
):
    try:
        exec(statement)
    except error as raised:
        assert text in str(raised), raised
    else:
        raise AssertionError(statement)
"""


def test_every_spelling_of_the_chapter(course):
    (course / "spellings.py").write_text(SPELLINGS)
    python("-m", "fastnet.dropin", "spellings.py", cwd=course)


UNITTEST = """
import unittest
import numpy as np
from layers.full import FullLayer
from layers import ReluLayer
import layers.SoftMaxLayer

class TestFull(unittest.TestCase):
    def test_forward(self):
        layer = FullLayer(2, 1)
        layer.W, layer.b = np.array([[1, 2]]), np.array([[3]])
        np.testing.assert_array_almost_equal(layer.forward(np.array([[1.0, 1.0]])), [[6]])
        self.assertEqual(type(layer).__module__, "fastnet.full")
        np.testing.assert_array_equal(ReluLayer().forward(np.array([[-1.0, 1.0]])), [[0, 1]])
        np.testing.assert_array_equal(layers.SoftMaxLayer().forward(np.zeros((1, 2))), [[0.5, 0.5]])
"""


@pytest.mark.parametrize(
    "command",
    [("-m", "fastnet.dropin", "-m", "unittest", "-v", "test.test_full"), ("-m", "pytest", "-p", "fastnet.dropin")],
)
def test_an_unchanged_test_suite(course, command):
    (course / "test").mkdir()
    (course / "test" / "__init__.py").touch()
    (course / "test" / "test_full.py").write_text(UNITTEST)
    (course / "conftest.py").write_text("from layers.full import FullLayer\n")
    done = python(*command, cwd=course)
    assert "1 passed" in done.stdout or "Ran 1 test" in done.stderr
    assert "fastnet.dropin: 'layers' is fastnet" in done.stdout + done.stderr


@pytest.fixture
def untouched(monkeypatch):
    """This process's import hooks and environment, put back afterwards."""
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("FASTNET_DROPIN", "")


def test_a_layers_that_is_there_already_is_an_error(monkeypatch, untouched):
    monkeypatch.setitem(sys.modules, "layers", dropin)
    with pytest.raises(RuntimeError, match=r"layers is already imported, from .*dropin.*before the first import"):
        dropin.install()


def test_installing_twice_is_installing_once(untouched):
    before = len(sys.meta_path)
    dropin.install()
    dropin.install()
    assert len(sys.meta_path) == before + 1
    site = str(Path(dropin.__file__).parent / "_site")
    assert os.environ["PYTHONPATH"].split(os.pathsep) == [site, str(ROOT)]


@pytest.mark.parametrize("arguments", [[], ["nothing.py"], ["-m"]])
def test_a_target_that_is_not_there(arguments, capsys):
    with pytest.raises(SystemExit):
        _command.main(arguments)
    message = capsys.readouterr().err
    assert "usage: python -m fastnet.dropin" in message
    assert "there is no file nothing.py" in message or "required: script.py" in message or "expected" in message


def test_exit_code_and_errors_are_the_scripts_own(tmp_path):
    (tmp_path / "leave.py").write_text("import sys\nassert sys.argv[1:] == ['-m', '-h']\nsys.exit(3)\n")
    command = [sys.executable, "-m", "fastnet.dropin", "leave.py", "-m", "-h"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 3
