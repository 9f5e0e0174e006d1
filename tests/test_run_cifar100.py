"""run_cifar100.py: what it writes and prints, and what it says about mistakes."""
import re
import warnings

import matplotlib.figure
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
    assert legend == ["0.01", "0.1", "0.3", "10, diverged"]


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
    assert "SYNTHETIC IMAGES: CIFAR-100 was not found" in printed.err
    assert printed.out.startswith("synthetic images (seed 0): 2500 training images")


@pytest.mark.parametrize("options, message", [
    (["--data", "nowhere.npz"], "There is no file nowhere.npz"),
    (["--data", "mnist"], "data must be one of auto|cifar100|synthetic|PATH.npz, got 'mnist'"),
    (["--lrs", "0.1,-1"], "a learning rate must be finite and above 0, got '-1'"),
    (["--epochs", "0"], "epochs must be at least 1, got 0"),
    (["--dtype", "int8"], "dtype must be float32 or float64"),
])
def test_mistakes(run, options, message):
    printed, out = run(*options, code=1)
    assert printed.err.startswith("run_cifar100: ")
    assert message in printed.err
    assert not out.exists()
