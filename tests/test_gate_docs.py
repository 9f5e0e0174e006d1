"""What the documentation of the gate tells a reader to do works as it stands there."""
import json
import re
from pathlib import Path

import pytest
from pages import Runner, blocks

pytest.importorskip("pytest_benchmark")

import fastnet.gate
from fastnet.gate import command
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
    monkeypatch.setattr(command, "plan", lambda args: Plan(error=1.0, rounds=6))
    code = command.main([words, "--repo", str(tmp_path), "--env", "current", "--seconds", "0.01", "--no-memory", "--json", str(tmp_path / "out")])
    (row,) = json.loads((tmp_path / "out").read_text())["rows"]
    assert (code, row["verdict"]) == (1, "regressed")


def test_every_option_in_the_readme_exists_and_every_option_is_in_it():
    known = {option for action in command.parser("x")._actions for option in action.option_strings if option.startswith("--")}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README))
    others = {"--import-mode", "--no-index", "--find-links", "--interleave-rounds", "--runs", "--more", "--jobs", "--prove", "--quiet", "--system"}
    assert named - known <= others, named - known - others
    assert known - named <= {"--help", "--seed", "--statistic", "--repo", "--plugin", "--rounds", "--limits", "--seconds"}, known - named


def test_workflows_that_are_to_be_pasted_have_no_gaps():
    assert "OWNER" not in README
    yaml = pytest.importorskip("yaml")
    workflows = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)]
    assert len(workflows) >= 2 and all("fastnet compare" in str(workflow) for workflow in workflows)
