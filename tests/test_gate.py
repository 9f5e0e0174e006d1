"""The regression gate's statistics, verdicts and messages, on made-up numbers: nothing is timed here."""
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.studies import power
from fastnet.gate import GateError, command, compare, environment, instructions, judge, render, runs
from fastnet.gate import repository as repositories
from fastnet.gate.compare import SIDES, Prepared
from fastnet.gate.environment import Recipe, Side
from fastnet.gate.limits import Limits, read_limits
from fastnet.gate.pairing import pair
from fastnet.gate.runs import Run, Settings
from fastnet.gate.statistics import Estimate, paired_ratio

A, B = "bench/bench_a.py::test_a", "bench/bench_b.py::test_b[16-float32]"


@pytest.fixture
def scipy():
    pytest.importorskip("scipy", reason="the interval needs SciPy: pip install -e .[bench]")


@pytest.fixture
def repository(tmp_path):
    """Two commits, of which the second renames a benchmark."""
    def git(*arguments):
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *arguments], cwd=tmp_path,
                       check=True, capture_output=True)

    (tmp_path / "bench").mkdir()
    git("init", "--quiet")
    for name in ("old", "new"):
        (tmp_path / "subject.py").write_text(f"NAME = {name!r}\n")
        (tmp_path / "bench" / "bench_a.py").write_text(f"def test_{name}(benchmark):\n    benchmark(len, 'a')\n")
        git("add", "--all")
        git("commit", "--quiet", "--message", name)
        git("tag", name)
    return tmp_path


def steady(ratio, width=0.01):
    return Estimate(ratio, ratio - width, ratio + width, 7)


# --- judge ----------------------------------------------------------------------------------------------------------

EQUAL, SLOW = steady(1.0), steady(1.15)


@pytest.mark.parametrize(("head", "same", "verdict"), [
    ([EQUAL], [EQUAL], judge.OK),
    ([SLOW, SLOW], [EQUAL, EQUAL], judge.REGRESSED),
    ([SLOW, EQUAL], [EQUAL, EQUAL], judge.OK),  # the second batch does not confirm
    ([SLOW, SLOW], [SLOW, EQUAL], judge.REGRESSED),  # the base is slower than itself once: it can happen
    ([SLOW, SLOW], [SLOW, SLOW], judge.INCONCLUSIVE),
    ([EQUAL, EQUAL], [SLOW, SLOW], judge.INCONCLUSIVE),
    ([steady(1.04), steady(1.04)], [EQUAL, EQUAL], judge.OK),  # sure, but within the limit
    ([steady(1.15, 0.2), steady(1.15, 0.2)], [EQUAL, EQUAL], judge.OK),  # past it, but not sure
    ([steady(0.5)], [EQUAL], judge.OK),
    ([steady(0.86), steady(0.86)], [EQUAL, EQUAL], judge.FASTER),
    ([steady(0.86), EQUAL], [EQUAL, EQUAL], judge.OK),
    ([steady(0.86), steady(0.86)], [steady(0.86), steady(0.86)], judge.OK),  # as if the base were faster than itself
    ([steady(0.86), steady(0.86, 0.2)], [EQUAL, EQUAL], judge.OK),
])
def test_verdict(head, same, verdict):
    batches = [judge.Arms(*both) for both in zip(head, same, strict=True)]
    assert judge.judge(A, 1.0, 1.0, 0.05, batches).verdict == verdict


@pytest.mark.parametrize(("ratio", "least", "most"), [(1.0, 0, 1), (1.15, 36, 40)])
def test_of_40_noisy_comparisons(ratio, least, most, scipy):
    """Processes vary by 3 %, and one in ten meets a neighbour that makes it half as fast again."""
    rng = np.random.default_rng(2)

    def times(rounds, factor=1.0):
        return factor * rng.lognormal(0, 0.03, rounds) * np.where(rng.random(rounds) < 0.1, 1.5, 1)

    def arms(rounds):
        base = times(rounds)
        return judge.Arms(paired_ratio(base, times(rounds, ratio)), paired_ratio(base, times(rounds)))

    found = [judge.judge(A, 1.0, 1.0, 0.05, [arms(7), arms(14)]).verdict for _ in range(40)]
    assert least <= found.count(judge.REGRESSED) <= most


@pytest.mark.parametrize(("verdicts", "count", "problems", "expected"), [
    ([], judge.OK, [], judge.OK),
    ([judge.OK, judge.REGRESSED], judge.OK, [], judge.REGRESSED),
    ([judge.INCONCLUSIVE, judge.REGRESSED], judge.OK, [], judge.INCONCLUSIVE),
    ([judge.OK], judge.OK, ["broken on head"], judge.INCONCLUSIVE),
    ([judge.OK, judge.FASTER], judge.OK, [], judge.OK),
    ([judge.OK, judge.REGRESSED], judge.OK, ["broken on head"], judge.REGRESSED),
    ([judge.INCONCLUSIVE], judge.REGRESSED, [], judge.REGRESSED),  # counts do not depend on the noise
])
def test_overall_verdict(verdicts, count, problems, expected):
    rows = [judge.Row(A, 1.0, 1.0, 0.05, (), verdict) for verdict in verdicts]
    counts = [judge.CountRow(A, "modules", 1, 2, 0, count)]
    assert judge.overall(rows, counts, problems) == expected


@pytest.mark.parametrize(("base", "head", "limit", "verdict"), [
    ([5, 5], [5, 5], 0, judge.OK), ([5, 5], [6, 6], 0, judge.REGRESSED), ([5, 5], [4, 4], 0, judge.OK),
    ([5, 6], [6, 6], 0, judge.OK), ([100, 100], [102, 102], 0.02, judge.OK),
])
def test_counts(base, head, limit, verdict):
    assert judge.judge_count(A, "modules", base, head, limit).verdict == verdict


def test_every_side_is_in_every_place_equally_often():
    order = compare.orders(SIDES, 12, np.random.default_rng(0))
    for place in range(3):
        assert sorted(round_[place] for round_ in order) == sorted(SIDES * 4)
    assert order != compare.orders(SIDES, 12, np.random.default_rng(1))
    assert len(compare.orders(SIDES, 7, np.random.default_rng(0))) == 7


# --- a whole comparison, with processes that are made up ------------------------------------------------------------


@pytest.fixture
def compared(monkeypatch, scipy):
    """Returns a function: compares with ``times(side, batch) -> {name: seconds}``, on a machine that drifts."""
    def compare_with(times, limits=None, counts=None, failed=None, own=None, metrics=None, wanted=(), **options):
        rng = np.random.default_rng(0)
        calls = dict.fromkeys(SIDES, 0)

        def run(side, repository, path, settings, number, names=None):
            batch = (calls[side.name] + 6) // 7  # 0 is the warm-up
            calls[side.name] += 1
            drift = 1 + 0.6 * np.sin(number)  # the same within a round
            chosen = {name: time for name, time in times(side.name, batch).items() if names is None or name in names}
            measured = {name: time * drift * rng.normal(1, 0.002) for name, time in chosen.items()}
            why = (failed or {}).get(side.name, {})
            return Run(measured, {A: counts[side.name]} if counts else {}, {A: metrics(side.name, number)} if metrics else {},
                       why, names=tuple(sorted({*measured, *(name for name in why if "::" in name)})))

        monkeypatch.setattr(compare, "run", lambda *given, metrics=(), **named: run(*given, **named))
        sides = {name: Side(name, name, "0" * 40, Path(), Path(), Path(), Path(), {"numpy": "2.0"}) for name in SIDES}
        base = Run({}, names=tuple(own if own is not None else times("base", 0)))
        prepared = Prepared(Path(), "bench", sides, {"base": base, "same": base})
        return compare.compare(prepared, limits or Limits(), seed=0, metrics=wanted, **options)

    return compare_with


def verdicts(result):
    return {row.name: row.verdict for row in result.rows}


def test_drift_alone_is_ok(compared):
    result = compared(lambda side, batch: {A: 1e-3, B: 2e-3})
    assert (result.verdict, result.exit_code) == (judge.OK, 0)
    assert verdicts(result) == {A: judge.OK, B: judge.OK}
    assert all(len(row.batches) == 1 for row in result.rows)


def test_a_slower_benchmark_is_found(compared):
    result = compared(lambda side, batch: {A: 1e-3, B: 2.3e-3 if side == "head" else 2e-3})
    assert (result.verdict, result.exit_code) == (judge.REGRESSED, 1)
    assert verdicts(result) == {A: judge.OK, B: judge.REGRESSED}
    slow = next(row for row in result.rows if row.name == B)
    assert [batch.head.ratio for batch in slow.batches] == pytest.approx([1.15, 1.15], rel=0.01)
    text = render.to_markdown(result)
    assert "Benchmarks: regressed" in text and "+15." in text and f"`{B}`" in text
    assert json.loads(json.dumps(render.to_json(result)))["exit_code"] == 1


def test_what_the_second_batch_does_not_confirm_is_ok(compared):
    result = compared(lambda side, batch: {A: 1.5e-3 if side == "head" and batch == 1 else 1e-3})
    assert result.verdict == judge.OK
    assert "not confirmed" in render.to_markdown(result)


def test_a_base_slower_than_itself_is_inconclusive(compared):
    result = compared(lambda side, batch: {A: 1e-3 if side == "base" else 1.2e-3})
    assert (result.verdict, result.exit_code) == (judge.INCONCLUSIVE, 2)
    assert "too noisy" in render.to_markdown(result)


def test_each_benchmark_has_its_own_limit(compared):
    def slower(side, batch):
        return {A: 1.15e-3 if side == "head" else 1e-3, B: 1.15e-3 if side == "head" else 1e-3}
    assert verdicts(compared(slower, Limits(benchmarks={"bench_b.py": 0.2}))) == {A: judge.REGRESSED, B: judge.OK}


BROKEN = {B: "ValueError: broken"}


@pytest.mark.parametrize(("head", "failed", "own", "said"), [
    ([A], {"head": BROKEN}, [A, B], f"`{B}` runs on base but fails on head: ValueError: broken"),
    ([A, B], {"base": BROKEN}, [A, B], f"`{B}` runs on head but fails on base: ValueError: broken"),
    ([A], {"base": BROKEN, "head": BROKEN}, [A, B], f"`{B}` fails on both sides: ValueError: broken"),
    ([A], {"head": BROKEN}, [A], f"`{B}` fails on head: ValueError: broken"),
    ([A], {"head": {"bench/bench_b.py": "SyntaxError"}}, [A, B], f"`{B}` its file cannot be collected on head: SyntaxError"),
])
def test_what_breaks_is_not_compared_and_no_pass(compared, head, failed, own, said):
    def times(side, batch):
        return dict.fromkeys(head if side == "head" else [name for name in own if name not in failed.get("base", {})], 1e-3)
    result = compared(times, failed=failed, own=own)
    assert (result.verdict, result.exit_code) == (judge.INCONCLUSIVE, 2)
    assert said in render.to_markdown(result) and "not compared" in render.headline(result)


def test_a_removed_benchmark_needs_leave(compared):
    def times(side, batch):
        return {A: 1e-3}
    result = compared(times, own=[A, B])
    assert (result.exit_code, result.removed) == (2, [B])
    text = render.to_markdown(result)
    assert "inconclusive (1 removed)" in text and f"- `{B}`" in text and "--allow-removed" in text
    assert compared(times, own=[A, B], allow_removed=True).exit_code == 0
    slow = compared(lambda side, batch: {A: 1.2e-3 if side == "head" else 1e-3}, own=[A, B])
    assert slow.exit_code == 1, "a regression is not hidden by what was removed"


def test_faster_is_said(compared):
    result = compared(lambda side, batch: {A: 0.86e-3 if side == "head" else 1e-3, B: 1e-3})
    assert (result.verdict, result.exit_code, result.moved) == (judge.OK, 0, True)
    assert "ok (1 faster)" in render.to_markdown(result) and verdicts(result) == {A: judge.FASTER, B: judge.OK}


def test_a_new_benchmark_is_only_noted(compared):
    result = compared(lambda side, batch: {A: 1e-3, B: 1e-3} if side == "head" else {A: 1e-3})
    assert result.verdict == judge.OK
    assert f"`{B}` is new" in render.to_markdown(result)


@pytest.mark.parametrize("side", ["base", "head"])
def test_no_benchmark_on_a_side(compared, side):
    with pytest.raises(GateError, match="SyntaxError"):
        compared(lambda name, batch: {} if name == side else {A: 1.0}, failed={side: {"bench/bench_a.py": "SyntaxError"}})


def test_no_common_benchmark(compared):
    with pytest.raises(GateError, match="no benchmark in common"):
        compared(lambda side, batch: {B if side == "head" else A: 1.0})


def test_skipped_benchmarks_are_noted_and_a_new_skip_is_no_pass():
    both = pair(Run({}, names=(A, B)), Run({A: 1.0}, skipped={B: "no GPU"}), Run({A: 1.0}, skipped={B: "no GPU"}, names=(A, B)))
    assert not both.missing and both.notes == [f"`{B}` is skipped: no GPU"]
    now = pair(Run({}, names=(A, B)), Run({A: 1.0, B: 1.0}), Run({A: 1.0}, skipped={B: "slow"}, names=(A, B)))
    assert now.missing == {B: "runs on base but is skipped on head: slow"}


@pytest.mark.parametrize(("metric", "base", "head", "again", "code"), [
    ("allocated", 1e6, 1.2e6, 1.2e6, 1), ("allocated", 1e6, 1.2e6, 1e6, 0), ("allocated", 1e6, 1.04e6, 1.04e6, 0),
    ("allocated", 1e3, 9e3, 9e3, 0), ("process", 1e8, 1.2e8, 1.2e8, 1), ("instructions", 1e7, 1.05e7, 1.05e7, 1),
    ("allocated", 1e6, 0.5e6, 0.5e6, 0),
])
def test_memory_and_instructions_have_limits(compared, metric, base, head, again, code):
    def metrics(side, number):
        return {metric: base if side != "head" else (head, again)[number == 1]}
    result = compared(lambda side, batch: {A: 1e-3}, metrics=metrics, wanted=[metric])
    assert result.exit_code == code
    text = render.to_markdown(result)
    assert ("needing more memory" in text) == bool(code) and render._METRICS[metric] in text


def test_more_of_what_is_counted_regresses_without_a_second_batch(compared):
    counts = {"base": {"modules": 5}, "head": {"modules": 6}, "same": {"modules": 5}}
    result = compared(lambda side, batch: {A: 1e-3}, counts=counts)
    assert (result.verdict, result.exit_code) == (judge.REGRESSED, 1)
    assert "| modules | 5 | 6 |" in render.to_markdown(result)


# --- two files ------------------------------------------------------------------------------------------------------


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write_file(name, times, machine="one", counts=None):
        benchmarks = [{"fullname": key, "stats": {"min": time, "median": 2 * time},
                       "extra_info": {"counts": counts} if counts else {}} for key, time in times.items()]
        Path(name).write_text(json.dumps({"machine_info": {"node": machine}, "benchmarks": benchmarks}))
        return name

    return write_file


def test_files_within_the_limits(write, capsys):
    code = command.main([write("a.json", {A: 1.0, B: 1.0}), write("b.json", {A: 1.04, B: 1.0}), "--json", "out.json",
                         "--markdown", "out.md"])
    assert code == 0
    assert json.loads(Path("out.json").read_text())["verdict"] == "ok"
    assert Path("out.md").read_text() == capsys.readouterr().out.removesuffix("\n")


def test_files_that_lack_a_benchmark(write, capsys):
    files = [write("a.json", {A: 1.0, B: 1.0}), write("b.json", {A: 1.0})]
    assert command.main(files) == 2 and "1 removed" in capsys.readouterr().out
    assert command.main([*files, "--allow-removed"]) == 0
    assert command.main(files[::-1]) == 0 and f"`{B}` is new" in capsys.readouterr().out


def test_one_process_a_side_accuses_nobody(write, capsys):
    assert command.main([write("a.json", {A: 1.0}), write("b.json", {A: 1.5})]) == 2
    assert "one process per side proves nothing" in capsys.readouterr().out


def test_files_with_counts(write):
    files = [write(f"{n}.json", {A: 1.0}, counts={"signatures": n}) for n in (3, 4)]
    assert command.main(files) == 1
    assert command.main(files[::-1]) == 0


def test_files_of_two_machines(write, capsys):
    assert command.main([write("a.json", {A: 1.0}), write("b.json", {A: 1.0}, machine="other")]) == 2
    assert "two machines" in capsys.readouterr().out


@pytest.mark.parametrize(("text", "message"), [
    ("{", "b.json is not valid JSON"), ("[]", "not a file of pytest-benchmark's"),
    ('{"benchmarks": [{"fullname": "a"}]}', "not a file of pytest-benchmark's"),
    ('{"benchmarks": []}', "no benchmark in common"),
    (json.dumps({"benchmarks": [{"fullname": A, "stats": {"min": 0}}]}), "expected a positive number"),
])
def test_bad_files(write, capsys, text, message):
    write("a.json", {A: 1.0})
    Path("b.json").write_text(text)
    assert command.main(["a.json", "b.json"]) == 2
    assert message in capsys.readouterr().err


def test_files_that_are_missing_or_alone(write, capsys):
    write("a.json", {A: 1.0})
    assert command.main(["a.json", "b.json", "--json", "out.json", "--markdown", "out.md"]) == 2
    assert "b.json cannot be read" in capsys.readouterr().err
    assert json.loads(Path("out.json").read_text())["exit_code"] == 2
    assert "could not run" in Path("out.md").read_text()
    assert command.main(["a.json", "main"]) == 2
    assert "expected two revisions, or two JSON files" in capsys.readouterr().err


# --- limits ---------------------------------------------------------------------------------------------------------


def test_the_longest_key_that_matches_counts(tmp_path):
    file = tmp_path / "limits.toml"
    file.write_text('default = 0.1\n[benchmarks]\nbench_b = 0.2\n"test_b[16" = 0.3\n[counts]\ndefault = 1\nmodules = 2')
    limits = read_limits(file)
    assert (limits.of(A), limits.of(B), limits.of("bench_b.py::c")) == (0.1, 0.3, 0.2)
    assert (limits.of_count("modules"), limits.of_count("bytes")) == (2, 1)
    assert read_limits(tmp_path / "none.toml") == Limits()
    file.write_text("[allocated]\ndefault = 0.2\nbench_b = 0.5")
    limits = read_limits(file)
    assert (limits.of_metric("allocated", A), limits.of_metric("allocated", B)) == (0.2, 0.5)
    assert limits.of_metric("process", A) == Limits().of_metric("process", A) == 0.1


@pytest.mark.parametrize(("text", "message"), [
    ("default = ", "cannot be read as TOML"), ("defualt = 1", "has defualt; expected"),
    ("default = '5 %'", "the limit of 'default' is '5 %'"), ("benchmarks = 1", "must be a table"),
    ("[benchmarks]\na = -1", "expected a fraction"), ("[counts]\na = true", "expected a fraction"),
])
def test_bad_limits(tmp_path, text, message):
    (tmp_path / "limits.toml").write_text(text)
    with pytest.raises(GateError, match=message):
        read_limits(tmp_path / "limits.toml")


def test_the_limits_beside_the_benchmarks_can_be_read():
    limits = read_limits(Path(power.__file__).parents[1] / "limits.toml")
    assert 0 < limits.default <= 0.1


# --- sides ----------------------------------------------------------------------------------------------------------


def test_unknown_revision(repository, capsys, scipy):
    assert command.main(["nonsense", "--repo", str(repository), "--env", "current"]) == 2
    assert "'nonsense' is no revision of" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "message"), [
    (["--path", "nowhere"], "'nowhere' is no folder of the revision"), (["--range", "old..new"], "expected one of them"),
    (["--setup", "make"], "--setup would change the environment"), (["--rounds", "3"], "with fewer than 7"), (["--seconds", "0"], "expected a positive number"),
])
def test_bad_options(repository, capsys, scipy, options, message):
    assert command.main(["old", "new", "--repo", str(repository), "--env", "current", *options]) == 2
    assert message in capsys.readouterr().err


def test_instructions_that_cannot_be_counted(repository, capsys, scipy, monkeypatch):
    monkeypatch.setattr(instructions, "available", lambda: False)
    options = ["old", "new", "--repo", str(repository), "--env", "current"]
    assert command.main([*options, "--instructions", "perf"]) == 2
    assert "does not offer the processor's counter" in capsys.readouterr().err
    args = command.parser("x").parse_args(options)
    assert command.metrics(args) == ["allocated", "process"]
    monkeypatch.setattr(instructions, "available", lambda: True)
    assert command.metrics(args) == ["allocated", "process", "instructions"]


def test_no_repository(tmp_path, capsys, scipy, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert command.main(["main", "--repo", str(tmp_path)]) == 2
    assert "not a git repository" in capsys.readouterr().err


def test_missing_pytest_benchmark(monkeypatch):
    monkeypatch.setattr(environment, "run", lambda command, what, hint: '{"pytest": ["9", ""]}')
    with pytest.raises(GateError, match=r"pytest-benchmark is not installed for .*python"):
        environment._installed(Path("python"))


def test_missing_scipy(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setattr(judge.importlib.util, "find_spec", lambda name: None)
    assert command.main(["HEAD"]) == 2
    assert "pip install scipy" in capsys.readouterr().err


REVISIONS = {"base": "old", "head": "new", "same": "old"}
CURRENT = Recipe(environment.CURRENT)


def test_worktrees_hold_each_revision_and_the_same_benchmarks(repository):
    with compare.prepare(repository, REVISIONS, ".", "bench", print, CURRENT) as prepared:
        trees = {name: side.tree for name, side in prepared.sides.items()}
        assert len({len(str(tree)) for tree in trees.values()}) == 1
        code = {name: (tree / "subject.py").read_text() for name, tree in trees.items()}
        assert code["base"] == code["same"] == "NAME = 'old'\n" != code["head"]
        assert all("test_new" in (tree / "bench" / "bench_a.py").read_text() for tree in trees.values())
        assert prepared.own["base"].names == ("bench/bench_a.py::test_old",)
    assert not any(tree.exists() for tree in trees.values())
    assert repositories.git(repository, "worktree", "list").count("\n") == 0


KILLED = """
import os, signal, sys
from pathlib import Path
from fastnet.gate import repository
with repository.room(Path(sys.argv[1]), None) as room:
    repository.add_worktree(Path(sys.argv[1]), room / "base", "old")
    print(room, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_the_next_run_removes_what_a_killed_one_left(repository):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(repository)], capture_output=True, text=True)
    left = Path(killed.stdout.strip())
    assert (left / "base" / "tree").is_dir() and repositories.git(repository, "worktree", "list").count("\n") == 1
    with repositories.room(repository, None) as room:
        repositories.add_worktree(repository, room / "base", "old")
        assert not left.exists()
        repositories.clear_abandoned(repository)  # as another run would: this one is alive
        assert (room / "base" / "tree").is_dir()
    assert repositories.git(repository, "worktree", "list").count("\n") == 0


def test_two_runs_at_once_have_rooms_of_their_own(repository, tmp_path):
    with repositories.room(repository, tmp_path / "home") as one, repositories.room(repository, tmp_path / "home") as two:
        assert one != two
    with repositories.room(repository, tmp_path / "home") as again:
        assert again == one


def test_the_working_tree_is_taken_as_it_is(repository):
    clean, called = repositories.snapshot(repository)
    assert clean == repositories.find_commit(repository, "new") and called.startswith("HEAD")
    (repository / "subject.py").write_text("NAME = 'changed'\n")
    (repository / "untracked.py").write_text("")
    before = repositories.git(repository, "status", "--porcelain")
    commit, called = repositories.snapshot(repository)
    assert "working tree" in called
    assert repositories.git(repository, "show", f"{commit}:subject.py") == "NAME = 'changed'"
    assert "untracked.py" in repositories.git(repository, "ls-tree", "--name-only", commit)
    assert repositories.git(repository, "status", "--porcelain") == before


# --- one real process -----------------------------------------------------------------------------------------------


def test_a_process_reports_times_counts_and_reasons(repository):
    (repository / "bench" / "bench_a.py").write_text(
        "import pytest\n"
        "def test_counted(benchmark):\n    benchmark(sum, [1])\n    benchmark.extra_info['counts'] = {'calls': 3}\n"
        "def test_skipped(benchmark):\n    pytest.skip('no such machine')\n"
        "def test_broken(benchmark):\n    raise ValueError('broken')\n")
    side = Side("head", "HEAD", "0" * 40, repository, repository, Path(sys.executable), repository / "caches")
    settings = Settings(seconds=0.001)
    run = runs.run(side, repository, "bench", settings, 0, metrics=["allocated", "process", "instructions"])
    name = "bench/bench_a.py::test_"
    assert list(run.times) == [f"{name}counted"] and run.counts == {f"{name}counted": {"calls": 3}}
    assert run.skipped == {f"{name}skipped": "Skipped: no such machine"}
    assert run.failed == {f"{name}broken": "ValueError: broken"} and len(run.names) == 3
    assert 0 <= run.metrics[f"{name}counted"]["allocated"] < 1e5
    assert not sys.platform.startswith("linux") or 1e6 < run.metrics[f"{name}counted"].get("process", 1e7) < 1e9
    only = runs.run(side, repository, "bench", settings, 0, names=[f"{name}counted"])
    assert list(only.names) == list(only.times) == [f"{name}counted"] and not only.failed
    listed = runs.run(side, repository, "bench", settings, 0, collect_only=True)
    assert len(listed.names) == 3 and not listed.times

    outside = repository / "outside.py"
    outside.write_text("")
    tree = repository / "copy"
    (tree / "bench").mkdir(parents=True)
    (tree / "bench" / "bench_a.py").write_text(
        f"import sys\nsys.path.append({str(repository)!r})\nimport outside\n"
        "def test_a(benchmark): benchmark(len, 'a')\n")
    with pytest.raises(GateError, match=r"head loaded outside from .* not from its own worktree"):
        runs.run(replace(side, tree=tree, project=tree), repository, "bench", settings, 0)
    gate_s_own = Path(__file__).parents[1]  # what it loads of itself is no benchmark's code
    assert runs.run(side, gate_s_own, "bench", settings, 0, metrics=["allocated"]).times


def test_the_study_slows_down_one_kernel_only():
    for name in power.NAMES:
        changed = [(old, new) for old, new in zip(power.KERNELS.splitlines(),
                                                  power.make_slower(power.KERNELS, name).splitlines(), strict=True)
                   if old != new]
        assert len(changed) == 1 and "200" in changed[0][0] and "230" in changed[0][1]
