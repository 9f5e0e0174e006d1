"""``fastnet train``: what it writes and prints, and what it says about mistakes."""
import csv
import html
import re
import sys

import numpy as np
import pytest
import scripts

import fastnet
from fastnet import cli

PICTURES = ["class_accuracy.png", "confusion_matrix.png", "curves.png", "images.png", "mistakes.png", "weights.png"]


@pytest.fixture
def run(tmp_path, capsys):
    """Runs the command on a few images; returns what it printed and the folder it wrote to."""
    images = scripts.image_file(tmp_path / "three.npz")

    def main(*options, code=0):
        out = tmp_path / "results"
        assert cli.main(["train", "--data", str(images), "--out", str(out), *options]) == code
        return capsys.readouterr(), out

    return main


def test_writes_pictures_model_log_and_report(run):
    pytest.importorskip("safetensors")
    printed, out = run("--epochs", "3", "--hidden", "16,8", "--validation", "0.25", "--shuffle", "--momentum", "0.5")
    assert sorted(p.name for p in out.iterdir()) == sorted([*PICTURES, "model.safetensors", "report.html", "train.csv"])
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in PICTURES)
    assert "three: 45 training, 15 validation, 30 test samples" in printed.out
    assert len(list(csv.reader((out / "train.csv").read_text().splitlines()))) == 4
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") == 6
    assert not re.search(r'(src|href)="(?!data:)', page)  # it needs no other file
    assert "three: 3072-16-8-3" in page
    accuracy = re.search(r"test accuracy ([\d.]+)", printed.out)[1]
    assert f"<b>{float(accuracy):.3f}</b>" in page
    model = fastnet.load(out / "model.safetensors")
    (_, _), (x, labels) = fastnet.dataset.from_npz(out.parent / "three.npz", np.float32)
    assert f"{model.score(x, labels):.4f}" == accuracy


def test_the_report_s_command_repeats_the_training(run):
    _, out = run("--epochs", "2", "--hidden", "8", "--lr", "0.05")
    command = html.unescape(re.search(r"<th>command</th><td><code>(.*?)</code>", (out / "report.html").read_text("utf-8"))[1])
    losses = [row.split(",")[2] for row in (out / "train.csv").read_text().splitlines()]
    again = out.parent / "again"
    assert cli.main([*command.split()[1:], "--out", str(again)]) == 0
    assert [row.split(",")[2] for row in (again / "train.csv").read_text().splitlines()] == losses


def test_data_of_another_width(tmp_path, capsys):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    for width, pictures in ((784, 6), (10, 3)):
        x = rng.integers(0, 200, (60, width), dtype=np.uint8) + (50 * labels[:, None]).astype(np.uint8)
        np.savez(tmp_path / "data.npz", x_train=x, y_train=labels, x_test=x, y_test=labels)
        out = tmp_path / str(width)
        assert cli.main(["train", "--data", str(tmp_path / "data.npz"), "--out", str(out), "--hidden", "0", "--epochs", "1"]) == 0
        assert len(list(out.glob("*.png"))) == pictures


def test_a_diverged_training_is_shown_as_one(run):
    printed, out = run("--lr", "1e9", "--hidden", "8")
    assert "diverged in epoch" in printed.err
    assert "diverged in epoch" in (out / "report.html").read_text("utf-8")


def test_without_safetensors(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    printed, out = run("--epochs", "1", "--hidden", "4")
    assert "could not save the model" in printed.err
    assert (out / "report.html").exists()
    assert not (out / "model.safetensors").exists()


@pytest.mark.parametrize("options, message", [
    (["--validation", "1"], "--validation must be at least 0 and below 1, got 1"),
    (["--epochs", "0"], "epochs must be at least 1, got 0"),
    (["--data", "nowhere.npz"], "There is no file nowhere.npz"),
])
def test_mistakes(run, options, message):
    printed, _ = run(*options, code=1)
    assert printed.err.startswith("fastnet: ")
    assert message in printed.err
