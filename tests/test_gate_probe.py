"""Real processes of the gate: names, markers, turns, work that is not done in every call, and one whole comparison."""
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("pytest_benchmark")

from fastnet.gate import addresses, arguments, command, compare, runs, turns
from fastnet.gate.environment import Side
from fastnet.gate.judge import Plan
from fastnet.gate.runs import Settings, Where

CLOCK = """
_now = 0.0
_calls = 0


def clock():
    global _now
    _now += 1e-9
    return _now


def work(seconds=1e-3):
    global _now
    _now += seconds


def every_second():
    global _calls
    _calls += 1
    work(1e-3 if _calls % 2 else {slow})
"""
BENCHMARKS = """
import me, pytest
pytestmark = pytest.mark.benchmark(timer=me.clock)
def test_steady(benchmark): benchmark(me.work)
def test_sometimes(benchmark): benchmark(me.every_second)
"""


@pytest.fixture
def process(tmp_path):
    """Returns a function: runs this file of benchmarks in a process of the gate, or in several that take turns."""
    def run(text, sides=("head",), number=1, **settings):
        made = []
        for name in sides:
            tree = tmp_path / name / "tree"
            tree.mkdir(parents=True, exist_ok=True)
            (tree / "test_x.py").write_text(text)
            made.append(Side(name, name, "0" * 40, tree, tree, Path(sys.executable), tmp_path / name / "caches"))
        where = Where(tmp_path / "elsewhere", ("test_x.py",))
        chosen = replace(Settings(seconds=0.002), **settings)
        if len(made) == 1:
            return runs.run(made[0], where, chosen, 1)
        collected = runs.run(made[0], where, chosen, 1, collect_only=True)
        return runs.run_round(made, where, chosen, number, collected.names)
    return run


def test_names_are_the_same_in_every_process(process):
    text = ("import os, pytest\nclass Thing:\n    pass\n"
            "@pytest.mark.parametrize('thing', [Thing(), Thing()], ids=repr)\ndef test_a(benchmark, thing): benchmark(len, 'a')\n"
            "@pytest.mark.parametrize('place', [os.path.dirname(os.path.abspath(__file__))])\ndef test_b(benchmark, place): benchmark(len, 'a')\n")
    first, second = process(text, ("base",)), process(text, ("head",))
    assert first.names == second.names == ("test_x.py::test_a[<test_x.Thing object at 0x>]", "test_x.py::test_a[<test_x.Thing object at 0x>]#2",
                                           "test_x.py::test_b[]")
    assert first.times.keys() == set(first.names)


def test_a_marker_makes_a_benchmark_where_the_project_uses_codspeed(process):
    text = ("import pytest, time\n@pytest.fixture\ndef pause(): return 0.002\n"
            "@pytest.mark.benchmark\ndef test_marked(pause): time.sleep(pause)\n"
            "@pytest.mark.benchmark(group='x')\ndef test_both(benchmark): benchmark(len, 'a')\ndef test_plain(): pass\n")
    found = process(text, marked=True)
    assert found.names == ("test_x.py::test_marked", "test_x.py::test_both")
    assert found.times["test_x.py::test_marked"]["min"] > 0.0019
    assert process(text).names == ("test_x.py::test_both",)


def test_a_strict_configuration_allows_the_marks_and_settings_of_plugins_that_are_not_loaded(process, tmp_path):
    (tmp_path / "head" / "tree").mkdir(parents=True)
    (tmp_path / "head" / "tree" / "pytest.ini").write_text(
        "[pytest]\nstrict = true\nstrict_markers = true\nstrict_config = true\naddopts = --strict-markers --strict-config\n"
        "timeout = 30\nasyncio_mode = auto\n")
    found = process("import pytest\n@pytest.mark.timeout(30)\ndef test_a(benchmark): benchmark(len, 'a')\n")
    assert list(found.times) == ["test_x.py::test_a"] and not found.failed


def test_a_marked_coroutine_is_not_timed_without_a_plugin_that_runs_it(process):
    found = process("import pytest\n@pytest.mark.benchmark\nasync def test_a(): pass\n", marked=True)
    said = {**found.failed, **found.skipped}["test_x.py::test_a"]
    assert not found.times and compare._NO_PLUGIN.search(said), "a call would only make a coroutine, in the same time on all sides"


def test_the_typical_sample_sees_what_the_fastest_does_not(process, tmp_path):
    for name, slow in (("base", 1e-3), ("head", 3e-3)):
        (tmp_path / name / "tree").mkdir(parents=True)
        (tmp_path / name / "tree" / "me.py").write_text(CLOCK.format(slow=slow))
    base, head = (process(BENCHMARKS, (name,), seconds=0.05).times["test_x.py::test_sometimes"] for name in ("base", "head"))
    assert head["fast"] == pytest.approx(base["fast"], rel=1e-3)
    assert head["typical"] > 1.4 * base["typical"]


def test_a_process_that_takes_long_says_where_it_is(process, monkeypatch, capsys):
    monkeypatch.setattr(runs, "_LONG", 0.0)
    text = "import time\ndef test_quick(benchmark): benchmark(len, 'a')\ndef test_slow(benchmark): benchmark(time.sleep, 60)\n"
    with pytest.raises(runs.GateError, match=r"head was stopped after 5 s in test_x.py::test_slow: choose fewer"):
        process(text, timeout=5.0)
    assert "head has run for 0 s and is before its first benchmark; --exclude" in capsys.readouterr().err


# --- turns ----------------------------------------------------------------------------------------------------------

needs_turns = pytest.mark.skipif(not turns.POSSIBLE, reason="a child cannot inherit a socket here")
LOG = """
import os, time
def test_a(benchmark):
    def work():
        with open({log!r}, "a") as file: file.write("(")
        time.sleep(0.003)
        with open({log!r}, "a") as file: file.write(")")
    benchmark.pedantic(work, rounds=6)
"""


@needs_turns
def test_one_process_computes_at_a_time_and_each_has_its_turns(process, tmp_path):
    found = process(LOG.format(log=str(tmp_path / "log")), ("base", "head", "same"))
    text = (tmp_path / "log").read_text()
    assert text == "()" * (len(text) // 2) and len(text) >= 2 * 3 * 6
    assert all(run.times["test_x.py::test_a"]["min"] > 0.0029 for run in found.values())


@needs_turns
def test_the_sides_of_a_round_share_their_addresses(process):
    with addresses.shared() as works:
        pass
    if not works:
        pytest.skip("this system does not let a process have the addresses of another")
    text = ("import mmap, ctypes\ndef test_a(benchmark):\n    benchmark(len, 'a')\n    mapped = mmap.mmap(-1, 1 << 24)\n"
            "    place = ctypes.addressof(ctypes.c_char.from_buffer(mapped))\n    benchmark.extra_info['counts'] = {'place': place}\n")
    found = [{name: run.counts["test_x.py::test_a"]["place"] for name, run in process(text, ("base", "head", "same"), number=number).items()}
             for number in (1, 2)]
    assert all(len(set(round_.values())) == 1 for round_ in found) and found[0] != found[1]


@needs_turns
def test_the_others_go_on_when_a_process_dies(process):
    text = "import os\ndef test_a(benchmark):\n    if 'head' in __file__: os._exit(1)\n    benchmark(len, 'a')\n"
    with pytest.raises(runs.GateError, match="pytest ended with 1 on head"):
        process(text, ("base", "head", "same"))
    with pytest.raises(runs.GateError, match="pytest ended with 3 on head"):  # before its first turn
        process("import os\nif 'head' in __file__ and 'FASTNET_GATE_TURNS' in os.environ: os._exit(3)\ndef test_a(benchmark): benchmark(len, 'a')\n",
                ("base", "head", "same"))


@needs_turns
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_process_that_a_benchmark_forked_does_not_keep_the_turn(process):
    """It lives on for longer than the others may wait, and holds a copy of the socket."""
    text = ("import os, time\ndef test_a(benchmark):\n    if os.fork() == 0:\n        time.sleep(30)\n        os._exit(0)\n    benchmark(len, 'a')\n")
    found = process(text, ("base", "head", "same"), timeout=25.0)
    assert all(run.times for run in found.values())


@needs_turns
def test_turns_go_round():
    """Three children that ask for five turns each: nobody gets a second one before all have had the first."""
    names, order = ["a", "b", "c"], []
    game = turns.Turns(names, 0)
    ends = {name: socket.socket(fileno=os.dup(game.descriptor(name))) for name in names}
    game.start()
    import threading

    def play(name):
        for _ in range(5):
            ends[name].sendall(b"y")
            ends[name].recv(1)
            order.append(name)
        ends[name].close()
    players = [threading.Thread(target=play, args=(name,)) for name in names]
    for one in players:
        one.start()
    for one in players:
        one.join()
    game.join()
    assert all(sorted(order[3 * number:3 * number + 3]) == names for number in range(5))


# --- a whole comparison ---------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Returns a function that commits these files, and one that compares with the first commit."""
    top = tmp_path / "project"
    top.mkdir()
    monkeypatch.setattr(arguments, "plan", lambda args: Plan(error=1.0, rounds=6))

    def git(*words):
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *words], cwd=top, check=True, capture_output=True)

    def commit(files):
        for path, text in files.items():
            (top / path).parent.mkdir(parents=True, exist_ok=True)
            (top / path).write_text(text)
        if not (top / ".git").exists():
            git("init", "--quiet")
            git("add", "--all")
            git("commit", "--quiet", "--message", "first")
            git("tag", "first")

    def compare(*options):
        out = tmp_path / "out.json"
        code = command.main(["first", "--repo", str(top), "--env", "current", "--seconds", "0.01", "--no-memory", "--json", str(out), *options])
        return code, json.loads(out.read_text())
    return commit, compare


def test_a_comparison_judges_each_kind_of_change(project, capsys):
    commit, compare = project
    commit({"me.py": CLOCK.format(slow=1e-3), "test_x.py": BENCHMARKS + "def test_gone(benchmark): benchmark(me.work)\n"
                                                                        "def test_old(benchmark): benchmark(lambda: me.work(0.002))\n"})
    commit({"me.py": CLOCK.format(slow=3e-3), "test_x.py": BENCHMARKS + "def test_new(benchmark): benchmark(lambda: me.work(0.002))\n"})
    code, table = compare("--allow-removed", "--exclude", "steady")
    rows = {row["name"]: row["verdict"] for row in table["rows"]}
    assert (code, rows) == (1, {"test_x.py::test_sometimes": "regressed", "test_x.py::test_new": "ok"})
    assert table["removed"] == ["test_x.py::test_gone"] and any("test_old` is now called" in note for note in table["notes"])
    err = capsys.readouterr().err
    assert "a round takes about" in err and "a quiet machine needs" in err


def test_code_that_stands_in_the_benchmark_file_is_not_called_ok(project):
    commit, compare = project
    own = "def sums(n):\n    return sum(range(n))\n\ndef test_sums(benchmark):\n    benchmark(sums, {})\n"
    commit({"test_x.py": own.format(100)})
    commit({"test_x.py": own.format(100).replace("sum(range(n))", "sum(range(31 * n))")})
    code, table = compare()
    assert code == 2 and "times code of its own file, in which sums changed" in table["problems"][0]


def test_importing_the_package_is_timed_without_any_benchmark(project):
    commit, compare = project
    commit({"pyproject.toml": "[project]\nname = 'slowly'\n", "slowly/__init__.py": ""})
    commit({"slowly/__init__.py": "import time\ntime.sleep(0.05)\n"})
    code, table = compare("--import")
    assert code == 1 and table["rows"][0]["name"] == "fastnet_gate_import.py::test_import_slowly"
    assert table["rows"][0]["head_seconds"] > 0.04  # clocks differ in the last digits
