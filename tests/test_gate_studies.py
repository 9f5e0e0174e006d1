"""The studies of the gate: what other tools print is understood, and a study in pieces is that of one go."""
import json

import pytest

from bench.studies import gates, pieces, power
from fastnet.gate import GateError, judge

PYTEST_BENCHMARK = """\
Comparing against benchmarks from: Linux-CPython-3.11-64bit/0001_base.json
...                                                                      [100%]
test_words (0001_base)       1,142.8840 (1.57)     41,092.1970 (2.45)
test_words (NOW)             2,831.6410 (3.90)     28,993.4410 (1.73)
"""
BROKEN_RULE = """
--------------------------------------------------------------------------------
Performance has regressed:
\ttest_words (0001_base) - Field 'min' has failed PercentageRegressionCheck: 147.762764823 > 5.000000000
\ttest_table (0001_base) - Field 'min' has failed PercentageRegressionCheck: 6.100000000 > 5.000000000
--------------------------------------------------------------------------------
Traceback (most recent call last):
pytest_benchmark.session.PerformanceRegression: Performance has regressed.
"""
ASV = """\
| Change   | Before [221cf43c] <base>   | After [3a1f0d55] <twice>   |   Ratio | Benchmark (Parameter)   |
|----------|----------------------------|----------------------------|---------|-------------------------|
| +        | 2.12\u00b10.3ms                 | 5.67\u00b11ms                   |    2.67 | benchmarks.time_words   |
| -        | 3.03\u00b10.7ms                 | 2.01\u00b10.01ms                |    0.66 | benchmarks.time_table   |

SOME BENCHMARKS HAVE CHANGED SIGNIFICANTLY.
PERFORMANCE DECREASED.
"""
PYPERF = """\
numbers: Mean +- std dev: [base] 3.19 ms +- 0.45 ms -> [slow] 1.53 ms +- 0.44 ms: 2.05x faster
words: Mean +- std dev: [base] 5.29 ms +- 0.79 ms -> [slow] 41.3 ms +- 24.4 ms: 7.81x slower

Benchmark hidden because not significant (1): table

Geometric mean: 3.82x slower
"""
PYTEST_PERF = """\
..                                                                       [100%]
===================================== perf =====================================
exercises.py:perf_numbers: 977 \u00b5sec (+18 \u00b5sec, 2%)
exercises.py:perf_table: 977 \u00b5sec (-180 \u00b5sec, -18%)
exercises.py:perf_words: 1.52 msec (+120 \u00b5sec, 9%)
2 passed in 11.64s
"""


def test_alarms_of_pytest_benchmark():
    assert gates.alarms_of_pytest_benchmark(PYTEST_BENCHMARK + BROKEN_RULE) == {"words", "table"}
    assert gates.alarms_of_pytest_benchmark(PYTEST_BENCHMARK) == set()


def test_alarms_of_asv():
    assert gates.alarms_of_asv(ASV) == {"words"}
    assert gates.alarms_of_asv("[100.00%] ... benchmarks.time_words 1.77ms\n\nBENCHMARKS NOT SIGNIFICANTLY CHANGED.\n") == set()


def test_alarms_of_pyperf():
    assert gates.alarms_of_pyperf(PYPERF) == {"words"}
    assert gates.alarms_of_pyperf("Benchmark hidden because not significant (3): numbers, words, table\n") == set()


def test_alarms_of_pytest_perf():
    assert gates.alarms_of_pytest_perf(PYTEST_PERF) == {"words"}


def test_what_benchmatrix_says():
    def report(**verdicts):
        return json.dumps({"comparisons": [{"implementation_name": name, "regression": verdict} for name, verdict in verdicts.items()]})

    assert gates.said_by_benchmatrix(report(numbers="inconclusive", words="regressed")) == {"numbers": gates.UNDECIDED, "words": gates.SLOWER}
    assert gates.said_by_benchmatrix(report(numbers="unchanged", words="improved")) == {}
    for broken in (report(words="regressed"), report(numbers="unchanged", words="not_comparable")):
        with pytest.raises(GateError, match="did not compare everything"):
            gates.said_by_benchmatrix(broken)


def test_a_tool_that_is_not_installed_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gates.importlib.util, "find_spec", lambda name: None)
    gates.main(["--tool", "pytest-perf", "--project", str(tmp_path / "judged"), "--state", str(tmp_path / "state.jsonl")])
    assert "pytest-perf is left out: pytest_perf is not installed" in capsys.readouterr().err


@pytest.mark.parametrize("understand", [gates.alarms_of_pytest_benchmark, gates.alarms_of_pyperf, gates.alarms_of_asv,
                                        gates.alarms_of_pytest_perf, gates.said_by_benchmatrix])
def test_a_tool_that_did_not_compare_has_not_kept_quiet(understand):
    with pytest.raises(GateError, match="it did not compare"):
        understand("No module named conjurer")


def test_the_project_has_one_function_slower(tmp_path):
    gates.make_project(tmp_path / "project")
    for head, factor in (("equal", 1), ("slow", 1.15), ("twice", 2)):
        base, source = ({}, {})
        exec(gates.git(tmp_path / "project", "show", "base:kernels.py"), base)
        exec(gates.git(tmp_path / "project", "show", f"{head}:kernels.py"), source)
        assert len(source["words"]()) == factor * len(base["words"]()) and source["numbers"]() == base["numbers"]()


def test_a_journal_goes_on_where_it_was_stopped(tmp_path):
    file = tmp_path / "new" / "state.jsonl"
    journal = pieces.Journal(file, {"rounds": 7})
    journal.add({"what": "kernel", "number": 0})
    again = pieces.Journal(file, {"rounds": 7})
    assert again.results == [{"what": "kernel", "number": 0}]
    with pytest.raises(GateError, match="other code or settings"):
        pieces.Journal(file, {"rounds": 8})
    assert pieces.remaining("abcd", "ca", None) == ["b", "d"] and pieces.remaining("abcd", "ca", 1) == ["b"]


@pytest.mark.parametrize("study", [gates, power])
def test_no_more_prints_the_table_only(study, tmp_path, capsys):
    options = ["--state", str(tmp_path / "state.jsonl"), "--more", "0"]
    assert study.main([*options, *(["--project", str(tmp_path / "project")] if study is gates else [])]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("| --- |")
    assert len((tmp_path / "state.jsonl").read_text().splitlines()) == 1


def test_tables_count_what_was_found():
    results = [{"what": "kernel", "verdict": judge.REGRESSED}, {"what": "kernel", "verdict": judge.OK}]
    assert "| one kernel, by 15 % | 2 | 1 | 1 | 0 |" in power.to_table(results)
    cases = (("equal", {}), ("equal", {"numbers": "slower"}), ("slow", {"words": "slower"}), ("slow", {"numbers": "slower"}))
    results = [{"tool": tool, "head": head, "said": said, "seconds": seconds}
               for tool, seconds in (("asv continuous", 10.0), ("fastnet compare", 40.0)) for head, said in cases]
    results[-1]["said"] = {"numbers": "undecided", "words": "undecided"}
    table = gates.to_table(json.loads(json.dumps(results)))
    assert "| asv continuous | 1 of 2 (1 - 99 %) | 1 of 2 (1 - 99 %) | 1 of 2 (1 - 99 %) | - | 0.25 |" in table
    assert "| fastnet compare | 1 of 2 (1 - 99 %) | 0 of 2 (0 - 84 %) | 1 of 2 (1 - 99 %) | 25% | 1.00 |" in table
    assert "pyperf" not in table


@pytest.mark.parametrize(("count", "trials", "said"), [(0, 10, "0 of 10 (0 - 31 %)"), (50, 50, "50 of 50 (93 - 100 %)"), (2, 10, "2 of 10 (3 - 56 %)"), (0, 0, "0 of 0")])
def test_rates_have_exact_intervals(count, trials, said):
    assert gates.rate(count, trials) == said
