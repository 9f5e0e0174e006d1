"""The data: synthetic images, CIFAR-100's files and their cache, .npz files, and data by name."""

import copy
import hashlib
import os
import pickle
import warnings

import cifar_files
import numpy as np
import pytest

from fastnet.dataset import _cache, _files, _pickles, _places, cifar100, from_npz, load, synthetic

SMALL = {"n_train": 40, "n_test": 10}


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """A computer without any data: empty home, cache and current folder."""
    for name in ("FASTNET_DATA", "KERAS_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    (home / "work").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.chdir(home / "work")
    return home


@pytest.fixture
def small_files(monkeypatch):
    """What small files hold, and a loader that takes them for the published ones."""
    files = cifar_files.contents()
    monkeypatch.setattr(_files, "N_IMAGES", cifar_files.N_IMAGES)
    md5 = {name: hashlib.md5(cifar_files.python2_pickle(content)).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(_files, "MD5", md5)
    return files


@pytest.fixture
def folder(small_files, tmp_path):
    return cifar_files.write(tmp_path / "cifar-100-python", small_files)


def course_subset(files, seed, n_classes=5):
    """The course's own rule, in the course's way."""
    np.random.seed(seed)
    chosen = np.random.choice(np.arange(0, 100), n_classes, replace=False)
    subset = []
    for part in ("train", "test"):
        labels = np.array(files[part]["fine_labels"])
        mask = np.isin(labels, chosen)
        _, y = np.unique(labels[mask], return_inverse=True)
        subset.append((files[part]["data"][mask] / 255 - 0.5, y))
    (x_train, y_train), test = subset
    return (x_train, np.eye(n_classes)[y_train]), test


def assert_same(data, expected):
    for (x, y), (x_expected, y_expected) in zip(data, expected, strict=True):
        np.testing.assert_array_equal(x, x_expected)
        np.testing.assert_array_equal(y, y_expected)


# --- synthetic images


def test_synthetic_has_the_form_of_the_courses_subset():
    (x_train, y_train), (x_test, y_test) = data = synthetic(1)
    assert (x_train.shape, y_train.shape) == ((2500, 3072), (2500, 5))
    assert (x_test.shape, y_test.shape) == ((500, 3072), (500,))
    assert {a.dtype for a in (x_train, y_train, x_test)} == {np.dtype(np.float64)}
    assert y_test.dtype == np.int64
    assert x_train.min() >= -0.5 and x_train.max() <= 0.5
    assert (y_train.sum(axis=0) == 500).all() and (np.bincount(y_test) == 100).all()
    assert len(data.class_names) == 5


def test_synthetic_is_the_same_on_every_machine():
    (x, y), (x_test, y_test) = synthetic(7, n_classes=3, n_train=300, n_test=20, dtype=np.float32)
    pixels = [np.round((a + 0.5) * 255).astype(np.uint8) for a in (x, x_test)]
    labels = [np.asarray(a, dtype=np.uint8) for a in (y.argmax(axis=1), y_test)]
    digest = hashlib.sha256(b"".join(a.tobytes() for a in (*pixels, *labels))).hexdigest()
    assert digest == "1aa6fc65736fe9197d791e114530358144645f292943c82ef5b0291a1db6538d"


def test_synthetic_depends_on_its_seed_only():
    state = np.random.get_state()[1].copy()
    first, again, other = (synthetic(seed, **SMALL) for seed in (1, 1, 2))
    assert_same(first, again)
    assert not np.array_equal(first[0][0], other[0][0])
    np.testing.assert_array_equal(state, np.random.get_state()[1])


def test_synthetic_test_images_do_not_depend_on_how_many_are_trained_on():
    few, more = synthetic(1, n_train=10, n_test=10), synthetic(1, n_train=30, n_test=10)
    np.testing.assert_array_equal(few[1][0], more[1][0])


def test_synthetic_float32_is_float64_rounded():
    double, single = synthetic(1, **SMALL), synthetic(1, dtype=np.float32, **SMALL)
    np.testing.assert_array_equal(double[0][0].astype(np.float32), single[0][0])
    assert single[0][1].dtype == np.float32


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"seed": -1}, ValueError, "seed must be between 0 and 4294967295"),
        ({"seed": 2**32}, ValueError, "last nine digits"),
        ({"seed": 1.5}, TypeError, "seed must be a whole number, got 1.5"),
        ({"seed": True}, TypeError, "seed must be a whole number"),
        ({"n_classes": 1}, ValueError, "n_classes must be between 2 and 100, got 1"),
        ({"n_classes": 101}, ValueError, "n_classes must be between 2 and 100, got 101"),
        ({"n_train": 0}, ValueError, "n_train must be at least 1, got 0"),
        ({"n_test": 2.5}, TypeError, "n_test must be a whole number"),
        ({"dtype": np.float16}, TypeError, "dtype must be float32 or float64, got float16"),
        ({"dtype": "colour"}, TypeError, "dtype must be float32 or float64, got 'colour'"),
    ],
)
def test_synthetic_refuses(arguments, error, match):
    with pytest.raises(error, match=match):
        synthetic(**{"seed": 1, **arguments})


def test_data_survives_pickle_and_copy():
    data = synthetic(1, **SMALL)
    for twin in (pickle.loads(pickle.dumps(data)), copy.deepcopy(data)):
        assert_same(twin, data)
        assert (twin.class_names, twin.name) == (data.class_names, data.name)
    assert "40 training and 10 test samples" in repr(data)


# --- CIFAR-100


def test_the_tests_own_pickles_are_what_numpy_reads(small_files):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy 2 on the old names
        content = pickle.loads(cifar_files.python2_pickle(small_files["test"]), encoding="latin1")
    np.testing.assert_array_equal(content["data"], small_files["test"]["data"])
    assert content["fine_labels"] == small_files["test"]["fine_labels"]


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_cifar100_follows_the_courses_rule(small_files, folder, seed):
    expected = course_subset(small_files, seed)
    for _ in ("from the files", "from the cache"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            data = cifar100(seed, root=folder)
        assert_same(data, expected)
    chosen = np.sort(np.random.RandomState(seed).choice(np.arange(0, 100), 5, replace=False))
    assert data.class_names == tuple(f"name{label}" for label in chosen)
    assert data[0][0].dtype == data[0][1].dtype == np.float64
    assert cifar100(seed, root=folder, dtype=np.float32)[0][0].dtype == np.float32


def test_cifar100_with_all_classes(small_files, folder):
    assert_same(cifar100(3, n_classes=100, root=folder), course_subset(small_files, 3, 100))


def test_cifar100_leaves_numpys_global_state_alone(folder):
    state = np.random.get_state()[1].copy()
    cifar100(5, root=folder)
    np.testing.assert_array_equal(state, np.random.get_state()[1])


def test_second_load_reads_the_cache_only(folder, monkeypatch):
    first = cifar100(1, root=folder)
    monkeypatch.setattr(_files, "read", None)
    assert_same(cifar100(1, root=folder), first)
    cifar100(2, root=folder)


def test_a_changed_file_is_read_anew(small_files, folder, nowhere):
    cifar100(1, root=folder)
    small_files["train"]["data"] = 255 - small_files["train"]["data"]
    cifar_files.write(folder, small_files)
    os.utime(folder / "train", ns=(1, 1))
    with pytest.warns(UserWarning, match="train in .* differs from the published"):
        data = cifar100(1, root=folder)
    assert_same(data, course_subset(small_files, 1))
    assert len(list((nowhere / "cache/fastnet/arrays").iterdir())) == 1, "what was made of the old file is dropped"


@pytest.mark.parametrize("damage", ["pixels", "rows", "index", "short", "gone"])
def test_a_damaged_cache_is_made_anew(folder, damage, monkeypatch):
    first = cifar100(1, root=folder)
    place = _cache.entry(folder)
    target = place / {"index": "index.json", "rows": "train_rows.npy"}.get(damage, "train_pixels.npy")
    content = bytearray(target.read_bytes())
    if damage == "gone":
        target.unlink()
    elif damage == "short":
        target.write_bytes(content[:1000])
    else:
        middle = slice(len(content) // 3, None)
        content[middle] = bytes(255 - byte for byte in content[middle])
        target.write_bytes(content)
    assert_same(cifar100(1, root=folder), first)
    monkeypatch.setattr(_files, "read", None)
    assert_same(cifar100(1, root=folder), first)


def test_without_a_place_for_a_cache_the_files_serve(folder, nowhere, monkeypatch):
    expected = cifar100(1, root=folder)
    (nowhere / "flat").write_text("a file where the cache folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(nowhere / "flat"))
    assert_same(cifar100(1, root=folder), expected)
    monkeypatch.setattr(_places, "user_cache", lambda: None)
    assert_same(cifar100(1, root=folder), expected)


def test_a_modified_file_is_a_warning_each_time(small_files, folder):
    small_files["test"]["batch_label"] = "written anew"
    cifar_files.write(folder, small_files)
    for _ in ("from the files", "from the cache"):
        with pytest.warns(UserWarning, match="test in .* the content differs from the published files") as record:
            data = cifar100(1, root=folder)
        assert record[0].filename == __file__
        assert data.name == "Not the published CIFAR-100, 5 classes (seed 1)"


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"echo > {self.trace}",)


def test_a_malicious_pickle_is_refused(folder, tmp_path):
    trace = tmp_path / "trace"
    for protocol in (0, 2, 4):
        (folder / "train").write_bytes(pickle.dumps({"data": Malicious(trace)}, protocol))
        with pytest.raises(ValueError, match=r"train is truncated, damaged, or not .*: it asks for \w+\.system"):
            cifar100(1, root=folder)
    assert not trace.exists()


@pytest.mark.parametrize(
    "name", ["builtins.eval", "numpy.load", "numpy._core.multiarray.fromfile", "numpy.dtype.fromkeys", "os.path"]
)
def test_three_names_are_admitted_and_no_other(tmp_path, name):
    module, _, attribute = name.rpartition(".")
    path = tmp_path / "file"
    path.write_bytes(
        b"\x80\x04" + b"".join(b"\x8c" + bytes([len(t)]) + t.encode() for t in (module, attribute)) + b"\x93."
    )
    with pytest.raises(ValueError, match=f"it asks for {name}"):
        _pickles.load(path)


def test_the_name_since_numpy_2_is_admitted(folder, small_files):
    content = (folder / "test").read_bytes()
    (folder / "test").write_bytes(content.replace(b"cnumpy.core.multiarray", b"cnumpy._core.multiarray"))
    np.testing.assert_array_equal(_pickles.load(folder / "test")["data"], small_files["test"]["data"])


def test_an_array_of_objects_is_refused(folder):
    content = (folder / "test").read_bytes()
    (folder / "test").write_bytes(content.replace(b"T\x02\x00\x00\x00u1", b"T\x02\x00\x00\x00O8"))
    with pytest.raises(ValueError, match="dtype b'O8', CIFAR-100's are uint8"):
        cifar100(1, root=folder)


@pytest.mark.parametrize("size", [0, 1, 100, -1])
def test_a_truncated_file_is_an_error(folder, size):
    (folder / "train").write_bytes((folder / "train").read_bytes()[:size])
    with pytest.raises(ValueError, match="train is truncated, damaged, or not a file of CIFAR-100"):
        cifar100(1, root=folder)


def change(**changes):
    return lambda content: content.update(changes)


@pytest.mark.parametrize(
    ("member", "edit", "match"),
    [
        (
            "train",
            change(data=np.zeros((599, 3072), np.uint8)),
            r"data must be uint8 of shape \(600, 3072\), got .*599",
        ),
        ("test", change(data=[1, 2]), "data must be uint8 .* got 2 entries"),
        (
            "train",
            change(fine_labels=[0] * 599),
            r"fine_labels must be 600 whole numbers .* got int64 of shape \(599,\)",
        ),
        ("train", change(fine_labels=[0] + [100] * 599), "between 0 and 99, got 0 to 100"),
        ("train", change(fine_labels=[[0]] * 599 + [[0, 1]]), "fine_labels must be 600 whole numbers"),
        ("train", lambda c: c.update(labels=c.pop("fine_labels")), "CIFAR-10 has other files"),
        ("meta", change(fine_label_names=["one"]), "fine_label_names must be 100 names, got 1 entries"),
        ("meta", lambda c: c.clear(), "fine_label_names must be 100 names, got NoneType"),
    ],
)
def test_a_foreign_file_is_an_error(small_files, folder, member, edit, match):
    edit(small_files[member])
    cifar_files.write(folder, small_files)
    with pytest.raises(ValueError, match=match):
        cifar100(1, root=folder)


def test_a_pickled_list_is_foreign(folder):
    (folder / "meta").write_bytes(cifar_files.python2_pickle([1]))
    with pytest.raises(ValueError, match="holds a list, not a dict"):
        cifar100(1, root=folder)


@pytest.mark.parametrize(
    "place",
    [
        "work/cifar-100-python",
        "cifar-100-python",
        "cache/fastnet/cifar-100-python",
        "work/data/cifar-100-python",
        "data/cifar-100-python",
        ".keras/datasets/cifar-100-python",
        ".keras/datasets/cifar-100-python-target/cifar-100-python",
    ],
)
def test_cifar100_is_found(small_files, nowhere, place):
    cifar_files.write(nowhere / place, small_files)
    assert cifar100(1).name == "CIFAR-100, 5 classes (seed 1)"


def test_root_comes_before_the_environment_and_that_before_the_current_folder(small_files, nowhere, monkeypatch):
    here, environment, root = nowhere / "work", nowhere / "environment", nowhere / "root"
    assert _places.find(cifar_files.write(here / "cifar-100-python", small_files).parent) == here / "cifar-100-python"
    cifar_files.write(environment / "cifar-100-python", small_files)
    monkeypatch.setenv("FASTNET_DATA", str(environment))
    assert _places.find() == environment / "cifar-100-python"
    assert _places.find(cifar_files.write(root, small_files)) == root


def test_missing_data_is_one_error_with_every_place(nowhere, monkeypatch):
    monkeypatch.setenv("FASTNET_DATA", str(nowhere / "environment"))
    (nowhere / "root").mkdir()
    (nowhere / "root/train").touch()
    with pytest.raises(FileNotFoundError) as info:
        cifar100(1, root=nowhere / "root")
    message = str(info.value)
    for text in (
        "root: no test and no meta in it",
        "$FASTNET_DATA",
        "the current folder",
        "one folder up",
        "torchvision",
    ):
        assert text in message
    assert "fastnet data download" in message and "Keras" in message


@pytest.mark.parametrize(("n_classes", "seed"), [(0, 1), (101, 1), (5, -3)])
def test_cifar100_checks_its_arguments_before_it_looks_for_files(n_classes, seed):
    with pytest.raises(ValueError, match="cifar100: "):
        cifar100(seed, n_classes)


# --- .npz files


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (6, 3072), np.uint8),
        "y_train": np.array([0, 1, 2, 0, 1, 2], np.uint8),
        "x_test": rng.integers(0, 256, (3, 3072), np.uint8),
        "y_test": np.array([2, 1, 0], np.uint8),
        "names": np.array(["cat", "dog", "owl"]),
    }


def test_from_npz(arrays, tmp_path):
    np.savez_compressed(tmp_path / "pets.npz", **arrays)
    data = from_npz(tmp_path / "pets.npz", np.float32)
    (x_train, y_train), (x_test, y_test) = data
    np.testing.assert_array_equal(x_train, (arrays["x_train"] / 255 - 0.5).astype(np.float32))
    np.testing.assert_array_equal(y_train, np.eye(3)[arrays["y_train"]])
    np.testing.assert_array_equal(x_test, (arrays["x_test"] / 255 - 0.5).astype(np.float32))
    np.testing.assert_array_equal(y_test, arrays["y_test"])
    assert (data.class_names, data.name) == (("cat", "dog", "owl"), "pets")
    del arrays["names"]
    np.savez(tmp_path / "pets.npz", **arrays)
    assert from_npz(tmp_path / "pets.npz").class_names == ("class 0", "class 1", "class 2")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"y_test": None}, "has no y_test, only x_train"),
        ({"x_train": np.zeros((6, 3072))}, r"x_train must be uint8 of shape \(n, d\), got float64.*as bytes"),
        ({"x_test": np.zeros((3, 32, 32, 3), np.uint8)},
         r"Flatten each image: np.reshape\(np.transpose\(x, \(0, 3, 1, 2\)\), \(len\(x\), -1\)\)"),
        ({"x_test": np.zeros((3, 28, 28), np.uint8)}, r"Flatten each image: np.reshape\(x, \(len\(x\), -1\)\)"),
        ({"x_test": np.zeros((3, 784), np.uint8)}, "x_train has 3072 values per sample, x_test has 784"),
        ({"y_train": np.array([[0], [1], [2], [0], [1], [2]])}, r"Flatten them: y\.ravel\(\)"),
        ({"y_train": np.array(["cat", "dog"] * 3)}, r"names, y = np\.unique\(y, return_inverse=True\)"),
        (
            {"x_test": np.zeros((0, 3072), np.uint8)},
            r"x_test must be uint8 of shape \(n, d\), got uint8 of shape \(0,",
        ),
        ({"y_train": np.eye(3, dtype=int)[[0, 1, 2, 0, 1, 2]]}, "Convert one-hot rows to labels"),
        ({"y_train": np.zeros(5, int)}, r"y_train must be whole numbers of shape \(6,\)"),
        ({"y_test": np.array([0.0, 1.0, 2.0])}, "y_test must be whole numbers"),
        ({"y_test": np.array([0, 1, 3])}, "By names there are 3 classes, but the labels go from 0 to 3"),
        ({"y_test": np.array([0, 1, -1])}, "labels go from -1 to 2"),
        ({"names": np.array([1, 2, 3])}, "names must be one string per class"),
        ({"names": np.array(["cat", None, "owl"], object)}, "without objects"),
    ],
)
def test_from_npz_refuses(arrays, tmp_path, changes, match):
    arrays.update(changes)
    np.savez(tmp_path / "pets.npz", **{key: value for key, value in arrays.items() if value is not None})
    with pytest.raises(ValueError, match=match):
        from_npz(tmp_path / "pets.npz")


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 nor this"])
def test_from_npz_refuses_other_files(tmp_path, content):
    (tmp_path / "some.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"some.npz cannot be read as an .npz file"):
        from_npz(tmp_path / "some.npz")


def test_from_npz_refuses_a_damaged_or_single_array_file(arrays, tmp_path):
    path = tmp_path / "some.npz"
    np.savez_compressed(path, **arrays)
    content = bytearray(path.read_bytes())
    content[500:600] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read"):
        from_npz(path)
    with open(path, "wb") as file:
        np.save(file, arrays["x_train"])
    with pytest.raises(ValueError, match="a single array"):
        from_npz(path)


# --- data by name


def test_load_by_name(small_files, nowhere, arrays, capsys):
    assert load("synthetic", 3).name == "synthetic images (seed 3)"
    np.savez("pets.npz", **arrays)
    assert load("pets.npz", 3, np.float32)[0][0].dtype == np.float32
    cifar_files.write(nowhere / "work/cifar-100-python", small_files)
    assert load("cifar100", 3).name == load("auto", 3).name == "CIFAR-100, 5 classes (seed 3)"
    assert capsys.readouterr().err == ""


def test_load_auto_without_cifar100_says_so(capsys):
    assert load("auto", 3).name == "synthetic images (seed 3)"
    message = capsys.readouterr().err
    assert "SYNTHETIC IMAGES: fastnet did not find CIFAR-100" in message and "fastnet data download" in message


def test_download_command_is_one_the_shell_finds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setattr(_places.sys, "executable", str(tmp_path / ".venv/bin/python"))
    assert _places.download_command() == "fastnet data download"
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/fastnet").touch()
    assert _places.download_command() == os.path.join(".venv", "bin", "fastnet data download")


def test_load_cifar100_does_not_fall_back():
    with pytest.raises(FileNotFoundError, match="CIFAR-100 was not found"):
        load("cifar100", 1)


def test_load_refuses():
    with pytest.raises(ValueError, match=r"data must be one of auto\|cifar100\|synthetic\|PATH.npz, got 'mnist'"):
        load("mnist", 1)
    with pytest.raises(FileNotFoundError, match=r"There is no file nothing\.npz"):
        load("nothing.npz", 1)
