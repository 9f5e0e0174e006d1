"""The regression gate's statistics, verdicts and messages, on made-up numbers: nothing is timed here."""
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import compare
from bench.gate import GateError, judge, render, runs, sides
from bench.gate.limits import Limits, read_limits
from bench.gate.runs import Run, Settings
from bench.gate.sides import SIDES, Side
from bench.harness.statistics import Estimate, paired_ratio
from bench.studies import power

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
        (tmp_path / "code.py").write_text(f"NAME = {name!r}\n")
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
    order = compare.orders(12, np.random.default_rng(0))
    for place in range(3):
        assert sorted(round_[place] for round_ in order) == sorted(SIDES * 4)
    assert order != compare.orders(12, np.random.default_rng(1))
    assert len(compare.orders(7, np.random.default_rng(0))) == 7


# --- a whole comparison, with processes that are made up ------------------------------------------------------------


@pytest.fixture
def compared(monkeypatch, scipy):
    """Returns a function: compares with ``times(side, batch) -> {name: seconds}``, on a machine that drifts."""
    def compare_with(times, limits=None, counts=None, reasons=None):
        rng = np.random.default_rng(0)
        calls = dict.fromkeys(SIDES, 0)

        def run(side, repository, targets, settings, number):
            batch = (calls[side.name] + 6) // 7  # 0 is the warm-up
            calls[side.name] += 1
            drift = 1 + 0.6 * np.sin(number)  # the same within a round
            chosen = {name: time for name, time in times(side.name, batch).items() if batch < 2 or name in targets}
            measured = {name: time * drift * rng.normal(1, 0.002) for name, time in chosen.items()}
            return Run(measured, {A: counts[side.name]} if counts else {}, reasons or {})

        monkeypatch.setattr(compare, "run", run)
        prepared = {name: Side(name, name, "0" * 40, Path(), Path(), Path(), {"numpy": "2.0"}) for name in SIDES}
        return compare.compare(prepared, Path(), "bench", limits or Limits(), seed=0)

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


def test_a_benchmark_that_breaks_is_no_pass(compared):
    result = compared(lambda side, batch: {A: 1e-3} if side == "head" else {A: 1e-3, B: 1e-3},
                      reasons={"bench/bench_b.py": "ImportError: no module named b"})
    assert result.verdict == judge.INCONCLUSIVE
    assert "ImportError: no module named b" in render.to_markdown(result)


def test_a_new_benchmark_is_only_noted(compared):
    result = compared(lambda side, batch: {A: 1e-3, B: 1e-3} if side == "head" else {A: 1e-3})
    assert result.verdict == judge.OK
    assert f"`{B}` is new" in render.to_markdown(result)


@pytest.mark.parametrize("side", ["base", "head"])
def test_no_benchmark_on_a_side(compared, side):
    with pytest.raises(GateError, match=rf"could be run on {side}:\n  bench/bench_a.py: SyntaxError"):
        compared(lambda name, batch: {} if name == side else {A: 1.0}, reasons={"bench/bench_a.py": "SyntaxError"})


def test_no_common_benchmark(compared):
    with pytest.raises(GateError, match="no benchmark in common"):
        compared(lambda side, batch: {B if side == "head" else A: 1.0})


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
    code = compare.main([write("a.json", {A: 1.0, B: 1.0}), write("b.json", {A: 1.04}), "--json", "out.json",
                         "--markdown", "out.md"])
    assert code == 0
    assert json.loads(Path("out.json").read_text())["verdict"] == "ok"
    assert Path("out.md").read_text() == capsys.readouterr().out.removesuffix("\n")
    assert f"`{B}` is only in a.json" in Path("out.md").read_text()


def test_one_process_a_side_accuses_nobody(write, capsys):
    assert compare.main([write("a.json", {A: 1.0}), write("b.json", {A: 1.5})]) == 2
    assert "one process a side proves nothing" in capsys.readouterr().out


def test_files_with_counts(write):
    files = [write(f"{n}.json", {A: 1.0}, counts={"signatures": n}) for n in (3, 4)]
    assert compare.main(files) == 1
    assert compare.main(files[::-1]) == 0


def test_files_of_two_machines(write, capsys):
    assert compare.main([write("a.json", {A: 1.0}), write("b.json", {A: 1.0}, machine="other")]) == 2
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
    assert compare.main(["a.json", "b.json"]) == 2
    assert message in capsys.readouterr().err


def test_files_that_are_missing_or_alone(write, capsys):
    write("a.json", {A: 1.0})
    assert compare.main(["a.json", "b.json", "--json", "out.json", "--markdown", "out.md"]) == 2
    assert "b.json cannot be read" in capsys.readouterr().err
    assert json.loads(Path("out.json").read_text())["exit_code"] == 2
    assert "could not run" in Path("out.md").read_text()
    assert compare.main(["a.json", "main"]) == 2
    assert "expected two revisions, or two JSON files" in capsys.readouterr().err


# --- limits ---------------------------------------------------------------------------------------------------------


def test_the_longest_key_that_matches_counts(tmp_path):
    file = tmp_path / "limits.toml"
    file.write_text('default = 0.1\n[benchmarks]\nbench_b = 0.2\n"test_b[16" = 0.3\n[counts]\ndefault = 1\nmodules = 2')
    limits = read_limits(file)
    assert (limits.of(A), limits.of(B), limits.of("bench_b.py::c")) == (0.1, 0.3, 0.2)
    assert (limits.of_count("modules"), limits.of_count("bytes")) == (2, 1)
    assert read_limits(tmp_path / "none.toml") == Limits()


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
    limits = read_limits(Path(compare.__file__).with_name("limits.toml"))
    assert 0 < limits.default <= 0.1


# --- sides ----------------------------------------------------------------------------------------------------------


def test_unknown_revision(repository, capsys, scipy):
    assert compare.main(["nonsense", "--repo", str(repository), "--env", "current"]) == 2
    assert "'nonsense' is no revision of" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "message"), [
    (["--path", "nowhere"], "'nowhere' is no folder of the revision"),
    (["--setup", "make"], "--setup would change the environment"), (["--rounds", "3"], "with fewer than 7"), (["--seconds", "0"], "expected a positive number"),
])
def test_bad_options(repository, capsys, scipy, options, message):
    assert compare.main(["old", "new", "--repo", str(repository), "--env", "current", *options]) == 2
    assert message in capsys.readouterr().err


def test_no_repository(tmp_path, capsys, scipy, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert compare.main(["main", "--repo", str(tmp_path)]) == 2
    assert "not a git repository" in capsys.readouterr().err


def test_missing_pytest_benchmark(monkeypatch):
    monkeypatch.setattr(sides, "_run", lambda command, what: '{"pytest": "9"}')
    with pytest.raises(GateError, match=r"pytest-benchmark is not installed for .*python"):
        sides.installed(Path("python"))


def test_missing_scipy(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setattr(judge.importlib.util, "find_spec", lambda name: None)
    assert compare.main(["HEAD"]) == 2
    assert "pip install scipy" in capsys.readouterr().err


def test_worktrees_hold_each_revision_and_the_same_benchmarks(repository):
    with sides.worktrees(repository, "old", "new", "bench") as trees:
        assert len({len(str(tree)) for tree in trees.values()}) == 1
        code = {name: (tree / "code.py").read_text() for name, tree in trees.items()}
        assert code["base"] == code["same"] == "NAME = 'old'\n" != code["head"]
        assert all("test_new" in (tree / "bench" / "bench_a.py").read_text() for tree in trees.values())
    assert not any(tree.exists() for tree in trees.values())
    assert sides.git(repository, "worktree", "list").count("\n") == 0


def test_the_working_tree_is_taken_as_it_is(repository):
    clean, called = sides.snapshot(repository)
    assert clean == sides.find_commit(repository, "new") and called.startswith("HEAD")
    (repository / "code.py").write_text("NAME = 'changed'\n")
    (repository / "untracked.py").write_text("")
    before = sides.git(repository, "status", "--porcelain")
    commit, called = sides.snapshot(repository)
    assert "working tree" in called
    assert sides.git(repository, "show", f"{commit}:code.py") == "NAME = 'changed'"
    assert "untracked.py" in sides.git(repository, "ls-tree", "--name-only", commit)
    assert sides.git(repository, "status", "--porcelain") == before


def test_requirements_follow_an_extra_into_another(tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "me"\ndependencies = ["numpy"]\n'
        '[project.optional-dependencies]\ntest = ["hypothesis"]\nbench = ["me[test]", "scipy"]\ngpu = ["jax"]')
    (tmp_path / "requirements.txt").write_text("tqdm  # progress\n\n")
    wanted = {"pytest", "pytest-benchmark", "numpy", "scipy", "hypothesis", "tqdm"}
    assert set(sides.requirements(tmp_path, "bench", ["bench"])) == wanted


# --- one real process -----------------------------------------------------------------------------------------------


def test_a_process_reports_times_counts_and_reasons(repository):
    (repository / "bench" / "bench_a.py").write_text(
        "import pytest\n"
        "def test_counted(benchmark):\n    benchmark(sum, [1])\n    benchmark.extra_info['counts'] = {'calls': 3}\n"
        "def test_skipped(benchmark):\n    pytest.skip('no such machine')\n"
        "def test_broken(benchmark):\n    raise ValueError('broken')\n")
    side = Side("head", "HEAD", "0" * 40, repository, Path(sys.executable), repository / "caches")
    settings = Settings(seconds=0.001)
    run = runs.run(side, repository, ["bench"], settings, 0)
    name = "bench/bench_a.py::test_"
    assert list(run.times) == [f"{name}counted"] and run.counts == {f"{name}counted": {"calls": 3}}
    assert run.reasons == {f"{name}skipped": "Skipped: no such machine", f"{name}broken": "ValueError: broken"}

    outside = repository / "outside.py"
    outside.write_text("")
    tree = repository / "copy"
    (tree / "bench").mkdir(parents=True)
    (tree / "bench" / "bench_a.py").write_text(
        f"import sys\nsys.path.append({str(repository)!r})\nimport outside\n"
        "def test_a(benchmark): benchmark(len, 'a')\n")
    with pytest.raises(GateError, match=r"head loaded outside from .* not from its own worktree"):
        runs.run(replace(side, tree=tree), repository, ["bench"], settings, 0)


def test_the_study_slows_down_one_kernel_only():
    for name in power.NAMES:
        changed = [(old, new) for old, new in zip(power.KERNELS.splitlines(),
                                                  power.make_slower(power.KERNELS, name).splitlines(), strict=True)
                   if old != new]
        assert len(changed) == 1 and "200" in changed[0][0] and "230" in changed[0][1]
