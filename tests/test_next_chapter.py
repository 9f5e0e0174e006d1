"""The next chapter's assignment: as a course script through the drop-in, in run_cifar100.py and in fastnet sweep."""
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scripts

import run_cifar100
from fastnet.cli import main
from fastnet.dataset import from_npz, synthetic

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return scripts.image_file(tmp_path_factory.mktemp("data") / "three.npz")


def test_the_course_script_runs_through_the_drop_in(images, tmp_path):
    command = [sys.executable, "-m", "fastnet.dropin", ROOT / "examples" / "next_chapter.py", "--data", images,
               "--epochs", "5", "--plot", tmp_path / "curve.png"]
    done = subprocess.run(list(map(str, command)), cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    loss, accuracy = map(float, re.findall(r"\d\.\d{4}", done.stdout))
    assert loss < 1
    assert accuracy > 0.5
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_run_cifar100_trains_the_convolutional_network(images, tmp_path, capsys):
    options = ["--data", str(images), "--out", str(tmp_path), "--network", "conv"]
    assert run_cifar100.main([*options, "--epochs", "4"]) == 0
    assert re.fullmatch(r"0\.1,[01]\.\d{4}\n", (tmp_path / "acc_results.csv").read_text())
    assert (tmp_path / "acc_lr.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(r"^0\.1 +0\.\d{4} +[01]\.\d{4}$", capsys.readouterr().out, re.MULTILINE)
    settings = run_cifar100.arguments(options)
    assert (settings.epochs, settings.lrs, settings.classes) == (15, "0.1", 3)
    settings = run_cifar100.arguments([])
    assert (settings.epochs, settings.lrs, settings.classes) == (20, "0.01, 0.1, 0.3, 10", 5)


def test_fastnet_sweep_trains_the_convolutional_network(images, tmp_path, capsys):
    options = ["sweep", "--data", str(images), "--out", str(tmp_path / "out"), "--network", "conv"]
    assert main([*options, "--lrs", "0.05,0.1", "--seeds", "2", "--epochs", "2"]) == 0
    assert "2 rates x 2 seeds" in capsys.readouterr().out
    assert main([*options, "--hidden", "5"]) == 1
    assert "--hidden is for --network full" in capsys.readouterr().err


def test_synthetic_images_and_those_of_a_file(images, tmp_path):
    rows, pictures = synthetic(1, 3, 20, 10), synthetic(1, 3, 20, 10, images=True)
    for (x, y), (of_images, labels) in zip(rows, pictures, strict=True):
        assert of_images.shape == (len(x), 3, 32, 32)
        assert np.array_equal(of_images.reshape(x.shape), x)
        assert np.array_equal(labels, y)
    assert from_npz(images).as_images()[0][0].shape == (60, 3, 32, 32)
    y = np.arange(4) % 2
    for width, shape in ((784, (1, 28, 28)), (48, (3, 4, 4)), (10, None)):
        path = tmp_path / f"{width}.npz"
        x = np.zeros((4, width), np.uint8)
        np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
        if shape is None:
            with pytest.raises(ValueError, match="rows of 10 values are not square images of 3 channels or of 1"):
                from_npz(path).as_images()
        else:
            assert from_npz(path).as_images()[0][0].shape == (4, *shape)
