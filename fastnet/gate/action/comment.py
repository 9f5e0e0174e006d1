"""Keep one comment on a pull request up to date: ``python comment.py VERDICT.json VERDICT.md``

A comment is posted only when something moved, and the same one is updated by later runs, also when nothing moves any
more. Which pull request it is, the event file of GitHub Actions says; for an event without one, nothing is done. Needs
the standard library only.
"""
from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_LONGEST = 65_000  # GitHub refuses comments of more than 65,536 characters


class Comments:
    """The comments on one pull request."""

    def __init__(self, api: str, repository: str, number: int, token: str):
        self.base, self.token = f"{api}/repos/{repository}/issues", token
        self.list = f"{self.base}/{number}/comments"

    def find(self, marker: str) -> int | None:
        """The id of the comment that begins with the marker."""
        return next((comment["id"] for comment in self._all() if (comment["body"] or "").startswith(marker)), None)

    def create(self, body: str) -> None:
        self._call("POST", self.list, {"body": body})

    def update(self, comment: int, body: str) -> None:
        self._call("PATCH", f"{self.base}/comments/{comment}", {"body": body})

    def _all(self) -> Iterator[dict[str, Any]]:
        page = 1
        while found := self._call("GET", f"{self.list}?per_page=100&page={page}"):
            yield from found
            page += 1

    def _call(self, method: str, url: str, data: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/vnd.github+json",
                   "Content-Type": "application/json", "X-GitHub-Api-Version": "2022-11-28"}
        content = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(url, method=method, data=content, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or "null")


def pull_request(event: Mapping[str, Any]) -> int | None:
    """Its number, from the payload of a pull request's event or of a comment on one."""
    if "pull_request" in event:
        return int(event["pull_request"]["number"])
    issue = event.get("issue", {})
    return int(issue["number"]) if "pull_request" in issue else None


def body(marker: str, text: str) -> str:
    """The comment; folded tables go first if it is too long."""
    whole = f"{marker}\n{text}"
    if len(whole) <= _LONGEST:
        return whole
    short = whole.partition("<details>")[0][:_LONGEST].rpartition("\n")[0]
    return f"{short}\n\nToo long for a comment: the job's summary has all of it."


def main(arguments: list[str], environment: Mapping[str, str]) -> str:
    """Post, update or leave alone; return what was done."""
    verdict = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    number = pull_request(json.loads(Path(environment["GITHUB_EVENT_PATH"]).read_text(encoding="utf-8")))
    if number is None:
        return "no pull request, no comment"
    marker = f"<!-- fastnet compare: {environment.get('GITHUB_WORKFLOW', '')} {environment.get('GITHUB_JOB', '')} -->"
    api = environment.get("GITHUB_API_URL", "https://api.github.com")
    comments = Comments(api, environment["GITHUB_REPOSITORY"], number, environment["GITHUB_TOKEN"])
    old = comments.find(marker)
    text = body(marker, Path(arguments[1]).read_text(encoding="utf-8"))
    if old is not None:
        comments.update(old, text)
        return f"updated comment {old}"
    if not verdict.get("moved", True):
        return "nothing moved, no comment"
    comments.create(text)
    return "posted a comment"


if __name__ == "__main__":
    try:
        print(main(sys.argv[1:], os.environ))
    except urllib.error.HTTPError as failure:
        sys.exit(f"GitHub answered {failure.code} to {failure.url}: a pull request from a fork has a token that may not "
                 "write, and others need the permission pull-requests: write.")
