"""fastnet sweep."""
import json

import numpy as np
import pytest

from fastnet.cli import main


@pytest.fixture
def command(tmp_path):
    """Run the command on a small data file."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 120)
    x = (60 * labels[:, None] + rng.integers(0, 100, (120, 3072))).astype(np.uint8)
    np.savez(tmp_path / "data.npz", x_train=x[:100], y_train=labels[:100], x_test=x[100:], y_test=labels[100:])

    def run(*arguments):
        return main(["sweep", "--data", str(tmp_path / "data.npz"), "--out", str(tmp_path / "out"), *arguments])

    return run


FAST = ("--epochs", "3", "--seeds", "2", "--lrs", "0.003,0.03,1e4", "--hidden", "8", "--batch-size", "16")


def test_files_and_table(command, tmp_path, capsys):
    assert command(*FAST) == 0
    printed = capsys.readouterr().out
    assert "SweepResult: 3 rates x 2 seeds, 3 epochs; 2 diverged" in printed and "<- suggested" in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"sweep.png", "sweep.csv", "sweep.json", "sweep.jsonl"}
    trials = json.loads((tmp_path / "out" / "sweep.json").read_text())["trials"]
    assert len(trials) == 6 and all(trial["test_accuracy"] is not None for trial in trials)


def test_resume(command, tmp_path, capsys):
    assert command(*FAST) == 0
    first = (tmp_path / "out" / "sweep.jsonl").read_bytes()
    assert command(*FAST) == 1
    assert "Add --resume to go on with it" in capsys.readouterr().err
    assert command(*FAST, "--resume") == 0
    assert (tmp_path / "out" / "sweep.jsonl").read_bytes() == first
    assert command(*FAST, "--resume", "--epochs", "4") == 1
    assert "epochs: 3 in the file, 4 now" in capsys.readouterr().err


def test_networks(command, capsys):
    assert command(*FAST, "--hidden", "16,8", "--hidden", "0", "--validation", "0", "--shuffle", "--momentum", "0.5") == 0
    printed = capsys.readouterr()
    assert "x 3 networks" in printed.out and "16-8" in printed.out and "no hidden layer" in printed.out
    assert "fastnet: SweepResult.suggest: the sweep had no validation data" in printed.err


@pytest.mark.parametrize("wrong, words", [
    (("--lrs", "0.1,0.1"), "0.1 twice"),
    (("--lrs", "1:2"), "cannot read"),
    (("--seeds", "some"), "--seeds must be a number, or a list"),
    (("--validation", "1"), "--validation must be"),
    (("--data", "nowhere.npz"), "nowhere.npz"),
    (("--engine", "magic"), "engine must be one of"),
    (("--dtype", "int8"), "dtype must be"),
    (("--dask", "tcp://127.0.0.1:9"), "no Dask scheduler answers at tcp://127.0.0.1:9"),
], ids=str)
def test_wrong_arguments(command, capsys, wrong, words):
    if "--dask" in wrong:
        pytest.importorskip("distributed")
    assert command(*FAST, *wrong) == 1
    assert words in capsys.readouterr().err


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as end:
        main(["sweep", "--help"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert "examples:" in printed and "--resume" in printed and "diverges" in printed
    with pytest.raises(SystemExit):
        main(["sweep", "--hidden", "wide"])
    assert "invalid width or list of widths value: 'wide'" in capsys.readouterr().err
