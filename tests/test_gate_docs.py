"""What the documentation of the gate tells a reader to do works as it stands there."""
import json
import re
from pathlib import Path

import pytest
from pages import Runner, blocks, same_words

pytest.importorskip("pytest_benchmark")

import fastnet.gate
from fastnet.gate import addresses, arguments, command, repository
from fastnet.gate.judge import Plan

ROOT = Path(__file__).parents[1]
README = (Path(fastnet.gate.__file__).parent / "README.md").read_text(encoding="utf-8")


def test_the_first_five_minutes(tmp_path, monkeypatch):
    """The blocks of the page, in order; the environment is this one, as tests have no network."""
    monkeypatch.chdir(tmp_path)
    runner = Runner("docs/start-performance.md")
    for block in blocks((ROOT / "docs" / "start-performance.md").read_text(encoding="utf-8")):
        runner.run(block)
        compare = block.text
    (words,) = re.findall(r"^fastnet compare (\S+)", compare, re.MULTILINE)
    monkeypatch.setattr(arguments, "plan", lambda args: Plan(error=1.0, rounds=6))
    monkeypatch.setattr(addresses, "remarks", lambda: [])  # some containers forbid what the sample's machine allowed
    code = command.main([words, "--repo", str(tmp_path), "--env", "current", "--seconds", "0.01", "--no-memory", "--json", str(tmp_path / "out")])
    (row,) = json.loads((tmp_path / "out").read_text())["rows"]
    assert (code, row["verdict"]) == (1, "regressed")


SUMS = "def row_sums(rows):\n    return [{} for row in rows]\n\n\ndef row_maxima(rows):\n    return [max(row) for row in rows]\n"
SUMS_BENCHMARKS = """\
import sums

ROWS = [list(range(300)) for _ in range(100)]


def test_row_sums(benchmark):
    benchmark(sums.row_sums, ROWS)


def test_row_maxima(benchmark):
    benchmark(sums.row_maxima, ROWS)
"""


def test_the_sample_verdict_is_what_the_gate_prints(tmp_path, monkeypatch, capsys):
    """The words of the sample in the README; a few rounds do, as the limits leave no doubt."""
    sample = next(block.text for block in blocks(README) if block.text.startswith("## "))
    shown = next(block.text for block in blocks(README) if block.mark.startswith("not run: tests/test_gate_docs.py"))
    repository.git(tmp_path, "init", "--quiet")
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "bench_sums.py").write_text(SUMS_BENCHMARKS)
    (tmp_path / "limits.toml").write_text("[benchmarks]\nrow_maxima = 9\n")
    (tmp_path / "sums.py").write_text(SUMS.format("sum(row)"))
    repository.git(tmp_path, "add", "--all")
    repository.git(tmp_path, "-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", "Row sums")
    (tmp_path / "sums.py").write_text(SUMS.format("sum(value + 0 for value in [*row, *row])"))
    monkeypatch.setattr(arguments, "plan", lambda args: Plan(error=1.0, rounds=6))
    monkeypatch.setattr(addresses, "remarks", lambda: [])  # some containers forbid what the sample's machine allowed
    assert command.main([*shown.split()[2:], "--repo", str(tmp_path), "--env", "current", "--seconds", "0.01"]) == 1

    def words(text):
        text = re.sub(r"[-+](?=\d)| \((typical|[0-9a-f]{10})\)", "", text)
        return re.sub(r"\b(?:us|ms)\b", "s", text).partition(" %. ")[0]  # what follows names the machine

    assert same_words(words(sample), words(capsys.readouterr().out))


def test_every_option_in_the_readme_exists_and_every_option_is_in_it():
    known = {option for action in command.parser("x")._actions for option in action.option_strings if option.startswith("--")}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README))
    others = {"--import-mode", "--no-index", "--find-links", "--interleave-rounds", "--runs", "--more", "--trials", "--paired", "--fast", "--min-time", "--min-speed", "--benchmark-compare-fail", "--jobs", "--prove", "--compiled", "--quiet", "--system"}
    assert named - known <= others, named - known - others
    assert known - named <= {"--help", "--seed", "--statistic", "--repo", "--plugin", "--rounds", "--limits", "--seconds"}, known - named


def test_workflows_that_are_to_be_pasted_have_no_gaps():
    assert "OWNER" not in README
    yaml = pytest.importorskip("yaml")
    workflows = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)]
    assert len(workflows) >= 2 and all("fastnet compare" in str(workflow) for workflow in workflows)
