"""CIFAR-100 as other editions of the course draw and shape it, and the helpers of the course's dataset.py."""
import hashlib

import cifar_files
import numpy as np
import pytest

from fastnet.dataset import _files, cifar100, onehot, scale, synthetic


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Small files of CIFAR-100's form beside the script, taken for the published ones; and what they hold."""
    files = cifar_files.contents()
    monkeypatch.setattr(_files, "N_IMAGES", cifar_files.N_IMAGES)
    md5 = {name: hashlib.md5(cifar_files.python2_pickle(content)).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(_files, "MD5", md5)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FASTNET_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    cifar_files.write(tmp_path / "cifar-100-python", files)
    return files


def drawn(files, seed, n_classes, replace):
    """The course's rule, in the course's way."""
    np.random.seed(seed)
    chosen = np.random.choice(np.arange(0, 100), n_classes, replace=replace)
    parts = []
    for part in ("train", "test"):
        labels = np.array(files[part]["fine_labels"])
        mask = np.isin(labels, chosen)
        parts.append((files[part]["data"][mask] / 255 - 0.5, np.unique(labels[mask], return_inverse=True)[1]))
    (x_train, y_train), test = parts
    return (x_train, np.eye(y_train.max() + 1)[y_train]), test


@pytest.mark.parametrize(("n_classes", "replace", "n_drawn"), [(4, True, 4), (20, True, 18), (3, False, 3), (5, False, 5)])
def test_every_edition_draws_as_the_course_does(files, n_classes, replace, n_drawn):
    data = cifar100(7, n_classes, replace=replace)
    for (x, y), (x_expected, y_expected) in zip(data, drawn(files, 7, n_classes, replace)):
        np.testing.assert_array_equal(x, x_expected)
        np.testing.assert_array_equal(y, y_expected)
    assert len(data.class_names) == data[0][1].shape[1] == n_drawn, "a class drawn twice is there once"


def test_the_next_chapters_classes_are_the_first_of_this_ones(files):
    assert set(cifar100(3, 3).class_names) <= set(cifar100(3, 5).class_names)


def test_images_are_the_rows_reshaped(files):
    rows, images = cifar100(7, 3), cifar100(7, 3, images=True)
    for (x, y), (x_rows, y_rows) in zip(images, rows):
        np.testing.assert_array_equal(x, x_rows.reshape(len(x_rows), 3, 32, 32))
        np.testing.assert_array_equal(y, y_rows)
    assert images.class_names == rows.class_names and images.name == rows.name
    assert synthetic(1, n_train=10, n_test=4).as_images().as_images()[1][0].shape == (4, 3, 32, 32)


def test_one_class_only_is_an_error(files):
    seed = next(s for s in range(1000) if len(set(np.random.RandomState(s).choice(np.arange(0, 100), 2))) == 1)
    with pytest.raises(ValueError, match=f"seed {seed} draws class .* 2 times.*replace=False"):
        cifar100(seed, 2, replace=True)


def test_onehot_and_scale():
    np.testing.assert_array_equal(onehot(np.array([2, 0, 1, 2])), [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert onehot([0, 1]).dtype == np.float64
    with pytest.raises(ValueError, match="onehot: labels must have shape"):
        onehot([[0, 1]])
    x = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    np.testing.assert_array_equal(scale(x), (x / 255 - 0.5).reshape(5, 3072))
    assert scale(x[0]).shape == (1, 3072) and scale(x.astype(np.float32)).dtype == np.float64
    with pytest.raises(ValueError, match=r"images of 3072 values each, got shape \(5, 100\)"):
        scale(np.zeros((5, 100)))
