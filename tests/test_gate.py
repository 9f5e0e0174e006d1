"""The regression gate's statistics, verdicts and messages, on made-up numbers: nothing is timed here."""
import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.studies import power
from fastnet.gate import (
    GateError,
    arguments,
    children,
    command,
    compare,
    environment,
    instructions,
    judge,
    pairing,
    prepare,
    render,
    runs,
)
from fastnet.gate.discover import Found
from fastnet.gate.environment import Side
from fastnet.gate.judge import Plan
from fastnet.gate.limits import Limits, read_limits
from fastnet.gate.pairing import pair
from fastnet.gate.prepare import SIDES, Prepared
from fastnet.gate.runs import Run, Settings, Where
from fastnet.gate.statistics import Estimate

A, B = "bench/bench_a.py::test_a", "bench/bench_b.py::test_b[16-float32]"


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


# --- judge ----------------------------------------------------------------------------------------------------------

ROUNDS = 12


def times(head=1.0, same=1.0, noise=0.01, typical=None, seed=0):
    """Twelve rounds on a machine that drifts, and of which every process is noisy."""
    rng = np.random.default_rng(seed)
    drift = np.exp(0.5 * np.sin(np.arange(ROUNDS)))

    def side(factor):
        return list(factor * drift * np.exp(rng.normal(0, noise, ROUNDS)))

    return {"fast": {"base": side(1.0), "same": side(same), "head": side(head)},
            "typical": {"base": side(1.1), "same": side(1.1 * same), "head": side(1.1 * (typical or head))}}


def verdict_on(found, limit=0.05):
    return judge.judge(A, found, limit, Plan().row_error(1)).verdict


@pytest.mark.parametrize(("numbers", "verdict"), [
    ({}, judge.OK),
    ({"head": 1.15}, judge.REGRESSED),
    ({"head": 0.8}, judge.FASTER),
    ({"head": 0.98}, judge.OK),
    ({"typical": 2.0}, judge.REGRESSED),  # work that is not done in every call: the fastest sample does not see it
    ({"head": 0.8, "typical": 1.2}, judge.REGRESSED),
    ({"head": 1.05}, judge.INCONCLUSIVE),  # at the limit
    ({"noise": 0.3}, judge.INCONCLUSIVE),  # ok without knowledge
    ({"head": 1.1, "noise": 0.15}, judge.INCONCLUSIVE),
    ({"head": 1.2, "same": 1.2}, judge.INCONCLUSIVE),  # slower than one copy of the base, and not than the other
    ({"head": 0.784, "same": 0.8}, judge.OK),  # faster than one copy only
    ({"head": 1.3, "same": 1.1}, judge.REGRESSED),  # beyond the limit against both
])
def test_verdict(numbers, verdict):
    assert verdict_on(times(**numbers)) == verdict


def test_a_row_says_what_it_could_have_seen():
    quiet, noisy = (judge.judge(A, times(noise=noise), 0.05, Plan().row_error(1)) for noise in (0.001, 0.02))
    assert 1.05 < quiet.seen < 1.06 < noisy.seen < 1.3
    assert quiet.head == pytest.approx(quiet.base * quiet.change.ratio)
    few = judge.judge(A, {"min": {side: [1.0, 1.0] for side in SIDES}}, 0.05, 0.01)
    assert few.verdict == judge.INCONCLUSIVE and few.note == "too few rounds: 2" and few.seen == float("inf")


def test_why_a_row_is_undecided():
    assert judge.judge(A, times(head=1.2, same=1.2), 0.05, 0.005).note == "the base differs from its control by more than the limit"
    assert judge.judge(A, times(noise=0.3), 0.05, 0.005).note == "the interval contains the limit"


@pytest.mark.parametrize(("numbers", "least", "most"), [
    ({}, 0, 0), ({"head": 1.15}, 0, 0), ({"noise": 0.05, "head": 0.95}, 1, 60), ({"noise": 0.5}, 50, float("inf"))])
def test_rounds_left_are_foreseen(numbers, least, most):
    assert least <= judge.rounds_left(times(**numbers), 0.05, 0.005) <= most


SURE = Estimate(1.0, 0.99, 1.01, 12)


@pytest.mark.parametrize(("verdicts", "count", "problems", "expected"), [
    ([], judge.OK, [], judge.OK),
    ([judge.OK, judge.REGRESSED], judge.OK, [], judge.REGRESSED),
    ([judge.INCONCLUSIVE, judge.REGRESSED], judge.OK, [], judge.REGRESSED),
    ([judge.OK], judge.OK, ["broken on head"], judge.INCONCLUSIVE),
    ([judge.OK, judge.FASTER], judge.OK, [], judge.OK),
    ([judge.OK, judge.REGRESSED], judge.OK, ["broken on head"], judge.REGRESSED),
    ([judge.INCONCLUSIVE], judge.REGRESSED, [], judge.REGRESSED),  # counts do not depend on the noise
])
def test_overall_verdict(verdicts, count, problems, expected):
    rows = [judge.Row(A, 1.0, SURE, SURE, 0.05, verdict) for verdict in verdicts]
    counts = [judge.CountRow(A, "modules", 1, 2, 0, count)]
    assert judge.overall(rows, counts, problems) == expected


@pytest.mark.parametrize(("base", "head", "limit", "verdict"), [
    ([5, 5], [5, 5], 0, judge.OK), ([5, 5], [6, 6], 0, judge.REGRESSED), ([5, 5], [4, 4], 0, judge.OK),
    ([5, 6], [6, 6], 0, judge.OK), ([100, 100], [102, 102], 0.02, judge.OK),
])
def test_counts(base, head, limit, verdict):
    assert judge.judge_count(A, "modules", base, head, limit).verdict == verdict


# --- a whole comparison, with processes that are made up ------------------------------------------------------------


@pytest.fixture
def compared(monkeypatch):
    """Returns a function: compares with ``times(side, round) -> {name: seconds}``, on a machine that drifts."""
    def compare_with(times, limits=None, counts=None, failed=None, own=None, metrics=None, wanted=(), plan=None, noise=0.002,
                     **options):
        rng = np.random.default_rng(0)
        passed = {"rounds": 0}

        def one(side, number, names=None):
            drift = 1 + 0.6 * np.sin(number)  # the same within a round
            chosen = {name: time for name, time in times(side.name, passed["rounds"]).items() if names is None or name in names}
            measured = {name: {"min": time, "fast": time * drift * rng.lognormal(0, noise), "typical": time * drift * rng.lognormal(0.1, noise)}
                        for name, time in chosen.items()}
            why = (failed or {}).get(side.name, {})
            return Run(measured, {A: counts[side.name]} if counts else {}, {A: metrics(side.name, number)} if metrics else {},
                       why, names=tuple(sorted({*measured, *(name for name in why if "::" in name)})))

        def round_(sides, where, settings, number, names):
            passed["rounds"] += 1
            return {side.name: one(side, number, names) for side in sides}

        monkeypatch.setattr(compare, "run", lambda side, where, settings, number, names=None, metrics=(): one(side, number, names))
        monkeypatch.setattr(compare, "run_round", round_)
        monkeypatch.setattr(pairing.Sources, "_module", lambda self, side, file: None)
        sides = {name: Side(name, name, "0" * 40, Path(), Path(), Path(), Path(), {"numpy": "2.0"}) for name in SIDES}
        base = Run({}, names=tuple(own if own is not None else times("base", 0)))
        found = Found(".", ("bench/bench_a.py",), ("bench",), False)
        prepared = Prepared(Where(Path(), found.files), found, sides, {"base": base, "same": base}, Settings(turns=False))
        return compare.compare(prepared, limits or Limits(), seed=0, metrics=wanted, plan=plan or Plan(rounds=20), **options)

    return compare_with


def verdicts(result):
    return {row.name: row.verdict for row in result.rows}


def test_drift_alone_is_ok(compared):
    result = compared(lambda side, batch: {A: 1e-3, B: 2e-3})
    assert (result.verdict, result.exit_code) == (judge.OK, 0)
    assert verdicts(result) == {A: judge.OK, B: judge.OK}
    assert result.about["rounds"] == Plan().quick(2)


def test_a_slower_benchmark_is_found(compared):
    result = compared(lambda side, batch: {A: 1e-3, B: 2.3e-3 if side == "head" else 2e-3})
    assert (result.verdict, result.exit_code) == (judge.REGRESSED, 1)
    assert verdicts(result) == {A: judge.OK, B: judge.REGRESSED}
    slow = next(row for row in result.rows if row.name == B)
    assert slow.change.ratio == pytest.approx(1.15, rel=0.01) and 1.05 < slow.change.low
    text = render.to_markdown(result)
    assert "Benchmarks: regressed" in text and "+15." in text and f"`{B}`" in text
    assert json.loads(json.dumps(render.to_json(result)))["exit_code"] == 1


def test_rounds_go_on_for_what_is_undecided_only(compared):
    asked = []

    def times(side, number):
        asked.append(number)
        return {A: 1e-3, B: 1e-3 if number % 2 else (1.3e-3 if side == "head" else 1e-3)}
    result = compared(times)
    assert verdicts(result) == {A: judge.OK, B: judge.INCONCLUSIVE} and result.exit_code == 2
    at_a = [A in times for times in result.about["times"]["head"]]
    assert at_a == [True] * Plan().quick(2) + [False] * (20 - Plan().quick(2))


def test_a_hopeless_row_is_given_up_before_the_budget_is_spent(compared):
    result = compared(lambda side, number: {A: 1e-3}, noise=0.5, plan=Plan(rounds=100))
    assert result.about["rounds"] == 3 * Plan().quick(1) and result.verdict == judge.INCONCLUSIVE
    assert "so noisy that" in render.to_markdown(result)


def test_the_budget_ends_a_comparison(compared):
    result = compared(lambda side, number: {A: 1e-3}, plan=Plan(budget=1e-9))
    assert result.about["rounds"] == 1 and result.verdict == judge.INCONCLUSIVE
    text = render.to_markdown(result)
    assert "1 round, then the budget is spent" in text and "too few rounds: 1" in text


def test_a_base_slower_than_itself_is_inconclusive(compared):
    result = compared(lambda side, batch: {A: 1e-3 if side == "base" else 1.2e-3})
    assert (result.verdict, result.exit_code) == (judge.INCONCLUSIVE, 2)
    assert "differs from its control" in render.to_markdown(result)


def test_each_benchmark_has_its_own_limit(compared):
    def slower(side, batch):
        return {A: 1.15e-3 if side == "head" else 1e-3, B: 1.15e-3 if side == "head" else 1e-3}
    assert verdicts(compared(slower, Limits(benchmarks={"bench_b.py": 0.2}))) == {A: judge.REGRESSED, B: judge.OK}


BROKEN = {B: "ValueError: broken"}


@pytest.mark.parametrize(("head", "failed", "own", "said"), [
    ([A], {"head": BROKEN}, [A, B], f"`{B}` runs on base but fails on head: ValueError: broken"),
    ([A, B], {"base": BROKEN}, [A, B], f"`{B}` runs on head but fails on base: ValueError: broken"),
    ([A], {"head": BROKEN}, [A], f"`{B}` fails on head, where it is new: ValueError: broken"),
    ([A], {"head": {"bench/bench_b.py": "SyntaxError"}}, [A, B], f"`{B}` its file cannot be collected on head: SyntaxError"),
])
def test_what_breaks_is_not_compared_and_no_pass(compared, head, failed, own, said):
    def times(side, batch):
        return dict.fromkeys(head if side == "head" else [name for name in own if name not in failed.get("base", {})], 1e-3)
    result = compared(times, failed=failed, own=own)
    assert (result.verdict, result.exit_code) == (judge.INCONCLUSIVE, 2)
    assert said in render.to_markdown(result) and "not compared" in render.headline(result)


@pytest.mark.parametrize(("failed", "said"), [
    (BROKEN, f"failing on both sides: `{B}`: ValueError: broken"),
])
def test_what_fails_on_both_sides_is_noted(compared, failed, said):
    result = compared(lambda side, number: {A: 1e-3}, failed={"base": failed, "head": failed}, own=[A, B])
    assert result.exit_code == 0 and said in render.to_markdown(result)


def test_a_file_that_fails_on_both_sides_is_noted():
    broken = {"bench/bench_b.py": "SyntaxError"}
    both = pair(Run({}, failed=broken, names=(A,)), Run({A: {"min": 1.0}}, failed=broken), Run({A: {"min": 1.0}}, failed=broken, names=(A,)))
    assert not both.missing and both.notes == ["`bench/bench_b.py` cannot be collected on either side: SyntaxError"]


def test_a_renamed_benchmark_is_noted():
    old, new = "bench/bench_a.py::test_old", "bench/bench_a.py::test_new"
    ran = Run({new: {"min": 1.0}}, names=(new,))
    found = pair(Run({}, names=(old,)), ran, ran, lambda before, after: (before, after) == (old, new))
    assert not found.removed and "is now called" in found.notes[0]
    assert pair(Run({}, names=(old,)), ran, ran).removed == [old]


@pytest.mark.parametrize(("head_fails", "with_heads", "with_own", "taken", "compared_names"), [
    ([A], [B], [B], [], [B]),  # A fails in both versions: the package that it needs is missing
    ([A], [B], [A, B], [], [B]),  # A runs in base's version only, and fails on head: it cannot be compared anyway
    ([], [B], [A, B], ["bench/bench_a.py"], [A, B]),  # A runs on head, and on base in base's version
])
def test_base_runs_its_own_version_of_a_file_only_if_more_can_be_compared(monkeypatch, head_fails, with_heads, with_own, taken, compared_names):
    file, seconds = "bench/bench_a.py", {"min": 1.0}
    a, b = f"{file}::test_a", f"{file}::test_b"
    called = {A: a, B: b}
    versions = {}

    def checkout(folder, *arguments):
        versions[folder.name] = arguments[3]

    def measure(side, where, settings, number, names=None, metrics=()):
        runs_ = with_own if versions.get(side.name) == "base" else with_heads
        return Run({called[name]: seconds for name in runs_}, failed={a: "ValueError"} if A not in runs_ else {}, names=(a, b))
    monkeypatch.setattr(pairing, "git", checkout)
    sides = [Side(name, name, "head" if name == "head" else "base", Path(name), Path(name), Path(), Path()) for name in SIDES]
    head = Run({called[name]: seconds for name in (A, B) if name not in head_fails}, failed={called[name]: "ValueError" for name in head_fails},
               names=(a, b))
    found, own = Found(".", (file,), ("bench",), False), Run({}, names=(a, b))
    (base, _), notes = pairing.warm_up([sides[0], sides[2]], measure, Where(Path(), (file,)), found, Settings(), own, head, sides[1], ())
    assert ["its own version" in note for note in notes] == [True] * len(taken)
    assert versions == ({"base": "base", "same": "base"} if taken else {"base": "head"})
    result = pair(own, base, head)
    assert result.compared == [called[name] for name in compared_names]
    assert (a in result.missing) == (A in head_fails and A in with_own)


@pytest.mark.parametrize("said", [
    {"failed": {A: "Failed: async def functions are not natively supported."}},
    {"skipped": {A: "Skipped: async def function and no async plugin installed (see warnings)"}},  # pytest before 8.4
    {"failed": {A: "fixture 'httpserver' not found"}},
])
def test_plugins_are_loaded_if_a_benchmark_needs_one(monkeypatch, said):
    def one(side, where, settings, number, names=None, metrics=()):
        return Run({A: {"min": 1.0}}, names=(A,)) if settings.autoload else Run({}, names=(A,), **said)
    monkeypatch.setattr(compare, "run", one)
    monkeypatch.setattr(pairing.Sources, "_module", lambda self, side, file: None)
    sides = {name: Side(name, name, "0" * 40, Path(), Path(), Path(), Path()) for name in SIDES}
    found = Found(".", ("bench/bench_a.py",), ("bench",), False)
    prepared = Prepared(Where(Path(), found.files), found, sides, {"base": Run({}, names=(A,))}, Settings())
    _, paired, settings = compare._warm_up(prepared, prepared.settings, (), print)
    assert settings.autoload and paired.compared == [A]


@pytest.mark.parametrize(("starts_with", "why", "installed", "autoload"), [
    (("[bench]",), "", 0, False),
    (("[bench]", "[test]"), "E   ModuleNotFoundError: No module named 'numpy'", 1, False),
    (("[bench]", "[test]", "group dev"), "unknown hook 'pytest_emoji_skipped'", 2, True),  # a plugin that is not installed yet
])
def test_more_is_installed_until_pytest_starts(monkeypatch, tmp_path, starts_with, why, installed, autoload):
    names, log = [["[bench]"], ["[test]"], ["group dev"]], []

    def collect(side, where, settings, number, collect_only=False):
        if side.name != starts_with[-1] or settings.autoload != autoload:
            raise GateError(why)
        return Run({}, names=(A,))
    monkeypatch.setattr(prepare, "run", collect)
    monkeypatch.setattr(prepare, "tiers", lambda project, folders: names)
    monkeypatch.setattr(environment, "prepare", lambda side, order, log: replace(side, name=names[order.tier][0]))
    side = Side("[bench]", "HEAD", "0" * 40, tmp_path, tmp_path, Path(), Path())
    order = environment.Order(environment.Recipe(), ())
    _, order, settings = prepare._collect(side, Where(tmp_path, ()), order, Settings(), tmp_path, log.append)
    assert (order.tier, settings.autoload, len(log)) == (installed, autoload, installed)
    monkeypatch.setattr(prepare, "tiers", lambda project, folders: names[:1])
    if autoload:
        with pytest.raises(GateError, match="If a plugin of pytest is missing"):
            prepare._collect(side, Where(tmp_path, ()), replace(order, tier=0), Settings(), tmp_path, log.append)


def test_a_traceback_of_pytests_own_is_left_out_of_messages():
    said = "\n".join(["collecting", *("INTERNALERROR>     at some line" for _ in range(20)), "INTERNALERROR> Error: unknown hook", "INTERNALERROR>"])
    assert children.tail(said) == "collecting\nINTERNALERROR> Error: unknown hook"


def test_what_lacks_a_package_is_noted_with_the_option_that_installs_it():
    why = {B: "ModuleNotFoundError: No module named 're2'", "bench/bench_c.py": "ModuleNotFoundError: No module named 'numpy'"}
    head = Run({A: {"min": 1.0}}, failed=why, names=(A, B))
    notes = pair(Run({}, failed=why, names=(A, B)), Run({A: {"min": 1.0}}, failed=why), head).notes
    assert len(notes) == 2 and all("--with PACKAGE" in note for note in notes)


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


def test_benchmarks_that_fail_alike_share_a_note():
    names = [f"bench/bench_a.py::test_{letter}" for letter in "bcdefg"]
    head = Run({A: {"min": 1.0}}, failed=dict.fromkeys(names, "no such folder") | {names[2]: "another"}, names=(A, *names))
    notes = pair(Run({}, names=(A, *names)), Run({A: {"min": 1.0}}), head).notes
    assert notes == [f"failing on both sides: {', '.join(f'`{name}`' for name in (*names[:2], *names[3:5]))} and 1 more: no such folder",
                     f"failing on both sides: `{names[2]}`: another"]


def test_a_round_is_estimated_by_the_benchmarks_that_it_runs():
    """Not by the whole warm-up, in which some compile and others fail, nor by the collection of files that are not run."""
    warm = Run({A: {"min": 1e-6}, B: {"min": 0.5}}, seconds=2.0)
    for collecting, starting in ((0.0, 2.0), (9.0, 2.0), (0.5, 0.5)):
        estimate = compare.a_round(Run({}, seconds=collecting), warm, [A, B], Settings(seconds=0.1))
        assert estimate == pytest.approx(3 * (starting + 0.1 + 1.5))


def test_skipped_benchmarks_are_noted_and_a_new_skip_is_no_pass():
    both = pair(Run({}, names=(A, B)), Run({A: {"min": 1.0}}, skipped={B: "no GPU"}), Run({A: {"min": 1.0}}, skipped={B: "no GPU"}, names=(A, B)))
    assert not both.missing and both.notes == [f"skipped: `{B}`: no GPU"]
    now = pair(Run({}, names=(A, B)), Run({A: {"min": 1.0}, B: {"min": 1.0}}), Run({A: {"min": 1.0}}, skipped={B: "slow"}, names=(A, B)))
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


def test_the_json_is_as_its_schema_says(compared):
    """Names and types; the package jsonschema, where it is there, checks all."""
    schema = json.loads((Path(render.__file__).parent / "verdict.schema.json").read_text())
    results = [render.failed("why"), compared(lambda side, number: {A: 1e-3, B: 1.3e-3 if side == "head" else 1e-3}, wanted=["allocated"],
                                              metrics=lambda side, number: {"allocated": 1e6}),
               compared(lambda side, number: {A: 1e-3}, plan=Plan(budget=1e-9))]
    for result in results:
        table = json.loads(json.dumps(render.to_json(result), allow_nan=False))
        assert table.keys() == schema["properties"].keys() and table["schema"] == render.SCHEMA == schema["properties"]["schema"]["const"]
        assert all(row.keys() == schema["$defs"]["row"]["properties"].keys() for row in table["rows"])
        assert all(count.keys() == schema["$defs"]["count"]["properties"].keys() for count in table["counts"])
        if importlib.util.find_spec("jsonschema"):
            import jsonschema

            jsonschema.validate(table, schema)


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


def test_unknown_revision(repository, capsys):
    assert command.main(["nonsense", "--repo", str(repository), "--env", "current"]) == 2
    assert "'nonsense' is no revision of" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "message"), [
    (["--path", "nowhere"], "'nowhere' is no folder or file of the revision"), (["--range", "old..new"], "give only one of them"),
    (["--setup", "make"], "--setup would change your current environment"), (["--rounds", "0"], "expected 1 or more"), (["--budget", "0"], "expected a positive number"), (["--seconds", "0"], "expected a positive number"),
])
def test_bad_options(repository, capsys, options, message):
    assert command.main(["old", "new", "--repo", str(repository), "--env", "current", *options]) == 2
    assert message in capsys.readouterr().err


def test_instructions_that_cannot_be_counted(repository, capsys, monkeypatch):
    monkeypatch.setattr(instructions, "available", lambda: False)
    options = ["old", "new", "--repo", str(repository), "--env", "current"]
    assert command.main([*options, "--instructions", "perf"]) == 2
    assert "does not offer the processor's counter" in capsys.readouterr().err
    args = command.parser("x").parse_args(options)
    assert arguments.metrics(args) == ["allocated", "process"]
    monkeypatch.setattr(instructions, "available", lambda: True)
    assert arguments.metrics(args) == ["allocated", "process", "instructions"]


def test_no_repository(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert command.main(["main", "--repo", str(tmp_path)]) == 2
    assert "is not in a git repository" in capsys.readouterr().err


def test_missing_pytest_benchmark(monkeypatch):
    monkeypatch.setattr(environment, "run", lambda command, what, hint: '{"pytest": ["9", ""]}')
    with pytest.raises(GateError, match=r"pytest-benchmark is not installed for .*python"):
        environment._installed(Path("python"))


# --- one real process -----------------------------------------------------------------------------------------------


def test_a_process_reports_times_counts_and_reasons(repository):
    (repository / "bench" / "bench_a.py").write_text(
        "import pytest\n"
        "def test_counted(benchmark):\n    benchmark(sum, [1])\n    benchmark.extra_info['counts'] = {'calls': 3}\n"
        "def test_skipped(benchmark):\n    pytest.skip('no such machine')\n"
        "def test_broken(benchmark):\n    raise ValueError('broken')\n")
    side = Side("head", "HEAD", "0" * 40, repository, repository, Path(sys.executable), repository / "caches")
    settings, where = Settings(seconds=0.001), Where(repository, ("bench/bench_a.py",))
    run = runs.run(side, where, settings, 0, metrics=["allocated", "process", "instructions"])
    name = "bench/bench_a.py::test_"
    assert list(run.times) == [f"{name}counted"] and run.counts == {f"{name}counted": {"calls": 3}}
    assert run.skipped == {f"{name}skipped": "Skipped: no such machine"}
    assert run.failed == {f"{name}broken": "ValueError: broken"} and len(run.names) == 3
    assert 0 <= run.metrics[f"{name}counted"]["allocated"] < 1e5
    assert not sys.platform.startswith("linux") or 1e6 < run.metrics[f"{name}counted"].get("process", 1e7) < 1e9
    only = runs.run(side, where, settings, 0, names=[f"{name}counted"])
    assert list(only.names) == list(only.times) == [f"{name}counted"] and not only.failed
    listed = runs.run(side, where, settings, 0, collect_only=True)
    assert len(listed.names) == 3 and not listed.times

    outside = repository / "outside.py"
    outside.write_text("")
    tree = repository / "copy"
    (tree / "bench").mkdir(parents=True)
    (tree / "bench" / "bench_a.py").write_text(
        f"import sys\nsys.path.append({str(repository)!r})\nimport outside\n"
        "def test_a(benchmark): benchmark(len, 'a')\n")
    with pytest.raises(GateError, match=r"head loaded outside from .* not from its own worktree"):
        runs.run(replace(side, tree=tree, project=tree), where, settings, 0)
    gate_s_own = Path(__file__).parents[1]  # what it loads of itself is no benchmark's code
    assert runs.run(side, replace(where, repository=gate_s_own), settings, 0, metrics=["allocated"]).times


def test_the_study_slows_down_one_kernel_only():
    for name in power.NAMES:
        changed = [(old, new) for old, new in zip(power.KERNELS.splitlines(),
                                                  power.make_slower(power.KERNELS, name).splitlines(), strict=True)
                   if old != new]
        assert len(changed) == 1 and "200" in changed[0][0] and "230" in changed[0][1]
