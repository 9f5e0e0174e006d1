"""fastnet sweep."""
import json

import numpy as np
import pytest

from fastnet.cli import main
from fastnet.sweep import SweepResult
from fastnet.sweep.run.session import Interrupted, Session


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


pytestmark = pytest.mark.filterwarnings("ignore:SweepResult.suggest")  # what the command prints of such small data
FAST = ("--epochs", "3", "--seeds", "2", "--lrs", "0.003,0.03,1e4", "--hidden", "8", "--batch-size", "16")


def test_files_and_table(command, tmp_path, capsys):
    assert command(*FAST) == 0
    printed = capsys.readouterr().out
    assert "SweepResult: 3 rates x 2 seeds, 3 epochs; 2 diverged" in printed and "<- suggested" in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.html", "sweep.png", "sweep.csv", "sweep.json",
                                                                    "sweep.jsonl"}
    trials = json.loads((tmp_path / "out" / "sweep.json").read_text())["trials"]
    assert len(trials) == 6 and all(trial["test_accuracy"] is not None for trial in trials)


def test_a_sweep_that_was_interrupted_before_its_first_trial_is_no_earlier_sweep(command, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Session, "_run", lambda *_: (_ for _ in ()).throw(Interrupted))
        command(*FAST)
    journal = tmp_path / "out" / "sweep.jsonl"
    assert journal.exists() and b'"trial"' not in journal.read_bytes()
    assert command(*FAST) == 0
    journal.write_bytes(b"my thesis\n")
    assert command(*FAST) == 1 and journal.read_bytes() == b"my thesis\n"


def test_resume(command, tmp_path, capsys):
    assert command(*FAST) == 0
    first = (tmp_path / "out" / "sweep.jsonl").read_bytes()
    assert command(*FAST) == 1
    assert "Add --resume to continue it" in capsys.readouterr().err
    assert command(*FAST, "--resume") == 0
    assert (tmp_path / "out" / "sweep.jsonl").read_bytes() == first
    assert command(*FAST, "--resume", "--epochs", "2") == 1
    assert "epochs: 3 in the file, 2 now" in capsys.readouterr().err
    assert command(*FAST, "--resume", "--seeds", "3") == 0
    assert "3 rates x 3 seeds" in capsys.readouterr().out
    assert command(*FAST, "--overwrite", "--epochs", "2") == 0
    assert command(*FAST, "--resume", "--overwrite") == 1


def test_flags_are_checked_before_the_folder_is_touched(command, tmp_path, capsys):
    assert command(*FAST) == 0
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    for wrong in (("--lrs", "1:2"), ("--epochs", "0"), ("--batch-size", "none"), ("--metric", "speed"),
                  ("--schedule", "sometimes"), ("--momentum", "1"), ("--folds", "-1"), ("--validation", "2")):
        assert command(*FAST, "--overwrite", *wrong) == 1
        assert "holds the trials" not in capsys.readouterr().err
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_what_cannot_be_written_costs_no_more_than_itself(command, tmp_path, capsys, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SweepResult, "plot", fail)
    monkeypatch.setattr(SweepResult, "to_json", fail)
    assert command(*FAST) == 1
    printed = capsys.readouterr()
    assert "<- suggested" in printed.out and (tmp_path / "out" / "sweep.csv").stat().st_size
    assert "sweep.json could not be written: [Errno 28] No space left on device" in printed.err
    assert "sweep.png could not be written" in printed.err


def test_after_an_error_what_is_finished_is_written(command, tmp_path, capsys, monkeypatch):
    keep = Session._keep

    def failing(self, record, state):
        if self.result.finished == 4:
            raise OSError("no more")
        keep(self, record, state)

    monkeypatch.setattr(Session, "_keep", failing)
    assert command(*FAST) == 1
    printed = capsys.readouterr()
    assert "no more. 4 of 6 trials are finished" in printed.err and "--resume continues from there" in printed.err
    assert "4 of 6 trials finished" in printed.out
    assert len((tmp_path / "out" / "sweep.csv").read_text().splitlines()) == 5
    monkeypatch.undo()
    assert command(*FAST, "--resume") == 0


def test_all_that_can_be_asked_for(command, capsys):
    assert command("--epochs", "2", "--seeds", "1", "--lrs", "0.003,0.03", "--hidden", "4", "--batch-size", "16,32",
                   "--momentum", "0,0.5", "--schedule", "constant,cosine", "--folds", "3", "--metric", "val_loss") == 0
    printed = capsys.readouterr().out
    assert "2 rates x 1 seed x 3 folds x 2 batch sizes x 2 momenta x 2 schedules" in printed
    assert command("--overwrite", "--epochs", "4", "--seeds", "5", "--lrs", "0.001:0.1:log8", "--hidden", "4", "--halving",
                   "--batch-size", "16") == 0
    assert "stopped early or not begun" in capsys.readouterr().out


def test_without_arguments_it_finds_the_rates(command, capsys):
    assert command("--epochs", "3", "--seeds", "2", "--hidden", "4", "--batch-size", "16") == 0
    assert "learning rate 0." in capsys.readouterr().out


@pytest.mark.filterwarnings("default:SweepResult.suggest")
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
    (("--dask", "tcp://127.0.0.1:9"), "there is no Dask scheduler at tcp://127.0.0.1:9"),
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
