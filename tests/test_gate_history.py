"""A range of revisions: curves with a shared baseline, steps, slowdowns that creep, and the search for a step's commit."""
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fastnet.gate import GateError, arguments, command, compare, discover, history, judge, record, render
from fastnet.gate.environment import Recipe, Side
from fastnet.gate.history import Curve, Found, Point, Walk
from fastnet.gate.judge import Plan
from fastnet.gate.prepare import Prepared
from fastnet.gate.runs import Run, Settings, Where
from fastnet.gate.statistics import Estimate

A = "bench/bench_a.py::test_a"
ORDER = ("base", "r001", "r002", "r003", "head")


@pytest.fixture
def measured(monkeypatch):
    """Returns a function: the curve of one benchmark whose costs by revision are given, on a machine that drifts."""
    def measure(costs, same=1.0, lacks=()):
        rng = np.random.default_rng(0)
        cost = dict(zip(ORDER, costs)) | {"same": same}

        def run(side, where, settings, number, names=None, metrics=(), **_):
            noise = (1 + 0.6 * np.sin(number)) * rng.normal(1, 0.002)
            return Run({} if side.name in lacks else {A: dict.fromkeys(("min", "fast", "typical"), 1e-3 * cost[side.name] * noise)}, names=(A,))

        monkeypatch.setattr(history, "run", run)
        monkeypatch.setattr(compare, "run_round", lambda sides, where, settings, number, names: {
            side.name: run(side, where, settings, number, names) for side in sides})
        sides = {name: Side(name, name, f"commit {name}", Path(), Path(), Path(), Path()) for name in (*ORDER, "same")}
        found = discover.Found(".", ("bench/bench_a.py",), ("bench",), False)
        prepared = Prepared(Where(Path(), found.files), found, sides, {name: Run({}, names=(A,)) for name in sides}, Settings())
        walk = Walk(Path(), ".", None, Recipe(), Settings(), Plan(), 0, Path("none.toml"), lambda text: None)
        return history._measured(walk, prepared, ORDER)[0]

    return measure


@pytest.mark.parametrize(("costs", "steps", "verdict", "note"), [
    ((1, 1, 1, 1, 1), [], judge.OK, ""),
    ((1, 1, 1.2, 1.2, 1.2), [2], judge.REGRESSED, ""),
    ((1, 1.2, 1.2, 1, 1), [1], judge.OK, ""),  # slower for a while, and well again
    ((1, 1.03, 1.06, 1.09, 1.12), [], judge.REGRESSED, "several slowdowns in a row, each below the limit"),
])
def test_steps_and_creeping_slowdowns(measured, costs, steps, verdict, note):
    curve = measured(costs)
    assert (curve.steps, curve.verdict, curve.note) == (steps, verdict, note)
    assert [point.estimate.ratio for point in curve.points] == pytest.approx(costs, rel=0.01)


def test_a_noisy_machine_is_inconclusive(measured):
    assert measured((1, 1, 1, 1, 1.2), same=1.2).verdict == judge.INCONCLUSIVE


def test_a_revision_that_cannot_run_is_left_out(measured):
    curve = measured((1, 1, 1.2, 1.2, 1.2), lacks=["r002"])
    assert [point.side for point in curve.points] == ["base", "r001", "r003", "head"] and curve.steps == [2]


@pytest.mark.parametrize("guilty", range(1, 9))
def test_bisect_finds_the_commit(monkeypatch, guilty):
    commits = [f"c{number}" for number in range(9)]
    monkeypatch.setattr(history.repository, "commits_between",
                        lambda repo, old, new: commits[commits.index(old) + 1:commits.index(new) + 1])
    monkeypatch.setattr(history.repository, "subject", lambda repo, commit: f"subject of {commit}")
    asked = []

    def curves(self, old, middle, new):
        asked.append(middle[0])
        slow = int(middle[0][1:]) >= guilty
        points = [Point("x", commit, Estimate(1, 1, 1, 7)) for commit in (old, *middle, new)]
        return [Curve(A, 0.05, points, [1 if slow else 2], judge.REGRESSED)]

    monkeypatch.setattr(Walk, "curves", curves)
    walk = Walk(Path(), ".", None, Recipe(), Settings(), Plan(), 0, None, lambda text: None)
    step = Curve(A, 0.05, [Point("base", "c0", Estimate(1, 1, 1, 7)), Point("head", "c8", Estimate(1.2, 1.1, 1.3, 7))], [1], "")
    assert walk.bisect(step, 1) == Found(A, f"c{guilty}", f"subject of c{guilty}")
    assert len(asked) == 3


def test_points_are_spread_evenly_and_hold_the_last():
    commits = [str(number) for number in range(20)]
    assert history.choose(commits, 4) == ["4", "9", "14", "19"]
    assert history.choose(commits, 99) == commits
    assert history.choose(["a"], 5) == ["a"]


@pytest.fixture
def repository(tmp_path):
    """Three commits; the last one is 20 % slower, on a clock that the code moves."""
    def git(*words):
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *words], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "bench").mkdir()
    git("init", "--quiet")
    (tmp_path / "bench" / "bench_a.py").write_text(
        "import code_under_test as me, pytest\n@pytest.mark.benchmark(timer=me.clock)\ndef test_a(benchmark): benchmark(me.work)\n")
    for number, cost in enumerate((1e-3, 1e-3, 1.2e-3)):
        (tmp_path / "code_under_test.py").write_text(
            f"now = 0.0\ndef clock():\n    global now\n    now += 1e-9\n    return now\ndef work():\n    global now\n    now += {cost}  # {number}\n")
        git("add", "--all")
        git("commit", "--quiet", "--message", f"commit {number}")
        git("tag", f"v{number}")
    return tmp_path


def test_the_command_walks_a_range(repository, tmp_path, monkeypatch, capsys):
    pytest.importorskip("pytest_benchmark")
    monkeypatch.setattr(arguments, "plan", lambda args: Plan(error=0.9))
    code = command.main(["--range", "v0..v2", "--repo", str(repository), "--env", "current", "--seconds", "0.01",
                         "--bisect", "--plot", str(tmp_path / "curves.png"), "--json", str(tmp_path / "out.json")])
    said = capsys.readouterr().out
    assert code == 1 and "commit 2" in said.split("became slower at")[1].splitlines()[0]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "out.json").read_text())["found"][0]["note"].endswith("commit 2")


@pytest.mark.parametrize(("span", "message"), [("v0", "expected two revisions"), ("v0...v2", "expected two revisions"),
                                               ("v2..v0", "holds no commit"), ("v0..v9", "is no revision")])
def test_bad_ranges(repository, span, message):
    args = command.parser("x").parse_args(["--range", span, "--repo", str(repository)])
    with pytest.raises(GateError, match=message):
        history.walk(args, print)


# --- the record -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("levels", "expected"), [
    ([0.0] * 20, []), ([0.0] * 10 + [0.2] * 10, [10]), ([0.0] * 8 + [0.2] * 8 + [-0.1] * 8, [8, 16]), ([0.0, 0.5], []), ([], [])])
def test_change_points(levels, expected):
    noise = np.random.default_rng(0).normal(0, 0.02, len(levels))
    assert record.change_points(levels) == expected
    assert record.change_points(levels + noise) == expected


def test_noise_alone_rarely_has_a_change_point():
    rng = np.random.default_rng(1)
    assert sum(bool(record.change_points(rng.normal(0, 0.1, 20))) for _ in range(40)) <= 2


def test_a_record_chains_ratios_and_is_drawn(repository, tmp_path, capsys):
    commits = [history.repository.find_commit(repository, f"v{number}") for number in range(3)]
    for number, (base, head, ratio, seconds) in enumerate([(0, 1, 1.0, 1e-3), (1, 2, 1.2, 5e-3)]):
        rows = [judge.Row(A, seconds, Estimate(ratio, ratio, ratio, 12), Estimate(1, 1, 1, 12), 0.05, judge.OK)]
        said = record.record(Path(".benchmarks/history.jsonl"), repository, render.Result(rows), commits[base], commits[head])
        assert "recorded in" in said, number
    file = repository / ".benchmarks" / "history.jsonl"
    assert "not recorded" in record.record(file, repository, render.Result(rows), commits[0], "0" * 40)
    git = ["git", "status", "--porcelain"]
    assert not subprocess.run(git, cwd=repository, capture_output=True, text=True).stdout, "git ignores the record"
    (series,) = record.read(file)
    assert series.levels == pytest.approx([1, 1, 1.2]) and series.commits == commits
    assert command.main(["--history", str(file), "--plot", str(tmp_path / "record.png")]) == 0
    assert "| 3 | +20.0 % | none |" in capsys.readouterr().out and (tmp_path / "record.png").stat().st_size > 1000
    file.write_text("[]")
    assert command.main(["--history", str(file)]) == 2 and "is not a record" in capsys.readouterr().err
    assert command.main(["--history", str(tmp_path / "none")]) == 2
