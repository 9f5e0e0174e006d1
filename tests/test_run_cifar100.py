"""run_cifar100.py: what it writes and prints, and what it says about mistakes."""
import re
import warnings

import matplotlib.figure
import numpy as np
import pytest
import scripts

import run_cifar100


@pytest.fixture
def run(tmp_path, capsys):
    """Runs the script on a few images; returns what it printed and the folder it wrote to."""
    images = scripts.image_file(tmp_path / "three.npz")

    def main(*options, code=0):
        out = tmp_path / "results"
        assert run_cifar100.main(["--data", str(images), "--out", str(out), *options]) == code
        return capsys.readouterr(), out

    return main


def test_writes_the_plot_and_the_table(run):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # a diverged rate is reported, not warned about
        printed, out = run("--epochs", "3")
    lines = (out / "acc_results.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["0.01", "0.1", "0.3", "10"]
    assert all(re.fullmatch(r"[\d.]+,[01]\.\d{4}", line) for line in lines)
    assert (out / "acc_lr.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in out.iterdir()) == ["acc_lr.png", "acc_results.csv"]
    assert "60 training images, 30 test images of dark, grey, light" in printed.out
    assert re.search(r"^10 +diverged in epoch \d ", printed.out, re.MULTILINE)
    assert printed.err == ""


def test_plot_names_the_data_and_the_diverged_rate(run, monkeypatch):
    figures = []
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    run("--epochs", "2")
    (figure,) = figures
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert any("three" in text.get_text() for text in figure.texts)
    assert [re.sub("epoch .*", "epoch", entry) for entry in legend] == ["0.01", "0.1", "0.3", "10 (diverged in epoch"]


def test_the_whole_of_every_curve_and_every_accuracy_is_seen(run, monkeypatch):
    figures = []
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    _, out = run("--epochs", "4", "--lrs", "0.0001,0.01,0.1,10")
    left, right = figures[0].axes
    low, high = left.get_ylim()
    slowest = left.lines[0].get_ydata()
    assert len(slowest) == 4
    assert low <= slowest.min() and slowest.max() < high
    written = dict(map(float, line.split(",")) for line in (out / "acc_results.csv").read_text().splitlines())
    drawn = {line.get_label(): dict(line.get_xydata()) for line in right.lines}
    assert drawn["diverged"] == pytest.approx({10: written[10]}, abs=1e-4)
    assert drawn["converged"] == pytest.approx({lr: written[lr] for lr in (0.0001, 0.01, 0.1)}, abs=1e-4)
    assert right.get_ylim() == (0, 1)
    least, most = right.get_xlim()
    assert least < 0.0001 and most > 10
    chance = next(line for line in right.lines if line.get_label() == "chance (0.333)")
    assert set(chance.get_ydata()) == {1 / 3}


def test_other_networks_and_data_of_another_width(tmp_path, capsys):
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    x = rng.integers(0, 200, (40, 784), dtype=np.uint8) + (50 * labels[:, None]).astype(np.uint8)
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=labels, x_test=x, y_test=labels)
    options = ["--data", str(tmp_path / "mnist.npz"), "--out", str(tmp_path), "--epochs", "1", "--lrs", "0.01"]
    losses = set()
    for more in ([], ["--hidden", "16,8"], ["--hidden", "0"], ["--batch-size", "7"]):
        assert run_cifar100.main([*options, *more]) == 0
        losses.add(re.search(r"^0\.01 +(\d\.\d{4}) ", capsys.readouterr().out, re.MULTILINE)[1])
    assert len(losses) == 4


def test_how_many_classes(run):
    printed, _ = run("--data", "synthetic", "--classes", "3", "--hidden", "4", "--epochs", "1", "--lrs", "0.1")
    assert "of figure 0, figure 1, figure 2\n" in printed.out


def test_every_rate_starts_from_the_same_weights(run):
    printed, _ = run("--epochs", "1", "--lrs", "0.01,0.1,0.5")  # one batch: the loss before any step
    losses = re.findall(r"^0\.\d+ +(\d\.\d{4}) ", printed.out, re.MULTILINE)
    assert len(losses) == 3
    assert len(set(losses)) == 1


def test_same_seed_same_table(run):
    runs = [run("--epochs", "2", "--lrs", "0.01:0.1:log3", "--dtype", "float64")[0].out for _ in range(2)]
    assert runs[0] == runs[1]
    assert runs[0] != run("--epochs", "2", "--lrs", "0.01:0.1:log3", "--seed", "1", "--dtype", "float64")[0].out


def test_auto_without_cifar100_says_that_images_are_synthetic(run, tmp_path, monkeypatch):
    for variable in ("HOME", "XDG_CACHE_HOME", "KERAS_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "nobody"))
    monkeypatch.delenv("FASTNET_DATA", raising=False)
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    printed, _ = run("--data", "auto", "--epochs", "1", "--lrs", "0.1")
    assert "SYNTHETIC IMAGES: fastnet did not find CIFAR-100" in printed.err
    assert printed.out.startswith("synthetic images (seed 0): 2500 training images")


@pytest.mark.parametrize("options, message", [
    (["--data", "nowhere.npz"], "There is no file nowhere.npz"),
    (["--data", "mnist"], "data must be one of auto|cifar100|synthetic|PATH.npz, got 'mnist'"),
    (["--lrs", "0.1,-1"], "a learning rate must be finite and above 0, got '-1'"),
    (["--epochs", "0"], "epochs must be at least 1, got 0"),
    (["--hidden", "many"], "--hidden is 'many': give numbers of hidden units"),
    (["--hidden", "5,-1"], "--hidden is '5,-1': give numbers of hidden units"),
    (["--batch-size", "0"], "batch_size must be at least 1, got 0"),
    (["--data", "synthetic", "--classes", "1"], "n_classes must be between 2 and 100, got 1"),
    (["--dtype", "int8"], "dtype must be float32 or float64"),
])
def test_mistakes(run, options, message):
    printed, out = run(*options, code=1)
    assert printed.err.startswith("run_cifar100: ")
    assert message in printed.err
    assert not out.exists()
