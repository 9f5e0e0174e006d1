"""What the documentation of the gate tells a reader to do works as it stands there."""
import json
import re
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("pytest_benchmark")

import fastnet.gate
from fastnet.gate import command
from fastnet.gate.judge import Plan

ROOT = Path(__file__).parents[1]
README = (Path(fastnet.gate.__file__).parent / "README.md").read_text(encoding="utf-8")


def test_the_first_five_minutes(tmp_path, monkeypatch):
    """The files of the page, in their order; the environment is this one, as tests have no network."""
    blocks = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs" / "start-performance.md").read_text(encoding="utf-8"), re.DOTALL)
    (_, before), (_, benchmark), (_, commit), (_, after), (_, compare) = blocks
    (tmp_path / "bench").mkdir()
    (tmp_path / "sums.py").write_text(before)
    (tmp_path / "bench" / "bench_sums.py").write_text(benchmark)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    for line in commit.strip().split(" && "):
        words = re.findall(r'"[^"]+"|\S+', line)
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *(word.strip('"') for word in words[1:])], cwd=tmp_path, check=True)
    (tmp_path / "sums.py").write_text(after)
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
