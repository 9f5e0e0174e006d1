"""The file that a sweep is resumed from: killed, torn, of another sweep, in use, not ours."""
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest

import fastnet
from fastnet import CrossEntropyLayer, FullLayer, Sequential, SoftMaxLayer
from fastnet.sweep import SweepError, SweepResult, lr_sweep
from fastnet.sweep.run.session import Session
from fastnet.sweep.run.trial import _Run as Run
from fastnet.sweep.store.journal import Journal
from fastnet.sweep.store.lines import line_of
from tests.sweeps import assert_same, build, case, network, small, trial_lines, without_times

KILLS = int(os.environ.get("FASTNET_KILLS", 3))


def parsed(line):
    found = json.loads(line)
    found.pop("check")
    return found


def head_of(path):
    head = parsed(path.read_bytes().splitlines()[0])
    head.pop("fastnet_sweep")
    return head


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed sweep and its file."""
    path = tmp_path_factory.mktemp("whole") / "sweep.jsonl"
    return lr_sweep(**small(resume=path)), path


def test_the_file_has_a_line_for_each_trial(whole):
    result, path = whole
    head, asked, *trials = without_times(path)
    assert head["fastnet_sweep"] == 3 and head["fastnet"] == fastnet.__version__
    assert asked["asked"]["lrs"] == list(result.lrs) and asked["asked"]["epochs"] == 4 and len(trials) == result.finished
    of = [t["trial"] for t in trials]
    assert [(t["seed"], t["lr"]) for t in of] == [(seed, lr) for seed in result.seeds for lr in result.lrs]
    assert trials[2]["curves"]["loss"] in (["inf"], ["nan"]) or trials[2]["curves"]["loss"][0] > 10


def test_nothing_is_run_twice(whole, monkeypatch):
    result, path = whole
    before = path.read_bytes()
    monkeypatch.setattr("fastnet.sweep.run.session.Session._run", lambda *_: pytest.fail("a finished trial ran again"))
    again = lr_sweep(**small(resume=path))
    assert_same(again, result)
    np.testing.assert_array_equal(again.seconds, result.seconds)
    assert path.read_bytes() == before


def test_cut_anywhere_it_is_completed(whole, tmp_path):
    result, path = whole
    content = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    cuts = {0, 1, 40, len(content) - 1, *ends, *random.Random(0).sample(range(len(content)), 8)}
    for cut in sorted(cuts):
        torn = tmp_path / f"{cut}.jsonl"
        torn.write_bytes(content[:cut])
        if cut in (0, *ends):
            assert_same(lr_sweep(**small(resume=torn)), result)
        else:
            with pytest.warns(RuntimeWarning, match="only half written, and is dropped"):
                assert_same(lr_sweep(**small(resume=torn)), result)
        assert without_times(torn) == without_times(path)


def test_trials_stand_in_order_whichever_finished_first(whole, tmp_path):
    _, path = whole
    head, asked, *trials = path.read_bytes().splitlines(keepends=True)
    mixed = tmp_path / "sweep.jsonl"
    mixed.write_bytes(head + asked + b"".join(trials[1:][::-1]))
    lr_sweep(**small(resume=mixed))
    assert without_times(mixed) == without_times(path)
    assert not list(tmp_path.glob("*.new"))


@pytest.mark.parametrize("change, words", [
    ({"epochs": 3}, "epochs: 4 in the file, 3 now"),
    ({"engine": "layers"}, 'engine: "auto" in the file, "layers" now'),
    ({"shuffle": True}, "shuffle"),
    ({"diverged_above": np.inf}, 'diverged_above: 10.0 in the file, "inf" now'),
    ({"build": network(12, 18, 3)}, "network, layer 0, W: "),
    ({"validation": None}, "validation"),
    ({"x": small()["x"] + 1}, "x: .* in the file, .* now"),
    ({"y": small()["y"][::-1]}, "y: "),
], ids=case)
def test_another_sweep_is_refused_and_nothing_is_lost(whole, change, words):
    _, path = whole
    before = path.read_bytes()
    with pytest.raises(ValueError, match=words) as caught:
        lr_sweep(**small(resume=path, **change))
    assert "is of another sweep" in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content, words", [
    (b"my thesis\n", "is not a file of lr_sweep"),
    (b"my thesis", "is not a file of lr_sweep"),
    (b"[1, 2]\n", "is not a file of lr_sweep"),
    (b"{}\n", "is not a file of lr_sweep"),
    (b'{"fastnet_sweep": 99}\n', "format 99"),
    (b"\x00\xff\n", "is not a file of lr_sweep"),
], ids=repr)
def test_files_that_are_not_ours(tmp_path, content, words):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        lr_sweep(**small(resume=path))
    assert path.read_bytes() == content


def test_a_damaged_line_is_named(whole, tmp_path):
    lines = whole[1].read_bytes().splitlines(keepends=True)
    path = tmp_path / "sweep.jsonl"
    empty = line_of({**parsed(lines[3]), "curves": {"loss": []}})
    foreign = line_of({**parsed(lines[3]), "trial": {**parsed(lines[3])["trial"], "lr": 0.7}})
    short = line_of({**parsed(lines[3]), "curves": {**parsed(lines[3])["curves"], "val_loss": [1.0]}})
    for damaged, words in [(b"\x00" * 20 + b"\n", "its checksum does not match"), (b'{"name": ""}\n', "checksum"),
                           (b"3\n", "checksum"), (b"\n", "it is blank"), (b"  \n", "it is blank"),
                           (lines[3].replace(b"0.3", b"0.2"), "its checksum does not match"),
                           (empty, "it is of a trial that ran no epoch"), (short, "different numbers of epochs"),
                           (foreign, "no sweep in the file asked for: rate 0.7, seed 0")]:
        path.write_bytes(b"".join([*lines[:3], damaged, *lines[4:]]))
        with pytest.raises(ValueError, match=r"line 4 of .* is damaged: .*" + words):
            lr_sweep(**small(resume=path))


WRONG = {
    "lr": [[], {}, "0.3", None, True], "seed": [[], "0", None, 0.5], "fold": [[], None, 1], "batch_size": [[], None, {}],
}


@pytest.mark.parametrize("entry, value", [(entry, value) for entry, values in WRONG.items() for value in values], ids=case)
def test_a_trial_of_wrong_types_is_damaged_though_its_checksum_is_right(whole, tmp_path, entry, value):
    lines = whole[1].read_bytes().splitlines(keepends=True)
    line = parsed(lines[3])
    refused(tmp_path, [*lines[:3], line_of({**line, "trial": {**line["trial"], entry: value}}), *lines[4:]], "line 4 of .* is damaged")


@pytest.mark.parametrize("change", [
    {"trial": 3}, {"trial": {}}, {"curves": []}, {"curves": {"loss": 3}}, {"curves": {"loss": ["x"] * 4}}, {"curves": {"loss": [True] * 4}},
    {"curves": {"loss": [1.0] * 99}}, {"status": []}, {"status": "great"}, {"engine": None}, {"final": [1]}, {"final": {"a": []}},
    {"seconds": "long"}, {"samples": {"val_accuracy": [10, "AAAA"]}}, {"samples": {"val_accuracy": [10**18, "eJw="]}},
    {"samples": {"other": [1, ""]}}, {"samples": {"val_accuracy": 3}}, {"samples": None},
], ids=case)
def test_records_of_wrong_types_are_damaged(whole, tmp_path, change):
    lines = whole[1].read_bytes().splitlines(keepends=True)
    refused(tmp_path, [*lines[:3], line_of({**parsed(lines[3]), **change}), *lines[4:]], "line 4 of .* is damaged")


@pytest.mark.parametrize("change", [
    {"lrs": 3}, {"lrs": ["x"]}, {"lrs": [[1]]}, {"seeds": [0.5]}, {"seeds": None}, {"epochs": "4"}, {"params": [3]}, {"params": [["a"]]},
    {"params": [["a", 3]]}, {"params": [[3, [1]]]}, {"params": [["a", [{}]]]}, {"metric": 3}, {"diverged_above": []}, {"extra": 1},
    {"schedules": [3]}, {"guess": 3}, {"folds": None},
], ids=case)
def test_grids_of_wrong_types_are_damaged(whole, tmp_path, change):
    head, asked, *trials = whole[1].read_bytes().splitlines(keepends=True)
    asked = parsed(asked)
    refused(tmp_path, [head, line_of({**asked, "asked": {**asked["asked"], **change}}), *trials], "line 2 of .* is damaged")


def refused(tmp_path, lines, words):
    path = tmp_path / "sweep.jsonl"
    path.write_bytes(b"".join(lines))
    for read in (SweepResult.load, lambda path: lr_sweep(**small(resume=path))):
        with pytest.raises(ValueError, match=words):
            read(path)
    assert path.read_bytes() == b"".join(lines)


def test_json_that_is_nested_too_deeply_is_damaged(whole, tmp_path):
    lines = whole[1].read_bytes().splitlines(keepends=True)
    deep = b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    content = deep[:-1]
    line = content + b', "check": "%08x"}\n' % zlib.crc32(content)
    refused(tmp_path, [*lines[:3], line, *lines[4:]], "line 4 of .* is damaged: it is nested too deeply")
    refused(tmp_path, [line], "is not a file of lr_sweep")


def test_the_first_line_has_a_checksum_too(whole, tmp_path):
    lines = whole[1].read_bytes().splitlines(keepends=True)
    refused(tmp_path, [lines[0].replace(b"float32 50x12", b"float32 50x13"), *lines[1:]], "the first line of .* is damaged: its checksum")


def test_ends_of_lines_may_be_those_of_windows(whole, tmp_path, monkeypatch):
    result, path = whole
    other = tmp_path / "sweep.jsonl"
    other.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert_same(SweepResult.load(other), result)
    with monkeypatch.context() as patch:
        patch.setattr(Session, "_run", lambda *_: pytest.fail("a finished trial ran again"))
        assert_same(lr_sweep(**small(resume=other)), result)
    assert without_times(other) == without_times(path)
    other.write_bytes(path.read_bytes().replace(b"\n", b"\r\n")[:-200])
    with pytest.warns(RuntimeWarning, match="half written"):
        assert_same(lr_sweep(**small(resume=other)), result)


@pytest.mark.parametrize("name", ["ENOSYS", "ENOLCK", "EOPNOTSUPP"])
def test_a_file_system_without_locks_is_no_other_sweep(tmp_path, monkeypatch, name):
    def refuse(file):
        raise OSError(getattr(errno, name), "no locks")

    monkeypatch.setattr("fastnet.sweep.store.journal.lock_file", refuse)
    with pytest.warns(RuntimeWarning, match="has no locks. Take care that no other sweep writes"):
        lr_sweep(**small(resume=tmp_path / "sweep.jsonl"))


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        lr_sweep(**small(resume=tmp_path / "no" / "sweep.jsonl"))


def test_a_second_sweep_on_the_same_file_is_refused(whole, tmp_path):
    _, path = whole
    journal = Journal(path, head_of(path))
    try:
        with pytest.raises(RuntimeError, match="another sweep is writing to"):
            lr_sweep(**small(resume=path))
        code = f"from tests.test_sweep_journal import *; lr_sweep(**small(resume={str(path)!r}))"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "another sweep is writing to" in other.stderr
    finally:
        journal.close()
    lr_sweep(**small(resume=path))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_does_not_keep_the_file_locked(whole):
    _, path = whole
    journal = Journal(path, head_of(path))
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    try:
        journal.close()
        lr_sweep(**small(resume=path))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_full_disk_leaves_whole_lines(whole, tmp_path, monkeypatch):
    result, _ = whole
    full = tmp_path / "sweep.jsonl"
    write, calls = os.write, []

    def short(file, line):
        calls.append(line)
        return write(file, line if len(calls) < 5 else line[:10])

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(SweepError, match="could be written"):
        lr_sweep(**small(resume=full))
    monkeypatch.undo()
    assert full.read_bytes().endswith(b"\n") and len(trial_lines(full)) == 2
    assert_same(lr_sweep(**small(resume=full)), result)


def test_the_engine_of_the_file_goes_on(whole, tmp_path):
    head, asked, *_ = whole[1].read_bytes().splitlines(keepends=True)
    path = tmp_path / "sweep.jsonl"
    for engine in ("layers", "fused", "gram", "windows"):
        grid = parsed(asked)
        path.write_bytes(head + line_of({**grid, "engines": [[setting, engine] for setting, _ in grid["engines"]]}))
        assert lr_sweep(**small(resume=path)).engines == {"": engine}
        assert {line["engine"] for line in trial_lines(path)} == {engine}


LONG = "lrs='0.001:0.1:log30', epochs=30, seeds=2"  # 60 trials


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("number", range(KILLS))
def test_killed_at_a_random_moment_it_resumes_to_the_same_file(tmp_path, number):
    killed, undisturbed = tmp_path / "killed.jsonl", tmp_path / "undisturbed.jsonl"
    code = f"from tests.test_sweep_journal import *; lr_sweep(**small(resume={str(killed)!r}, {LONG}))"
    process = subprocess.Popen([sys.executable, "-c", code])
    at = random.Random(number).uniform(0, 60_000)  # bytes: of the file, with some time more
    while process.poll() is None and not (killed.exists() and killed.stat().st_size >= at):
        time.sleep(0.0005)
    time.sleep(random.Random(-number).uniform(0, 0.005))
    process.kill()
    process.wait()
    finished = killed.read_bytes().count(b'{"trial"')
    lr_sweep(**eval(f"small(resume=killed, {LONG})"))
    lr_sweep(**eval(f"small(resume=undisturbed, {LONG})"))
    assert without_times(killed) == without_times(undisturbed)
    assert 0 <= finished <= 60


# --- what a network is -------------------------------------------------------------------------------------------------


class Leaky:
    """A user's layer with an option and no arrays."""

    def __init__(self, slope):
        self.slope = slope

    def forward(self, x):
        self.x = x
        return np.where(x > 0, x, self.slope * x)

    def backward(self, y_grad):
        return np.where(self.x > 0, y_grad, self.slope * y_grad)


def leaky(slope):
    return lambda rng: Sequential((FullLayer(12, 5, np.float32, rng), Leaky(slope), FullLayer(5, 3, np.float32, rng),
                                   SoftMaxLayer()), loss=CrossEntropyLayer())


@pytest.mark.parametrize("other, words", [
    (0.5, r"network, layer 1, slope: 0.01 in the file, 0.5 now"),
    (np.float32(0.25), "slope: 0.01 in the file, 0.25 now"),
    (lambda x: x, "slope: 0.01 in the file"),
], ids=case)
def test_options_of_layers_are_part_of_the_network(tmp_path, other, words):
    path = tmp_path / "sweep.jsonl"
    few = dict(lrs=[0.1], seeds=1, epochs=1, resume=path)
    first = lr_sweep(**small(build=leaky(0.01), **few))
    assert_same(lr_sweep(**small(build=leaky(0.01), **few)), first)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=words):
        lr_sweep(**small(build=leaky(other), **few))
    assert path.read_bytes() == before


def test_functions_of_layers_are_told_apart_by_their_code(tmp_path):
    def activated(function):
        def with_function(rng):
            layer = Leaky(0.01)
            layer.activation = function
            return Sequential((FullLayer(12, 3, np.float32, rng), layer, SoftMaxLayer()), loss=CrossEntropyLayer())
        return with_function

    few = dict(lrs=[0.1], seeds=1, epochs=1, resume=tmp_path / "sweep.jsonl", validation=None, test=None)
    lr_sweep(**small(build=activated(lambda x: 2 * x), **few))
    lr_sweep(**small(build=activated(lambda x: 2 * x), **few))
    with pytest.raises(ValueError, match="layer 1, activation"):
        lr_sweep(**small(build=activated(lambda x: 3 * x), **few))


def test_another_version_of_the_package_is_refused(whole, monkeypatch):
    monkeypatch.setattr("fastnet.sweep.store.fingerprint.__version__", "99.9")
    with pytest.raises(ValueError, match=r'fastnet: ".*" in the file, "99.9" now'):
        lr_sweep(**small(resume=whole[1]))


# --- more of the same --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [
    {"seeds": 3}, {"seeds": [5, 1]}, {"lrs": [0.02, 0.1, 0.3, 1e4]}, {"epochs": 7}, {"batch_size": [8, 16]},
    {"momentum": [0.0, 0.9]}, {"build": {"": build, "b": network(12, 4, 3)}},
], ids=case)
def test_more_of_the_same_runs_what_is_missing(whole, tmp_path, more, monkeypatch):
    if "build" in more:
        more = {"build": {"a": build, "b": network(12, 4, 3)}}
    path = tmp_path / "sweep.jsonl"
    path.write_bytes(whole[1].read_bytes())
    ran = []
    monkeypatch.setattr("fastnet.sweep.run.session.Session._run",
                        lambda self, todo, *rest, run=Session._run: (ran.extend(todo), run(self, todo, *rest)))
    result = lr_sweep(**small(resume=path, **more))
    monkeypatch.undo()
    assert_same(result, lr_sweep(**small(**more)))
    assert len(ran) < result.finished or "build" in more  # the builder without a name is another one
    assert_same(lr_sweep(**small(resume=path, **more)), result)  # and from the file again
    assert_same(SweepResult.load(path), result)


@pytest.mark.parametrize("engine", ["gram", "fused", "windows", "layers"])
@pytest.mark.parametrize("options", [{}, {"shuffle": True, "momentum": 0.9}], ids=str)
def test_more_epochs_go_on_from_saved_states(tmp_path, engine, options, monkeypatch):
    path = tmp_path / "sweep.jsonl"
    options = dict(options, engine=engine, resume=path, keep_states=True)
    lr_sweep(**small(**options, epochs=3))
    assert (engine == "layers") != any((tmp_path / "sweep.jsonl.states").glob("*.npz"))
    epochs = []
    monkeypatch.setattr("fastnet.sweep.run.trial._Run.epochs", lambda self, engine, until, run=Run.epochs: (
        epochs.append(until - len(self.curves["loss"])), run(self, engine, until)))
    result = lr_sweep(**small(**options, epochs=5))
    assert set(epochs) == ({5} if engine == "layers" else {2})
    assert_same(result, lr_sweep(**small(**{**options, "resume": None, "keep_states": False}, epochs=5)))


def test_damaged_states_are_left_alone(tmp_path):
    path = tmp_path / "sweep.jsonl"
    options = dict(engine="gram", resume=path, keep_states=True)
    lr_sweep(**small(**options, epochs=3))
    for number, file in enumerate(sorted((tmp_path / "sweep.jsonl.states").glob("*.npz"))):
        file.write_bytes([b"", b"no", file.read_bytes()[:-100]][number % 3])
    assert_same(lr_sweep(**small(**options, epochs=5)), lr_sweep(**small(engine="gram", epochs=5)))


def test_a_schedule_that_changed_is_refused(tmp_path):
    path = tmp_path / "sweep.jsonl"
    lr_sweep(**small(schedule="cosine", resume=path))
    with pytest.raises(ValueError, match="schedule 'cosine': "):
        lr_sweep(**small(schedule="cosine", epochs=8, resume=path))


def test_a_result_without_data_or_networks(whole):
    result, path = whole
    loaded = SweepResult.load(path)
    assert_same(loaded, result)
    assert loaded.suggestion() == result.suggestion() and repr(loaded) == repr(result)
    loaded.plot()
    with pytest.raises(ValueError, match=r"has no data and no networks\. Call lr_sweep"):
        loaded.best_model()


@pytest.mark.parametrize("content", [b"", b"my thesis\n", b'{"fastnet_sweep": 1}\n'], ids=repr)
def test_other_files_are_not_loaded(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match="is not a file of lr_sweep"):
        SweepResult.load(tmp_path / "file")


def test_a_file_that_cannot_be_sorted_is_no_failure(whole, tmp_path, monkeypatch):
    result, path = whole
    head, asked, *trials = path.read_bytes().splitlines(keepends=True)
    mixed = tmp_path / "sweep.jsonl"
    mixed.write_bytes(head + asked + b"".join(trials[1:][::-1]))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(RuntimeWarning, match="holds all trials, in the order in which they ended"):
        assert_same(lr_sweep(**small(resume=mixed)), result)
    monkeypatch.undo()
    assert not list(tmp_path.glob("*.new")) and len(trial_lines(mixed)) == 6


@pytest.mark.parametrize("content", [b"a,b\n1,2\n3,4", None], ids=["a table", "another sweep"])
def test_a_file_of_something_else_keeps_its_last_line(tmp_path, content):
    path = tmp_path / "sweep.jsonl"
    if content is None:
        lr_sweep(**small(resume=path, diverged_above=3))
        content = path.read_bytes()[:-9]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"not a file of|of another sweep"):
        lr_sweep(**small(resume=path))
    assert path.read_bytes() == content
