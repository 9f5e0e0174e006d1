"""python -m fastnet.check: right layers agree, wrong ones are named, and broken ones cost the others nothing."""
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from fastnet import cli
from fastnet.check._command import main
from fastnet.check._compare import difference

SCRIPTS = Path(__file__).parent / "dropin_scripts"

# Changes to right layers, each a mistake that participants make, and what is said about it.
MISTAKES = {
    "full.py": ("np.dot(y_grad.T, self.x)", "np.dot(y_grad.T, self.x) / len(self.x)",
                "FullLayer(7, 4).backward(y_grad), x (5, 7): W_grad: 28 of 28 elements differ, most at [",
                "; 0.2 times what is expected: one over the number of samples"),
    "relu.py": ("self.y = np.maximum(x, 0)", "x[x < 0] = 0\n        self.y = x", "ReluLayer().forward(x), x (5, 7): writes into x, which it was given"),
    "softmax.py": ("x - np.max(x, axis=1, keepdims=True)", "x", "SoftMaxLayer().forward(x), x (4, 3): the output: 6 of 12 elements differ, most at [", ": nan, expected"),
    "cross_entropy.py": ("-np.sum(t * np.log(x)) / x.shape[0]", "-np.sum(t * np.log(x))",
                         "CrossEntropyLayer().forward(z, t), z (6, 4): the loss is", "; 6 times what is expected: the number of samples",
                         "gradients by differences, CrossEntropyLayer(), z (6, 4): x: WRONG, 12 of 24 elements"),
    "sequential.py": ("range(0, len(x), batch_size)", "range(0, len(x) - batch_size + 1, batch_size)",
                      "fit of 20 samples, 4 epochs, lr 0.2, batches of 8, Sequential of 4 of fastnet's layers: the array of losses: 4 of 4 elements differ",
                      "these are the losses of a fit that leaves out the last, smaller batch"),
    "conv.py": ("self.W[:, :, p, q], window)", "self.W[:, :, -1 - p, -1 - q], window)", "ConvLayer(1, 1, 3).forward(x), x (1, 1, 3, 3): the output: 9 of 9 elements differ", "of this kind)"),
    "maxpool.py": ("largest = windows == y[:, :, :, None, :, None]",  # an equal share of the gradient for each of the largest
                   "largest = windows == y[:, :, :, None, :, None]\n        largest = largest / largest.sum(axis=(3, 5), keepdims=True)",
                   "MaxPoolLayer(2).backward(y_grad), x (2, 2, 6, 6): the gradient of x:"),
    "flatten.py": (".copy()", "", "FlattenLayer().forward(x): the output is a view of x: a change of one changes the other. Copy it"),
    "dataset.py": ("y] = 1", "y] = 2", "onehot, given an array of shape (4,): the result: 4 of 12 elements differ, most at [0, 2]: 2, expected 1; everywhere 2 times",
                   "cifar100(seed) is not compared: line 48 makes labels other than 0 and 1"),
}


@pytest.fixture
def layers(tmp_path):
    """A folder of right layers, in NumPy, with changes: {file: text}, or {file: (old, new)}, or {file: None}."""

    def make(changes=None, name="layers"):
        folder = tmp_path / name
        shutil.copytree(SCRIPTS / "layers", folder)
        shutil.copy(SCRIPTS / "datasets" / "rows_2019.py", folder / "dataset.py")
        for file, change in (changes or {}).items():
            if change is None:
                (folder / file).unlink()
            elif isinstance(change, tuple):
                text = (folder / file).read_text()
                assert change[0] in text
                (folder / file).write_text(text.replace(*change))
            else:
                (folder / file).write_text(change)
        return folder

    return make


def lines_of(text):
    """What is said of each layer: its first line, and those below it."""
    said, stem = {}, None
    for line in text.splitlines():
        if line and not line.startswith(" "):
            stem = line.split()[0]
        said.setdefault(stem, []).append(line)
    return {stem: "\n".join(lines) for stem, lines in said.items()}


def test_right_layers_agree(layers, capsys, monkeypatch):
    monkeypatch.setenv("FASTNET_DROPIN", os.sys.prefix)  # of a drop-in around it, which would serve fastnet to itself
    monkeypatch.syspath_prepend("/nowhere")
    noisy = "print('training')\nclass Loud:\n    def __init__(self):\n        print('noise')\n"
    folder = layers({"relu.py": noisy + (SCRIPTS / "layers" / "relu.py").read_text()}, name="any_name")
    assert main([str(folder)]) == 0
    out = capsys.readouterr().out
    said = lines_of(out)
    for stem in ("full", "relu", "softmax", "cross_entropy", "sequential", "conv", "maxpool", "flatten", "dataset", "training"):
        assert ": " not in said[stem].splitlines()[0] and "ok, " in said[stem], said[stem]
    assert "5 classes drawn without replacement, rows (n, 3072)" in said["dataset"]
    assert out.endswith("Everything agrees.\n") and "noise" not in out
    assert not (folder / "__pycache__").exists(), "the folder is left as it is"


def test_every_mistake_is_named(layers, capsys):
    folder = layers({file: mistake[:2] for file, mistake in MISTAKES.items()})
    assert main([str(folder.parent)]) == 1, "the folder that the folder lies in will do"
    out = capsys.readouterr().out
    said = lines_of(out)
    for file, (_, _, *texts) in MISTAKES.items():
        stem = file.removesuffix(".py")
        assert "DIFFERS, in " in said[stem]
        for text in texts:
            assert text in said[stem], said[stem]
    assert "not tried, since a layer differs" in said["training"]
    assert out.endswith("9 of these differ.\n")


def test_broken_layers_cost_the_others_nothing(layers, capsys):
    folder = layers({
        "__init__.py": "from .full import FullLayer\nraise RuntimeError('not finished')\n",
        "full.py": ("        return np.dot(x, self.W.T) + self.b", "        while True:\n            pass"),
        "relu.py": "import os\nos._exit(0)\n",
        "softmax.py": "import sys\nsys.exit('done')\n",
        "cross_entropy.py": None,
        "sequential.py": "class Sequential:\n    def __init__(self, layers, loss):\n        raise NotImplementedError\n",
        "conv.py": "class ConvLayer:\n    def __init__(self, n_i, n_o, h):\n        self.W = self.b = None\n    def forward(self, x):\n        pass\n",
        "maxpool.py": "import os, signal\nclass MaxPoolLayer:\n    def __init__(self, size):\n        os.abort()\n",
        "flatten.py": "import numpy as np\nclass FlattenLayer:\n    def forward(self, x):\n        return np.zeros([xrange(3)])\n",
        "dropout.py": "this is not Python\n",
    })
    assert main([str(folder), "--timeout", "3"]) == 1
    out = capsys.readouterr().out
    said = lines_of(out)
    assert "import of the folder's __init__.py: raises RuntimeError: not finished (__init__.py, line 2)" in said["__init__"]
    assert "FullLayer(7, 4).forward(x), x (5, 7): gives no answer within 3 s" in said["full"]
    assert "import of relu.py: ends the process (exit code 0)" in said["relu"]
    assert "import of softmax.py: raises SystemExit: done (softmax.py, line 2)" in said["softmax"]
    assert "MISSING: there is no cross_entropy.py" in said["cross_entropy"] or "import of cross_entropy.py: raises ModuleNotFoundError" in said["cross_entropy"]
    assert "Sequential of 4 of fastnet's layers: raises NotImplementedError:  (sequential.py, line 3)" in said["sequential"]
    assert "W has shape (), expected (1, 1, 3, 3)" in said["conv"] and "the output is None, expected an array of shape (1, 1, 3, 3): not written yet?" in said["conv"]
    assert "MaxPoolLayer(2): " in said["maxpool"] and ("crashes the process (SIGABRT)" in said["maxpool"] or "ends the process" in said["maxpool"])
    assert "raises NameError: name 'xrange' is not defined, a name of Python 2 (flatten.py, line 4)" in said["flatten"]
    assert "ok, 2 comparisons" in said["dataset"]


def test_an_earlier_chapter_and_fit_as_in_2018(layers, capsys):
    fit = "def fit(self, x, y, x_test, y_test, epochs=10, lr=0.1, batch_size=128, *args):\n        args = [x_test, y_test]"
    folder = layers({
        "conv.py": None, "maxpool.py": None, "flatten.py": None, "dataset.py": None, "__init__.py": None,
        "sequential.py": ("def fit(self, x, y, *args, x_test=None, y_test=None, epochs=10, lr=0.1, batch_size=128):", fit),
        "relu.py": None,
    })
    assert main([str(folder)]) == 1
    said = lines_of(capsys.readouterr().out)
    assert {"conv", "dataset", "__init__"}.isdisjoint(said)
    assert "MISSING: there is no relu.py" in said["relu"]
    assert "ok, 21 comparisons" in said["sequential"]


def test_nothing_to_compare(tmp_path, capsys):
    assert cli.main(["check", str(tmp_path)]) == 2
    assert main([str(tmp_path / "nothing")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 2
    assert "no module of the course in it: full, relu" in capsys.readouterr().err
    for arguments in ([], [str(tmp_path), "--timeout", "0"], [str(tmp_path), "--timeout", "soon"]):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)


@pytest.mark.parametrize(
    ("found", "expected", "text"),
    [
        ([1.0, 2.0], [1.0, 2.0], None),
        ([1.0, 2.0 + 1e-10], [1.0, 2.0], None),
        ([np.nan, np.inf], [np.nan, np.inf], None),
        ([], np.zeros(0), None),
        (np.float32([1 / 3]), [1 / 3], None),
        (None, 1.0, "it is None, expected a number: not written yet?"),
        (1j, 1.0, "it is complex '1j', expected a number"),
        ("abc", [1.0], "it is str 'abc', expected an array of shape (1,)"),
        ([[1], [1, 2]], [1.0], "it is list '[[1], [1, 2]]', expected an array of shape (1,)"),
        ([1.0, 2.0 + 1e-8], [1.0, 2.0], "it: 1 of 2 elements differ, most at [1]: 2, expected 2, off by 1e-08"),
        ([[1.0], [2.0]], [[1.0, 2.0]], "it has shape (2, 1), expected (1, 2): it is the transpose"),
        ([[0.0, 1.0], [2.0, 3.0]], [[0.0, 2.0], [1.0, 3.0]], "it: 2 of 4 elements differ, most at [0, 1]: 1, expected 2; it is the transpose"),
        ([-1.0, 2.0], [1.0, -2.0], "it: 2 of 2 elements differ, most at [1]: 2, expected -2; the sign is reversed"),
        ([5.0, 10.0], [1.0, 2.0], "it: 2 of 2 elements differ, most at [1]: 10, expected 2; 5 times what is expected: the number of samples"),
        ([3.0, 6.0], [1.0, 2.0], "it: 2 of 2 elements differ, most at [1]: 6, expected 2; everywhere 3 times what is expected"),
        ([1.0, np.nan], [1.0, 2.0], "it: 1 of 2 elements differ, most at [1]: nan, expected 2"),
        (2.0, 4.0, "it is 2, expected 4"),
        ([[2.0]], [[-2.0]], "it is 2, expected -2; the sign is reversed"),
        ([0.0, 0.0], [0.0, 1.0], "it: 1 of 2 elements differ, most at [1]: 0, expected 1"),
    ],
)
def test_a_difference_in_words(found, expected, text):
    assert difference("it", found, expected, n=5) == text
