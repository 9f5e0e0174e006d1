"""fastnet check: right layers are not blamed, wrong ones are led to the equation and the line, broken ones cost the others nothing."""
import json
import os
import shutil
from pathlib import Path

import pytest

from fastnet import cli
from fastnet.check import _repair, _source
from fastnet.check._command import examine, main
from tests import check_mutants, check_rewrites

SCRIPTS = Path(__file__).parent / "dropin_scripts"
STYLES = Path(__file__).parent / "check_styles"

# Changes to right layers, each a slip of participants: what is blamed, the equation, and words of the slip.
SLIPS = {
    "full.py": ("np.dot(y_grad.T, self.x)", "np.dot(y_grad.T, self.x) / len(self.x)", "backward", "3.9", "averaged over the batch"),
    "relu.py": ("(self.y > 0)", "(y_grad > 0)", "backward", "3.14", "the mask comes from y_grad, not from x"),
    "softmax.py": ("self.y * (y_grad - np", "-self.y * (np", "backward", "3.17", "the Jacobian lacks its diagonal"),
    "cross_entropy.py": (" / x.shape[0]", "", "forward", "3.18", "the factor 1/n is missing"),
    "sequential.py": ("range(0, len(x), batch_size)", "range(0, len(x) - batch_size + 1, batch_size)", "fit", "section 3.4.1, fit",
                      "the last, smaller batch of an epoch is left out"),
    "conv.py": ("self.W[:, :, p, q], window)", "self.W[:, :, -1 - p, -1 - q], window)", "forward", "next chapter", "turned by 180 degrees"),
    "maxpool.py": ("largest = windows == y[:, :, :, None, :, None]",
                   "largest = windows == y[:, :, :, None, :, None]\n        largest = largest / largest.sum(axis=(3, 5), keepdims=True)",
                   "forward", "next chapter", "equal largest values share the gradient"),
    "flatten.py": (".copy()", "", "forward", "next chapter", "a view of x"),
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


def rows_of(report):
    return {row["stem"]: row for row in report["rows"]}


def test_right_layers_agree(layers, capsys, monkeypatch):
    monkeypatch.setenv("FASTNET_DROPIN", os.sys.prefix)  # of a drop-in around it, which would serve fastnet to itself
    monkeypatch.syspath_prepend("/nowhere")
    noisy = "print('training')\nclass Loud:\n    def __init__(self):\n        print('noise')\n"
    folder = layers({"relu.py": noisy + (SCRIPTS / "layers" / "relu.py").read_text()}, name="any_name")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main([str(folder)]) == 0
    out = capsys.readouterr().out
    for stem in ("full", "relu", "softmax", "sequential", "conv", "maxpool", "flatten", "dataset", "training"):
        assert any(line.split() [:1] == [stem] and line.endswith(" ok") for line in out.splitlines()), out
    assert out.endswith("Nothing differs.\n") and "noise" not in out
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}, "the folder is left as it is"


@pytest.mark.parametrize("style", sorted(path.stem for path in STYLES.glob("*.py")))
def test_no_style_is_blamed(style, tmp_path):
    """A single file of all layers, as layers.py, in every style."""
    shutil.copy(STYLES / f"{style}.py", tmp_path / "layers.py")
    report = examine(tmp_path / "layers.py", seconds=30)
    for row in report["rows"]:
        assert row["verdict"] in ("ok", "ok with remarks", "missing", "not judged"), (row["stem"], row["faults"])
    assert report == examine(tmp_path, seconds=30), "the folder that it lies in will do"


def test_every_slip_is_named_with_its_equation_and_line(layers):
    folder = layers({file: slip[:2] for file, slip in SLIPS.items()})
    rows = rows_of(examine(folder.parent, seconds=30))
    for file, (_, new, method, equation, words) in SLIPS.items():
        fault = rows[file.removesuffix(".py")]["faults"][0]
        assert fault["equation"] == equation, fault
        assert fault["method"] == method or file == "maxpool.py", fault  # its forward makes the mask that backward needs
        assert words in fault["slip"], fault
        assert fault["source"] and fault["line"], fault
        if file not in ("relu.py", "maxpool.py", "flatten.py"):
            assert new in fault["source"], fault
        assert len(fault["counterexample"]) == 3 or file in ("flatten.py", "maxpool.py"), fault
    assert rows["training"]["verdict"] == "not judged"


def test_a_counterexample_can_be_pasted(layers):
    folder = layers({"softmax.py": SLIPS["softmax.py"][:2]})
    lines = rows_of(examine(folder, seconds=30))["softmax"]["faults"][0]["counterexample"]
    names, printed = {}, []
    exec((folder / "softmax.py").read_text(), names)
    names["print"] = printed.append
    exec("\n".join(line for line in lines if not line.startswith("import")), names)
    assert f"{printed[0][0, 0]:.4f}" in lines[2]


def test_broken_layers_cost_the_others_nothing(layers, capsys, tmp_path):
    folder = layers({
        "__init__.py": "from .full import FullLayer\nraise RuntimeError('not finished')\n",
        "full.py": ("        return np.dot(x, self.W.T) + self.b", "        while True:\n            pass"),
        "relu.py": "import os\nos._exit(0)\n",
        "softmax.py": "import sys\nclass SoftMaxLayer: pass\nsys.exit('done')\n",
        "cross_entropy.py": None,
        "sequential.py": "class Sequential:\n    def __init__(self, layers, loss):\n        raise NotImplementedError\n",
        "conv.py": "class ConvLayer:\n    def __init__(self, n_i, n_o, h):\n        self.W = self.b = None\n    def forward(self, x):\n        pass\n",
        "maxpool.py": "import os, signal\nclass MaxPoolLayer:\n    def __init__(self, size):\n        os.abort()\n",
        "flatten.py": "import numpy as np\nclass FlattenLayer:\n    def forward(self, x):\n        input()\n        return np.zeros([xrange(3)])\n",
        "dropout.py": "this is not Python\n",
    })
    assert main([str(folder), "--timeout", "1"]) == 1
    out = capsys.readouterr().out
    for text in ("raises RuntimeError: not finished", "__init__.py, line 2: raise RuntimeError('not finished')",
                 "gives no answer within 1 s", "ends the process (exit code 0)", "raises SystemExit: done",
                 "MISSING: there is no cross_entropy.py", "raises NotImplementedError", "the slip: it is not written yet",
                 "raises EOFError"):
        assert text in out, out
    assert "crashes the process (SIGABRT)" in out or "ends the process" in out
    assert "full.py, line 1" in out, "the line of the endless loop"


def test_what_layers_write_is_thrown_away(layers, tmp_path):
    writing = ("        self.n_i = n_i", "        self.n_i = n_i\n        open('weights.txt', 'w').write('x')\n"
               "        open(__file__ + '.log', 'w').write('x')\n        import os\n        open(os.path.expanduser('~/x'), 'w')\n"
               f"        open({str(tmp_path / 'absolute')!r}, 'a').write('x')\n        np.save('W.npy', np.zeros(3))")
    folder = layers({"full.py": writing})
    before = sorted(path for path in tmp_path.rglob("*"))
    assert rows_of(examine(folder, seconds=30))["full"]["verdict"] == "ok"
    assert sorted(path for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("file", "change", "verdict", "remark"),
    [
        ("softmax.py", ("np.max(x, axis=1, keepdims=True)", "np.max(x)"), "ok with remarks", "one maximum of the whole batch"),
        ("softmax.py", ("x - np.max(x, axis=1, keepdims=True)", "x"), "ok with remarks", "scores of 1000"),
        ("cross_entropy.py", ("np.log(x)", "np.log(x + 1e-9)"), "ok with remarks", "accept this"),
        ("full.py", ("np.sqrt(2 / (n_i + n_o))", "2 / (n_i + n_o)"), "ok with remarks", "2 / (n_i + n_o)"),
        ("full.py", ("np.sqrt(2 / (n_i + n_o))", "np.sqrt(np.sqrt(2 / (n_i + n_o)))"), "ok with remarks", "the variance sqrt"),
        ("full.py", ("np.zeros((1, n_o))", "np.zeros(n_o)"), "ok", ""),
        ("full.py", ("np.zeros((1, n_o))", "0"), "ok", ""),
        ("conv.py", ("np.zeros((1, n_o))", "np.zeros(n_o)"), "ok", ""),
        ("relu.py", ("self.y = np.maximum(x, 0)", "x[x < 0] = 0\n        self.y = x"), "ok with remarks", "it writes into x"),
        ("sequential.py", ("axis=1)", "axis=1).reshape(-1, 1)"), "ok with remarks", "labels of shape (n, 1)"),
        ("full.py", ("np.random.normal(0, np.sqrt(2 / (n_i + n_o)), (n_o, n_i))", "np.random.randn(n_o, n_i)"), "differs", "3.12"),
        ("full.py", ("(n_o, n_i))", "(n_i, n_o))"), "differs", "3.12"),
    ],
)
def test_what_the_course_accepts(layers, file, change, verdict, remark):
    row = rows_of(examine(layers({file: change}), seconds=30))[file.removesuffix(".py")]
    assert row["verdict"] == verdict, row
    assert remark in " ".join(row["remarks"] + [fault["equation"] for fault in row["faults"]])


def test_relu_of_two_dimensions_needs_no_images(layers):
    rows_only = ("self.y = np.maximum(x, 0)", "n, k = x.shape\n        self.y = np.maximum(x, 0)")
    folder = layers({"relu.py": rows_only, "conv.py": None, "maxpool.py": None, "flatten.py": None, "__init__.py": ""})
    assert rows_of(examine(folder, seconds=30))["relu"]["verdict"] == "ok"
    assert rows_of(examine(layers({"relu.py": rows_only}, "next"), seconds=30))["relu"]["verdict"] == "differs"


def test_one_failure_of_sequential_hides_no_other(layers):
    folder = layers({"sequential.py": ("            x = layer.forward(x)", "            x = layer.forward(y)")})
    text = (folder / "sequential.py").read_text().replace("np.argmax(self.forward(x), axis=1)", "np.argmax(self.forward(x), axis=0)")
    (folder / "sequential.py").write_text(text)
    faults = rows_of(examine(folder, seconds=30))["sequential"]["faults"]
    assert [fault["method"] for fault in faults] == ["forward", "predict"], faults


def test_an_earlier_chapter_and_fit_as_in_2018(layers):
    fit = "def fit(self, x, y, x_test, y_test, epochs=10, lr=0.1, batch_size=128, *args):\n        args = [x_test, y_test]"
    folder = layers({
        "conv.py": None, "maxpool.py": None, "flatten.py": None, "dataset.py": None, "__init__.py": None,
        "sequential.py": ("def fit(self, x, y, *args, x_test=None, y_test=None, epochs=10, lr=0.1, batch_size=128):", fit),
        "relu.py": None,
    })
    rows = rows_of(examine(folder, seconds=30))
    assert {"conv", "dataset", "__init__"}.isdisjoint(rows)
    assert rows["relu"]["verdict"] == "missing" and rows["sequential"]["verdict"] == "ok"


def test_python_2_and_typos_are_told_apart():
    def syntax(text):
        with pytest.raises(SyntaxError) as caught:
            compile(text, "full.py", "exec")
        return _source.python_2(caught.value)

    assert "Python 2" in syntax("x = 1\nprint 'loss', x\n") and "Python 2" in syntax("try:\n    pass\nexcept IOError, e:\n    pass\n")
    assert syntax("x = (1\ny = 2\n") is None and syntax("def f(:\n    pass\n") is None
    assert "range" in _source.python_2(NameError("name 'xrange' is not defined"))
    assert "//" in _source.python_2(TypeError("'float' object cannot be interpreted as an integer"))
    assert _source.python_2(ValueError("shapes (3,2) and (3,2) not aligned")) is None


def test_forms_for_programs(layers, tmp_path, capsys):
    folder = layers({"full.py": SLIPS["full.py"][:2], "relu.py": None})
    page, results, table = tmp_path / "out" / "page.html", tmp_path / "results.json", tmp_path / "table.tsv"
    assert main([str(folder), "--json", "--points", "--html", str(page), "--gradescope", str(results), "--table", str(table)]) == 1
    report = json.loads(capsys.readouterr().out)["folders"][0]
    assert report["verdict"] == "differs" and rows_of(report)["full"]["faults"][0]["equation"] == "3.9"
    graded = json.loads(results.read_text())
    scores = {test["name"].split(":")[0]: test.get("score") for test in graded["tests"]}
    assert scores["full"] == 0 and scores["softmax"] == 15 and scores["relu"] == 0 and "score" not in graded
    assert sum(test.get("max_score", 0) for test in graded["tests"]) == 70
    assert [line.split("\t")[1:4] for line in table.read_text().splitlines()][1] == ["full", "differs", "0"]
    text = page.read_text()
    assert text.startswith("<!doctype html>") and "td class=bad" in text and "<svg" in text and "(3.9)" in text
    assert main([str(folder), "--points", "full=3,relu=2"]) == 1 and "Points: 0 of 5" in capsys.readouterr().out
    assert main([str(folder), str(folder), "--gradescope", str(results)]) == 2


def test_nothing_to_compare(tmp_path, capsys):
    assert cli.main(["check", str(tmp_path)]) == 2
    assert main([str(tmp_path / "nothing")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 2
    assert "it contains none of the course's modules (full, relu" in capsys.readouterr().err
    for arguments in ([], [str(tmp_path), "--timeout", "0"], [str(tmp_path), "--timeout", "soon"], [str(tmp_path), "--points", "nets=3"]):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)


def test_a_sample_of_mutants_is_led_to_the_right_place(monkeypatch):
    """Some of the mutants of check_mutants.md; all are tried by ``python -m tests.check_mutants``."""
    monkeypatch.setattr(_repair, "SECONDS", float("inf"))  # the same changes are tried however busy the machine is
    monkeypatch.setattr(_repair, "TRIES", 60)
    chosen, total = check_mutants.sample(20, 14, seed=1)
    table = check_mutants.run(chosen)
    changed, differs, method, named = (sum(row[name] for row in table.values()) for name in ("changed", "differs", "method", "named"))
    assert total > 5000 and changed > 20
    assert changed == differs
    assert method >= changed - 1 and named >= 0.9 * changed


def test_a_sample_of_rewrites_is_not_blamed():
    tried, blamed = check_rewrites.run(60)
    assert tried == 60 and not blamed
