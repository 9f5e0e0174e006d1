"""Which edition of the course the drop-in serves: what a dataset.py says, read and never run, or what is asked for."""
import random
import warnings
from pathlib import Path

import cifar_files
import numpy as np
import pytest

from fastnet import dataset
from fastnet.dataset import _files
from fastnet.dropin import _editions_data, _local, _read_dataset
from fastnet.dropin._read_dataset import Edition, Unreadable

DATASETS = Path(__file__).parent / "dropin_scripts" / "datasets"
ROWS = (DATASETS / "rows_2019.py").read_text()
FOLDER = "./cifar-100-python/"


def read(tmp_path, text):
    path = tmp_path / "dataset.py"
    path.write_text(text)
    return _read_dataset.read(path)


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
def test_the_dataset_py_of_every_edition(name, edition):
    assert _read_dataset.read(DATASETS / f"{name}.py") == edition


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("np.arange(0, 100), 5, replace=False", "100, N", {"n_classes": 7, "replace": True}),
        ("np.arange(0, 100), 5, replace=False", "np.arange(100), size=N, replace=True", {"n_classes": 7, "replace": True}),
        ("np.arange(0, 100), 5, replace=False", "a=range(100), size=5, replace=False", {}),
        ('astype("float")', "astype(np.float32)", {"dtype": "float32"}),
        ('x = x.astype("float") / 255.\n    x = x - 0.5', 'x = x.astype("float64")\n    x /= 255\n    x -= .5', {}),
        ("x.reshape(-1, 32 * 32 * 3)", "np.reshape(x, (x.shape[0], 3, 32, 32))", {"images": True}),
        ("    return (train_x", "    train_x = train_x.reshape(-1, 3, 32, 32)\n    test_x = test_x.reshape(-1, 3, 32, 32)\n    return (train_x", {"images": True}),
        ("import pickle", "import cPickle as pickle", {}),  # Python 2
        ("    # select categories", "    print 'selecting', selected", {}),
        ('encoding="latin1"', 'encoding="bytes"', {}),
        ('"fine_labels"', 'b"fine_labels"', {}),
        (FOLDER, "/data/cifar-100-python/", {"root": "/data/cifar-100-python/"}),
        ("train_x = scale(train_x)\n    test_x = scale(test_x)", "train_x = train_x / 255. - 0.5\n    test_x = test_x / 255. - 0.5", {}),
    ],
)
def test_other_spellings(tmp_path, old, new, changed):
    assert old in ROWS
    expected = Edition(5, replace=False, images=False, root=FOLDER)._replace(**changed)
    assert read(tmp_path, "N = 7\n" + ROWS.replace(old, new)) == expected


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("def cifar100(seed)", "def cifar10(seed)", "not written as a plain function"),
        ("def cifar100(seed)", "def cifar100(seed, n=5)", "takes seed, n, not a seed alone"),
        ("import pickle", "import pickle)", "not written as a plain function"),
        ("np.random.seed(seed)", "np.random.seed(0)", "does not seed and draw once"),
        ("np.random.seed(seed)", "rng = np.random.default_rng(seed)", "calls default_rng"),
        ("np.random.choice(np.arange(0, 100), 5, replace=False)", "random.choice(range(100), 5)", "all 100 classes alike"),
        ("np.arange(0, 100), 5", "np.arange(0, 50), 5", "does not draw from all 100 classes alike"),
        ("np.arange(0, 100), 5", "np.arange(0, 100), K", "does not say how many classes"),
        ("5, replace=False", "5, replace=False, p=weights", "does not draw from all 100 classes alike"),
        ('"fine_labels"', '"coarse_labels"', "takes train_data"),
        ("    train_y = onehot(train_y)\n", "", "training labels are not one-hot"),
        ("onehot(train_y)", "onehot(test_y)", "training labels are not one-hot"),
        ("] = 1\n", "] = 0.9\n", "labels other than 0 and 1"),
        ("x - 0.5", "x - x.mean()", "calls mean"),
        ("x - 0.5", "x - 0.4", "computes something"),
        ("/ 255.", "/ 127.5", "computes something"),
        ("    x = x - 0.5\n", "", "does not scale pixels to -0.5 .. 0.5"),
        ("    test_x = scale(test_x)\n", "", "does not scale pixels"),
        ("    test_x = scale(test_x)\n", "    test_x = scale(test_x)\n    train_x = train_x[:100]\n", "takes train_x"),
        ("    test_x = scale(test_x)\n", "    test_x = scale(test_x)\n    if seed: train_x = test_x\n", "a step that the course's has not"),
        ("    test_x = scale(test_x)\n", "    test_x = scale(test_x)\n    np.random.shuffle(train_x)\n", "calls shuffle"),
        ("    test_x = scale(test_x)\n", "    test_x = scale(test_x)\n    train_x = train_x.reshape(-1, 3, 32, 32)\n", "reshapes one of the two"),
        ("    test_x = scale(test_x)\n", "    test_x = scale(test_x)\n    train_x = train_x.transpose(0, 2, 3, 1)\n", "calls transpose"),
        ("32 * 32 * 3", "32, 32, 3", "neither rows nor images"),
        ("(train_x, train_y), (test_x, test_y)", "(train_x, train_y)", r"does not return \(x, y\), \(x, y\)"),
        ("(train_x, train_y), (test_x, test_y)", "(test_x, test_y), (train_x, train_y)", "does not return training and test"),
        ("(train_x, train_y), (test_x, test_y)", "(train_x, train_y), (test_x, test_y), seed", "third value"),
    ],
)
def test_what_is_not_the_courses_is_left_to_the_folder(tmp_path, old, new, reason):
    assert old in ROWS
    with pytest.raises(Unreadable, match=reason):
        read(tmp_path, ROWS.replace(old, new))


def test_reading_never_runs_the_file(tmp_path):
    assert read(tmp_path, ROWS + "\nraise SystemExit('it was run')\n").n_classes == 5


@pytest.mark.parametrize(
    ("text", "edition"),
    [
        ("5", Edition(5, False, False)), ("3", Edition(3, False, True)), ("4", Edition(4, True, False)), ("10", Edition(10, False, False)),
        ("3,rows", Edition(3, False, False)), ("4, distinct, images", Edition(4, False, True)), ("5,replace", Edition(5, True, False)),
    ],
)
def test_editions_that_are_asked_for(text, edition):
    assert _editions_data.parse(text, "--classes") == edition


@pytest.mark.parametrize("text", ["", "1", "101", "three", "3,pictures", "3;images", "-3", "4.0"])
def test_editions_that_there_are_not(text):
    with pytest.raises(ValueError, match=r"--classes: .* is not an edition. It is a number of classes"):
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


def test_what_is_asked_for_comes_first_then_the_folders_then_this_chapters(served, monkeypatch):
    make, said, asked = served
    make()(1)
    make((DATASETS / "images_2019.py").read_text())(1)
    monkeypatch.setenv("FASTNET_CLASSES", "4,images")
    make(ROWS)(1)
    assert [(o["replace"], o["images"], n) for _, n, o in asked] == [(False, False, 5), (False, True, 3), (True, True, 4)]
    assert [text.split(": ")[0] for text in said] == [f"cifar100 serves {n}" for n in (
        "5 classes drawn without replacement, rows (n, 3072)", "3 classes drawn without replacement, images (n, 3, 32, 32)",
        "4 classes drawn with replacement, images (n, 3, 32, 32)")]
    make(ROWS)(1, 10, images=True)  # the call itself says more than the edition
    assert asked[-1] == (1, 10, {"images": True})
    monkeypatch.setenv("FASTNET_CLASSES", "many")
    with pytest.raises(ValueError, match="FASTNET_CLASSES: 'many' is not an edition"):
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
    assert not asked and "cifar100 is that of" in said[0] and "--classes serves fastnet's" in said[0]
    with pytest.raises(ImportError, match=r"dataset\.py, which has it, fails: ModuleNotFoundError: No module named 'cPickle'"):
        make("import cPickle\ndef cifar100(seed):\n    return seed * 2\n")(21)


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


def test_whatever_is_read_is_what_the_file_would_have_done(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(_files, "N_IMAGES", cifar_files.N_IMAGES)
    monkeypatch.setattr(_files, "MD5", {})
    cifar_files.write(tmp_path / "cifar-100-python", cifar_files.contents())
    texts = [(DATASETS / f"{name}.py").read_text() for name in ("rows_2018", "images_2018", "rows_2019", "images_2019", "chosen")]
    draw, same = random.Random(0), 0
    for seed in range(300):
        text = mutated(draw, draw.choice(texts))
        try:
            edition = read(tmp_path, text)
        except Unreadable:
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
        served = arrays(_editions_data._serve(seed, edition))
        np.testing.assert_array_equal(np.random.get_state()[1], state)
        for array, expected in zip(served, own, strict=True):
            np.testing.assert_allclose(array, expected, rtol=0, atol=1e-12, err_msg=text)
        same += 1
    assert same > 20, "the test is about files that can be read"
