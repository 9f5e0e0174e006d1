"""The file that a sweep is resumed from: killed, torn, of another sweep, in use, not ours."""
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from fastnet.sweep import SweepError, lr_sweep
from fastnet.sweep.journal import Journal
from tests.sweeps import assert_same, build, network, small, without_times

KILLS = int(os.environ.get("FASTNET_KILLS", 3))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed sweep and its file."""
    path = tmp_path_factory.mktemp("whole") / "sweep.jsonl"
    return lr_sweep(**small(resume=path)), path


def test_the_file_has_a_line_for_each_trial(whole):
    result, path = whole
    head, *trials = without_times(path)
    assert head["lrs"] == list(result.lrs) and head["epochs"] == 4 and len(trials) == result.finished
    assert [(t["seed"], t["lr"]) for t in trials] == [(seed, lr) for seed in result.seeds for lr in result.lrs]
    assert trials[2]["losses"] == ["inf"] or trials[2]["losses"] == ["nan"] or trials[2]["losses"][0] > 10


def test_nothing_is_run_twice(whole, monkeypatch):
    result, path = whole
    before = path.read_bytes()
    monkeypatch.setattr("fastnet.sweep.run._run", lambda *_: pytest.fail("a finished trial ran again"))
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
    head, *trials = path.read_bytes().splitlines(keepends=True)
    mixed = tmp_path / "sweep.jsonl"
    mixed.write_bytes(head + b"".join(trials[1:][::-1]))
    lr_sweep(**small(resume=mixed))
    assert without_times(mixed) == without_times(path)
    assert not list(tmp_path.glob("*.new"))


@pytest.mark.parametrize("change, words", [
    ({"epochs": 5}, "epochs: 4 in the file, 5 now"),
    ({"lrs": [0.1]}, r"lrs: \[0.02, 0.3, 10000.0\] in the file, \[0.1\] now"),
    ({"seeds": 3}, r"seeds: \[0, 1\] in the file, \[0, 1, 2\] now"),
    ({"batch_size": 8}, "batch_size"),
    ({"engine": "layers"}, 'engine: "auto" in the file, "layers" now'),
    ({"momentum": 0.5}, "momentum"),
    ({"shuffle": True}, "shuffle"),
    ({"diverged_above": np.inf}, 'diverged_above: 10.0 in the file, "inf" now'),
    ({"build": network(12, 18, 3)}, "network"),
    ({"build": {"a": build}}, "builders"),
    ({"validation": None}, "validation"),
    ({"x": small()["x"] + 1}, "x: .* in the file, .* now"),
    ({"y": small()["y"][::-1]}, "y: "),
], ids=str)
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
    for damaged in (b"\x00" * 20 + b"\n", b'{"name": ""}\n', b"3\n", b"\n"):
        path.write_bytes(b"".join([lines[0], damaged, *lines[2:]]))
        with pytest.raises(ValueError, match=r"line 2 of .* is damaged"):
            lr_sweep(**small(resume=path))


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        lr_sweep(**small(resume=tmp_path / "no" / "sweep.jsonl"))


def test_a_second_sweep_on_the_same_file_is_refused(whole, tmp_path):
    _, path = whole
    mark = json.loads(path.read_text().splitlines()[0])
    journal = Journal(path, mark)
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
    journal = Journal(path, json.loads(path.read_text().splitlines()[0]))
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
        return write(file, line if len(calls) < 4 else line[:10])

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(SweepError, match="could be written"):
        lr_sweep(**small(resume=full))
    monkeypatch.undo()
    assert full.read_bytes().endswith(b"\n") and len(without_times(full)) == 4 - 1
    assert_same(lr_sweep(**small(resume=full)), result)


def test_the_engine_of_the_file_goes_on(whole, tmp_path):
    lines = whole[1].read_text().splitlines(keepends=True)
    path = tmp_path / "sweep.jsonl"
    for engine in ("layers", "fused", "gram", "windows"):
        path.write_text(lines[0].replace(f'"engines": {json.dumps(whole[0].engines)}', f'"engines": {{"": "{engine}"}}'))
        assert lr_sweep(**small(resume=path)).engines == {"": engine}
        assert {line.get("engine") for line in without_times(path)[1:]} == {engine}


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
    finished = len(killed.read_bytes().splitlines()) - 1
    lr_sweep(**eval(f"small(resume=killed, {LONG})"))
    lr_sweep(**eval(f"small(resume=undisturbed, {LONG})"))
    assert without_times(killed) == without_times(undisturbed)
    assert 0 <= finished <= 60
