"""Which edition of the course the drop-in serves: what a dataset.py serves when it is tried, or what is asked for."""
import hashlib
import os
import random
import sys
import warnings
from pathlib import Path

import cifar_files
import numpy as np
import pytest

from fastnet import dataset
from fastnet.base import confinement
from fastnet.dataset import _files
from fastnet.dropin import _ask, _editions_data, _local
from fastnet.dropin._editions_data import Edition

DATASETS = Path(__file__).parent / "dropin_scripts" / "datasets"
ROWS = (DATASETS / "rows_2019.py").read_text()
FOLDER = "./cifar-100-python"


@pytest.fixture(autouse=True)
def nothing_asked_yet(monkeypatch):
    monkeypatch.setenv(_ask._ANSWERS, "{}")


def read(tmp_path, text, *arguments):
    path = tmp_path / "dataset.py"
    path.write_text(text)
    os.environ[_ask._ANSWERS] = "{}"
    answer = _ask.ask("dataset", str(path), *(arguments or (7,)))
    return Edition(**answer) if "failed" not in answer else answer["failed"]


@pytest.mark.parametrize(
    ("name", "edition"),
    [
        ("rows_2018", Edition(4, replace=True, images=False, root=FOLDER)),
        ("images_2018", Edition(4, replace=True, images=True, one_hot_test=True, root=FOLDER)),
        ("rows_2019", Edition(5, replace=False, images=False, root=FOLDER)),
        ("images_2019", Edition(3, replace=False, images=True, root=FOLDER)),
        ("chosen", Edition(5, replace=False, images=False, returns_chosen=True, root=FOLDER)),
    ],
)
def test_the_dataset_py_of_every_edition(tmp_path, name, edition):
    assert read(tmp_path, (DATASETS / f"{name}.py").read_text()) == edition


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("np.arange(0, 100), 5, replace=False", "100, N", {"n_classes": 7, "replace": True}),
        ("np.arange(0, 100), 5, replace=False", "range(100), size=5, replace=False", {}),
        ('astype("float")', "astype(np.float32)", {"dtype": "float32"}),
        ("    return (train_x", "    train_x = train_x.reshape(-1, 3, 32, 32)\n    test_x = test_x.reshape(-1, 3, 32, 32)\n    return (train_x", {"images": True}),
        ("import pickle", "import cPickle as pickle", {}),  # Python 2
        ("    # select categories", "    print 'selecting'", {}),
        ('encoding="latin1"', 'encoding="bytes"', "it raises KeyError: 'data'"),
        (FOLDER + "/", "/data/cifar-100-python/", {"root": "/data/cifar-100-python"}),
        ("def cifar100(seed)", "def cifar100(seed, c=5)", {}),
        ("5, replace=False", "CLASSES, replace=False", {"n_classes": 7}),
        ("test_y = test_y[selected_test]", "test_y = np.array([label for label in test_y if label in selected_cats])", {}),
        ("    test_x = scale(test_x)\n", "    test_x = scale(test_x)\n    if len(test_x) == 0: raise ValueError\n", {}),
    ],
)
def test_other_spellings(tmp_path, old, new, changed):
    assert old in ROWS
    expected = changed if isinstance(changed, str) else Edition(5, replace=False, images=False, root=FOLDER)._replace(**changed)
    assert read(tmp_path, "N = CLASSES = 7\n" + ROWS.replace(old, new)) == expected


@pytest.mark.parametrize(("arguments", "n_classes"), [((7,), 5), ((7, 3), 3)])
def test_arguments_of_the_folders_own_function(tmp_path, arguments, n_classes):
    text = ROWS.replace("def cifar100(seed)", "def cifar100(seed, c=5)").replace("5, replace", "c, replace")
    assert read(tmp_path, text, *arguments).n_classes == n_classes


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("def cifar100(seed)", "def cifar10(seed)", "it has no function cifar100"),
        ("def cifar100(seed)", "def cifar100(seed, n)", "it does not take these arguments"),
        ("import pickle", "import pickle)", "SyntaxError"),
        ("np.random.seed(seed)", "np.random.seed(0)", "it does not return what the course's function returns"),
        ("np.random.choice(np.arange(0, 100), 5, replace=False)", "np.random.default_rng(seed).choice(100, 5)", "it does not return what the course's function returns"),
        ("np.arange(0, 100), 5", "np.arange(0, 50), 5", "it does not return what the course's function returns"),
        ('"fine_labels"', '"coarse_labels"', "it raises ValueError"),
        ("] = 1\n", "] = 0.9\n", "it does not return what the course's function returns"),
        ("x - 0.5", "x - x.mean()", "it does not return what the course's function returns"),
        ("    test_x = scale(test_x)\n", "", "it does not return what the course's function returns"),
        ("    test_x = scale(test_x)\n", "    test_x = scale(test_x)\n    train_x = train_x[:10]\n", "it does not return what the course's function returns"),
        ("    test_x = scale(test_x)\n", "    test_x = scale(test_x)\n    np.random.shuffle(train_x)\n", "it does not return what the course's function returns"),
        ("(train_x, train_y), (test_x, test_y)", "(train_x, train_y)", "it does not return what the course's function returns"),
        ("(train_x, train_y), (test_x, test_y)", "(train_x, train_y), (test_x, test_y), seed", "it does not return what the course's function returns"),
        ("    # select categories", "    import os\n    os._exit(1)", "it ends the process"),
        ("    # select categories", "    import urllib.request\n    urllib.request.urlopen('http://127.0.0.1:9')", "does not allow this code to use the network"),
    ],
)
def test_what_is_not_the_courses_is_left_to_the_folder(tmp_path, old, new, reason):
    assert old in ROWS
    assert reason in read(tmp_path, ROWS.replace(old, new))


def test_nothing_is_written_beside_the_file(tmp_path):
    text = ROWS + "\nopen('log.txt', 'w').write('x')\nopen(__file__ + '.log', 'w').write('x')\nnp.save('a', np.zeros(2))\n"
    assert read(tmp_path, text).n_classes == 5
    assert [path.name for path in tmp_path.iterdir()] == ["dataset.py"]


def test_a_file_is_asked_once(tmp_path, monkeypatch):
    assert read(tmp_path, ROWS).n_classes == 5
    monkeypatch.setattr(_ask, "_run", None)
    assert _ask.ask("dataset", str(tmp_path / "dataset.py"), 7)["n_classes"] == 5


@pytest.mark.parametrize(
    ("text", "edition"),
    [
        ("5", Edition(5, False, False)), ("3", Edition(3, False, True, one_hot_test=True)), ("4", Edition(4, True, False)),
        ("10", Edition(10, False, False)), ("4,images", Edition(4, True, True, one_hot_test=True)), ("3,rows", Edition(3, False, False)),
        ("4, distinct, images, integers", Edition(4, False, True)), ("5,replace,onehot", Edition(5, True, False, one_hot_test=True)),
    ],
)
def test_editions_that_are_asked_for(text, edition):
    assert _editions_data.known(_editions_data.parse(text, "--classes")) == edition


@pytest.mark.parametrize("text", ["", "1", "101", "three", "3,pictures", "3;images", "-3", "4.0"])
def test_editions_that_there_are_not(text):
    with pytest.raises(ValueError, match=r"--classes: expected a number of classes"):
        _editions_data.parse(text, "--classes")


@pytest.fixture
def served(tmp_path, monkeypatch):
    """The loader of a folder's dataset.py, what it says, and what it asks fastnet for."""
    said, asked = [], []

    def load(seed, *args, **options):
        asked.append((seed, *args, options))
        return dataset.Data(("x", "y"), ("x_test", np.array([0, 2])), "abc", "name")

    monkeypatch.setattr(dataset, "cifar100", load)
    monkeypatch.delenv("FASTNET_CLASSES", raising=False)

    def make(text=None):
        path = tmp_path / "dataset.py"
        if text is not None:
            path.write_text(text)
        source = _local.Source("layers.dataset", None if text is None else str(path), said.append)
        return _editions_data.loader(source)

    return make, said, asked


def test_what_is_asked_for_changes_only_what_it_names(served, monkeypatch):
    make, said, asked = served
    make()(1)
    make((DATASETS / "images_2019.py").read_text())(1)
    monkeypatch.setenv("FASTNET_CLASSES", "4")
    make()(1)
    make((DATASETS / "images_2018.py").read_text())(1)
    make(ROWS)(1)
    assert [(o["replace"], o["images"], n) for _, n, o in asked] == [
        (False, False, 5), (False, True, 3), (True, False, 4), (True, True, 4), (False, False, 4)]
    assert "rows (n, 3072), test labels as integers" in said[0] and "images (n, 3, 32, 32), test labels one-hot" in said[3]
    make(ROWS)(1, 10, images=True)  # arguments of fastnet's own function, which the folder's does not take
    assert asked[-1] == (1, 10, {"images": True})
    monkeypatch.setenv("FASTNET_CLASSES", "many")
    with pytest.raises(ValueError, match=r"FASTNET_CLASSES: expected a number of classes .* got 'many'"):
        make(ROWS)(1)


def test_the_global_state_is_where_the_courses_function_leaves_it(served):
    make, _, _ = served
    make(ROWS)(123)
    after = np.random.normal()
    np.random.seed(123)
    np.random.choice(np.arange(0, 100), 5, replace=False)
    assert after == np.random.normal()


def test_third_values_and_one_hot_test_labels(served):
    make, _, _ = served
    _, _, chosen = make((DATASETS / "chosen.py").read_text())(5)
    assert len(set(chosen)) == 5
    _, (_, y_test) = make((DATASETS / "images_2018.py").read_text())(5)
    np.testing.assert_array_equal(y_test, [[1, 0, 0], [0, 0, 1]])


def test_a_cifar100_that_is_not_the_courses_is_run(served):
    make, said, asked = served
    assert make("def cifar100(seed):\n    return seed * 2\n")(21) == 42
    assert not asked and "cifar100 is the function of" in said[0] and "--classes selects fastnet's" in said[0]
    confinement.serve_cpickle()  # as install does
    assert make("import cPickle\ndef cifar100(seed):\n    return seed * 2\n")(21) == 42
    with pytest.raises(ImportError, match=r"dataset\.py, which has it, fails: ModuleNotFoundError: No module named 'cStringIO'"):
        make("import cStringIO\ndef cifar100(seed):\n    return seed * 2\n")(21)
    del sys.modules["cPickle"]


def mutated(draw, text):
    """A dataset.py with one or two lines lost, doubled, exchanged, or changed by a word."""
    lines = text.split("\n")
    words = ["train", "test", "_x", "_y", "0", "1", "5", "4", "3", "True", "False", "data"]
    for _ in range(draw.randint(1, 2)):
        a, b, kind = draw.randrange(8, len(lines)), draw.randrange(8, len(lines)), draw.randrange(4)
        if kind == 0:
            del lines[a]
        elif kind == 1:
            lines.insert(b, lines[a])
        elif kind == 2:
            lines[a], lines[b] = lines[b], lines[a]
        else:
            lines[a] = lines[a].replace(draw.choice(words), draw.choice(words), 1)
    return "\n".join(lines)


def arrays(data):
    return [array for part in data for array in (arrays(part) if isinstance(part, tuple) else [np.asarray(part)])]


def test_whatever_is_served_is_what_the_file_would_have_done(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(_files, "N_IMAGES", cifar_files.N_IMAGES)
    folder = cifar_files.write(tmp_path / "cifar-100-python", cifar_files.contents())
    monkeypatch.setattr(_files, "MD5", {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in folder.iterdir()})
    texts = [(DATASETS / f"{name}.py").read_text() for name in ("rows_2018", "images_2018", "rows_2019", "images_2019", "chosen")]
    draw, same = random.Random(3), 0
    for seed in range(14):
        text = mutated(draw, draw.choice(texts))
        edition = read(tmp_path, text, seed)
        if isinstance(edition, str):
            continue
        names = {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(compile(text, "dataset.py", "exec"), names)
                own = arrays(names["cifar100"](seed))
        except Exception:
            continue  # it would have failed
        state = np.random.get_state()[1].copy()
        served = arrays(_editions_data._serve(seed, edition, _local.Source("layers.dataset", None, lambda text: None), ""))
        np.testing.assert_array_equal(np.random.get_state()[1], state)
        for array, expected in zip(served, own, strict=True):
            np.testing.assert_allclose(array, expected, rtol=0, atol=1e-12, err_msg=text)
        same += 1
    assert same > 3, "the test is about files that are served"
