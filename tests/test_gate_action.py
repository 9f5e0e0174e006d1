"""The GitHub action: its scripts against a server that answers as GitHub does, with the event of a pull request."""
import json
import os
import re
import shutil
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

import fastnet.gate
from fastnet.gate import judge, render
from fastnet.gate.action import comment
from fastnet.gate.statistics import Estimate

FOLDER = Path(fastnet.gate.__file__).parent / "action"
# The fields of a pull_request event that name things, as GitHub documents and sends them.
EVENT = {
    "action": "synchronize", "number": 2, "before": "a" * 40, "after": "b" * 40,
    "pull_request": {"url": "https://api.github.com/repos/o/r/pulls/2", "id": 279147437, "number": 2, "state": "open",
                     "comments_url": "https://api.github.com/repos/o/r/issues/2/comments",
                     "head": {"ref": "changes", "sha": "b" * 40}, "base": {"ref": "master", "sha": "c" * 40}},
    "repository": {"id": 186853002, "name": "r", "full_name": "o/r", "owner": {"login": "o"}},
    "sender": {"login": "o"},
}


class GitHub(BaseHTTPRequestHandler):
    def do_GET(self):
        page = int(re.search(r"page=(\d+)$", self.path)[1])
        self._answer(200, self.server.comments[100 * (page - 1):100 * page])

    def do_POST(self):
        assert self.path == "/repos/o/r/issues/2/comments"
        self._write(lambda body: self.server.comments.append({"id": 1000, "body": body}))

    def do_PATCH(self):
        number = int(self.path.removeprefix("/repos/o/r/issues/comments/"))
        self._write(lambda body: next(one for one in self.server.comments if one["id"] == number).update(body=body))

    def _write(self, change):
        data = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        allowed = self.headers["Authorization"] == "Bearer writer"
        if allowed:
            change(data["body"])
        self._answer(201 if allowed else 403, {})

    def _answer(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def github():
    server = ThreadingHTTPServer(("127.0.0.1", 0), GitHub)
    server.comments = [{"id": number, "body": None if number == 3 else f"talk {number}"} for number in range(150)]
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def post(github, tmp_path):
    """Returns a function that runs the script on a result; it returns the finished process."""
    def run(result, event=EVENT, token="writer", job="compare"):
        (tmp_path / "event.json").write_text(json.dumps(event))
        (tmp_path / "verdict.json").write_text(json.dumps(render.to_json(result)))
        (tmp_path / "verdict.md").write_text(render.to_markdown(result), encoding="utf-8")
        env = os.environ | {"GITHUB_EVENT_PATH": str(tmp_path / "event.json"), "GITHUB_REPOSITORY": "o/r", "GITHUB_TOKEN": token,
                            "GITHUB_API_URL": f"http://127.0.0.1:{github.server_address[1]}", "GITHUB_WORKFLOW": "bench", "GITHUB_JOB": job,
                            "no_proxy": "127.0.0.1"}
        return subprocess.run([sys.executable, str(FOLDER / "comment.py"), "verdict.json", "verdict.md"], cwd=tmp_path, env=env,
                              capture_output=True, text=True)
    return run


def result(verdict):
    return render.Result([judge.Row("bench/bench_a.py::test_a", 1.0, Estimate(1.2, 1.1, 1.3, 12), Estimate(1.0, 0.99, 1.01, 12), 0.05, verdict)])


def test_one_comment_is_posted_when_something_moved_and_then_updated(post, github):
    assert post(result(judge.OK)).stdout.strip() == "nothing moved, no comment" and len(github.comments) == 150
    assert post(result(judge.REGRESSED)).stdout.strip() == "posted a comment" and len(github.comments) == 151
    first = github.comments[-1]["body"].splitlines()
    assert first[0].startswith("<!-- fastnet compare: bench compare") and first[1].startswith("## ❌ Benchmarks: regressed (1 regressed)")
    assert post(result(judge.OK)).stdout.strip() == "updated comment 1000" and len(github.comments) == 151
    assert "✅ Benchmarks: ok" in github.comments[-1]["body"]
    post(result(judge.FASTER), job="other")  # another job has a comment of its own
    assert len(github.comments) == 152


def test_an_event_without_a_pull_request_gets_no_comment(post, github):
    assert post(result(judge.REGRESSED), event={"ref": "refs/heads/main"}).stdout.strip() == "no pull request, no comment"
    assert post(result(judge.REGRESSED), event={"issue": {"number": 2}}).stdout.strip() == "no pull request, no comment"
    assert comment.pull_request({"issue": {"number": 2, "pull_request": {}}}) == 2


def test_a_token_that_may_not_write_is_explained(post):
    done = post(result(judge.REGRESSED), token="reader")
    assert done.returncode == 1 and "GitHub answered 403" in done.stderr and "pull-requests: write" in done.stderr


def test_a_long_comment_loses_its_folded_tables():
    sure = Estimate(1.0, 0.99, 1.01, 12)
    rows = [judge.Row(f"bench/bench_a.py::test_{number}", 1.0, sure, sure, 0.05, judge.OK) for number in range(2000)]
    text = comment.body("<!-- x -->", render.to_markdown(render.Result(rows)))
    assert len(text) < 65_536 and text.startswith("<!-- x -->\n## ✅") and text.endswith("has all of it.")


@pytest.mark.skipif(not shutil.which("bash") or sys.platform == "win32", reason="needs bash")
@pytest.mark.parametrize(("code", "tolerated", "ends"), [(0, "true", 0), (1, "true", 1), (2, "true", 2), (2, "false", 0), (1, "false", 1)])
def test_the_job_shows_the_verdict_and_ends_with_its_code(post, tmp_path, github, code, tolerated, ends):
    post(result(judge.OK))  # writes the event file
    fake = tmp_path / "gate" / "bin" / "python"
    fake.parent.mkdir(parents=True)
    verdict = json.dumps(render.to_json(result({0: judge.OK, 1: judge.REGRESSED, 2: judge.INCONCLUSIVE}[code])))
    fake.write_text(f"""#!/usr/bin/env bash
if [ "$1" = -m ]; then
  printf '%s\\n' "$@" > {tmp_path}/arguments
  echo '{verdict}' > "$RUNNER_TEMP/verdict.json"; echo '## said' > "$RUNNER_TEMP/verdict.md"; exit {code}
fi
exec {sys.executable} "$@"
""")
    fake.chmod(0o755)
    env = os.environ | {"RUNNER_TEMP": str(tmp_path), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"), "GITHUB_OUTPUT": str(tmp_path / "output"),
                        "GITHUB_ACTION_PATH": str(FOLDER), "BASE": "HEAD^1", "HEAD": "HEAD", "ARGS": "--only 'a or b'", "COMMENT": "true",
                        "GITHUB_TOKEN": "writer", "FAIL_ON_INCONCLUSIVE": tolerated, "GITHUB_EVENT_PATH": str(tmp_path / "event.json"),
                        "GITHUB_REPOSITORY": "o/r", "GITHUB_API_URL": f"http://127.0.0.1:{github.server_address[1]}", "no_proxy": "127.0.0.1"}
    done = subprocess.run(["bash", str(FOLDER / "run.sh")], env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == ends, done.stderr
    assert (tmp_path / "output").read_text() == f"verdict={['ok', 'regressed', 'inconclusive'][code]}\n"
    assert (tmp_path / "arguments").read_text().splitlines()[1:4] == ["fastnet", "compare", "HEAD^1"]
    assert (tmp_path / "arguments").read_text().splitlines()[-2:] == ["--only", "a or b"]
    assert len(github.comments) == 150 + (code != 0)


def test_the_action_uses_the_options_that_the_command_has():
    text = (FOLDER / "action.yml").read_text()
    inputs = set(re.findall(r"^  ([\w-]+):\n    description", text, re.MULTILINE)) - {"verdict"}
    assert inputs == set(re.findall(r"inputs\.([\w-]+)", text))
    variables = set(re.findall(r"^        ([A-Z_]+):", text, re.MULTILINE))
    assert set(re.findall(r"\$\{?([A-Z_]+)", (FOLDER / "run.sh").read_text())) <= variables | {"RUNNER_TEMP", "GITHUB_OUTPUT", "GITHUB_ACTION_PATH"}
