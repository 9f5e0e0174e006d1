"""better_cifar.py: its procedure on a few images, its statistics, and what it says about mistakes."""
import csv
import re

import numpy as np
import pytest
import scripts

import better_cifar


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Runs the script on a few images with small networks; returns what it printed and the folder it wrote to."""
    images = scripts.image_file(tmp_path / "three.npz")
    monkeypatch.setattr(better_cifar, "CANDIDATES", (better_cifar.COURSE, (16,), (16, 8)))

    def main(*options, code=0):
        out = tmp_path / "results"
        assert better_cifar.main(["--data", str(images), "--out", str(out), *options]) == code
        return capsys.readouterr(), out

    return main


def test_writes_the_table_and_the_plot(run):
    printed, out = run("--seeds", "3", "--epochs", "2")
    with open(out / "better_cifar.csv", newline="") as file:
        head, *rows = csv.reader(file)
    scores = np.array(rows, dtype=float)
    assert head == ["seed", *better_cifar.STEPS]
    assert list(scores[:, 0]) == [0, 1, 2]
    assert (out / "better_cifar.png").read_bytes().startswith(b"\x89PNG")
    course, better = scores[:, 1].mean(), scores[:, -1].mean()
    last = re.search(r"Course network ([\d.]+), better network ([\d.]+): difference ([-+\d.]+), 95% interval \[(.+), (.+)\]",
                     printed.out)
    assert [float(number) for number in last.groups()[:3]] == pytest.approx([course, better, better - course], abs=2e-4)
    assert float(last[4]) <= float(last[3]) <= float(last[5])


def test_same_result_twice(run):
    tables = [(run("--seeds", "2", "--epochs", "1")[1] / "better_cifar.csv").read_bytes() for _ in range(2)]
    assert tables[0] == tables[1]


def test_mirrored_flips_left_and_right():
    image = np.arange(3072.0).reshape(1, 3072)
    planes, flipped = (x.reshape(3, 32, 32) for x in (image, better_cifar.mirrored(image)))
    assert np.array_equal(flipped, planes[:, :, ::-1])


def test_mirrored_takes_any_square_image():
    image = np.arange(784.0).reshape(1, 784)
    assert np.array_equal(better_cifar.mirrored(image).reshape(28, 28), image.reshape(28, 28)[:, ::-1])
    with pytest.raises(ValueError, match="10 values per sample are no square image"):
        better_cifar.mirrored(np.zeros((1, 10)))


def test_the_size_may_be_given(run):
    printed, _ = run("--seeds", "2", "--epochs", "1", "--hidden", "12,6", "--batch-size", "16")
    assert "choosing" not in printed.err
    assert "Course network" in printed.out


@pytest.mark.parametrize("options, message", [
    (["--seeds", "1"], "--seeds is 1: an interval needs at least 2"),
    (["--epochs", "0"], "epochs must be at least 1, got 0"),
    (["--data", "nowhere.npz"], "There is no file nowhere.npz"),
])
def test_mistakes(run, options, message):
    printed, out = run(*options, code=1)
    assert "better_cifar: " in printed.err
    assert message in printed.err
    assert not out.exists()
